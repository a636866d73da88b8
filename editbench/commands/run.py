"""`editbench run`: one job or, with -m, a sweep, as a Hydra application."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
import yaml
from omegaconf import DictConfig

from editbench.configs import CONF, check_overrides, groups
from editbench.errors import EditbenchError
from editbench.sweep import LAST_SWEEP, hydra_job, read_outcomes, say, summarise

FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-name", "-cn", "--info", "-i"}

HELP = """usage: editbench run [-m] [group=option ...] [key=value ...]

Run one job: a generator, a method, an attribute, a seed. Its record goes to out/RUN_ID; a job that has its record
already is found, not repeated. With -m, comma-separated values make a sweep over their product; a sweep that is
started again runs only what is missing or failed.

examples:
  editbench run method=gradctrl attribute=smile
  editbench run -m method=gradctrl,interfacegan,random attribute=smile,eyeglasses,age
  editbench run -m method=gradctrl attribute=yaw seed=0,1,2 budget=demo out=runs/seeds
  editbench run method=gradctrl attribute=smile method.delta=0.3 starts.n=300
  editbench run -m +experiment=mnist_digits data=../shared/data method=gradctrl,interfacegan
  editbench run method=gradctrl attribute=hair_color target=blond
  editbench run --config-dir my_conf method=mine       with options of your own in my_conf/method/mine.yaml
  editbench run method=interfacegan --cfg job          print the configuration and stop

groups:  {groups}
keys:    {keys}
`editbench list` shows every option with a line each; `editbench report OUT` makes the tables and the page.
"""


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        keys = [key for key in yaml.safe_load((CONF / "run.yaml").read_text()) if key not in ("defaults", "hydra")]
        print(HELP.format(groups=", ".join(groups()), keys=", ".join(keys) + ", starts.*, engine.*, bank.*, method.*"))
        return 0
    argv = expand_experiment(argv)
    check_words(argv)
    return run_hydra(hydra_job, argv)


def expand_experiment(argv: list[str]) -> list[str]:
    """`experiment=x` and `+experiment=x` mean the same: the group has a null default that `+` could not override."""
    return [word[1:] if word.startswith("+experiment=") else word for word in argv]


def flags_first(argv: list[str]) -> list[str]:
    """Flags before overrides, in whatever order they were typed: Hydra's parser takes them only so."""
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(argv)
    for word in words:
        if word in FLAGS_WITH_VALUE:
            flags += [word, next(words, "")]
        else:
            (flags if word.startswith("-") else overrides).append(word)
    return flags + overrides


def check_words(argv: list[str]) -> None:
    """Check the overrides of a command line before Hydra sees it; its flags and their values are let through."""
    words = flags_first(argv)
    folders = [Path(value) for flag, value in zip(words, words[1:]) if flag in ("--config-dir", "-cd")]
    values = {i + 1 for i, flag in enumerate(words) if flag in FLAGS_WITH_VALUE}
    check_overrides([word for i, word in enumerate(words) if i not in values and not word.startswith("-")], folders)


def run_hydra(task, argv: list[str]) -> int:  # type: ignore[no-untyped-def]
    """Run a task under Hydra; 0 when nothing failed, 1 when something did, 130 on Ctrl-C."""
    failed = []

    def job(cfg: DictConfig) -> None:
        try:
            outcome = task(cfg)
            failed.append(outcome is not None and outcome.status == "failed")
        except EditbenchError as error:  # Hydra would print a traceback
            say(f"error: {error}")
            failed.append(True)

    sys.argv = ["editbench run", *flags_first(argv)]
    LAST_SWEEP.clear()
    interrupted = False
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")(job)()
    except KeyboardInterrupt:
        interrupted = True
    code = summarise(read_outcomes(LAST_SWEEP[0])) if LAST_SWEEP and LAST_SWEEP[0].exists() else int(any(failed))
    if interrupted:
        say("stopped: finished jobs and bank shards are kept; the same command goes on from here")
        return 130
    return code
