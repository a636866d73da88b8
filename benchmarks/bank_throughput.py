"""Measures how much slower it is to build a bank than to run its networks alone.

Two implementations process the same number of samples, in the same blocks, in one process:

    bank    `build_bank` of editbench: draws the noise of each sample from its index, runs the
            networks, checks for NaN, writes shards with checksums and opens the finished bank.
    bare    a loop that maps, decodes and scores random latents and discards the results. It runs
            once with the judge alone, and once with the teacher and the judge. The bank scores
            with both, so the second loop does the same work of networks as the bank.

The output has one row per round with the rates in samples per second of wall time. The last two
lines give, for each bare loop, the rate of the bank as a share of the rate of the loop: the median
over the rounds, and the smallest and the largest share. A share of 1 means that the bank costs
nothing beyond its networks.

    python benchmarks/bank_throughput.py    # about 4 CPU minutes
    python benchmarks/bank_throughput.py --samples 640 --rounds 1     # the smallest useful run

The result shows what shards, checksums and noise per index cost (editbench/bank/build.py).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from editbench.bank.build import build_bank
from editbench.bank.spec import BankSpec
from editbench.base.spaces import Codes, Space
from editbench.networks.roles import Networks
from editbench.run.compose import compose_settings
from editbench.run.loading import load_networks

BLOCKS_PER_SHARD = 50  # small shards: a bank of the default size has four of them
WARM_UP_BLOCKS = 10  # batches that run before the first measurement


def time_bare_networks(networks: Networks, samples: int, block: int, teacher: bool) -> float:
    """Measure the networks alone.

    Args:
        networks: to be run on the CPU.
        samples: number of random latents that are decoded and scored.
        block: samples in a batch.
        teacher: whether the teacher scores the images too, and not only the judge.

    Returns:
        Seconds of wall time.
    """
    began = time.perf_counter()
    # Without inference mode, the loop would also record operations for gradients.
    with torch.inference_mode():
        for _ in range(0, samples, block):
            w = networks.generator.map(torch.randn(block, networks.generator.z_dim))
            image = networks.generator.decode(Codes(Space.W, w))
            networks.judge(image)
            if teacher:
                networks.teacher(image)
    return time.perf_counter() - began


def time_bank(networks: Networks, samples: int, block: int) -> float:
    """Measure a whole bank, including its checksums and its opening.

    Args:
        networks: that compute the bank.
        samples: size of the bank.
        block: samples in a batch.

    Returns:
        Seconds of wall time.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec = BankSpec(samples, block=block, shard=block * BLOCKS_PER_SHARD)
        began = time.perf_counter()
        build_bank(
            Path(folder) / "bank",
            "benchmark",
            spec,
            # The networks are loaded already, so loading them is not measured.
            lambda: networks,
        )
        return time.perf_counter() - began


def print_share(name: str, shares: list[float]) -> None:
    """Print the rate of the bank as a share of the rate of a bare loop, over all rounds."""
    median = statistics.median(shares)
    print(f"bank / {name}: {median:.3f} ({min(shares):.3f} to {max(shares):.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=12800,
        help="samples of the bank and of each loop (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="repetitions of all three measurements, in turn (default: %(default)s)",
    )
    args = parser.parse_args()
    networks = load_networks(compose_settings([]))
    block = compose_settings([]).bank.spec.block
    # The first calls of the networks are slower. They are not measured.
    time_bare_networks(networks, WARM_UP_BLOCKS * block, block, True)
    shares_of_judge: list[float] = []
    shares_of_all: list[float] = []
    print("samples per second of wall time")
    print(f"{'round':>5} {'bank':>10} {'generator+judge':>16} {'generator+teacher+judge':>24}")
    # The three alternate, so that changes of the machine's speed affect all.
    for number in range(args.rounds):
        bank_seconds = time_bank(networks, args.samples, block)
        judge_seconds = time_bare_networks(networks, args.samples, block, False)
        all_seconds = time_bare_networks(networks, args.samples, block, True)
        shares_of_judge.append(judge_seconds / bank_seconds)
        shares_of_all.append(all_seconds / bank_seconds)
        print(
            f"{number:5} {args.samples / bank_seconds:10.0f} "
            f"{args.samples / judge_seconds:16.0f} {args.samples / all_seconds:24.0f}",
            flush=True,
        )
    print("rate of the bank / rate of the bare networks: median (smallest to largest)")
    print_share("generator+teacher+judge", shares_of_all)
    print_share("generator+judge", shares_of_judge)


if __name__ == "__main__":
    main()
