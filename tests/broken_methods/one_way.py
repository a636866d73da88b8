"""Broken: every class but the first is walked to in the same direction."""

from dataclasses import replace

from mean_shift import MeanShift


class OneWay(MeanShift):
    def step(self, walk):
        up = walk.target > walk.source
        return (
            super().step(replace(walk, source=0 * walk.source, target=0 * walk.target + 1))
            * up[:, None]
            + (
                walk.codes
                - self.move(replace(walk, source=0 * walk.source, target=0 * walk.target + 1))
            )
            * ~up[:, None]
        )
