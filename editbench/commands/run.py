"""`editbench run`: one job or, with -m, a sweep."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from editbench.base.conf import MAIN, groups, main_keys
from editbench.base.errors import EditbenchError
from editbench.commands import plan
from editbench.commands.command_line import CFG_KINDS, SHOWING, CommandLine
from editbench.commands.options import CONFIG_DIR

HELP = """usage: editbench run [-m] [group=option ...] [key=value ...]

Run one job: a generator, a method, an attribute and a seed. Its record is written to out/RUN_ID; a
job whose record exists is not repeated. With -m, comma-separated values make a sweep over their
product; if you start a sweep again, it runs only the jobs that are missing or failed.

examples:
  editbench run method=gradctrl attribute=smile
  editbench run -m method=gradctrl,interfacegan,random attribute=smile,eyeglasses,age
  editbench run -m method=gradctrl attribute=yaw seed=0,1,2 budget=demo out=runs/seeds
  editbench run method=gradctrl attribute=smile method.delta=0.3 starts.n=300       300 starts over all evaluated attributes
  editbench run -m experiment=mnist_digits data=FOLDER method=gradctrl,interfacegan
  editbench run method=gradctrl attribute=hair_color target=blond
  editbench run --config-dir my_conf method=mine       with options of your own in my_conf/method/mine.yaml
  editbench run method=my_editor.yaml scorer=photos/attributes.yaml         a YAML file in place of a name
  editbench run -m attribute=smile,age method=gradctrl,interfacegan hydra/launcher=joblib hydra.launcher.n_jobs=2
  editbench run method=interfacegan --cfg job          print the configuration and stop (with -m: of every job)
  editbench run --info defaults                        show how it is composed: all, config, defaults, plugins, searchpath
  editbench run -m method=random,sefa --dry-run        show what would run: the same as editbench plan
  eval "$(editbench run -sc install=bash)"             completion with TAB; also for zsh, and for fish with `| source`

A configuration can name any Python code (_target_), which is then run: use YAML files and
--config-dir folders only from people you trust.

exit code: 0; 1 if a job failed or cannot start; 2 for an unknown name of a method, an attribute, a
class or an option; 130 after Ctrl-C

groups:  {groups}
keys:    {keys}
`editbench list` shows every option, one per line; `editbench report OUT` makes the tables and the page.
"""
DRY_RUN = "--dry-run"  # runs `editbench plan` with the same words
COMPLETION = "-sc"  # Hydra's flag for completion in a shell
OWN = (*SHOWING, DRY_RUN, COMPLETION)  # flags that an error may suggest


def main(argv: list[str]) -> int:
    # Groups and keys are read from the YAML files, so that help does not wait for torch.
    if {"-h", "--help"} & set(argv):
        keys = ", ".join(main_keys())
        print(
            HELP.format(
                groups=", ".join(groups()),
                keys=f"{keys}, starts.*, engine.*, GROUP.* such as method.delta",
            )
        )
        return 0
    if COMPLETION in argv:
        from editbench.commands.completion import shell_script

        print(shell_script("".join(argv[argv.index(COMPLETION) + 1 :][:1])), end="")
        return 0
    if DRY_RUN in argv:
        return dry_run([word for word in argv if word != DRY_RUN])
    typed = CommandLine.parse(argv, own=OWN)
    line = typed.with_names()
    line.check()
    if line.flags:
        return show_config(line)
    from editbench.run.sweep import run_hydra
    from editbench.run.sweep_summary import again_command
    from editbench.run.task import job_task

    def again(failed: Sequence[Sequence[str]], jobs: Sequence[Sequence[str]]) -> str:
        # YAML files among the words have other names in the jobs, so the whole command is repeated.
        if typed.overrides != line.overrides:
            return shlex.join(["editbench", "run", *argv])
        flags = [word for folder in typed.folders for word in (CONFIG_DIR[0], str(folder))]
        return again_command(["editbench", "run", *flags, "-m"], typed.overrides, failed, jobs)

    return run_hydra(job_task, line.overrides, line.folders, line.sweep, again)


def dry_run(argv: list[str]) -> int:
    """Run `editbench plan` with the same words; without -m they must describe one job."""
    from editbench.run.overrides import check_single

    line = CommandLine.parse([word for word in argv if word != plan.JSON], own=OWN)
    if not line.sweep:
        check_single(line.overrides)
    return plan.main(argv)


def show_config(line: CommandLine) -> int:
    """Print the configuration (--cfg), or how Hydra composes it (--info)."""
    from hydra.types import RunMode

    from editbench.run.compose import compose_master
    from editbench.run.overrides import check_single, hydra_application

    kind = line.flag("--cfg", "-c")
    info = line.flag("--info", "-i")
    # --package and --resolve only change what --cfg prints.
    if kind is None and info is None:
        raise EditbenchError(f"{line.shows} goes with --cfg job (see `editbench run --help`)")
    if kind is not None and kind not in CFG_KINDS:
        raise EditbenchError(f"--cfg {kind} must be one of {', '.join(CFG_KINDS)}")
    # Hydra's own --cfg rejects the words of a sweep, so each job is composed separately below.
    if not line.sweep:
        check_single(line.overrides)
    with hydra_application(line.folders, line.overrides) as hydra:
        if kind is None:
            mode = RunMode.MULTIRUN if line.sweep else RunMode.RUN
            with _logging_as_before():
                hydra.show_info(info, MAIN, line.overrides, mode)
            return 0
        jobs = [line.overrides]
        if line.sweep:
            _, jobs = compose_master(hydra.config_loader, line.overrides)
        for job in jobs:
            if line.sweep:
                print(f"--- # {' '.join(job)}")  # one YAML document per job
            try:
                hydra.show_cfg(
                    config_name=MAIN,
                    overrides=job,
                    cfg_type=kind,
                    package=line.flag("--package", "-p"),
                    resolve=line.flag("--resolve") is not None,
                )
            except SystemExit:  # from Hydra, after its message that there is no such package
                return 1
    return 0


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """Restore the root logger, which Hydra configures to print everything."""
    root = logging.getLogger()
    level = root.level
    handlers = list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
