"""A bank from files that someone already has: latents and logits, no generator needed to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from editbench.bank.bank import VERSION, Bank, BankSpec, shard_folder
from editbench.bank.build import stream_sigma
from editbench.bank.published.npy import read_npy
from editbench.base.attributes import Attributes
from editbench.base.conf import yaml_text
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import (
    atomic_folder,
    digest,
    file_sha256,
    read_seal,
    seal_folder,
    write_json,
)
from editbench.networks.scorers.declared import declare


def import_bank(
    out: Path, w: Path, logits: Path, attributes: Path, judge_logits: Path | None = None
) -> Bank:
    """Write a bank of the rows of w (n, w_dim) with logits (n, width); returns it opened.

    The teacher's logits also serve as the judge's unless judge_logits are given. Raises BadFile for unreadable or
    mismatched files and leaves nothing behind.
    """
    refuse_existing(out)
    layout, signs = read_attributes(attributes)
    codes, teacher = read_matrix(w), read_matrix(logits)
    judge = teacher if judge_logits is None else read_matrix(judge_logits)
    sources = [path for path in (w, logits, judge_logits) if path is not None]
    return write_bank(out, layout, signs, codes, teacher, judge, sources)


def refuse_existing(out: Path) -> None:
    if out.exists():
        raise BadFile(f"{out} exists: delete it or choose another folder")


def write_bank(
    out: Path,
    layout: Attributes,
    signs: Sequence[float],
    w: np.ndarray,
    teacher: np.ndarray,
    judge: np.ndarray,
    sources: Sequence[Path],
    options: Mapping[str, Any] | None = None,
) -> Bank:
    """Write codes w (n, w_dim) and logits (n, width), negated where the sign of an attribute is -1, as a bank.

    It is whole or not at all. Its id comes from the contents of the `sources` that the arrays were read from, in that
    order, from the signs and from `options`. Where the judge's logits are the teacher's it is marked as leaking.
    """
    if not len(w):
        raise BadFile(f"{sources[0]} has no rows")
    for role, values in (("teacher", teacher), ("judge", judge)):
        if values.shape != (len(w), layout.width):
            raise BadFile(
                f"the {role} logits have shape {values.shape}, expected ({len(w)}, {layout.width}): one row "
                f"a latent, columns {', '.join(layout.columns())}"
            )
    with np.errstate(over="ignore"):  # found below
        arrays = {
            "w": w,
            "teacher": with_signs(teacher, layout, signs),
            "judge": with_signs(judge, layout, signs),
        }
    spec = BankSpec(len(w), block=64, shard=64 * -(-len(w) // 64))
    identity = {
        "imported": [file_sha256(path) for path in sources],
        "attributes": layout.as_config(),
    }
    if min(signs) < 0:
        identity["signs"] = list(signs)
    with atomic_folder(out) as partial:
        shard = shard_folder(partial, 0)
        shard.mkdir()
        for name, values in arrays.items():
            with np.errstate(over="ignore"):
                stored = np.asarray(values, np.float32)
            if not np.isfinite(stored).all():
                raise BadFile(
                    f"the values of '{name}' are NaN, infinite or too large for float32: remove them"
                )
            np.save(shard / f"{name}.npy", stored)
        seal_folder(shard, {"rows": [0, len(w)]})
        sums = read_seal(shard)["files"]
        sigma = {
            role: stream_sigma(partial, spec, role, layout).tolist()
            for role in ("teacher", "judge")
        }
        write_json(
            partial / "bank.json",
            {
                "version": VERSION,
                "id": digest(identity | dict(options or {})),
                "spec": vars(spec),
                "fields": sorted(arrays),
                "sigma": sigma,
                "generator": "imported",
                "teacher": "imported",
                "judge": "imported",
                "output": "w",
                "teacher_attributes": layout.as_config(),
                "judge_attributes": layout.as_config(),
                "options": dict(options or {}),
                "leaking": sums["teacher.npy"] == sums["judge.npy"],
            },
        )
    return Bank(out)


def with_signs(logits: np.ndarray, layout: Attributes, signs: Sequence[float]) -> np.ndarray:
    """Logits (n, width) with the columns of attributes whose sign is -1 negated; untouched where none is."""
    if all(sign > 0 for sign in signs):
        return logits
    widths = [attribute.width for attribute in layout]
    return np.asarray(logits, np.float32) * np.repeat(np.asarray(signs, np.float32), widths)


def read_matrix(path: Path) -> np.ndarray:
    """A finite float (n, d) array from .npy, memory-mapped; pickled objects are refused."""
    values = read_npy(path)
    if values.ndim != 2 or values.dtype.kind != "f":
        raise BadFile(
            f"{path} holds {values.dtype} of shape {values.shape}, expected floats of shape (n, d)"
        )
    for first in range(0, len(values), 65536):
        if not np.isfinite(values[first : first + 65536]).all():
            raise BadFile(
                f"{path} has NaN or infinite values from row {first} on: remove those rows"
            )
    return values


def read_attributes(path: Path) -> tuple[Attributes, list[float]]:
    """The attributes of a YAML list, and -1 for each whose low logit means its second class, else 1."""
    try:
        items = yaml.safe_load(yaml_text(path))
        return declare(items)
    except (OSError, ValueError, yaml.YAMLError, EditbenchError, TypeError) as error:
        raise BadFile(
            f"{path}: expected a YAML list such as '- {{name: smile, classes: [neutral, smiling]}}' "
            f"({error})"
        ) from error
