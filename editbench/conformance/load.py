"""Finds the editor or metric that a user names: by a file, a dotted name, a YAML or an option."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf

from editbench.base import user_code
from editbench.base.conf import check_folders, option_file, option_names, read_yaml
from editbench.base.errors import EditbenchError, UnknownName, frames_of, no_such
from editbench.base.instantiate import build, plain
from editbench.networks.roles import ROLES
from editbench.run.compose import compose_config
from editbench.walk.editor import Editor
from editbench.walk.metric import Metric, ObservationMetric

FORMS = "mine.py, mine.py:Class, package.module.Class or my_conf/method/mine.yaml"
EDITOR = "editor"
METRIC = "metric"
BASES = (Editor, Metric, ObservationMetric)
GROUPS = {EDITOR: "method", METRIC: "metric"}  # kind -> group of options
# What is checked elsewhere.
OTHERS = (
    "this command checks editors and metrics; `editbench scorer check NAME` checks a scorer, and a "
    "generator is checked when it is loaded, as by `editbench list layers --generator NAME`"
)
FIGURE = "draw"  # function of a metric's module that draws its figure


class WrongUsage(EditbenchError):
    """What was named cannot be checked at all; the command ends with 2."""


@dataclass(frozen=True)
class Factory:
    """What makes the object to check.

    Args:
        make: gives a new one at every call.
        kind: EDITOR or METRIC.
        figure: of a metric, the function that draws it; None where there is none.
    """

    make: Callable[[], Any]
    kind: str
    figure: Callable[..., Any] | None = None

    def __call__(self) -> Any:
        """A new object."""
        return self.make()


def load_factory(target: str, settings: Sequence[str] = (), more: Sequence[Path] = ()) -> Factory:
    """What makes the editor or metric that a user names.

    Args:
        target: one of FORMS, or the name of an option.
        settings: 'key=value' each, constructor arguments.
        more: a user's own configuration folders.

    Raises:
        WrongUsage: there is no such file, or it cannot be imported.
        UnknownName: there is no such class or argument.
    """
    check_folders(more)
    user_code.search_configuration(more)
    values = parse_settings(settings)
    path, _, name = target.partition(":")
    if path.endswith((".yaml", ".yml")):
        return _from_yaml(Path(path), values, more)
    for group in GROUPS.values():
        if target in option_names(group, more):
            return _from_yaml(option_file(group, target, more), values, more)
    if path.endswith(".py") or "/" in path:
        module = import_file(Path(path))
        cls = choose_class(module, name, path)
    else:
        cls = _from_dotted_name(target, path, name)
        module = sys.modules[cls.__module__]
    _check_settings(cls, values)
    return Factory(lambda: cls(**values), kind_of(cls), getattr(module, FIGURE, None))


def kind_of(cls: object) -> str:
    """EDITOR or METRIC; a function that makes one counts as an editor."""
    if inspect.isclass(cls) and issubclass(cls, Metric):
        return METRIC
    return EDITOR


def _from_dotted_name(target: str, path: str, name: str) -> type:
    """The class of 'package.module.Class' or 'package.module:Class'."""
    module, _, last = path.rpartition(".")
    if name:
        module = path
        last = name
    if not module:
        raise WrongUsage(
            f"'{target}' is not a file, a dotted name or an option of "
            f"{' or '.join(GROUPS.values())}: give {FORMS}"
        )
    return choose_class(_import(lambda: importlib.import_module(module), module), last, module)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Values as the YAML of a job reads them.

    Args:
        settings: such as 'delta=0.3' or 'layers=[0, 4]'.

    Raises:
        WrongUsage: a word is not of this form.
    """
    values: dict[str, Any] = {}
    for word in settings:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise WrongUsage(f"--set {word}: write key=value, for example --set delta=0.3")
        try:
            # By OmegaConf, as in a run: PyYAML takes 1e-3 for text.
            parsed = OmegaConf.from_dotlist([word])
        except yaml.YAMLError as error:
            raise WrongUsage(f"--set {word}: {value} is not readable YAML") from error
        values |= cast(dict[str, Any], OmegaConf.to_container(parsed))
    return values


# -- a module -----------------------------------------------------------------------------------
def import_file(path: Path) -> ModuleType:
    """Import a file from its path; modules beside it are found.

    Raises:
        WrongUsage: there is no such file, or its code raises.
    """
    if not path.is_file():
        raise WrongUsage(f"{path}: {no_such('file', path)}; give {FORMS}")
    path = path.resolve()
    # Methods often import a helper that lies beside them.
    user_code.search_folders(path.parent)
    known = sys.modules.get(path.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == path:
        return known
    # A file of the name of a module that is there already must not take that module's place.
    free = known is None and path.stem not in sys.stdlib_module_names
    name = path.stem if free else f"conform_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader
    # Before the code runs, as `import` does it: dataclasses look their module up.
    sys.modules[name] = module
    try:
        _import(lambda: loader.exec_module(module), str(path))
    except WrongUsage:
        del sys.modules[name]
        raise
    return module


def _import(work: Callable[[], Any], what: str) -> Any:
    """Run an import; whatever it raises becomes WrongUsage with the user's own line."""
    try:
        return work()
    except SyntaxError as error:
        raise WrongUsage(
            f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}\n"
            f"    {(error.text or '').strip()}"
        ) from error
    except Exception as error:
        # Frames of this module and of the import system do not help a user.
        skip = (str(Path(__file__)), "<frozen", str(Path(importlib.__file__ or "").parent))
        frames = frames_of(error, lambda file: not file.startswith(skip))
        if not frames:
            raise WrongUsage(
                f"cannot import {what}: {type(error).__name__}: {error}; give {FORMS}"
            ) from error
        # The last line of the user's own code: a file may import another one, which fails.
        own = (frames_of(error, user_code.is_users_file) or frames[:1])[-1]
        raise WrongUsage(
            f"{own.filename}:{own.lineno}: {type(error).__name__}: {error}\n    {own.line}"
        ) from error


