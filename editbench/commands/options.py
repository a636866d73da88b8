"""Options that several commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from editbench.base.conf import check_folders
from editbench.base.errors import UnknownName
from editbench.base.user_code import search_configuration

CONFIG_DIR = ("--config-dir", "-cd")


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others of the command, and which keeps the lines
    of its examples."""

    def __init__(self, *args: Any, **options: Any) -> None:
        if "epilog" in options:
            options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """As of argparse, and an unknown flag raises UnknownName; also within a subcommand."""
        found, rest = super().parse_known_args(*args, **options)
        self._refuse_flags(rest)
        return found, rest

    def parse_known_intermixed_args(self, *args: Any, **options: Any) -> Any:
        """As `parse_known_args`, which later versions of Python do not call for it."""
        found, rest = super().parse_known_intermixed_args(*args, **options)
        self._refuse_flags(rest)
        return found, rest

    def _refuse_flags(self, words: Sequence[str]) -> None:
        for word in words:
            if word.startswith("-") and word.strip("-"):
                known = re.findall(r"(?<!\S)\[?(--?[a-z][\w-]*)", self.format_usage())
                raise UnknownName("flag", word.partition("=")[0], known, self.prog)

    def error(self, message: str) -> NoReturn:
        # argparse would print every option before it.
        self.exit(2, f"error: {message} (see `{self.prog} --help`)\n")


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """The option --config-dir of a command that composes a configuration."""
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
    """Find modules of one's own in the folders of --config-dir and beside them, for a command that
    composes no configuration: methods whose code is compared, metrics with figures.

    Args:
        folders: of --config-dir.

    Raises:
        BadFile: no such folder.
    """
    check_folders(folders)
    search_configuration(folders)


class DefaultsFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of an option in --help, where there is one that its text does not tell."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # None stands for a default that is chosen later, False for a flag that is not given, and
        # an empty list for an option that may be repeated.
        says_default = "(default" in (action.help or "")
        if (
            says_default
            or action.default is None
            or action.default is False
            or action.default == []
        ):
            return action.help
        return super()._get_help_string(action)
