"""A restricted reader of pickles and torch.save files that executes nothing in them."""

from editbench.networks.pickles.limits import Limits
from editbench.networks.pickles.reader import read_pickle, read_torch
from editbench.networks.pickles.unpickle import Global, Opaque

__all__ = ["Global", "Limits", "Opaque", "read_pickle", "read_torch"]
