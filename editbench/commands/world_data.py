"""`editbench world train-gan --data` and `train-scorers --data`: a world out of a data set of one's own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from editbench.errors import EditbenchError

if TYPE_CHECKING:
    from editbench.datasets.packed import Packed
    from editbench.datasets.source import Source
    from editbench.scorers.base import Scorer
    from editbench.scorers.convnet import ConvScorer
    from editbench.worlds.train_gan import GANTrainer

CACHE = Path("runs/cache")
OWN_ROLES = ("teacher", "judge")  # that a world needs; its witness is trained where it is asked for


def add_data_arguments(command: argparse.ArgumentParser, to_train: bool = True) -> None:
    """Where the data are and how they are read; with `to_train` also what a training makes of them."""
    group = command.add_argument_group("data", "pictures of your own, see docs/datasets.md")
    if to_train:
        group.add_argument("--data", type=Path, default=None, metavar="SOURCE",
                           help="packed data set, image folder, .npz or .yaml; left out: renders of the faces world")
        group.add_argument("--name", default=None, help="name of the new options generator=NAME and scorer=NAME "
                                                        "(default: that of the data)")
        group.add_argument("--cache", type=Path, default=CACHE, help="where data that are not packed are packed to")
    group.add_argument("--labels", default=None, metavar="FILE|folders",
                       help="labels of an image folder: a .csv table, a list like CelebA's, or its subfolders")
    group.add_argument("--attributes", nargs="+", default=None, metavar="NAME", help="labels to take (default: all)")
    group.add_argument("--bins", type=int, default=None, metavar="K",
                       help="join the classes of ordered attributes that have more to K runs of neighbours")
    group.add_argument("--cardinalities", type=int, nargs="+", default=None, metavar="K",
                       help="values of each MPI3D factor, where an .npz has fewer images than MPI3D")
    group.add_argument("--max-broken", type=float, default=0.1, metavar="SHARE",
                       help="share of unreadable pictures above which the data are refused")
    group.add_argument("--threads", type=int, default=4, help="files decoded at once")


def open_source(path: Path, args: argparse.Namespace) -> Source:
    """A folder of images, an .npz, or a .yaml that declares one."""
    from editbench.datasets.images import ImageFolder
    from editbench.datasets.mpi3d import ArrayImages

    if path.is_dir():
        if args.cardinalities is not None:
            raise EditbenchError(f"--cardinalities are of an .npz, and {path} is a folder")
        return ImageFolder(path, args.labels, args.attributes, args.bins, args.threads)
    if path.suffix not in (".npz", ".yaml", ".yml"):
        raise EditbenchError(f"{path}: no such folder, and not an .npz or the .yaml of one; other arrays: save them "
                             "with np.savez(FILE, images=..., labels=...)")
    if args.labels is not None:
        raise EditbenchError("--labels is for a folder of images; the labels of an .npz are declared in a YAML file")
    return ArrayImages(path, args.cardinalities)


def open_data(args: argparse.Namespace, resolution: int | None) -> Packed:
    """The data set of a training, packed below --cache first where it is not a packed one."""
    from editbench.datasets.pack import pack
    from editbench.datasets.packed import DATASET, Packed
    from editbench.files import digest

    if (args.data / DATASET).exists():
        if args.labels is not None or args.cardinalities is not None:
            raise EditbenchError(f"{args.data} is packed, with the labels it has: leave out --labels and "
                                 "--cardinalities, or pack it anew")
        data = Packed(args.data)
        if resolution not in (None, data.resolution):
            raise EditbenchError(f"{args.data} is packed at {data.resolution} pixels, not {resolution}: leave out "
                                 "--resolution, or pack it anew")
    else:
        source = open_source(args.data, args)
        size = resolution or source.resolution
        folder = args.cache / "datasets" / f"{args.data.resolve().stem}-{digest([source.identity, size])}"
        data = pack(source, folder, size, args.max_broken)
        print(f"data: {data.folder}, {describe(data)}")
    return data.select(args.attributes, args.bins) if data.attributes is not None else data


def describe(data: Packed) -> str:
    counts = ", ".join(f"{count} {what}" for what, count in data.counts.items() if count)
    return f"{data.n} pictures of {data.resolution} x {data.resolution} ({counts})"


def place(args: argparse.Namespace) -> tuple[str, Path]:
    """Name and folder of the new world."""
    from editbench.datasets.training import check_name

    stem = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in args.data.resolve().stem)
    name = check_name(args.name or stem)
    return name, args.out or Path("runs/world") / name


def train_gan(args: argparse.Namespace) -> int:
    import torch

    from editbench.datasets.training import gan_channels, reals, write_generator_conf
    from editbench.generators.embedded import StyleGAN2Generator
    from editbench.generators.stylegan2 import StyleGAN2Config
    from editbench.worlds.steering import ShareSteering
    from editbench.worlds.train_gan import GANTrainer, GANTraining, check_checkpoint, train

    if args.correlation is not None:
        raise EditbenchError("--correlation is of the renders' law; leave it out with --data")
    name, out = place(args)
    data = open_data(args, args.resolution)
    try:
        config = StyleGAN2Config(data.resolution, tuple(args.channels or gan_channels(data.resolution)), z_dim=128,
                                 w_dim=128, mapping_layers=args.mapping_layers)
    except ValueError as error:
        raise EditbenchError(f"{error}; set --channels, or pack the data with another --resolution") from error
    options = GANTraining(
        total_kimg=args.kimg,
        batch=args.batch,
        lr=args.lr,
        r1_gamma=args.r1_gamma,
        seed=args.seed,
        checkpoint_kimg=args.checkpoint_kimg,
        steer_from_kimg=args.kimg / 2 if args.steer else GANTraining.steer_from_kimg,
        steer_weight=args.steer_weight,
        mixing=args.mixing,
        path_weight=args.path_weight,
        linearity=args.linearity,
        data=data.digest,
    )
    start = None
    if args.init is not None:
        start = StyleGAN2Generator.from_file(args.init).network
        config = start.config
        options = replace(options, warmup_kimg=args.warmup_kimg, steer_from_kimg=0)
        if config.resolution != data.resolution:
            raise EditbenchError(f"{args.init} makes pictures of {config.resolution} pixels, the data have "
                                 f"{data.resolution}")
    check_checkpoint(out / "checkpoint.pt", config, options)
    witness = _witness(args, data)
    steering = None
    if args.steer and witness is not None:
        _, labels = data.labelled()
        steering = ShareSteering(witness, torch.from_numpy(labels), options.steer_weight)
    trainer = GANTrainer(config, options, reals(data, args.seed), args.device, steering, start, witness)
    network = train(trainer, out, at_checkpoint(out, witness, args.keep))
    generator = StyleGAN2Generator(network.to("cpu"))
    weights = out / f"generator{data.resolution}.safetensors"
    generator.save(weights)
    write_generator_conf(out, name, weights, f"StyleGAN2 trained on {trainer.kimg:g} thousand pictures of {name}.")
    print(f"generator: {weights}, digest {generator.digest[:12]}")
    return _how_to_run(out, name, data)


def _witness(args: argparse.Namespace, data: Packed) -> ConvScorer | None:
    """The scorer of --witness, which has the data's attributes."""
    from editbench.scorers.convnet import ConvScorer

    check_witness(args)
    if args.witness is None:
        return None
    attributes, _ = data.labelled()
    witness = ConvScorer.from_file(args.witness, args.device)
    if witness.attributes != attributes:
        raise EditbenchError(f"{args.witness} scores {', '.join(witness.attributes.names)} with its own classes, the "
                             f"data have {', '.join(attributes.names)}: give --attributes and --bins as it had")
    return witness


