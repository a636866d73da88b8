"""Options that several commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from editbench.base.conf import check_folders
from editbench.base.errors import UnknownName
from editbench.base.text import split_outside_brackets
from editbench.base.user_code import search_configuration

CONFIG_DIR = ("--config-dir", "-cd")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks, and shows the default of an option unless its text already does."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # None is a default that is chosen later, False a flag that was not given, an empty list an
        # option that may be repeated, and an empty text a list without names.
        says_default = "(default" in (action.help or "")
        if says_default or action.default is False or action.default in (None, [], ""):
            return action.help
        return super()._get_help_string(action)


class CommandParser(argparse.ArgumentParser):
    """A parser that reports an error in one line, and shows defaults in its help."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.formatter_class = HelpFormatter

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """As in argparse, but an unknown flag raises UnknownName, also within a subcommand."""
        found, rest = super().parse_known_args(*args, **options)
        self._refuse_flags(rest)
        return found, rest

    def parse_known_intermixed_args(self, *args: Any, **options: Any) -> Any:
        """As `parse_known_args`, which later versions of Python do not call here."""
        found, rest = super().parse_known_intermixed_args(*args, **options)
        self._refuse_flags(rest)
        return found, rest

    def _refuse_flags(self, words: Sequence[str]) -> None:
        for word in words:
            if word.startswith("-") and word.strip("-"):
                known = re.findall(r"(?<!\S)\[?(--?[a-z][\w-]*)", self.format_usage())
                raise UnknownName("flag", word.partition("=")[0], known, self.prog)

    def error(self, message: str) -> NoReturn:
        # Without the usage, which argparse would print first.
        self.exit(2, f"error: {message} (see `{self.prog} --help`)\n")


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option --config-dir to a parser."""
    parser.add_argument(
        *CONFIG_DIR,
        dest="config_dir",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="a folder with options of your own, such as FOLDER/method/NAME.yaml",
    )


def use_config_dir(folders: Sequence[Path]) -> None:
    """Make a user's own modules importable from the folders of --config-dir and their parents.

    This is for commands that compose no configuration but import a user's code: methods whose code
    is compared, and figures of metrics.

    Args:
        folders: given with --config-dir.

    Raises:
        BadFile: no such folder.
    """
    check_folders(folders)
    search_configuration(folders)


def split_names(text: str) -> list[str]:
    """The names in a text such as 'a,b', without the empty ones.

    Commas inside brackets are part of a name, such as the label of a variant.
    """
    names = split_outside_brackets(text, ",")
    return [name.strip() for name in names if name.strip()]


def examples_of(subcommand: str, examples: str) -> str:
    """The part of a command's examples that shows one of its subcommands.

    Args:
        subcommand: such as 'editbench bank info'.
        examples: of the command. Each begins with a line '  editbench ...', an empty line ends them.
    """
    shown: list[str] = []
    is_shown = False
    for line in examples.partition("examples:\n")[2].partition("\n\n")[0].splitlines():
        if line.startswith("  editbench"):
            is_shown = f"{line} ".startswith(f"  {subcommand} ")
        if is_shown:
            shown.append(line)
    return "\n".join(["examples:", *shown])


def add_subcommand(
    commands: argparse._SubParsersAction[Any], command: str, about: str, examples: str
) -> argparse.ArgumentParser:
    """Add a subcommand, whose help has its own examples.

    Args:
        commands: from `add_subparsers`.
        command: such as 'editbench human make'.
        about: what it does, for both helps.
        examples: of the whole command, see `examples_of`.
    """
    return commands.add_parser(
        command.rpartition(" ")[2],
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=examples_of(command, examples),
    )
