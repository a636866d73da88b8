"""Restricted readers of pickles and torch.save files: only data come out, nothing in them is ever run."""

from editbench.networks.pickles.door import read_pickle, read_torch
from editbench.networks.pickles.limits import Limits
from editbench.networks.pickles.opaque import Global, Opaque

__all__ = ["Global", "Limits", "Opaque", "read_pickle", "read_torch"]
