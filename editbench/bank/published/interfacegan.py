"""Files of InterFaceGAN (Shen et al., CVPR 2020; genforce/interfacegan): scores and boundaries.

Scores are .npy files of shape (n, 1) or (n,), one per attribute, with high values if the attribute
is present. Rows that the predictor could not score hold one fixed value. Boundaries are .npy files
of shape (1, d): unit normals that point to the side of high scores. They are read as directions,
see editbench.bank.published.directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from editbench.bank.bank import Bank
from editbench.bank.importing import read_attributes, read_matrix, refuse_existing, write_bank
from editbench.bank.published.gradctrl import columns_of
from editbench.bank.published.npy import read_npy
from editbench.bank.values import Values
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, EditbenchError, UnknownName

UNIT = 1e-3  # how far from 1 the length of a boundary may be


def import_scores(
    out: Path,
    w: Path,
    scores: Mapping[str, Path],
    attributes: Path,
    invalid: float | None = None,
    values: str | None = None,
) -> Bank:
    """Write a bank from codes and one score file per attribute.

    Args:
        out: folder of the new bank.
        w: .npy of the codes, (n, d).
        scores: attribute -> .npy of its scores.
        attributes: YAML list of the attributes.
        invalid: rows with this score are left out; None takes every row.
        values: what scores that all lie in [0, 1] are, see `Values`. None takes them as
            probabilities, since the predictors of InterFaceGAN end with a softmax or sigmoid, and
            rejects hard labels.

    Returns:
        The bank, opened. The scores are both the teacher's and the judge's logits.

    Raises:
        EditbenchError: `invalid` is NaN or infinite, which no score may be.
        UnknownName: a score file belongs to no attribute of the list.
        BadFile: a file is missing, unreadable or does not fit; nothing is written then.
    """
    refuse_existing(out)
    if invalid is not None and not math.isfinite(invalid):
        raise EditbenchError(
            f"--invalid {invalid:g}: scores that are NaN or infinite are refused in any case; remove "
            "these rows from the scores and the latents"
        )
    layout, signs = read_attributes(attributes)
    codes = read_matrix(w)
    logits, keep = _read_scores(scores, layout, invalid)
    if len(codes) != len(logits):
        raise BadFile(
            f"{w} has {len(codes)} rows and the scores have {len(logits)}: they do not belong to "
            "the same samples"
        )
    # Without an invalid row the codes stay memory-mapped; a selection copies them.
    if not keep.all():
        if not keep.any():
            raise BadFile(f"every row has an invalid score of {invalid}; check --invalid")
        codes = codes[keep]
        logits = logits[keep]
    # In the layout's order, so that the id does not depend on the order of the arguments.
    sources = [w]
    for name in layout.names:
        sources.append(scores[name])
    taken = Values(values, convention="probabilities")
    logits = taken.as_logits(logits, layout, scores)
    taken.check_used()
    options = {"invalid": invalid, "left_out": int((~keep).sum()), **taken.options()}
    return write_bank(out, layout, signs, codes, logits, logits, sources, options)


def _read_scores(
    scores: Mapping[str, Path], layout: Attributes, invalid: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, width) in the layout's order, and (n,) bool: whether all scores of the row are valid.

    Raises BadFile if a file marks samples without a score while `invalid` is None.
    """
    for name in scores:
        if name not in layout.names:
            raise UnknownName("attribute of a score file", name, layout.names)
    missing = [name for name in layout.names if name not in scores]
    if missing:
        raise BadFile(
            f"no score file for {', '.join(missing)}: add NAME=FILE.npy for each, or take it out of "
            "the attributes"
        )
    columns: list[np.ndarray] = []
    # One element until the first file gives the number of rows.
    keep = np.ones(1, bool)
    for attribute in layout:
        path = scores[attribute.name]
        values = read_npy(path)
        # Hard labels are integers or booleans; `Values` recognises them later.
        if values.dtype.kind in "iub":
            values = values.astype(np.float64)
        if values.dtype.kind != "f" or not values.ndim or not np.isfinite(values).all():
            raise BadFile(
                f"{path}: {values.dtype} of shape {values.shape}, expected finite floats, one row "
                "per sample; remove rows with NaN, and those of the latents too"
            )
        # The first file says how many samples there are; the others must have as many.
        n = len(values)
        if columns:
            n = len(columns[0])
        column = columns_of(values, n, attribute.width, path)
        columns.append(column)
        if invalid is not None:
            # In the file's own precision: -0.1 as float32 differs from -0.1 as float64.
            valid = column != column.dtype.type(invalid)
            keep = keep & valid.all(1)
            column = column[valid]
        # Rejects a mark that differs from `invalid`.
        _refuse_marks(column, path)
    return np.concatenate(columns, 1), np.broadcast_to(keep, len(columns[0]))


def _refuse_marks(column: np.ndarray, path: Path) -> None:
    """Reject probabilities that contain a repeated negative number, a mark of unscored samples.

    With the mark, the values would be mistaken for logits.

    Raises:
        BadFile: all scores lie in [0, 1] except for one repeated negative number.
    """
    outside = column[(column < 0) | (column > 1)]
    # If most scores lie outside, they are logits, and a negative one is no mark.
    if not 0 < len(outside) < column.size - len(outside):
        return
    mark = outside[0]
    if mark < 0 and (outside == mark).all():
        raise BadFile(
            f"{path}: {len(outside)} of {column.size} scores are {mark:g} and all others lie in "
            f"[0, 1]: add --invalid={mark:g} to leave these samples out"
        )
