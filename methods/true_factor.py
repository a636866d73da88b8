"""The perfect edit: it changes the true factor of the attribute and nothing else.

Any fault that the metrics find in it is therefore an error of the judge.
It needs a generator that is the world's own renderer, whose codes are the factors.
"""

from __future__ import annotations

from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import Unsupported
from editbench.base.spaces import Space
from editbench.base.validation import check_positive
from editbench.networks.generator import Generator
from editbench.walk.editor import Editor, FitData, FitReport, Walk
from editbench.worlds.faces.truth import RenderGenerator, towards


class TrueFactor(Editor):
    """next = codes with the attribute's factor moved by `delta` towards the clearest member of the
    target class.

    A walk that has arrived there stays. One amount is the distance from a clear member of a class
    to one of the neighbouring class; the true threshold lies half-way.

    Args:
        delta: step length, in amounts; positive.

    Raises:
        EditbenchError: delta is not positive.
    """

    space = Space.W
    unit = "amounts"
    citation = "the world's own factors"

    def __init__(self, delta: float = 0.05) -> None:
        super().__init__(None)
        check_positive("delta", delta)
        self.delta = float(delta)

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        if not isinstance(generator, RenderGenerator):
            raise Unsupported(
                "needs codes that are the world's true factors: use generator=renders"
            )
        super().check(generator, attributes, attribute)
        # A scorer may use the renderer's name for other classes, which the factor would not match.
        known = generator.true_attributes
        if (
            attribute not in known.names
            or known[attribute].classes != attributes[attribute].classes
        ):
            classes = ", ".join(attributes[attribute].classes)
            raise Unsupported(f"the renderer has no factor '{attribute}' ({classes})")

    def fit(self, data: FitData) -> FitReport:
        return FitReport()

    def step(self, walk: Walk) -> Tensor:
        # `towards` stops at the target, so a walk cannot overshoot the class.
        return towards(walk.codes, walk.attribute, walk.target, self.delta)
