"""Training the networks of the `faces` world, from renders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.networks.weights import load_strict
from editbench.worlds.faces import load_generator, load_scorer
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.steering import ShareSteering
from editbench.worlds.train_gan import (
    GANTrainer,
    GANTraining,
    at_checkpoint,
    check_checkpoint,
    check_witness,
    read_checkpoint,
    train,
)

CHANNELS = (64, 64, 48, 32)  # of the generator, at 4, 8, 16 and 32 pixels
# Faces whose true labels give the class shares that training is steered to: a share of one half
# is then known to a tenth of a percent.
STEERING_SAMPLES = 200_000


def read_law(correlations: Sequence[str] | None) -> FactorLaw:
    """The world's law, or one with other correlations.

    Args:
        correlations: each 'a,b=rho'; None: the world's own, an empty list: independent traits.

    Raises:
        EditbenchError: not of that form, or correlations that cannot be.
    """
    if correlations is None:
        return FactorLaw()
    try:
        given = {}
        seen = set()
        for text in correlations:
            pair, rho = text.split("=")
            traits = frozenset(name.strip() for name in pair.split(","))
            # A trait with itself would be another variance, and of two values one would be lost.
            if len(traits) != 2 or traits in seen:
                raise ValueError(f"'{pair}': name two traits, and each pair once")
            seen.add(traits)
            given[pair] = float(rho)
        law = FactorLaw(given)
        law.correlation_matrix()
    except ValueError as error:
        raise EditbenchError(
            f"--correlation {' '.join(correlations)}: {error}; example: age,eyeglasses=0.6"
        ) from error
    return law


def train_generator(
    out: Path,
    options: GANTraining,
    law: FactorLaw,
    resolution: int = 32,
    channels: Sequence[int] | None = None,
    device: str = "cpu",
    witness: Path | None = None,
    steer: bool = False,
    init: Path | None = None,
    warmup_kimg: float = 0.0,
    mapping_layers: int | None = None,
    keep: bool = False,
) -> None:
    """Train the generator, or go on from its last checkpoint.

    Args:
        out: folder of checkpoint.pt and log.jsonl.
        options: of the training.
        law: of the renders.
        resolution: height and width.
        channels: widths at 4, 8, ... pixels; None: the world's.
        device: where to train.
        witness: weights of the scorer that the steering, the linear term and the log ask; None:
            none of them.
        steer: whether the class shares are steered.
        init: packed generator, or checkpoint of a training, to go on from; None: a new network.
        warmup_kimg: with `init`, how long only the new discriminator learns.
        mapping_layers: depth of the map from z to w; None: 8, with `init` the generator's.
        keep: whether the averaged generator of every checkpoint is kept in out/kept.

    Raises:
        EditbenchError: an option does not fit the others or the checkpoint.
    """
    try:
        widths = tuple(channels or CHANNELS)
        config = StyleGAN2Config(
            resolution, widths, z_dim=128, w_dim=128, mapping_layers=mapping_layers or 8
        )
    except ValueError as error:
        raise EditbenchError(f"{error}; set --resolution and --channels together") from error
    start = None
    critic = None
    if init is not None:
        start, critic = read_start(init, resolution, channels, mapping_layers)
        config = start.config
        # A trained generator has class shares worth steering from the first picture on.
        options = replace(options, warmup_kimg=warmup_kimg, steer_from_kimg=0)
    options = replace(options, steer=steer)
    check_checkpoint(out / "checkpoint.pt", config, options)
    check_witness(witness, steer, options.linearity)
    scorer = None
    steering = None
    if witness is not None:
        # The given witness, not the package's: a new world has no package yet.
        scorer = load_scorer("witness", witness).to(device)
        if steer:
            labels = sample_factors(law, options.seed, 0, STEERING_SAMPLES).labels()
            steering = ShareSteering(scorer, labels, options.steer_weight)

    def reals(first: int, last: int) -> Tensor:
        return render(sample_factors(law, options.seed, first, last), resolution)

    trainer = GANTrainer(config, options, reals, device, steering, start, scorer, critic)
    train(trainer, out, at_checkpoint(out, scorer, keep))


def read_start(
    init: Path,
    resolution: int,
    channels: Sequence[int] | None = None,
    mapping_layers: int | None = None,
) -> tuple[StyleGAN2, dict[str, Tensor] | None]:
    """The generator that a training goes on from, and its discriminator where the file has one.

    Args:
        init: a packed generator, or the checkpoint.pt of a training.
        resolution: height and width of the pictures it is trained on.
        channels: widths that were asked for; None: the generator's.
        mapping_layers: depth that was asked for; None: the generator's.

    Raises:
        BadFile: neither of them.
        EditbenchError: the generator has another architecture than was asked for.
    """
    critic = None
    if init.suffix == ".pt":
        generator, _ = read_averaged(init)
        critic = read_checkpoint(init)["d"]
    else:
        generator = load_generator(init)
    config = generator.network.config
    if config.resolution != resolution:
        raise EditbenchError(
            f"{init} makes pictures of {config.resolution} pixels, the training shows {resolution}"
        )
    if tuple(channels or config.channels) != config.channels:
        raise EditbenchError(f"{init} has --channels {' '.join(map(str, config.channels))}")
    if mapping_layers not in (None, config.mapping_layers):
        raise EditbenchError(f"{init} has --mapping-layers {config.mapping_layers}")
    return generator.network, critic


def read_averaged(checkpoint: Path) -> tuple[StyleGAN2Generator, float]:
    """The averaged generator of a training checkpoint, and its training in thousands of images.

    Raises:
        BadFile: not a checkpoint of a generator's training.
    """
    state = read_checkpoint(checkpoint)
    network = StyleGAN2(StyleGAN2Config(**state["config"]))
    load_strict(network, state["ema"], checkpoint)
    kimg = state["step"] * state["options"]["batch"] / 1000
    return StyleGAN2Generator(network), kimg
