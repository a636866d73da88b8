"""Train, pack and describe the embedded world, or a world of your own.

You do not need this command to run the benchmark.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from editbench.base.errors import EditbenchError
from editbench.base.files import usable_folder
from editbench.base.validation import check_at_least
from editbench.commands import world_data
from editbench.commands.options import CommandParser, add_config_dir, add_subcommand
from editbench.commands.world_data import add_data_arguments

EXAMPLES = """examples:
  editbench world train-gan --kimg 850 --out runs/world/gan      start or resume training
  editbench world pack --checkpoint runs/world/gan/checkpoint.pt --out generator32.safetensors
  editbench world train-scorers --out runs/world/scorers         teacher, judge and witness,
                                                                 minutes each
  editbench world train-scorers --data packed --out runs/world/mine    of your own images
  editbench world train-gan --data packed --out runs/world/mine        of your own images, see
                                                                       docs/datasets.md
  editbench world train-parser --out runs/world/parser           regions of a face, minutes
  editbench world card --out runs/world/card                     a page that assesses the world
  editbench world card --out card --generator generator32.safetensors
  editbench world card --out card --config-dir runs/world/mine/conf generator=mine scorer=mine
"""


def main(argv: list[str]) -> int:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    # Overrides may come before and after the options, which argparse does not allow.
    if "world" in args:
        args.world = [*args.world, *rest]
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    counts = {
        "images": "--images",
        "batch": "--batch",
        "faces": "--faces",
        "resolution": "--resolution",
        "mapping_layers": "--mapping-layers",
        "n": "-n",
    }
    for option, flag in counts.items():
        # Each subcommand has only some of these options.
        count = getattr(args, option, None)
        if count is not None:
            check_at_least(flag, count, 1)
    if getattr(args, "device", "cpu") != "cpu":
        from editbench.run.loading import check_device

        check_device(args.device, "--device ")
    return args.run(args)


# Name, function and description of a subcommand -> its parser.
Add = Callable[[str, Any, str], argparse.ArgumentParser]


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "editbench world",
        description=__doc__,
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(title="subcommands", required=True, metavar="COMMAND")

    def add(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        command = add_subcommand(commands, f"editbench world {name}", about, EXAMPLES)
        command.set_defaults(run=run)
        return command

    _add_train_gan(add)
    _add_train_scorers(add)
    _add_train_parser(add)
    _add_card(add)
    _add_pack(add)
    return parser


def _add_train_gan(add: Add) -> None:
    gan = add(
        "train-gan",
        _train_gan,
        "train the generator, or resume from its last checkpoint",
    )
    # Defaults that depend on --data are None here, and are chosen once the data are known.
    gan.add_argument(
        "--kimg", type=float, default=850, help="training length in thousands of images"
    )
    gan.add_argument(
        "--out",
        type=usable_folder,
        default=None,
        help="folder of checkpoint.pt and log.jsonl (runs/world/gan, with --data runs/world/NAME)",
    )
    gan.add_argument(
        # None stands for 32 for the faces, and for the size of the data with --data.
        "--resolution",
        type=int,
        default=None,
        help="height and width (default: 32, or that of --data)",
    )
    gan.add_argument(
        "--channels",
        type=int,
        nargs="+",
        default=None,
        help="width of the layers at 4, 8, ... RESOLUTION pixels (64 ... 64 48 32)",
    )
    gan.add_argument("--batch", type=int, default=32, help="images per step")
    gan.add_argument("--r1-gamma", type=float, default=0.1, help="weight of the R1 penalty")
    gan.add_argument(
        "--discriminator-width",
        type=int,
        default=1,
        metavar="K",
        help="channels of the discriminator's layers, as a multiple of the generator's",
    )
    gan.add_argument(
        "--ema-kimg",
        type=float,
        default=5.0,
        help="half-life of the averaged generator, in thousands of images",
    )
    gan.add_argument("--seed", type=int, default=0, help="seed of weights, renders and latents")
    # Training on the faces takes minutes on a GPU and hours on a CPU.
    gan.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")

    gan.add_argument(
        "--eager",
        action="store_true",
        help="on a GPU, launch every operation by itself instead of steps captured as CUDA graphs",
    )
    _add_witness_arguments(gan)
    _add_network_arguments(gan)
    _add_start_arguments(gan)
    _add_correlation(gan)
    add_data_arguments(gan)


def _add_witness_arguments(gan: argparse.ArgumentParser) -> None:
    """Arguments about the witness.

    Teacher and judge must not influence the generator whose images they classify later, so a third
    scorer does.
    """
    gan.add_argument(
        "--witness",
        type=Path,
        default=None,
        metavar="WEIGHTS",
        help="scorer that is neither teacher nor judge: logs separability, and reads the traits "
        "for --steer and --linearity; made by train-scorers --role witness",
    )
    gan.add_argument(
        "--steer",
        action="store_true",
        help="steer the class shares, as the witness sees them, in the later part of the training",
    )
    gan.add_argument("--steer-weight", type=float, default=1.0, help="see --steer")
    gan.add_argument(
        "--linearity",
        type=float,
        default=0.0,
        metavar="LAMBDA",
        help="weight of the term that makes the witness's traits linear in W",
    )


def _add_network_arguments(gan: argparse.ArgumentParser) -> None:
    """Arguments about the generator's mapping network, and about the checkpoints that are kept."""
    gan.add_argument(
        "--mixing", type=float, default=0.9, help="share of images with mixed styles of two w"
    )
    gan.add_argument(
        "--path-weight",
        type=float,
        default=2.0,
        help="weight of the path-length penalty; 0 for none",
    )
    gan.add_argument(
        "--mapping-layers",
        type=int,
        default=None,
        help="depth of the mapping network (default: 8, or that of --init)",
    )
    gan.add_argument(
        "--checkpoint-kimg",
        type=float,
        default=16,
        help="thousands of images between checkpoints and lines of the log",
    )
    gan.add_argument(
        "--keep",
        action="store_true",
        help="keep the averaged generator of every checkpoint, packed, in OUT/kept",
    )


