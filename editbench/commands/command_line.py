"""The words of the commands that compose a configuration: flags, overrides, folders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from editbench.base.errors import EditbenchError, UnknownName
from editbench.commands.options import CONFIG_DIR

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
INFO_KINDS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
INFO = ("--info", "-i")
CFG_KINDS = ("job", "hydra", "all")  # values of --cfg


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
    def parse(
        cls, argv: list[str], command: str = "editbench run", own: Collection[str] = ()
    ) -> CommandLine:
        """Sort the words.

        Args:
            argv: of the command, without its own flags.
            command: whose words they are.
            own: its own flags, which an error may suggest.

        Raises:
            UnknownName: no such flag.
            EditbenchError: a flag lacks its value.
        """
        overrides: list[str] = []
        folders: list[Path] = []
        flags: dict[str, str] = {}
        sweep = False
        # Not argparse: it takes abbreviated flags, and prints a usage of its own beside an error.
        words = list(split_values(argv, (*CONFIG_DIR, *SHOWING)))
        while words:
            word = words.pop(0)
            if word in SWEEP:
                sweep = True
            elif word in CONFIG_DIR:
                folders.append(Path(_value_of(word, words, command)))
            elif word in INFO and not (words and words[0] in INFO_KINDS):
                flags[word] = INFO_KINDS[0]  # Hydra's own value where none is given
            elif word in SHOWING:
                flags[word] = _value_of(word, words, command) if SHOWING[word] else "true"
            elif word.startswith("-"):
                known = (*SWEEP, *CONFIG_DIR, *own, "--help")
                raise UnknownName("flag", word.partition("=")[0], known, command)
            else:
                overrides.append(_without_plus(word))
        return cls(overrides, folders, sweep, flags)

    @property
    def shows(self) -> str:
        """The first flag that prints something instead of running; '' where there is none."""
        return next(iter(self.flags), "")

    def check(self) -> None:
        """Refuse wrong names, with the nearest right one, before Hydra sees them."""
        # Imported here: `--help` should not wait for Hydra.
        from editbench.run.launch import check_launcher
        from editbench.run.overrides import check_overrides

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


def _value_of(flag: str, words: list[str], command: str) -> str:
    """Take the value of a flag from the words behind it."""
    value = words.pop(0) if words else ""
    if not value:
        raise EditbenchError(f"{flag} needs a value (see `{command} --help`)")
    return value


def _without_plus(word: str) -> str:
    """`+experiment=x` as `experiment=x`: the group has a null default, which `+` cannot
    override.
    """
    return word[1:] if word.startswith("+experiment=") else word


def split_values(words: Sequence[str], flags: Collection[str]) -> Iterator[str]:
    """Split `--flag=value` into two words; all other words stay as they are.

    Args:
        words: of the command line.
        flags: those that take a value.
    """
    for word in words:
        flag, equals, value = word.partition("=")
        # Overrides of the configuration have an equals sign too.
        if equals and flag in flags and flag.startswith("--"):
            yield flag
            word = value
        yield word
