"""Edits at a signed strength t, on the same samples for every method and strength.

The strength t is a signed number of steps:

- t > 0 leads to one class of the attribute, t < 0 to another. Each side is a separate walk, because
  an editor's step cannot always be undone.
- Between two whole steps the codes are interpolated linearly.
- t = 0 is exactly the start.

The samples are the first n of the bank's test split, on both sides of the decision boundary. Curves
over t and differences between methods therefore use common random numbers (Cherepkov et al. 2021,
Fig. 7). `calibrate` finds the strength that gives a fixed effect, so that methods can be compared.
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
from editbench.walk.walker import Walker, codes_to_decode

# The search for a strength. Half a step is less than any method needs for a visible effect, growth
# by a factor of 1.5 keeps the bracket narrow, and 30 halvings exhaust the precision of float32.
FIRST = 0.5
GROWTH = 1.5
MAX_HALVINGS = 30


def sides(attribute: Attribute, target: int | None = None) -> tuple[int, int]:
    """The classes that t < 0 and t > 0 lead to.

    Args:
        attribute: the target attribute.
        target: the class of t > 0. None means class 1, or the last class of an ordered attribute.

    Returns:
        The class of t < 0 and the class of t > 0. The former is class 0, or class 1 if t > 0 leads
        to class 0.
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
    """Check that the test split has as many samples as an option requires.

    Args:
        context: of the observation.
        key: of the option, such as observation.locality.n.
        n: value of the option.

    Raises:
        EditbenchError: the test split is smaller.
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
        context: editor, networks and bank of the job.
        n: number of samples.

    Yields:
        rows: rows of the batch, in 0..n.
        walk: b samples at step 0. Source and target are both the judge's class; `aim_walk` sets
            the target.
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
        # Copied, since torch warns of read-only arrays, such as memory maps.
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
        context: editor, networks and bank of the job.
        rows: rows of b samples, in 0..n.

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
        towards: the target class.
        away: the source class of samples that already have the class `towards`, since an editor may
            need source and target to differ.
    """
    source = torch.where(walk.source == towards, away, walk.source)
    return replace(walk, target=torch.full_like(walk.target, towards), source=source)


class StrengthPath:
    """The walk of some samples towards one class, available at any strength.

    Only the steps around the last strength and one marked step are kept, so memory does not grow
    with the strength.
    """

    def __init__(self, editor: Editor, walk: Walk) -> None:
        """Start at step 0.

        Args:
            editor: computes the steps.
            walk: samples at step 0, with their targets.
        """
        self.editor = editor
        self._start = walk  # to walk again for a smaller strength
        self._marked = walk
        self._walker = Walker(editor, walk)  # at the whole step below the last strength

    def at(self, strength: float) -> Codes:
        """The codes to decode after `strength` >= 0 steps.

        If strengths are requested in ascending order, each step is computed once.
        """
        if strength < self._walker.walk.steps:
            # Steps cannot be undone: walk again, from the mark if it lies before the strength.
            begin = self._marked if self._marked.steps <= strength else self._start
            self._walker = Walker(self.editor, begin)
        return codes_to_decode(self.editor, self._walker.at(strength))

    def mark(self) -> None:
        """Mark the step of the last strength, so that larger strengths need not restart at 0."""
        self._marked = self._walker.walk


def edited_codes(
    context: ObservationContext, strengths: Sequence[float], n: int
) -> Iterator[tuple[float, slice, Codes]]:
    """The first n samples of the test split, edited at every signed strength.

    Every step is computed once, and memory does not grow with n.

    Args:
        context: editor, networks and bank of the job.
        strengths: signed, in steps.
        n: number of samples.

    Yields:
        t: the strength. Each batch comes first at 0 (if 0 is among the strengths), then at the
            positive and then at the negative strengths, in ascending order of their size.
        rows: rows of the batch, in 0..n.
        codes: the codes to decode.
    """
    backward, forward = sides(context.judge.attributes[context.attribute], context.target)
    up = sorted({t for t in strengths if t > 0})
    down = sorted({-t for t in strengths if t < 0})
    for rows, walk, _ in start_walks(context, n):
        ahead = aim_walk(walk, forward, backward)
        if 0 in strengths:
            yield 0.0, rows, codes_to_decode(context.editor, ahead)
        path = StrengthPath(context.editor, ahead)
        for size in up:
            yield size, rows, path.at(size)
        # The other side is a separate walk from the same samples.
        path = StrengthPath(context.editor, aim_walk(walk, backward, forward))
        for size in down:
            yield -size, rows, path.at(size)


def measure_effect(
    context: ObservationContext, logits: Tensor, before: Tensor, towards: int
) -> Tensor:
    """Achieved effect: change of the judge's log-odds of a class, in sigmas of the bank.

    Args:
        context: editor, networks and bank of the job.
        logits: (b, width) of the judge, after the edit.
        before: (b, width) of the judge, at the start.
        towards: the class.

    Returns:
        (b,) float64.
    """
    attributes = context.judge.attributes
    column, sign = attributes.column(context.attribute, towards)
    # In float32 the difference of similar logits loses digits, which shows in means over many
    # samples.
    now = attributes.log_odds(logits.double())[:, column]
    then = attributes.log_odds(before.double())[:, column]
    return sign * (now - then) / float(context.bank.sigma["judge"][column])


# -- calibration
@dataclass(frozen=True)
class Reach:
    """The strength that `calibrate` found on one side, and its effect.

    If the wanted effect was not reached, this is the strength with the largest effect that was seen
    (beyond it, images only degrade), or the strength just after a jump past the wanted effect.
    """

    strength: float  # signed, in steps
    effect: float  # mean over the samples towards the class of this side, in sigmas
    reached: bool  # whether the effect equals the wanted one within the tolerance


def not_reached(side: str, meta: Mapping[str, Any]) -> str:
    """Explain why a side did not reach the wanted effect; '' if it did.

    Args:
        side: 'down' for t < 0 or 'up' for t > 0.
        meta: facts of an observation: under `side` the fields of its Reach; `classes`, the classes
            that t < 0 and t > 0 lead to; `effect`, the wanted effect.
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
    """Find the strength on one side at which the mean effect over the first n samples is `wanted`.

    The effect is measured by the judge, as in published curves; the editor never sees it. The mean
    is over samples on both sides of the boundary, including those that already have the class.

    The strength grows from FIRST by the factor GROWTH until the effect is large enough, and is then
    bisected. If the effect is not monotonic, any one of the strengths with this effect is found.

    Args:
        context: editor, networks and bank of the job.
        sign: 1 for t > 0, -1 for t < 0.
        wanted: mean effect in sigmas.
        n: number of samples.
        tolerance: relative tolerance of the effect.
        cap: largest number of steps.

    Returns:
        The strength and its effect. If the effect is not reached within `cap`, or the walk becomes
        NaN before, the result says so (`reached` is False); this is not an error.
    """
    backward, forward = sides(context.judge.attributes[context.attribute], context.target)
    towards, away = (forward, backward) if sign > 0 else (backward, forward)
    # Each batch is kept as a path, whose codes are small; its images are decoded again each time.
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
    # The effect at `low` is too small; that at `high` is tested next.
    low = 0.0
    high = min(FIRST, float(cap))
    # The largest effect so far, in case the edit cannot reach the wanted one.
    best = 0.0
    most = 0.0
    # A comparison with NaN is False, so a walk that becomes NaN ends the loop too.
    while (found := measure(high)) < enough:
        if found > most:
            best = high
            most = found
        if high >= cap:
            return Reach(sign * best, most, False)
        # The search never goes below `low` again, so walks need not restart at 0.
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
