"""What the settings of the curvature dial are: how straight the judge's attributes lie in W.

For each setting, of random samples of the world's generator:

- AUC of a linear and of a nonlinear classifier (one hidden layer), which learn the judge's labels
  from two thirds of the codes and order the others;
- the cosine between the gradients of a logit, in W, at a code and after three steps of a walk along
  the first one; and at two codes of different samples. A straight W has 1;
- the spread of W, which scales the step of every method.

And once, of the components of W that the dial leaves as they are: their share of its variance, and
what a linear classifier reads from them alone.

    python benchmarks/curvature.py [--samples 9000] [--gradients 200]
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

ATTRIBUTES = ("smile", "eyeglasses", "beard", "long_hair", "age")
SEED = 5_006
STEPS = 3
STEP = 0.6  # of the paper's units, as all methods of W have


def nonlinear_auc(
    fit: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray
) -> float:
    """AUC of a network with one hidden layer; the arguments are those of `fitted_auc`."""
    # One scale for all coordinates, so that the small components stay small.
    scale = fit.std(0).mean()
    model = MLPClassifier((256,), alpha=1e-3, early_stopping=True, max_iter=60, random_state=0)
    model.fit(fit / scale, labels)
    return float(roc_auc_score(truth, model.predict_proba(test / scale)[:, 1]))


def gradients(generator: Generator, judge: Scorer, w: Tensor, name: str) -> Tensor:
    """Unit gradients (n, w_dim) of an attribute's logit in W."""
    parts = []
    for part in w.split(100):
        part = part.clone().requires_grad_(True)
        logit = judge.attributes.logits(judge(generator.decode(Codes(Space.W, part))), name)
        (gradient,) = torch.autograd.grad(logit[:, 0].sum(), part)
        parts.append(gradient)
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)


def left_alone(codes: np.ndarray, labels: dict[str, np.ndarray], cut: int) -> str:
    """What lies in the components that no setting turns.

    Args:
        codes: (n, w_dim) of the plain W.
        labels: attribute -> (n,) 0 or 1.
        cut: codes that a classifier learns from; the others are ordered.
    """
    twist = load_curved(0.0).twist
    centred = torch.from_numpy(codes) - twist.mean
    rest = (centred - centred @ twist.into @ twist.back).numpy()
    share = (rest**2).sum() / (centred.numpy() ** 2).sum()
    # In units of one scale, as small numbers would be held back by the classifier's penalty.
    rest = rest / rest.std(0).mean()
    found = []
    for name, values in labels.items():
        auc = fitted_auc(rest[:cut], values[:cut], rest[cut:], values[cut:])
        found.append(f"{name} {auc:.3f}")
    return f"not turned: {share:.3f} of the variance, AUC linear {', '.join(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=9000)
    parser.add_argument("--gradients", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    judge = load_scorer("judge").requires_grad_(False)
    # The pictures, and with them the labels, are the same at every setting.
    straight, logits = scored_codes(load_generator(), judge, args.samples, SEED)
    cut = 2 * args.samples // 3
    labels = {}
    for name in ATTRIBUTES:
        logit = judge.attributes.logits(logits, name)[:, 0]
        labels[name] = (logit > 0).int().numpy()
    print(left_alone(straight, labels, cut), flush=True)
    for curvature in CURVATURES:
        generator = load_curved(curvature)
        codes = generator.twist(torch.from_numpy(straight)).numpy()
        spread = float(np.sqrt(codes.var(0).sum()))
        print(f"curvature {curvature}, spread {spread:.3f}", flush=True)
        start = torch.from_numpy(codes[: args.gradients])
        for name in ATTRIBUTES:
            parts = (codes[:cut], labels[name][:cut], codes[cut:], labels[name][cut:])
            first = gradients(generator, judge, start, name)
            length = STEPS * STEP * spread / FFHQ_W_SPREAD
            later = gradients(generator, judge, start + length * first, name)
            walked = (first * later).sum(1).mean()
            others = (first * first.roll(1, 0)).sum(1).mean()
            print(
                f"  {name:<11} AUC linear {fitted_auc(*parts):.3f}, "
                f"nonlinear {nonlinear_auc(*parts):.3f}; cosine of gradients after {STEPS} steps "
                f"{walked:.2f}, of two samples {others:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
