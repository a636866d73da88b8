"""The options of an inversion. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from editbench.base.errors import EditbenchError
from editbench.base.spaces import Space
from editbench.base.validation import check_at_least, check_kind
from editbench.inversion.schedule import Schedule

NOISES = ("const", "optimise")


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
        kinds = {
            "space": "str",
            "noise": "str",
            "noise_weight": "float",
            "pixel_weight": "float",
            "samples": "int",
            "seed": "int",
        }
        for name, kind in kinds.items():
            check_kind(f"inversion.{name}", getattr(self, name), kind)
        if self.space not in (Space.Z, Space.W, Space.W_PLUS):
            raise EditbenchError(f"inversion.space must be w, w_plus or z, got '{self.space}'")
        if self.noise not in NOISES:
            raise EditbenchError(
                f"inversion.noise must be one of {', '.join(NOISES)}, got '{self.noise}'"
            )
        check_at_least("inversion.noise_weight", self.noise_weight, 0)
        check_at_least("inversion.pixel_weight", self.pixel_weight, 0)
        check_at_least("inversion.samples", self.samples, 2)
