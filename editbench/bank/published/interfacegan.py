"""Files of InterFaceGAN (Shen et al., CVPR 2020; genforce/interfacegan): scores of samples, and boundaries.

Scores are .npy of shape (n, 1) or (n,), one file an attribute, high where the attribute is present; rows that the
predictor could not score carry one agreed value. Boundaries are .npy (1, d), unit normals that point to the high side.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from editbench.bank.bank import Bank
from editbench.bank.importing import read_attributes, read_matrix, refuse_existing, write_bank
from editbench.bank.published.gradctrl import columns_of
from editbench.bank.published.npy import read_npy
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, UnknownName

UNIT = 1e-3  # how far from 1 the length of a boundary may be


def import_scores(
    out: Path, w: Path, scores: Mapping[str, Path], attributes: Path, invalid: float | None = None
) -> Bank:
    """Write a bank of codes w (n, d) and one score file an attribute; rows with a score of `invalid` are left out."""
    refuse_existing(out)
    layout, signs = read_attributes(attributes)
    codes, (logits, keep) = read_matrix(w), read_scores(scores, layout, invalid)
    if len(codes) != len(logits):
        raise BadFile(
            f"{w} has {len(codes)} rows and the scores have {len(logits)}: they are not of the same samples"
        )
    if not keep.all():
        if not keep.any():
            raise BadFile(f"every row has an invalid score of {invalid}; check --invalid")
        codes, logits = codes[keep], logits[keep]
    sources = [w, *(scores[name] for name in layout.names)]
    options = {"invalid": invalid, "left_out": int((~keep).sum())}
    return write_bank(out, layout, signs, codes, logits, logits, sources, options)


def read_scores(
    scores: Mapping[str, Path], layout: Attributes, invalid: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(n, width) logits in the layout's order from one file an attribute, and (n,) whether none of a row is `invalid`.

    A file's scores are compared with `invalid` in the file's own precision. Names and lengths must fit.
    """
    for name in scores:
        if name not in layout.names:
            raise UnknownName("attribute of a score file", name, layout.names)
    if missing := [name for name in layout.names if name not in scores]:
        raise BadFile(
            f"no score file for {', '.join(missing)}: add NAME=FILE.npy for each, or take it out of the "
            "attributes"
        )
    columns: list[np.ndarray] = []
    keep = np.ones(1, bool)
    for attribute in layout:
        path, values = scores[attribute.name], read_npy(scores[attribute.name])
        if values.dtype.kind != "f" or not values.ndim or not np.isfinite(values).all():
            raise BadFile(
                f"{path}: {values.dtype} of shape {values.shape}, expected finite floats, a row a sample"
            )
        columns.append(
            columns_of(values, len(columns[0]) if columns else len(values), attribute.width, path)
        )
        if invalid is not None:
            keep = keep & (columns[-1] != columns[-1].dtype.type(invalid)).all(1)
    return np.concatenate(columns, 1), np.broadcast_to(keep, len(columns[0]))


def read_boundary(path: Path | str) -> np.ndarray:
    """The unit normal (d,), float64, of a boundary file, (1, d) or (d,).

    Raises:
        BadFile: the file is damaged or of another shape, or the vector is not unit: then it is no boundary.
    """
    values = read_npy(path)
    if (
        values.dtype.kind != "f"
        or values.ndim not in (1, 2)
        or (values.ndim == 2 and len(values) != 1)
    ):
        raise BadFile(
            f"{path}: {values.dtype} of shape {values.shape}, expected a boundary, floats of shape (1, d)"
        )
    normal = np.array(values, np.float64).reshape(-1)
    length = float(np.linalg.norm(normal))
    if not abs(length - 1) <= UNIT:
        raise BadFile(
            f"{path}: its length is {length:.4g}, where a boundary's normal has length 1; if it is a "
            "direction, use method=direction"
        )
    return normal
