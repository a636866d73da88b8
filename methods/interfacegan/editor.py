"""InterFaceGAN: a straight walk along the normal of a linear boundary.

The normal may be conditioned on other attributes.
Shen, Gu, Tang & Zhou, "Interpreting the Latent Space of GANs for Semantic Face Editing", CVPR 2020.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.validation import check_choice
from editbench.methods.interfacegan.boundaries import (
    MIN_EXAMPLES,
    Boundary,
    extreme_sides,
    fit_boundary,
    per_side,
)
from editbench.methods.shared.examples import (
    class_counts,
    class_log_odds,
    empty_class,
    example_order,
    random_examples,
)
from editbench.methods.shared.projection import TOO_SMALL
from editbench.methods.shared.state import group, prefixed
from editbench.methods.shared.straight_walk import StraightWalk, towards
from editbench.networks.generator import Generator
from editbench.walk.editor import FitData, FitReport, Walk

# In steps. A code that is nearer than this to a multiple of the step counts as being on it, whatever
# the rounding.
STEP_TOLERANCE = 1e-4


class InterFaceGAN(StraightWalk):
    """next = codes + step * n', with n' the unit normal of the boundary.

    With conditions, n' is projected (editbench.methods.shared.projection).

    Args:
        selection: 'extremes', the samples with the lowest and the highest log-odds according to the
            teacher (as published); or 'random', the same number of each side drawn from the fit
            split.
        ratio: share of the fit samples on each side (the published code: 0.02).
        min_per_side: minimum number of samples per side (at most half of all), since 2 % of a small
            bank would be too few. A rare class may have fewer samples than this. With 'extremes',
            the note in_class.NAME then gives, for each boundary, the shares of its low and high
            side that the teacher assigns to that side, and a class with fewer than MIN_EXAMPLES
            samples is not supported. With 'random', an attribute is supported if each of its
            classes has this many samples.
        hold_out: share of each side that is held out (the published code: 0.3). It is used only for
            the note validation_accuracy.NAME.
        solver: see editbench.methods.interfacegan.boundaries.fit_boundary.
        standardise: see editbench.methods.interfacegan.boundaries.fit_boundary.
        conditions: see StraightWalk. An attribute with several classes contributes all its
            one-vs-rest normals.
        multiclass: 'ovr', one boundary per class against the rest; or 'pairwise', one for each of
            the K (K - 1) / 2 pairs of classes, used from the start's class to the target class.
        offsets: 'relative', steps from the start; or 'distance', as the published tool moves 1-D
            codes. The distance from the boundary along n' is (<codes, n> + b) / <n, n'>, with n and
            b of the fitted boundary, and a step goes to its next whole multiple of the step length.
            All starts therefore visit the same distances, and the first step may be shorter.
        delta: see StraightWalk.
        scale_step: see StraightWalk.
        space: see StraightWalk.
        layers: see StraightWalk.

    Raises:
        EditbenchError: an option is out of its range or unknown.
    """

    citation = "Shen, Gu, Tang & Zhou: InterFaceGAN, CVPR 2020"

    def __init__(
        self,
        selection: str = "extremes",
        ratio: float = 0.02,
        min_per_side: int = 100,
        hold_out: float = 0.0,
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
        super().__init__(conditions, delta, scale_step, space, layers)
        if not 0 < ratio <= 0.5 or min_per_side < 2:
            raise EditbenchError(
                f"ratio={ratio} must be in (0, 0.5] and min_per_side={min_per_side} at least 2"
            )
        if not 0 <= hold_out < 1:
            raise EditbenchError(f"hold_out={hold_out} must be in [0, 1)")
        check_choice("selection", selection, ("extremes", "random"))
        self.selection = selection
        self.hold_out = float(hold_out)
        self.ratio = float(ratio)
        self.min_per_side = int(min_per_side)
        self.standardise = standardise
        check_choice("solver", solver, ("svc", "newton"))
        self.solver = solver
        check_choice("multiclass", multiclass, ("ovr", "pairwise"))
        self.multiclass = multiclass
        check_choice("offsets", offsets, ("relative", "distance"))
        self.offsets = offsets
        # Name -> (K, K, d + 1): <(w, 1), row> is the position of codes w along the direction
        self.positions: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}  # name -> (K,) fit samples of each class

    # -- fit ------------------------------------------------------------------
    def fit(self, data: FitData) -> FitReport:
        attributes = data.attributes
        self.start_fit(data)
        self.positions = {}
        self.counts = {name: class_counts(data, name).cpu() for name in attributes.names}
        # A condition given by name must have a boundary; 'all' means all attributes that have one.
        named = () if isinstance(self.conditions, str) else self.conditions
        for name in named:
            if self._too_few(attributes[name]):
                raise EditbenchError(
                    f"conditions: {self._too_few(attributes[name])}, or leave it out"
                )
        names = [item.name for item in attributes if not self._too_few(item)]
        codes = data.fit.codes(self.space).cpu().numpy().astype(np.float64)
        boundaries: list[Boundary] = []
        notes: dict[str, object] = {"step": self.length}
        one_vs_rest = {}  # name -> (1 or K, d + 1)
        for name in names:
            # Pairs replace the one-vs-rest boundaries, unless those are needed as conditions.
            binary = attributes[name].binary
            if binary or self.multiclass == "ovr" or self.conditions != "none":
                found, own_notes = self._one_vs_rest(data, codes, name)
                one_vs_rest[name] = np.stack([boundary.hyperplane for boundary in found])
                boundaries += found
                notes |= own_notes
        # Without the intercepts, since only directions are projected out.
        normals = {name: rows[:, :-1] for name, rows in one_vs_rest.items()}
        for name in names:
            if self.multiclass == "pairwise" and not attributes[name].binary:
                hyperplanes, found, own_notes = self._pairs(data, codes, name)
                boundaries += found
                notes |= own_notes
            else:
                hyperplanes = towards(one_vs_rest[name])
            remaining, own_notes = self.set_directions(name, hyperplanes[..., :-1], normals)
            notes |= own_notes
            if self.offsets == "distance":
                # <n, n'> is the norm that the projection left of n.
                positions = hyperplanes / np.maximum(remaining, TOO_SMALL)[..., None]
                self.positions[name] = torch.from_numpy(positions)
        return FitReport(labels=self._looked(data, boundaries), notes=notes)

    def _looked(self, data: FitData, boundaries: Sequence[Boundary]) -> int:
        """Number of labels read for some boundaries."""
        # All samples must be labelled to know which of them are extreme.
        if self.selection == "extremes":
            return len(data.fit)
        order = example_order(data)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        # A random draw reads labels until the last boundary has its samples.
        return max((int(place[b.sides].max()) + 1 for b in boundaries), default=0)

    def _one_vs_rest(
        self, data: FitData, codes: np.ndarray, name: str
    ) -> tuple[list[Boundary], dict[str, object]]:
        """Fit the boundary between each class of an attribute and the rest.

        Args:
            data: the fit split and its labels.
            codes: (n, d) float64 codes of the fit split.
            name: the attribute.

        Returns:
            One boundary for a binary attribute, K for K classes; and notes for the record.
        """
        odds = class_log_odds(data, name).double().cpu().numpy()
        labels = data.attributes.labels(data.fit.logits, name).cpu().numpy()
        # The two sides of a binary attribute share one boundary.
        classes = [1] if data.attributes[name].binary else range(odds.shape[1])
        everything = np.arange(len(codes))
        found = []
        for c in classes:
            sides = self._sides(data, everything, odds[:, c], labels == c)
            found.append(self._boundary(data, codes, sides, f"{name}:{c}"))
        notes: dict[str, object] = {}
        if self.hold_out:
            notes[f"validation_accuracy.{name}"] = [round(b.accuracy, 4) for b in found]
        notes[f"in_class.{name}"] = [_in_class(b, labels == c) for b, c in zip(found, classes)]
        notes[f"examples.{name}"] = [found[0].per_side] * 2
        return found, notes

    def _pairs(
        self, data: FitData, codes: np.ndarray, name: str
    ) -> tuple[np.ndarray, list[Boundary], dict[str, object]]:
        """Fit the boundary of every pair of classes, on samples of these two classes.

        Args:
            data: the fit split and its labels.
            codes: (n, d) float64 codes of the fit split.
            name: the attribute.

        Returns:
            Hyperplanes (K, K, d + 1) from class i to class j; the boundaries; and notes for the
            record.
        """
        logits = data.attributes.logits(data.fit.logits, name).double().cpu().numpy()
        labels = data.attributes.labels(data.fit.logits, name).cpu().numpy()
        classes = logits.shape[1]
        accuracy = {}
        in_class = {}
        examples = {}
        boundaries = []
        hyperplanes = np.zeros((classes, classes, codes.shape[1] + 1))
        for i, j in itertools.combinations(range(classes), 2):
            both = np.flatnonzero((labels == i) | (labels == j))
            # l_j - l_i is the log-odds of j against i.
            sides = self._sides(data, both, logits[:, j] - logits[:, i], labels == j)
            found = self._boundary(data, codes, sides, f"{name}:{i}:{j}")
            boundaries.append(found)
            hyperplanes[i, j] = found.hyperplane
            hyperplanes[j, i] = -found.hyperplane
            accuracy[f"{i}-{j}"] = round(found.accuracy, 4)
            in_class[f"{i}-{j}"] = _in_class(found, labels == j)
            examples[f"{i}-{j}"] = [found.per_side] * 2
        notes: dict[str, object] = {
            f"in_class_pairs.{name}": in_class,
            f"examples_pairs.{name}": examples,
        }
        if self.hold_out:
            notes[f"validation_accuracy_pairs.{name}"] = accuracy
        return hyperplanes, boundaries, notes

    def _sides(
        self, data: FitData, candidates: np.ndarray, scores: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        """Choose the samples of the low and of the high side of a boundary.

        Args:
            data: the fit split.
            candidates: (m,) positions of the samples to choose from.
            scores: (n,) scores of the high side's class.
            high: (n,) bool, whether the teacher assigns a sample to that class.

        Returns:
            (2, count) positions.
        """
        count = per_side(len(candidates), self.ratio, self.min_per_side)
        if self.selection == "extremes":
            return candidates[extreme_sides(scores[candidates], count)]
        order = example_order(data)
        order = order[np.isin(order, candidates)]
        chosen, _ = random_examples(torch.from_numpy(high).long(), 2, order, count)
        return np.stack(chosen)

    def _boundary(self, data: FitData, codes: np.ndarray, sides: np.ndarray, name: str) -> Boundary:
        return fit_boundary(
            codes, sides, self.hold_out, self.solver, self.standardise, data.seed, name
        )

    # -- walk -----------------------------------------------------------------
    def _too_few(self, attribute: Attribute) -> str:
        """Why an attribute has too few samples for a boundary; '' if it has enough."""
        counts = self.counts[attribute.name]
        if self.selection == "extremes":
            return empty_class(attribute, counts, MIN_EXAMPLES)
        # A boundary needs more than one sample per side.
        least = max(per_side(int(counts.sum()), self.ratio, self.min_per_side), 2)
        lower = "method.ratio and method.min_per_side"
        return empty_class(attribute, counts, least, lower)

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        if self.counts and attribute not in self.directions:
            reason = self._too_few(attributes[attribute]) if attribute in self.counts else ""
            raise Unsupported(reason or f"no boundary was fitted for '{attribute}'")

    def distance(self, walk: Walk) -> float | Tensor:
        """Length of a step; with `offsets: distance` (n, 1), up to the next multiple of it."""
        if self.offsets == "relative":
            return self.length
        # In float64, because codes lie exactly on multiples.
        codes = walk.codes.double()
        name = walk.attribute
        positions = self._copies.get(f"position {name}", self.positions[name], codes)
        rows = positions[walk.source, walk.target]
        # Distance from the boundary in steps.
        position = ((codes * rows[:, :-1]).sum(1) + rows[:, -1]) / self.length
        left = ((position + STEP_TOLERANCE).floor() + 1 - position) * self.length
        return left.unsqueeze(1).to(walk.codes)

    # -- state ----------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        out = super().state() | prefixed("position", self.positions)
        return out | prefixed("counts", self.counts)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        super().load_state(state)
        self.positions = group(state, "position")
        self.counts = group(state, "counts")


def _in_class(boundary: Boundary, members: np.ndarray) -> list[float]:
    """Shares of the low and the high side that the teacher assigns to the same side.

    Args:
        boundary: with the samples that were used.
        members: (n,) bool, whether the teacher assigns a sample to the high class.
    """
    low, high = members[boundary.sides].mean(1)
    return [round(float(1 - low), 4), round(float(high), 4)]
