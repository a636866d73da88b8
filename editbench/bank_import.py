"""A bank from files that someone already has: latents and logits, no generator needed to read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from editbench.attributes import Attributes
from editbench.bank import VERSION, Bank, BankSpec, shard_folder
from editbench.bank_build import stream_sigma
from editbench.errors import BadFile
from editbench.files import atomic_folder, digest, file_sha256, write_json


def import_bank(out: Path, w: Path, logits: Path, attributes: Path, judge_logits: Path | None = None) -> Bank:
    """Write a bank of the rows of w (n, w_dim) with logits (n, width); returns it opened.

    The teacher's logits also serve as the judge's unless judge_logits are given. Raises BadFile for unreadable or
    mismatched files and leaves nothing behind.
    """
    if out.exists():
        raise BadFile(f"{out} exists: delete it or choose another folder")
    layout = read_attributes(attributes)
    arrays = {"w": read_matrix(w), "teacher": read_matrix(logits)}
    arrays["judge"] = arrays["teacher"] if judge_logits is None else read_matrix(judge_logits)
    n = len(arrays["w"])
    for name in ("teacher", "judge"):
        shape = arrays[name].shape
        if shape != (n, layout.width):
            raise BadFile(f"the {name} logits have shape {shape}, expected ({n}, {layout.width}): one row a latent, "
                          f"columns {', '.join(layout.columns())}")
    spec = BankSpec(n, block=64, shard=64 * -(-n // 64))
    sources = [file_sha256(path) for path in (w, logits, judge_logits) if path is not None]
    with atomic_folder(out) as partial:
        shard = shard_folder(partial, 0)
        shard.mkdir()
        for name, values in arrays.items():
            np.save(shard / f"{name}.npy", np.asarray(values, np.float32))
        sums = {file.name: file_sha256(file) for file in sorted(shard.glob("*.npy"))}
        write_json(shard / "checksums.json", {"rows": [0, n], "sha256": sums})
        sigma = {role: stream_sigma(partial, spec, role, layout).tolist() for role in ("teacher", "judge")}
        write_json(partial / "bank.json", {
            "version": VERSION, "id": digest({"imported": sources, "attributes": layout.as_config()}),
            "spec": vars(spec), "fields": sorted(arrays), "sigma": sigma, "generator": "imported",
            "teacher": "imported", "judge": "imported", "output": "w", "teacher_attributes": layout.as_config(),
            "judge_attributes": layout.as_config()})
    return Bank(out)


def read_matrix(path: Path) -> np.ndarray:
    """A finite float (n, d) array from .npy, memory-mapped; pickled objects are refused."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise BadFile(f"{path} does not exist") from error
    except (OSError, ValueError, EOFError) as error:
        raise BadFile(f"{path} is not a readable .npy array ({error}); save it with numpy.save") from error
    if values.ndim != 2 or values.dtype.kind != "f":
        raise BadFile(f"{path} holds {values.dtype} of shape {values.shape}, expected floats of shape (n, d)")
    for first in range(0, len(values), 65536):
        if not np.isfinite(values[first : first + 65536]).all():
            raise BadFile(f"{path} has NaN or infinite values from row {first} on: remove those rows")
    return values


def read_attributes(path: Path) -> Attributes:
    try:
        items = yaml.safe_load(path.read_text())
        return Attributes.from_config(items)
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise BadFile(f"{path}: expected a YAML list such as '- {{name: smile, classes: [neutral, smiling]}}' "
                      f"({error})") from error
