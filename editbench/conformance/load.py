"""From what a user types to an editor class: a file, a dotted name, or a method's YAML."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from omegaconf import OmegaConf

from editbench.base import user_code
from editbench.base.conf import read_yaml
from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.instantiate import build, plain
from editbench.run.compose import compose_config
from editbench.walk.editor import Editor

FORMS = "mine.py, mine.py:Class, package.module.Class or my_conf/method/mine.yaml"


class WrongUsage(EditbenchError):
    """What was named cannot be checked at all; the command ends with 2."""


def load_factory(target: str, settings: Sequence[str] = ()) -> Callable[[], Editor]:
    """What makes the editor that a user names.

    Args:
        target: one of FORMS.
        settings: 'key=value' each, constructor arguments.

    Raises:
        WrongUsage: there is no such file, or it cannot be imported.
        UnknownName: there is no such class or argument.
    """
    values = parse_settings(settings)
    path, _, name = target.partition(":")
    if path.endswith((".yaml", ".yml")):
        return _from_yaml(Path(path), values)
    if path.endswith(".py") or "/" in path:
        cls = choose_class(import_file(Path(path)), name, path)
    else:
        cls = _from_dotted_name(target, path, name)
    _check_settings(cls, values)
    return lambda: cls(**values)


def _from_dotted_name(target: str, path: str, name: str) -> type[Editor]:
    """The class of 'package.module.Class' or 'package.module:Class'."""
    module, _, last = path.rpartition(".")
    if name:
        module = path
        last = name
    if not module:
        raise WrongUsage(f"'{target}' is neither a file nor a dotted name: give {FORMS}")
    # The installed command does not have the working folder on its path, as `python -m` has.
    user_code.search(Path.cwd())
    return choose_class(_import(lambda: importlib.import_module(module), module), last, module)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Values as YAML reads them.

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
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise WrongUsage(f"--set {word}: {value} is not readable YAML") from error
    return values


# -- a module
def import_file(path: Path) -> ModuleType:
    """Import a file from its path; modules beside it are found.

    Raises:
        WrongUsage: there is no such file, or its code raises.
    """
    if not path.is_file():
        raise WrongUsage(f"{path}: no such file; give {FORMS}")
    path = path.resolve()
    # Methods often import a helper that lies beside them.
    user_code.search(path.parent)
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
        # Frames of this module and of the import system say nothing to a user.
        skip = (str(Path(__file__)), "<frozen", str(Path(importlib.__file__ or "").parent))
        frames = []
        for frame in traceback.extract_tb(error.__traceback__):
            if not frame.filename.startswith(skip):
                frames.append(frame)
        if not frames:
            raise WrongUsage(
                f"cannot import {what}: {type(error).__name__}: {error}; give {FORMS}"
            ) from error
        first = frames[0]
        raise WrongUsage(
            f"{first.filename}:{first.lineno}: {type(error).__name__}: {error}\n    {first.line}"
        ) from error


def choose_class(module: ModuleType, name: str, where: str) -> type[Editor]:
    """The editor class of a module.

    Args:
        module: imported.
        name: of the class; '' for the only one that is defined there.
        where: what the user typed, for messages.

    Raises:
        UnknownName: there is no class of this name.
        WrongUsage: without a name, the module holds none or several.
    """
    found = {}
    for key, value in vars(module).items():
        if inspect.isclass(value) and issubclass(value, Editor) and value is not Editor:
            found[key] = value
    if name:
        # A class that the module imported counts where it is named.
        if name not in found:
            raise UnknownName(f"editor of {where}", name, found)
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
                f"{where} holds several editors ({', '.join(own)}): say which, "
                f"{where}:{next(iter(whole or own))}"
            )
        own = whole
    if not own:
        raise WrongUsage(
            f"{where} holds no editor: write `class Mine(Editor)` with Editor from "
            "editbench.walk.editor, or name the class behind a colon if it is imported from "
            "elsewhere"
        )
    return next(iter(own.values()))


def _check_settings(cls: type[Editor], values: Mapping[str, object]) -> None:
    """Raise UnknownName for an argument that the constructor does not have."""
    parameters = inspect.signature(cls.__init__).parameters
    # A constructor with **kwargs may take any name; its own code will tell.
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [name for name in parameters if name != "self"]
    for key in values:
        if key not in known:
            raise UnknownName(f"argument of {cls.__name__}", key, known)


# -- a configuration
def _from_yaml(path: Path, values: Mapping[str, object]) -> Callable[[], Editor]:
    """What makes the editor of a method's YAML.

    In FOLDER/method/ it is composed as `editbench run --config-dir FOLDER` does. Modules are found
    in the working directory, beside the YAML, in FOLDER and beside FOLDER.
    """
    if not path.is_file():
        raise WrongUsage(f"{path}: no such file; give {FORMS}")
    folder = path.resolve().parent
    user_code.search(Path.cwd(), folder, folder.parent, folder.parent.parent)
    if folder.name == "method":
        config = compose_config([f"method={path.stem}"], [folder.parent]).method
    else:
        config = OmegaConf.create(read_yaml(path))
    if "_target_" not in config:
        raise WrongUsage(f"{path} has no _target_: name the class there, _target_: module.Class")
    known = [key for key in plain(config) if key != "_target_"]
    for key in values:
        if key not in known:
            raise UnknownName(f"key of {path}", key, known)
    # Composed configurations refuse new types of a value; `--set` may give a list for a number.
    OmegaConf.set_struct(config, False)
    config.update(dict(values))
    # Imported once before, so that an error of the module is not taken for the constructor's.
    module = str(config["_target_"]).rpartition(".")[0]
    _import(lambda: importlib.import_module(module), str(config["_target_"]))
    return lambda: build(config)
