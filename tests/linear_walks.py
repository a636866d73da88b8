"""Walks of the engine in the linear world."""

import numpy as np
import torch

from editbench.bank.starts import Starts
from editbench.walk.engine import WalkInputs, walk_starts
from editbench.walk.spec import EngineSpec
from tests.toy_world import DIM, AlongColumn, ToyGenerator, ToyScorer

SIGMA = np.ones(5)


def setup(n=40, seed=0):
    rng = torch.Generator().manual_seed(seed)
    w = torch.randn(n, DIM, generator=rng)
    logits = ToyScorer()(w.reshape(-1, 1, 2, 4))
    source = (logits[:, 0] > 0).long()
    starts = Starts(np.arange(100, 100 + n), source.numpy(), 1 - source.numpy(), 1.0)
    return w, logits, starts


PLAIN = EngineSpec(30, 0, 16, 3)


def walk(editor=None, starts=None, spec=PLAIN, generator=None, w=None, logits=None, **kwargs):
    base = setup()
    w, logits, starts = (
        base[0] if w is None else w,
        base[1] if logits is None else logits,
        starts or base[2],
    )
    editor = editor or AlongColumn()
    generator = generator or ToyGenerator()
    inputs = WalkInputs(editor, generator, "a", starts, w, logits)
    return walk_starts(inputs, ToyScorer(), SIGMA, spec, **kwargs)
