"""Learning rate and latent jitter over an inversion (Karras et al. 2020, StyleGAN2, appendix D).

Both are functions of t = step / steps in [0, 1). By default, the rate rises linearly over the first
5 % and falls as a cosine over the last 25 %, and the jitter falls quadratically to zero at 75 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from editbench.base.errors import EditbenchError
from editbench.base.validation import check_at_least, check_fields, check_positive


@dataclass(frozen=True)
class Schedule:
    """Learning rate and jitter over the steps. The defaults are the paper's.

    Args:
        steps: of Adam.
        lr: maximum learning rate.
        rampup: share of the steps in which the learning rate rises.
        rampdown: share of the steps in which it falls.
        jitter: standard deviation of the noise on the latent at t = 0, in units of the latents'
            spread.
        jitter_ramp: the t at which the jitter becomes zero.
    """

    steps: int = 1000
    lr: float = 0.1
    rampup: float = 0.05
    rampdown: float = 0.25
    jitter: float = 0.05
    jitter_ramp: float = 0.75

    def __post_init__(self) -> None:
        check_fields("inversion", self)
        check_at_least("inversion.steps", self.steps, 1)
        check_positive("inversion.lr", self.lr)
        check_at_least("inversion.jitter", self.jitter, 0)
        for name in ("rampup", "rampdown", "jitter_ramp"):
            share = getattr(self, name)
            if not 0 < share <= 1:
                raise EditbenchError(f"inversion.{name}={share} must be in (0, 1]")

    def rate(self, t: float) -> float:
        """Learning rate at t: 0 at both ends, `lr` between the ramps."""
        down = min(1.0, (1 - t) / self.rampdown)
        return self.lr * (0.5 - 0.5 * math.cos(math.pi * down)) * min(1.0, t / self.rampup)

    def scale(self, t: float) -> float:
        """Standard deviation of the jitter at t, in units of the latents' spread."""
        return self.jitter * max(0.0, 1 - t / self.jitter_ramp) ** 2
