"""What a configuration and the code behind it amount to, as hashes."""

from __future__ import annotations

import inspect
import sys
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.files import digest, file_sha256
from editbench.base.instantiate import build
from editbench.networks.weights import tensors_digest

# Modules of editbench that decide no result.
BESIDE = tuple(
    f"editbench.{name}"
    for name in ("commands", "base.errors", "base.files", "base.progress", "report")
)


def content(config: object, nested: bool = False) -> object:
    """A configuration with the names of existing files replaced by what the files hold, a `path` that is a folder by
    the list of its files, and what its parts name by `_target_` told by the weights it comes with."""
    if isinstance(config, dict):
        out = {
            key: _listing(value)
            if key == "path" and isinstance(value, str) and Path(value).is_dir()
            else content(value, True)
            for key, value in config.items()
        }
        return (
            out | {"network": _weights_digest(OmegaConf.to_yaml(config))}
            if nested and "_target_" in config
            else out
        )
    if isinstance(config, list):
        return [content(value, True) for value in config]
    if isinstance(config, str) and "." in config and Path(config).is_file():
        return f"sha256:{file_sha256(Path(config))}"
    return config


def _listing(folder: str) -> str:
    """Hash of the names, sizes and times of all files below a folder."""
    files = [
        (str(file.relative_to(folder)), file.stat())
        for file in sorted(Path(folder).rglob("*"))
        if file.is_file()
    ]
    return f"folder:{digest([[name, about.st_size, about.st_mtime_ns] for name, about in files])}"


@lru_cache(maxsize=16)
def _weights_digest(text: str) -> str:
    try:
        part = build(cast(DictConfig, OmegaConf.create(text)))
    except EditbenchError:
        return ""  # the job will say so
    return tensors_digest(part.state_dict()) if isinstance(part, torch.nn.Module) else ""


def source_digest(target: str) -> str:
    """Hash of the file that defines a class and of the files of its package and of editbench that it imports from,
    directly or not; as this process first saw them, for that is the code that runs."""
    try:
        first = sys.modules[get_class(target).__module__]
    except (ImportError, ValueError, KeyError) as error:
        raise UnknownName("class", target, []) from error
    roots = ((first.__package__ or first.__name__) + ".", "editbench.")
    found, waiting = {first.__name__}, [first]
    while waiting:
        values = vars(waiting.pop()).values()
        names = {
            value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "")
            for value in values
        }
        new = {
            name
            for name in names
            if isinstance(name, str)
            and name.startswith(roots)
            and name in sys.modules
            and not name.startswith(BESIDE)
        } - found
        waiting += [sys.modules[name] for name in new]
        found |= new
    files = {module.__file__: module for module in map(sys.modules.__getitem__, found)}
    return " ".join(sorted(_source_hash(module) for file, module in files.items() if file))


@cache
def _source_hash(module: ModuleType) -> str:
    return file_sha256(Path(str(module.__file__)))[:16]
