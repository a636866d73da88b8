"""Computes what experiments of the papers' sizes cost: operations, hours and storage.

Nothing is run at these sizes. PyTorch's FLOP counter counts the operations while the networks run
on the meta device, where tensors have shapes but no data. The work is that of Chen et al. 2022: a
bank of 500,000 samples, and walks from 3,000 starts for each method. A bank of 50 million samples
is added. The generator is StyleGAN2 config-f at 1024 x 1024; teacher and judge are four CelebA-HQ
classifiers each.

The first lines give the operations of one image in GFLOP (a multiplication and an addition count as
two), and the largest memory of activations while a batch of 8 is decoded. The columns of the table
are: images that are decoded; operations, PFLOP; storage of codes and logits, GB; and for each rate
of --tflops the hours that the operations take. Give the rate that your device sustains on such
networks, as benchmarks/synthesis.py measures it. A run takes some seconds.

    python benchmarks/scale.py
    python benchmarks/scale.py --tflops 0.14 --methods 5 --steps 50

The table of docs/scale.md comes from this script.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from editbench.networks.celebahq.network import CelebAHQClassifier, ClassifierConfig
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config

RESOLUTION = 1024  # pixels
CLASSIFIERS = 4  # one per attribute
ROLES = 2  # teacher and judge
STARTS = 3000  # of each method, over all attributes
BANK = 500_000  # samples
LARGE_BANK = 50_000_000  # samples
FLOAT = 4  # bytes
BATCH = 8  # images, for the memory of activations


def count_operations(network: nn.Module, *inputs: Tensor) -> float:
    """Count the floating-point operations of one call of a network on the meta device."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return float(counter.get_total_flops())


def largest_activations(config: StyleGAN2Config, batch: int) -> float:
    """Compute the memory of the input and the output of the largest layer.

    Args:
        config: of the generator.
        batch: images that are decoded together.

    Returns:
        Bytes.
    """
    sizes = [4 << k for k in range(len(config.channels))]
    largest = max(width * size**2 for width, size in zip(config.channels, sizes))
    return 2.0 * FLOAT * batch * largest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tflops",
        type=float,
        nargs="+",
        default=[0.1, 10.0, 100.0],
        help="sustained rates, TFLOP per second (default: 0.1 10 100)",
    )
    parser.add_argument(
        "--methods", type=int, default=11, help="that walk from all starts (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=float,
        default=16.0,
        help="images that are decoded for a start, on average (default: %(default)s)",
    )
    args = parser.parse_args()
    config = StyleGAN2Config.config_f(RESOLUTION)
    classifier = ClassifierConfig.published()
    with torch.device("meta"):
        decode = count_operations(StyleGAN2(config), torch.empty(1, config.z_dim))
        image = torch.empty(1, 3, classifier.resolution, classifier.resolution)
        score = count_operations(CelebAHQClassifier(classifier), image)
    memory = largest_activations(config, BATCH)
    print(f"one image of {RESOLUTION}x{RESOLUTION} (config-f): decode {decode / 1e9:.0f} GFLOP")
    print(f"one classifier: {score / 1e9:.1f} GFLOP")
    print(f"largest activations of a batch of {BATCH}: {memory / 2**30:.1f} GiB")
    walk_images = STARTS * args.methods * args.steps
    scores = CLASSIFIERS * score
    # The bank contains the logits of teacher and judge. A walk needs only the judge.
    bank_operations = decode + ROLES * scores
    walk_operations = decode + scores
    # A sample of the bank is stored as z, w and the logits of teacher and judge. A walk stores a
    # code per image; it stores the images of only a few starts, which are not counted.
    bank_bytes = FLOAT * (config.z_dim + config.w_dim + ROLES * CLASSIFIERS)
    walk_bytes = FLOAT * config.w_dim
    # Name, images, operations per image, bytes per image.
    rows = [
        (f"bank of {BANK:,}", BANK, bank_operations, bank_bytes),
        (f"{STARTS} starts x {args.methods} methods", walk_images, walk_operations, walk_bytes),
        (f"bank of {LARGE_BANK:,}", LARGE_BANK, bank_operations, bank_bytes),
    ]
    rates = "".join(f"{f'h at {rate:g} TFLOP/s':>18}" for rate in args.tflops)
    print(f"{'work':<24} {'images':>12} {'PFLOP':>10} {'GB':>8}{rates}")
    for name, images, operations, stored in rows:
        total = images * operations
        gigabytes = images * stored / 1e9
        hours = "".join(f"{total / (rate * 1e12) / 3600:>18,.1f}" for rate in args.tflops)
        print(f"{name:<24} {images:>12,.0f} {total / 1e15:>10,.1f} {gigabytes:>8,.1f}{hours}")


if __name__ == "__main__":
    main()
