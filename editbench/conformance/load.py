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

from editbench.base.conf import read_yaml
from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.instantiate import build, plain
from editbench.run.compose import compose_config
from editbench.walk.editor import Editor

FORMS = "mine.py, mine.py:Class, package.module.Class or my_conf/method/mine.yaml"


class WrongUsage(EditbenchError):
    """What was asked for cannot be checked at all; the command ends with 2."""


def load_factory(target: str, settings: Sequence[str] = ()) -> Callable[[], Editor]:
    """What makes the editor that a user names, with `settings` ('key=value') as constructor arguments.

    Raises WrongUsage (or UnknownName) where there is no such file, class or argument, or where it cannot be imported.
    """
    values = parse_settings(settings)
    path, _, name = target.partition(":")
    if path.endswith((".yaml", ".yml")):
        return _from_yaml(Path(path), values)
    if path.endswith(".py") or "/" in path:
        cls = choose_class(import_file(Path(path)), name, path)
    else:
        module, _, last = path.rpartition(".")
        if name:
            module, last = path, name
        if not module:
            raise WrongUsage(f"'{target}' is neither a file nor a dotted name: give {FORMS}")
        _reach(Path.cwd())
        cls = choose_class(_imported(lambda: importlib.import_module(module), module), last, module)
    _check_settings(cls, values)
    return lambda: cls(**values)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """['delta=0.3', 'layers=[0, 4]'] -> values as YAML reads them."""
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


# -- a module ----------------------------------------------------------------------------------------------------------
def import_file(path: Path) -> ModuleType:
    """Import a file from its path, with its folder on sys.path."""
    if not path.is_file():
        raise WrongUsage(f"{path}: no such file; give {FORMS}")
    path = path.resolve()
    _reach(path.parent)
    known = sys.modules.get(path.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == path:
        return known
    name = (
        path.stem
        if known is None and path.stem not in sys.stdlib_module_names
        else f"conform_{path.stem}"
    )
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sys.modules[name] = module
    try:
        _imported(lambda: loader.exec_module(module), str(path))
    except WrongUsage:
        del sys.modules[name]
        raise
    return module


def _reach(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _imported(work: Callable[[], Any], what: str) -> Any:
    try:
        return work()
    except SyntaxError as error:
        raise WrongUsage(
            f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}\n"
            f"    {(error.text or '').strip()}"
        ) from error
    except Exception as error:
        skip = (str(Path(__file__)), "<frozen", str(Path(importlib.__file__ or "").parent))
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(skip)
        ]
        if not frames:
            raise WrongUsage(
                f"cannot import {what}: {type(error).__name__}: {error}; give {FORMS}"
            ) from error
        lines = "\n".join(f"    {f.line}" for f in frames[:1])
        raise WrongUsage(
            f"{frames[0].filename}:{frames[0].lineno}: {type(error).__name__}: {error}\n{lines}"
        ) from error


def choose_class(module: ModuleType, name: str, where: str) -> type[Editor]:
    """The editor class of a module: the one named, or the only one that is defined there."""
    own = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Editor) and value is not Editor
    }
    if name:
        if name not in own:
            raise UnknownName(f"editor of {where}", name, own)
        return own[name]
    own = {
        key: value
        for key, value in own.items()
        if value.__module__ == module.__name__ and not key.startswith("_")
    }
    if len(own) > 1:
        whole = {key: value for key, value in own.items() if not inspect.isabstract(value)}
        if len(whole) != 1:
            raise WrongUsage(
                f"{where} holds several editors ({', '.join(own)}): say which, "
                f"{where}:{next(iter(whole or own))}"
            )
        own = whole
    if not own:
        raise WrongUsage(
            f"{where} holds no editor: write `class Mine(Editor)` with Editor from editbench.walk.editor, or "
            "name the class behind a colon if it is imported from elsewhere"
        )
    return next(iter(own.values()))


def _check_settings(cls: type[Editor], values: Mapping[str, object]) -> None:
    parameters = inspect.signature(cls.__init__).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [name for name in parameters if name != "self"]
    for key in values:
        if key not in known:
            raise UnknownName(f"argument of {cls.__name__}", key, known)


# -- a configuration ---------------------------------------------------------------------------------------------------
def _from_yaml(path: Path, values: Mapping[str, object]) -> Callable[[], Editor]:
    """A method's YAML. In FOLDER/method/ it is composed as `editbench run --config-dir FOLDER` does; modules are found
    in the working directory, beside the YAML, in FOLDER and beside FOLDER."""
    if not path.is_file():
        raise WrongUsage(f"{path}: no such file; give {FORMS}")
    folder = path.resolve().parent
    for place in (folder.parent.parent, folder.parent, folder, Path.cwd()):
        _reach(place)
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
    OmegaConf.set_struct(config, False)
    config.update(dict(values))
    _imported(
        lambda: importlib.import_module(str(config["_target_"]).rpartition(".")[0]),
        str(config["_target_"]),
    )
    return lambda: build(config)
