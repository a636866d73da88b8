"""The Fréchet metric in the toy world: pixels as features, the law of the world as reference."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from editbench.base.files import digest
from editbench.base.seeding import normals
from editbench.metrics.frechet_distance.observation import FrechetDistanceObservation
from editbench.metrics.frechet_distance.reference import Reference
from editbench.networks.features import FeatureNetwork
from editbench.stats.moments import Moments
from tests.toy_world import DIM

N, B = 120, 6


rng = np.random.default_rng(0)


X, Y = (
    rng.normal(size=(N, DIM)).astype(np.float32),
    (1.3 * rng.normal(size=(N, DIM)) + 0.4).astype(np.float32),
)


TOLD = {
    "network": f"pixels@{digest('pixels', 4)}",
    "resize": "none",
    "reference": f"normal@{digest(['normal', 0.0], 4)}",
    "n": 120.0,
    "effect": 1.0,
}


class Pixels(FeatureNetwork):
    """The picture itself, flattened."""

    name, dim, resize, digest = "pixels", DIM, "none", "pixels"

    def forward(self, images):
        return images.flatten(1)


class Normal(Reference):
    """Pictures of the toy world's own law, w ~ N(0, 4 I); `shift` moves all of them."""

    name = "normal"

    def __init__(self, shift: float = 0.0, count: int = 10_000) -> None:
        self.shift, self.count, self.calls = shift, count, 0

    def identity(self, context):
        return ["normal", self.shift]

    def size(self, context):
        return self.count

    def images(self, context, start, stop, resolution):
        self.calls += 1
        x = 2 * normals(1, "a reference", start, stop, DIM) + self.shift
        return torch.from_numpy(x).float().reshape(-1, 1, 2, 4)


def observation(**options) -> FrechetDistanceObservation:
    given = {
        "network": Pixels(),
        "reference": Normal(),
        "n": N,
        "points": 5,
        "samples": 60,
        "blocks": B,
        "subsets": B,
    } | options
    return FrechetDistanceObservation(**given)


def rows_of(result, variant: str = "unmatched") -> pd.DataFrame:
    """The rows of one variant, and those that have none."""
    return result.rows[result.rows["variant"].isin(["", variant])]


def value(result, name: str, x: float | None = None, variant: str = "unmatched") -> float:
    rows = rows_of(result, variant)
    rows = rows[rows["metric"] == name]
    rows = rows[np.isclose(rows["x"], x)] if x is not None else rows
    assert len(rows) == 1, (name, x, len(rows))
    return float(rows["value"].iloc[0])


def curve(result, name: str, variant: str = "unmatched") -> tuple[np.ndarray, np.ndarray]:
    rows = rows_of(result, variant)
    rows = rows[rows["metric"] == name]
    return rows["x"].to_numpy(), rows["value"].to_numpy()


# -- the same share of the attribute ---------------------------------------------------------------
GROUPS = (13, 40, 67)  # pictures of three classes


def moments_of(features: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, ...]:
    """Count, sum and second moments by class."""
    parts = []
    for c in range(label.max() + 1):
        one = Moments(len(features), 1, features.shape[1])
        one.update(features[label == c], 0)
        parts.append(one.arrays())
    return tuple(np.stack([part[name][0] for part in parts]) for name in ("count", "sum", "outer"))
