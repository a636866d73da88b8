"""Straight walks along one unit direction for each pair of classes, projected off conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import Unsupported
from editbench.base.validation import check_attributes, check_choice
from editbench.methods.shared.device_copies import DeviceCopies
from editbench.methods.shared.latent_editor import LatentEditor
from editbench.methods.shared.layer_choice import (
    check_tuned,
    choose_layers,
    layers_state,
    load_layers,
)
from editbench.methods.shared.projection import TOO_SMALL, project
from editbench.methods.shared.state import group, prefixed
from editbench.networks.generator import Generator
from editbench.walk.editor import FitData, FitReport, Walk


class StraightWalk(LatentEditor):
    """next = codes + step * n', with a unit direction n' for each pair of classes.

    A subclass implements `fit`. It calls `start_fit`, and then `set_directions` for each attribute
    that it has directions of.

    Args:
        conditions: 'none', 'all' (every other attribute), or names. All conditions are projected
            out jointly. An attribute with several classes contributes the vectors of all its
            classes; linearly dependent ones are found by rank.
        delta: see LatentEditor.
        scale_step: see LatentEditor.
        space: see LatentEditor.
        layers: as in Editor, or 'tuned', a range for each attribute by
            editbench.methods.shared.layer_choice.

    Raises:
        EditbenchError: an option is out of its range or unknown.
    """

    def __init__(
        self,
        conditions: str | Sequence[str],
        delta: float,
        scale_step: bool,
        space: str,
        layers: str | tuple[int, int] | Mapping[str, tuple[int, int]] | None,
    ) -> None:
        self.tune_layers = isinstance(layers, str)
        if isinstance(layers, str):
            check_choice("layers", layers, ("tuned",))
            layers = {}  # `tune` adds a range for each attribute
        super().__init__(delta, scale_step, space, layers)
        self.conditions: str | tuple[str, ...]
        if isinstance(conditions, str):
            check_choice("conditions", conditions, ("none", "all"))
            self.conditions = conditions
        else:
            self.conditions = tuple(conditions)
        self.directions: dict[str, Tensor] = {}  # name -> (K, K, d) unit, [source, target]; float64
        self.remaining: dict[str, float] = {}  # name -> smallest norm left after the projection
        self._copies = DeviceCopies()

    # -- fit ------------------------------------------------------------------
    def start_fit(self, data: FitData) -> None:
        """Forget an earlier fit, and convert the step to the space of the walk."""
        self.set_length(data)
        self.directions = {}
        self.remaining = {}

    def set_directions(
        self, name: str, vectors: np.ndarray, normals: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, object]]:
        """Project the conditions out of the vectors of one attribute, and store its directions.

        Args:
            name: the attribute.
            vectors: (K, K, d) unit vectors, [source, target]; zero where there is no direction.
            normals: attribute -> (m, d) vectors; those of the conditions are projected out.

        Returns:
            remaining: (K, K) length that the projection left of each vector.
            notes: about the projection, for the record.
        """
        conditions = np.zeros((0, vectors.shape[2]))
        for other, rows in normals.items():
            if other != name and self._is_condition(other):
                conditions = np.concatenate([conditions, rows])
        directions = vectors.copy()
        remaining = np.ones(vectors.shape[:2])
        projections = []
        # The diagonal, from a class to itself, has no direction.
        for i, j in zip(*np.nonzero(np.abs(vectors).sum(2))):
            if len(conditions):
                projection = project(vectors[i, j], conditions)
                directions[i, j] = projection.direction
                remaining[i, j] = projection.remaining
                projections.append(projection)
        self.directions[name] = torch.from_numpy(directions)
        # The worst pair decides whether the attribute is supported, since any pair may be walked.
        self.remaining[name] = float(remaining.min())
        notes: dict[str, object] = {}
        if projections:
            notes[f"projection.{name}"] = {
                "residual": max(projection.residual for projection in projections),
                "remaining": self.remaining[name],
                "rank": projections[0].rank,
            }
        return remaining, notes

    def _is_condition(self, name: str) -> bool:
        """Whether an attribute is projected out of the directions of the others."""
        if isinstance(self.conditions, str):
            return self.conditions == "all"
        return name in self.conditions

    def has_direction(self, attribute: str) -> bool:
        """Whether the fit found a direction that its conditions leave something of."""
        return attribute in self.directions and self.remaining[attribute] >= TOO_SMALL

    def tune(self, data: FitData, attribute: str) -> FitReport:
        if not self.tune_layers or not self.has_direction(attribute):
            return FitReport()
        labels, notes = choose_layers(self, data, attribute)
        return FitReport(labels=labels, notes=notes)

    def class_scores(self, data: FitData, attribute: str) -> Tensor | None:
        """Coordinates of the codes along the walk direction to each class."""
        if not self.has_direction(attribute):
            return None
        codes = data.tune.codes(self.space).double()
        # Summed over the source classes, on which one-vs-rest directions do not depend.
        each = self.directions[attribute].sum(0).to(codes)
        return codes @ each.T

    # -- walk -----------------------------------------------------------------
    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        if not isinstance(self.conditions, str):
            # An attribute that is not evaluated has no vector to project out.
            check_attributes("method.conditions", self.conditions, attributes.names)
        check_tuned(self.tune_layers, generator)
        if self.remaining.get(attribute, 1.0) < TOO_SMALL:
            raise Unsupported(
                f"the direction of '{attribute}' lies in the span of its conditions: only "
                f"{self.remaining[attribute]:.1e} of its unit length is left after projection"
            )

    def step(self, walk: Walk) -> Tensor:
        name = walk.attribute
        if not self.has_direction(name):
            raise Unsupported(f"no direction for '{name}'")
        directions = self._copies.get(f"direction {name}", self.directions[name], walk.codes)
        return walk.codes + self.distance(walk) * directions[walk.source, walk.target]

    def distance(self, walk: Walk) -> float | Tensor:
        """Length of a step: one length for all samples, or (n, 1)."""
        return self.length

    # -- state ----------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        out = super().state() | prefixed("direction", self.directions)
        for name, value in self.remaining.items():
            out[f"remaining.{name}"] = torch.tensor(value, dtype=torch.float64)
        if self.tune_layers:
            out |= layers_state(self.layers)
        return out

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        super().load_state(state)
        self.directions = group(state, "direction")
        self.remaining = {name: float(value) for name, value in group(state, "remaining").items()}
        if self.tune_layers:
            self.layers = load_layers(state)


def towards(vectors: np.ndarray) -> np.ndarray:
    """One-vs-rest vectors (1 or K, m) as [source, target]: (K, K, m).

    They do not depend on the source. For a binary attribute the vector is the given one towards
    class 1 and its negative towards class 0. The diagonal is zero.
    """
    each = np.concatenate([-vectors, vectors]) if len(vectors) == 1 else vectors
    out = np.repeat(each[None], len(each), 0)
    out[np.arange(len(each)), np.arange(len(each))] = 0.0
    return out
