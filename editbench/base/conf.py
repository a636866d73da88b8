"""The configuration files: where they lie, and what the groups of options hold."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import yaml

from editbench.base.errors import BadFile

CONF = Path(str(find_spec("editbench.conf").origin)).parent


def group_options(group: str, more: Sequence[Path] = ()) -> dict[str, dict]:
    """Options of a group and their YAML, in order of their names; `more` are a user's own configuration folders."""
    files = [file for folder in (CONF, *more) for file in (folder / group).glob("*.yaml")]
    return {file.stem: read_yaml(file) for file in sorted(files, key=lambda file: file.stem)}


def groups() -> list[str]:
    return sorted(
        path.name
        for path in CONF.iterdir()
        if path.is_dir() and not path.name.startswith(("_", "."))
    )


def read_yaml(file: Path) -> dict:
    try:
        return yaml.safe_load(file.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadFile(f"{file} is not readable YAML: {error}") from error
