"""Compares codes, and what an editor was given with a snapshot of it."""

from __future__ import annotations

import torch
from torch import Tensor

from editbench.base.spaces import Codes
from editbench.walk.editor import FitData

TOLERANCE = 1e-4  # of a step: matrix products of other batch sizes round otherwise by less
START_TOLERANCE = 1e-6  # of the start codes: the rounding of a float32


def spelled_out(codes: Codes) -> Tensor:
    """Codes as rows, so that codes of any kind can be compared.

    Args:
        codes: n codes.

    Returns:
        (n, ...) their values and, under a WeightShift, each sample's own offset of the weight.
    """
    rows = codes.values.flatten(1)
    shift = codes.shift
    if shift is None:
        return rows
    offset = shift.magnitude[:, None] * shift.kernels.flatten(1)[shift.index]
    return torch.cat([rows, offset], 1)


def close(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Which rows are the same up to rounding; NaN equals NaN.

    Args:
        a: (n, ...).
        b: (n, ...).
        start: (n, ...) before the move, whose length is the scale.

    Returns:
        (n,) bool.
    """
    # A relative tolerance alone would be too strict for a small step from large codes.
    move = (a - start).nan_to_num().abs().amax().item()
    room = TOLERANCE * move + START_TOLERANCE * start.nan_to_num().abs().amax().item()
    same = ((a - b).abs() <= room) | (a.isnan() & b.isnan())
    return same.flatten(1).all(1)


def snapshot(data: FitData) -> dict[str, Tensor]:
    """Copies of all that an editor is given and may not alter, by name."""
    out: dict[str, Tensor] = {}
    for name, split in (("fit", data.fit), ("tune", data.tune)):
        for part, value in vars(split).items():
            # A copy: a reference would show the altered values on both sides.
            if value is not None:  # a generator without W has no w
                out[f"data.{name}.{part}"] = value.clone()
    out["data.sigma"] = data.sigma.clone()
    for name, network in (("generator", data.generator), ("teacher", data.teacher)):
        for part, value in network.state_dict().items():
            out[f"data.{name}: {part}"] = value.clone()
    return out


def altered(data: FitData, before: dict[str, Tensor]) -> list[str]:
    """Names of what is no longer exactly as it was in a snapshot.

    Args:
        data: what an editor was given.
        before: `snapshot` of the same data.
    """
    now = snapshot(data)
    return [name for name, value in before.items() if not torch.equal(now[name], value)]
