"""What the papers' sizes cost: operations, hours, memory and storage, computed and not run.

Operations are counted by torch's FLOP counter while the networks run on the meta device, where tensors have shapes and
no numbers. Hours are those operations at a rate that you name: what your device sustains on such networks, as
`benchmarks/synthesis.py` measures it. The work is that of Chen et al. 2022: a bank of 500,000 samples, 3,000 starts for
each method, and a bank of fifty million beside it.

    python benchmarks/scale.py [--tflops 0.1 10 100] [--methods 11] [--steps 16]
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from editbench.networks.celebahq.network import CelebAHQClassifier, ClassifierConfig
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config

RESOLUTION = 1024
CLASSIFIERS = 4  # one an attribute
ROLES = 2  # a teacher and a judge
STARTS = 3000  # for each method, over all attributes together
FLOAT = 4  # bytes


def operations(network: nn.Module, *inputs: Tensor) -> float:
    """Multiplications and additions of one call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return float(counter.get_total_flops())


def activations(config: StyleGAN2Config, batch: int) -> float:
    """Bytes that a decode holds at its widest: input and output of its largest layer."""
    sizes = [4 << k for k in range(len(config.channels))]
    largest = max(width * size**2 for width, size in zip(config.channels, sizes))
    return 2.0 * FLOAT * batch * largest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tflops", type=float, nargs="+", default=[0.1, 10.0, 100.0])
    parser.add_argument("--methods", type=int, default=11)
    parser.add_argument("--steps", type=float, default=16.0, help="decodes of a start, on average")
    args = parser.parse_args()
    config = StyleGAN2Config.config_f(RESOLUTION)
    with torch.device("meta"):
        decode = operations(StyleGAN2(config), torch.empty(1, config.z_dim))
        classifier = ClassifierConfig.published()
        picture = torch.empty(1, 3, classifier.resolution, classifier.resolution)
        score = operations(CelebAHQClassifier(classifier), picture)
    print(
        f"one picture of {RESOLUTION}x{RESOLUTION} (config-f): decode {decode / 1e9:.0f} GFLOP, "
        f"one classifier {score / 1e9:.1f} GFLOP; widest moment of a batch of 8: "
        f"{activations(config, 8) / 2**30:.1f} GiB"
    )
    walks = STARTS * args.methods * args.steps
    scores = CLASSIFIERS * score
    work = {
        # The bank holds the logits of both roles; a walk asks the judge alone.
        "bank of 500,000": (5e5, decode + ROLES * scores),
        f"{STARTS} starts x {args.methods} methods": (walks, decode + scores),
        "bank of 50,000,000": (5e7, decode + ROLES * scores),
    }
    # z, w and the logits of both roles.
    sample = FLOAT * (config.z_dim + config.w_dim + ROLES * CLASSIFIERS)
    rates = "".join(f"{f'h at {rate:g} T/s':>16}" for rate in args.tflops)
    print(f"{'':<48} {'pictures':>12} {'PFLOP':>10} {'GB':>8}{rates}")
    for name, (pictures, each) in work.items():
        total = pictures * each
        # A walk keeps a code for each start and step; pictures are kept of a few starts alone.
        stored = pictures * (sample if name.startswith("bank") else FLOAT * config.w_dim)
        hours = "".join(f"{total / (rate * 1e12) / 3600:>16,.1f}" for rate in args.tflops)
        print(f"{name:<48} {pictures:>12,.0f} {total / 1e15:>10,.1f} {stored / 1e9:>8,.1f}{hours}")


if __name__ == "__main__":
    main()
