"""The data folder of GradCtrl (Chen et al., ECCV 2022; zikuncshelly/GradCtrl).

It has sampled W codes and the logits of classifiers:

    FOLDER/latents.pkl              (n, d) codes in W
    FOLDER/logits/logits_NAME.pkl   (n, 1) for a binary attribute, (n, K) for K classes

The published training labels a sample 1 where its logit is NEGATIVE. The signs of the files are
kept here as they are, unless the attribute says `positive_is_low: true`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from editbench.bank.bank import Bank
from editbench.bank.importing import read_attributes, refuse_existing, write_bank
from editbench.bank.published.arrays import as_array
from editbench.bank.values import Values
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile
from editbench.networks.pickles import read_pickle


def import_gradctrl(out: Path, folder: Path, attributes: Path, values: str | None = None) -> Bank:
    """Write a bank from a GradCtrl data folder. No code in a pickle is run.

    The files have a single set of logits, which is used for both teacher and judge.

    Args:
        out: folder of the new bank.
        folder: the data folder.
        attributes: YAML list of the attributes to import, named like the files of logits.
        values: what values that all lie in [0, 1] are, see `Values`; None rejects them, since
            these files should hold logits.

    Returns:
        The bank, opened.

    Raises:
        BadFile: a file is missing, damaged or hostile, or does not fit; nothing is left behind.
    """
    # Before the files are read, which may take minutes.
    refuse_existing(out)
    layout, signs = read_attributes(attributes)
    w, logits, files = _read_folder(folder, layout)
    taken = Values(values)
    logits = taken.as_logits(logits, layout, dict.fromkeys(layout.names, folder))
    taken.check_used()
    return write_bank(out, layout, signs, w, logits, logits, files, taken.options())


def _read_folder(folder: Path, layout: Attributes) -> tuple[np.ndarray, np.ndarray, list[Path]]:
    """W codes (n, d), logits (n, width) with the files' signs, and the files that were read."""
    latents = folder / "latents.pkl"
    if not folder.is_dir() or not latents.is_file():
        raise BadFile(
            f"{folder}: not a GradCtrl data folder, latents.pkl is missing; give the folder that "
            "contains it and logits/"
        )
    _check_names(folder, layout)
    # Names are checked before the codes are read: latents.pkl is the largest of the files.
    w = as_array(read_pickle(latents), latents)
    if w.ndim != 2:
        raise BadFile(
            f"{latents}: shape {w.shape}, expected W codes of shape (n, d); of W+ codes, give one "
            "row"
        )
    files = [latents]
    columns = []
    for attribute in layout:
        path = folder / "logits" / f"logits_{attribute.name}.pkl"
        logits = as_array(read_pickle(path), path)
        columns.append(columns_of(logits, len(w), attribute.width, path))
        files.append(path)
    return w, np.concatenate(columns, 1), files


def _check_names(folder: Path, layout: Attributes) -> None:
    """Raise BadFile unless every attribute of the layout has a file of logits."""
    have = []
    for path in (folder / "logits").glob("logits_*.pkl"):
        have.append(path.stem.removeprefix("logits_"))
    missing = [name for name in layout.names if name not in have]
    if not missing:
        return
    remedy = ": name the attributes like these files"
    # The published training prepares a similar folder that keeps only the signs of the logits; the
    # benchmark needs their values.
    if (folder / "labels.pkl").is_file() and not have:
        remedy = (
            "; labels.pkl of a prepared training folder keeps only the signs: give the folder that "
            "it was prepared from"
        )
    # Sorted, since the order of a folder's entries depends on the file system.
    listing = ", ".join(sorted(have)) or "nothing"
    raise BadFile(
        f"{folder}: lacks logits/logits_{missing[0]}.pkl; it has logits for {listing}{remedy}"
    )


def columns_of(logits: np.ndarray, n: int, width: int, path: Path) -> np.ndarray:
    """Bring the logits of one attribute into two axes.

    Args:
        logits: (n,), (n, width), or more axes of length 1.
        n: samples.
        width: columns of the attribute.
        path: of their file, for messages.

    Returns:
        (n, width).

    Raises:
        BadFile: the array has another shape.
    """
    shaped = logits
    # A scalar or an empty array cannot be reshaped into rows.
    if logits.ndim and logits.size:
        shaped = logits.reshape(len(logits), -1)
    if shaped.shape != (n, width):
        columns = f"{width} classes"
        if width == 1:
            columns = "one column for an attribute of two classes"
        raise BadFile(
            f"{path}: shape {logits.shape}, expected ({n}, {width}): a row for each latent, and "
            f"{columns}"
        )
    return shaped
