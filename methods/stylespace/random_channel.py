"""The floor of channel methods: one random style channel per start, for every attribute."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from editbench.base.devices import to_device
from editbench.base.seeding import uniforms
from editbench.base.spaces import Space
from editbench.base.validation import check_positive
from editbench.methods.stylespace.channels import channel_moments, movable
from editbench.walk.editor import Editor, FitData, FitReport, Walk


class RandomChannel(Editor):
    """next = s + step * sigma * (+1 or -1) in one channel of S, drawn for each start.

    Channel and sign depend only on the seed and on the start's index. The walk is that of
    StyleSpace, but independent of the attribute. ToRGB channels and constant channels are never
    drawn.

    Args:
        step: length of a step, in sigmas of the channel.

    Raises:
        EditbenchError: the step is not positive.
    """

    space = Space.S
    unit = "sigmas of a style channel"
    citation = "control without knowledge"

    def __init__(self, step: float = 1.0) -> None:
        super().__init__()
        check_positive("step", step)
        self.length = float(step)
        self.seed = 0
        self.channels = torch.zeros(0, dtype=torch.int64)  # channels that may be drawn
        self.sigma = torch.zeros(0)  # (d,) of every channel of S

    def fit(self, data: FitData) -> FitReport:
        self.seed = int(data.seed)
        bank = channel_moments(data.generator, data.latents(data.fit))
        # ToRGB only tints the image, and a constant channel has no sigma, the unit of a step.
        allowed = movable(data.generator).to(bank.varies.device) & bank.varies
        self.channels = allowed.nonzero()[:, 0].cpu()
        self.sigma = bank.std.cpu()
        return FitReport(notes={"channels": len(self.channels)})

    def step(self, walk: Walk) -> Tensor:
        channel, sign = self._draw(walk.start)
        length = self.length * sign * self.sigma[channel]
        # The step must not change the walk's own codes in place.
        moved = walk.codes.clone()
        rows = torch.arange(len(moved), device=moved.device)
        moved[rows, to_device(channel, moved.device)] += to_device(
            length.to(moved.dtype), moved.device
        )
        return moved

    def _draw(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """Channel and sign (n,) of starts (n,)."""
        wanted = start.cpu()
        # One call for the whole range; each start uses the numbers at its index.
        first = int(wanted.min())
        drawn = uniforms(self.seed, "random_channel", first, int(wanted.max()) + 1, 2)
        own = torch.from_numpy(drawn)[wanted - first]
        place = (own[:, 0] * len(self.channels)).long()
        sign = torch.where(own[:, 1] < 0.5, -1.0, 1.0)
        return self.channels[place], sign

    def state(self) -> dict[str, Tensor]:
        return {
            "seed": torch.tensor(self.seed),
            "channels": self.channels,
            "sigma": self.sigma,
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.seed = int(state["seed"])
        self.channels = state["channels"]
        self.sigma = state["sigma"]
