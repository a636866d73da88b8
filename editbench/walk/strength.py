"""Edits at a signed strength, the same samples for every method and strength, and strengths of a common effect.

The native strength t of a method is its number of steps. t > 0 goes towards one class of the attribute, t < 0 towards
another (a walk to the other side, since not every editor's step can be taken back); between two steps the walk's codes
are interpolated on a straight line. t = 0 is the start, exactly. Samples are the first n of the bank's test split, on
whichever side of the boundary they lie, so that curves over t and differences between methods have common random
numbers (Cherepkov et al. 2021, Fig. 7).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from editbench.base.attributes import Attribute
from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes, Space
from editbench.walk.editor import Editor, Walk
from editbench.walk.probe import Scene

FIRST, GROWTH, MAX_HALVINGS = 0.5, 1.5, 30  # of the search for a strength


def sides(attribute: Attribute, target: int | None = None) -> tuple[int, int]:
    """The classes that t < 0 and t > 0 lead to.

    t > 0 leads to `target`; where none is asked for, to class 1, or to the last class of an ordered attribute. t < 0
    leads to class 0, or to class 1 where t > 0 does.
    """
    forward = (
        target if target is not None else len(attribute.classes) - 1 if attribute.ordered else 1
    )
    return (1 if forward == 0 else 0), forward


def starts(scene: Scene, n: int) -> Iterator[tuple[slice, Walk, Tensor]]:
    """The first n samples of the test split in batches: rows (of 0..n), a Walk at step 0 with source and target not
    yet told apart (both the judge's class), the judge's logits (b, width) of the bank.

    Raises EditbenchError where the split has fewer.
    """
    first, last = scene.bank.spec.split("test")
    if n > last - first:
        raise EditbenchError(
            f"a probe asks for {n} samples, but the test split of bank.n={len(scene.bank)} has "
            f"{last - first}: raise bank.n, or lower the probe's n"
        )
    generator, space = scene.generator, scene.editor.space
    field = "z" if space == Space.Z or Space.W not in generator.spaces else "w"
    for begin in range(0, n, scene.batch):
        rows = slice(begin, min(begin + scene.batch, n))
        place = first + rows.start, first + rows.stop
        latent = torch.from_numpy(np.array(scene.bank.array(field).range(*place))).to(scene.device)
        logits = start_logits(scene, rows)
        label = scene.judge.attributes.labels(logits, scene.attribute)
        codes = generator.lift(latent, space)
        index = torch.arange(*place, device=scene.device)
        yield rows, Walk(scene.attribute, index, codes, codes, label, label, latent=latent), logits


def start_logits(scene: Scene, rows: slice) -> Tensor:
    """The judge's logits (b, width) of some of the first n samples of the test split, from the bank."""
    first = scene.bank.spec.split("test")[0]
    return torch.from_numpy(
        np.array(scene.bank.array("judge").range(first + rows.start, first + rows.stop))
    ).to(scene.device)


def aimed(walk: Walk, towards: int, away: int) -> Walk:
    """The walk towards a class; a sample that has this class already counts as one of class `away`."""
    target = torch.full_like(walk.target, towards)
    return replace(
        walk, target=target, source=torch.where(walk.source == towards, away, walk.source)
    )


class Walker:
    """One way of some samples, at any strength: only the steps around the last strength are kept, and one mark."""

    def __init__(self, editor: Editor, walk: Walk) -> None:
        self.editor, self.start, self.marked = editor, walk, walk
        self._here, self._after = walk, walk
        self.strength = 0.0

    def at(self, strength: float) -> Codes:
        """What to decode after `strength` >= 0 steps. Ascending strengths make each step once."""
        whole, rest = math.floor(strength), strength - math.floor(strength)
        if whole < self._here.steps:
            self._here = self._after = self.marked if self.marked.steps <= whole else self.start
        while self._here.steps < whole:
            self._here = self._next()
        self.strength = strength
        walk = self._here
        if rest:
            codes = walk.codes + rest * (self._next().codes - walk.codes)
            walk = replace(walk, codes=codes)
        return self.editor.codes(walk)

    def mark(self) -> None:
        """Keep the last strength's step: strengths beyond it will not start again from 0."""
        self.marked = self._here

    def _next(self) -> Walk:
        if self._after.steps != self._here.steps + 1:
            moved = self.editor.step(self._here)
            if moved.shape != self._here.codes.shape:
                raise EditbenchError(
                    f"{type(self.editor).__name__}.step returned codes of shape {tuple(moved.shape)}, "
                    f"expected {tuple(self._here.codes.shape)}"
                )
            self._after = replace(self._here, codes=moved, steps=self._here.steps + 1)
        return self._after


def edited(
    scene: Scene, strengths: Sequence[float], n: int
) -> Iterator[tuple[float, slice, Codes]]:
    """The first n samples of the test split at every signed strength: (t, rows of 0..n, codes to decode).

    A batch of samples comes at 0 first (where 0 is asked for), then at the positive and then at the negative strengths
    outwards. Every step is made once and memory does not grow with n.
    """
    backward, forward = sides(scene.judge.attributes[scene.attribute], scene.target)
    up, down = (sorted({abs(t) for t in strengths if t * sign > 0}) for sign in (1, -1))
    for rows, walk, _ in starts(scene, n):
        if any(t == 0 for t in strengths):
            yield 0.0, rows, scene.editor.codes(aimed(walk, forward, backward))
        for sign, sizes, ends in ((1, up, (forward, backward)), (-1, down, (backward, forward))):
            path = Walker(scene.editor, aimed(walk, *ends))
            for size in sizes:
                yield sign * size, rows, path.at(size)


def effect(scene: Scene, logits: Tensor, before: Tensor, towards: int) -> Tensor:
    """Achieved effect (b,) float64: change of the judge's log-odds of a class, in sigmas of the bank.

    logits, before: (b, width) of the judge, after the edit and of the start.
    """
    attributes = scene.judge.attributes
    column, sign = attributes.column(scene.attribute, towards)
    change = (
        attributes.log_odds(logits.double())[:, column]
        - attributes.log_odds(before.double())[:, column]
    )
    return sign * change / float(scene.bank.sigma["judge"][column])


# -- calibration -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reach:
    """A signed strength and the mean effect there, towards the class of its side; reached: whether it is the one asked
    for. Where it is not, the strength is the one of the largest effect that was seen (beyond, pictures only break), or
    the one just after a jump past the effect."""

    strength: float
    effect: float
    reached: bool


def calibrate(
    scene: Scene,
    sign: int,
    wanted: float = 1.0,
    n: int = 512,
    tolerance: float = 0.02,
    cap: float = 40,
) -> Reach:
    """The strength on one side (sign 1 or -1) whose mean effect over the first n samples is `wanted` sigmas.

    The effect is the judge's, since the curves are published over the judge's effect; nothing of it goes back to the
    editor. The mean is over samples on both sides of the boundary, those that have the class already too. Strength
    grows from FIRST by the factor GROWTH until the effect is there, then it is bisected to `tolerance` (relative);
    where the effect does not grow steadily, one of its crossings is found. At most `cap` steps: not reached is a
    result, and so is a walk that turns NaN first.
    """
    ends = sides(scene.judge.attributes[scene.attribute], scene.target)
    towards, away = ends if sign < 0 else ends[::-1]
    paths = [
        (Walker(scene.editor, aimed(walk, towards, away)), logits)
        for _, walk, logits in starts(scene, n)
    ]

    def measured(strength: float) -> float:
        parts = [
            effect(
                scene,
                scene.judge(scene.generator.decode(path.at(strength))).float(),
                before,
                towards,
            )
            for path, before in paths
        ]
        return torch.cat(parts).mean().item()

    def keep() -> None:
        for path, _ in paths:
            path.mark()

    low, high = 0.0, min(FIRST, float(cap))
    best, most = 0.0, 0.0
    while (found := measured(high)) < wanted * (1 - tolerance):  # NaN ends it too
        if found > most:
            best, most = high, found
        if high >= cap:
            return Reach(sign * best, most, False)
        keep()
        low, high = high, min(GROWTH * high, float(cap))
    if not math.isfinite(found):
        return Reach(sign * best, most, False)
    for _ in range(MAX_HALVINGS):
        if abs(found - wanted) <= tolerance * wanted:
            return Reach(sign * high, found, True)
        middle = (low + high) / 2
        there = measured(middle)
        if there >= wanted * (1 - tolerance):
            high, found = middle, there
        else:
            low = middle
            keep()
    return Reach(sign * high, found, abs(found - wanted) <= tolerance * wanted)
