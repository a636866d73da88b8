"""A world from a data set: `editbench world train-gan --data` and `train-scorers --data`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from editbench.base.errors import EditbenchError

# Networks are imported where they are used, so that --help is instant.
if TYPE_CHECKING:
    from editbench.worlds.datasets.opening import Reading
    from editbench.worlds.datasets.packed import Packed
    from editbench.worlds.generator_training import GeneratorSetup
    from editbench.worlds.train_gan import GANTraining

CACHE = Path("runs/cache")
MAX_BROKEN = 0.1
THREADS = 4
OWN_ROLES = ("teacher", "judge")  # trained by default; a witness only with --role


def add_data_arguments(command: argparse.ArgumentParser, to_train: bool = True) -> None:
    """Add the arguments that specify the data and how they are read.

    Args:
        command: parser that gets them, as a group.
        to_train: whether the data are for a training, which also needs a name and a cache.
    """
    # `world` and `dataset` share this group, so that the same words read the same data.
    group = command.add_argument_group("data", "your own images, see docs/datasets.md")
    if to_train:
        group.add_argument(
            "--data",
            type=Path,
            default=None,
            metavar="SOURCE",
            help="packed data set, image folder, .npz or .yaml; "
            "default: renders of the faces world",
        )
        group.add_argument(
            "--name",
            default=None,
            help="name of the new options generator=NAME and scorer=NAME "
            "(default: that of the data)",
        )
        group.add_argument(
            # The cache of the banks, since packed data can be made again too.
            "--cache",
            type=Path,
            default=CACHE,
            help="folder to which unpacked data are packed",
        )
    group.add_argument(
        "--labels",
        default=None,
        metavar="FILE|folders",
        help="labels of an image folder: a .csv table, a list like CelebA's, or its subfolders",
    )
    group.add_argument(
        "--attributes",
        nargs="+",
        default=None,
        metavar="NAME",
        help="labels to use (default: all)",
    )
    group.add_argument(
        # Some factors have many values, such as 40 in MPI3D, and would make too many classes.
        "--bins",
        type=int,
        default=None,
        metavar="K",
        help="merge neighbouring classes of ordered attributes into K classes",
    )
    group.add_argument(
        "--cardinalities",
        type=int,
        nargs="+",
        default=None,
        metavar="K",
        help="values of each MPI3D factor, if an .npz has fewer images than MPI3D",
    )
    group.add_argument(
        "--max-broken",
        type=float,
        default=MAX_BROKEN,
        metavar="SHARE",
        help="share of unreadable images above which the data are refused",
    )
    group.add_argument("--threads", type=int, default=THREADS, help="files decoded at once")


def print_now(line: str) -> None:
    """Print a line of a training and flush it, so that a redirected log can be followed."""
    print(line, flush=True)


def refuse_without_data(args: argparse.Namespace, *more: str) -> None:
    """Refuse options about data if a training uses renders, since they would have no effect.

    Args:
        args: without `data`.
        more: further options that are only about data.

    Raises:
        EditbenchError: one of them is given.
    """
    options: dict[str, object] = dict.fromkeys(
        ("name", "labels", "attributes", "bins", "cardinalities", *more)
    )
    options |= {"cache": CACHE, "max_broken": MAX_BROKEN, "threads": THREADS}
    given = []
    for option, default in options.items():
        if getattr(args, option) != default:
            given.append(f"--{option.replace('_', '-')}")
    if given:
        raise EditbenchError(
            f"{', '.join(given)} without --data: only for images of your own; add "
            "--data SOURCE, or leave them out"
        )


def reading(args: argparse.Namespace) -> Reading:
    """How data are read, from the command line."""
    from editbench.worlds.datasets.opening import Reading

    return Reading(
        labels=args.labels,
        attributes=args.attributes,
        bins=args.bins,
        cardinalities=args.cardinalities,
        max_broken=args.max_broken,
        threads=args.threads,
    )


def training_options(args: argparse.Namespace) -> GANTraining:
    """The options of a generator's training, from the command line; for renders and for data."""
    from editbench.worlds.train_gan import GANTraining

    return GANTraining(
        total_kimg=args.kimg,
        seed=args.seed,
        lr=args.lr,
        batch=args.batch,
        r1_gamma=args.r1_gamma,
        ema_kimg=args.ema_kimg,
        discriminator_width=args.discriminator_width,
        checkpoint_kimg=args.checkpoint_kimg,
        steer_weight=args.steer_weight,
        mixing=args.mixing,
        path_weight=args.path_weight,
        linearity=args.linearity,
    )


def generator_setup(args: argparse.Namespace) -> GeneratorSetup:
    """The networks that a generator's training begins with, from the command line."""
    from editbench.worlds.generator_training import GeneratorSetup

    return GeneratorSetup(
        channels=args.channels,
        mapping_layers=args.mapping_layers,
        init=args.init,
        warmup_kimg=args.warmup_kimg,
        witness=args.witness,
        steer=args.steer,
        device=args.device,
        keep=args.keep,
        eager=args.eager,
    )


def train_gan(args: argparse.Namespace) -> int:
    from editbench.worlds.datasets.opening import open_data
    from editbench.worlds.datasets.world import train_generator, world_name

    # Only renders are drawn from a law; the correlations of a data set cannot be chosen.
    if args.correlation is not None:
        raise EditbenchError("--correlation applies to renders only; leave it out with --data")
    # Checked first: a wrong name should not be reported after hours of training.
    name = world_name(args.data, args.name)
    out = args.out or Path("runs/world") / name
    data = open_data(args.data, reading(args), args.resolution, args.cache)
    weights, generator = train_generator(
        data, name, out, training_options(args), generator_setup(args)
    )
    # Records identify the generator by this digest.
    print(f"generator: {weights}, digest {generator.digest[:12]}")
    return _print_next_command(out, name, data)


def train_scorers(args: argparse.Namespace) -> int:
    from editbench.worlds.datasets.opening import open_data
    from editbench.worlds.datasets.world import train_roles, world_name

    name = world_name(args.data, args.name)
    out = args.out or Path("runs/world") / name
    data = open_data(args.data, reading(args), args.resolution, args.cache)
    for trained in train_roles(
        data,
        name,
        out,
        args.role or OWN_ROLES,
        images=args.images,
        batch=args.batch,
        device=args.device,
        log=print_now,
    ):
        print(
            f"{trained.role}: {trained.path}; accuracy on held-out images "
            "(of always giving the most common class):"
        )
        shares = []
        for key, value in trained.accuracy.items():
            shares.append(f"{key} {100 * value:.2f}% ({100 * trained.commonest[key]:.2f}%)")
        print("  " + ", ".join(shares))
    return _print_next_command(out, name, data)


def _print_next_command(out: Path, name: str, data: Packed) -> int:
    """Print the command that uses the world, or that trains the next missing part of it."""
    from editbench.worlds.datasets.world import first_attribute, missing_parts

    missing = missing_parts(out, name)
    # Scorers learn from labels, so without labels their training would fail.
    if missing == ["train-scorers"] and data.attributes is None:
        # Hints go to standard error, so that standard output has only results.
        print("next: pack the data with --labels, for a teacher and a judge", file=sys.stderr)
    elif missing:
        words = ["--data", str(data.folder), "--name", name, "--out", str(out)]
        print(f"next: editbench world {missing[0]} {shlex.join(words)}", file=sys.stderr)
    else:
        print(
            f"use it: editbench run --config-dir {shlex.quote(str(out / 'conf'))} "
            f"generator={name} scorer={name} attribute={first_attribute(out, data)}"
        )
    return 0
