"""GradCtrl's direction and mask: batched in closed form, against autograd sample by sample.

The straightforward way, as the published code goes: for each sample one pass forward through all
heads and one back for the target and for each excluded attribute, and an argsort for each mask.
Both give the same directions. Times are CPU seconds of one thread.

The batched way computes a mask once for all samples whose hidden units have the same signs. How
many share them depends on the heads and the codes, so both are made as they are in a benchmark:
codes whose principal components have the variances of StyleGAN2-FFHQ's W, and heads that are
trained on 30 extreme examples a class. `--heads random` shows the worst case.

    python benchmarks/gradctrl.py [--heads trained] [--samples 3000] [--slow 100]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from editbench.base.memory import keep_freed_memory
from editbench.methods.gradctrl.exclusion import excluded_channels
from editbench.methods.gradctrl.latent_classifier import (
    SLOPE,
    Examples,
    LatentClassifier,
    train,
)
from editbench.walk.editor import FFHQ_W_SPREAD, unit_rows

NAMES = ("gender", "smile", "eyeglasses", "age")
DIM = 512
HIDDEN = 16
EXCLUDED = 100
EXAMPLES = 30  # of each class
POOL = 20 * 2 * EXAMPLES  # that they are the extremes of; as many stop the training
# Share of the variance of W in its k-th principal component, on published codes of StyleGAN2-FFHQ.
COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
SHARES = (0.0993, 0.0872, 0.0724, 0.0487, 0.0131, 0.0049, 0.0024)


def codes_like_w(count: int, seed: int) -> torch.Tensor:
    """Codes (count, DIM) whose principal components have the variances of W's."""
    places = np.arange(1, COMPONENTS[-1] + 1)
    shares = np.exp(np.interp(np.log(places), np.log(COMPONENTS), np.log(SHARES)))
    deviations = FFHQ_W_SPREAD * torch.from_numpy(np.sqrt(shares / shares.sum())).float()
    fixed = torch.Generator().manual_seed(5)
    axes = torch.linalg.qr(torch.randn(DIM, len(places), generator=fixed))[0]
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, len(places), generator=rng) * deviations @ axes.T


def random_heads() -> LatentClassifier:
    rng = torch.Generator().manual_seed(0)
    heads = {}
    for name in NAMES:
        weight1 = torch.randn(HIDDEN, DIM, generator=rng) / DIM**0.5
        weight2 = torch.randn(1, HIDDEN, generator=rng)
        heads[name] = (weight1, torch.zeros(HIDDEN), weight2, torch.zeros(1))
    return LatentClassifier(heads)


def trained_heads() -> LatentClassifier:
    """Heads of attributes that are linear in the code, each along a random direction."""
    normals = torch.randn(len(NAMES), DIM, generator=torch.Generator().manual_seed(2))
    pool = codes_like_w(POOL, seed=3)
    order = (pool @ normals.T).argsort(0).T  # (attributes, POOL)
    extremes = torch.cat([order[:, :EXAMPLES], order[:, -EXAMPLES:]], 1)
    classes = torch.arange(2).repeat_interleave(EXAMPLES).expand(len(NAMES), -1)
    tune = codes_like_w(POOL, seed=4)
    labels = (tune @ normals.T > 0).long().T
    training = Examples(pool[extremes], classes, torch.ones(classes.shape))
    validation = Examples(tune.expand(len(NAMES), -1, -1), labels, torch.ones(labels.shape))
    return train(NAMES, [1] * len(NAMES), training, validation, seed=0)[0]


def batched(heads: LatentClassifier, w: torch.Tensor) -> torch.Tensor:
    logits, slopes = heads.forward(w)
    gradient = heads.pull_back(slopes, NAMES[0], torch.ones(len(w), 1, dtype=logits.dtype))
    mask = excluded_channels(heads, logits, slopes, dict.fromkeys(NAMES[1:], EXCLUDED))
    return unit_rows(gradient * ~mask)


class Heads(torch.nn.Module):
    """The same heads as modules that give probabilities, one input for each."""

    def __init__(self, heads: LatentClassifier) -> None:
        super().__init__()
        self.classifiers = torch.nn.ModuleList()
        for weight1, bias1, weight2, bias2 in heads.heads.values():
            first = torch.nn.Linear(DIM, HIDDEN)
            second = torch.nn.Linear(HIDDEN, 1)
            for layer, weight, bias in ((first, weight1, bias1), (second, weight2, bias2)):
                layer.weight.data = weight.float()
                layer.bias.data = bias.float()
            self.classifiers.append(
                torch.nn.Sequential(first, torch.nn.LeakyReLU(0.1), second, torch.nn.Sigmoid())
            )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [classifier(x) for classifier in self.classifiers]


def one_by_one(model: Heads, w: torch.Tensor) -> torch.Tensor:
    def gradient(row: torch.Tensor, head: int) -> torch.Tensor:
        x = row[None].clone().requires_grad_()
        return torch.autograd.grad(model(x)[head].sum(), x)[0][0]

    out = []
    for row in w:
        direction = gradient(row, 0)
        for head in range(1, len(NAMES)):
            saliency = gradient(row, head).abs().numpy()
            direction[torch.from_numpy(np.argsort(saliency)[::-1][:EXCLUDED].copy())] = 0.0
        out.append(direction / direction.norm())
    return torch.stack(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--samples", type=int, default=3000, help="starts of the paper's crossing test"
    )
    parser.add_argument(
        "--slow", type=int, default=100, help="samples that the slow way is timed on"
    )
    parser.add_argument("--heads", choices=("trained", "random"), default="trained")
    args = parser.parse_args()
    # As the command does.
    keep_freed_memory()
    torch.set_num_threads(1)
    heads = trained_heads() if args.heads == "trained" else random_heads()
    w = codes_like_w(args.samples, seed=1)
    signs = heads.forward(w)[1] > SLOPE
    patterns = [len(signs[:, k].unique(dim=0)) for k in range(len(NAMES))]
    print(f"patterns of signs among {args.samples} codes: {patterns}")
    model = Heads(heads)
    # Untimed, to warm up and to compare.
    fast = batched(heads, w)
    slow = one_by_one(model, w[: args.slow])
    # In turn, so that both ways see the machine in the same state.
    ratios = []
    for _ in range(11):
        began = time.process_time()
        one_by_one(model, w[: args.slow])
        middle = time.process_time()
        batched(heads, w)
        per_slow = (middle - began) / args.slow
        per_fast = (time.process_time() - middle) / args.samples
        ratios.append(per_slow / per_fast)
    # In single precision the k-th largest saliency is sometimes a tie.
    same = (fast[: args.slow] - slow).abs().amax(1) < 1e-5
    print(
        f"one by one {per_slow * 1e3:.2f} ms a sample, batched {per_fast * 1e3:.4f} ms a sample; "
        f"same direction for {same.double().mean():.3f} of the samples"
    )
    print(f"ratio {statistics.median(ratios):.0f}x ({min(ratios):.0f} to {max(ratios):.0f})")


if __name__ == "__main__":
    main()
