"""When codes are the same, and whether what an editor was given is still as it was."""

from __future__ import annotations

import torch
from torch import Tensor

from editbench.base.spaces import Codes
from editbench.walk.editor import FitData

TOLERANCE = 1e-4  # of a step: the rounding that batches of other sizes may have


def spelled_out(codes: Codes) -> Tensor:
    """Codes as rows (n, ...): their values and, under a WeightShift, each sample's own offset of the weight."""
    rows, shift = codes.values.flatten(1), codes.shift
    if shift is None:
        return rows
    return torch.cat([rows, shift.magnitude[:, None] * shift.kernels.flatten(1)[shift.index]], 1)


def close(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Rows (n,) where a and b are the same up to rounding, on the scale of their move from `start`; NaN equals NaN."""
    move = (a - start).nan_to_num().abs().amax().item()
    room = TOLERANCE * move + 1e-6 * start.nan_to_num().abs().amax().item()
    same = ((a - b).abs() <= room) | (a.isnan() & b.isnan())
    return same.flatten(1).all(1)


def snapshot(data: FitData) -> dict[str, Tensor]:
    """Copies of all that an editor is given and may not alter."""
    out: dict[str, Tensor] = {}
    for name, split in (("fit", data.fit), ("tune", data.tune)):
        out |= {
            f"data.{name}.{part}": value.clone()
            for part, value in vars(split).items()
            if value is not None
        }
    out["data.sigma"] = data.sigma.clone()
    for name, network in (("generator", data.generator), ("teacher", data.teacher)):
        out |= {
            f"data.{name}: {part}": value.clone() for part, value in network.state_dict().items()
        }
    return out


def altered(data: FitData, before: dict[str, Tensor]) -> list[str]:
    """Names of what is no longer as it was."""
    now = snapshot(data)
    return [name for name, value in before.items() if not torch.equal(now[name], value)]
