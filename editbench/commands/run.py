"""`editbench run`: one job or, with -m, a sweep."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from editbench.base.conf import MAIN, groups, main_keys
from editbench.base.errors import EditbenchError
from editbench.commands.options import CONFIG_DIR

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
  editbench run --info defaults                        how it is composed: all, config, defaults, plugins, searchpath
  editbench run -m method=random,sefa --dry-run        what would run, and what is there: editbench plan
  eval "$(editbench run -sc install=bash)"             complete with TAB; also zsh, and fish with `| source`

A configuration can name any Python (_target_), which is then run: use --config-dir, and YAML files of others,
only from people you trust.

groups:  {groups}
keys:    {keys}
`editbench list` shows every option with a line each; `editbench report OUT` makes the tables and the page.
"""
SWEEP = ("-m", "--multirun")
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
INFO_KINDS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
INFO = ("--info", "-i")
DRY_RUN = "--dry-run"  # `editbench plan` with the same words
COMPLETION = "-sc"  # of Hydra: the script of a shell that completes the command line


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
        words = _Words(_split_values(argv))
        for word in words:
            if word in SWEEP:
                sweep = True
            elif word in CONFIG_DIR:
                folders.append(Path(_value_of(word, next(words, ""))))
            elif word in INFO and words.peek() not in INFO_KINDS:
                flags[word] = INFO_KINDS[0]  # Hydra's own value where none is given
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


class _Words:
    """Words of a command line, one after the other, with a look at the next one."""

    def __init__(self, words: Iterable[str]) -> None:
        self._rest = list(words)

    def __iter__(self) -> _Words:
        return self

    def __next__(self) -> str:
        if not self._rest:
            raise StopIteration
        return self._rest.pop(0)

    def peek(self) -> str:
        """The next word, which stays; '' at the end."""
        return self._rest[0] if self._rest else ""


def _split_values(argv: list[str]) -> Iterator[str]:
    """Words, with `--flag=value` as two."""
    for word in argv:
        flag, equals, value = word.partition("=")
        if equals and (flag in CONFIG_DIR or flag in SHOWING) and flag.startswith("--"):
            yield flag
            word = value
        yield word


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
    if COMPLETION in argv:
        from editbench.commands.completion import shell_script

        print(shell_script("".join(argv[argv.index(COMPLETION) + 1 :][:1])), end="")
        return 0
    if DRY_RUN in argv:
        return dry_run([word for word in argv if word != DRY_RUN])
    typed = CommandLine.parse(argv)
    line = typed.with_names()
    line.check()
    if line.flags:
        return show(line)
    from editbench.run.follow import again_command
    from editbench.run.sweep import job_task, run_hydra

    def again(failed: Sequence[Sequence[str]], jobs: Sequence[Sequence[str]]) -> str:
        # Values that stand as files have other names in the jobs: then it is the same command.
        if typed.overrides != line.overrides:
            return shlex.join(["editbench", "run", *argv])
        flags = [word for folder in typed.folders for word in (CONFIG_DIR[0], str(folder))]
        return again_command(["editbench", "run", *flags, "-m"], typed.overrides, failed, jobs)

    return run_hydra(job_task, line.overrides, line.folders, line.sweep, again)


def dry_run(argv: list[str]) -> int:
    """What the same words would run: `editbench plan`, of one job where -m is not given."""
    # Not imported: the plan reads its words with the class above.
    from editbench.cli import run_command
    from editbench.run.compose import check_single

    line = CommandLine.parse([word for word in argv if word != "--json"])
    if not line.sweep:
        check_single(line.overrides)
    return run_command(["plan", *argv])


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
            with _logging_as_before():
                hydra.show_info(info, MAIN, line.overrides, mode)
            return 0
        jobs = [line.overrides]
        if line.sweep:
            # The words of each job are composed apart, as the sweep itself does.
            _, jobs = compose_master(hydra.config_loader, line.overrides)
        for job in jobs:
            if line.sweep:
                print(f"--- # {' '.join(job)}")  # one YAML document a job
            try:
                hydra.show_cfg(
                    config_name=MAIN,
                    overrides=job,
                    cfg_type=kind,
                    package=line.flag("--package", "-p"),
                    resolve=line.flag("--resolve") is not None,
                )
            except SystemExit:  # Hydra's, which has said that there is no such package
                return 1
    return 0


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """Put the root logger back, which Hydra makes print everything."""
    root = logging.getLogger()
    level = root.level
    handlers = list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
