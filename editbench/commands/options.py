"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

CONFIG_DIR = ("--config-dir", "-cd")


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


class DefaultsFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of an option in --help, where there is one that its text does not tell."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # None stands for a default that is chosen later, False for a flag that is not given.
        told = "(default" in (action.help or "")
        if told or action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)
