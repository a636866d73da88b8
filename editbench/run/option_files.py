"""Options that are given as YAML files: `method=my_editor.yaml` in place of a name."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from editbench.base.conf import groups, list_groups, option_names, read_yaml, yaml_text
from editbench.base.errors import BadFile, EditbenchError, no_such
from editbench.base.user_code import search_folders

YAML = (".yaml", ".yml")
# What stands between the options of a value, as in [a,b] and a,b.
BETWEEN = re.compile(r"[^\[\],]+")
# Names that Hydra's grammar takes. It knows letters of ASCII alone, and brackets mean something.
NAME = re.compile(r"[\w.+@|/\\%*? -]+", re.ASCII)
PACKAGE = "@package"  # of Hydra: where in the configuration a file belongs


def name_files(
    overrides: Sequence[str], folders: Sequence[Path] = ()
) -> tuple[list[str], list[Path]]:
    """Give the options that stand as files their names.

    A file FOLDER/GROUP/NAME.yaml makes FOLDER a configuration folder. Any other is copied into one
    that lasts as long as this process, or on after `keep_copies`.

    Args:
        overrides: words such as 'method=my_editor.yaml' or 'metric=[locality,mine.yaml]'.
        folders: the configuration folders so far.

    Returns:
        The words with names, and the folders that Hydra finds them in.

    Raises:
        BadFile: there is no such file, or it is no configuration.
        EditbenchError: its name is that of another option.
    """
    files: dict[tuple[str, str], Path] = {}  # group and name -> file
    words: list[str] = []
    for word in overrides:
        key, equals, value = word.partition("=")
        group = key.lstrip("+~").split("@")[0]
        # A mapping or an interpolation names no option.
        if equals and group in groups() and value[:1] not in ("{", "$"):
            value = _named(group, value, files)
        words.append(f"{key}{equals}{value}")
    more = list(folders)
    loose: dict[tuple[str, str], Path] = {}
    for (group, name), file in files.items():
        search_folders(file.parent)
        # Hydra looks for .yaml alone.
        if file.parent.name != group or file.suffix != ".yaml":
            loose[group, name] = file
        elif file.parent.parent not in [folder.absolute() for folder in more]:
            more.append(file.parent.parent)
    if loose:
        more.append(_folder_of(loose))
    return words, more


def check_content(group: str, file: Path) -> None:
    """Refuse a damaged file, whose message of Hydra would be long, and one that holds nothing, of
    which Hydra would tell what is missing elsewhere.

    Args:
        group: whose option it is.
        file: YAML.

    Raises:
        BadFile: with the file and the remedy.
    """
    if not read_yaml(file):
        raise BadFile(f"{file}: is empty; write the options of the {group} there, as key: value")


def check_place(group: str, file: Path) -> None:
    """Refuse a file of a group with several options a job that does not say where it belongs.

    Hydra would put its keys beside the options, where they are none.
    """
    name = file.stem
    if group in list_groups() and PACKAGE not in yaml_text(file):
        raise EditbenchError(
            f"{file} must begin with the line # @package {group}.{name}, since a job may have "
            f"several options of {group}"
        )


def _named(group: str, value: str, files: dict[tuple[str, str], Path]) -> str:
    """A value with names for files, which are added to `files`."""

    def name_of(found: re.Match[str]) -> str:
        text = found.group().strip()
        if not text.endswith(YAML):
            return found.group()
        file = Path(text).expanduser().absolute()
        if not file.is_file():
            raise BadFile(f"{group}={text}: {no_such('file', file)}; give a YAML file or a name")
        check_content(group, file)  # Hydra would name a copy of the file
        name = file.stem
        if not NAME.fullmatch(name):
            raise EditbenchError(
                f"{group}={text}: the name of an option may contain only a to z, digits, _ and -: "
                "rename the file"
            )
        if name in option_names(group):
            raise EditbenchError(
                f"{group}={text} has the name of an option of editbench: rename the file"
            )
        if files.setdefault((group, name), file) != file:
            raise EditbenchError(
                f"{group}: {file} and {files[group, name]} have the same name: rename one of them"
            )
        return name

    return BETWEEN.sub(name_of, value)


def _folder_of(files: dict[tuple[str, str], Path]) -> Path:
    """A configuration folder with copies of the files."""
    # Where it may be: a job of a cluster reads it too, on a machine with a /tmp of its own.
    here = Path.cwd() if os.access(Path.cwd(), os.W_OK) else None
    folder = Path(tempfile.mkdtemp(dir=here, prefix=".editbench-options-"))
    atexit.register(_remove_copies, folder)
    for (group, name), file in files.items():
        text = yaml_text(file)
        # The copy says itself where it belongs, as the file need not.
        if group in list_groups() and PACKAGE not in text:
            text = f"# @package {group}.{name}\n{text}"
        place = folder / group / f"{name}.yaml"
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return folder


def _remove_copies(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def keep_copies() -> None:
    """Leave the copies of files behind when this process ends: jobs that go on elsewhere read them
    when they begin.
    """
    atexit.unregister(_remove_copies)
