"""How long a training step of the embedded world takes, operation by operation and captured as CUDA graphs.

    python benchmarks/gan_step.py                                  # on a GPU
    python benchmarks/gan_step.py --device cpu --batch 16 --steps 2    # operation by operation alone

A step includes the drawing of its renders and latents. Steps with every kind of regularisation are timed, after as many
that are not: they make the optimisers' moments and capture the graphs.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from editbench.base.compute_options import is_gpu
from editbench.networks.stylegan2.network import StyleGAN2Config
from editbench.worlds.faces import RESOLUTION, load_scorer
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.faces.training import CHANNELS
from editbench.worlds.steering import ShareSteering
from editbench.worlds.train_gan import GANTrainer, GANTraining


def trainer(device: str, batch: int, width: int, capture: bool) -> GANTrainer:
    """A new training of the world with all its terms."""
    law = FactorLaw()
    options = GANTraining(
        batch=batch, discriminator_width=width, linearity=0.3, steer_from_kimg=0, steer=True
    )
    witness = load_scorer("witness", device=device)
    steering = ShareSteering(witness.attributes, sample_factors(law, 0, 0, 5000).labels())

    def reals(first: int, last: int) -> Tensor:
        return render(sample_factors(law, 0, first, last).to(device), RESOLUTION)

    config = StyleGAN2Config(RESOLUTION, CHANNELS, z_dim=128, w_dim=128, mapping_layers=8)
    return GANTrainer(config, options, reals, device, steering, witness=witness, capture=capture)


def milliseconds(training: GANTrainer, steps: int) -> float:
    """Mean of a step, after as many that are not timed; every step reads its losses."""
    for _ in range(steps):
        training.train_step()
    began = time.perf_counter()
    for _ in range(steps):
        training.train_step()
    return 1000 * (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--discriminator-width", type=int, default=2)
    parser.add_argument("--steps", type=int, default=48, help="timed, a multiple of 16")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {args.device}, batch {args.batch}")
    spent = {}
    for capture in (False, True) if is_gpu(args.device) else (False,):
        training = trainer(args.device, args.batch, args.discriminator_width, capture)
        spent[capture] = milliseconds(training, args.steps)
        name = "captured as CUDA graphs" if capture else "operation by operation"
        print(f"{name:<24} {spent[capture]:8.1f} ms a step")
    if len(spent) > 1:
        print(f"{'ratio':<24} {spent[False] / spent[True]:8.2f}")


if __name__ == "__main__":
    main()
