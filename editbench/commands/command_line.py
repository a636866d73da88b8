"""Parsing the command line of `run`, `plan` and `bank`: flags, overrides and folders."""

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
    """A parsed command line. Flags and overrides may be in any order.

    Args:
        overrides: words such as 'method=gradctrl'.
        folders: given with --config-dir.
        sweep: whether -m was given.
        flags: those of SHOWING that were given, with their values.
    """

    overrides: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    sweep: bool = False
    flags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, argv: list[str], command: str = "editbench run", own: Collection[str] = ()
    ) -> CommandLine:
        """Sort the words of a command line into flags, overrides and folders.

        Args:
            argv: the words, without flags that only this command has.
            command: name of the command, for messages.
            own: flags that only this command has, which an error may suggest.

        Raises:
            UnknownName: no such flag.
            EditbenchError: a flag lacks its value.
        """
        overrides: list[str] = []
        folders: list[Path] = []
        flags: dict[str, str] = {}
        sweep = False
        # Not argparse, which accepts abbreviated flags and prints its own usage with an error.
        words = list(split_values(argv, (*CONFIG_DIR, *SHOWING)))
        while words:
            word = words.pop(0)
            if word in SWEEP:
                sweep = True
            elif word in CONFIG_DIR:
                folders.append(Path(_value_of(word, words, command)))
            elif word in INFO and not (words and words[0] in INFO_KINDS):
                flags[word] = INFO_KINDS[0]  # Hydra's own default
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
        """The first flag that prints something instead of running; '' if there is none."""
        return next(iter(self.flags), "")

    def check(self) -> None:
        """Check the launcher and the overrides before Hydra sees them.

        Raises:
            UnknownName: a name does not exist, with the nearest one.
            EditbenchError: a word is wrong, or the launcher is not installed.
        """
        # Imported here, so that `--help` does not wait for Hydra.
        from editbench.run.launch import check_launcher
        from editbench.run.overrides import check_overrides

        check_launcher(self.overrides, self.folders)
        check_overrides(self.overrides, self.folders)

    def with_names(self) -> CommandLine:
        """The same command line, with names in place of YAML files, see `name_files`."""
        from editbench.run.option_files import name_files

        overrides, folders = name_files(self.overrides, self.folders)
        return replace(self, overrides=overrides, folders=folders)

    def flag(self, *names: str) -> str | None:
        """The value of a flag; None if it was not given under any of these names."""
        for name in names:
            if name in self.flags:
                return self.flags[name]
        return None


def _value_of(flag: str, words: list[str], command: str) -> str:
    """Remove the value of a flag from the words that follow it, and return it."""
    value = words.pop(0) if words else ""
    if not value:
        raise EditbenchError(f"{flag} needs a value (see `{command} --help`)")
    return value


def _without_plus(word: str) -> str:
    """Replace `+experiment=x` by `experiment=x`.

    The group `experiment` has a default, null, and Hydra's `+` cannot override a default.
    """
    return word[1:] if word.startswith("+experiment=") else word


def split_values(words: Sequence[str], flags: Collection[str]) -> Iterator[str]:
    """Split `--flag=value` into two words; all other words stay as they are.

    Args:
        words: of the command line.
        flags: the flags that take a value.
    """
    for word in words:
        flag, equals, value = word.partition("=")
        # Overrides contain an equals sign too, and are not split.
        if equals and flag in flags and flag.startswith("--"):
            yield flag
            word = value
        yield word
