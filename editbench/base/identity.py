"""What determines a result. All content addresses are computed from the lists below.

A bank, fit, inversion or run is named by a hash of everything that can change a number in it, and
of nothing else. The lists are used for the run id, the fit cache, the caches of inversions and of
reference statistics, the grouping of reports, and the pins of the regression check.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from editbench.base.conf import LABELS
from editbench.base.errors import EditbenchError
from editbench.base.files import could_name_file, digest, file_sha256, file_state
from editbench.base.instantiate import build
from editbench.base.sources import source_digest

# The report uses this module too and should not import torch.
if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1  # version of the layout of a bank on disk; part of its identity

# -- what determines a bank: its samples, their logits, and the ends of its splits
BANK_OPTIONS = ("n", "seed", "block", "fit", "tune")
BANK_CODE = ("editbench.bank.build",)

# -- what determines an inversion, in addition to its options, images and networks
INVERSION_CODE = ("editbench.inversion.build",)

# -- what determines a run, in addition to its bank (which includes the networks) and its inversion
RUN_GROUPS = ("method", "starts", "engine")
RUN_VALUES = ("attribute", "target", "seed")
OPTIONAL_RUN_GROUPS = ("observation",)  # not part of the hash if empty
RUN_CODE = (
    "editbench.walk.engine",  # its imports include editors, networks and spaces
    "editbench.bank.starts",
    "editbench.base.seeding",
)
INVERTED_RUN_CODE = ("editbench.inversion.walks",)
STRIDE_CODE = ("editbench.walk.stride",)  # only with engine.step_effect

# -- what must be equal for all rows of a table in a report
COMPARABLE = (
    "generator",
    "scorer",
    "bank",
    "evaluated",
    "starts",
    "inversion",
    "target",
    "precision",
    "engine.max_steps",
    "engine.sweep_steps",
    "engine.refine",
    "engine.step_effect",
)

# -- locations, speed and labels, which do not change a result
WITHOUT_EFFECT = (
    "name",
    "out",
    "cache",
    "data",
    "device",
    "save_codes",
    "hydra",
    "metric",
    "attribute",
    "bank.workers",
    "bank.batch",
    "bank.block",
    "bank.shard",
    "engine.batch",
    "engine.pictures",
    "experiment",
    "published",
    "method.floor",
)


def samples_key(options: Mapping[str, Any], networks: Mapping[str, str]) -> str:
    """Key of a bank's samples that does not depend on the version of the code.

    It seeds the draw of starts, so that different versions of the code use the same starts.

    Args:
        options: of the bank; only those in BANK_OPTIONS count.
        networks: 'generator', 'teacher', 'judge' -> hash of the network's weights.
    """
    key = {name: options[name] for name in BANK_OPTIONS}
    key |= {role: networks[role] for role in ("generator", "teacher", "judge")}
    return digest(key | {"version": FORMAT})


def bank_id(options: Mapping[str, Any], networks: Mapping[str, str], code: str) -> str:
    """Content address of a bank: its samples and the code that computes them.

    Args:
        options: see `samples_key`.
        networks: see `samples_key`.
        code: hash of the networks' source code, see `code_of`.
    """
    return digest([samples_key(options, networks), code, modules_digest(BANK_CODE)])


def fit_key(
    config: Mapping[str, Any], bank: str, networks: Mapping[str, str], attributes: Sequence[str]
) -> dict[str, Any]:
    """Everything that a fit for all attributes depends on. A tuning adds its attribute.

    Args:
        config: the resolved configuration of the job.
        bank: key of the bank, which includes the networks' code, see
            `editbench.run.loading.bank_key`.
        networks: 'generator', 'teacher' -> hash of the network's weights.
        attributes: names of the evaluated attributes, the only ones that a fit sees.
    """
    return {
        "evaluated": list(attributes),
        "bank": bank,
        "generator": networks["generator"],
        "teacher": networks["teacher"],
        "method": content(_without_labels(config["method"])),
        "code": code_of(config["method"]),
        "seed": config["seed"],
    }


def run_id(
    config: Mapping[str, Any], bank: str, attributes: Sequence[str], inversion: str = ""
) -> str:
    """Name of a record: a readable part, then a hash of everything that determines the result.

    Args:
        config: the resolved configuration of the job.
        bank: key of the bank, which includes the networks, see `editbench.run.loading.bank_key`.
        attributes: names of the evaluated attributes.
        inversion: id of the inversion that walks start from; '' if they start from the bank.
    """
    key: dict[str, Any] = {name: config[name] for name in RUN_VALUES}
    for group in RUN_GROUPS:
        key[group] = content(_with_effect(group, config[group]))
    for group in OPTIONAL_RUN_GROUPS:
        parts = config.get(group) or {}
        if parts:
            key[group] = {name: described(part) for name, part in parts.items()}
    key["bank"] = bank
    key["evaluated"] = list(attributes)
    key["code"] = [code_of(config["method"]), modules_digest(RUN_CODE)]
    if inversion:
        key["inversion"] = [inversion, modules_digest(INVERTED_RUN_CODE)]
    if config["engine"].get("step_effect") is not None:
        key["stride"] = modules_digest(STRIDE_CODE)
    # fp32 is not part of the key, since it changes no number.
    precision = config.get("precision") or "fp32"
    if precision != "fp32":
        key["precision"] = precision
    method = config["method"]["name"]
    return f"{method}-{config['attribute']}-s{config['seed']}-{digest(key, 10)}"


# -- parts -----------------------------------------------------------------------------------------
def modules_digest(modules: Sequence[str]) -> str:
    """Hash of several modules and of everything that they import."""
    return digest([source_digest(module) for module in modules])


def code_of(config: object) -> str:
    """Hash of the source code of every `_target_` in a configuration, including nested ones."""
    targets = sorted(set(_targets(config)))
    return digest([source_digest(target) for target in targets]) if targets else ""


def described(part: Mapping[str, Any]) -> list[object]:
    """The identity of a component of a configuration: its options and its code."""
    return [content(_without_labels(part)), code_of(part)]


def _with_effect(group: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a component that can change a result."""
    options = _without_labels(config)
    return {name: options[name] for name in options if f"{group}.{name}" not in WITHOUT_EFFECT}


