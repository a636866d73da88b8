"""Broken: an attribute is refused without a reason."""

from mean_shift import MeanShift

from editbench.base.errors import Unsupported


class NoReason(MeanShift):
    def check(self, generator, attributes, attribute):
        super().check(generator, attributes, attribute)
        if attribute == "angle":
            raise Unsupported("")
