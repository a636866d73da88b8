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
from editbench.methods.shared.options import check_tune_split
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


NO_BOUNDS = Bounds()


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


def measure_effects(
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
    check_tune_split(data, what)
    attributes = data.attributes
    # The images that the search decodes are a cost of the method and are counted from here on.
    decoded_before = data.generator.decoded
    n = min(samples, len(data.tune))
    positions = torch.arange(n, device=data.tune.logits.device)
    start_logits = data.tune.logits[positions]
    start_odds = attributes.log_odds(start_logits)
    # All strengths of a candidate are decoded together, since small batches cost more per image:
    # all samples at the first strength, then all samples at the second one, and so on.
    all_strengths = torch.tensor(strengths, device=positions.device)
    all_strengths = all_strengths.repeat_interleave(n).unsqueeze(1)  # (T n, 1)
    all_positions = positions.repeat(len(strengths))  # (T n,)
    changes = []
    distances: list[Tensor] = []
    with progress(f"effects of {what}", candidates) as advance:
        for candidate in range(candidates):
            codes = apply(candidate, all_strengths, all_positions)
            if distance is None:
                logits = data.score(codes)
            else:
                logits, measured = _score_with_distances(data, codes, distance)
                distances.append(measured)
            odds = attributes.log_odds(logits).unflatten(0, (len(strengths), n))
            # In sigmas, so that attributes with different scales can be compared.
            changes.append((odds - start_odds) / data.sigma)
            advance()
    return Effects(
        torch.stack(changes),
        strengths,
        attributes.labels(start_logits),
        data.generator.decoded - decoded_before,
        torch.stack(distances).unflatten(1, (len(strengths), n)) if distances else None,
    )


def _score_with_distances(
    data: FitData, codes: Codes, distance: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The teacher's logits (n, width), as `FitData.score`, and the distances (n,) of the same
    images."""

    def score(rows: slice) -> tuple[Tensor, Tensor]:
        images = data.generator.decode(codes[rows])
        measured = distance(images)
        return data.teacher(images), measured

    with torch.inference_mode():
        logits, distances = zip(*data.batches.run(len(codes), score))
    # A tensor made in inference mode cannot be used in a later backward pass; a copy can.
    return torch.cat(logits).clone(), torch.cat(distances).clone()


def choose_control(
    effects: Effects,
    attributes: Attributes,
    name: str,
    target: int,
    min_effect: float = MIN_EFFECT,
    bounds: Bounds = NO_BOUNDS,
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
    # Samples that already have the class say nothing about the change towards it.
    lacking = effects.start[:, attributes.index(name)] != target
    if not bool(lacking.any()):
        lacking = torch.ones_like(lacking)
    change = effects.change[:, :, lacking]  # (C, T, m, width)
    column, sign = attributes.column(name, target)
    effect = (sign * change[..., column]).mean(2)  # (C, T), like everything below
    off_target = _off_target_change(change, effects.start[lacking], attributes, name)
    # A candidate that breaks the image has NaN or infinite scores for some attribute, and must not
    # be chosen for them.
    sound = torch.isfinite(effect) & torch.isfinite(off_target)
    effect = torch.where(sound, effect, -torch.inf)
    # The NaN of a broken image satisfies no bound.
    within = torch.ones_like(sound)
    if bounds.off_target is not None:
        within &= off_target <= bounds.off_target
    distance = torch.full_like(effect, torch.nan)
    if effects.distance is not None:
        distance = effects.distance[:, :, lacking].mean(2).to(effect)
        if bounds.distance is not None:
            within &= distance <= bounds.distance
    any_within = bool((within & torch.isfinite(effect)).any())
    eligible = torch.where(within, effect, -torch.inf) if any_within else effect
    largest = eligible.max().item()
    # Among nearly equal effects the control with the smaller side effects is preferred.
    nearly = 0.95 * largest if largest > 0 else largest
    if largest >= min_effect:
        # A candidate with an effect below min_effect must not replace one above it.
        nearly = max(nearly, min_effect)
    ratio = effect / off_target.clamp_min(1e-6)
    ratio = torch.where(eligible >= nearly, ratio, -torch.inf)
    candidate, strength = divmod(int(ratio.argmax()), len(effects.strengths))
    reached = effect[candidate, strength].item()
    return Control(
        candidate,
        effects.strengths[strength],
        reached,
        off_target[candidate, strength].item(),
        any_within and reached >= min_effect,
        distance[candidate, strength].item(),
    )


def _off_target_change(change: Tensor, start: Tensor, attributes: Attributes, name: str) -> Tensor:
    """Mean absolute change of the attributes other than `name`; 0 if there is no other.

    Args:
        change: (C, T, m, width) changes of the log-odds.
        start: (m, A) classes of the unedited samples. Of an attribute of several classes, the
            log-odds of the sample's own class count.
        attributes: of the log-odds.
        name: the target attribute.

    Returns:
        (C, T).
    """
    of_attribute = []
    for k, other in enumerate(attributes.names):
        if other != name:
            columns = torch.as_tensor(attributes.column(other, start[:, k])[0]).to(change.device)
            index = columns.expand(*change.shape[:2], -1).unsqueeze(3)  # (C, T, m, 1)
            of_attribute.append(change.gather(3, index)[..., 0].abs().mean(2))
    if not of_attribute:
        return change.new_zeros(change.shape[:2])
    return torch.stack(of_attribute).mean(0)


def choose_controls(
    effects: Effects,
    attributes: Attributes,
    name: str,
    min_effect: float = MIN_EFFECT,
    bounds: Bounds = NO_BOUNDS,
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
    chosen = []
    for target in range(len(attributes[name].classes)):
        chosen.append(choose_control(effects, attributes, name, target, min_effect, bounds))
    # One class with a control is enough for the attribute to be supported.
    if not any(control.found for control in chosen):
        best = max(chosen, key=lambda control: control.effect)
        raise NoControl(
            f"no control found for '{name}': the best of {len(effects.change)} candidates moves "
            f"it by {best.effect:.2f} sigma, {min_effect:g} are asked for{_explain_bounds(best, bounds)}"
        )
    return chosen


def _explain_bounds(best: Control, bounds: Bounds) -> str:
    """The bounds and the best candidate's side effects, for the message; '' without bounds."""
    if not str(bounds):
        return ""
    side_effects = f"off-target {best.off_target:.2f} sigma"
    if math.isfinite(best.distance):
        side_effects += f", picture distance {best.distance:.2f}"
    return f", with {bounds} ({side_effects})"
