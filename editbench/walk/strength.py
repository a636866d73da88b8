"""Edits at a signed strength t, on the same samples for every method and strength.

The native strength of a method is its number of steps:

- t > 0 leads to one class of the attribute, t < 0 to another. The second is a walk of its own,
  since the step of an editor cannot always be taken back.
- Between two steps the walk's codes are interpolated on a straight line.
- t = 0 is the start, exactly.

Samples are the first n of the bank's test split, on whichever side of the boundary they lie. So
curves over t, and differences between methods, have common random numbers (Cherepkov et al. 2021,
Fig. 7). `calibrate` finds the strength of a common effect, where methods can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editbench.base.attributes import Attribute
from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes
from editbench.walk.editor import Editor, Walk
from editbench.walk.observation import ObservationContext
from editbench.walk.walker import Walker

# The search for a strength: half a step is less than any method needs for a visible effect, growth
# by half keeps the bracket narrow, and 30 halvings exhaust the digits of a float32.
FIRST = 0.5
GROWTH = 1.5
MAX_HALVINGS = 30


def sides(attribute: Attribute, target: int | None = None) -> tuple[int, int]:
    """The classes that t < 0 and t > 0 lead to.

    Args:
        attribute: that is edited.
        target: the class of t > 0; None for class 1, or for the last class of an ordered attribute.

    Returns:
        The class of t < 0, which is class 0, or class 1 where t > 0 leads to class 0; and the class
        of t > 0.
    """
    if target is not None:
        forward = target
    elif attribute.ordered:
        forward = len(attribute.classes) - 1
    else:
        forward = 1
    backward = 1 if forward == 0 else 0
    return backward, forward


def require_samples(context: ObservationContext, key: str, n: int) -> None:
    """Raise EditbenchError where the test split is smaller than what an option asks for.

    Args:
        context: of the observation.
        key: of the option, such as observation.locality.n.
        n: its value.
    """
    first, last = context.bank.spec.split("test")
    if n > last - first:
        raise EditbenchError(
            f"{key}={n}: the test split of bank.n={len(context.bank)} has {last - first} samples: "
            f"raise bank.n, or set {key}={last - first} or less"
        )


def start_walks(context: ObservationContext, n: int) -> Iterator[tuple[slice, Walk, Tensor]]:
    """The first n samples of the test split, in batches.

    Args:
        context: what is edited.
        n: number of samples.

    Yields:
        rows: of the batch, in 0..n.
        walk: b samples at step 0. Source and target are both the judge's class: `aim_walk` tells
            them apart.
        logits: (b, width) of the judge, from the bank.

    Raises:
        EditbenchError: the test split has fewer samples.
    """
    require_samples(context, "an observation's n", n)
    first = context.bank.spec.split("test")[0]
    generator = context.generator
    space = context.editor.space
    field = generator.start_space(space).value
    for begin in range(0, n, context.batch):
        rows = slice(begin, min(begin + context.batch, n))
        place = (first + rows.start, first + rows.stop)
        # Copied, since torch warns of arrays that it cannot write to, as those of a memory map.
        stored = np.array(context.bank.array(field).range(*place))
        latent = torch.from_numpy(stored).to(context.device)
        logits = start_logits(context, rows)
        label = context.judge.attributes.labels(logits, context.attribute)
        codes = generator.lift(latent, space)
        index = torch.arange(*place, device=context.device)
        walk = Walk(context.attribute, index, codes, codes, label, label, latent=latent)
        yield rows, walk, logits


def start_logits(context: ObservationContext, rows: slice) -> Tensor:
    """The judge's logits of some of the first samples of the test split, from the bank.

    Args:
        context: what is edited.
        rows: of b samples, in 0..n.

    Returns:
        (b, width).
    """
    first = context.bank.spec.split("test")[0]
    stored = np.array(context.bank.array("judge").range(first + rows.start, first + rows.stop))
    return torch.from_numpy(stored).to(context.device)


def aim_walk(walk: Walk, towards: int, away: int) -> Walk:
    """Send all samples of a walk to one class.

    Args:
        walk: samples with the judge's class as their source.
        towards: the class that they are sent to.
        away: the class that counts as the source of samples that have the class `towards` already,
            since an editor may need two different classes.
    """
    source = torch.where(walk.source == towards, away, walk.source)
    return replace(walk, target=torch.full_like(walk.target, towards), source=source)


class StrengthPath:
    """One way of some samples, at any strength.

    Only the steps around the last strength are kept, and one mark: memory does not grow with the
    strength.
    """

    def __init__(self, editor: Editor, walk: Walk) -> None:
        """Begin at step 0.

        Args:
            editor: gives the steps.
            walk: samples at step 0, with their targets.
        """
        self.editor = editor
        self._start = walk  # for a way back
        self._marked = walk
        self._walker = Walker(editor, walk)  # at the whole step below the last strength

    def at(self, strength: float) -> Codes:
        """What to decode after `strength` >= 0 steps; ascending strengths make each step once."""
        whole = math.floor(strength)
        rest = strength - whole
        if whole < self._walker.walk.steps:
            # No way back: walk again, from the mark if it lies before the strength.
            begin = self._marked if self._marked.steps <= whole else self._start
            self._walker = Walker(self.editor, begin)
        for _ in self._walker.steps(whole):
            pass
        walk = self._walker.walk
        if rest:
            after = self._walker.peek()
            walk = replace(walk, codes=walk.codes + rest * (after.codes - walk.codes))
        return self.editor.codes(walk)

    def mark(self) -> None:
        """Keep the last strength's step: strengths beyond it will not start again from 0."""
        self._marked = self._walker.walk


