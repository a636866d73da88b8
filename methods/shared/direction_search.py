"""Base of editors that walk along latent directions found without labels.

A subclass finds the directions: principal components, eigenvectors of weights, or random ones. The
labelled search of editbench.methods.shared.control_search, the same for all of them, then chooses a
direction, a range of rows and a sign for every class of every attribute.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from editbench.base.attributes import Attributes
from editbench.base.devices import to_device
from editbench.base.errors import EditbenchError, NoControl, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.base.validation import check_at_least, check_finite, check_positive
from editbench.methods.shared.control_search import (
    MIN_EFFECT,
    Control,
    choose_controls,
    measure_effects,
)
from editbench.methods.shared.device_copies import DeviceCopies
from editbench.methods.shared.layer_choice import RANGES, RANGES_OF, scale_ranges
from editbench.methods.shared.options import walk_space
from editbench.methods.shared.state import group, prefixed, tensor_to_text, text_to_tensor
from editbench.networks.generator import Generator
from editbench.walk.editor import DirectionSet, Editor, FitData, FitReport, Walk


@dataclass(frozen=True)
class Directions:
    """Directions in the latent space.

    Args:
        mean: (d,) mean of the latents.
        vectors: (k, d) unit directions.
        stdev: (k,) length of one unit of strength along each direction: the standard deviation of
            the latents along it, if the method measures strength in standard deviations.
        notes: for the record.
        row_ranges: (k, 2) rows [a, b) of this generator's W+ that each direction belongs to; None
            tries each direction in all configured ranges.
    """

    mean: np.ndarray
    vectors: np.ndarray
    stdev: np.ndarray
    notes: dict[str, object]
    row_ranges: np.ndarray | None = None


class DirectionSearch(Editor):
    """w_l' = w_l + amount * stdev_i * direction_i in the rows l of a range.

    Direction, range and sign are chosen for every class of every attribute; the images decoded in
    the search count as cost. A class may have no control.

    Args:
        space: 'w' or 'z', the space of the directions.
        ranges: candidate rows [a, b) of W+ for a generator with 18 rows, scaled in proportion for
            others. In Z, or without W+, the whole code moves.
        strength: of the search's edits, in units of the direction; used with both signs.
        search_samples: number of tune samples that the search edits.
        min_effect: smallest effect of a control, in sigmas of the teacher's log-odds.
        step: step length, in units of the direction.
        centre: whether the first step also removes the code's own component along the direction,
            relative to the mean; step 0 stays the start.

    Raises:
        EditbenchError: an option is out of its range.
    """

    what = "directions"  # for the progress line
    strength_unit = "standard deviations along the direction"

    def __init__(
        self,
        space: str = "w",
        ranges: Sequence[Sequence[int]] = RANGES,
        strength: float = 3.0,
        search_samples: int = 64,
        min_effect: float = MIN_EFFECT,
        step: float = 0.5,
        centre: bool = False,
    ) -> None:
        super().__init__()
        check_at_least("method.search_samples", search_samples, 1)
        check_positive("method.strength", strength)
        check_positive("method.step", step)
        check_finite("method.min_effect", min_effect)
        if not ranges or not all(_is_range(pair) for pair in ranges):
            raise EditbenchError(
                f"method.ranges={ranges} must be pairs [a, b) with 0 <= a < b <= "
                f"{RANGES_OF}: rows out of {RANGES_OF}, scaled to the generator's"
            )
        self.space = walk_space(space)
        self.ranges = tuple((int(a), int(b)) for a, b in ranges)
        self.strength = float(strength)
        self.search_samples = int(search_samples)
        self.min_effect = float(min_effect)
        self.length = float(step)
        self.centre = centre
        self.unit = f"{self.space.name} units"
        self.mean = torch.zeros(0)
        # Name -> (K, d) float64, signed; the length is one unit of strength.
        self.moves: dict[str, Tensor] = {}
        self.row_ranges: dict[str, Tensor] = {}  # name -> (K, 2) rows [a, b) of W+
        self.reasons: dict[str, str] = {}  # name -> why it has no control
        self._copies = DeviceCopies()

    # -- fit ------------------------------------------------------------------
    @abstractmethod
    def find_directions(self, data: FitData) -> Directions:
        """Find the directions, without labels."""

    @torch.no_grad()
    def fit(self, data: FitData) -> FitReport:
        self.bind(data.generator, data.teacher)
        found = self.find_directions(data)
        scaled = found.vectors * found.stdev[:, None]
        self.mean = torch.from_numpy(found.mean)
        candidates = self._candidates(data, found)
        codes = data.tune.codes(self.space)

        def apply(candidate: int, strengths: Tensor, positions: Tensor) -> Codes:
            direction, rows = candidates[candidate]
            moves = torch.from_numpy(scaled[direction]).to(codes).expand(len(positions), -1)
            origin = codes[positions]
            moved = self._advance(origin, moves, strengths, self.centre)
            return self._within_rows(origin, moved, torch.tensor([rows]))

        effects = measure_effects(
            data,
            apply,
            len(candidates),
            (-self.strength, self.strength),
            self.search_samples,
            self.what,
        )
        notes = found.notes | {"candidates": len(candidates), "search_decodes": effects.decoded}
        self.moves = {}
        self.row_ranges = {}
        self.reasons = {}
        for attribute in data.attributes:
            key = f"control.{attribute.name}"
            try:
                controls = choose_controls(
                    effects, data.attributes, attribute.name, self.min_effect
                )
            except NoControl as error:
                # "No control found" is a result: the attribute is skipped, with the reason.
                self.reasons[attribute.name] = str(error)
                notes[key] = str(error)
                continue
            chosen = [candidates[control.candidate] for control in controls]
            signs = np.sign([control.strength for control in controls])[:, None]
            directions = scaled[[direction for direction, _ in chosen]]
            self.moves[attribute.name] = torch.from_numpy(directions * signs)
            self.row_ranges[attribute.name] = torch.tensor([rows for _, rows in chosen])
            of_classes = zip(attribute.classes, controls, chosen)
            notes[key] = {
                label: _note_control(control, *candidate)
                for label, control, candidate in of_classes
            }
        return FitReport(labels=len(effects.start), notes=notes)

    # -- all directions -------------------------------------------------------
    @torch.no_grad()
    def fixed_directions(self, data: FitData) -> DirectionSet:
        """Each direction once, in its own rows or in the first of `ranges`."""
        self.bind(data.generator, data.teacher)
        found = self.find_directions(data)
        # The candidates of a direction are consecutive; the first of them has the first range.
        first: dict[int, tuple[int, int]] = {}
        for direction, rows in self._candidates(data, found):
            first.setdefault(direction, rows)
        names = []
        for direction, (begin, end) in first.items():
            name = str(direction)  # as the record of a fit numbers it
            if end - begin == 1 and self.num_ws > 1:
                name += f", row {begin}"
            elif (begin, end) != (0, self.num_ws):
                name += f", rows {begin} to {end - 1}"
            names.append(name)
        moves = torch.from_numpy(found.vectors * found.stdev[:, None])
        bounds = torch.tensor(list(first.values()))
        third = self.strength / 3
        return DirectionSet(
            tuple(names),
            (third, 2 * third, self.strength),
            self.strength_unit,
            self.space,
            {"moves": moves, "bounds": bounds},
        )

    def apply_direction(
        self, found: DirectionSet, place: int, strength: float, codes: Tensor
    ) -> Codes:
        move = found.tensors["moves"][place : place + 1].to(codes)
        bounds = found.tensors["bounds"][place : place + 1].to(codes.device)
        # Without centring, since strength 0 must be the sample itself.
        moved = self._advance(codes, move, strength, centre=False)
        return self._within_rows(codes, moved, bounds)

    def _candidates(self, data: FitData, found: Directions) -> list[tuple[int, tuple[int, int]]]:
        """All candidates, each as a direction and the rows of W+ that it moves."""
        # Single rows of W+ can be edited only if a latent is a row of W+.
        rows_plus = self.space == Space.W and Space.W_PLUS in data.generator.spaces
        whole = (0, self.num_ws)
        out = []
        for direction in range(len(found.vectors)):
            if not rows_plus:
                ranges = [whole]
            elif found.row_ranges is not None:
                first, last = found.row_ranges[direction].tolist()
                ranges = [(first, last)]
            else:
                ranges = scale_ranges(self.ranges, self.num_ws)
            out += [(direction, rows) for rows in ranges]
        return out

    def class_scores(self, data: FitData, attribute: str) -> Tensor | None:
        """Coordinates of the codes along the walk direction of each class."""
        if attribute not in self.moves:
            return None
        codes = data.tune.codes(self.space).double()
        return codes @ self.moves[attribute].to(codes).T

    # -- walk -----------------------------------------------------------------
    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        if attribute in self.reasons:
            raise NoControl(self.reasons[attribute])

    def step(self, walk: Walk) -> Tensor:
        if walk.attribute not in self.moves:
            reason = f"no control for '{walk.attribute}' was searched for"
            raise Unsupported(self.reasons.get(walk.attribute, reason))
        # One row per class, indexed by the samples' targets: (n, d).
        name = walk.attribute
        moves = self._copies.get(f"move {name}", self.moves[name], walk.codes)[walk.target]
        return self._advance(walk.codes, moves, self.length, self.centre and walk.steps == 0)

    def codes(self, walk: Walk) -> Codes:
        """W+ codes in which only the rows of each sample's control have moved."""
        if walk.attribute not in self.row_ranges:
            return super().codes(walk)
        ranges = self.row_ranges[walk.attribute]
        return self._within_rows(walk.origin, walk.codes, ranges, walk.target)

    def _advance(
        self, codes: Tensor, moves: Tensor, amount: float | Tensor, centre: bool
    ) -> Tensor:
        """codes (n, d) + amount (n, 1) * moves (n, d).

        With `centre`, the codes' component along the moves is replaced by that of the mean first.
        """
        if centre:
            unit = F.normalize(moves, dim=-1)
            mean = self._copies.get("mean", self.mean, codes)
            codes = codes - ((codes - mean) * unit).sum(1, keepdim=True) * unit
        return codes + amount * moves

    def _within_rows(
        self, origin: Tensor, moved: Tensor, ranges: Tensor, choice: Tensor | None = None
    ) -> Codes:
        """The moved codes in the rows [a, b) of W+, and the origin in the other rows.

        Args:
            origin: (n, d) codes at the start.
            moved: (n, d) codes now.
            ranges: (K, 2) rows [a, b), on the host.
            choice: (n,) index of each sample's range; None if all samples have the same range.
        """
        # If every range is the whole of W+, a plain code is equivalent and cheaper.
        if bool((ranges == torch.tensor([0, self.num_ws])).all()):
            return Codes(self.space, moved)
        row = torch.arange(self.num_ws, device=moved.device)
        own = to_device(ranges, moved.device)
        if choice is not None:
            own = own[choice]
        inside = (row >= own[:, :1]) & (row < own[:, 1:])
        generator = self.need_generator()
        rows = torch.where(inside.unsqueeze(2), generator.w_plus(moved), generator.w_plus(origin))
        return Codes(Space.W_PLUS, rows)

    # -- state ----------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        out = {"mean": self.mean}
        out |= prefixed("move", self.moves)
        out |= prefixed("bounds", self.row_ranges)
        reasons = {name: text_to_tensor(text) for name, text in self.reasons.items()}
        return out | prefixed("reason", reasons)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.mean = state["mean"]
        self.moves = group(state, "move")
        self.row_ranges = group(state, "bounds")
        reasons = group(state, "reason")
        self.reasons = {name: tensor_to_text(text) for name, text in reasons.items()}


def _is_range(pair: object) -> bool:
    """Whether a value from a YAML is a pair [a, b) of rows out of RANGES_OF."""
    if not isinstance(pair, Sequence) or len(pair) != 2:
        return False
    first, last = pair
    if not isinstance(first, int) or not isinstance(last, int):
        return False
    return 0 <= first < last <= RANGES_OF


def _note_control(control: Control, direction: int, rows: tuple[int, int]) -> dict[str, object]:
    return {
        "component": direction,
        "rows": list(rows),
        "sign": int(math.copysign(1, control.strength)),
        "effect": round(control.effect, 3),
        "off_target": round(control.off_target, 3),
        "found": control.found,
    }
