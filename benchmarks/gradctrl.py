"""Measures the CPU time of GradCtrl's directions and masks, against autograd for each sample.

Both implementations compute the same unit directions: the gradient of the target attribute's head,
without the channels that matter most to each of the other attributes.

    one by one   (straightforward, as the published code) for each sample: a forward and a backward
                 pass for the target and for each excluded attribute, and an argsort for each mask
    batched      (ours) gradients of all samples in closed form. A mask is computed once for all
                 samples whose hidden units have the same signs.

The number of samples that share a pattern of signs depends on the heads and the codes. The script
therefore makes both as they are in a benchmark: codes whose principal components have the variances
of StyleGAN2-FFHQ's W, and heads that are trained on 30 extreme examples per class. `--heads random`
is the worst case.

The first line of the output gives the number of patterns of signs among the codes, for each head.
The table gives CPU milliseconds per sample in the last of 11 alternating rounds, in one thread. The
ratio is the time of one by one divided by that of batched: the median over the rounds, with the
smallest and the largest in brackets. The last line gives the share of the samples for which both
directions agree to 1e-5. Others have ties in single precision among the channels to exclude.

    python benchmarks/gradctrl.py    # some CPU seconds
    python benchmarks/gradctrl.py --heads random
    python benchmarks/gradctrl.py --samples 100 --slow 10     # a short run; the ratio is smaller

docs/methods.md reports the ratio. The result guards methods/gradctrl/exclusion.py.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from torch.nn import functional as F

from editbench.base.allocator import keep_freed_memory
from editbench.methods.gradctrl.exclusion import excluded_channels
from editbench.methods.gradctrl.latent_classifier import SLOPE, Examples, LatentClassifier, train
from editbench.walk.editor import FFHQ_W_SPREAD

NAMES = ("gender", "smile", "eyeglasses", "age")  # the first one is the target
DIM = 512  # channels of W
HIDDEN = 16  # hidden units of a head
EXCLUDED = 100  # channels that the mask of one attribute removes
EXAMPLES = 30  # of each class, that a head is trained on
# Codes that the examples are the extremes of. As many other codes decide when the training stops.
POOL = 20 * 2 * EXAMPLES
# Share of the variance of W in its k-th principal component, in published codes of StyleGAN2-FFHQ.
COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
SHARES = (0.0993, 0.0872, 0.0724, 0.0487, 0.0131, 0.0049, 0.0024)
ROUNDS = 11
TOLERANCE = 1e-5  # largest difference of a coordinate of two directions that agree


def codes_like_w(count: int, seed: int) -> torch.Tensor:
    """Draw codes whose principal components have the variances of StyleGAN2-FFHQ's W.

    Args:
        count: number of codes.
        seed: of the codes; the axes are always the same.

    Returns:
        (count, DIM) codes.
    """
    places = np.arange(1, COMPONENTS[-1] + 1)
    shares = np.exp(np.interp(np.log(places), np.log(COMPONENTS), np.log(SHARES)))
    deviations = FFHQ_W_SPREAD * torch.from_numpy(np.sqrt(shares / shares.sum())).float()
    fixed = torch.Generator().manual_seed(5)
    axes = torch.linalg.qr(torch.randn(DIM, len(places), generator=fixed))[0]
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, len(places), generator=rng) * deviations @ axes.T


def random_heads() -> LatentClassifier:
    """Make heads with random weights."""
    rng = torch.Generator().manual_seed(0)
    heads = {}
    for name in NAMES:
        weight1 = torch.randn(HIDDEN, DIM, generator=rng) / DIM**0.5
        weight2 = torch.randn(1, HIDDEN, generator=rng)
        heads[name] = (weight1, torch.zeros(HIDDEN), weight2, torch.zeros(1))
    return LatentClassifier(heads)


def trained_heads() -> LatentClassifier:
    """Train heads for attributes that are linear in the code, each along a random direction."""
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
    """Compute the directions as editbench does.

    Args:
        heads: of the target and the excluded attributes.
        w: (n, DIM) codes.

    Returns:
        (n, DIM) directions of unit length.
    """
    logits, slopes = heads.forward(w)
    gradient = heads.pull_back(slopes, NAMES[0], torch.ones(len(w), 1, dtype=logits.dtype))
    mask = excluded_channels(heads, logits, slopes, dict.fromkeys(NAMES[1:], EXCLUDED))
    return F.normalize(gradient * ~mask, dim=-1)


class Heads(torch.nn.Module):
    """The same heads as modules of PyTorch that return probabilities."""

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
        """Return the probabilities (n, 1) of every head for codes x (n, DIM)."""
        return [classifier(x) for classifier in self.classifiers]


def one_by_one(model: Heads, w: torch.Tensor) -> torch.Tensor:
    """Compute the directions with autograd, sample by sample.

    Args:
        model: heads of the target and the excluded attributes.
        w: (n, DIM) codes.

    Returns:
        (n, DIM) directions of unit length.
    """

    def gradient(row: torch.Tensor, head: int) -> torch.Tensor:
        x = row[None].clone().requires_grad_()
        return torch.autograd.grad(model(x)[head].sum(), x)[0][0]

    directions = []
    for row in w:
        direction = gradient(row, 0)
        for head in range(1, len(NAMES)):
            saliency = gradient(row, head).abs().numpy()
            largest = np.argsort(saliency)[::-1][:EXCLUDED].copy()
            direction[torch.from_numpy(largest)] = 0.0
        directions.append(direction / direction.norm())
    return torch.stack(directions)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=3000,
        help="codes for batched, as many as the paper has starts (default: %(default)s)",
    )
    parser.add_argument(
        "--slow",
        type=int,
        default=100,
        help="codes for one by one, the first of them (default: %(default)s)",
    )
    parser.add_argument(
        "--heads",
        choices=("trained", "random"),
        default="trained",
        help="heads of the classifiers (default: %(default)s)",
    )
    args = parser.parse_args()
    # The command sets its memory options in the same way.
    keep_freed_memory()
    torch.set_num_threads(1)
    heads = trained_heads() if args.heads == "trained" else random_heads()
    w = codes_like_w(args.samples, seed=1)
    signs = heads.forward(w)[1] > SLOPE
    patterns = [len(signs[:, k].unique(dim=0)) for k in range(len(NAMES))]
    print(f"patterns of signs among {args.samples} codes, for each head: {patterns}")
    model = Heads(heads)
    # These two calls are not measured. They warm up, and their results are compared.
    fast = batched(heads, w)
    slow = one_by_one(model, w[: args.slow])
    ratios = []
    # The two alternate, so that changes of the machine's speed affect both.
    for _ in range(ROUNDS):
        began = time.process_time()
        one_by_one(model, w[: args.slow])
        middle = time.process_time()
        batched(heads, w)
        slow_seconds = (middle - began) / args.slow
        fast_seconds = (time.process_time() - middle) / args.samples
        ratios.append(slow_seconds / fast_seconds)
    # In single precision, two channels sometimes have the same saliency at the edge of the mask.
    same = (fast[: args.slow] - slow).abs().amax(1) < TOLERANCE
    spread = f"({min(ratios):.0f} to {max(ratios):.0f})"
    print(f"{'implementation':<16}{'CPU ms per sample':>18}  ratio")
    print(f"{'one by one':<16}{slow_seconds * 1e3:18.2f}  {statistics.median(ratios):.0f} {spread}")
    print(f"{'batched':<16}{fast_seconds * 1e3:18.4f}  1")
    print(f"share of the samples with the same direction: {same.double().mean():.3f}")


if __name__ == "__main__":
    main()
