"""What tests of editors share; the networks in closed form themselves are editbench.conformance.toy."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes, Space
from editbench.conformance import toy
from editbench.conformance.toy import (
    BINARY,
    MIXED,
    LinearScorer,
    ToyGenerator,
    fit_data,
    normals_for,
)
from editbench.networks.scorer import Scorer
from editbench.walk.editor import Editor, FitData, Walk
from editbench.walk.metric import Metric
from editbench.walk.trajectory import Trajectories

__all__ = [
    "BINARY",
    "MIXED",
    "CurvedScorer",
    "LinearScorer",
    "ToyGenerator",
    "fit_data",
    "normals_for",
]

torch.set_num_threads(1)  # the matrices are tiny: more threads only wait for one another

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="no third-party data: put it in ../shared/data"
)


class CurvedScorer(Scorer):
    """logits of a, b, c: RADIUS - |(x0, x1)|, x2, x3; the first attribute is whether (x0, x1) lie in a disc.

    A start at radius r outside is r - RADIUS away from the boundary, straight inwards. A fixed
    direction u brings it there only if <(x0, x1), u> < 0, which holds for half of a law that is
    symmetric.
    """

    input = "w"
    attributes = BINARY
    digest = "curved"
    RADIUS = 2.35  # of (x0, x1) ~ N(0, 4 I) half lies within

    def features(self, decoded: Tensor) -> Tensor:
        """The sample itself."""
        return decoded

    def forward(self, decoded: Tensor) -> Tensor:
        inside = self.RADIUS - decoded[:, :2].norm(dim=1)
        return torch.stack([inside, decoded[:, 2], decoded[:, 3]], 1)


def make_walk(data: FitData, editor: Editor, attribute: str, n: int = 40, seed: int = 5) -> Walk:
    """n new starts in the editor's space; the target is the next class (of the last one, the first)."""
    editor.bind(data.generator, data.teacher)
    return toy.make_walk(data, editor.space, attribute, n, seed)


def fitted_and_restored(make: Callable[[], Editor], data: FitData) -> tuple[Editor, Editor]:
    """An editor after its fit, and a new one with its state, as the cache of fits gives it."""
    editor = make()
    restored = make()
    editor.fit(data)
    restored.load_state({name: tensor.clone() for name, tensor in editor.state().items()})
    return editor, restored


def check_refused(make: Callable[..., object], options: Iterable[dict]) -> None:
    """Each of the options is refused by an error that names one of its keys."""
    for wrong in options:
        with pytest.raises(EditbenchError) as caught:
            make(**wrong)
        named = [key for key in wrong if re.search(rf"\b{key}\b", str(caught.value))]
        assert named, f"{wrong}: {caught.value}"


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
        table = {
            "start": walk.start,
            "source": walk.source,
            "target": walk.target,
            "step": torch.full((n,), step),
            "path": path.clone(),
            "crossed": crossed,
            "stopped": stopped,
            "finite": finite,
        }
        table |= {f"logit:{c}": logits[:, k] for k, c in enumerate(attributes.columns())}
        frames.append(pd.DataFrame({key: np.asarray(value) for key, value in table.items()}))
    table = pd.concat(frames).sort_values(["start", "step"], ignore_index=True)
    return Trajectories(table, attributes, walk.attribute, data.sigma.double().numpy())


def check_splits(metric: Metric, found: Trajectories, cuts: list[int], seed: int) -> None:
    """Any split and permutation of the starts gives the same number, bit for bit.

    Half of the parts is added by one metric, the others are merged from metrics of their own.
    """
    starts = np.random.default_rng(seed).permutation(found.table["start"].unique())
    split = copy.deepcopy(metric)
    split.reset()
    for place, group in enumerate(np.split(starts, sorted(set(cuts)))):
        tables = [found.table[found.table["start"] == start] for start in group]
        part = dataclasses.replace(found, table=pd.concat(tables, ignore_index=True))
        if place % 2:
            other = copy.deepcopy(metric)
            other.reset()
            other.update(part)
            split.merge_state(other)
        else:
            split.update(part)
    whole = metric(found)
    merged = split.compute()
    pd.testing.assert_frame_equal(whole.rows, merged.rows, check_exact=True)
    pd.testing.assert_frame_equal(whole.samples, merged.samples, check_exact=True)


def check_editor(editor: Editor, data: FitData, attribute: str, fresh: Editor) -> None:
    """What every editor owes: an exact step 0, rows that do not see one another, and a state that restores it."""
    walk = make_walk(data, editor, attribute)
    start = data.generator.decode(editor.codes(walk))
    latent = Space.Z if editor.space == Space.Z else Space.W
    torch.testing.assert_close(
        start, data.generator.decode(Codes(latent, walk.latent)), atol=1e-6, rtol=1e-6
    )
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
    fresh.bind(data.generator, data.teacher)
    fresh.load_state({name: tensor.clone() for name, tensor in editor.state().items()})
    assert torch.equal(fresh.step(walk), after)
    walk.codes, walk.steps = after, 1
    assert torch.equal(fresh.codes(walk).values, editor.codes(walk).values)
