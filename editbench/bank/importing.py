"""Importing a bank from files of latents and logits.

This needs no generator. Methods that use only codes and logits can be fitted on such a bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from editbench.bank.bank import IMPORTED, VERSION, Bank
from editbench.bank.build import stream_sigma
from editbench.bank.layout import shard_folder
from editbench.bank.published.npy import read_npy
from editbench.bank.spec import BankSpec
from editbench.bank.values import ROWS, Values
from editbench.base.attributes import Attributes
from editbench.base.conf import load_yaml, yaml_text
from editbench.base.errors import BadFile, EditbenchError, no_such
from editbench.base.files import (
    atomic_folder,
    digest,
    file_sha256,
    read_seal,
    seal_folder,
    write_json,
)
from editbench.networks.scorers.attribute_list import declare

BLOCK = 64  # rows per block of the moments, as for a bank that is built
LABELS = "fiub"  # NumPy's kinds of floats, integers and booleans


def import_bank(
    out: Path,
    w: Path,
    logits: Path,
    attributes: Path,
    judge_logits: Path | None = None,
    values: str | None = None,
) -> Bank:
    """Write a bank of W codes and their logits.

    Args:
        out: folder of the new bank.
        w: .npy of the codes, (n, w_dim).
        logits: .npy of the teacher's logits, (n, width).
        attributes: YAML list of the attributes, in the order of the columns.
        judge_logits: .npy of the judge's logits, (n, width). With None the teacher's logits are
            used for both, and the bank is marked as leaking.
        values: what values that all lie in [0, 1] are, see `Values`; None rejects them.

    Returns:
        The bank, opened.

    Raises:
        BadFile: a file is unreadable, does not fit the others, or holds no logits; nothing is
            written then.
    """
    refuse_existing(out)
    layout, signs = read_attributes(attributes)
    codes = read_matrix(w)
    taken = Values(values)
    teacher = taken.as_logits(
        read_matrix(logits, LABELS), layout, dict.fromkeys(layout.names, logits)
    )
    # One object for both roles, so that the logits are read once.
    judge = teacher
    # The order of the sources is part of the bank's id.
    sources = [w, logits]
    if judge_logits is not None:
        judge = taken.as_logits(
            read_matrix(judge_logits, LABELS), layout, dict.fromkeys(layout.names, judge_logits)
        )
        sources.append(judge_logits)
    taken.check_used()
    return write_bank(out, layout, signs, codes, teacher, judge, sources, taken.options())


def refuse_existing(out: Path) -> None:
    """Raise BadFile if `out` exists. A bank is never replaced, since results may depend on it."""
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
    """Write arrays as a bank, completely or not at all.

    The bank is marked as leaking if the judge's logits are the teacher's: a method is then judged
    by the network that it learned from.

    Args:
        out: folder of the new bank.
        layout: the attributes, in the order of the columns.
        signs: one per attribute; -1 negates its logits.
        w: (n, w_dim) codes.
        teacher: (n, width) logits.
        judge: (n, width) logits.
        sources: the files that the arrays were read from; their contents, in this order, are part
            of the bank's id.
        options: how the files were read; also part of the id.

    Returns:
        The bank, opened.

    Raises:
        BadFile: shapes do not fit, a value is not finite in float32, or a logit is constant.
    """
    _check_shapes(layout, w, teacher, judge, sources[0])
    # Values too large for float32 become infinite. The check before writing finds and names them.
    with np.errstate(over="ignore"):
        arrays = {
            "w": w,
            "teacher": _with_signs(teacher, layout, signs),
            "judge": _with_signs(judge, layout, signs),
        }
    # All rows in one shard, since there is no computation to share between processes.
    spec = BankSpec(len(w), block=BLOCK, shard=BLOCK * -(-len(w) // BLOCK))
    identity: dict[str, Any] = {
        "imported": [file_sha256(path) for path in sources],
        "attributes": layout.as_config(),
    }
    # Only added if a sign is -1, so that the id is otherwise independent of the signs.
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
        # Equal checksums also reveal a leak if two files hold the same logits.
        sums = read_seal(shard)["files"]
        sigma = {
            "teacher": stream_sigma(partial, spec, "teacher", layout).tolist(),
            "judge": stream_sigma(partial, spec, "judge", layout).tolist(),
        }
        write_json(
            partial / "bank.json",
            {
                "version": VERSION,
                "id": digest(identity | dict(options or {})),
                "spec": vars(spec),
                "fields": sorted(arrays),
                "sigma": sigma,
                "generator": IMPORTED,
                "teacher": IMPORTED,
                "judge": IMPORTED,
                "output": "w",
                "teacher_attributes": layout.as_config(),
                "judge_attributes": layout.as_config(),
                "options": dict(options or {}),
                "leaking": sums["teacher.npy"] == sums["judge.npy"],
            },
        )
    return Bank(out)


def _check_shapes(
    layout: Attributes, w: np.ndarray, teacher: np.ndarray, judge: np.ndarray, source: Path
) -> None:
    """Check that there are samples, with one row of logits each.

    Args:
        layout: the attributes, in the order of the columns.
        w: (n, w_dim) codes.
        teacher: (n, width) logits.
        judge: (n, width) logits.
        source: the file that the codes were read from.

    Raises:
        BadFile: there is no row, or the logits have other shapes.
    """
    # Checked first, since splits and standard deviations need samples.
    if not len(w):
        raise BadFile(f"{source} has no rows")
    for role, values in (("teacher", teacher), ("judge", judge)):
        if values.shape != (len(w), layout.width):
            raise BadFile(
                f"the {role} logits have shape {values.shape}, expected ({len(w)}, {layout.width}): "
                f"one row per latent, columns {', '.join(layout.columns())}"
            )


def _with_signs(logits: np.ndarray, layout: Attributes, signs: Sequence[float]) -> np.ndarray:
    """Logits (n, width) with those of attributes whose sign is -1 negated, as float32.

    If no sign is -1, `logits` itself.
    """
    # The array may be memory-mapped, and a product with ones would only copy it.
    if all(sign > 0 for sign in signs):
        return logits
    widths = [attribute.width for attribute in layout]
    return np.asarray(logits, np.float32) * np.repeat(np.asarray(signs, np.float32), widths)


def read_matrix(path: Path, kinds: str = "f") -> np.ndarray:
    """Read a finite (n, d) array of floats from a .npy file, memory-mapped.

    Args:
        path: of the file.
        kinds: accepted kinds of NumPy dtypes; LABELS if the file may hold labels.

    Raises:
        BadFile: the file is unreadable, holds pickled objects, NaN or infinity, or has another
            shape or kind of number.
    """
    values = read_npy(path)
    if values.ndim != 2 or values.dtype.kind not in kinds:
        raise BadFile(
            f"{path} holds {values.dtype} of shape {values.shape}, expected floats of shape (n, d)"
        )
    # In parts, since the array may be larger than memory.
    for first in range(0, len(values), ROWS):
        broken = ~np.isfinite(values[first : first + ROWS]).all(axis=1)
        if broken.any():
            row = first + int(broken.argmax())
            raise BadFile(
                f"{path} has NaN or infinite values, first in row {row} (counted from 0): remove "
                "these rows"
            )
    return values


def read_attributes(path: Path) -> tuple[Attributes, list[float]]:
    """Read attributes from a YAML list.

    Returns:
        The attributes, and a sign for each: -1 if a low logit means its second class, otherwise 1.

    Raises:
        BadFile: the file is not a list of attributes.
    """
    if not path.is_file():
        raise BadFile(f"{path}: {no_such('file', path)}; give the YAML list of the attributes")
    # A list of anything is valid YAML, so an entry can be wrong in many ways.
    try:
        return declare(load_yaml(yaml_text(path)))
    except (EditbenchError, TypeError, ValueError, yaml.YAMLError) as error:
        raise BadFile(
            f"{path}: expected a YAML list such as "
            f"'- {{name: smile, classes: [neutral, smiling]}}' ({error})"
        ) from error
