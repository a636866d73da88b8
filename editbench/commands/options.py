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
