"""A small meta-validation set on the tune split, walked as the crossing test walks its starts.

Chen et al. 2022, section 4, choose hyperparameters on such a set; the number of examples is that of
the paper, the step limit this project's choice. The teacher scores it, since methods must not see
the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from editbench.bank.starts import draw_classes
from editbench.base import seeding
from editbench.base.spaces import Space
from editbench.methods.shared.options import check_tune_split
from editbench.walk.editor import Editor, FitData, Walk
from editbench.walk.walker import Walker

EXAMPLES = 30  # Chen et al. 2022, section 4
MAX_STEPS = 50  # the cap of the crossing test

Choice = TypeVar("Choice")


def meta_validation(data: FitData, attribute: str) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the meta-validation set of an attribute, as the crossing test draws its starts.

    The examples are the tune samples nearest to the boundaries of all evaluated attributes at once.

    Args:
        data: what the method may learn from.
        attribute: the target attribute.

    Returns:
        position: (n,) positions in the tune split, n at most `EXAMPLES`.
        source: (n,) classes.
        target: (n,) classes, drawn from the other classes, or from the neighbouring ones if the
            attribute is ordered.
    """
    attributes = data.attributes
    logits = data.tune.logits
    labels = attributes.labels(logits)
    distance = attributes.boundary_distance(logits, data.sigma)
    # If the largest distance over the attributes is small, the sample is near every boundary.
    farthest = distance.amax(1)
    position = farthest.argsort(stable=True)[:EXAMPLES]
    source = labels[position, attributes.index(attribute)]
    rng = seeding.rng(data.seed, "meta_validation", attribute)
    draw = rng.random(len(position))
    about = attributes[attribute]
    target = draw_classes(source.cpu().numpy(), draw, len(about.classes), about.ordered)
    return position, source, torch.from_numpy(target).to(source.device)


def clean_crossings(editor: Editor, data: FitData, walk: Walk, labels: Tensor) -> float:
    """Walk to the first crossing, and count the crossings at which no other label has changed.

    Args:
        editor: the editor to evaluate.
        data: its teacher scores the steps.
        walk: n samples at step 0.
        labels: (n, A) their classes according to the teacher.

    Returns:
        Share of the samples with such a crossing.
    """
    n = len(walk)
    clean = 0
    place = data.attributes.index(walk.attribute)
    walker = Walker(editor, walk)
    for here in walker.steps(MAX_STEPS):
        logits = data.score(walker.codes())
        # All attributes are scored: a crossing that changes another label is not clean.
        now = data.attributes.labels(logits)
        finite = torch.isfinite(logits).all(1)
        crossed = finite & (now[:, place] == here.target)
        changed = (now != labels).sum(1) - (now[:, place] != labels[:, place]).long()
        clean += int((crossed & (changed == 0)).sum())
        # Only the first crossing counts, as in the crossing test.
        going = finite & ~crossed
        walker.keep(going)
        labels = labels[going]
    return clean / max(n, 1)


def score_choices(
    editor: Editor,
    data: FitData,
    attribute: str,
    choices: Sequence[Choice],
    apply: Callable[[Choice], None],
) -> tuple[dict[Choice, float], int]:
    """Evaluate every choice on the same samples.

    Args:
        editor: fitted.
        data: what the method may learn from.
        attribute: the target attribute.
        choices: the choices, in the order of evaluation.
        apply: sets a choice in the editor.

    Returns:
        scores: choice -> share of clean crossings.
        labels: number of labels read: the whole tune split, since all samples are compared to find
            the examples.

    Raises:
        EditbenchError: the tune split is empty.
    """
    check_tune_split(data, "its options")
    position, source, target = meta_validation(data, attribute)
    labels = data.attributes.labels(data.tune.logits[position])
    latent = data.tune.codes(Space.Z) if editor.space == Space.Z else data.latents(data.tune)
    codes = data.generator.lift(latent[position], editor.space)
    # This walk is outside a job, so the editor has not been bound to its networks.
    editor.bind(data.generator, data.teacher)
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
