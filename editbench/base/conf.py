"""The configuration files: their location, and the groups with their options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml

from editbench.base.errors import BadFile, UnknownName, no_such
from editbench.base.text import read_text


def _conf_folder() -> Path:
    """The folder of the configuration files."""
    # Its location differs between a checkout and a wheel, so the package is located. It is not
    # imported, which would execute it only for a path.
    spec = find_spec("editbench.conf")
    if spec is None or spec.origin is None:
        raise BadFile("editbench.conf is not installed: install the package again")
    return Path(spec.origin).parent


CONF = _conf_folder()
MAIN = "run"  # name of the main configuration, CONF/run.yaml
LARGEST_YAML = 1 << 20  # bytes; the longest configuration here has 5,000
# The C parser gives the same values in a tenth of the time, but not every build of PyYAML has it.
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Keys of a group's YAML that only people read and that do not change the id of a run. `title` is
# the name in tables and figures, `titles` maps attributes to their names there, and `cite` is the
# key of an entry of references.bib, or a list of keys.
WORDING = ("about", "title", "titles", "cite")
# Keys that are not options of the class: wording, and keys that the report and the demo read.
# `floor` marks a baseline of random edits; `seeds` is the number of seeds that the demo runs of a
# method that draws its examples at random; `card` is the file of a generator's card.
LABELS = ("name", *WORDING, "demo", "figure", "floor", "seeds", "card")
# Keys of the main configuration that run.yaml does not declare: groups of a budget, an experiment's
# published numbers, the number of a part of `bank --parts`, and the number of a job in a sweep some
# of whose records exist.
UNDECLARED = ("starts", "engine", "published", "part", "job_number")


def group_options(group: str, more: Sequence[Path] = ()) -> dict[str, dict]:
    """Options of a group and their YAML, sorted by name.

    Args:
        group: name of a Hydra group, such as 'method'.
        more: a user's own configuration folders, whose options must have different names.
    """
    return {file.stem: read_yaml(file) for file in _group_files(group, more)}


def describe_options(group: str, more: Sequence[Path] = ()) -> dict[str, str]:
    """One line about each option of a group: the `about` of its YAML, or its first comment.

    Args:
        group: name of a Hydra group, such as 'method'.
        more: a user's own configuration folders.
    """
    found = {}
    for file in _group_files(group, more):
        about = read_yaml(file).get("about")
        found[file.stem] = str(about) if about else _headline(file)
    return found


def _headline(file: Path) -> str:
    """First comment in an option's YAML that is not for Hydra; '' if there is none."""
    for line in read_text(file).splitlines():
        if line.startswith("#") and "@package" not in line:
            return line[1:].strip()
    return ""


def option_names(group: str, more: Sequence[Path] = ()) -> list[str]:
    """Names of the options of a group, sorted; no file is read.

    Args:
        group: name of a Hydra group, such as 'method'.
        more: a user's own configuration folders.
    """
    return [file.stem for file in _group_files(group, more)]


def option_file(group: str, name: str, more: Sequence[Path] = ()) -> Path:
    """The YAML file of an option.

    Args:
        group: name of a Hydra group, such as 'method'.
        name: of the option.
        more: a user's own configuration folders.

    Raises:
        UnknownName: there is no such option.
    """
    files = {file.stem: file for file in _group_files(group, more)}
    if name not in files:
        raise UnknownName(group, name, files)
    return files[name]


def _group_files(group: str, more: Sequence[Path]) -> list[Path]:
    # Checked first, so that a misspelt folder is not reported as an unknown option.
    check_folders(more)
    files: list[Path] = []
    for folder in (CONF, *more):
        files += (folder / group).glob("*.yaml")
    # The order of a folder's entries differs between file systems.
    return sorted(files, key=attrgetter("stem"))


def groups() -> list[str]:
    """Names of the groups of options, sorted."""
    names = []
    # The folder also contains __pycache__.
    for path in CONF.iterdir():
        if path.is_dir() and not path.name.startswith(("_", ".")):
            names.append(path.name)
    return sorted(names)


