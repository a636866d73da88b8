"""`editbench run`: one job or, with -m, a sweep, as a Hydra application."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from editbench.base.conf import CONF, groups
from editbench.base.errors import EditbenchError
from editbench.base.files import explain_disk_errors
from editbench.run.compose import check_overrides
from editbench.run.launch import check_launcher
from editbench.run.sweep import LAST_SWEEP, finish_sweep, hydra_job, own_environment, say

FULL_ERROR = "HYDRA_FULL_ERROR"
FLAGS_WITH_VALUE = {
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--info",
    "-i",
}

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
  editbench run -m attribute=smile,age method=gradctrl,interfacegan hydra/launcher=joblib hydra.launcher.n_jobs=2
  editbench run method=interfacegan --cfg job          print the configuration and stop

groups:  {groups}
keys:    {keys}
`editbench list` shows every option with a line each; `editbench report OUT` makes the tables and the page.
"""


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        keys = [
            key
            for key in yaml.safe_load((CONF / "run.yaml").read_text())
            if key not in ("defaults", "hydra")
        ]
        print(
            HELP.format(
                groups=", ".join(groups()),
                keys=", ".join(keys) + ", starts.*, engine.*, bank.*, method.*",
            )
        )
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
    overrides, folders = split_words(argv)
    check_launcher(overrides, folders)
    check_overrides(overrides, folders)


def split_words(argv: list[str]) -> tuple[list[str], list[Path]]:
    """The overrides of a command line, and the configuration folders that it adds."""
    words = flags_first(argv)
    folders = [
        Path(value) for flag, value in zip(words, words[1:]) if flag in ("--config-dir", "-cd")
    ]
    values = {i + 1 for i, flag in enumerate(words) if flag in FLAGS_WITH_VALUE}
    return [
        word for i, word in enumerate(words) if i not in values and not word.startswith("-")
    ], folders


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
        with own_environment(), launcher_errors():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")(job)()
    except KeyboardInterrupt:
        interrupted = True
    code = finish_sweep(LAST_SWEEP[0], interrupted) if LAST_SWEEP else int(any(failed))
    if interrupted:
        say("stopped: finished jobs and bank shards are kept; the same command goes on from here")
        return 130
    return code


@contextmanager
def launcher_errors() -> Iterator[None]:
    """Say what Hydra or a launcher stumbled over in a line; HYDRA_FULL_ERROR=1 asks for the traceback."""
    asked = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # or Hydra would print its own and exit
    try:
        yield
    except Exception as error:
        if asked == "1":
            raise
        if isinstance(error, HydraException | OmegaConfBaseException):
            raise EditbenchError(
                f"{error}" + (f"\n{error.__cause__}" if error.__cause__ else "")
            ) from error
        if isinstance(error, OSError):
            with explain_disk_errors(Path(error.filename or ".")):
                raise
        if not LAST_SWEEP:
            raise
        say(
            f"the launcher stopped: {type(error).__name__}: {(str(error).splitlines() or [''])[0]} "
            f"({FULL_ERROR}=1 shows where)"
        )
    finally:
        if asked is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = asked
