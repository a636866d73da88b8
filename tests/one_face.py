"""One face of chosen factors."""

from __future__ import annotations

import torch

from editbench.worlds.faces.factors import BINARY, Factors


def face(**changes: float) -> Factors:
    """A plain frontal face with one thing changed."""
    values = {
        "amounts": torch.zeros(1, 5),
        "hair": torch.eye(5)[1:2].clone(),
        "yaw": torch.zeros(1),
        "skin": torch.full((1,), 0.2),
        "background": torch.full((1, 3), 0.5),
        "size": torch.ones(1),
    }
    for name, value in changes.items():
        if name in BINARY:
            values["amounts"][0, BINARY.index(name)] = value
        elif name == "hair_color":
            values["hair"] = torch.eye(5)[int(value)][None]
        else:
            values[name] = torch.full_like(values[name], value)
    return Factors(**values)
