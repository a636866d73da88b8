"""Learning rate and latent jitter over an inversion (Karras et al. 2020, StyleGAN2, appendix D).

Both are functions of t = step / steps in [0, 1): the rate rises linearly over the first 5 % and falls as a cosine over
the last 25 %; the jitter falls quadratically to zero at three quarters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from editbench.base.errors import EditbenchError
from editbench.base.validation import check_fields


@dataclass(frozen=True)
class Schedule:
    """Learning rate and jitter over the steps. The defaults are the paper's.

    Args:
        steps: of Adam.
        lr: the highest learning rate.
        rampup: share of the steps in which the learning rate rises.
        rampdown: share of the steps in which it falls.
        jitter: standard deviation of the noise on the latent at t = 0, in units of the latent's
            own spread.
        jitter_ramp: the t at which the jitter has vanished.
    """

    steps: int = 1000
    lr: float = 0.1
    rampup: float = 0.05
    rampdown: float = 0.25
    jitter: float = 0.05
    jitter_ramp: float = 0.75

    def __post_init__(self) -> None:
        check_fields("inversion", self)
        if (
            self.steps < 1
            or not self.lr > 0
            or not 0 < self.rampup <= 1
            or not 0 < self.rampdown <= 1
        ):
            raise EditbenchError(
                "inversion.steps must be at least 1, lr positive, rampup and rampdown in (0, 1]: "
                f"{self}"
            )
        if not self.jitter >= 0 or not 0 < self.jitter_ramp <= 1:
            raise EditbenchError(
                f"inversion.jitter must not be negative and jitter_ramp lies in (0, 1]: {self}"
            )

    def rate(self, t: float) -> float:
        """Learning rate at t: 0 at both ends, `lr` between the ramps."""
        down = min(1.0, (1 - t) / self.rampdown)
        return self.lr * (0.5 - 0.5 * math.cos(math.pi * down)) * min(1.0, t / self.rampup)

    def scale(self, t: float) -> float:
        """Standard deviation of the jitter at t, in units of the latent's spread."""
        return self.jitter * max(0.0, 1 - t / self.jitter_ramp) ** 2
