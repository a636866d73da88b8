"""Edit directions in the files that others publish: .npy arrays, GANSpace's component pickles, .pt tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editbench.bank.published.npy import read_npy
from editbench.bank.published.values import as_array
from editbench.base.errors import BadFile
from editbench.networks.pickles import read_pickle, read_torch

KINDS = ".npy, a GANSpace component (.pkl) or a tensor saved with torch.save (.pt)"


@dataclass(frozen=True)
class Given:
    """rows: (d,), (1, d) or (num_ws, d) as the file has them, floating. What GANSpace says besides: stdev of the
    samples along the component, layers [first, end) that it edits, the latent space ('W' or 'Z'), its name."""

    rows: np.ndarray
    stdev: float = 1.0
    layers: tuple[int, int] | None = None
    space: str | None = None
    name: str = ""


def read_direction(path: Path | str) -> Given:
    """A direction by the file's suffix; no code of a pickle is run.

    Raises:
        BadFile: the file is missing, damaged, hostile, of another kind, or lacks what GANSpace writes.
    """
    path = Path(path)
    if path.suffix == ".npy":
        array = read_npy(path, "save the direction with numpy.save")
        if array.dtype.kind != "f":
            raise BadFile(
                f"{path}: {array.dtype}, expected one array of real numbers; save the direction as floats"
            )
        return Given(np.array(array))
    if path.suffix == ".pkl":
        return component(read_pickle(path), path)
    if path.suffix in (".pt", ".pth"):
        return Given(as_array(read_torch(path), path))
    raise BadFile(f"{path}: a direction is read from {KINDS}")


def component(content: Any, path: Path | str) -> Given:
    """One principal direction as GANSpace (Härkönen et al., NeurIPS 2020) exports it: a dict with lat_comp (1, d),
    lat_stdev, edit_start and edit_end (exclusive), latent_space, name and more."""
    if not isinstance(content, dict) or "lat_comp" not in content:
        held = type(content).__name__
        if isinstance(content, dict):
            held = ", ".join(f"{str(key)[:40]!a}" for key in list(content)[:8])
        raise BadFile(
            f"{path}: no GANSpace component, which is a dict with 'lat_comp'; it holds {held or 'nothing'}"
        )
    rows = as_array(content["lat_comp"], path)
    stdev = as_array(content.get("lat_stdev", 1.0), path).reshape(-1)
    if len(stdev) != 1 or not stdev[0] > 0:
        raise BadFile(f"{path}: 'lat_stdev' must be one number above 0; export a single component")
    first, end = (_index(content.get(key), key, path) for key in ("edit_start", "edit_end"))
    if (first is None) != (end is None):
        raise BadFile(
            f"{path}: has one of 'edit_start' and 'edit_end' alone; export the component again"
        )
    layers = None if first is None or end is None else (first, end)
    if layers and not 0 <= layers[0] < layers[1]:
        raise BadFile(
            f"{path}: edits the layers [{layers[0]}, {layers[1]}), which are none; export it again"
        )
    space, name = content.get("latent_space"), content.get("name")
    return Given(
        rows,
        float(stdev[0]),
        layers,
        space if isinstance(space, str) and space in ("W", "Z") else None,
        name[:80] if isinstance(name, str) else "",
    )


def _index(value: Any, key: str, path: Path | str) -> int | None:
    if value is None or (isinstance(value, (int, np.integer)) and not isinstance(value, bool)):
        return None if value is None else int(value)
    raise BadFile(f"{path}: '{key}' is not a whole number; export the component again")