def check_folders(folders: Sequence[Path]) -> None:
    """Check that configuration folders exist."""
    for folder in folders:
        if not folder.is_dir():
            raise BadFile(f"--config-dir {folder}: {no_such('folder', folder)}")


def main_keys() -> list[str]:
    """Keys of the main configuration that have plain values, in its order."""
    declared = read_yaml(CONF / f"{MAIN}.yaml")
    del declared["defaults"]  # the default options of groups
    del declared["hydra"]  # settings of Hydra
    return list(declared)


def list_groups() -> list[str]:
    """Groups of which a job may have any number of options, as in metric=[a,b]."""
    names = []
    for entry in read_yaml(CONF / f"{MAIN}.yaml")["defaults"]:
        if not isinstance(entry, dict):  # _self_
            continue
        for group, options in entry.items():
            if isinstance(options, list):
                names.append(str(group))
    return names


def default_option(group: str) -> str:
    """The option of a group that a job has by default; '' if it has none."""
    for entry in read_yaml(CONF / f"{MAIN}.yaml")["defaults"]:
        if isinstance(entry, dict) and isinstance(entry.get(group), str):
            return entry[group]
    return ""


def quoted(value: object) -> str:
    """Quote text as the value of an override; Hydra's grammar accepts any text in quotes.

    Args:
        value: a path or any other text.
    """
    # A backslash must be doubled only in front of a quote.
    text = re.sub(r"(\\+)(?='|$)", r"\1\1", str(value)).replace("'", "\\'")
    return f"'{text}'"


def known_keys() -> list[str]:
    """All keys that a job's configuration may have at its top level."""
    return [*main_keys(), *groups(), *UNDECLARED]


def read_yaml(file: Path) -> dict:
    """The mapping in a YAML file. Raises BadFile if it cannot be read or is not a mapping."""
    try:
        found = load_yaml(yaml_text(file)) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2026-13-45 looks like a date
        raise unreadable(file, error) from error
    if not isinstance(found, dict):
        raise BadFile(f"{file}: must be a mapping (key: value), but is a {type(found).__name__}")
    return found


def load_yaml(text: str) -> Any:
    """The value of a YAML text that editbench wrote itself, or that `yaml_text` has checked."""
    return yaml.load(text, Loader=_YAML_LOADER)


def yaml_text(file: Path) -> str:
    """The text of a YAML file that is not too large and has no aliases.

    An alias (*name) repeats the value that an anchor (&name) marks. Nine lines of nested aliases
    can expand to 10^9 values. They are not needed here, since ${key} refers to another key.

    Raises:
        BadFile: the file cannot be read, is too large, or has aliases.
    """
    try:
        if file.stat().st_size > LARGEST_YAML:
            raise BadFile(
                f"{file}: has more than {LARGEST_YAML:,} bytes, so it is not a configuration"
            )
        text = read_text(file)
        for event in yaml.parse(text, Loader=_YAML_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise BadFile(
                    f"{file}: line {event.start_mark.line + 1} has the alias *{event.anchor}, "
                    "which is not supported; repeat the value, or write ${key}"
                )
    except OSError as error:
        raise BadFile(f"{file} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise unreadable(file, error) from error
    return text


def unreadable(file: Path, error: yaml.YAMLError | ValueError) -> BadFile:
    """The error for a file that is not YAML, with the line and the remedy of common mistakes.

    Args:
        file: that was read.
        error: of the parser. Its line numbers begin at 0, those of the message at 1.
    """
    mark = getattr(error, "problem_mark", None)
    # The parser's own message repeats the file's path on each of its lines.
    what = getattr(error, "problem", None) or str(error)
    line = f", line {mark.line + 1}" if mark is not None else ""
    remedy = ""
    if "mapping values are not allowed" in what:
        remedy = '; put text that has a colon in quotes, as in about: "a walk: two steps"'
    elif "cannot start any token" in what:
        remedy = "; put text that begins with @, % or ` in quotes, and begin no line with a tab"
    elif isinstance(error, ValueError):
        remedy = "; put text that looks like a date in quotes"
    return BadFile(f"{file}{line} is not readable YAML: {what}{remedy}")
