"""A world from a data set: its generator, teacher and judge, each with the YAML that names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.networks.scorers.convnet import ConvScorer
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.worlds.datasets.packed import Packed
from editbench.worlds.datasets.training import (
    check_apart,
    check_name,
    commonest,
    gan_channels,
    held_out_accuracy,
    note_trained,
    reals,
    scorer_batches,
    scorer_training,
    weights_path,
    write_generator_conf,
    write_scorer_conf,
)
from editbench.worlds.generator_training import GeneratorSetup, run_training
from editbench.worlds.train_gan import GANTraining
from editbench.worlds.train_scorers import train_scorer


@dataclass(frozen=True)
class TrainedRole:
    """A scorer that was trained.

    Args:
        role: 'teacher', 'judge' or 'witness'.
        path: of its weights.
        accuracy: attribute -> share of right labels on held-out pictures.
        commonest: attribute -> the same share, for always naming the commonest class.
    """

    role: str
    path: Path
    accuracy: dict[str, float]
    commonest: dict[str, float]


def world_name(data: Path, name: str | None) -> str:
    """Name of the new options of a world.

    Args:
        data: folder of the data set, whose name is taken by default, in letters that Hydra takes.
        name: the given name; None takes that of the data.

    Raises:
        EditbenchError: the name cannot be one, or is that of an option of the package.
    """
    if name is None:
        stem = data.resolve().stem
        name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in stem)
    return check_name(name)


def train_generator(
    data: Packed, name: str, out: Path, options: GANTraining, setup: GeneratorSetup
) -> tuple[Path, StyleGAN2Generator]:
    """Train the generator, or continue from its last checkpoint.

    Args:
        data: the pictures.
        name: of the world.
        out: folder of the world.
        options: of the training; the data's digest, and the beginning of the steering, are set here.
        setup: initial networks and environment.

    Returns:
        The path of the weights, and the generator.

    Raises:
        EditbenchError: an option does not fit the data or the checkpoint.
    """
    try:
        config = setup.architecture(data.resolution, gan_channels(data.resolution))
    except ValueError as error:
        raise EditbenchError(
            f"{error}; set --channels, or pack the data with another --resolution"
        ) from error
    options = replace(options, data=data.digest)
    if setup.steer:
        # In the second half of the training, when the images are good enough to have classes.
        options = replace(options, steer_from_kimg=options.total_kimg / 2)

    def labels() -> Tensor:
        return torch.from_numpy(data.labelled()[1])

    def read_witness(path: Path) -> ConvScorer:
        return _load_witness(path, data, setup.device)

    trainer = run_training(
        out, config, options, setup, reals(data, options.seed), labels, read_witness
    )
    generator = StyleGAN2Generator(trainer.ema.to("cpu"))
    weights = weights_path(out, "generator", data)
    generator.save(weights)
    about = f"StyleGAN2 trained on {trainer.kimg:g} thousand pictures of {name}."
    write_generator_conf(out, name, weights, about)
    return weights, generator


def _load_witness(witness: Path, data: Packed, device: str) -> ConvScorer:
    """The witness of a training on the data. Raises EditbenchError if it has other attributes."""
    attributes, _ = data.labelled()
    scorer = ConvScorer.from_file(witness, device)
    if scorer.attributes != attributes:
        raise EditbenchError(
            f"{witness} scores {', '.join(scorer.attributes.names)} with its own classes, the "
            f"data have {', '.join(attributes.names)}: give --attributes and --bins as it had"
        )
    return scorer


def train_roles(
    data: Packed,
    name: str,
    out: Path,
    roles: Sequence[str],
    images: int | None = None,
    batch: int | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> Iterator[TrainedRole]:
    """Train teacher and judge, each on its own half of the data; a witness shares the teacher's.

    Args:
        data: pictures and labels.
        name: of the world.
        out: folder of the world.
        roles: which to train.
        images: number of training pictures of each; None: the default of the role.
        batch: pictures per step; None: the default of the role.
        device: where to train.
        log: called with a JSON line every 100 steps.

    Yields:
        Each role after its training.

    Raises:
        EditbenchError: no labels, or a role that was trained on other data.
    """
    attributes, _ = data.labelled()
    check_apart(out, roles, data)
    # All before the first training, so that a wrong size is found at once.
    recipes = {role: scorer_training(role, data.resolution) for role in roles}
    always = commonest(data)
    for role, options in recipes.items():
        if images is not None:
            options = replace(options, images=images)
        if batch is not None:
            options = replace(options, batch=batch)
        batches = scorer_batches(data, options)
        scorer = train_scorer(options, log, batches=batches, scored=attributes, device=device)
        found = held_out_accuracy(scorer, data, device)
        path = weights_path(out, role, data)
        scorer.save(path)
        note_trained(out, role, data)
        yield TrainedRole(role, path, found, always)
    teacher = weights_path(out, "teacher", data)
    judge = weights_path(out, "judge", data)
    if teacher.exists() and judge.exists():
        write_scorer_conf(out, name, teacher, judge, attributes)


def missing_parts(out: Path, name: str) -> list[str]:
    """Subcommands of `editbench world` that a world still needs before it can be used.

    Args:
        out: folder of the world.
        name: of its options.
    """
    missing = []
    for group, command in (("generator", "train-gan"), ("scorer", "train-scorers")):
        # Each YAML file is written after the weights that it names.
        if not (out / "conf" / group / f"{name}.yaml").exists():
            missing.append(command)
    return missing


def first_attribute(out: Path, data: Packed) -> str:
    """The first attribute that the judge of a world scores.

    Args:
        out: folder of the world.
        data: that the judge was trained on.

    Raises:
        BadFile: the judge's weights are missing or damaged.
    """
    return ConvScorer.from_file(weights_path(out, "judge", data)).attributes.names[0]
