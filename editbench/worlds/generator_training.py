"""The training of a generator from its start to its end, whatever its real pictures are."""

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
    """What a training begins with, beside its hyperparameters.

    Args:
        channels: widths at 4, 8, ... pixels; None: those of the data, with `init` the generator's.
        mapping_layers: depth of the map from z to w; None: 8, with `init` the generator's.
        init: packed generator, or checkpoint of a training, to go on from; None: a new network.
        warmup_kimg: with `init`, how long only the new discriminator learns.
        witness: weights of the scorer that the steering, the linear term and the log ask; None:
            none of them.
        steer: whether the class shares are steered.
        device: where to train.
        keep: whether the averaged generator of every checkpoint is kept in out/kept.
        eager: whether a GPU is told every operation of a step, instead of captured steps.
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
            channels: where none are asked for.

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
    """Train a generator, or go on from its last checkpoint.

    Args:
        out: folder of checkpoint.pt and log.jsonl.
        config: of a new network; with `init` the generator's own counts.
        options: of the training; what follows from `steer` and `init` is set here.
        setup: what it begins with.
        reals: (start, stop) -> real images (N, 3, R, R) in [-1, 1].
        labels: gives the classes (n, A) of real pictures, whose shares are steered to.
        read_witness: from the file of the witness to the scorer, on the device.

    Returns:
        The trainer at its end.

    Raises:
        EditbenchError: an option does not fit the others or the checkpoint.
    """
    options = replace(options, steer=setup.steer)
    start = None
    critic = None
    if setup.init is not None:
        start, critic = read_start(
            setup.init, config.resolution, setup.channels, setup.mapping_layers
        )
        config = start.config
        # A trained generator has class shares worth steering from the first picture on.
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
    capture = False if setup.eager else None
    trainer = GANTrainer(
        config, options, reals, setup.device, steering, start, witness, critic, capture
    )
    train(trainer, out, _at_checkpoint(out, witness, setup.keep))
    return trainer


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
        state = read_checkpoint(init)
        network = _averaged_network(state, init)
        critic = state["d"]
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
    """What a training does at each checkpoint; the function gives more entries of the log's line.

    The witness measures the averaged generator, and `keep` writes it, packed, to out/kept.
    """
    look = None if witness is None else watch(witness)

    def note(trainer: GANTrainer) -> dict:
        generator = StyleGAN2Generator(trainer.ema)
        if keep:
            generator.save(out / "kept" / f"generator_{trainer.kimg:06.1f}.safetensors")
        return {} if look is None else look(generator)

    return note
