"""Measures the time per image of `experiment=ffhq`, and estimates the time of its budgets from it.

The experiment decodes images of 1024 x 1024 pixels with StyleGAN2 config-f and scores them with the
CelebA-HQ classifiers at 256 x 256 pixels. This script uses random weights, because the time does
not depend on the weights, and float32. It measures three steps and prints the median of each, in
seconds per image: CPU time on the CPU, wall time on a GPU.

    decode              the generator, from w to the image
    four classifiers    the image made smaller, and four classifiers
    forty classifiers   the same with forty classifiers

The second table gives, for each budget, the number of images of the bank, the largest number of
images of all walks, and the hours for both, at the time of decoding and four classifiers. The
number for the walks is an upper bound, because a walk stops when it crosses the boundary. The
searches of GANSpace and StyleSpace are not included.

    python benchmarks/ffhq_cost.py                                # about 2.4 CPU minutes
    python benchmarks/ffhq_cost.py --batch 1 --rounds 1           # the smallest run
    python benchmarks/ffhq_cost.py --device cuda --batch 16

The tables of docs/ffhq.md come from this script.
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

GENERATOR = StyleGAN2Config.config_f(1024)  # of the published FFHQ generator, 1024 x 1024 pixels
CLASSIFIER = ClassifierConfig.published()  # images of 256 x 256 pixels
CLASSIFIERS = 4  # one per attribute of the experiment
# Four classifiers run this many times, instead of forty that would need more memory.
REPEATS_FOR_FORTY = 10
EXPERIMENT = "experiment=ffhq"


def median_seconds(function: Callable[[], object], device: str, rounds: int) -> float:
    """Measure a function several times.

    Args:
        function: to be called.
        device: 'cpu' measures CPU time; a GPU measures wall time.
        rounds: number of measured calls, after one call that is not measured.

    Returns:
        Median time of a call, seconds.
    """
    # CPU time does not grow with other work on the machine, but it does not contain that of a GPU.
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for _ in range(rounds + 1):
        began = clock()
        function()
        # A call returns before the GPU has finished.
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(clock() - began)
    # The first call also allocates memory.
    return statistics.median(times[1:])


def count_images(budget: str) -> tuple[int, int]:
    """Count the images that a budget of the experiment decodes.

    Args:
        budget: 'demo' or 'paper'.

    Returns:
        Images of the bank, and the largest number of images of all walks together.
    """
    settings = compose_settings([EXPERIMENT, f"budget={budget}"])
    swept = read_yaml(CONF / "experiment" / "ffhq.yaml")["hydra"]["sweeper"]["params"]
    methods = len(swept["method"].split(","))
    # The starts are divided among the attributes, so each method walks every start once.
    walks = methods * settings.starts.n * settings.engine.max_steps
    return settings.bank.spec.n, walks


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="images (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="measured calls of a step (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    generator = StyleGAN2(GENERATOR).eval().to(args.device)
    networks = [CelebAHQClassifier(CLASSIFIER) for _ in range(CLASSIFIERS)]
    classifiers = CelebAHQClassifiers(networks).to(args.device)
    w = torch.randn(args.batch, GENERATOR.w_dim, device=args.device)
    w_plus = w[:, None].expand(-1, GENERATOR.num_ws, -1)

    def decode() -> torch.Tensor:
        return generator.synthesis(generator.synthesis.styles(w_plus))

    images = decode()

    def score() -> None:
        classifiers(average_blocks(images, classifiers.resolution))

    def score_with_forty() -> None:
        small = average_blocks(images, classifiers.resolution)
        for _ in range(REPEATS_FOR_FORTY):
            classifiers(small)

    decoded = median_seconds(decode, args.device, args.rounds) / args.batch
    scored = median_seconds(score, args.device, args.rounds) / args.batch
    scored_forty = median_seconds(score_with_forty, args.device, args.rounds) / args.batch
    kind = "CPU seconds" if args.device == "cpu" else "seconds of wall time"
    print(f"{args.device}, batches of {args.batch}, float32")
    print(f"{'step':<20} {kind} per image")
    print(f"{'decode':<20} {decoded:.4f}")
    print(f"{'four classifiers':<20} {scored:.4f}")
    print(f"{'forty classifiers':<20} {scored_forty:.4f}")
    print(f"\n{'budget':<8} {'bank, images':>13} {'walks, images at most':>22} {'hours':>10}")
    for budget in ("demo", "paper"):
        bank, walks = count_images(budget)
        hours = (bank + walks) * (decoded + scored) / 3600
        print(f"{budget:<8} {bank:13,} {walks:22,} {hours:10,.1f}")


if __name__ == "__main__":
    main()