def _add_start_arguments(gan: argparse.ArgumentParser) -> None:
    """Arguments about the start of a training: weights to start from, and the learning rate."""
    gan.add_argument(
        # Used for the entanglement dial: each setting continues from the world's own generator.
        "--init",
        type=Path,
        default=None,
        metavar="GENERATOR",
        help="packed generator to start from, or a checkpoint.pt, whose discriminator is used too; "
        "steering then begins immediately; only the discriminator learns in the first --warmup-kimg",
    )
    gan.add_argument(
        "--warmup-kimg", type=float, default=16, help="see --init; without it there is no warm-up"
    )
    gan.add_argument("--lr", type=float, default=2e-3, help="learning rate")


def _add_train_scorers(add: Add) -> None:
    scorers = add(
        "train-scorers",
        _train_scorers,
        "train teacher, judge and witness, and print their accuracy",
    )
    # The roles may be trained separately, on several machines.
    scorers.add_argument(
        "--out",
        type=usable_folder,
        default=None,
        help="folder of the weights (runs/world/scorers, with --data runs/world/NAME)",
    )
    scorers.add_argument(
        "--role",
        nargs="+",
        choices=("teacher", "judge", "witness"),
        default=None,
        help="which to train (default: all; with --data, teacher and judge)",
    )
    scorers.add_argument(
        "--images",
        type=int,
        default=None,
        help="training images for each (default: that of the recipe)",
    )
    scorers.add_argument(
        "--batch",
        type=int,
        default=None,
        help="images per step (default: that of the recipe)",
    )
    scorers.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    scorers.add_argument(
        "--resolution", type=int, default=None, help="resolution of --data that are not packed yet"
    )
    add_data_arguments(scorers)


