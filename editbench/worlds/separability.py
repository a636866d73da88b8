"""How well linear classifiers of codes predict attributes, which shows whether a space can be edited.

An editor learns from codes and their labels. If a logistic regression on all codes ranks unseen
codes no better than chance, no editor of the space can work. If it succeeds but 30 examples per
class are not enough, few-shot editors cannot work. In StyleGAN2's W for FFHQ, 30 examples reach an
AUC of .90 and more.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from editbench.base import seeding
from editbench.base.attributes import Attributes
from editbench.base.devices import device_of
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer

EXAMPLES = 30  # per class, of the few-shot AUC
DRAWS = 20  # of the examples, whose median is reported
NEAR = 0.25  # standard deviations of the logit from the boundary
BATCH = 250
WATCH_SEED = 5_006  # of the samples that are measured at checkpoints


def fitted_auc(
    fit: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray
) -> float | None:
    """AUC of a logistic regression.

    Args:
        fit: (N, D) codes that it learns from.
        labels: (N,) 0 or 1, of `fit`.
        test: (M, D) codes that it ranks.
        truth: (M,) 0 or 1, of `test`.

    Returns:
        The AUC, or None if a class is missing.
    """
    if len(np.unique(labels)) < 2 or len(np.unique(truth)) < 2:
        return None
    model = LogisticRegression(max_iter=1000).fit(fit, labels)
    return float(roc_auc_score(truth, model.decision_function(test)))


def few_shot_auc(
    fit: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    truth: np.ndarray,
    name: str,
) -> list[float] | None:
    """The `fitted_auc` of several random draws of few examples.

    Args:
        fit: (N, D) codes that the examples are drawn from.
        labels: (N,) 0 or 1, of `fit`.
        test: (M, D) codes that are ranked.
        truth: (M,) 0 or 1, of `test`.
        name: of the attribute, which seeds the draws.

    Returns:
        One AUC for each of DRAWS draws, or None if a class has fewer than EXAMPLES samples.
    """
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    if min(map(len, classes)) < EXAMPLES or len(np.unique(truth)) < 2:
        return None
    found = []
    for draw in range(DRAWS):
        random = seeding.rng(0, "separability", name, draw)
        rows = np.concatenate(
            [random.permutation(rows_of_class)[:EXAMPLES] for rows_of_class in classes]
        )
        auc = fitted_auc(fit[rows], labels[rows], test, truth)
        assert auc is not None  # both classes are there
        found.append(auc)
    return found


def separability(
    codes: np.ndarray, teacher: Tensor, judge: Tensor, attributes: Attributes, few: bool = True
) -> dict[str, dict]:
    """Measure how well linear classifiers of codes predict the binary attributes.

    They are fitted to the teacher's labels of the first two thirds of the codes, as an editor is,
    and tested on the judge's labels of the rest.

    Args:
        codes: (N, D).
        teacher: (N, width) its logits.
        judge: (N, width) its logits.
        attributes: of both.
        few: whether the few-shot AUC is computed too.

    Returns:
        Binary attribute -> `share` of the positive class and `near`, the share within NEAR standard
        deviations of the boundary, both by the judge; `linear`, the AUC of all codes; `few`, its
        median over random draws of EXAMPLES samples per class, and `few_range`, the quartiles of
        the draws.
    """
    # On different codes, since a classifier with 128 coefficients fits noise too.
    cut = 2 * len(codes) // 3
    report = {}
    for attribute in attributes:
        if not attribute.binary:
            continue
        taught = attributes.logits(teacher, attribute.name)[:, 0].numpy()
        judged = attributes.logits(judge, attribute.name)[:, 0].numpy()
        labels = (taught[:cut] > 0).astype(int)
        truth = (judged[cut:] > 0).astype(int)
        # A constant logit has no spread, and then everything is near.
        spread = max(float(judged.std()), 1e-12)
        figures: dict[str, object] = {
            "share": float((judged > 0).mean()),
            "near": float((np.abs(judged) < NEAR * spread).mean()),
            "linear": fitted_auc(codes[:cut], labels, codes[cut:], truth),
        }
        if few:
            # The median, since a single draw of thirty may be unlucky.
            draws = few_shot_auc(codes[:cut], labels, codes[cut:], truth, attribute.name)
            figures["few"] = None if draws is None else float(np.median(draws))
            quartiles = None if draws is None else np.quantile(draws, (0.25, 0.75)).tolist()
            figures["few_range"] = quartiles
        report[attribute.name] = figures
    return report


@torch.inference_mode()
def scored_codes(
    generator: Generator, scorer: Scorer, n: int, seed: int
) -> tuple[np.ndarray, Tensor]:
    """Draw random samples, and score them.

    Args:
        generator: with Z and W.
        scorer: of its pictures, on the same device.
        n: number of samples.
        seed: of their z.

    Returns:
        w (n, w_dim) and the scorer's logits (n, width), on the host.
    """
    codes = []
    logits = []
    device = device_of(generator)
    # In blocks, since thousands of decoded pictures would not fit into memory.
    for start in range(0, n, BATCH):
        z = normals(seed, "separability/z", start, min(start + BATCH, n), generator.z_dim)
        w = generator.map(torch.from_numpy(z).float().to(device))
        logits.append(scorer(generator.decode(Codes(Space.W, w))).cpu())
        codes.append(w.cpu())
    return torch.cat(codes).numpy(), torch.cat(logits)


def watch(scorer: Scorer, n: int = 6000) -> Callable[[Generator], dict[str, dict[str, float]]]:
    """Make a function that measures a generator at a checkpoint, for the log of its training.

    Args:
        scorer: gives the labels for fitting and testing.
        n: number of random samples.

    Returns:
        A function of a generator that gives the linear AUC in W, and the class shares.
    """

    def look(generator: Generator) -> dict[str, dict[str, float]]:
        codes, logits = scored_codes(generator, scorer, n, WATCH_SEED)
        found = separability(codes, logits, logits, scorer.attributes, few=False)
        auc = {name: round(figures["linear"] or 0.5, 3) for name, figures in found.items()}
        return {
            "auc": auc,
            "share": {name: round(figures["share"], 3) for name, figures in found.items()},
        }

    return look


def path_lengths(generator: Generator, n: int, seed: int) -> np.ndarray:
    """Path length in W of random pictures: how far a unit step changes the picture.

    It is the norm of the gradient, in w, of the picture times unit noise (Karras et al. 2020, eq.
    4), comparable between networks of one resolution.

    Args:
        generator: with Z and W.
        n: pictures.
        seed: of z and noise.

    Returns:
        (n,) lengths.
    """
    lengths = []
    device = device_of(generator)
    for start in range(0, n, BATCH):
        stop = min(start + BATCH, n)
        z = torch.from_numpy(normals(seed, "path/z", start, stop, generator.z_dim)).float()
        w = generator.map(z.to(device)).detach().requires_grad_(True)
        image = generator.decode(Codes(Space.W, w))
        drawn = normals(seed, "path/noise", start, stop, image[0].numel())
        noise = torch.from_numpy(drawn).float().to(device).view_as(image)
        # As in training, so that lengths at different resolutions have one scale.
        size = (image.shape[2] * image.shape[3]) ** 0.5
        (gradient,) = torch.autograd.grad((image * noise).sum() / size, w)
        lengths.append(gradient.norm(dim=1).cpu())
    return torch.cat(lengths).numpy()
