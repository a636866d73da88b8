"""Any given direction, from a file: published boundaries, encoder directions, the fruit of another tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from editbench.methods.shared.selection import walk_space
from torch import Tensor

from editbench.bank.published.directions import read_direction
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.base.validation import check_positive
from editbench.networks.generator import Generator
from editbench.walk.editor import Editor, FitData, FitReport, Walk


class Direction(Editor):
    """next = codes + step * direction, away from it for class 0 of a binary attribute.

    A file holds (d,), (1, d), or (num_ws, d): one row for each row of W+. It is an .npy array, a .pt tensor, or a .pkl
    component of GANSpace, which also says which rows it edits (`layers` overrides that) and the standard deviation of
    the samples along it (with `normalise` off a step of 1 is one deviation). The walk of a layered file still is a line
    in W, along a carrier u, and only the decode is layered: row i is origin + t * rows[i], where t is read back from
    the codes as <codes - origin, u> / |u|^2. So codes at any t (a bisection, an interpolation) decode as they should.

    Args:
        paths: attribute -> file.
        signs: attribute -> -1 for a file that points to class 0; the rest is 1.
        normalise: make the direction unit; a layered one gets rows of unit root-mean-square length.
        delta, scale_step: step length for StyleGAN2-FFHQ's W, scaled to the spread of this space.
        space: 'w' or 'z'; layered files need 'w'.
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
        super().__init__(layers)
        check_positive("delta", delta)
        self.paths, self.signs = dict(paths), dict(signs or {})
        for name, sign in self.signs.items():
            if sign not in (1, -1) or name not in self.paths:
                raise EditbenchError(
                    f"signs: '{name}: {sign}' must be 1 or -1 for an attribute of method.paths"
                )
        self.normalise, self.delta, self.scale_step = normalise, float(delta), scale_step
        self.space = walk_space(space)
        self.unit = f"{self.space.name} units"
        self.length = self.delta
        self.directions: dict[
            str, Tensor
        ] = {}  # name -> (1, d) or (num_ws, d), sign applied; float64
        self.ranges: dict[
            str, tuple[int, int]
        ] = {}  # name -> rows that the file itself says it edits

    def fit(self, data: FitData) -> FitReport:
        self.length = data.step_size(self.delta, self.space) if self.scale_step else self.delta
        self.ranges = {}
        dim, rows = (
            data.generator.code_dim(self.space),
            data.generator.num_ws if self.space == Space.W else 0,
        )
        self.directions = {
            name: self._read(name, dim, rows)
            for name in self.paths
            if name in data.attributes.names
        }
        unused = sorted(set(self.paths) - set(self.directions))
        return FitReport(notes={"step": self.length} | ({"unused": unused} if unused else {}))

    def _read(self, name: str, dim: int, num_ws: int) -> Tensor:
        path = Path(self.paths[name])
        given = read_direction(path)
        if given.space is not None and given.space.lower() != self.space.value:
            raise BadFile(
                f"{path}: a direction of {given.space}; set method.space={given.space.lower()}"
            )
        array, rows = given.rows, np.atleast_2d(given.rows).astype(np.float64)
        if given.layers and given.layers != (0, num_ws):
            self.ranges[name] = given.layers
        if rows.ndim != 2 or rows.shape[1] != dim or len(rows) not in {1, num_ws} - {0}:
            layered = f" or ({num_ws}, {dim})" if num_ws > 1 else ""
            raise BadFile(
                f"{path}: shape {array.shape}, but this generator's {self.space.name} takes ({dim},), "
                f"(1, {dim}){layered}; set method.paths.{name} or method.space"
            )
        size = float(np.sqrt(np.square(rows).sum(1).mean()))
        if not np.isfinite(size) or size == 0:
            raise BadFile(f"{path}: the direction is zero or not finite; save another one")
        return torch.from_numpy(
            rows * self.signs.get(name, 1) * (1.0 / size if self.normalise else given.stdev)
        )

    def rows(self, attribute: str) -> tuple[int, int] | None:
        """The rows that `layers` gives, else those of the file."""
        return super().rows(attribute) or self.ranges.get(attribute)

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        if attribute not in self.paths:
            raise Unsupported(
                f"no direction file for '{attribute}': method.paths has "
                f"{', '.join(self.paths) or 'none'}"
            )
        if not attributes[attribute].binary:
            raise Unsupported(
                f"'{attribute}' has {len(attributes[attribute].classes)} classes: one direction has two"
            )
        super().check(generator, attributes, attribute)
        if len(self.directions.get(attribute, ())) > 1 and Space.W_PLUS not in generator.spaces:
            raise Unsupported("a layered direction needs a generator with W+")

    def _rows(self, walk: Walk) -> Tensor:
        if walk.attribute not in self.directions:
            raise Unsupported(f"no direction for '{walk.attribute}'")
        return self.directions[walk.attribute].to(walk.codes.device)

    def step(self, walk: Walk) -> Tensor:
        rows = self._rows(walk)
        line = rows[0] if len(rows) == 1 else _carrier(rows)
        way = (2 * walk.target - 1).unsqueeze(1)
        return walk.codes + (self.length * way * line).to(walk.codes)

    def codes(self, walk: Walk) -> Codes:
        rows = self._rows(walk)
        if len(rows) == 1:
            return super().codes(walk)
        line = _carrier(rows)
        travelled = (
            (walk.codes - walk.origin).double() @ line
        ) / line.square().sum()  # (n,), exactly 0 at step 0
        first, last = self.rows(walk.attribute) or (0, len(rows))
        reached = torch.zeros(len(rows), 1, dtype=rows.dtype, device=rows.device)
        reached[first:last] = 1.0
        moves = travelled[:, None, None] * (rows * reached)
        return Codes(Space.W_PLUS, walk.origin.unsqueeze(1) + moves.to(walk.origin))

    def state(self) -> dict[str, Tensor]:
        return (
            {"step": torch.tensor(self.length, dtype=torch.float64)}
            | {f"direction.{name}": value for name, value in self.directions.items()}
            | {f"range.{name}": torch.tensor(value) for name, value in self.ranges.items()}
        )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.length = float(state["step"])
        self.directions, self.ranges = {}, {}
        for key, value in state.items():
            kind, _, name = key.partition(".")
            if kind == "direction":
                self.directions[name] = value
            elif kind == "range":
                self.ranges[name] = (int(value[0]), int(value[1]))


def _carrier(rows: Tensor) -> Tensor:
    """The W line that carries a layered walk: the longest row, at the root-mean-square length of all rows, so that
    the path's length is that of an average row."""
    length = rows.norm(dim=1)
    return rows[length.argmax()] / length.max() * rows.square().sum(1).mean().sqrt()
