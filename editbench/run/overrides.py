"""Checks of the words of a command line, and the setup of Hydra to compose them.

Hydra is used through its public modules, see `hydra_application`. Nothing here imports torch, so a
wrong name is reported at once.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, OmegaConfBaseException

from editbench.base.conf import (
    CONF,
    LABELS,
    MAIN,
    check_folders,
    default_option,
    groups,
    known_keys,
    list_groups,
    main_keys,
    option_names,
    unreadable,
)
from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.user_code import search_configuration
from editbench.base.validation import arguments_of, load_target
from editbench.run.option_files import check_content, check_place
from editbench.run.record import MOVED_STARTS, moved_attributes
from editbench.run.settings import NO_INVERSION, Settings

NUMBER = "job_number"  # key that a sweep adds to the words of each job: its number in the sweep
# Keys that have no effect without an inversion, and keys that only a new bank reads.
IMAGES = ("inversion.images", "inversion.path")
OF_NEW_BANKS = ("bank.n", "bank.seed", "bank.fit", "bank.tune")
HYDRA_VERSION = "1.3"  # whose defaults the configuration is written for


# -- Hydra ---------------------------------------------------------------------------------------
@contextmanager
def hydra_application(more: Sequence[Path] = (), overrides: Sequence[str] = ()) -> Iterator[Any]:
    """Set Hydra up with the project's configuration and a user's folders, and undo it afterwards.

    `hydra.main` reads sys.argv, and the functions that it calls are private. The public
    `initialize_config_dir` creates the same object as `hydra.main`, and GlobalHydra returns it.

    Args:
        more: a user's own configuration folders.
        overrides: words that are composed within the block, checked by `check_overrides`. If Hydra
            rejects a key of theirs, the error has the nearest one.

    Yields:
        Hydra's application object, with `run`, `show_cfg` and a `config_loader`.

    Raises:
        BadFile: no such folder, or a file in it is not readable YAML.
        UnknownName: a word has a key that does not exist.
        EditbenchError: Hydra or OmegaConf raised an error within the block.
    """
    check_folders(more)
    # Stays importable, since what the configuration names is built after this block.
    search_configuration(more)
    # An earlier setup, such as in a notebook, is restored at the end.
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), job_name="editbench", version_base=HYDRA_VERSION):
            hydra: Any = GlobalHydra.instance().hydra
            if more:
                hydra.config_loader = _loader_with(hydra.config_loader, more)
            yield hydra
    except yaml.YAMLError as error:
        # In a file that no word names, such as a preset. Hydra passes the error on.
        raise unreadable(_file_of(error), error) from error
    except (HydraException, OmegaConfBaseException) as error:
        # Hydra's message about an unknown key is long and does not suggest another one.
        check_keys(overrides, more)
        raise _not_composed(error) from error
    finally:
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


def _loader_with(loader: ConfigLoader, folders: Sequence[Path]) -> ConfigLoader:
    """A loader that also searches the folders, after our own.

    The override `hydra.searchpath` is not enough, since `glob` in a sweep ignores it.
    """
    path = loader.get_search_path()
    for folder in folders:
        # Where Hydra puts its own --config-dir too: before the schemas, which come last.
        last = SearchPathQuery(provider="schema")
        path.prepend("command-line", f"file://{folder.absolute()}", last)
    make_loader: Any = type(loader)
    return make_loader(path)


def _file_of(error: yaml.YAMLError) -> Path:
    """The file that Hydra was reading; its configuration folder if the error does not say."""
    mark = getattr(error, "problem_mark", None)
    return Path(mark.name) if mark is not None else CONF


def _not_composed(error: Exception) -> EditbenchError:
    """An error with the message of Hydra or OmegaConf, and that of its cause, in one line.

    Of a key that a launcher or sweeper lacks, it names the nearest one; Hydra's own message would
    advise to add the key.
    """
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError) and OmegaConf.is_dict(cause.parent_node):
        known = [str(name) for name in cause.parent_node if not str(name).startswith("_")]
        place, _, key = str(cause.full_key).rpartition(".")
        if key not in known:
            return UnknownName(f"option of '{place}'", key, known)
    lines = str(error).splitlines()
    if error.__cause__ is not None:
        # Hydra's own message often, but not always, repeats that of the cause.
        lines += [line for line in str(error.__cause__).splitlines() if line not in str(error)]
    # Lines about a value's position in Hydra's own classes do not help the user.
    reasons = [
        line.strip()
        for line in lines
        if line.strip()
        and not line.strip().startswith(("full_key:", "object_type=", "reference_type="))
    ]
    if isinstance(error, OverrideParseException):
        # In Hydra's grammar, only ASCII letters are allowed, and commas and brackets have a
        # meaning.
        reasons.append(
            "a value with other letters or signs stands in quotes: \"out='my runs (2)'\""
        )
    return EditbenchError(
        f"could not compose the configuration: {': '.join(dict.fromkeys(reasons))}"
    )


# -- wrong words ---------------------------------------------------------------------------------
def check_single(
    overrides: Sequence[str], why: str = "several values make a sweep, which needs -m"
) -> None:
    """Reject the words of a sweep for a command that runs one job.

    Hydra's own message recommends a list for every key; few accept one.

    Args:
        overrides: words of the command line.
        why: the reason in the message; the default is for a command that has -m.

    Raises:
        EditbenchError: a word has several values, or is no override.
    """
    parser = OverridesParser.create()
    try:
        parsed = parser.parse_overrides(list(overrides))
    except HydraException as error:
        raise _not_composed(error) from error
    for override in parsed:
        # Only Hydra's parser knows that a quoted value with a comma is no sweep.
        if override.is_sweep_override():
            key = override.get_key_element()
            remedy = f"for one job give {key} one value"
            if _may_take_list(key):
                _, _, value = str(override.input_line).partition("=")
                remedy += f", or a list in brackets if it takes one: '{key}=[{value}]'"
            raise EditbenchError(f"{override.input_line}: {why}; {remedy}")


def _may_take_list(key: str) -> bool:
    """Whether a list may be a value of a key, be it of options or of a component's values."""
    bare = key.lstrip("+")
    return "." in bare or bare == "evaluated" or bare in list_groups()


