"""`editbench run`: one job or, with -m, a sweep."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from editbench.base.conf import MAIN, groups, main_keys
from editbench.base.errors import EditbenchError

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
  editbench run method=my_editor.yaml scorer=photos/attributes.yaml         a YAML file wherever a name stands
  editbench run -m attribute=smile,age method=gradctrl,interfacegan hydra/launcher=joblib hydra.launcher.n_jobs=2
  editbench run method=interfacegan --cfg job          print the configuration and stop (with -m: of every job)

A configuration can name any Python (_target_), which is then run: use --config-dir, and YAML files of others,
only from people you trust.

groups:  {groups}
keys:    {keys}
`editbench list` shows every option with a line each; `editbench report OUT` makes the tables and the page.
"""
SWEEP = ("-m", "--multirun")
CONFIG_DIR = ("--config-dir", "-cd")
# Flags of Hydra that print something instead of running, and whether a value follows.
SHOWING = {
    "--cfg": True,
    "-c": True,
    "--package": True,
    "-p": True,
    "--resolve": False,
    "--info": True,
    "-i": True,
}
CFG_KINDS = ("job", "hydra", "all")


@dataclass(frozen=True)
class CommandLine:
    """The words of `run`, `plan` and `bank`. Flags and overrides may stand in any order.

    Args:
        overrides: words such as 'method=gradctrl'.
        folders: of --config-dir.
        sweep: whether -m was given.
        flags: those that print something instead of running, with their values.
    """

    overrides: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    sweep: bool = False
    flags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, argv: list[str]) -> CommandLine:
        """Sort the words. EditbenchError for a flag that does not exist or lacks its value."""
        overrides: list[str] = []
        folders: list[Path] = []
        flags: dict[str, str] = {}
        sweep = False
        # Not argparse: it takes abbreviated flags, and prints a usage of its own beside an error.
        words = _split_values(argv)
        for word in words:
            if word in SWEEP:
                sweep = True
            elif word in CONFIG_DIR:
                folders.append(Path(_value_of(word, next(words, ""))))
            elif word in SHOWING:
                flags[word] = _value_of(word, next(words, "")) if SHOWING[word] else "true"
            elif word.startswith("-"):
                raise EditbenchError(f"unknown flag {word} (see `editbench run --help`)")
            else:
                overrides.append(_without_plus(word))
        return cls(overrides, folders, sweep, flags)

    @property
    def shows(self) -> str:
        """The first flag that prints something instead of running; '' where there is none."""
        return next(iter(self.flags), "")

    def check(self) -> None:
        """Refuse wrong names, with the nearest right one, before Hydra sees them."""
        # Imported here: composing needs torch, and `--help` should not wait for it.
        from editbench.run.compose import check_overrides
        from editbench.run.launch import check_launcher

        check_launcher(self.overrides, self.folders)
        check_overrides(self.overrides, self.folders)

    def with_names(self) -> CommandLine:
        """The same with the names of options that stand as YAML files."""
        from editbench.run.option_files import name_files

        overrides, folders = name_files(self.overrides, self.folders)
        return replace(self, overrides=overrides, folders=folders)

    def flag(self, *names: str) -> str | None:
        """The value of a flag under any of its names."""
        for name in names:
            if name in self.flags:
                return self.flags[name]
        return None


def _split_values(argv: list[str]) -> Iterator[str]:
    """Words, with `--flag=value` as two."""
    for word in argv:
        flag, equals, value = word.partition("=")
        if equals and (flag in CONFIG_DIR or flag in SHOWING) and flag.startswith("--"):
            yield flag
            word = value
        yield word


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """The option --config-dir of a command that composes a configuration."""
    parser.add_argument(
        *CONFIG_DIR,
        dest="config_dir",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="a folder with options of your own, FOLDER/method/NAME.yaml and the like",
    )


def _value_of(flag: str, value: str) -> str:
    if not value:
        raise EditbenchError(f"{flag} needs a value (see `editbench run --help`)")
    return value


def _without_plus(word: str) -> str:
    """`+experiment=x` as `experiment=x`: the group has a null default, which `+` cannot
    override.
    """
    return word[1:] if word.startswith("+experiment=") else word


def main(argv: list[str]) -> int:
    # Read off the YAML files, so that help does not wait for torch.
    if {"-h", "--help"} & set(argv):
        keys = ", ".join(main_keys())
        print(
            HELP.format(
                groups=", ".join(groups()), keys=f"{keys}, starts.*, engine.*, bank.*, method.*"
            )
        )
        return 0
    line = CommandLine.parse(argv).with_names()
    line.check()
    if line.flags:
        return show(line)
    from editbench.run.sweep import job_task, run_hydra

    return run_hydra(job_task, line.overrides, line.folders, line.sweep)


def show(line: CommandLine) -> int:
    """Print the configuration (--cfg), or how Hydra composes it (--info)."""
    from hydra.types import RunMode

    from editbench.run.compose import check_single, compose_master, hydra_application

    kind = line.flag("--cfg", "-c")
    info = line.flag("--info", "-i")
    # --package and --resolve alone print nothing: they change what --cfg prints.
    if kind is None and info is None:
        raise EditbenchError(f"{line.shows} goes with --cfg job (see `editbench run --help`)")
    if kind is not None and kind not in CFG_KINDS:
        raise EditbenchError(f"--cfg {kind} must be one of {', '.join(CFG_KINDS)}")
    # Hydra's own --cfg composes one job and refuses the words of a sweep: see below.
    if not line.sweep:
        check_single(line.overrides)
    with hydra_application(line.folders) as hydra:
        if kind is None:
            mode = RunMode.MULTIRUN if line.sweep else RunMode.RUN
            hydra.show_info(info, MAIN, line.overrides, mode)
            return 0
        jobs = [line.overrides]
        if line.sweep:
            # The words of each job are composed apart, as the sweep itself does.
            _, jobs = compose_master(hydra.config_loader, line.overrides)
        for job in jobs:
            if line.sweep:
                print(f"--- # {' '.join(job)}")  # one YAML document a job
            hydra.show_cfg(
                config_name=MAIN,
                overrides=job,
                cfg_type=kind,
                package=line.flag("--package", "-p"),
                resolve=line.flag("--resolve") is not None,
            )
    return 0