def _add_train_parser(add: Add) -> None:
    # The metrics of localised edits need a parser.
    parts = add(
        "train-parser", _train_parser, "train the parser of face regions and print its held-out IoU"
    )
    parts.add_argument(
        "--out", type=usable_folder, default=Path("runs/world/parser"), help="folder of the weights"
    )
    parts.add_argument(
        "--faces",
        type=int,
        default=None,
        help="number of different training renders (default: that of the recipe)",
    )
    parts.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")


def _add_card(add: Add) -> None:
    card = add("card", _card, "write index.html, card.json and sheet.png, which assess the world")
    card.add_argument("--out", type=usable_folder, required=True, help="folder of the card")
    # With 10,000 images, the standard error of a class share is at most half a percent.
    card.add_argument(
        "-n", type=int, default=10_000, help="number of renders and of generated faces"
    )
    for role in ("generator", "teacher", "judge"):
        card.add_argument(
            f"--{role}", type=Path, default=None, help="weights (default: those of the package)"
        )
    add_config_dir(card)
    card.add_argument(
        "world",
        nargs="*",
        metavar="group=option",
        help="another world, such as generator=NAME scorer=NAME generator.weights=FILE; its card "
        "lacks the figures that compare with data",
    )
    # A generator that was trained with them must be compared with renders of the same law.
    _add_correlation(card)


def _add_pack(add: Add) -> None:
    # A checkpoint holds discriminator and optimisers too; a world needs the averaged generator.
    pack = add(
        "pack", _pack, "copy the averaged generator of a training checkpoint to a safetensors file"
    )
    pack.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("runs/world/gan/checkpoint.pt"),
        help="checkpoint to read",
    )
    pack.add_argument(
        # Without --out, the file of the package is replaced, which makes a new embedded world.
        "--out",
        type=Path,
        default=None,
        help="file to write (default: the file of the package)",
    )
    pack.add_argument(
        "--half", action="store_true", help="store weights in half precision, in half the space"
    )


def _add_correlation(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--correlation",
        nargs="*",
        default=None,
        metavar="A,B=RHO",
        help="correlations of the renders' traits instead of the world's own; "
        "without a pair: independent traits",
    )


# -- subcommands ---------------------------------------------------------------------------------
# They import networks where they use them, so that --help is instant.


def _train_gan(args: argparse.Namespace) -> int:
    from editbench.worlds.faces.training import read_law, train_generator

    if args.data is not None:
        return world_data.train_gan(args)
    world_data.refuse_without_data(args)
    law = read_law(args.correlation)
    options = replace(world_data.training_options(args), margin=law.margin, reach=law.reach)
    # In the checkpoint, None stands for the world's own law.
    if args.correlation is not None:
        options = replace(options, correlations=law.correlations)
    train_generator(
        args.out or Path("runs/world/gan"),
        options,
        law,
        args.resolution or 32,
        world_data.generator_setup(args),
    )
    return 0


def _train_scorers(args: argparse.Namespace) -> int:
    from editbench.worlds.faces.factors import FactorLaw
    from editbench.worlds.train_scorers import ROLES, accuracy, train_scorer

    if args.data is not None:
        return world_data.train_scorers(args)
    world_data.refuse_without_data(args, "resolution")
    if args.batch is not None and args.batch % 2:
        raise EditbenchError(
            f"--batch={args.batch} must be even: half of the faces are drawn from each of two laws"
        )
    out = args.out or Path("runs/world/scorers")
    for role in args.role or ROLES:
        options = ROLES[role]
        if args.images is not None:
            options = replace(options, images=args.images)
        if args.batch is not None:
            options = replace(options, batch=args.batch)
        scorer = train_scorer(options, world_data.print_now, device=args.device).to("cpu")
        path = out / f"{role}{options.resolution}.safetensors"
        scorer.save(path)
        print(f"{role}: {path}")
        for title, law in (("world's law", FactorLaw()), ("clear faces", FactorLaw(margin=0.5))):
            shares = []
            for name, value in accuracy(scorer, law, 5000).items():
                shares.append(f"{name} {100 * value:.2f}%")
            print(f"  held out, {title}: " + ", ".join(shares))
    return 0


