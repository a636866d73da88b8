"""Channels that an edit must not change: the most salient channels of the other attributes.

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

PAPER_DIM = 512  # width of the W that the paper's counts are for

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
# Rows of the smallest published StyleGAN2-FFHQ, at 256 pixels. The embedded world has 8.
FFHQ_ROWS = 14

Exclude = int | str | Mapping[str, Mapping[str, int]]


def parse_exclude(exclude: Exclude) -> int | dict[str, dict[str, int]]:
    """Parse the option `exclude`: a count for all, 'ffhq', or target -> {other: count}.

    Raises:
        EditbenchError: it is another word, or a count is negative or above PAPER_DIM.
    """
    if exclude == "ffhq":
        exclude = FFHQ_EXCLUDE
    parsed: int | dict[str, dict[str, int]]
    counts: dict[str, int]  # configuration key -> count
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
        # There are only PAPER_DIM channels; if all are excluded, no sample moves.
        if not 0 <= count <= PAPER_DIM:
            raise EditbenchError(
                f"{key}={count} must be 0 to {PAPER_DIM} channels, out of {PAPER_DIM}: it is "
                "scaled to the generator's channels"
            )
    return parsed


def check_names(
    exclude: int | dict[str, dict[str, int]], attributes: Attributes, target: str
) -> None:
    """Check the attribute names of a mapping.

    Args:
        exclude: as returned by `parse_exclude`.
        attributes: the evaluated attributes.
        target: the target attribute.

    Raises:
        UnknownName: a name is not an attribute; or it is an attribute to protect for this target
            that is not evaluated, so there is no classifier for it.
    """
    if isinstance(exclude, int):
        return
    for name, others in exclude.items():
        check_attributes("method.exclude", (name, *others), attributes.known)
    check_attributes("method.exclude", exclude.get(target, ()), attributes.names)


def scaled_count(count: int, dim: int) -> int:
    """Scale a count for 512 channels to `dim` channels.

    The result is rounded and at least 1, except that 0, which disables the exclusion, stays 0.

    Args:
        count: number of excluded channels in the paper's W (PAPER_DIM), c_m of Algorithm 1.
        dim: number of channels of the space that is edited; the result never exceeds it.
    """
    # A small count must not be rounded to 0, which would disable the exclusion.
    return 0 if count == 0 else min(dim, max(1, round(count * dim / PAPER_DIM)))


def excluded_channels(
    classifier: LatentClassifier,
    logits: Tensor,
    slopes: Tensor,
    counts: Mapping[str, int],
    ties: str = "exact",
    multiclass: str = "max",
) -> Tensor:
    """Channels to exclude: for each other attribute m the c_m with the largest |d f_m / dw|.

    Args:
        classifier: of all attributes.
        logits: (n, R) of `LatentClassifier.forward`, at the current codes.
        slopes: (n, A, 16) of the same.
        counts: attribute -> c_m in channels of this space.
        ties: 'exact' takes c_m channels even where the c_m-th saliency is shared (the published
            code); 'all' takes every channel at or above it (Algorithm 1's L_i >= t).
        multiclass: saliency of an attribute with several classes: 'max' over its classes (no class
            may change), or that of the class 'predicted' now. The paper and its code leave this
            open.

    Returns:
        (n, d) bool.
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
    """Group samples that have the same saliency of an attribute.

    A head is linear as long as its units keep their signs, so the saliency depends only on these
    signs. For thousands of codes a trained head has only some hundred patterns of signs.

    Returns:
        first: (p,) index of one sample of each pattern.
        pattern: (n,) pattern of each sample.
    """
    signs = slopes[:, classifier.names.index(name)] > SLOPE
    if multiclass == "predicted":
        own = logits[:, classifier.slices[name]]
        signs = torch.cat([signs, functional.one_hot(own.argmax(1), own.shape[1]) > 0], 1)
    # Each row of bytes is viewed as a single value.
    packed = np.packbits(to_host(signs)[0].numpy(), axis=1)
    rows = packed.view(f"V{packed.shape[1]}")[:, 0]
    _, first, pattern = np.unique(rows, return_index=True, return_inverse=True)
    device = logits.device
    return to_device(torch.from_numpy(first), device), to_device(torch.from_numpy(pattern), device)


def _most_salient(saliency: Tensor, count: int, ties: str) -> Tensor:
    """Mark the `count` largest entries of each row of saliency (p, d): (p, d) bool."""
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
    """|d f / dw| of one attribute (p, d), with its classes combined according to `multiclass`."""
    where = classifier.slices[name]
    rows = torch.arange(where.start, where.stop, device=logits.device)
    found = classifier.jacobian(slopes, rows).abs_()  # (p, width, d)
    if multiclass == "predicted":
        samples = torch.arange(len(logits), device=logits.device)
        return found[samples, logits[:, where].argmax(1)]
    # The maximum over the classes, since a channel that changes any class counts.
    return found.amax(1)