def edited_codes(
    context: ObservationContext, strengths: Sequence[float], n: int
) -> Iterator[tuple[float, slice, Codes]]:
    """The first n samples of the test split, at every signed strength.

    Every step is made once, and memory does not grow with n.

    Args:
        context: what is edited.
        strengths: signed, in steps.
        n: number of samples.

    Yields:
        t: the strength. A batch of samples comes at 0 first (where 0 is among the strengths), then
            at the positive and then at the negative strengths, outwards.
        rows: of the batch, in 0..n.
        codes: what to decode.
    """
    backward, forward = sides(context.judge.attributes[context.attribute], context.target)
    up = sorted({t for t in strengths if t > 0})
    down = sorted({-t for t in strengths if t < 0})
    for rows, walk, _ in start_walks(context, n):
        ahead = aim_walk(walk, forward, backward)
        if 0 in strengths:
            yield 0.0, rows, context.editor.codes(ahead)
        path = StrengthPath(context.editor, ahead)
        for size in up:
            yield size, rows, path.at(size)
        # The other side is a walk of its own, from the same samples.
        path = StrengthPath(context.editor, aim_walk(walk, backward, forward))
        for size in down:
            yield -size, rows, path.at(size)


def measure_effect(
    context: ObservationContext, logits: Tensor, before: Tensor, towards: int
) -> Tensor:
    """Achieved effect: change of the judge's log-odds of a class, in sigmas of the bank.

    Args:
        context: what is edited.
        logits: (b, width) of the judge, after the edit.
        before: (b, width) of the judge, of the start.
        towards: the class.

    Returns:
        (b,) float64.
    """
    attributes = context.judge.attributes
    column, sign = attributes.column(context.attribute, towards)
    # Differences of near logits lose digits in float32, and means over many samples would show it.
    now = attributes.log_odds(logits.double())[:, column]
    then = attributes.log_odds(before.double())[:, column]
    return sign * (now - then) / float(context.bank.sigma["judge"][column])


# -- calibration
@dataclass(frozen=True)
class Reach:
    """How far one side of an edit leads.

    Where the wanted effect is not reached, the strength is the one of the largest effect that was
    seen (beyond, pictures only break), or the one just after a jump past the wanted effect.
    """

    strength: float  # signed, in steps
    effect: float  # mean over the samples, towards the class of its side, in sigmas
    reached: bool  # whether the effect is the wanted one, to the tolerance


def not_reached(side: str, meta: Mapping[str, Any]) -> str:
    """Why a side has not the common effect, '' where it has.

    Args:
        side: 'down' or 'up', of t < 0 and t > 0.
        meta: facts of an observation: under `side` the fields of its Reach; `classes`, those that
            t < 0 and t > 0 lead to; `effect`, the wanted one.
    """
    reach = meta[side]
    if reach["reached"]:
        return ""
    towards = meta["classes"][side == "up"]
    most = "" if reach["effect"] > meta["effect"] else "at most "
    return (
        f"an effect of {meta['effect']:g} sigma towards '{towards}' was not reached: "
        f"{most}{reach['effect']:.2g}, at {abs(reach['strength']):.3g} steps"
    )


def calibrate(
    context: ObservationContext,
    sign: int,
    wanted: float = 1.0,
    n: int = 512,
    tolerance: float = 0.02,
    cap: float = 40,
) -> Reach:
    """Find the strength on one side whose mean effect over the first n samples is the wanted one.

    The effect is the judge's, since published curves run over the judge's effect; nothing of it
    goes back to the editor. The mean is over samples on both sides of the boundary, those that have
    the class already too.

    The strength grows from FIRST by the factor GROWTH until the effect is there, then it is
    bisected. Where the effect does not grow steadily, one of its crossings is found.

    Args:
        context: what is edited.
        sign: 1 for t > 0, -1 for t < 0.
        wanted: mean effect in sigmas.
        n: number of samples.
        tolerance: of the effect, relative.
        cap: steps, at most.

    Returns:
        The strength and its effect. Not to reach the effect within `cap` is a result, and so is a
        walk that turns NaN first.
    """
    backward, forward = sides(context.judge.attributes[context.attribute], context.target)
    towards, away = (forward, backward) if sign > 0 else (backward, forward)
    # Batches are kept as paths, whose codes are small; their pictures are decoded anew each time.
    paths = []
    for _, walk, logits in start_walks(context, n):
        paths.append((StrengthPath(context.editor, aim_walk(walk, towards, away)), logits))

    def measure(strength: float) -> float:
        parts = []
        for path, before in paths:
            logits = context.judge(context.generator.decode(path.at(strength))).float()
            parts.append(measure_effect(context, logits, before, towards))
        return torch.cat(parts).mean().item()

    def mark_paths() -> None:
        for path, _ in paths:
            path.mark()

    enough = wanted * (1 - tolerance)
    # The effect at `low` is too small, that at `high` is under trial.
    low = 0.0
    high = min(FIRST, float(cap))
    # The largest effect so far, for an edit that cannot reach the wanted one.
    best = 0.0
    most = 0.0
    # A NaN compares as False, so that a walk which breaks ends the loop too.
    while (found := measure(high)) < enough:
        if found > most:
            best = high
            most = found
        if high >= cap:
            return Reach(sign * best, most, False)
        # The search never goes below `low` again, so walks need not start from 0.
        mark_paths()
        low = high
        high = min(GROWTH * high, float(cap))
    if not math.isfinite(found):
        return Reach(sign * best, most, False)
    for _ in range(MAX_HALVINGS):
        if abs(found - wanted) <= tolerance * wanted:
            return Reach(sign * high, found, True)
        middle = (low + high) / 2
        there = measure(middle)
        if there >= enough:
            high = middle
            found = there
        else:
            low = middle
            mark_paths()
    return Reach(sign * high, found, abs(found - wanted) <= tolerance * wanted)
