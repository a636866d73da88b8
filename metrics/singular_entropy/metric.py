"""Singular entropy of a flow of depth one (Khrulkov et al. 2021, eq. 8): in how many directions it
acts. The field of such a flow is a matrix and a bias; the paper's "linear" flow is a constant field
without a matrix.

H = - sum s_i ln s_i over the N largest singular values, after division by their sum. It is ln N for
N equal values and 0 for a single nonzero value. The paper interprets exp(H) as the dimension of the
subspace in which the flow is nonlinear. Choices that the paper leaves open:

- N: the number is missing in the paper's text ("the results are not sensitive"). Here it is 100, or
  all values if there are fewer, and a sweep over N is reported too.
- The matrix: the paper writes the field as a matrix and a bias. The published layer is residual, so
  the matrix of the field is I + A, used for `singular_entropy`; `singular_entropy_layer` is that of
  A. The normalisation to unit speed is ignored, as in the paper: it changes when a point is
  reached, but not which points are reached.
- For an attribute with several flows, one per target, the mean over them is given. There is no
  interval, since a flow is a single fit; several seeds show the spread over fits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from editbench.base.validation import check_at_least
from editbench.walk.metric import MetricResult, ObservationMetric, ResultBuilder

MATRICES = {"effective": "singular_entropy", "layer": "singular_entropy_layer"}


class SingularEntropy(ObservationMetric):
    """Entropy of the singular values of the field's matrix.

    Rows; count is the number of flows:
        singular_entropy: of I + A, at N = `kept`.
        singular_entropy_layer: of A.
        singular_entropy_kept, singular_entropy_layer_kept: the same over the sweep, x: N.

    Args:
        kept: N, limited to the dimension.
        sweep: further values of N, limited to the dimension.
    """

    name = "singular_entropy"
    version = 1
    citation = (
        "Khrulkov, Mirvakhabova, Oseledets & Babenko: Latent Transformations via NeuralODEs, "
        "ICCV 2021, eq. 8"
    )
    observation = "singular_entropy"
    higher_is_better = None
    produces = {
        "singular_entropy": None,
        "singular_entropy_kept": None,
        "singular_entropy_layer": None,
        "singular_entropy_layer_kept": None,
    }
    joined = {"effective": 0, "layer": 0}

    def __init__(self, kept: int = 100, sweep: Sequence[int] = (32, 64, 100, 128)) -> None:
        check_at_least("kept", kept, 1)
        for number in sweep:
            check_at_least("sweep", number, 1)
        super().__init__()
        self.kept = int(kept)
        self.sweep = [int(n) for n in sweep]

    def measure(self, arrays: dict[str, np.ndarray], meta: dict) -> MetricResult:
        out = ResultBuilder()
        for matrix, name in MATRICES.items():
            values = arrays[matrix]
            flows, width = values.shape
            note = f"all {width} singular values" if self.kept > width else ""
            out.add(name, entropy(values, self.kept).mean(), flows, note=note)
            # Several N above the dimension become equal.
            for n in sorted({min(n, width) for n in self.sweep}):
                out.add(f"{name}_kept", entropy(values, n).mean(), flows, x=float(n))
        return out.result()


def entropy(singular: np.ndarray, kept: int) -> np.ndarray:
    """Entropy of the largest singular values, normalised to sum 1 (eq. 8).

    Args:
        singular: (..., d) non-negative singular values.
        kept: number of the largest values to use.

    Returns:
        (...), with 0 ln 0 = 0; NaN for a matrix of zeros.
    """
    top = -np.sort(-np.asarray(singular, np.float64), -1)[..., :kept]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = top / top.sum(-1, keepdims=True)
        return -np.where(share == 0, 0.0, share * np.log(share)).sum(-1)
