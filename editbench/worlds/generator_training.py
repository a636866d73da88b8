"""Training of a generator on any stream of real images, from the start or from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.networks.scorer import Scorer
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.networks.weights import load_strict
from editbench.worlds.separability import watch
from editbench.worlds.steering import ShareSteering
from editbench.worlds.train_gan import (
    GANTrainer,
    GANTraining,
    check_checkpoint,
    read_checkpoint,
    train,
)


@dataclass(frozen=True)
class GeneratorSetup:
    """Initial networks and environment of a training; the hyperparameters are in GANTraining.

    Args:
        channels: widths at 4, 8, ... pixels; None takes those of `init`, or the default of the data.
        mapping_layers: depth of the map from z to w; None takes that of `init`, or 8.
        init: packed generator, or checkpoint of a training, to continue from; None trains a new
            network.
        warmup_kimg: with `init`, how long only the new discriminator is trained.
        witness: weights of the scorer that is used by the steering, the linear term and the log;
            None for none of them.
        steer: whether the class shares are steered.
        device: where to train.
        keep: whether the averaged generator of every checkpoint is kept in out/kept.
        eager: whether a GPU runs the steps without CUDA graphs.
    """

    channels: Sequence[int] | None = None
    mapping_layers: int | None = None
    init: Path | None = None
    warmup_kimg: float = 0.0
    witness: Path | None = None
    steer: bool = False
    device: str = "cpu"
    keep: bool = False
    eager: bool = False

    def architecture(self, resolution: int, channels: Sequence[int]) -> StyleGAN2Config:
        """The configuration of a new network.

        Args:
            resolution: height and width.
            channels: widths if `self.channels` is None.

        Raises:
            ValueError: the widths do not fit the resolution.
        """
        widths = tuple(self.channels or channels)
        depth = self.mapping_layers or 8
        return StyleGAN2Config(resolution, widths, z_dim=128, w_dim=128, mapping_layers=depth)


def run_training(
    out: Path,
    config: StyleGAN2Config,
    options: GANTraining,
    setup: GeneratorSetup,
    reals: Callable[[int, int], Tensor],
    labels: Callable[[], Tensor],
    read_witness: Callable[[Path], Scorer],
) -> GANTrainer:
    """Train a generator, or continue from its last checkpoint.

    Args:
        out: folder of checkpoint.pt and log.jsonl.
        config: of a new network; with `init`, that of its generator is used instead.
        options: of the training; those that follow from `steer` and `init` are set here.
        setup: initial networks and environment.
        reals: (start, stop) -> real images (N, 3, R, R) in [-1, 1].
        labels: gives the classes (n, A) of real pictures, whose shares are the goal of the steering.
        read_witness: reads the witness from its file, onto the device.

    Returns:
        The trainer after the last step.

    Raises:
        EditbenchError: an option does not fit the others or the checkpoint.
    """
    options = replace(options, steer=setup.steer)
    start = None
    critic = None
    if setup.init is not None:
        start, critic = read_start(
            setup.init,
            config.resolution,
            setup.channels,
            setup.mapping_layers,
            options.discriminator_width,
        )
        config = start.config
        # The class shares of a trained generator can be steered from the first picture on.
        options = replace(options, warmup_kimg=setup.warmup_kimg, steer_from_kimg=0)
    check_checkpoint(out / "checkpoint.pt", config, options)
    witness = None
    steering = None
    if setup.witness is not None:
        witness = read_witness(setup.witness)
        if setup.steer:
            steering = ShareSteering(witness.attributes, labels(), options.steer_weight)
    elif setup.steer or options.linearity:
        raise EditbenchError(
            "--steer and --linearity read traits off the pictures: give --witness WEIGHTS, made by "
            "`editbench world train-scorers --role witness`"
        )
    trainer = GANTrainer(
        config,
        options,
        reals,
        setup.device,
        steering=steering,
        start=start,
        witness=witness,
        critic=critic,
        capture=False if setup.eager else None,
    )
    train(trainer, out, _at_checkpoint(out, witness, setup.keep))
    return trainer


def read_start(
    init: Path,
    resolution: int,
    channels: Sequence[int] | None = None,
    mapping_layers: int | None = None,
    discriminator_width: int = 1,
) -> tuple[StyleGAN2, dict[str, Tensor] | None]:
    """Read the generator that a training continues from, and its discriminator if there is one.

    Args:
        init: a packed generator, or the checkpoint.pt of a training.
        resolution: height and width of the pictures of the training.
        channels: the generator must have these widths; None accepts any.
        mapping_layers: the generator must have this depth; None accepts any.
        discriminator_width: the discriminator of a checkpoint must have this multiple of the
            generator's channels.

    Raises:
        BadFile: the file is neither of them.
        EditbenchError: the generator or the discriminator has another architecture.
    """
    critic = None
    if init.suffix == ".pt":
        state = read_checkpoint(init)
        network = _averaged_network(state, init)
        critic = state["d"]
        # Older checkpoints lack this option; all of them have a discriminator of width 1.
        width = state["options"].get("discriminator_width", 1)
        if width != discriminator_width:
            raise EditbenchError(f"{init} has --discriminator-width {width}")
    else:
        network = StyleGAN2.from_file(init)
    config = network.config
    if config.resolution != resolution:
        raise EditbenchError(
            f"{init} generates images of {config.resolution} pixels, but the training uses "
            f"{resolution}"
        )
    if tuple(channels or config.channels) != config.channels:
        raise EditbenchError(f"{init} has --channels {' '.join(map(str, config.channels))}")
    if mapping_layers not in (None, config.mapping_layers):
        raise EditbenchError(f"{init} has --mapping-layers {config.mapping_layers}")
    return network, critic


def read_averaged(checkpoint: Path) -> tuple[StyleGAN2Generator, float]:
    """The averaged generator of a training checkpoint, and its training in thousands of images.

    Raises:
        BadFile: not a checkpoint of a generator's training.
    """
    state = read_checkpoint(checkpoint)
    kimg = state["step"] * state["options"]["batch"] / 1000
    return StyleGAN2Generator(_averaged_network(state, checkpoint)), kimg


def _averaged_network(state: Mapping[str, Any], checkpoint: Path) -> StyleGAN2:
    """The averaged network in the content of a checkpoint, whose path is for messages."""
    network = StyleGAN2(StyleGAN2Config(**state["config"]))
    load_strict(network, state["ema"], checkpoint)
    return network


def _at_checkpoint(out: Path, witness: Scorer | None, keep: bool) -> Callable[[GANTrainer], dict]:
    """Make the function that `train` calls at each checkpoint for further entries of its log.

    Args:
        out: folder of the training.
        witness: measures the averaged generator; None measures nothing.
        keep: whether the averaged generator is written, packed, to out/kept.
    """
    measure = None if witness is None else watch(witness)

    def at_checkpoint(trainer: GANTrainer) -> dict:
        generator = StyleGAN2Generator(trainer.ema)
        if keep:
            generator.save(out / "kept" / f"generator_{trainer.kimg:06.1f}.safetensors")
        return {} if measure is None else measure(generator)

    return at_checkpoint
