"""Weights on disk: safetensors files that say what they are, written atomically, read strictly.

The header of a file carries one JSON object, {"kind": what reads it, "config": how to build the
module}. Reading runs no code from the file.
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
from editbench.base.files import file_sha256, write_atomic
from editbench.base.identity import tensors_digest as tensors_digest

# Key of the header in which safetensors keeps text.
METADATA_KEY = "editbench"
# A network has hundreds of tensors, and one wrong option misses all of them.
SHOWN = 6  # names of each sort in an error message


def group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with PREFIX and a dot, under the rest of their names."""
    # With the dot, so that `move` does not take in the names of `moved`.
    start = f"{prefix}."
    found = {}
    for name, value in tensors.items():
        if name.startswith(start):
            found[name.removeprefix(start)] = value
    return found


def save_tensors(
    path: Path | str, tensors: Mapping[str, Tensor], kind: str, config: dict[str, Any]
) -> None:
    """Write tensors with the `kind` of their reader and a JSON-able `config`.

    Equal content gives equal bytes.
    """
    header = {METADATA_KEY: json.dumps({"kind": kind, "config": config}, sort_keys=True)}
    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    write_atomic(Path(path), save(plain, metadata=header))


def save_checked(
    path: Path | str, tensors: Mapping[str, Tensor], kind: str, config: dict[str, Any]
) -> None:
    """`save_tensors` with a checksum of all content, which `is_altered` compares."""
    save_tensors(path, tensors, kind, {**config, "checksum": _checksum(config, tensors)})


def is_altered(config: dict[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether what `load_tensors` gave is not what `save_checked` wrote; takes the checksum away."""
    return config.pop("checksum", None) != _checksum(config, tensors)


def _checksum(config: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    # As text: a tuple that is written comes back as a list.
    return tensors_digest(tensors, json.dumps(config, sort_keys=True))


def read_safetensors(path: Path, remedy: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(text of the header, tensors on the host) of a safetensors file by anybody.

    Args:
        path: of the file; no code from it is run.
        remedy: what an error recommends.

    Raises:
        BadFile: it is not a complete safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # safe_open is not iterable and has no items().
            names = list(file.keys())
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise BadFile(f"{path}: not a complete safetensors file ({error}); {remedy}") from error


def check_finite(path: Path, tensors: Mapping[str, Tensor], remedy: str) -> None:
    """Raise BadFile for the first tensor of a file that holds NaN or infinity."""
    # NaN would spread to every picture or logit, and a metric of NaN names no cause.
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise BadFile(f"{path}: its tensor '{name}' holds NaN or infinity; {remedy}")


def load_tensors(
    path: Path | str, kind: str, remedy: str = ""
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors on the host) of a file of the given kind.

    Raises:
        BadFile: the file is missing, truncated, not safetensors, of another kind, or holds NaN or
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
    """The `kind` of a safetensors file; None for a file of others or one that is damaged."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return str(json.loads((file.metadata() or {})[METADATA_KEY])["kind"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy tensors into a module.

    Raises:
        BadFile: names or shapes are not the module's; the message lists the differences.
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
    """The first SHOWN of some names, and how many more there are, for a message."""
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more


def file_digest(path: Path | str) -> str:
    """SHA-256 of the bytes of a file; a missing one is BadFile."""
    try:
        return file_sha256(Path(path))
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror}); check the path") from error
