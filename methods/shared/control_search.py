"""The labelled search on the tune split: which of many unlabelled candidates changes an attribute.

The authors of GANSpace and NaviGAN find directions without labels and then choose among them by
eye. A benchmark needs a fixed protocol instead, the same for all methods, and "no control found"
must be a possible result. Every candidate is applied to the same tune samples, the teacher scores
the images, and the control is chosen by its effect on the target and on the other attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, NoControl
from editbench.base.progress import progress
from editbench.base.spaces import Codes
from editbench.methods.shared.selection import check_tune
from editbench.walk.editor import FitData

MIN_EFFECT = 0.5  # in sigmas of the target's log-odds; a smaller effect does not count as a control


@dataclass(frozen=True)
class Control:
    """The candidate and strength chosen for one class of an attribute.

    Args:
        candidate: position among the candidates.
        strength: signed, in the units of the search.
        effect: mean change of the target class's log-odds, in sigmas.
        off_target: mean absolute change of the other attributes' log-odds, in sigmas.
        found: False if even the best candidate has too small an effect or exceeds a bound.
        distance: mean distance of the edited images from unedited ones, see
            editbench.methods.shared.picture_distance; NaN if it was not measured.
    """

    candidate: int
    strength: float
    effect: float
    off_target: float
    found: bool
    distance: float = math.nan


@dataclass(frozen=True)
class Bounds:
    """Upper bounds on the side effects of a control; None means no bound.

    Args:
        off_target: mean absolute change of the other attributes' log-odds, in sigmas.
        distance: mean distance of the edited images; that of unedited images is 1.

    Raises:
        EditbenchError: a bound is not positive.
    """

    off_target: float | None = None
    distance: float | None = None

    def __post_init__(self) -> None:
        for key, value in (("max_off_target", self.off_target), ("max_distance", self.distance)):
            if value is not None and not value > 0:
                raise EditbenchError(f"{key}={value} must be positive, or null for no bound")

    def __str__(self) -> str:
        parts = []
        if self.off_target is not None:
            parts.append(f"off-target changes of at most {self.off_target:g} sigma")
        if self.distance is not None:
            parts.append(f"a picture distance of at most {self.distance:g}")
        return " and ".join(parts)


ANYTHING = Bounds()


@dataclass(frozen=True)
class Effects:
    """The measured effects of every candidate at every strength.

    Args:
        change: (C, T, n, width) the teacher's log-odds minus those of the unedited sample, in
            sigmas.
        strengths: (T,) in the units of the search.
        start: (n, A) classes of the unedited samples.
        decoded: number of decoded images.
        distance: (C, T, n) distance of the edited images from unedited ones; None if not measured.
    """

    change: Tensor
    strengths: tuple[float, ...]
    start: Tensor
    decoded: int
    distance: Tensor | None = None


def measure(
    data: FitData,
    apply: Callable[[int, Tensor, Tensor], Codes],
    candidates: int,
    strengths: tuple[float, ...],
    samples: int = 64,
    what: str = "candidates",
    distance: Callable[[Tensor], Tensor] | None = None,
) -> Effects:
    """Apply every candidate at every strength to the first tune samples; the teacher scores them.

    Args:
        data: the splits, the generator and the teacher.
        apply: (candidate, strengths (m, 1), positions (m,) in the tune split) -> m edited codes.
        candidates: C, the number of candidates.
        strengths: (T,) signed.
        samples: number of tune samples, at most the whole split.
        what: the name of the candidates, for the progress line.
        distance: decoded samples (n, ...) -> (n,) distances from unedited images, see
            editbench.methods.shared.picture_distance; None does not measure them.

    Raises:
        EditbenchError: the tune split is empty.
    """
    check_tune(data, what)
    # The images that the search decodes are a cost of the method and are counted from here on.
    attributes = data.attributes
    before = data.generator.decoded
    positions = torch.arange(min(samples, len(data.tune)), device=data.tune.logits.device)
    logits = data.tune.logits[positions]
    base = attributes.log_odds(logits)
    count = len(positions)
    # All strengths of a candidate are decoded together, since small batches cost more per image.
    each = torch.tensor(strengths, device=positions.device).repeat_interleave(count).unsqueeze(1)
    again = positions.repeat(len(strengths))
    change = []
    far = []
    with progress(f"effects of {what}", candidates) as advance:
        for candidate in range(candidates):
            scored, away = _look(data, apply(candidate, each, again), distance)
            edited = attributes.log_odds(scored).unflatten(0, (len(strengths), count)) - base
            far += away
            # In sigmas, so that attributes with different scales can be compared.
            change.append(edited / data.sigma)
            advance()
    decoded = data.generator.decoded - before
    measured = None
    if distance is not None:
        measured = torch.cat(far).reshape(candidates, len(strengths), len(positions))
    return Effects(torch.stack(change), strengths, attributes.labels(logits), decoded, measured)


def _look(
    data: FitData,
    codes: Codes,
    distance: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, list[Tensor]]:
    """The teacher's logits (n, width) and, in parts, the distances (n,) of the same images."""
    if distance is None:
        return data.score(codes), []
    logits = []
    away = []
    with torch.inference_mode():

        def work(rows: slice) -> tuple[Tensor, Tensor]:
            pictures = data.generator.decode(codes[rows])
            far = distance(pictures)
            return data.teacher(pictures), far

        for scored, far in data.batches.run(len(codes), work):
            logits.append(scored)
            away.append(far)
    # A tensor made in inference mode cannot be used in a later backward pass; a copy can.
    return torch.cat(logits).clone(), [part.clone() for part in away]


