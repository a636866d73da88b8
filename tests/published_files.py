"""Files of directions as others published them."""

from __future__ import annotations

import os
import pickle

import numpy as np


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def dump(path, value, protocol=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol))


def ganspace(path, rows, **more):
    """As GANSpace's viewer exports a component."""
    content = {
        "act_comp": np.ones((1, 4), np.float32),
        "lat_comp": rows.astype(np.float32),
        "act_stdev": 1.04,
        "lat_stdev": np.float32(1.25),
        "edit_start": 1,
        "edit_end": 3,
        "latent_space": "W",
        "name": "Light",
        "model_name": "StyleGAN2",
        "component_index": 15,
        "decomposition": {"layer": "style"},
    }
    dump(path, content | more, 4)
    return str(path)
