"""Steps of equal effect.

The methods' own steps have effects of different sizes. A walk with long steps changes more of the
image before it is judged, and one with short steps reaches less within a number of steps. With
`engine.step_effect`, a step of every walk changes the target's log-odds by the same median amount:
it is a number of the method's own steps (a *stride*), found on samples of the tune split. The path
of the walk does not change, only the points on it at which the judge is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from editbench.bank.starts import draw_classes
from editbench.base import seeding
from editbench.base.batches import Batches
from editbench.walk.editor import Walk
from editbench.walk.observation import ObservationContext
from editbench.walk.strength import StrengthPath

SAMPLES = 64  # of the tune split
FIRST = 0.5  # own steps of the first measurement
MEASUREMENTS = 3  # at least
CLOSE = 0.1  # relative distance of the last measured effect from the wanted one, at most
NARROW = 1e-3  # relative width of an interval within which an effect jumps
BEYOND = 1.25  # the next measurement is this much farther than the effects so far suggest

Point = tuple[float, float]  # a number of own steps and its effect


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
    out; without such a class every sample gets a target as the starts do, which for an ordered
    attribute is a neighbour of its class.

    Args:
        context: editor, networks and bank of the job.
        effect: wanted median size, in sigmas.
        cap: largest number of own steps.

    Returns:
        The stride. It is not reached if the effect is not, or if no tune sample lacks the target
        class.
    """
    found = _start_samples(context)
    if found is None:
        return Stride(0.0, False)
    walk, logits = found
    attributes = context.teacher.attributes
    # The column of each sample's target class in the log-odds. The classes of a binary attribute
    # share one, in which they differ in sign.
    classes = range(len(attributes[context.attribute].classes))
    columns = [attributes.column(context.attribute, c)[0] for c in classes]
    column = torch.tensor(columns, device=walk.target.device)[walk.target]
    sigma = torch.from_numpy(context.bank.sigma["teacher"]).to(walk.target.device)[column]

    def log_odds(logits: Tensor) -> Tensor:
        odds = attributes.log_odds(logits.double())
        return odds.gather(1, column[:, None])[:, 0]

    before = log_odds(logits)
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
        return interpolate_stride(median_size, effect, cap)


def _start_samples(context: ObservationContext) -> tuple[Walk, Tensor] | None:
    """The first tune samples that lack their target class.

    Returns:
        At most SAMPLES samples at step 0, and their logits (n, width) of the teacher. None if every
        sample has its target class.
    """
    attributes = context.teacher.attributes
    about = attributes[context.attribute]
    split = context.bank.split("tune", context.device)
    labels = attributes.labels(split.logits, context.attribute)
    if context.target is None:
        # The same draw for every method, whatever the seed of its fit.
        draw = seeding.rng(0, "stride", context.attribute).random(len(labels))
        drawn = draw_classes(labels.cpu().numpy(), draw, len(about.classes), about.ordered)
        targets = torch.from_numpy(drawn).to(labels)
    else:
        targets = torch.full_like(labels, context.target)
    chosen = (labels != targets).nonzero()[:SAMPLES, 0]
    if not len(chosen):
        return None
    latent = split.codes(context.generator.start_space(context.editor.space))[chosen]
    codes = context.generator.lift(latent, context.editor.space)
    walk = Walk(
        context.attribute,
        split.index[chosen],
        codes,
        codes,
        labels[chosen],
        targets[chosen],
        latent=latent,
    )
    return walk, split.logits[chosen]


def interpolate_stride(measure: Callable[[float], float], wanted: float, cap: float) -> Stride:
    """Find the stride of an effect, by linear interpolation between a few measurements.

    Where the effect is nearly proportional to the number of steps, three are enough. Their number
    does not depend on how exact they are, as long as the last one is `CLOSE`, so that two
    processors, whose effects differ by rounding, measure at the same points.

    Args:
        measure: number of own steps -> size of the effect.
        wanted: the effect, above 0.
        cap: largest number of own steps.

    Returns:
        The stride; not reached if the effect is not within `cap`, or becomes NaN or infinite.
    """
    points: list[Point] = [(0.0, 0.0)]  # ascending
    steps = min(FIRST, cap)
    effect = 0.0
    while len(points) <= MEASUREMENTS or abs(effect - wanted) > CLOSE * wanted:
        effect = measure(steps)
        if not math.isfinite(effect):
            return Stride(points[-1][0], False)
        points = sorted([*points, (steps, effect)])
        if points[-1][1] < wanted:
            if points[-1][0] >= cap:
                return Stride(cap, False)
            # Effects grow less than linearly. A measurement that goes too far is of more use than
            # one that falls short, since the wanted effect is then between two measurements.
            steps = min(BEYOND * _steps_for(points, wanted), cap)
        elif len(points) <= MEASUREMENTS:
            steps = _steps_for(points, wanted)
        else:
            # Far from linear, or a jump: half of the interval is left.
            low, high = _bracket(points, wanted)
            if high[0] - low[0] < NARROW * high[0]:
                break
            steps = (low[0] + high[0]) / 2
    return Stride(_steps_for(points, wanted), True)


def _steps_for(points: Sequence[Point], wanted: float) -> float:
    """The number of steps at which the line through the points first has the wanted effect.

    Beyond the last point, the line is that from zero to this point.

    Args:
        points: numbers of steps, ascending, and their effects; the first is (0, 0).
        wanted: the effect.

    Returns:
        A number of steps; infinity if the last effect is 0.
    """
    steps, effect = points[-1]
    if effect < wanted:
        return steps * wanted / effect if effect > 0 else math.inf
    (low, before), (high, after) = _bracket(points, wanted)
    return low + (high - low) * (wanted - before) / (after - before)


def _bracket(points: Sequence[Point], wanted: float) -> tuple[Point, Point]:
    """The first two neighbouring points with the wanted effect between them.

    The last point must have at least this effect.
    """
    return next(pair for pair in pairwise(points) if pair[1][1] >= wanted)