def choose_control(
    effects: Effects,
    attributes: Attributes,
    name: str,
    target: int,
    min_effect: float = MIN_EFFECT,
    bounds: Bounds = ANYTHING,
) -> Control:
    """Choose the control towards one class of an attribute.

    The effect e is the mean change of the target's log-odds towards the class, over the samples
    that do not have the class (over all samples if there are none). The off-target change o is the
    mean, over the other attributes, of the mean absolute change of the start class's log-odds.

    Among the candidates within the bounds and with e >= min_effect, the largest e is determined;
    among those with an e within 5 % of it, the candidate with the largest e / o is chosen. If no
    candidate satisfies the bounds, the one with the largest e of all is returned, with `found`
    False.

    Args:
        effects: of all candidates.
        attributes: of the scorer.
        name: the attribute.
        target: the class, by index.
        min_effect: smallest effect that counts as a control, in sigmas.
        bounds: on the side effects of a control.
    """
    column, sign = attributes.column(name, target)
    lacking = effects.start[:, attributes.index(name)] != target
    # Samples that already have the class say nothing about the change towards it.
    lacking = lacking if bool(lacking.any()) else torch.ones_like(lacking)
    change = effects.change[:, :, lacking]  # (C, T, m, width)
    effect = (sign * change[..., column]).mean(2)
    others = []
    for k, other in enumerate(attributes.names):
        if other != name:
            # The column of the class that each sample starts in: (m,)
            columns = attributes.column(other, effects.start[lacking, k])[0]
            own = torch.as_tensor(columns).to(change.device)
            index = own.expand(*change.shape[:2], -1).unsqueeze(3)
            others.append(change.gather(3, index)[..., 0].abs().mean(2))
    off_target = torch.stack(others).mean(0) if others else torch.zeros_like(effect)
    # A candidate that breaks the image has NaN or infinite scores for some attribute, and must not
    # be chosen for them.
    sound = torch.isfinite(effect) & torch.isfinite(off_target)
    effect = torch.where(sound, effect, -torch.inf)
    # The NaN of a broken image satisfies no bound.
    kept = torch.ones_like(effect, dtype=torch.bool)
    if bounds.off_target is not None:
        kept &= off_target <= bounds.off_target
    away = torch.full_like(effect, torch.nan)
    if effects.distance is not None:
        away = effects.distance[:, :, lacking].mean(2).to(effect)
        if bounds.distance is not None:
            kept &= away <= bounds.distance
    inside = bool((kept & torch.isfinite(effect)).any())
    open_to = torch.where(kept, effect, -torch.inf) if inside else effect
    best = open_to.max().item()
    # Among nearly equal effects the control with the smaller side effects is preferred.
    least = 0.95 * best if best > 0 else best
    if best >= min_effect:
        # A candidate with an effect below min_effect must not replace one above it.
        least = max(least, min_effect)
    near = open_to >= least
    ratio = torch.where(near, effect / off_target.clamp_min(1e-6), -torch.inf)
    candidate, at = divmod(int(ratio.argmax()), len(effects.strengths))
    reached = effect[candidate, at].item()
    return Control(
        candidate,
        effects.strengths[at],
        reached,
        off_target[candidate, at].item(),
        inside and reached >= min_effect,
        away[candidate, at].item(),
    )


def controls(
    effects: Effects,
    attributes: Attributes,
    name: str,
    min_effect: float = MIN_EFFECT,
    bounds: Bounds = ANYTHING,
) -> list[Control]:
    """Choose the control towards each class of an attribute.

    If only some classes have a control, the others keep their best candidate, and their weak edits
    count as failures.

    Args:
        effects: of all candidates.
        attributes: of the scorer.
        name: the attribute.
        min_effect: smallest effect that counts as a control, in sigmas.
        bounds: on the side effects of a control.

    Returns:
        One control per class, in the order of the classes.

    Raises:
        NoControl: no class has a control.
    """
    found = []
    for c in range(len(attributes[name].classes)):
        found.append(choose_control(effects, attributes, name, c, min_effect, bounds))
    # One class with a control is enough for the attribute to be supported.
    if not any(control.found for control in found):
        best = max(found, key=lambda control: control.effect)
        raise NoControl(
            f"no control found for '{name}': the best of {len(effects.change)} candidates moves "
            f"it by {best.effect:.2f} sigma, {min_effect:g} are asked for{_limits(best, bounds)}"
        )
    return found


def _limits(best: Control, bounds: Bounds) -> str:
    """The bounds and the best candidate's side effects, for the message; '' without bounds."""
    if not str(bounds):
        return ""
    does = f"off-target {best.off_target:.2f} sigma"
    if math.isfinite(best.distance):
        does += f", picture distance {best.distance:.2f}"
    return f", with {bounds} ({does})"
