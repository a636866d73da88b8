"""The data folder of GradCtrl (Chen et al., ECCV 2022; zikuncshelly/GradCtrl): sampled W codes and classifier logits.

    FOLDER/latents.pkl              (n, d) codes in W
    FOLDER/logits/logits_NAME.pkl   (n, 1) for a binary attribute, (n, K) for K classes

The published training labels a sample 1 where its logit is NEGATIVE. The signs of the files are kept here as they are
unless the attribute says `positive_is_low: true`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from editbench.bank.bank import Bank
from editbench.bank.importing import read_attributes, refuse_existing, write_bank
from editbench.bank.published.values import as_array
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile
from editbench.networks.pickles import read_pickle


def import_gradctrl(out: Path, folder: Path, attributes: Path) -> Bank:
    """Write a bank of a GradCtrl data folder; its logits are teacher's and judge's. Nothing in a pickle is run."""
    refuse_existing(out)
    layout, signs = read_attributes(attributes)
    w, logits, files = read_folder(folder, layout)
    return write_bank(out, layout, signs, w, logits, logits, files)


def read_folder(folder: Path, layout: Attributes) -> tuple[np.ndarray, np.ndarray, list[Path]]:
    """(w (n, d), logits (n, width) in the layout's order with the files' signs, the files read).

    Raises:
        BadFile: a file is missing, hostile or damaged, or its shape is not that of its attribute.
    """
    latents = folder / "latents.pkl"
    if not folder.is_dir() or not latents.is_file():
        raise BadFile(
            f"{folder}: no GradCtrl data folder, it lacks latents.pkl; give the folder that holds it and "
            "logits/"
        )
    have = sorted(
        path.stem.removeprefix("logits_") for path in (folder / "logits").glob("logits_*.pkl")
    )
    if missing := [name for name in layout.names if name not in have]:
        prepared = (
            "; labels.pkl of a prepared training folder keeps only the signs: give the folder it was made from"
            if (folder / "labels.pkl").is_file() and not have
            else ""
        )
        raise BadFile(
            f"{folder}: lacks logits/logits_{missing[0]}.pkl; it has logits of {', '.join(have) or 'nothing'}"
            f"{prepared or ': name the attributes as these files'}"
        )
    w = as_array(read_pickle(latents), latents)
    if w.ndim != 2:
        raise BadFile(
            f"{latents}: shape {w.shape}, expected W codes of shape (n, d); of W+ codes give one row"
        )
    files, columns = [latents], []
    for attribute in layout:
        path = folder / "logits" / f"logits_{attribute.name}.pkl"
        columns.append(columns_of(as_array(read_pickle(path), path), len(w), attribute.width, path))
        files.append(path)
    return w, np.concatenate(columns, 1), files


def columns_of(logits: np.ndarray, n: int, width: int, path: Path) -> np.ndarray:
    """(n, width) from (n,), (n, width), or more axes of length 1."""
    shaped = logits.reshape(len(logits), -1) if logits.ndim and logits.size else logits
    if shaped.shape != (n, width):
        raise BadFile(
            f"{path}: shape {logits.shape}, expected ({n}, {width}): a row for each latent, and "
            + ("one column for an attribute of two classes" if width == 1 else f"{width} classes")
        )
    return shaped
