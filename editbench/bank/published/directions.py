"""Published edit directions: .npy arrays, GANSpace's component pickles, .pt tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editbench.bank.published.arrays import as_array
from editbench.bank.published.npy import read_npy
from editbench.base.errors import BadFile
from editbench.networks.pickles import read_pickle, read_torch

KINDS = ".npy, a GANSpace component (.pkl) or a tensor saved with torch.save (.pt)"


@dataclass(frozen=True)
class PublishedDirection:
    """A direction as stored in its file. Only GANSpace's files give more than `rows`.

    Args:
        rows: (d,), (1, d) or (num_ws, d), floating point.
        stdev: standard deviation of the samples along the component.
        layers: half-open range [first, end) of the layers that it edits; None for all.
        space: latent space, 'W' or 'Z'; None if the file names neither.
        name: of the component.
    """

    rows: np.ndarray
    stdev: float = 1.0
    layers: tuple[int, int] | None = None
    space: str | None = None
    name: str = ""


def read_direction(path: Path | str) -> PublishedDirection:
    """Read a direction. The suffix decides the kind of file, and no code in a pickle is run.

    Args:
        path: .npy, .pkl, .pt or .pth.

    Raises:
        BadFile: the file is missing, damaged, hostile or of another kind, or lacks what GANSpace
            writes.
    """
    path = Path(path)
    # The suffix decides, so that a damaged file gets the error message of its kind.
    if path.suffix == ".npy":
        array = read_npy(path, "save the direction with numpy.save")
        if array.dtype.kind != "f":
            raise BadFile(
                f"{path}: {array.dtype}, expected one array of real numbers; save the direction as "
                "floats"
            )
        # A copy, so that the memory map, and with it the file, is closed.
        return PublishedDirection(np.array(array))
    if path.suffix == ".pkl":
        return component(read_pickle(path), path)
    if path.suffix in (".pt", ".pth"):
        return PublishedDirection(as_array(read_torch(path), path))
    raise BadFile(f"{path}: a direction can only be read from {KINDS}")


def component(content: Any, path: Path | str) -> PublishedDirection:
    """One principal direction as GANSpace (Härkönen et al., NeurIPS 2020) exports it.

    Args:
        content: of the file: a dict with lat_comp (1, d), lat_stdev, edit_start and edit_end
            (exclusive), latent_space, name and other keys.
        path: of the file, for messages.

    Raises:
        BadFile: the content is of another kind, or a value is missing or out of range.
    """
    if not isinstance(content, dict) or "lat_comp" not in content:
        held = type(content).__name__
        if isinstance(content, dict):
            # The keys are the file's choice: cut, and in ASCII.
            held = ", ".join(f"{str(key)[:40]!a}" for key in list(content)[:8])
        raise BadFile(
            f"{path}: not a GANSpace component (a dict with 'lat_comp'); it contains "
            f"{held or 'nothing'}"
        )
    rows = as_array(content["lat_comp"], path)
    stdev = as_array(content.get("lat_stdev", 1.0), path).reshape(-1)
    # A file of several components has several deviations; an edit follows one direction.
    if len(stdev) != 1 or not stdev[0] > 0:
        raise BadFile(f"{path}: 'lat_stdev' must be one positive number; export a single component")
    layers = _layers(content, path)
    # If the file names no known space, the user states it, so this is not an error.
    space = content.get("latent_space")
    if not isinstance(space, str) or space not in ("W", "Z"):
        space = None
    name = content.get("name")
    if not isinstance(name, str):
        name = ""
    return PublishedDirection(rows, float(stdev[0]), layers, space, name[:80])


def _layers(content: dict, path: Path | str) -> tuple[int, int] | None:
    """[first, end) of the layers that a component edits; None for all."""
    first = _index(content, "edit_start", path)
    end = _index(content, "edit_end", path)
    if first is None and end is None:
        return None
    # If only one end is given, the other would be a guess and the edit might not be the published
    # one.
    if first is None or end is None:
        raise BadFile(
            f"{path}: has only one of 'edit_start' and 'edit_end'; export the component again"
        )
    if not 0 <= first < end:
        raise BadFile(f"{path}: its layer range [{first}, {end}) is empty; export it again")
    return first, end


def _index(content: dict, key: str, path: Path | str) -> int | None:
    """A whole number of a component; None where the file has none."""
    value = content.get(key)
    if value is None:
        return None
    # For Python, True is an int.
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise BadFile(f"{path}: '{key}' is not a whole number; export the component again")
    return int(value)
