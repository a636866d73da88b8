"""Edits along a given direction, read from a file: a published boundary, for example."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editbench.bank.published.directions import read_direction
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.methods.shared.device_copies import DeviceCopies
from editbench.methods.shared.latent_editor import LatentEditor
from editbench.methods.shared.state import group, prefixed
from editbench.networks.generator import Generator
from editbench.walk.editor import FitData, FitReport, Walk


class Direction(LatentEditor):
    """next = codes + step * direction; the sign is reversed for class 0 of a binary attribute.

    A file holds (d,), (1, d) or, with one row for each row of W+, (num_ws, d). It is an .npy array,
    a .pt tensor or a .pkl component of GANSpace. The latter also says which rows it edits (`layers`
    overrides this) and the standard deviation of the samples along it (without `normalise`, a step
    of 1 is one standard deviation).

    With a layered file, (num_ws, d), the walk is still a line in W, along a vector u. Only the
    decoded codes are layered: t * rows[i] is added to row i of the start's W+ (which is truncated
    up to a cutoff, if the generator has one). Here t = <codes - origin, u> / |u|^2 is computed from
    the codes, so that codes at any t (of a bisection or an interpolation) decode correctly.

    Args:
        paths: attribute -> file.
        signs: attribute -> -1 if the file points to class 0; the default is 1.
        normalise: scale the direction to unit length; a layered direction is scaled to rows of unit
            root-mean-square length.
        delta: see LatentEditor.
        scale_step: see LatentEditor.
        space: 'w' or 'z'; layered files need 'w'.
        layers: rows [a, b) of W+ that are edited, for all attributes or for each; None takes the
            rows of the file, or all.

    Raises:
        EditbenchError: a sign is not 1 or -1, or is given for an attribute without a file.
    """

    citation = "given"

    def __init__(
        self,
        paths: Mapping[str, str],
        signs: Mapping[str, int] | None = None,
        normalise: bool = True,
        delta: float = 0.6,
        scale_step: bool = True,
        space: str = "w",
        layers: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(delta, scale_step, space, layers)
        self.paths = dict(paths)
        self.signs = dict(signs or {})
        # With a misspelt name the sign would silently stay 1, and the walk would go the wrong way.
        for name, sign in self.signs.items():
            if sign not in (1, -1) or name not in self.paths:
                raise EditbenchError(
                    f"signs: '{name}: {sign}' must be 1 or -1 for an attribute of method.paths"
                )
        self.normalise = normalise
        # Name -> (1, d) or (num_ws, d), sign applied; float64
        self.directions: dict[str, Tensor] = {}
        # Name -> rows of W+ that the file itself names, as published files may.
        self.ranges: dict[str, tuple[int, int]] = {}
        self._copies = DeviceCopies()

    def fit(self, data: FitData) -> FitReport:
        self.set_length(data)
        self.ranges = {}
        dim = data.generator.code_dim(self.space)
        # Z has no counterpart of W+, so a layered file is rejected there.
        rows = data.generator.num_ws if self.space == Space.W else 0
        self.directions = {}
        for name in self.paths:
            if name in data.attributes.names:
                self.directions[name] = self._read(name, dim, rows)
        notes: dict[str, object] = {"step": self.length}
        # One table of files may be used with several scorers, so an unused file is not an error.
        unused = sorted(set(self.paths) - set(self.directions))
        if unused:
            notes["unused"] = unused
        return FitReport(notes=notes)

    def _read(self, name: str, dim: int, num_ws: int) -> Tensor:
        """The direction of one attribute: (1, dim) or (num_ws, dim) float64.

        Raises:
            BadFile: it does not fit the generator.
        """
        path = Path(self.paths[name])
        given = read_direction(path)
        if given.space is not None and given.space.lower() != self.space.value:
            raise BadFile(
                f"{path}: a direction of {given.space}; set method.space={given.space.lower()}"
            )
        array = given.rows
        rows = np.atleast_2d(given.rows).astype(np.float64)
        # A range over all rows is no restriction, and without it a generator without W+ works too.
        if given.layers and given.layers != (0, num_ws):
            self.ranges[name] = given.layers
        if rows.ndim != 2 or rows.shape[1] != dim or len(rows) not in {1, num_ws} - {0}:
            layered = f" or ({num_ws}, {dim})" if num_ws > 1 else ""
            raise BadFile(
                f"{path}: shape {array.shape}, but this generator's {self.space.name} takes "
                f"({dim},), (1, {dim}){layered}; set method.paths.{name} or method.space"
            )
        # Root-mean-square length of the rows; for a single row this is its length.
        size = float(np.sqrt(np.square(rows).sum(1).mean()))
        if not np.isfinite(size) or size == 0:
            raise BadFile(f"{path}: the direction is zero or not finite; save another one")
        factor = 1.0 / size if self.normalise else given.stdev
        return torch.from_numpy(rows * self.signs.get(name, 1) * factor)

    def rows(self, attribute: str) -> tuple[int, int] | None:
        """The rows given by `layers`, otherwise those of the file."""
        return super().rows(attribute) or self.ranges.get(attribute)

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        if attribute not in self.paths:
            raise Unsupported(
                f"no direction file for '{attribute}': method.paths has "
                f"{', '.join(self.paths) or 'none'}"
            )
        if not attributes[attribute].binary:
            classes = len(attributes[attribute].classes)
            raise Unsupported(f"'{attribute}' has {classes} classes: one direction has two")
        super().check(generator, attributes, attribute)
        if len(self.directions.get(attribute, ())) > 1 and Space.W_PLUS not in generator.spaces:
            raise Unsupported("a layered direction needs a generator with W+")

    def class_scores(self, data: FitData, attribute: str) -> Tensor | None:
        """Coordinates along the line of the walk."""
        if attribute not in self.directions or not data.attributes[attribute].binary:
            return None
        codes = data.tune.codes(self.space).double()
        rows = self.directions[attribute].to(codes)
        line = rows[0] if len(rows) == 1 else _line_in_w(rows)
        along = codes @ line
        return torch.stack([-along, along], 1)

    def _direction(self, walk: Walk) -> Tensor:
        """The direction of the walk's attribute, (1, d) or (num_ws, d) float64, on its device."""
        if walk.attribute not in self.directions:
            raise Unsupported(f"no direction for '{walk.attribute}'")
        like = walk.codes.new_empty(0, dtype=torch.float64)
        return self._copies.get(walk.attribute, self.directions[walk.attribute], like)

    def step(self, walk: Walk) -> Tensor:
        rows = self._direction(walk)
        line = rows[0] if len(rows) == 1 else _line_in_w(rows)
        sign = (2 * walk.target - 1).unsqueeze(1)  # (n, 1): -1 towards class 0, 1 towards class 1
        return walk.codes + (self.length * sign * line).to(walk.codes)

    def codes(self, walk: Walk) -> Codes:
        rows = self._direction(walk)
        if len(rows) == 1:
            return super().codes(walk)
        line = _line_in_w(rows)
        # t of each sample (n,): exactly 0 at step 0, so that the start is decoded unchanged.
        travelled = ((walk.codes - walk.origin).double() @ line) / line.square().sum()
        first, last = self.rows(walk.attribute) or (0, len(rows))
        edited = torch.zeros(len(rows), 1, dtype=rows.dtype, device=rows.device)
        edited[first:last] = 1.0
        moves = travelled[:, None, None] * (rows * edited)  # (n, num_ws, d)
        return Codes(
            Space.W_PLUS, self.need_generator().w_plus(walk.origin) + moves.to(walk.origin)
        )

    def state(self) -> dict[str, Tensor]:
        out = super().state() | prefixed("direction", self.directions)
        for name, rows in self.ranges.items():
            out[f"range.{name}"] = torch.tensor(rows)
        return out

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        super().load_state(state)
        self.directions = group(state, "direction")
        self.ranges = {}
        for name, rows in group(state, "range").items():
            self.ranges[name] = (int(rows[0]), int(rows[1]))


def _line_in_w(rows: Tensor) -> Tensor:
    """The direction in W along which a layered walk moves: (num_ws, d) -> (d,).

    It is the longest row, scaled to the root-mean-square length of all rows, so that the path
    length is that of an average row.
    """
    # The longest row is never zero. A fixed row could be, since published files edit few rows.
    length = rows.norm(dim=1)
    return rows[length.argmax()] / length.max() * rows.square().sum(1).mean().sqrt()
