"""Bank throughput against the bare networks, in one run.

The bare loop maps, decodes and scores blocks of normal noise and throws the results away; the bank also draws per-index
noise, checks for NaN, writes shards and checksums. Rounds alternate and the median ratio is printed.

    python benchmarks/bank_throughput.py [--samples 12800] [--rounds 5]
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
from editbench.run.compose import compose_settings
from editbench.run.loading import load_networks


def bare(networks, samples: int, block: int, teacher: bool) -> float:  # type: ignore[no-untyped-def]
    """Seconds of the networks alone."""
    began = time.perf_counter()
    with torch.inference_mode():
        for _ in range(0, samples, block):
            w = networks.generator.map(torch.randn(block, networks.generator.z_dim))
            image = networks.generator.decode(Codes(Space.W, w))
            networks.judge(image)
            if teacher:
                networks.teacher(image)
    return time.perf_counter() - began


def bank(networks, samples: int, block: int) -> float:  # type: ignore[no-untyped-def]
    """Seconds of a whole bank, checksums and opening included."""
    with tempfile.TemporaryDirectory() as folder:
        spec = BankSpec(samples, block=block, shard=block * 50)
        began = time.perf_counter()
        build_bank(
            Path(folder) / "bank",
            "benchmark",
            spec,
            lambda: (networks.generator, networks.teacher, networks.judge),
        )
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=12800)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    networks = load_networks(compose_settings([]))
    block = compose_settings([]).bank.spec.block
    bare(networks, 10 * block, block, True)
    both, all_three = [], []
    for round_ in range(args.rounds):
        times = {
            "bank": bank(networks, args.samples, block),
            "generator+judge": bare(networks, args.samples, block, False),
            "generator+teacher+judge": bare(networks, args.samples, block, True),
        }
        both.append(times["generator+judge"] / times["bank"])
        all_three.append(times["generator+teacher+judge"] / times["bank"])
        print(
            f"round {round_}: "
            + ", ".join(f"{name} {args.samples / s:.0f}/s" for name, s in times.items())
        )
    print(
        f"bank over bare generator+teacher+judge: {statistics.median(all_three):.3f} "
        f"({min(all_three):.3f} to {max(all_three):.3f})"
    )
    print(
        f"bank over bare generator+judge: {statistics.median(both):.3f} ({min(both):.3f} to {max(both):.3f})"
    )


if __name__ == "__main__":
    main()
