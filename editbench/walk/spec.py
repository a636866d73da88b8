"""The engine's part of the configuration. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from editbench.base.compute_options import check_batch
from editbench.base.validation import check_at_least, check_fields, check_positive


@dataclass(frozen=True)
class EngineSpec:
    """How far starts walk, and how many samples are decoded together."""

    max_steps: int = 50  # a start that has not crossed by then is a failure
    # Every start walks at least this many steps, even past its crossing, but never more than
    # `max_steps`. Attribute dependency needs a range of effects.
    sweep_steps: int = 0
    batch: int | str = 64  # samples decoded together; 'auto' is replaced by a number before a walk
    pictures: int = 6  # starts whose images are kept
    # How often the crossing step is bisected before the sample is judged. With 0 the sample is
    # judged after the whole step.
    refine: int = 0
    # Median size of a step's effect on the target, in sigmas (editbench.walk.stride). None: every
    # method makes its own steps.
    step_effect: float | None = None

    def __post_init__(self) -> None:
        check_fields("engine", self)
        check_at_least("engine.max_steps", self.max_steps, 1)
        check_batch("engine.batch", self.batch)
        check_at_least("engine.sweep_steps", self.sweep_steps, 0)
        check_at_least("engine.refine", self.refine, 0)
        check_at_least("engine.pictures", self.pictures, 0)
        if self.step_effect is not None:
            check_positive("engine.step_effect", self.step_effect)
