"""A restricted reader of pickles and torch.save files that executes nothing in them."""

from editbench.networks.pickles.reader import Limits, Opaque, read_pickle, read_torch

__all__ = ["Limits", "Opaque", "read_pickle", "read_torch"]
