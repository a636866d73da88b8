"""GradCtrl's direction and mask: batched in closed form, against autograd sample by sample.

The straightforward way, as the published code goes: for each sample one pass forward through all
heads and one back for the target and for each excluded attribute, and an argsort for each mask.
Both give the same directions. Times are CPU seconds of one thread.

    python benchmarks/gradctrl.py [--samples 3000] [--slow 100]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from editbench.base.memory import keep_freed_memory
from editbench.methods.gradctrl.exclusion import excluded_channels
from editbench.methods.gradctrl.latent_classifier import LatentClassifier
from editbench.walk.editor import unit_rows

NAMES = ("gender", "smile", "eyeglasses", "age")
DIM = 512
HIDDEN = 16
EXCLUDED = 100


def classifier() -> LatentClassifier:
    # Random heads: the time does not depend on what they have learned.
    rng = torch.Generator().manual_seed(0)
    heads = {}
    for name in NAMES:
        weight1 = torch.randn(HIDDEN, DIM, generator=rng) / DIM**0.5
        weight2 = torch.randn(1, HIDDEN, generator=rng)
        heads[name] = (weight1, torch.zeros(HIDDEN), weight2, torch.zeros(1))
    return LatentClassifier(heads)


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
    args = parser.parse_args()
    # As the command does.
    keep_freed_memory()
    torch.set_num_threads(1)
    heads = classifier()
    w = torch.randn(args.samples, DIM, generator=torch.Generator().manual_seed(1))
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