def _without_labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a component, without the keys that only people read."""
    return {key: value for key, value in config.items() if key not in LABELS}


def content(config: object, nested: bool = False) -> object:
    """Replace names of files in a configuration by hashes of their contents.

    - A string that names an existing file becomes the hash of the file.
    - A `path` that names a folder becomes the hash of the list of its files.
    - The hash of the weights that a nested component (`_target_`) comes with is added to it.

    Args:
        config: plain values, as of JSON; it is not changed.
        nested: whether `config` lies in another one. The outermost component gets no hash of its
            weights.

    Returns:
        The same structure, with hashes as text.
    """
    if isinstance(config, dict):
        parts: dict[str, object] = {}
        for key, value in config.items():
            if key == "path" and isinstance(value, str) and os.path.isdir(value):
                parts[key] = _listing(value)
            else:
                parts[key] = content(value, nested=True)
        if nested and "_target_" in config:
            parts["network"] = _weights_digest(OmegaConf.to_yaml(config))
        return parts
    if isinstance(config, list):
        return [content(value, nested=True) for value in config]
    if isinstance(config, str) and could_name_file(config) and file_state(config) is not None:
        return f"sha256:{file_sha256(Path(config))}"
    return config


def tensors_digest(tensors: Mapping[str, Tensor], *extra: object) -> str:
    """SHA-256 over sorted names, dtypes, shapes and bytes; independent of memory layout.

    Args:
        tensors: name -> tensor, on any device.
        extra: other values to include, by their repr.
    """
    import torch

    hasher = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        hasher.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        # Viewed as bytes, since NumPy has no bfloat16.
        hasher.update(value.reshape(-1).view(torch.uint8).numpy().data)
    for item in extra:
        hasher.update(f"{item!r};".encode())
    return hasher.hexdigest()


def _targets(config: object) -> Iterator[str]:
    if isinstance(config, Mapping):
        if isinstance(config.get("_target_"), str):
            yield config["_target_"]
        for value in config.values():
            yield from _targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _targets(value)


def _listing(folder: str) -> str:
    """Hash of the names, sizes and modification times of all files below a folder."""
    files = []
    for file in sorted(Path(folder).rglob("*")):
        if file.is_file():
            about = file.stat()
            # Hashing the contents would mean reading them in full at every start.
            files.append([str(file.relative_to(folder)), about.st_size, about.st_mtime_ns])
    return f"folder:{digest(files)}"


@lru_cache(maxsize=16)
def _weights_digest(text: str) -> str:
    """Hash of the weights that a component is built with; '' if it has none."""
    import torch

    try:
        part = build(cast(DictConfig, OmegaConf.create(text)))
    except EditbenchError:
        return ""  # the job runs into the same error and reports it
    return tensors_digest(part.state_dict()) if isinstance(part, torch.nn.Module) else ""
