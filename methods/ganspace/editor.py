"""GANSpace: principal components of W, or of a layer's activations, as controls.

Härkönen, Hertzmann, Lehtinen & Paris, "GANSpace: Discovering Interpretable GAN Controls", NeurIPS
2020. The teacher picks among the components.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from editbench.methods.ganspace.directions import (
    Directions,
    activation_directions,
    component_notes,
    latent_blocks,
)
from editbench.methods.ganspace.pca import Moments
from editbench.methods.shared.control_search import MIN_EFFECT, Control, controls, measure
from editbench.methods.shared.layer_choice import RANGES, RANGES_OF, scale_ranges
from editbench.methods.shared.selection import walk_space
from editbench.methods.shared.state import group, prefixed
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.walk.editor import Editor, FitData, FitReport, Walk, unit_rows

BLOCK = 8192  # latents drawn together


class GANSpace(Editor):
    """w_l' = w_l + sigma * stdev_i * component_i in the rows l of a range.

    Each class has its own component i and range.
    Components are found without labels; component, range and sign are then chosen for every class
    of every attribute by the labelled protocol of editbench.methods.shared.control_search, whose
    pictures count as cost. A class may have no control.

    Args:
        samples: codes that the components are computed from, fresh draws; the fit split's where
            none can be drawn.
        components: how many; those without variance are left out.
        layer: None for the components of W itself, exact; or the layer of the generator whose
            activations are decomposed and regressed back on the latents.
        space: 'w', or 'z' (with a layer), where the latents of the regression and of the walk live.
        ranges: candidate rows [a, b) of W+, for a generator of 18 rows, carried over in
            proportion to others; a walk in Z, or without W+, moves the whole code.
        strength: of the search's edits, in standard deviations of the component, to both sides.
        search_samples: tune samples that the search edits.
        min_effect: least effect of a control, in sigmas of the teacher's log-odds.
        step: standard deviations of the component a step.
        centre: the first step also takes away what the code has along the component, as in the
            paper's comparison with supervised directions; step 0 stays the start.

    Raises:
        EditbenchError: an option is out of its range; `space` 'z' without a layer.
    """

    citation = "Härkönen, Hertzmann, Lehtinen & Paris: GANSpace, NeurIPS 2020"

    def __init__(
        self,
        samples: int = 1_000_000,
        components: int = 80,
        layer: str | None = None,
        space: str = "w",
        ranges: Sequence[Sequence[int]] = RANGES,
        strength: float = 3.0,
        search_samples: int = 64,
        min_effect: float = MIN_EFFECT,
        step: float = 0.5,
        centre: bool = False,
    ) -> None:
        super().__init__()
        if samples < 2 or components < 1 or search_samples < 1 or not strength > 0 or not step > 0:
            # One sentence for all of them: each is a number that a sweep may have put too low.
            raise EditbenchError(
                f"method.samples={samples} must be at least 2, components={components} and "
                f"search_samples={search_samples} at least 1, strength={strength} and step={step} "
                "positive"
            )
        self.space = walk_space(space)
        if self.space == Space.Z and layer is None:
            raise EditbenchError(
                "method.space=z needs method.layer: draws of z are isotropic and have no principal "
                "components of their own"
            )
        if not ranges or any(len(r) != 2 or not 0 <= r[0] < r[1] <= RANGES_OF for r in ranges):
            pairs = [list(r) for r in ranges]
            raise EditbenchError(
                f"method.ranges={pairs} must be pairs [a, b) with 0 <= a < b <= "
                f"{RANGES_OF}: rows out of {RANGES_OF}, carried over to the generator's"
            )
        self.samples = int(samples)
        self.components = int(components)
        self.layer = layer
        self.ranges = tuple((int(a), int(b)) for a, b in ranges)
        self.strength = float(strength)
        self.search_samples = int(search_samples)
        self.min_effect = float(min_effect)
        self.length = float(step)
        self.centre = centre
        self.unit = f"{self.space.name} units"
        self.mean = torch.zeros(0)
        # Name -> (K, d) signed, one standard deviation long; float64
        self.moves: dict[str, Tensor] = {}
        self.bounds: dict[str, Tensor] = {}  # name -> (K, 2) rows [a, b)
        self.reasons: dict[str, str] = {}  # name -> why it has no control

    # -- fit ------------------------------------------------------------------
    @torch.no_grad()
    def fit(self, data: FitData) -> FitReport:
        self.num_ws = data.generator.num_ws
        found = self._directions(data)
        scaled = found.rows * found.stdev[:, None]
        self.mean = torch.from_numpy(found.mean)
        # Rows of W+ can be edited alone only where a latent is a row of W+.
        rows_plus = self.space == Space.W and Space.W_PLUS in data.generator.spaces
        ranges = scale_ranges(self.ranges, self.num_ws) if rows_plus else [(0, self.num_ws)]
        candidates = list(itertools.product(range(len(scaled)), ranges))
        codes = data.tune.codes(self.space)

        def apply(candidate: int, strength: float, positions: Tensor) -> Codes:
            component, bounds = candidates[candidate]
            moves = torch.from_numpy(scaled[component]).to(codes).expand(len(positions), -1)
            origin = codes[positions]
            moved = self._advance(origin, moves, strength, self.centre)
            return self._within(origin, moved, torch.tensor([bounds], device=codes.device))

        effects = measure(
            data,
            apply,
            len(candidates),
            (-self.strength, self.strength),
            self.search_samples,
            "principal components",
        )
        notes = found.notes | {"candidates": len(candidates), "search_decodes": effects.decoded}
        self.moves = {}
        self.bounds = {}
        self.reasons = {}
        for attribute in data.attributes:
            try:
                chosen = controls(effects, data.attributes, attribute.name, self.min_effect)
            except Unsupported as error:
                # "No control found" is a result: the attribute is skipped, with the reason.
                self.reasons[attribute.name] = str(error)
                notes[f"control.{attribute.name}"] = str(error)
                continue
            signs = np.sign([control.strength for control in chosen])[:, None]
            picked = [candidates[control.candidate] for control in chosen]
            picked_rows = [component for component, _ in picked]
            self.moves[attribute.name] = torch.from_numpy(scaled[picked_rows] * signs)
            self.bounds[attribute.name] = torch.tensor([bounds for _, bounds in picked])
            seen = {}
            for name, control, pair in zip(attribute.classes, chosen, picked):
                seen[name] = _note(control, *pair)
            notes[f"control.{attribute.name}"] = seen
        return FitReport(labels=len(effects.start), notes=notes)

    def _directions(self, data: FitData) -> Directions:
        """Of the activations of a layer, or exact components of W."""
        if self.layer is not None:
            return activation_directions(
                data, self.layer, self.space, self.samples, self.components
            )
        moments = Moments(data.generator.w_dim)
        for block in latent_blocks(data, Space.W, self.samples, "components", BLOCK):
            moments.add(block.cpu().numpy())
        found = moments.components(self.components)
        notes = component_notes(data, Space.W, found, self.components)
        # stdev is the square root of the eigenvalue; the published code takes the standard
        # deviation of the projections of 5,000 fresh w instead, an estimate of the same.
        return Directions(found.mean, found.rows, found.stdev, notes)

    def class_scores(self, data: FitData, attribute: str) -> Tensor | None:
        """Coordinates along the component of each class, as it is walked."""
        if attribute not in self.moves:
            return None
        codes = data.tune.codes(self.space).double()
        return codes @ self.moves[attribute].to(codes).T

    # -- walk -----------------------------------------------------------------
    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        if self.layer is not None:
            generator.inner(self.layer)
        if attribute in self.reasons:
            raise Unsupported(self.reasons[attribute])

    def step(self, walk: Walk) -> Tensor:
        if walk.attribute not in self.moves:
            reason = f"no control for '{walk.attribute}' was searched for"
            raise Unsupported(self.reasons.get(walk.attribute, reason))
        # A row for each class: (n, d) by the samples' targets.
        moves = self.moves[walk.attribute].to(walk.codes)[walk.target]
        return self._advance(walk.codes, moves, self.length, self.centre and walk.steps == 0)

    def codes(self, walk: Walk) -> Codes:
        """W+ codes in which only the rows of each sample's own control have moved."""
        if walk.attribute not in self.bounds:
            return super().codes(walk)
        bounds = self.bounds[walk.attribute].to(walk.codes.device)
        return self._within(walk.origin, walk.codes, bounds, walk.target)

    def _advance(self, codes: Tensor, moves: Tensor, amount: float, centre: bool) -> Tensor:
        """codes (n, d) + amount * moves (n, d); with `centre` from the mean along the moves."""
        if centre:
            unit = unit_rows(moves)
            codes = codes - ((codes - self.mean.to(codes)) * unit).sum(1, keepdim=True) * unit
        return codes + amount * moves

    def _within(
        self, origin: Tensor, moved: Tensor, bounds: Tensor, choice: Tensor | None = None
    ) -> Codes:
        """The moved codes in the rows [a, b) of W+, the origin in the others.

        Args:
            origin: (n, d) codes at the start.
            moved: (n, d) codes that were reached.
            bounds: (K, 2) ranges [a, b).
            choice: (n,) the range of each sample; None: the same one for all.
        """
        # Where every range is the whole of W+, a plain code says the same and costs less.
        if bool((bounds == torch.tensor([0, self.num_ws], device=bounds.device)).all()):
            return Codes(self.space, moved)
        own = bounds if choice is None else bounds[choice]
        row = torch.arange(self.num_ws, device=moved.device)
        inside = (row >= own[:, :1]) & (row < own[:, 1:])
        rows = torch.where(inside.unsqueeze(2), moved.unsqueeze(1), origin.unsqueeze(1))
        return Codes(Space.W_PLUS, rows)

    # -- state ----------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        out = {"mean": self.mean}
        out |= prefixed("move", self.moves)
        out |= prefixed("bounds", self.bounds)
        # A state holds tensors alone: texts are kept as bytes.
        for name, text in self.reasons.items():
            out[f"reason.{name}"] = torch.tensor(list(text.encode()), dtype=torch.uint8)
        return out

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.mean = state["mean"]
        self.moves = group(state, "move")
        self.bounds = group(state, "bounds")
        self.reasons = {}
        for name, text in group(state, "reason").items():
            self.reasons[name] = bytes(text.tolist()).decode()


def _note(control: Control, component: int, rows: tuple[int, int]) -> dict[str, object]:
    return {
        "component": component,
        "rows": list(rows),
        "sign": int(math.copysign(1, control.strength)),
        "effect": round(control.effect, 3),
        "off_target": round(control.off_target, 3),
        "found": control.found,
    }