def check_overrides(overrides: Sequence[str], more: Sequence[Path] = ()) -> None:
    """Check the words of a command line before Hydra does, whose messages are long.

    Keys without `+` are checked when they are composed, see `hydra_application`.

    Args:
        overrides: words such as 'method=gradctrl' or 'starts.n=300'.
        more: a user's own configuration folders.

    Raises:
        UnknownName: a group option or a key that does not exist, with the nearest one.
        EditbenchError: a word that is no override, several options of a group that takes one, or a
            key with the name of a folder in `more`.
    """
    _sort_words(overrides, more)


def _sort_words(overrides: Sequence[str], more: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Check words one by one, and sort them.

    Returns:
        The words that choose options, without sweeps, and the keys of the words that give a value.
    """
    known_groups = groups()
    chosen: list[str] = []
    plain: list[str] = []
    for override in overrides:
        key, has_value, value = override.partition("=")
        # Without Hydra's prefixes (+ adds, ~ deletes) and the package after @.
        bare = key.lstrip("+~").split("@")[0]
        if bare == f"starts.{MOVED_STARTS}":
            raise EditbenchError(moved_attributes(value))
        if not has_value:
            if not key.startswith(("~", "-")):
                raise EditbenchError(
                    f"'{override}' is not an override: write key=value (see `editbench run --help`)"
                )
            continue
        _check_commas(override, value)
        if bare in known_groups:
            if key.startswith("+") and default_option(bare):
                raise EditbenchError(
                    f"{override}: a job already has an option of {bare}; write {bare}={value}"
                )
            options = _named_options(value)
            _check_options_exist(bare, options, more)
            if _is_list(value):
                _check_takes_several(bare, options)
                chosen.append(override)
            elif options:
                chosen.append(f"{key}={options[0]}")
        elif key.startswith("+"):
            # Hydra adds whatever follows a plus.
            _check_new_key(bare)
        elif key.startswith("hydra."):
            _check_hydra_key(bare.partition(".")[2])
        elif not key.startswith(("~", "hydra")):
            first = bare.partition(".")[0]
            # Deeper keys depend on the chosen options and are checked after composition.
            if first not in known_keys():
                raise _unknown_key(first)
            plain.append(bare)
        _check_no_folder(bare, more)
    return chosen, plain


def _check_no_folder(key: str, more: Sequence[Path]) -> None:
    """Reject a plain value if a configuration folder has a subfolder with the name of its key.

    Hydra takes such a subfolder for a group of options.
    """
    for folder in more:
        place = folder / key
        if place.is_dir() and key in main_keys():
            raise EditbenchError(
                f"{key}=... cannot be set, because Hydra takes the folder {place.absolute()} for a "
                f"group of options '{key}': rename that folder, or keep your options in a folder of "
                "their own, as in --config-dir my_conf"
            )


def _check_commas(override: str, value: str) -> None:
    """Reject a comma without a value next to it; Hydra's own message does not name the comma."""
    # Quoted and escaped characters are text; interpolations have other rules.
    signs = re.sub(r"\\.|'[^']*'|\"[^\"]*\"", "text", value)
    if "${" not in signs and re.search(r"(^|[,\[({])\s*,|,\s*([])}]|$)", signs):
        raise EditbenchError(
            f"{override}: a comma has no value beside it; remove the comma, or a blank next to it"
        )


def _is_list(value: str) -> bool:
    """Whether a value is one list of options, as in metric=[a,b], and not a sweep over lists."""
    return value.startswith("[") and value.endswith("]") and value.count("[") == 1


def _named_options(value: str) -> list[str]:
    """The options that a value names, as far as its text shows them.

    A mapping, an interpolation, a function such as choice(a,b) and a sweep over lists are left to
    Hydra.
    """
    if value[:1] in ("{", "$") or "(" in value:
        return []
    if value[:1] == "[" and not _is_list(value):
        return []
    parts = [part.strip() for part in value.strip("[]").split(",")]
    if _is_list(value):
        return [part for part in parts if part]
    return parts


class FolderNotGiven(UnknownName):
    """An option of the user, whose folder was not given.

    Args:
        group: of the option.
        name: of the option.
        folder: that has it.
    """

    def __init__(self, group: str, name: str, folder: Path) -> None:
        super().__init__(group, name, [])
        # The nearest of the known names would not help: this option exists.
        self.message = (
            f"unknown {group} '{name}', but {folder / group / name}.yaml exists: give --config-dir "
            f"{folder} (config_dirs in Python)"
        )


def _check_options_exist(group: str, names: Sequence[str], more: Sequence[Path]) -> None:
    known = option_names(group, more)
    ours = option_names(group)
    for name in names:
        if name not in known:
            folder = _folder_with(group, name, more)
            if folder is not None:
                raise FolderNotGiven(group, name, folder)
            raise UnknownName(group, name, known, advice=_advice_on_folders(group, more))
        places = {(folder / group / f"{name}.yaml").resolve() for folder in more}
        files = sorted(place for place in places if place.is_file())
        if len(files) > 1:
            raise EditbenchError(
                f"{' and '.join(map(str, files))} have the same name, and only one would be used: "
                "rename one of them"
            )
        for file in files:
            if name in ours:
                raise EditbenchError(
                    f"{file} has the name of an option of editbench, which would be used instead: "
                    "rename the file"
                )
            check_content(group, file)
            check_place(group, file)


def _folder_with(group: str, name: str, more: Sequence[Path]) -> Path | None:
    """A folder that should have been given with --config-dir, since it has the wanted option.

    Args:
        group: of the option.
        name: of the option.
        more: the configuration folders that were given; one may be a group's own folder.

    Returns:
        A folder in the current folder, or the parent of a given one; None if there is none.
    """
    # `glob` passes over folders that cannot be read.
    inside = sorted(Path().glob(f"*/{glob.escape(group)}/{glob.escape(name)}.yaml"))
    candidates = [file.parent.parent for file in inside] + [folder.parent for folder in more]
    for folder in candidates:
        if (folder / group / f"{name}.yaml").is_file():
            return folder
    return None


def _advice_on_folders(group: str, more: Sequence[Path]) -> str:
    """The usual reason why an option of the user is not found: its folder was not given.

    Args:
        group: of the option.
        more: the user's configuration folders.

    Returns:
        A sentence; '' if a folder has options of this group.
    """
    if not more:
        return "Options of your own need --config-dir FOLDER (config_dirs in Python)."
    if any((folder / group).is_dir() for folder in more):
        return ""
    listed = " and ".join(map(str, more))
    return f"--config-dir {listed}: no folder '{group}' in it, where options of your own belong."


def _check_takes_several(group: str, names: Sequence[str]) -> None:
    """Reject a list for a group that takes one option, since Hydra would merge the options."""
    if len(names) > 1 and group not in list_groups():
        words = ",".join(names)
        raise EditbenchError(
            f"{group}=[{words}]: a job takes one {group}; sweep with -m {group}={words}"
        )


def _check_new_key(key: str) -> None:
    """Check a key that `+` adds; deeper keys are checked later, against arguments of classes."""
    first, _, rest = key.partition(".")
    if first == "hydra":
        _check_hydra_key(rest)
    elif first not in known_keys():
        raise _unknown_key(first)
    elif first == NUMBER:
        raise EditbenchError(f"{NUMBER} is set by the sweep itself: leave it out")


def _unknown_key(name: str) -> UnknownName:
    """The error for a top-level key that a user cannot set."""
    return UnknownName("option", name, [*main_keys(), *groups(), "starts", "engine"])


def _check_hydra_key(key: str) -> None:
    """Reject a key that Hydra's own node does not have.

    Keys of launchers and sweepers, and of mappings such as hydra.job.env_set, are not known.
    """
    node: Any = OmegaConf.structured(HydraConf)
    path = "hydra"
    for part in key.split("."):
        if OmegaConf.get_type(node) in (None, dict):
            return
        names = [str(name) for name in node]
        if part not in names:
            raise UnknownName(f"option of '{path}'", part, names)
        path = f"{path}.{part}"
        node = OmegaConf.select(node, part, throw_on_missing=False)
        if not OmegaConf.is_dict(node):
            return


def check_keys(overrides: Sequence[str], more: Sequence[Path], of_sweep: bool = False) -> None:
    """Reject the first key that does not exist; the error has the nearest one.

    Args:
        overrides: words of one job.
        more: a user's own configuration folders.
        of_sweep: whether jobs differ in their options, so that the error has to name this job's.
    """
    chosen, keys = _sort_words(overrides, more)
    if not keys:
        return
    # Which keys exist depends on the chosen options: not every method has method.delta.
    with hydra_application(more):
        config = compose(MAIN, overrides=chosen)
    for key in keys:
        _check_option_is_chosen(key, config, more)
        node: object = config
        path: list[str] = []
        for part in key.split("."):
            if not OmegaConf.is_dict(node):
                break  # an index of a list, or a value: Hydra's own message is precise
            names = [str(name) for name in node]  # type: ignore[attr-defined]
            if part not in names:
                if path:
                    place = ".".join(path)
                    chosen_here = [word for word in chosen if word.partition("=")[0] == place]
                    named = chosen_here[-1] if of_sweep and chosen_here else f"'{place}'"
                    raise _unknown_option(place, part, node, named)
                raise _unknown_key(part)
            path.append(part)
            node = OmegaConf.select(config, ".".join(path), throw_on_missing=False)


def _check_option_is_chosen(key: str, config: DictConfig, more: Sequence[Path]) -> None:
    """Reject an option of a metric or observation that the job does not have.

    Args:
        key: the option, such as 'metric.locality.figure'.
        config: of the job.
        more: a user's own configuration folders.
    """
    group, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    if group not in list_groups() or name not in option_names(group, more):
        return
    # A group without options is missing from the configuration.
    chosen = list(config.get(group) or {})
    if name not in chosen:
        words = ",".join([*map(str, chosen), name])
        raise EditbenchError(
            f"{key} has no effect, since {group}={name} is not chosen: add {group}=[{words}]"
        )


def check_words_have_effect(jobs: Iterable[Settings], words: Iterable[str]) -> None:
    """Reject words that would change nothing: images that no job starts from, and options of a bank
    that already exists.

    Args:
        jobs: settings that cover every value of the words.
        words: overrides of the command line.

    Raises:
        EditbenchError: a word would silently have no effect.
    """
    jobs = list(jobs)
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key in IMAGES and value != "null" and all(job.inversion.is_none for job in jobs):
            raise EditbenchError(
                f"{word} has no effect with inversion={NO_INVERSION}: add inversion=folder"
            )
        if key in OF_NEW_BANKS and all(job.bank.path for job in jobs):
            raise EditbenchError(
                f"{word} has no effect with bank.path={jobs[0].bank.path}, a bank that is used as "
                "it is: leave one of them out"
            )


def _unknown_option(key: str, name: str, options: Any, named: str) -> EditbenchError:
    """The error for an option that a part of the configuration lacks.

    Args:
        key: of the part, such as 'method'.
        name: of the option.
        options: the options that the part has.
        named: the part in the message: 'method' in quotes, or method=sefa.
    """
    # A mapping that is empty in the YAML, such as method.paths, has no keys yet.
    if not options:
        return EditbenchError(
            f"{key} has no keys yet: give all at once, as in '+{key}={{{name}: ...}}'"
        )
    target = options.get("_target_")
    if target is not None:
        arguments, _ = arguments_of(load_target(f"{key}._target_", target))
        # Hydra knows the keys of the YAML, but not the arguments of the class.
        if name in arguments:
            return EditbenchError(
                f"the YAML of {named} has no {name}, which {target} takes: add it there, or write "
                f"+{key}.{name}=..."
            )
    # Labels are not suggested, since they are no arguments.
    known = [str(option) for option in options if option not in (*LABELS, "_target_")]
    return UnknownName(f"option of {named}", name, known)
