"""A small meta-validation set on the tune split, walked as the crossing test walks (Chen et al. 2022, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from editbench.base.seeding import generator
from editbench.base.spaces import Space
from editbench.walk.editor import Editor, FitData, Walk

EXAMPLES = 30
MAX_STEPS = 50

Choice = TypeVar("Choice")


def meta_validation(data: FitData, attribute: str) -> tuple[Tensor, Tensor, Tensor]:
    """The `EXAMPLES` tune samples nearest to all decision boundaries at once, as the crossing test draws its starts.

    Returns positions in the tune split (n,), source (n,) and target (n,) classes; a target is drawn among the other
    classes, of an ordered attribute among the neighbours.
    """
    attributes, logits = data.attributes, data.tune.logits
    labels = attributes.labels(logits)
    odds = attributes.log_odds(logits).abs() / data.sigma.to(logits)
    columns = torch.stack(
        [
            torch.as_tensor(attributes.column(name, labels[:, a])[0])
            for a, name in enumerate(attributes.names)
        ],
        1,
    )
    q = odds.gather(1, columns).amax(1)
    position = q.argsort(stable=True)[:EXAMPLES]
    source = labels[position, attributes.index(attribute)]
    classes = len(attributes[attribute].classes)
    draw = torch.from_numpy(
        generator(data.seed, "meta_validation", attribute).random(len(position))
    ).to(source.device)
    if attributes[attribute].ordered:
        up = (source == 0) | ((source < classes - 1) & (draw < 0.5))
        return position, source, source + 2 * up.long() - 1
    other = (draw * (classes - 1)).long()
    return position, source, other + (other >= source).long()


def clean_crossings(editor: Editor, data: FitData, walk: Walk, labels: Tensor) -> float:
    """Share of samples whose teacher label reaches the target while, at that step, no other label has changed."""
    attributes, n, clean = data.attributes, len(walk), 0
    place = attributes.index(walk.attribute)
    for _ in range(MAX_STEPS):
        walk.codes, walk.steps = editor.step(walk), walk.steps + 1
        logits = data.score(editor.codes(walk))
        now = attributes.labels(logits)
        finite = torch.isfinite(logits).all(1)
        crossed = finite & (now[:, place] == walk.target)
        changed = (now != labels).sum(1) - (now[:, place] != labels[:, place]).long()
        clean += int((crossed & (changed == 0)).sum())
        go_on = finite & ~crossed
        walk, labels = walk[go_on], labels[go_on]
        if not len(walk):
            break
    return clean / max(n, 1)


def score_choices(
    editor: Editor,
    data: FitData,
    attribute: str,
    choices: Sequence[Choice],
    apply: Callable[[Choice], None],
) -> tuple[dict[Choice, float], int]:
    """Share of clean crossings of every choice, walked from the same samples; and how many labels of the split were
    read to find these samples, which is all of them.

    apply: sets a choice in the editor.
    """
    position, source, target = meta_validation(data, attribute)
    labels = data.attributes.labels(data.tune.logits[position])
    latent = data.tune.codes(Space.Z) if editor.space == Space.Z else data.latents(data.tune)
    codes = data.generator.lift(latent[position], editor.space)
    editor.num_ws = editor.num_ws or data.generator.num_ws
    scores = {}
    for choice in choices:
        apply(choice)
        walk = Walk(
            attribute,
            data.tune.index[position],
            codes,
            codes,
            source,
            target,
            latent=latent[position],
        )
        scores[choice] = clean_crossings(editor, data, walk, labels)
    return scores, len(data.tune)
