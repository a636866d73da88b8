"""A scorer cut to some of its attributes: what a job sees of its teacher and its judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from editbench.networks.scorer import Scorer


class SelectedScorer(Scorer):
    """The columns of some attributes of a scorer.

    A job judges, protects and searches by the evaluated attributes alone. Its editor and its
    observations are given this scorer, so that whatever goes through `attributes` goes through the
    evaluated ones, in a method of one's own as well.

    What a scorer has beside its logits (`features`, `resolution`) is found here too. `digest` stays
    that of the whole network: an identity names the weights by it, and the evaluated attributes
    beside it (`editbench.base.identity`).

    Args:
        base: the scorer.
        names: of the attributes to keep.

    Raises:
        UnknownName: the scorer has no such attribute.
    """

    kept: Tensor  # (width,) of the network's columns

    def __init__(self, base: Scorer, names: Sequence[str]) -> None:
        super().__init__()
        self.attributes = base.attributes.select(names)
        # Before `base` is set, through which every name is found that the network has as well.
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
        """The network with all that it scores: for its layers and its features."""
        return self.base.whole

    def assess(self, decoded: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of the kept attributes, and how well each sample can be judged."""
        logits, quality = self.base.assess(decoded)
        return self._select(logits), quality

    def forward(self, decoded: Tensor) -> Tensor:
        """decoded (N, ...) -> logits (N, attributes.width) float32."""
        return self._select(self.base(decoded))

    def _select(self, logits: Tensor) -> Tensor:
        # A scorer of a function has no parameters to say where it runs.
        self.kept = self.kept.to(logits.device)
        return logits.index_select(1, self.kept)


def select_attributes(scorer: Scorer, names: Sequence[str]) -> Scorer:
    """A scorer cut to some attributes; the scorer itself where these are all of them.

    Raises:
        UnknownName: the scorer has no such attribute.
    """
    if scorer.attributes.select(names) == scorer.attributes:
        return scorer
    return SelectedScorer(scorer, names)
