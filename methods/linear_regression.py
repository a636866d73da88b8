"""Linear regression of the teacher's log-odds on the codes: a baseline of this project.

It is the simplest editor that uses all labels and protects the other attributes. It is not a
published method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.validation import check_positive, in_yaml
from editbench.methods.shared.projection import unit
from editbench.methods.shared.state import group, prefixed
from editbench.methods.shared.straight_walk import StraightWalk, towards
from editbench.networks.generator import Generator
from editbench.walk.editor import FitData, FitReport

# Candidates for `penalty: leave_one_out`, in half decades: from least squares, unless there are
# fewer samples than channels, to a penalty that outweighs the variance of every channel.
PENALTIES = tuple(10.0 ** (k / 2) for k in range(-8, 3))


class LinearRegression(StraightWalk):
    """next = codes + step * n', where n' changes the fitted log-odds of the target class only.

    The log-odds of all classes are regressed on the codes, which gives the coefficients A, one row
    per log-odds. With `conditions: all`, n' is the minimum-norm solution of A n = e_k, scaled to
    unit length: to first order it moves the log-odds k and no log-odds of another attribute. It is
    also row k of A after the other attributes' rows are projected out, which is how it is computed
    (editbench.methods.shared.projection). With `conditions: none`, it is row k itself.

    An attribute needs no examples of its classes, since log-odds exist on either side of a
    boundary. If its log-odds are the same on all samples, it has no direction, and as a condition
    it changes nothing.

    Args:
        penalty: of the ridge regression, see `ridge`; or 'leave_one_out', which takes the one of
            PENALTIES with the smallest squared error on left-out samples, for each log-odds.
        conditions: see StraightWalk. An attribute with several classes contributes the rows of all
            its classes.
        delta: see StraightWalk.
        scale_step: see StraightWalk.
        space: see StraightWalk.
        layers: see StraightWalk.

    Raises:
        EditbenchError: an option is out of its range or unknown.
    """

    citation = "a baseline of this project"

    def __init__(
        self,
        penalty: float | str = "leave_one_out",
        conditions: str | Sequence[str] = "all",
        delta: float = 0.6,
        scale_step: bool = True,
        space: str = "w",
        layers: str | tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(conditions, delta, scale_step, space, layers)
        if isinstance(penalty, str):
            if penalty != "leave_one_out":
                raise EditbenchError(
                    f"penalty={in_yaml(penalty)} must be a positive number, or leave_one_out"
                )
            self.penalties = PENALTIES
        else:
            check_positive("penalty", penalty)
            self.penalties = (float(penalty),)
        self.varies: dict[str, bool] = {}  # name -> whether all its log-odds differ among samples

    def fit(self, data: FitData) -> FitReport:
        self.start_fit(data)
        attributes = data.attributes
        codes = data.fit.codes(self.space).double().cpu().numpy()
        odds = attributes.log_odds(data.fit.logits).double().cpu().numpy()
        found = ridge(codes, odds, self.penalties)
        # The lengths of the rows do not matter: neither a direction nor a span depends on them.
        rows = {name: unit(found.rows[columns]) for name, columns in attributes.slices.items()}
        self.varies = {
            name: bool(found.rows[columns].any(1).all())
            for name, columns in attributes.slices.items()
        }
        notes: dict[str, object] = {"step": self.length}
        for name, columns in attributes.slices.items():
            if not self.varies[name]:
                continue
            notes[f"penalty.{name}"] = found.penalty[columns].tolist()
            notes[f"explained.{name}"] = found.explained[columns].round(4).tolist()
            _, projection_notes = self.set_directions(name, towards(rows[name]), rows)
            notes |= projection_notes
        return FitReport(labels=len(data.fit), notes=notes)

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        if not self.varies.get(attribute, True):
            raise Unsupported(
                f"the teacher's log-odds of '{attribute}' are the same on all samples of the fit "
                "split, so no direction changes them"
            )

    def state(self) -> dict[str, Tensor]:
        varies = {name: torch.tensor(value) for name, value in self.varies.items()}
        return super().state() | prefixed("varies", varies)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        super().load_state(state)
        self.varies = {name: bool(value) for name, value in group(state, "varies").items()}


@dataclass(frozen=True)
class Regression:
    """Coefficients of several targets.

    Args:
        rows: (m, d) coefficients; zero for a constant target.
        penalty: (m,) that each target was fitted with; NaN for a constant one.
        explained: (m,) share of the variance that is explained on left-out samples; NaN for a
            constant one. It is negative if the mean predicts them better.
    """

    rows: np.ndarray
    penalty: np.ndarray
    explained: np.ndarray


def ridge(codes: np.ndarray, targets: np.ndarray, penalties: Sequence[float]) -> Regression:
    """Ridge regression with an intercept, for each target with its own best penalty.

    Minimises mean_i (y_i - <a, x_i> - b)^2 + penalty * v * |a|^2, where v is the mean variance of a
    channel of the codes, so that a penalty means the same in every space.

    Args:
        codes: (n, d) float64.
        targets: (n, m) float64.
        penalties: candidates, all positive. For each target, the one with the smallest mean squared
            error is taken when each sample is predicted from all others.
    """
    # Imported here, since the import takes a second that a cached fit need not spend.
    from sklearn.linear_model import RidgeCV

    n, dim = codes.shape
    width = targets.shape[1]
    rows = np.zeros((width, dim))
    penalty = np.full(width, np.nan)
    explained = np.full(width, np.nan)
    # The mean of a constant target may be off by a rounding error, which would pass for a signal.
    varies = np.ptp(targets, axis=0) > 0
    if varies.any():
        # scikit-learn adds up the squared errors, so that its penalty is n times as large.
        scale = n * codes.var(0).mean()
        model = RidgeCV(alphas=scale * np.array(penalties), alpha_per_target=True)
        model.fit(codes, targets[:, varies])
        rows[varies] = model.coef_
        penalty[varies] = model.alpha_ / scale
        # The score is the negative of the mean squared error on left-out samples.
        explained[varies] = 1 + model.best_score_ / targets[:, varies].var(0)
    return Regression(rows, penalty, explained)
