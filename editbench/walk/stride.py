"""Steps of equal effect.

The methods' own steps have effects of different sizes. A walk with long steps changes more of the
image before it is judged, and one with short steps reaches less within a number of steps. With
`engine.step_effect`, a step of every walk changes the target's log-odds by the same median amount:
it is a number of the method's own steps (a *stride*), found on samples of the tune split. The path
of the walk does not change, only the points on it at which the judge is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from editbench.base.batches import Batches
from editbench.walk.editor import Walk
from editbench.walk.observation import ObservationContext
from editbench.walk.strength import StrengthPath

SAMPLES = 64  # of the tune split
FIRST = 0.5  # own steps of the first attempt
ROUNDS = 2  # interpolations; the effect is nearly linear within a step or two


@dataclass(frozen=True)
class Stride:
    """How many of the editor's own steps are one step of a walk.

    Args:
        steps: own steps, which need not be whole.
        reached: whether the wanted effect is reached within the limit. If not, the walk makes the
            editor's own steps.
    """

    steps: float
    reached: bool


def find_stride(context: ObservationContext, effect: float, cap: float) -> Stride:
    """The number of own steps after which the median size of the effect is `effect`.

    The effect is the change of the teacher's log-odds of the target class, in sigmas of the bank.
    Its size counts and not its sign, so that random directions have a stride too. The judge is not
    asked, since it measures the result. Samples that have the target class of the job are left
    out; without such a class every sample walks to the class after its own.

    Args:
        context: editor, networks and bank of the job.
        effect: wanted median size, in sigmas.
        cap: largest number of own steps.

    Returns:
        The stride. It is not reached if the effect is not, or if no tune sample lacks the target
        class.
    """
    attributes = context.teacher.attributes
    classes = range(len(attributes[context.attribute].classes))
    split = context.bank.split("tune", context.device)
    labels = attributes.labels(split.logits, context.attribute)
    if context.target is None:
        targets = (labels + 1) % len(classes)
    else:
        targets = torch.full_like(labels, context.target)
    chosen = (labels != targets).nonzero()[:SAMPLES, 0]
    if not len(chosen):
        return Stride(0.0, False)
    latent = split.codes(context.generator.start_space(context.editor.space))[chosen]
    codes = context.generator.lift(latent, context.editor.space)
    target = targets[chosen]
    walk = Walk(
        context.attribute,
        split.index[chosen],
        codes,
        codes,
        labels[chosen],
        target,
        latent=latent,
    )
    # The column of each sample's target class in the log-odds. The classes of a binary attribute
    # share one, in which they differ in sign.
    columns = [attributes.column(context.attribute, c)[0] for c in classes]
    column = torch.tensor(columns, device=target.device)[target]
    sigma = torch.from_numpy(context.bank.sigma["teacher"]).to(target.device)[column]

    def log_odds(logits: Tensor) -> Tensor:
        odds = attributes.log_odds(logits.double())
        return odds.gather(1, column[:, None])[:, 0]

    before = log_odds(split.logits[chosen])
    path = StrengthPath(context.editor, walk)
    batches = Batches(context.batch, f"stride for {context.attribute}", context.generator)

    def median_size(strength: float) -> float:
        moved = path.at(strength)

        def score(rows: slice) -> Tensor:
            return context.teacher(context.generator.decode(moved[rows])).float()

        logits = torch.cat(batches.run(len(moved), score))
        effects = (log_odds(logits) - before) / sigma
        return effects.abs().median().item()

    with torch.no_grad():
        return _search(median_size, effect, cap)


def _search(measure: Callable[[float], float], wanted: float, cap: float) -> Stride:
    """Double the number of steps until the effect is large enough, then interpolate.

    Interpolated numbers change little where rounding changes the effects little, so that two
    processors find the same stride up to rounding.
    """
    low = 0.0
    before = 0.0  # effect at `low`
    high = min(FIRST, cap)
    # A comparison with NaN is false, so a walk that becomes NaN ends the loop too.
    while (after := measure(high)) < wanted:
        if high >= cap:
            return Stride(high, False)
        low = high
        before = after
        high = min(2 * high, cap)
    if not math.isfinite(after):
        return Stride(low, False)
    for _ in range(ROUNDS):
        middle = _between(low, high, before, after, wanted)
        found = measure(middle)
        if not math.isfinite(found):
            return Stride(low, False)
        if found < wanted:
            low = middle
            before = found
        else:
            high = middle
            after = found
    return Stride(_between(low, high, before, after, wanted), True)


def _between(low: float, high: float, before: float, after: float, wanted: float) -> float:
    """Where a straight line through (low, before) and (high, after) has the wanted value."""
    return low + (high - low) * (wanted - before) / (after - before)
