"""Weights on disk: self-describing safetensors files, written atomically and read strictly.

The header of a file has one JSON object, {"kind": what reads it, "config": how to build the
module}. Reading executes no code from the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from editbench.base.errors import BadFile, no_such
from editbench.base.files import write_atomic
from editbench.base.identity import tensors_digest

# Key of the JSON object in the metadata of a safetensors header.
METADATA_KEY = "editbench"
# Number of names of each kind in an error message. A network has hundreds of tensors, and a single
# wrong option may affect all of them.
SHOWN = 6


def group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors with names PREFIX.REST, as REST -> tensor.

    Args:
        tensors: of a file, by name.
        prefix: without the dot.
    """
    # With the dot, so that the prefix `move` does not match `moved`.
    start = f"{prefix}."
    found = {}
    for name, value in tensors.items():
        if name.startswith(start):
            found[name.removeprefix(start)] = value
    return found


def save_tensors(
    path: Path | str, tensors: Mapping[str, Tensor], kind: str, config: dict[str, Any]
) -> None:
    """Write tensors with the `kind` of their reader and a JSON-like `config`.

    Equal content gives equal bytes.

    Args:
        path: of the safetensors file; an existing one is replaced.
        tensors: name -> tensor, on any device.
        kind: of the file, which `load_tensors` checks.
        config: how to build the module.

    Raises:
        CannotWrite: the disk is full, the file too large, or a permission is missing.
    """
    header = {METADATA_KEY: json.dumps({"kind": kind, "config": config}, sort_keys=True)}
    # Copies, since safetensors refuses tensors that share memory.
    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    write_atomic(Path(path), save(plain, metadata=header))


def save_checked(
    path: Path | str, tensors: Mapping[str, Tensor], kind: str, config: dict[str, Any]
) -> None:
    """`save_tensors` with a checksum of all content, which `is_altered` verifies.

    Args:
        path: of the safetensors file.
        tensors: name -> tensor.
        kind: of the file.
        config: how to build the module; without a key 'checksum'.

    Raises:
        CannotWrite: the disk is full, the file too large, or a permission is missing.
    """
    save_tensors(path, tensors, kind, {**config, "checksum": _checksum(config, tensors)})


def is_altered(config: dict[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether the content differs from what `save_checked` wrote.

    Args:
        config: as read; its checksum is removed.
        tensors: as read.
    """
    return config.pop("checksum", None) != _checksum(config, tensors)


def _checksum(config: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    # As JSON text, since a tuple is read back as a list.
    return tensors_digest(tensors, json.dumps(config, sort_keys=True))


def read_safetensors(path: Path, remedy: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(metadata, tensors on the host) of any safetensors file.

    Args:
        path: of the file; no code from it is executed.
        remedy: for the error message.

    Raises:
        BadFile: it is not a complete safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # safe_open has no items() and cannot be iterated.
            names = list(file.keys())
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise BadFile(f"{path}: not a complete safetensors file ({error}); {remedy}") from error


def check_finite(path: Path, tensors: Mapping[str, Tensor], remedy: str) -> None:
    """Check that the tensors of a file are finite.

    Args:
        path: of the file, for the message.
        tensors: by name.
        remedy: the end of the message.

    Raises:
        BadFile: a tensor has NaN or infinity; the message names the first.
    """
    # NaN would spread to all images or logits, and a NaN metric would not show the cause.
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise BadFile(f"{path}: its tensor '{name}' holds NaN or infinity; {remedy}")


def load_tensors(
    path: Path | str, kind: str, remedy: str = ""
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file that `save_tensors` wrote.

    Args:
        path: of the file.
        kind: that it must be of.
        remedy: the end of the messages; by default to check the path or copy the file again.

    Returns:
        (config, tensors on the host).

    Raises:
        BadFile: the file is missing, truncated, not safetensors, of another kind, or has NaN or
            infinity.
    """
    path = Path(path)
    remedy = remedy or "check the path, or copy the file again from where it came"
    if not path.is_file():
        raise BadFile(f"{path}: {no_such(f'{kind} file', path)}; {remedy}")
    metadata, tensors = read_safetensors(path, remedy)
    if METADATA_KEY not in metadata:
        raise BadFile(
            f"{path}: a safetensors file without an '{METADATA_KEY}' header, so not written by "
            f"editbench; a {kind} file is needed"
        )
    try:
        header = json.loads(metadata[METADATA_KEY])
        found = header["kind"]
        config = dict(header["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(
            f"{path}: its '{METADATA_KEY}' header is damaged ({error}); {remedy}"
        ) from error
    if found != kind:
        raise BadFile(
            f"{path}: contains a '{found}', expected a '{kind}'; give the path of a {kind} file"
        )
    check_finite(path, tensors, remedy)
    return config, tensors


def read_kind(path: Path | str) -> str | None:
    """The `kind` of a safetensors file; None if it is damaged or not written by editbench."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return str(json.loads((file.metadata() or {})[METADATA_KEY])["kind"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy tensors into a module.

    Args:
        module: whose parameters and buffers are replaced, in place.
        tensors: by the module's names.
        source: file that they come from, for the message.

    Raises:
        BadFile: names or shapes differ from the module's; the message lists the differences.
    """
    state = module.state_dict()
    problems = {
        "missing": sorted(set(state) - set(tensors)),
        "unexpected": sorted(set(tensors) - set(state)),
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} (needs {tuple(state[name].shape)})"
            for name in sorted(set(state) & set(tensors))
            if tensors[name].shape != state[name].shape
        ],
    }
    lines = [f"  {what}: {listed(names)}" for what, names in problems.items() if names]
    if lines:
        raise BadFile(
            "\n".join(
                [f"{source}: its tensors are not those of this {type(module).__name__}", *lines]
            )
        )
    module.load_state_dict(dict(tensors))


def listed(names: Sequence[str]) -> str:
    """The first SHOWN of some names, and the number of others, for a message."""
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more