def check_witness(args: argparse.Namespace) -> None:
    """Raise EditbenchError where a term of the training needs a witness and none is given."""
    if args.witness is None and (args.steer or args.linearity):
        raise EditbenchError("--steer and --linearity read traits off the pictures: give --witness WEIGHTS, made by "
                             "`editbench world train-scorers --role witness`")


def at_checkpoint(out: Path, witness: Scorer | None, keep: bool) -> Callable[[GANTrainer], dict]:
    """What a training does at each checkpoint: measure the averaged generator for the log, and keep it if asked to."""
    from editbench.generators.embedded import StyleGAN2Generator
    from editbench.worlds.separability import watch

    look = None if witness is None else watch(witness)

    def note(trainer: GANTrainer) -> dict:
        generator = StyleGAN2Generator(trainer.ema)
        if keep:
            generator.save(out / "kept" / f"generator_{trainer.kimg:06.1f}.safetensors")
        return {} if look is None else look(generator)

    return note


def train_scorers(args: argparse.Namespace) -> int:
    from editbench.datasets.training import (
        check_apart,
        commonest,
        held_out_accuracy,
        note_trained,
        scorer_batches,
        scorer_training,
        write_scorer_conf,
    )
    from editbench.worlds.train_scorers import train_scorer

    name, out = place(args)
    data = open_data(args, args.resolution)
    attributes, _ = data.labelled()
    roles = args.role or OWN_ROLES
    check_apart(out, roles, data)
    recipes = {role: scorer_training(role, data.resolution) for role in roles}
    always = commonest(data)
    for role, options in recipes.items():
        options = options if args.images is None else replace(options, images=args.images)
        scorer = train_scorer(options, lambda line: print(line, flush=True), batches=scorer_batches(data, options),
                              scored=attributes, device=args.device)
        found = held_out_accuracy(scorer, data, args.device)
        path = out / f"{role}{data.resolution}.safetensors"
        scorer.save(path)
        note_trained(out, role, data)
        print(f"{role}: {path}; right on held-out pictures (the commonest class alone):")
        print("  " + ", ".join(f"{key} {100 * value:.2f}% ({100 * always[key]:.2f}%)" for key, value in found.items()))
    teacher, judge = (out / f"{role}{data.resolution}.safetensors" for role in ("teacher", "judge"))
    if teacher.exists() and judge.exists():
        write_scorer_conf(out, name, teacher, judge, attributes)
    return _how_to_run(out, name, data)


def _how_to_run(out: Path, name: str, data: Packed) -> int:
    """Print the command that uses the world, or which part of it is still to be trained."""
    from editbench.scorers.convnet import ConvScorer

    conf = out / "conf"
    missing = [verb for group, verb in (("generator", "train-gan"), ("scorer", "train-scorers"))
               if not (conf / group / f"{name}.yaml").exists()]
    if missing == ["train-scorers"] and data.attributes is None:
        print("next: pack the data with --labels, for a teacher and a judge", file=sys.stderr)
    elif missing:
        print(f"next: editbench world {missing[0]} --data {data.folder} --name {name} --out {out}", file=sys.stderr)
    else:
        first = ConvScorer.from_file(out / f"judge{data.resolution}.safetensors").attributes.names[0]
        print(f"use it: editbench run --config-dir {conf} generator={name} scorer={name} attribute={first}")
    return 0
