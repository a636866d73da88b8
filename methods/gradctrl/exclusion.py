"""Which channels an edit must leave alone: the most salient ones of the other attributes.

GradCtrl (Chen et al. 2022), section 3.2, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError
from editbench.base.validation import check_attributes, check_kind
from editbench.methods.gradctrl.latent_classifier import LatentClassifier

PAPER_DIM = 512  # the width of W for which the papers give counts
ROUNDING = 1e-4  # relative; well above that of single precision

# The published code's own settings for StyleGAN2-FFHQ: target -> {excluded attribute: count}, and
# W+ rows [a, b).
FFHQ_EXCLUDE: dict[str, dict[str, int]] = {
    "gender": {"smile": 250, "eyeglasses": 100, "age": 100},
    "smile": {"gender": 200, "eyeglasses": 50, "age": 100},
    "eyeglasses": {"gender": 200, "smile": 100, "age": 250},
    "age": {"gender": 100, "eyeglasses": 300},
}
FFHQ_LAYERS: dict[str, tuple[int, int]] = {
    "gender": (2, 10),
    "smile": (2, 8),
    "eyeglasses": (1, 4),
    "age": (4, 10),
}
# Rows of the smallest StyleGAN2-FFHQ that there is, of 256 pixels. The embedded world has 8.
FFHQ_ROWS = 14

Exclude = int | str | Mapping[str, Mapping[str, int]]


def parse_exclude(exclude: Exclude) -> int | dict[str, dict[str, int]]:
    """The option `exclude`: a count for all, 'ffhq', or target -> {other: count}.

    Raises:
        EditbenchError: another word; a count that is negative or above PAPER_DIM.
    """
    if exclude == "ffhq":
        exclude = FFHQ_EXCLUDE
    parsed: int | dict[str, dict[str, int]]
    counts: dict[str, int]  # by the key that gives them
    if isinstance(exclude, Mapping):
        # Copies: configuration objects must not leak into the editor.
        parsed = {}
        counts = {}
        for target, others in exclude.items():
            if not isinstance(others, Mapping):
                raise EditbenchError(
                    f"method.exclude.{target}={others} must be a mapping of the other attributes "
                    f"to counts, as in exclude={{{target}: {{age: 100}}}}"
                )
            parsed[target] = dict(others)
            for other, count in parsed[target].items():
                counts[f"method.exclude.{target}.{other}"] = count
    elif isinstance(exclude, int):
        parsed = exclude
        counts = {"method.exclude": exclude}
    else:
        raise EditbenchError(
            f"method.exclude={exclude} is neither a count, nor 'ffhq', nor a mapping"
        )
    for key, count in counts.items():
        check_kind(key, count, "int", 100)
        # There are no more channels than these; with all of them no walk leaves its start.
        if not 0 <= count <= PAPER_DIM:
            raise EditbenchError(
                f"{key}={count} must be 0 to {PAPER_DIM} channels; it is out of {PAPER_DIM}, "
                "carried over to the generator's in proportion"
            )
    return parsed


def check_names(
    exclude: int | dict[str, dict[str, int]], attributes: Attributes, target: str
) -> None:
    """Check the names of a mapping.

    Args:
        exclude: as `parse_exclude` gives it.
        attributes: the evaluated ones.
        target: that is to be edited.

    Raises:
        UnknownName: one is no attribute; or it is one that the target is to leave alone and that is
            not evaluated, so that there is no classifier of it.
    """
    if isinstance(exclude, int):
        return
    for name, others in exclude.items():
        check_attributes("method.exclude", (name, *others), attributes.known)
    check_attributes("method.exclude", exclude.get(target, ()), attributes.names)


def scaled_count(count: int, dim: int) -> int:
    """A count that is meant for 512 channels, in proportion for `dim` of them.

    It is rounded and at least 1; 0, which switches the exclusion off, stays 0.
    """
    return 0 if count == 0 else min(dim, max(1, round(count * dim / PAPER_DIM)))


def excluded_channels(
    classifier: LatentClassifier,
    logits: Tensor,
    slopes: Tensor,
    counts: Mapping[str, int],
    ties: str = "exact",
    multiclass: str = "max",
) -> Tensor:
    """Channels to leave alone: for each other attribute m the c_m with the largest |d f_m / dw|.

    Args:
        classifier: of all attributes.
        logits: (n, R) of `LatentClassifier.forward`, at the current codes.
        slopes: (n, A, 16) of the same.
        counts: attribute -> c_m in channels of this space.
        ties: 'exact' takes c_m channels even where the c_m-th saliency is shared (the published
            code); 'all' takes every channel at or above it (Algorithm 1's L_i >= t).
        multiclass: saliency of an attribute of many classes: 'max' over its classes (no class of
            it may move), or the row of the class 'predicted' now. The sources leave it open.

    Returns (n, d) bool.
    """
    mask = torch.zeros(len(logits), classifier.dim, dtype=torch.bool, device=logits.device)
    for name, count in counts.items():
        if count == 0:
            continue

        # `name` is bound now: a closure would see the loop's last one.
        def saliency(some: Tensor | slice, dtype: torch.dtype, name: str = name) -> Tensor:
            return _saliency(classifier, logits[some], slopes[some], name, multiclass, dtype)

        mask |= most_salient(saliency, count, ties)
    return mask


def most_salient(
    saliency: Callable[[Tensor | slice, torch.dtype], Tensor], count: int, ties: str
) -> Tensor:
    """The `count` largest of each row of saliency (n, d): (n, d) bool.

    Ranked in single precision, which a CPU partitions several times faster; rows in which its
    rounding could decide are computed and ranked again in double, so that the mask is the double's.

    Args:
        saliency: (rows, dtype) -> (len(rows), d).
        count: channels of a row.
        ties: 'exact' or 'all'; see `excluded_channels`.
    """
    coarse = saliency(slice(None), torch.float32)
    # Slightly below the count-th largest value of each row: a row whose mask then holds `count`
    # channels had no rival within the rounding, and is right as it is.
    if coarse.is_cuda:
        threshold = coarse.topk(count, dim=1, sorted=False).values.amin(1, keepdim=True)
        mask = coarse >= threshold * (1 - ROUNDING)
        held = mask.sum(1)
    else:
        # NumPy partitions, compares and counts two to four times as fast on a CPU.
        values = coarse.numpy()
        place = values.shape[1] - count
        parted = np.partition(values, place, axis=1)
        found = values >= parted[:, place : place + 1] * np.float32(1 - ROUNDING)
        mask = torch.from_numpy(found)
        held = torch.from_numpy(np.count_nonzero(found, axis=1))
    unsure = (held != count).nonzero()[:, 0]  # others come close to the last one
    if len(unsure):
        exact = saliency(unsure, torch.float64)
        top = exact.topk(count, dim=1)
        chosen = torch.zeros_like(exact, dtype=torch.bool).scatter_(1, top.indices, True)
        mask[unsure] = exact >= top.values[:, -1:] if ties == "all" else chosen
    return mask


def _saliency(
    classifier: LatentClassifier,
    logits: Tensor,
    slopes: Tensor,
    name: str,
    multiclass: str,
    dtype: torch.dtype,
) -> Tensor:
    """|d f / dw| of one attribute (n, d), over its classes as `multiclass` says."""
    where = classifier.slices[name]
    rows = torch.arange(where.start, where.stop, device=logits.device)
    found = classifier.jacobian(slopes, rows, dtype).abs_()  # (n, width, d)
    if len(rows) == 1:
        return found[:, 0]
    if multiclass == "predicted":
        return found[torch.arange(len(logits), device=logits.device), logits[:, where].argmax(1)]
    # The largest over the classes: a channel that moves any class counts.
    return found.amax(1)