def choose_class(module: ModuleType, name: str, where: str) -> type:
    """The class of an editor or a metric in a module.

    Args:
        module: imported.
        name: of the class; '' for the only one that is defined there.
        where: what the user typed, for messages.

    Raises:
        UnknownName: there is no class of this name.
        WrongUsage: without a name, the module holds none or several.
    """
    found: dict[str, type] = {}
    for key, value in vars(module).items():
        if inspect.isclass(value) and issubclass(value, BASES) and value not in BASES:
            found[key] = value
    if name:
        # A class that the module imported counts where it is named.
        if name not in found:
            raise UnknownName(f"editor or metric of {where}", name, found)
        return found[name]
    own = {}
    for key, value in found.items():
        if value.__module__ == module.__name__ and not key.startswith("_"):
            own[key] = value
    if len(own) > 1:
        # An abstract base beside its one implementation leaves no doubt.
        whole = {key: value for key, value in own.items() if not inspect.isabstract(value)}
        if len(whole) != 1:
            raise WrongUsage(
                f"{where} holds several editors or metrics ({', '.join(own)}): say which, "
                f"{where}:{next(iter(whole or own))}"
            )
        own = whole
    if not own:
        raise WrongUsage(
            f"{where} contains no editor or metric: write `class Mine(Editor)` with Editor from "
            "editbench.walk.editor, or `class Mine(Metric)` with Metric from "
            "editbench.walk.metric, or name the class behind a colon if it is imported from "
            "elsewhere"
        )
    return next(iter(own.values()))


def _check_settings(cls: type, values: Mapping[str, object]) -> None:
    """Raise UnknownName for an argument that the constructor does not have."""
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    # A constructor with **kwargs may take any name; its own code will tell.
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [name for name in parameters if name != "self"]
    for key in values:
        if key not in known:
            raise UnknownName(f"argument of {cls.__name__}", key, known)


# -- a configuration ----------------------------------------------------------------------------
def _from_yaml(path: Path, values: Mapping[str, object], more: Sequence[Path]) -> Factory:
    """What makes the editor or metric of a YAML file, as a job would.

    Modules are found in the working directory, in FOLDER and beside FOLDER of
    FOLDER/method/NAME.yaml, and beside the YAML.
    """
    if not path.is_file():
        raise WrongUsage(f"{path}: {no_such('file', path)}; give {FORMS}")
    folder = path.resolve().parent
    user_code.search_folders(folder.parent, folder.parent.parent, folder)
    options = read_yaml(path)
    config = None
    if "_target_" not in options and "defaults" in options:
        config = _based_on_another(path, more)
    target = str((options if config is None else config).get("_target_", ""))
    if not target and set(ROLES) & set(options):
        raise WrongUsage(f"{path} is a scorer: {OTHERS}")
    if not target:
        raise WrongUsage(f"{path} has no _target_: give the class there, _target_: module.Class")
    # Imported first, so that an error of the module is not taken for the constructor's.
    module = target.rpartition(".")[0]
    _import(lambda: importlib.import_module(module), target)
    named = _import(lambda: get_object(target), target)
    if inspect.isclass(named) and not issubclass(named, BASES):
        raise WrongUsage(f"{path}: {target} is neither an editor nor a metric; {OTHERS}")
    kind = kind_of(named)
    if config is None:
        config = _composed(path, GROUPS[kind], more)
    known = [key for key in plain(config) if key != "_target_"]
    for key in values:
        if key not in known:
            raise UnknownName(f"key of {path}", key, known)
    # Composed configurations refuse new types of a value; `--set` may give a list for a number.
    OmegaConf.set_struct(config, False)
    config.update(dict(values))
    figure = config.get("figure")
    draw = None
    if figure is not None:
        draw = _import(lambda: get_object(str(figure)), str(figure))
    return Factory(lambda: build(config), kind, draw)


def _based_on_another(path: Path, more: Sequence[Path]) -> Any:
    """The composed option of a file that is based on another one; None where none is found."""
    # Hydra finds the other option in the same group, which is the name of the folder.
    folder = path.resolve().parent.name
    if folder in GROUPS.values():
        return _composed(path, folder, more)
    # A file elsewhere may be of either group.
    for group in GROUPS.values():
        with suppress(EditbenchError):
            return _composed(path, group, more)
    return None


def _composed(path: Path, group: str, more: Sequence[Path]) -> Any:
    """The part of a job's configuration that a YAML file gives."""
    word = str(path)
    # An option of editbench is chosen by its name, since a file may not have that name.
    if path.stem in option_names(group) and path.samefile(option_file(group, path.stem)):
        word = path.stem
    if group == GROUPS[METRIC]:
        # A job takes several metrics, each under a name, which need not be that of the file.
        (metric,) = compose_config([f"{group}=[{word}]"], more)[group].values()
        return metric
    return compose_config([f"{group}={word}"], more)[group]
