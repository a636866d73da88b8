"""Walks for tests of metrics: logits chosen by hand, a straight line in a linear world, and a toy world."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from editbench.base.attributes import Attributes
from editbench.methods.random_direction import RandomDirection
from editbench.walk.editor import FitData
from editbench.walk.metric import ROW_COLUMNS, SAMPLE_COLUMNS, Metric, MetricResult
from editbench.walk.trajectory import Trajectories
from tests.toy import BINARY, MIXED, fit_data, make_walk, trajectories


def walks_of(
    walks: Mapping[int, list[tuple | None]],
    targets: Mapping[int, int] | None = None,
    sigma: tuple = (1.0, 2.0, 4.0),
) -> Trajectories:
    """Walks of the attribute a, whose steps have the length 0.5.

    Args:
        walks: start -> logits of (a, b, c) at each step; a step of None diverged.
        targets: start -> target class of a; 1 for a start that is not named.
        sigma: standard deviations of the three log-odds.
    """
    rows = []
    for start, steps in walks.items():
        target = (targets or {}).get(start, 1)
        crossed = False
        for step, logits in enumerate(steps):
            finite = logits is not None
            a, b, c = logits or (np.nan,) * 3
            arrived = finite and step > 0 and (a > 0) == bool(target)
            rows.append(
                {
                    "start": start,
                    "source": 1 - target,
                    "target": target,
                    "step": step,
                    "path": 0.5 * step,
                    "crossed": crossed or arrived,
                    "stopped": arrived and not crossed,
                    "finite": finite,
                    "logit:a": a,
                    "logit:b": b,
                    "logit:c": c,
                }
            )
            crossed |= arrived
    return Trajectories(pd.DataFrame(rows), BINARY, "a", np.array(sigma))


HAND = walks_of(
    {
        # Clean at its crossing; b flips later.
        1: [(-1, 1, 1), (-0.2, 1, 1), (0.5, 0.5, 2), (2.0, -1, 2)],
        # Crosses and flips b.
        4: [(-1, 1, 1), (0.5, -1, 1)],
        # Goes the wrong way, never crosses.
        6: [(-1, 1, 1), (-1.5, 1, 1), (-1.2, 1, 1)],
        # Diverges.
        9: [(-1, 1, 1), (-0.5, 1, 1), None],
    }
)


class Line(RandomDirection):
    """Along the teacher's first normal, towards the target."""

    def fit(self, data: FitData):
        self.normal = data.teacher.normals[0]
        return super().fit(data)

    def step(self, walk):
        return walk.codes + self.length * self.normal * (2 * walk.target - 1)[:, None]


def straight_walks(overlap: float, n: int, steps: int) -> tuple[Trajectories, np.ndarray]:
    """Straight walks in a linear world, and the slopes of its log-odds (a, b, c) along them."""
    data = fit_data(overlap=overlap)
    editor = Line(delta=0.1, scale_step=False)
    editor.fit(data)
    walk = make_walk(data, editor, "a", n=n)
    assert len(walk.target.unique()) == 2
    slopes = (data.teacher.normals @ editor.normal).double()
    return trajectories(data, editor, walk, steps), slopes.numpy()


def toy_walks(attributes: Attributes = MIXED, attribute: str = "kind") -> Trajectories:
    """Forty walks along a random direction; the eighth one is NaN from its start on."""
    data = fit_data(attributes, n=200)
    editor = RandomDirection(delta=1.0)
    editor.fit(data)
    walk = make_walk(data, editor, attribute, n=40)
    walk.codes[7] = torch.nan
    walk.origin = walk.codes
    return trajectories(data, editor, walk, 30)


TOY = toy_walks()


def check_rows(metric: Metric, found: Trajectories) -> MetricResult:
    """What rows and samples of any metric keep; the result."""
    result = metric(found)
    assert list(result.rows) == list(ROW_COLUMNS)
    assert list(result.samples) == list(SAMPLE_COLUMNS)
    produced = set(result.rows["metric"]) | set(result.samples["metric"])
    assert produced <= set(metric.produces)
    sound = result.rows.dropna(subset=["value", "low"])
    # The mean of equal numbers can lie a rounding error outside of the interval.
    assert (sound["low"] <= sound["value"] + 1e-12).all()
    assert (sound["value"] <= sound["high"] + 1e-12).all()
    return result
