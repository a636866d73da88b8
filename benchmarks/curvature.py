"""Measures how linear the judge's attributes are in W, at each setting of the curvature dial.

The curvature dial (docs/curvature_dial.md) maps the W of the embedded world to a curved W. Every
latent gives the same image at every setting, so the labels are the same, too. For each setting and
attribute the script prints:

    AUC linear      AUC of a logistic regression that predicts the judge's label from the code. It
                    is trained on two thirds of the codes and tested on the others.
    AUC nonlinear   the same for a network with one hidden layer of 256 units
    cosine walked   mean cosine between the gradient of the logit at a code, and the gradient after
                    three steps along it. It is 1 if W is not curved.
    cosine others   mean cosine between the gradients at the codes of two different samples. It is 1
                    if the logit is linear in W.

The columns are without a unit. The line above the rows of a setting gives kappa (the option
generator.curvature, in radians) and the spread of W (root-mean-square distance of the codes from
their mean), which scales the step of every method. The first line of the output is about the
principal components of W that no setting rotates: their share of the variance, and the AUC of a
logistic regression that sees only them.

    python benchmarks/curvature.py    # about 50 CPU seconds
    python benchmarks/curvature.py --samples 300 --gradients 10       # a short run

The tables of docs/curvature_dial.md come from this script, at its default sizes.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.walk.editor import FFHQ_W_SPREAD
from editbench.worlds.faces import load_generator, load_scorer
from editbench.worlds.faces.dial import CURVATURES, load_curved
from editbench.worlds.separability import fitted_auc, scored_codes

# Binary attributes of the embedded world.
ATTRIBUTES = ("smile", "eyeglasses", "beard", "long_hair", "age")
SEED = 5_006  # of the codes; the same as that of editbench.worlds.separability
STEPS = 3  # of the walk between the two gradients
STEP = 0.6  # length in units of StyleGAN2-FFHQ's W, the step of all methods that walk in W
BATCH = 100  # codes that are differentiated together


def nonlinear_auc(
    fit: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray
) -> float:
    """AUC of a network with one hidden layer.

    Args:
        fit: (N, D) codes that it learns from.
        labels: (N,) 0 or 1, of `fit`.
        test: (M, D) codes that it ranks.
        truth: (M,) 0 or 1, of `test`.
    """
    # All coordinates have the same scale, so that the small components stay small.
    scale = fit.std(0).mean()
    model = MLPClassifier((256,), alpha=1e-3, early_stopping=True, max_iter=60, random_state=0)
    model.fit(fit / scale, labels)
    return float(roc_auc_score(truth, model.predict_proba(test / scale)[:, 1]))


def logit_gradients(generator: Generator, judge: Scorer, w: Tensor, name: str) -> Tensor:
    """Compute the gradients of an attribute's logit in W.

    Args:
        generator: decodes W.
        judge: scores the images.
        w: (n, w_dim) codes.
        name: of a binary attribute of the judge.

    Returns:
        (n, w_dim) gradients of unit length.
    """
    parts = []
    for batch in w.split(BATCH):
        codes = batch.clone().requires_grad_(True)
        logits = judge(generator.decode(Codes(Space.W, codes)))
        logit = judge.attributes.logits(logits, name)[:, 0]
        (gradient,) = torch.autograd.grad(logit.sum(), codes)
        parts.append(gradient)
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)


def print_fixed_components(codes: np.ndarray, labels: dict[str, np.ndarray], cut: int) -> None:
    """Print what the components of W contain that no setting of the dial rotates.

    Args:
        codes: (n, w_dim) codes of the plain W.
        labels: attribute -> (n,) 0 or 1.
        cut: number of codes that the classifiers learn from; they are tested on the others.
    """
    twist = load_curved(0.0).twist
    centred = torch.from_numpy(codes) - twist.mean
    rest = (centred - centred @ twist.into @ twist.back).numpy()
    share = (rest**2).sum() / (centred.numpy() ** 2).sum()
    # The penalty of the classifier would suppress small numbers, so their mean scale becomes 1.
    rest = rest / rest.std(0).mean()
    found = []
    for name, values in labels.items():
        auc = fitted_auc(rest[:cut], values[:cut], rest[cut:], values[cut:])
        found.append(f"{name} {auc:.3f}")
    print(
        f"components that are not rotated: {share:.3f} of the variance; "
        f"AUC linear: {', '.join(found)}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=9000,
        help="codes that the classifiers are trained and tested on (default: %(default)s)",
    )
    parser.add_argument(
        "--gradients",
        type=int,
        default=200,
        help="codes at which gradients are computed (default: %(default)s)",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    judge = load_scorer("judge").requires_grad_(False)
    # The images are the same at every setting, and therefore the labels are, too.
    straight, logits = scored_codes(load_generator(), judge, args.samples, SEED)
    # The classifiers are trained on the first two thirds of the codes.
    cut = 2 * args.samples // 3
    labels = {}
    for name in ATTRIBUTES:
        logit = judge.attributes.logits(logits, name)[:, 0]
        labels[name] = (logit > 0).int().numpy()
    print_fixed_components(straight, labels, cut)
    for curvature in CURVATURES:
        generator = load_curved(curvature)
        codes = generator.twist(torch.from_numpy(straight)).numpy()
        spread = float(np.sqrt(codes.var(0).sum()))
        print(f"\nkappa {curvature} radians, spread of W {spread:.3f}")
        print(
            f"{'attribute':<11} {'AUC linear':>11} {'AUC nonlinear':>14} "
            f"{'cosine walked':>14} {'cosine others':>14}",
            flush=True,
        )
        start = torch.from_numpy(codes[: args.gradients])
        # Lengths are converted to the units of this W by the ratio of the spreads.
        length = STEPS * STEP * spread / FFHQ_W_SPREAD
        for name in ATTRIBUTES:
            parts = (codes[:cut], labels[name][:cut], codes[cut:], labels[name][cut:])
            first = logit_gradients(generator, judge, start, name)
            later = logit_gradients(generator, judge, start + length * first, name)
            walked = (first * later).sum(1).mean()
            # Each sample is compared with the next one.
            others = (first * first.roll(1, 0)).sum(1).mean()
            print(
                f"{name:<11} {fitted_auc(*parts):11.3f} {nonlinear_auc(*parts):14.3f} "
                f"{walked:14.2f} {others:14.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
