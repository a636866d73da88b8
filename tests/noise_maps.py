"""Noise maps of an inversion."""

import numpy as np
import torch

from editbench.base.seeding import normals


def normal(name, *shape):
    return (
        torch.from_numpy(normals(0, name, 0, shape[0], int(np.prod(shape[1:]))))
        .float()
        .reshape(shape)
    )
