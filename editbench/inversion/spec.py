"""The options of an inversion. Does not import torch.

Learning rate and latent jitter are those of Karras et al. 2020, StyleGAN2, appendix D: functions of
t = step / steps in [0, 1). By default, the rate rises linearly over the first 5 % and falls as a
cosine over the last 25 %, and the jitter falls quadratically to zero at 75 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from editbench.base.errors import EditbenchError
from editbench.base.spaces import Space
from editbench.base.validation import check_at_least, check_choice, check_fields, check_positive

NOISES = ("const", "optimise")


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

    def learning_rate(self, t: float) -> float:
        """Learning rate at t: 0 at both ends, `lr` between the ramps."""
        down = min(1.0, (1 - t) / self.rampdown)
        return self.lr * (0.5 - 0.5 * math.cos(math.pi * down)) * min(1.0, t / self.rampup)

    def jitter_scale(self, t: float) -> float:
        """Standard deviation of the jitter at t, in units of the latents' spread."""
        return self.jitter * max(0.0, 1 - t / self.jitter_ramp) ** 2


@dataclass(frozen=True)
class ProjectionSpec:
    """How images are inverted. The defaults are the paper's, except for `noise`.

    Args:
        space: 'w', 'w_plus' or 'z'.
        noise: 'const' uses the generator's own noise, as the benchmark does; 'optimise' (the paper)
            also optimises the noise maps.
        noise_weight: weight of the regulariser of optimised noise.
        pixel_weight: weight of the mean squared difference of pixels, which is added to the
            perceptual distance; the paper does not use it.
        samples: number of latents from which the mean and the spread are estimated.
        seed: of all random numbers.
        schedule: learning rate and jitter over the steps.
    """

    space: str = "w"
    noise: str = "const"
    noise_weight: float = 1e5
    pixel_weight: float = 0.0
    samples: int = 10_000
    seed: int = 0
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        check_fields("inversion", self)
        check_choice("inversion.space", self.space, (Space.W, Space.W_PLUS, Space.Z))
        check_choice("inversion.noise", self.noise, NOISES)
        check_at_least("inversion.noise_weight", self.noise_weight, 0)
        check_at_least("inversion.pixel_weight", self.pixel_weight, 0)
        check_at_least("inversion.samples", self.samples, 2)
