"""Measures the time of a training step of the embedded world's GAN, with and without CUDA graphs.

A step draws latents and rendered faces, and updates generator and discriminator. On a GPU the
script measures two implementations; on a CPU only the first one exists:

    operation by operation    PyTorch launches the kernels one by one
    captured as CUDA graphs   the step is recorded once and then replayed (ours on a GPU)

The output gives milliseconds of wall time per step: the mean over `--steps` steps, after as many
steps that are not measured. These first steps create the moments of the optimisers and record the
graphs. A multiple of 16 steps contains every kind of regularisation step. On a GPU, the last line
is the time without CUDA graphs divided by the time with them.

    python benchmarks/gan_step.py                                      # on a GPU
    python benchmarks/gan_step.py --device cpu --batch 16 --steps 2    # on a CPU

docs/gpu.md names this script. The result guards editbench/worlds/train_gan.py.
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

FACES_OF_THE_LAW = 5000  # rendered faces whose labels give the shares that the training aims at


def make_trainer(device: str, batch: int, width: int, capture: bool) -> GANTrainer:
    """Start a training of the embedded world, with all terms of its loss.

    Args:
        device: that trains.
        batch: images in a step.
        width: factor for the channels of the discriminator.
        capture: whether the steps are captured as CUDA graphs.
    """
    law = FactorLaw()
    # All optional terms of the loss are on from the first image.
    options = GANTraining(
        batch=batch, discriminator_width=width, linearity=0.3, steer_from_kimg=0, steer=True
    )
    witness = load_scorer("witness", device=device)
    labels = sample_factors(law, 0, 0, FACES_OF_THE_LAW).labels()
    steering = ShareSteering(witness.attributes, labels)

    # The real images are rendered for each batch, as in the training of the world.
    def reals(first: int, last: int) -> Tensor:
        return render(sample_factors(law, 0, first, last).to(device), RESOLUTION)

    config = StyleGAN2Config(RESOLUTION, CHANNELS, z_dim=128, w_dim=128, mapping_layers=8)
    return GANTrainer(config, options, reals, device, steering, witness=witness, capture=capture)


def step_milliseconds(trainer: GANTrainer, steps: int) -> float:
    """Measure the mean wall time of a step, in milliseconds.

    Args:
        trainer: that has made no step yet.
        steps: number of measured steps, and before them of steps that are not measured.
    """
    for _ in range(steps):
        trainer.train_step()
    began = time.perf_counter()
    # A step reads its losses back to the host, so the clock includes the work of the GPU.
    for _ in range(steps):
        trainer.train_step()
    return 1000 * (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=256, help="images in a step (default: %(default)s)"
    )
    parser.add_argument(
        "--discriminator-width",
        type=int,
        default=2,
        help="factor for the channels of the discriminator (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=48,
        help="measured steps, a multiple of 16 on a GPU (default: %(default)s)",
    )
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {args.device}, batches of {args.batch}")
    print(f"{'implementation':<24} {'ms per step':>12}")
    # A CPU has no CUDA graphs.
    captures = (False, True) if is_gpu(args.device) else (False,)
    milliseconds = {}
    for capture in captures:
        trainer = make_trainer(args.device, args.batch, args.discriminator_width, capture)
        milliseconds[capture] = step_milliseconds(trainer, args.steps)
        name = "captured as CUDA graphs" if capture else "operation by operation"
        print(f"{name:<24} {milliseconds[capture]:12.1f}", flush=True)
    if len(milliseconds) > 1:
        print(f"{'ratio':<24} {milliseconds[False] / milliseconds[True]:12.2f}")


if __name__ == "__main__":
    main()
