"""Seconds a picture of `experiment=ffhq`: StyleGAN2 config-f at 1024 x 1024 and CelebA-HQ classifiers at 256 x 256.

Random weights: time does not depend on them. Printed are the medians of decoding, of the four classifiers, and of all
40 on the same pictures, in CPU seconds, or in seconds of the GPU; then what the pictures of a budget would take. A walk
stops at its crossing, so that its pictures are an upper bound; searches of GANSpace and StyleSpace come on top.

    python benchmarks/ffhq_cost.py [--device cpu] [--batch 2] [--rounds 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from editbench.base.conf import CONF, read_yaml
from editbench.networks.celebahq.network import (
    CelebAHQClassifier,
    CelebAHQClassifiers,
    ClassifierConfig,
    average_blocks,
)
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.run.compose import compose_settings

GENERATOR = StyleGAN2Config.config_f(1024)
CLASSIFIER = ClassifierConfig.published()
WORDS = ["experiment=ffhq"]


def seconds(function: Callable[[], object], device: str, rounds: int) -> float:
    """Median time of a call: of the processor, or of the clock where a GPU works."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for _ in range(rounds + 1):
        began = clock()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(clock() - began)
    # The first call also allocates.
    return statistics.median(times[1:])


def pictures(budget: str) -> tuple[int, int]:
    """Pictures of the bank, and at most of all walks, of a budget."""
    settings = compose_settings([*WORDS, f"budget={budget}"])
    swept = read_yaml(CONF / "experiment" / "ffhq.yaml")["hydra"]["sweeper"]["params"]
    # Starts are dealt evenly to the attributes, so that each method walks all of them once.
    walks = len(swept["method"].split(",")) * settings.starts.n * settings.engine.max_steps
    return settings.bank.spec.n, walks


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    generator = StyleGAN2(GENERATOR).eval().to(args.device)
    four = CelebAHQClassifiers([CelebAHQClassifier(CLASSIFIER) for _ in range(4)]).to(args.device)
    w = torch.randn(args.batch, GENERATOR.w_dim, device=args.device)
    rows = w[:, None].expand(-1, GENERATOR.num_ws, -1)

    def decode() -> torch.Tensor:
        return generator.synthesis(generator.synthesis.styles(rows))

    images = decode()

    def judge() -> torch.Tensor:
        return four(average_blocks(images, four.resolution))

    def judge_forty() -> None:
        small = average_blocks(images, four.resolution)
        for _ in range(10):
            four(small)

    decoded = seconds(decode, args.device, args.rounds)
    scored = seconds(judge, args.device, args.rounds)
    forty = seconds(judge_forty, args.device, args.rounds)
    print(f"{args.device}, batch {args.batch}, float32, seconds a picture")
    print(f"  decode 1024 x 1024      {decoded / args.batch:8.4f}")
    print(f"  four classifiers        {scored / args.batch:8.4f}")
    print(f"  forty classifiers       {forty / args.batch:8.4f}")
    each = (decoded + scored) / args.batch
    for budget in ("demo", "paper"):
        bank, walks = pictures(budget)
        hours = (bank + walks) * each / 3600
        print(f"  budget={budget}: bank {bank:,}, walks at most {walks:,}: {hours:,.1f} h")


if __name__ == "__main__":
    main()
