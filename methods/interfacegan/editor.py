"""InterFaceGAN: a straight walk along the normal of a linear boundary.

The normal may be conditioned on other attributes.
Shen, Gu, Tang & Zhou, "Interpreting the Latent Space of GANs for Semantic Face Editing", CVPR 2020.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from editbench.methods.interfacegan.boundaries import MIN_EXAMPLES, Boundary, fit_boundary
from editbench.methods.interfacegan.projection import TOO_SMALL, project
from editbench.methods.shared.layer_choice import (
    check_tuned,
    choose_layers,
    layers_state,
    load_layers,
)
from editbench.methods.shared.selection import (
    choice,
    class_counts,
    class_log_odds,
    empty_class,
    walk_space,
)
from editbench.methods.shared.state import group, prefixed
from torch import Tensor

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.validation import check_positive
from editbench.networks.generator import Generator
from editbench.walk.editor import Editor, FitData, FitReport, Walk

# Of a step: a code that lies on a multiple of the step is not taken to lie just below it
ON_THE_WAY = 1e-4


class InterFaceGAN(Editor):
    """next = codes + step * n', with n' the unit normal of the boundary.

    With conditions n' is projected (editbench.methods.interfacegan.projection).

    Args:
        ratio: share of the fit samples on each side, by the teacher's log-odds (the published
            code: 0.02).
        min_per_side: at least so many samples a side, so that 2 % of a small bank is not a
            handful; at most half. Of a rare class that is more than there are: the note
            in_class.NAME gives, for each boundary, the shares of its low and its high side that
            the teacher puts there. Below MIN_EXAMPLES a class is not served.
        solver: see editbench.methods.interfacegan.boundaries.fit_boundary.
        standardise: see editbench.methods.interfacegan.boundaries.fit_boundary.
        conditions: 'none', 'all' (every other attribute), or names; all are projected out
            jointly. An attribute of many classes gives all its one-vs-rest normals; dependent
            ones among them are found by rank.
        multiclass: 'ovr', one boundary a class against the rest; 'pairwise', one for each of the
            K (K - 1) / 2 pairs of classes, walked from the start's class to the target's.
        offsets: 'relative' steps from the start; or 'distance', as the published tool moves 1-D
            codes: a step goes to the next whole multiple of the step length in <codes, n'> + b, b
            the intercept on n', so that all starts visit the same distances from the boundary and
            a first step may be shorter.
        delta: step length for StyleGAN2-FFHQ's W (0.6).
        scale_step: scale `delta` to the spread of this space.
        space: 'w' or 'z'.
        layers: as in Editor, or 'tuned', a range for each attribute by
            editbench.methods.shared.layer_choice.

    Raises:
        EditbenchError: an option is out of its range or unknown.
    """

    citation = "Shen, Gu, Tang & Zhou: InterFaceGAN, CVPR 2020"

    def __init__(
        self,
        ratio: float = 0.02,
        min_per_side: int = 100,
        solver: str = "svc",
        standardise: bool = False,
        conditions: str | Sequence[str] = "none",
        multiclass: str = "ovr",
        offsets: str = "relative",
        delta: float = 0.6,
        scale_step: bool = True,
        space: str = "w",
        layers: str | tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self.tune_layers = isinstance(layers, str)
        super().__init__({} if isinstance(layers, str) else layers)
        check_positive("delta", delta)
        if isinstance(layers, str):
            choice("layers", layers, ("tuned",))
        if not 0 < ratio <= 0.5 or min_per_side < 2:
            raise EditbenchError(
                f"ratio={ratio} must be in (0, 0.5] and min_per_side={min_per_side} at least 2"
            )
        self.ratio = float(ratio)
        self.min_per_side = int(min_per_side)
        self.standardise = standardise
        self.solver = choice("solver", solver, ("svc", "newton"))
        self.multiclass = choice("multiclass", multiclass, ("ovr", "pairwise"))
        self.conditions: str | tuple[str, ...]
        if isinstance(conditions, str):
            self.conditions = choice("conditions", conditions, ("none", "all"))
        else:
            self.conditions = tuple(conditions)
        self.offsets = choice("offsets", offsets, ("relative", "distance"))
        self.delta = float(delta)
        self.scale_step = scale_step
        self.space = walk_space(space)
        self.unit = f"{self.space.name} units"
        self.length = self.delta
        self.directions: dict[str, Tensor] = {}  # name -> (K, K, d) unit, [source, target]; float64
        # Name -> (K, K, d + 1): of codes w, <(w, 1), row> along the direction
        self.positions: dict[str, Tensor] = {}
        self.remaining: dict[str, float] = {}  # name -> smallest norm left by the conditions
        self.counts: dict[str, Tensor] = {}  # name -> (K,) fit samples of each class
        self._ready: dict[str, Tensor] = {}  # directions as the walk's codes are

    # -- fit ------------------------------------------------------------------
    def fit(self, data: FitData) -> FitReport:
        attributes = data.attributes
        self.length = data.step_size(self.delta, self.space) if self.scale_step else self.delta
        self.directions = {}
        self.positions = {}
        self.remaining = {}
        self._ready = {}
        self.counts = {name: class_counts(data, name).cpu() for name in attributes.names}
        # A condition by name must have a boundary; 'all' means all those that have one.
        named = () if isinstance(self.conditions, str) else self.conditions
        for name in named:
            if self._too_few(attributes[name]):
                raise EditbenchError(f"conditions: {self._too_few(attributes[name])}; leave it out")
        names = [item.name for item in attributes if not self._too_few(item)]
        codes = data.fit.codes(self.space).cpu().numpy().astype(np.float64)
        notes: dict[str, object] = {"step": self.length}
        rest = {}
        for name in names:
            # Pairs replace the one-vs-rest boundaries, unless those serve as conditions.
            binary = attributes[name].binary
            if binary or self.multiclass == "ovr" or self.conditions != "none":
                rest[name] = self._one_vs_rest(data, codes, name, notes)
        for name in names:
            pairwise = self.multiclass == "pairwise" and not attributes[name].binary
            primal = self._pairs(data, codes, name, notes) if pairwise else _towards(rest[name])
            conditions = np.zeros((0, codes.shape[1]))
            for other in names:
                if other != name and self._is_condition(other):
                    # The normals without the intercepts: only directions are projected out.
                    conditions = np.concatenate([conditions, rest[other][:, :-1]])
            self._condition(name, primal, conditions, notes)
        return FitReport(labels=len(codes), notes=notes)

    def _is_condition(self, name: str) -> bool:
        if isinstance(self.conditions, str):
            return self.conditions == "all"
        return name in self.conditions

    def _one_vs_rest(
        self, data: FitData, codes: np.ndarray, name: str, notes: dict[str, object]
    ) -> np.ndarray:
        """Hyperplanes, each a unit normal and an intercept.

        Returns (1, d + 1) for a binary attribute, (K, d + 1) for K classes.
        """
        odds = class_log_odds(data, name).double().cpu().numpy()
        labels = data.attributes.labels(data.fit.logits, name).cpu().numpy()
        # The two sides of a binary attribute share one boundary.
        classes = [1] if data.attributes[name].binary else range(odds.shape[1])
        found = [self._boundary(codes, odds[:, c], data.seed, f"{name}:{c}") for c in classes]
        notes[f"validation_accuracy.{name}"] = [round(b.accuracy, 4) for b in found]
        notes[f"in_class.{name}"] = [_in_class(b, labels == c) for b, c in zip(found, classes)]
        notes[f"per_side.{name}"] = found[0].per_side
        return np.stack([b.hyperplane for b in found])

    def _pairs(
        self, data: FitData, codes: np.ndarray, name: str, notes: dict[str, object]
    ) -> np.ndarray:
        """Hyperplanes (K, K, d + 1) from class i to class j.

        Each is fitted on samples of these two classes alone.
        """
        logits = data.attributes.logits(data.fit.logits, name).double().cpu().numpy()
        labels = data.attributes.labels(data.fit.logits, name).cpu().numpy()
        classes = logits.shape[1]
        accuracy = {}
        in_class = {}
        out = np.zeros((classes, classes, codes.shape[1] + 1))
        for i, j in itertools.combinations(range(classes), 2):
            both = np.flatnonzero((labels == i) | (labels == j))
            # l_j - l_i is the log-odds of j against i alone.
            scores = (logits[:, j] - logits[:, i])[both]
            found = self._boundary(codes[both], scores, data.seed, f"{name}:{i}:{j}")
            out[i, j] = found.hyperplane
            out[j, i] = -found.hyperplane
            accuracy[f"{i}-{j}"] = round(found.accuracy, 4)
            in_class[f"{i}-{j}"] = _in_class(found, labels[both] == j)
        notes |= {f"validation_accuracy_pairs.{name}": accuracy, f"in_class_pairs.{name}": in_class}
        return out

    def _boundary(self, codes: np.ndarray, scores: np.ndarray, seed: int, name: str) -> Boundary:
        return fit_boundary(
            codes, scores, self.ratio, self.min_per_side, self.solver, self.standardise, seed, name
        )

    def _condition(
        self, name: str, primal: np.ndarray, conditions: np.ndarray, notes: dict[str, object]
    ) -> None:
        """Keep the walk directions of one attribute, projected.

        Args:
            name: the attribute.
            primal: (K, K, d + 1) hyperplanes, [source, target].
            conditions: (m, d) normals to project out.
            notes: take what the record says of the projection.
        """
        normals = primal[..., :-1]
        found = []
        directions = normals.copy()
        positions = primal.copy()
        # The diagonal, from a class to itself, holds no direction.
        for i, j in zip(*np.nonzero(np.abs(normals).sum(2))):
            if len(conditions):
                found.append(project(normals[i, j], conditions))
                directions[i, j] = found[-1].direction
                # <n, n'> is what was left of the normal
                positions[i, j] /= max(found[-1].remaining, TOO_SMALL)
        if self.offsets == "distance":
            self.positions[name] = torch.from_numpy(positions)
        self.directions[name] = torch.from_numpy(directions)
        # The worst pair decides whether the attribute is served: one bad direction spoils a walk.
        self.remaining[name] = min((p.remaining for p in found), default=1.0)
        if found:
            notes[f"projection.{name}"] = {
                "residual": max(p.residual for p in found),
                "remaining": self.remaining[name],
                "rank": found[0].rank,
            }

    def tune(self, data: FitData, attribute: str) -> FitReport:
        served = attribute in self.directions and self.remaining[attribute] >= TOO_SMALL
        if not self.tune_layers or not served:
            return FitReport()
        labels, notes = choose_layers(self, data, attribute)
        return FitReport(labels=labels, notes=notes)

    # -- walk -----------------------------------------------------------------
    def _too_few(self, attribute: Attribute) -> str:
        """Why an attribute has no boundary of its own; '' when it has."""
        return empty_class(attribute, self.counts[attribute.name], MIN_EXAMPLES)

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        check_tuned(self.tune_layers, generator)
        if self.counts and attribute not in self.directions:
            reason = self._too_few(attributes[attribute]) if attribute in self.counts else ""
            raise Unsupported(reason or f"no boundary was fitted for '{attribute}'")
        if self.remaining.get(attribute, 1.0) < TOO_SMALL:
            raise Unsupported(
                f"the boundary of '{attribute}' lies in the span of its conditions: only "
                f"{self.remaining[attribute]:.1e} of its unit normal is left after projection"
            )

    def step(self, walk: Walk) -> Tensor:
        if walk.attribute not in self.directions or self.remaining[walk.attribute] < TOO_SMALL:
            raise Unsupported(f"no direction for '{walk.attribute}'")
        ready = self._ready.get(walk.attribute)
        if ready is None or (ready.dtype, ready.device) != (walk.codes.dtype, walk.codes.device):
            ready = self._ready[walk.attribute] = self.directions[walk.attribute].to(walk.codes)
        return walk.codes + self._distance(walk) * ready[walk.source, walk.target]

    def _distance(self, walk: Walk) -> float | Tensor:
        """How far a step goes: one length for all, or (n, 1) up to the next multiple of it."""
        if self.offsets == "relative":
            return self.length
        rows = self.positions[walk.attribute].to(walk.codes.device)[walk.source, walk.target]
        # Distance from the boundary in steps; in float64, for a code lies on a multiple exactly.
        position = ((walk.codes.double() * rows[:, :-1]).sum(1) + rows[:, -1]) / self.length
        left = ((position + ON_THE_WAY).floor() + 1 - position) * self.length
        return left.unsqueeze(1).to(walk.codes)

    # -- state ----------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        out = {"step": torch.tensor(self.length, dtype=torch.float64)}
        out |= prefixed("direction", self.directions)
        out |= prefixed("position", self.positions)
        for name, value in self.remaining.items():
            out[f"remaining.{name}"] = torch.tensor(value, dtype=torch.float64)
        if self.tune_layers:
            out |= layers_state(self.layers)
        return out | prefixed("counts", self.counts)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.length = float(state["step"])
        self._ready = {}
        self.directions = group(state, "direction")
        self.positions = group(state, "position")
        self.counts = group(state, "counts")
        self.remaining = {name: float(value) for name, value in group(state, "remaining").items()}
        if self.tune_layers:
            self.layers = load_layers(state)


def _in_class(boundary: Boundary, members: np.ndarray) -> list[float]:
    """Shares of the low and the high side that the teacher puts there, too.

    Args:
        boundary: with the samples that were used.
        members: (n,) bool, whether the teacher puts a sample in the high class.
    """
    low, high = members[boundary.sides].mean(1)
    return [round(float(1 - low), 4), round(float(high), 4)]


def _towards(normals: np.ndarray) -> np.ndarray:
    """One-vs-rest hyperplanes (1 or K, d + 1) as [source, target]: (K, K, d + 1).

    They do not depend on the source.
    A binary attribute walks up its normal to class 1 and down to class 0. Walking to the class
    one is in is no walk.
    """
    each = np.concatenate([-normals, normals]) if len(normals) == 1 else normals
    out = np.repeat(each[None], len(each), 0)
    out[np.arange(len(each)), np.arange(len(each))] = 0.0
    return out
