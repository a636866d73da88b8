"""Singular entropy of a linear flow (Khrulkov et al. 2021, eq. 8): how many directions its matrix acts in.

H = - sum s_i ln s_i over the N largest singular values, divided by their sum first. ln N for N equal values, 0 where
one stands alone; the paper reads exp(H) as the dimension of the subspace in which something non-linear happens.
Choices, where the paper leaves room:

- N: the number is lost in the paper's text ("the results are not sensitive"); 100, or all where there are fewer, with a
  sweep beside it.
- The matrix: the paper writes the field as a matrix and a bias; the published layer is residual, so that the matrix of
  the field is I + A. That is `singular_entropy`; `singular_entropy_layer` is of A alone. The unit speed of the flow is
  left out, as in the paper: it changes when a point is reached, not which.
- An attribute with several flows, one a target, has the mean over them. There is no interval: a flow is one fit, and
  the spread over fits is had by running several seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from editbench.walk.metric import ROW_COLUMNS, MetricResult, ObservationMetric, no_samples, row
from editbench.walk.observation import Observed

MATRICES = {"effective": "singular_entropy", "layer": "singular_entropy_layer"}


class SingularEntropy(ObservationMetric):
    """Rows: `singular_entropy` (of I + A) and `singular_entropy_layer` (of A) at N = `kept`; the same over the sweep as
    `singular_entropy_kept`, `singular_entropy_layer_kept` (x: N). n counts flows.

    Args:
        kept: N, at most the dimension.
        sweep: further N; those above the dimension become it.
    """

    name = "singular_entropy"
    version = 1
    citation = "Khrulkov, Mirvakhabova, Oseledets & Babenko: Latent Transformations via NeuralODEs, ICCV 2021, eq. 8"
    observation = "singular_entropy"
    produces = {name + end: None for name in MATRICES.values() for end in ("", "_kept")}

    def __init__(self, kept: int = 100, sweep: Sequence[int] = (32, 64, 100, 128)) -> None:
        if min(kept, *sweep) < 1:
            raise ValueError(
                f"at least one singular value must be kept, got kept={kept}, sweep={list(sweep)}"
            )
        self.kept, self.sweep = int(kept), [int(n) for n in sweep]

    def compute(self, stats: Observed) -> MetricResult:
        rows = []
        for matrix, name in MATRICES.items():
            values = stats.arrays[matrix]
            flows, width = values.shape
            rows.append(
                row(
                    name,
                    float(entropy(values, self.kept).mean()),
                    flows,
                    note=f"all {width} singular values" if self.kept > width else "",
                )
            )
            rows += [
                row(f"{name}_kept", float(entropy(values, n).mean()), flows, x=float(n))
                for n in sorted({min(n, width) for n in self.sweep})
            ]
        return MetricResult(pd.DataFrame(rows, columns=list(ROW_COLUMNS)), no_samples())


def entropy(singular: np.ndarray, kept: int) -> np.ndarray:
    """Entropy of the `kept` largest of each row, at sum one: (..., d) non-negative -> (...); 0 ln 0 is 0. A matrix of
    zeros has none: NaN."""
    top = -np.sort(-np.asarray(singular, np.float64), -1)[..., :kept]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = top / top.sum(-1, keepdims=True)
        return -np.where(share == 0, 0.0, share * np.log(share)).sum(-1)