def _train_parser(args: argparse.Namespace) -> int:
    from editbench.worlds.parser import ParserTraining, parser_quality, train_parser

    options = ParserTraining() if args.faces is None else ParserTraining(faces=args.faces)
    parser = train_parser(options, world_data.print_now, device=args.device).to("cpu")
    path = args.out / f"parser{options.resolution}.safetensors"
    parser.save(path)
    print(f"parser: {path}")
    for name, found in parser_quality(parser).items():
        print(f"  {name:<10} pixels found {100 * found['found']:6.2f}%, IoU {found['iou']:.3f}")
    return 0


def _card(args: argparse.Namespace) -> int:
    from editbench.networks.roles import Networks
    from editbench.worlds.card import world_card
    from editbench.worlds.faces import load_generator, load_scorer
    from editbench.worlds.faces.training import read_law

    if args.world or args.config_dir:
        return _other_card(args)
    # The Fréchet distance needs a covariance, so at least two images.
    check_at_least("-n", args.n, 2)
    networks = Networks(
        load_generator(args.generator),
        load_scorer("teacher", args.teacher),
        load_scorer("judge", args.judge),
    )
    card = world_card(args.out, args.n, networks, read_law(args.correlation))
    frechet = card["frechet"]
    # The lowest values, since the worst attribute limits the use of a world.
    accuracy = min(card["accuracy"]["judge"]["world law"].values())
    agreement = min(card["agreement"]["generated"].values())
    print(
        f"{args.out / 'index.html'}: "
        f"largest gap of a class share {100 * card['marginal_gap']:.1f} points, "
        f"of an association {card['association_gap']:.3f}, "
        f"Fréchet distance {frechet['generated']:.3f} (floor {frechet['floor']:.3f}), "
        f"lowest judge accuracy {100 * accuracy:.2f}%, "
        f"lowest agreement {100 * agreement:.2f}%"
    )
    _print_criteria(card)
    return 0


def _other_card(args: argparse.Namespace) -> int:
    """Make the card of a world that is chosen by overrides; the exit code."""
    from editbench.run.compose import compose_settings
    from editbench.run.loading import load_networks
    from editbench.worlds.card import other_card

    of_faces = ("generator", "teacher", "judge", "correlation")
    given = [f"--{name}" for name in of_faces if getattr(args, name) is not None]
    if given:
        raise EditbenchError(
            f"{', '.join(given)}: only for the faces world; for another world, name the networks by "
            "generator=NAME and scorer=NAME"
        )
    settings = compose_settings(args.world, args.config_dir)
    networks = load_networks(settings)
    card = other_card(args.out, args.n, networks, settings.generator.name)
    print(f"{args.out / 'index.html'}: {card['world']}, {card['n']} generated images")
    _print_criteria(card)
    return 0


def _print_criteria(card: dict) -> None:
    """Print the quality criteria of a card, and how many of them are met."""
    from editbench.worlds.criteria import criteria

    found = criteria(card)
    for criterion in found:
        print(f"  {criterion}")
    if "path_length" in card:
        about = card["path_length"]
        spread = 100 * about["spread"]
        print(f"  path length in W {about['mean']:.3f}, spread {spread:.0f} % of it")
    reached = sum(criterion.passed for criterion in found)
    print(f"{reached} of {len(found)} quality criteria met")


def _pack(args: argparse.Namespace) -> int:
    from editbench.worlds.faces import weights_path
    from editbench.worlds.generator_training import read_averaged

    generator, kimg = read_averaged(args.checkpoint)
    out = args.out or weights_path("generator")
    generator.save(out, args.half)
    size = out.stat().st_size / 1e6
    print(f"{out}: {size:.2f} MB, {kimg:.0f} kimg, digest {generator.digest[:12]}")
    return 0
