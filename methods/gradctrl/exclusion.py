"""Which channels an edit must leave alone: the most salient ones of the other attributes.

GradCtrl (Chen et al. 2022), section 3.2, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from editbench.base.attributes import Attributes
from editbench.base.devices import to_device, to_host
from editbench.base.errors import EditbenchError
from editbench.base.validation import check_attributes, check_kind
from editbench.methods.gradctrl.latent_classifier import SLOPE, LatentClassifier

PAPER_DIM = 512  # the width of W for which the papers give counts

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
                f"{key}={count} must be 0 to {PAPER_DIM} channels, out of {PAPER_DIM}: it is "
                "scaled to the generator's channels"
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
        first, pattern = _patterns(classifier, logits, slopes, name, multiclass)
        saliency = _saliency(classifier, logits[first], slopes[first], name, multiclass)
        mask |= _most_salient(saliency, count, ties)[pattern]
    return mask


def _patterns(
    classifier: LatentClassifier, logits: Tensor, slopes: Tensor, name: str, multiclass: str
) -> tuple[Tensor, Tensor]:
    """Which samples have the same saliency of an attribute.

    A head is linear where its units keep their signs, so the saliency depends on these alone. Of
    thousands of codes a trained head sees some hundred patterns of signs.

    Returns:
        first: (p,) a sample of each pattern.
        pattern: (n,) the pattern of each sample.
    """
    signs = slopes[:, classifier.names.index(name)] > SLOPE
    if multiclass == "predicted":
        own = logits[:, classifier.slices[name]]
        signs = torch.cat([signs, functional.one_hot(own.argmax(1), own.shape[1]) > 0], 1)
    # Rows of bytes, each as one value.
    packed = np.packbits(to_host(signs)[0].numpy(), axis=1)
    rows = packed.view(f"V{packed.shape[1]}")[:, 0]
    _, first, pattern = np.unique(rows, return_index=True, return_inverse=True)
    device = logits.device
    return to_device(torch.from_numpy(first), device), to_device(torch.from_numpy(pattern), device)


def _most_salient(saliency: Tensor, count: int, ties: str) -> Tensor:
    """The `count` largest of each row of saliency (p, d): (p, d) bool."""
    if ties == "all":
        return saliency >= saliency.topk(count, dim=1).values[:, -1:]
    if saliency.is_cuda:
        top = saliency.topk(count, dim=1).indices
    else:  # several times as fast on a CPU
        top = torch.from_numpy(np.argpartition(saliency.numpy(), -count, axis=1)[:, -count:])
    return torch.zeros_like(saliency, dtype=torch.bool).scatter_(1, top, True)


def _saliency(
    classifier: LatentClassifier, logits: Tensor, slopes: Tensor, name: str, multiclass: str
) -> Tensor:
    """|d f / dw| of one attribute (p, d), over its classes as `multiclass` says."""
    where = classifier.slices[name]
    rows = torch.arange(where.start, where.stop, device=logits.device)
    found = classifier.jacobian(slopes, rows).abs_()  # (p, width, d)
    if multiclass == "predicted":
        samples = torch.arange(len(logits), device=logits.device)
        return found[samples, logits[:, where].argmax(1)]
    # The largest over the classes: a channel that moves any class counts.
    return found.amax(1)
