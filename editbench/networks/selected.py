"""A scorer restricted to some attributes, as a job sees its teacher and its judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from editbench.networks.scorer import Scorer


class SelectedScorer(Scorer):
    """A scorer with the columns of some of its attributes.

    A job uses only the evaluated attributes to judge, to protect and to search. Its editor and
    observations get this scorer, so that any code that loops over `attributes`, such as a user's
    method, uses only these.

    Other attributes of the scorer (`features`, `resolution`) are available too. `digest` is that of
    the whole network, since identities contain the evaluated attributes separately
    (`editbench.base.identity`).

    Args:
        base: the scorer.
        names: of the attributes to keep.

    Raises:
        UnknownName: the scorer has no such attribute.
    """

    kept: Tensor  # (width,) kept columns of the network

    def __init__(self, base: Scorer, names: Sequence[str]) -> None:
        super().__init__()
        self.attributes = base.attributes.select(names)
        # Before `base` is set, from which __getattr__ would then take these names.
        places = torch.tensor(base.attributes.positions(self.attributes))
        self.register_buffer("kept", places, persistent=False)
        self.base = base
        self.input = base.input
        self.digest = base.digest
        self.has_quality = base.has_quality
        self.says_output = base.says_output

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    @property
    def whole(self) -> Scorer:
        """The scorer with all its attributes, for its layers and features."""
        return self.base.whole

    def assess(self, decoded: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of the kept attributes, and how well each sample can be judged."""
        logits, quality = self.base.assess(decoded)
        return self._select(logits), quality

    def forward(self, decoded: Tensor) -> Tensor:
        """decoded (N, ...) -> logits (N, attributes.width) float32."""
        return self._select(self.base(decoded))

    def _select(self, logits: Tensor) -> Tensor:
        # Moved here, since the scorer of a function has no parameters that show its device.
        self.kept = self.kept.to(logits.device)
        return logits.index_select(1, self.kept)


def select_attributes(scorer: Scorer, names: Sequence[str]) -> Scorer:
    """A scorer restricted to some attributes; the scorer itself if these are all of them.

    Args:
        scorer: of all its attributes, or already restricted.
        names: of the attributes to keep, in any order.

    Raises:
        UnknownName: the scorer has no such attribute.
    """
    if scorer.attributes.select(names) == scorer.attributes:
        return scorer
    return SelectedScorer(scorer, names)
