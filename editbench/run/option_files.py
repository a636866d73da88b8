"""Options that are given as YAML files: `method=my_editor.yaml` instead of a name."""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from editbench.base.conf import (
    groups,
    list_groups,
    option_names,
    quoted,
    read_yaml,
    unreadable,
    yaml_text,
)
from editbench.base.errors import BadFile, EditbenchError, no_such
from editbench.base.user_code import search_folders

YAML = (".yaml", ".yml")
# One option in a value such as [a,b] or a,b.
BETWEEN = re.compile(r"[^\[\],]+")
# Names that Hydra's grammar accepts: only ASCII letters, and no brackets.
NAME = re.compile(r"[\w.+@|/\\%*? -]+", re.ASCII)
MARKS = re.compile(r"""[\[\]{}(),'"$=]""")  # with a meaning in Hydra's grammar
PACKAGE = "@package"  # Hydra's directive for a file's place in the configuration
WHOLE_JOB = ("experiment", "budget")  # groups whose options set keys of all groups


def name_files(
    overrides: Sequence[str], folders: Sequence[Path] = ()
) -> tuple[list[str], list[Path]]:
    """Replace the files in overrides by names of options that Hydra can find.

    Values with letters that Hydra's grammar lacks, such as those of `out=läufe`, are quoted.

    For a file FOLDER/GROUP/NAME.yaml, FOLDER becomes a configuration folder. Any other file is
    copied into a temporary one, which is removed when this process ends, see `keep_copies`.

    Args:
        overrides: such as 'method=my_editor.yaml' or 'metric=[locality,mine.yaml]'.
        folders: other configuration folders.

    Returns:
        The overrides that Hydra can read, and all configuration folders.

    Raises:
        BadFile: a file does not exist, or is not a configuration.
        EditbenchError: a file's name is invalid or is that of another option.
    """
    files: dict[tuple[str, str], Path] = {}  # group and name -> file
    words: list[str] = []
    for word in overrides:
        key, equals, value = word.partition("=")
        group = key.lstrip("+~").split("@")[0]
        # A mapping or an interpolation is not the name of an option.
        if equals and group in groups() and value[:1] not in ("{", "$"):
            value = _named(group, value, files)
        words.append(f"{key}{equals}{_readable(value)}")
    more = list(folders)
    loose: dict[tuple[str, str], Path] = {}
    for (group, name), file in files.items():
        search_folders(file.parent)
        # Hydra finds only files with the ending .yaml.
        if file.parent.name != group or file.suffix != ".yaml":
            loose[group, name] = file
        elif file.parent.parent not in [folder.absolute() for folder in more]:
            more.append(file.parent.parent)
    if loose:
        more.append(_folder_of(loose))
    return words, more


def shell_override(key: str, path: Path) -> str:
    """An override with a path, as a word of a command that a user can paste into a shell.

    Args:
        key: of the override.
        path: its value; quoted for Hydra only if that is needed.
    """
    text = str(path)
    # `name_files` quotes letters beyond ASCII.
    if not _is_text(_readable(text), text):
        text = quoted(text)
    return shlex.quote(f"{key}={text}")


def _is_text(value: str, text: str) -> bool:
    """Whether Hydra reads a value as this text, and not as a number, a list, null or the like."""
    try:
        return OverridesParser.create().parse_override(f"key={value}").value() == text
    except HydraException:
        return False


def check_content(group: str, file: Path) -> None:
    """Check that a file is valid YAML, has no key twice, and is not empty.

    Hydra's message about a damaged file is long, that about a repeated key is a traceback, and
    about an empty file it names other places.

    Args:
        group: of the option.
        file: YAML.

    Raises:
        BadFile: it is damaged or empty, has a key twice, or a value that OmegaConf refuses.
    """
    if not read_yaml(file):
        raise BadFile(f"{file}: is empty; write the options of the {group} there, as key: value")
    try:
        # Unlike PyYAML, OmegaConf refuses repeated keys.
        OmegaConf.load(StringIO(yaml_text(file)))
    # A broken reference such as ${, or a kind of value that a configuration cannot have.
    except OmegaConfBaseException as error:
        raise BadFile(f"{file}: {str(error).splitlines()[0]}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise unreadable(file, error) from error


def check_place(group: str, file: Path) -> None:
    """Check that a file has the @package line that the options of its group need.

    Without it, Hydra would put the file's keys in the group itself.

    Args:
        group: of the option.
        file: YAML; its name without the ending is that of the option.

    Raises:
        EditbenchError: the line is missing.
    """
    package = _package(group, file.stem)
    if package and PACKAGE not in yaml_text(file):
        reason = f"a job may have several options of {group}"
        if group in WHOLE_JOB:
            reason = f"an option of {group} sets keys of the whole job"
        raise EditbenchError(
            f"{file} must begin with the line # @package {package}, since {reason}"
        )


def _package(group: str, name: str) -> str:
    """What an option's @package line must say; '' if it needs none."""
    if group in WHOLE_JOB:
        return "_global_"
    return f"{group}.{name}" if group in list_groups() else ""


def _named(group: str, value: str, files: dict[tuple[str, str], Path]) -> str:
    """A value with its files replaced by names; the files are added to `files`."""

    def name_of(found: re.Match[str]) -> str:
        # Hydra never sees the path, so it needs no quotes; elsewhere such values do.
        text = found.group().strip().strip("'\"")
        if not text.endswith(YAML):
            return found.group()
        file = Path(text).expanduser().absolute()
        if not file.is_file():
            raise BadFile(f"{group}={text}: {no_such('file', file)}; give a YAML file or a name")
        check_content(group, file)  # Hydra's message would have the path of a copy
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


def _readable(value: str) -> str:
    """A value, quoted if it is plain text with letters beyond ASCII.

    Hydra's grammar has such letters only within quotes, so no other value changes.
    """
    return value if value.isascii() or MARKS.search(value) else quoted(value)


def _folder_of(files: dict[tuple[str, str], Path]) -> Path:
    """A configuration folder with copies of the files."""
    # In the current folder if possible, since jobs on other machines of a cluster do not see this
    # machine's /tmp.
    here = Path.cwd() if os.access(Path.cwd(), os.W_OK) else None
    folder = Path(tempfile.mkdtemp(dir=here, prefix=".editbench-options-"))
    atexit.register(_remove_copies, folder)
    for (group, name), file in files.items():
        text = yaml_text(file)
        # The copy needs an @package line, which the user's file may lack.
        package = _package(group, name)
        if package and PACKAGE not in text:
            text = f"# @package {package}\n{text}"
        place = folder / group / f"{name}.yaml"
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return folder


def _remove_copies(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def keep_copies() -> None:
    """Do not remove the copies when this process ends, for jobs that start later elsewhere."""
    atexit.unregister(_remove_copies)
