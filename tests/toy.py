"""A linear world with closed forms: the decoded sample is the code (in W+ the mean of its rows), logits are linear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from editbench.attributes import Attribute, Attributes
from editbench.editor import Editor, FitData, Split, Walk
from editbench.generators.base import Generator
from editbench.scorers.base import Scorer
from editbench.spaces import Codes, Space
from editbench.trajectory import Trajectories

torch.set_num_threads(1)  # the matrices are tiny: more threads only wait for one another

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no third-party data: put it in ../shared/data")

BINARY = Attributes([Attribute(name, ("no", "yes")) for name in ("a", "b", "c")])
MIXED = Attributes([Attribute("a", ("no", "yes")), Attribute("kind", ("x", "y", "z")),
                    Attribute("angle", ("left", "half", "front", "right"), ordered=True)])


class ToyGenerator(Generator):
    """decode(w) = w; a row of W+ counts 1 / num_ws."""

    spaces = (Space.Z, Space.W, Space.W_PLUS)
    output = "w"

    def __init__(self, dim: int, num_ws: int = 4) -> None:
        super().__init__()
        self.z_dim, self.w_dim, self.num_ws = dim, dim, num_ws

    def map(self, z: Tensor) -> Tensor:
        return 2 * z

    def _decode(self, codes: Codes) -> Tensor:
        if codes.space == Space.W_PLUS:
            return codes.values.mean(1)
        return self.map(codes.values) if codes.space == Space.Z else codes.values


class ToyScorer(Scorer):
    """logits = x @ normals.T + bias; normals (width, d)."""

    input = "w"

    def __init__(self, attributes: Attributes, normals: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.attributes, self.normals = attributes, normals
        self.bias = torch.zeros(len(normals)) if bias is None else bias

    def forward(self, decoded: Tensor) -> Tensor:
        return decoded @ self.normals.to(decoded).T + self.bias.to(decoded)


def normals_for(attributes: Attributes, dim: int, seed: int = 0, overlap: float = 0.0) -> Tensor:
    """Unit normals (width, d); `overlap` is a common part that makes them dependent on one another."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.linalg.qr(torch.randn(dim, attributes.width + 1, generator=rng, dtype=torch.float64)).Q.T
    mixed = rows[:-1] + overlap * rows[-1:]
    return (mixed / mixed.norm(dim=1, keepdim=True)).float()


def fit_data(attributes: Attributes = BINARY, dim: int = 24, n: int = 1500, seed: int = 0, overlap: float = 0.5,
             bias: Tensor | None = None) -> FitData:
    """A bank of n fit and 200 tune samples, w ~ N(0, 4 I)."""
    z = torch.randn(n + 200, dim, generator=torch.Generator().manual_seed(seed + 100))
    generator = ToyGenerator(dim)
    scorer = ToyScorer(attributes, normals_for(attributes, dim, seed, overlap), bias)
    w = generator.map(z)
    logits, index = scorer(w), torch.arange(n + 200)
    split = [Split(index[s], z[s], w[s], logits[s]) for s in (slice(0, n), slice(n, None))]
    return FitData(generator, scorer, *split, attributes.log_odds(logits).std(0), seed)


def make_walk(data: FitData, editor: Editor, attribute: str, n: int = 40, seed: int = 5) -> Walk:
    """n new starts with their source class, and as target the next class (for the last one, the first)."""
    z = torch.randn(n, data.generator.z_dim, generator=torch.Generator().manual_seed(seed))
    codes = z if editor.space == Space.Z else data.generator.map(z)
    source = data.attributes.labels(data.teacher(data.generator.map(z)), attribute)
    target = (source + 1) % len(data.attributes[attribute].classes)
    editor.num_ws = data.generator.num_ws
    start = torch.arange(n) * 7 + 1000
    return Walk(attribute, start, codes, codes, source, target)


def trajectories(data: FitData, editor: Editor, walk: Walk, steps: int) -> Trajectories:
    """`steps` steps of every start, also past its crossing."""
    attributes, n = data.attributes, len(walk)
    crossed, path, frames = torch.zeros(n, dtype=torch.bool), torch.zeros(n), []
    for step in range(steps + 1):
        if step:
            moved = editor.step(walk)
            path = path + (moved - walk.codes).norm(dim=1)
            walk.codes, walk.steps = moved, step
        logits = data.score(editor.codes(walk))
        finite = torch.isfinite(logits).all(1)
        arrived = finite & (attributes.labels(logits, walk.attribute) == walk.target)
        stopped, crossed = arrived & ~crossed, crossed | arrived
        table = {"start": walk.start, "source": walk.source, "target": walk.target, "step": torch.full((n,), step),
                 "path": path.clone(), "crossed": crossed, "stopped": stopped, "finite": finite}
        table |= {f"logit:{c}": logits[:, k] for k, c in enumerate(attributes.columns())}
        frames.append(pd.DataFrame({key: np.asarray(value) for key, value in table.items()}))
    table = pd.concat(frames).sort_values(["start", "step"], ignore_index=True)
    return Trajectories(table, attributes, walk.attribute, data.sigma.double().numpy())


def check_editor(editor: Editor, data: FitData, attribute: str, fresh: Editor) -> None:
    """What every editor owes: an exact step 0, rows that do not see one another, and a state that restores it."""
    walk = make_walk(data, editor, attribute)
    start = editor.codes(walk)
    rows = start.values if start.space != Space.W_PLUS else start.values[:, 0]
    assert torch.equal(rows, walk.origin)
    if start.space == Space.W_PLUS:
        assert torch.equal(start.values, walk.origin.unsqueeze(1).expand_as(start.values))
    after = editor.step(walk)
    assert after.shape == walk.codes.shape and after.dtype == walk.codes.dtype
    assert torch.equal(editor.step(walk), after)
    some = torch.tensor([31, 2, 17])
    assert torch.equal(editor.step(walk[some]), after[some])
    sick = make_walk(data, editor, attribute)
    sick.codes = sick.codes.clone()
    sick.codes[3] = torch.nan
    others = torch.arange(len(walk)) != 3
    assert torch.equal(editor.step(sick)[others], after[others])
    assert torch.isnan(editor.step(sick)[3]).all()
    fresh.num_ws = editor.num_ws
    fresh.load_state({name: tensor.clone() for name, tensor in editor.state().items()})
    assert torch.equal(fresh.step(walk), after)
    walk.codes, walk.steps = after, 1
    assert torch.equal(fresh.codes(walk).values, editor.codes(walk).values)
