"""Which of many unlabelled controls moves which attribute: a labelled selection on the tune
split, the same for all.

GANSpace and NaviGAN find directions without labels; a person then looks at them. In a benchmark
the looking must be a fixed protocol, and "no control found" must be one of its answers: every
candidate is applied to the same tune samples, the teacher scores the pictures, and a control is
chosen by its effect on the target and on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import Unsupported
from editbench.base.progress import progress
from editbench.base.spaces import Codes
from editbench.walk.editor import FitData

MIN_EFFECT = 0.5  # of the target's sigma: less than that is no control


@dataclass(frozen=True)
class Control:
    """candidate and strength that were chosen for a class of an attribute, with their mean
    effects in sigmas.

    found is False where even the best candidate stays below the effect that was asked for.
    """

    candidate: int
    strength: float
    effect: float
    off_target: float
    found: bool


@dataclass(frozen=True)
class Effects:
    """What every candidate does at every strength.

    change (C, T, n, width): the teacher's log-odds minus those of the unedited sample, in sigmas;
    strengths (T,); start (n, A) the unedited samples' classes; decoded: pictures that were needed.
    """

    change: Tensor
    strengths: tuple[float, ...]
    start: Tensor
    decoded: int


def measure(
    data: FitData,
    apply: Callable[[int, float, Tensor], Codes],
    candidates: int,
    strengths: tuple[float, ...],
    samples: int = 64,
    what: str = "candidates",
) -> Effects:
    """Apply every candidate at every strength to the first tune samples and score the pictures
    with the teacher.

    Args:
        apply: (candidate, strength, positions (n,) in the tune split) -> edited codes of these
            samples.
        samples: how many of the tune split, at most all.
    """
    attributes = data.attributes
    before = data.generator.decoded
    positions = torch.arange(min(samples, len(data.tune)), device=data.tune.logits.device)
    logits = data.tune.logits[positions]
    base = attributes.log_odds(logits)
    change = []
    with progress(f"effects of {what}", candidates) as advance:
        for candidate in range(candidates):
            edited = [
                attributes.log_odds(data.score(apply(candidate, strength, positions))) - base
                for strength in strengths
            ]
            change.append(torch.stack(edited) / data.sigma)
            advance()
    return Effects(
        torch.stack(change), strengths, attributes.labels(logits), data.generator.decoded - before
    )


def choose(
    effects: Effects, attributes: Attributes, name: str, target: int, min_effect: float = MIN_EFFECT
) -> Control:
    """The control towards one class of an attribute.

    effect e: mean change of the target's log-odds towards the class, over samples that do not
    have it (over all, where there is none); off-target o: mean over the other attributes of the
    mean absolute change of the start class's log-odds. The protocol: the largest e subject to e
    >= min_effect; among those within 5 % of it, the largest e / o.
    """
    column, sign = attributes.column(name, target)
    lacking = effects.start[:, attributes.index(name)] != target
    lacking = lacking if bool(lacking.any()) else torch.ones_like(lacking)
    change = effects.change[:, :, lacking]  # (C, T, m, width)
    effect = torch.nan_to_num((sign * change[..., column]).mean(2), nan=-torch.inf)
    others = []
    for k, other in enumerate(attributes.names):
        if other != name:
            own = torch.as_tensor(attributes.column(other, effects.start[lacking, k])[0]).to(
                change.device
            )
            index = own.expand(*change.shape[:2], -1).unsqueeze(3)
            others.append(change.gather(3, index)[..., 0].abs().mean(2))
    off_target = torch.stack(others).mean(0) if others else torch.zeros_like(effect)
    best = effect.max().item()
    near = effect >= (0.95 * best if best > 0 else best)
    ratio = torch.where(near, effect / off_target.clamp_min(1e-6), -torch.inf)
    candidate, at = divmod(int(ratio.argmax()), len(effects.strengths))
    reached = effect[candidate, at].item()
    return Control(
        candidate,
        effects.strengths[at],
        reached,
        off_target[candidate, at].item(),
        reached >= min_effect,
    )


def controls(
    effects: Effects, attributes: Attributes, name: str, min_effect: float = MIN_EFFECT
) -> list[Control]:
    """The control towards each class of an attribute.

    Raises:
        Unsupported: no class has one ("no control found"). A class without one among others that
            have keeps its best
        candidate: an edit that is weak is counted as the failure that it is.
    """
    found = [
        choose(effects, attributes, name, c, min_effect)
        for c in range(len(attributes[name].classes))
    ]
    if not any(control.found for control in found):
        best = max(found, key=lambda control: control.effect)
        raise Unsupported(
            f"no control found for '{name}': the best of {len(effects.change)} candidates moves it by "
            f"{best.effect:.2f} sigma, {min_effect:g} are asked for"
        )
    return found
