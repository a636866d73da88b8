"""Check whether a classifier of your own does what its YAML declares."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from omegaconf import OmegaConf

from editbench.base.batches import fitting_batch
from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.files import create_folder, usable_folder, write_json
from editbench.base.instantiate import plain
from editbench.base.user_code import is_ours, search_folders
from editbench.base.validation import check_at_least
from editbench.commands.options import CommandParser, add_config_dir
from editbench.networks.own_networks import PROBES, check_own_scorer
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.config_file import read_scorers, scorer_file
from editbench.run.compose import compose_config
from editbench.run.loading import check_device, load_network
from editbench.studies.scorer_check.agreement import compare
from editbench.studies.scorer_check.checkup import Checkup, examine
from editbench.studies.scorer_check.page import write_page
from editbench.studies.scorer_check.sources import (
    FolderPictures,
    Generated,
    PictureSource,
    resolution_of,
)

EPILOG = """examples:
  editbench scorer check my_attributes.yaml
  editbench scorer check my_attributes.yaml --generator ffhq256 --device cuda -n 5000
  editbench scorer check my_attributes.yaml --images photos/ --out check
  editbench scorer check my_attributes.yaml --against faces generator.truncation_psi=0.7

The check prints the share of every class and quantiles and correlations of the logits. It reports
NaN, heads with constant output, probabilities in place of logits, an input range under which the
outputs carry less information than under another, and teacher and judge with opposite signs. The
page shows images of each class, so that you can see whether "positive" is the side you expect. The
exit code is 1 if there is an error.
"""
MOST_AT_ONCE = 64  # images; larger batches are not faster


def main(argv: list[str]) -> int:
    parser = _make_parser()
    args = parser.parse_intermixed_args(argv)
    if args.action != "check":
        raise UnknownName("action of `editbench scorer`", args.action, ["check"])
    check_at_least("-n", args.n, 2)
    if args.batch is not None:
        check_at_least("--batch", args.batch, 1)
    check_device(args.device, "--device ")
    path = scorer_file(args.scorer, args.config_dir)
    search_folders(path.absolute().parent)  # modules that the YAML names may be beside it
    composed = compose_config(
        [f"generator={args.generator}", f"device={args.device}", *args.overrides], args.config_dir
    )
    # The composed configuration is needed since the YAML may refer to keys such as ${data}.
    context = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=False))
    scorers = read_scorers(path, context)
    others: dict[str, Scorer] = {}
    if args.against:
        against = scorer_file(args.against, args.config_dir)
        search_folders(against.absolute().parent)
        others = read_scorers(against, context)
    # Moving a scorer that has both roles twice does no harm.
    for scorer in (*scorers.values(), *others.values()):
        scorer.to(args.device)
    generator = plain(composed.generator)
    pictures = find_pictures(args, generator, next(iter(scorers.values())))
    for role, scorer in scorers.items():
        check_class(scorer, f"{path}: {role}", pictures)
    out = args.out or Path(f"scorer-check-{path.stem}")
    create_folder(out)  # before the minutes that the check takes
    every = [*scorers.values(), *others.values()]
    batch = args.batch or pictures_at_once(every, pictures, args.device)
    checkups = check_all(scorers, pictures, batch)
    references = check_all(others, pictures, batch)
    # Teacher and judge are compared with each other, and each of them with those of --against.
    pairs = []
    for part in checkups[1:]:
        pairs.append((checkups[0], part, part.role))
    for part in checkups:
        for reference in references:
            # The title has the name of the other file, since the roles have the same names.
            pairs.append((part, reference, f"{args.against}: {reference.role}"))
    agreements = []
    for first, second, other in pairs:
        table, findings = compare(first, second)
        agreements.append((f"{first.role} and {other}", table))
        first.findings[:0] = findings
    # Latent codes cannot be shown.
    pictured = not isinstance(pictures, Generated) or pictures.generator.output == "image"
    written = write_page(out, str(path), checkups, pictures, agreements, pictured)
    write_json(out / "check.json", as_json(checkups, agreements, pictures))
    for checkup in checkups:
        print_checkup(checkup)
    for title, table in agreements:
        print(f"\n{title}\n{table.to_string(float_format=lambda value: f'{value:.3f}')}")
    print("\nlook at " + ", ".join(map(str, written)))
    return int(any(checkup.worst == "error" for checkup in checkups))


def _make_parser() -> CommandParser:
    parser = CommandParser(
        "editbench scorer",
        description=__doc__,
        epilog=EPILOG,
    )
    # The only action so far.
    parser.add_argument("action", metavar="check")
    parser.add_argument(
        "scorer",
        metavar="FILE.yaml",
        help="the YAML file of a scorer, or the name of an option of the group scorer",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],  # without it, argparse says that at least one is required
        metavar="key=value",
        help="configuration overrides, e.g. data=FOLDER",
    )
    parser.add_argument("--generator", default="faces32", help="generator whose samples are scored")
    parser.add_argument("--images", type=Path, help="score the images of a folder instead")
    parser.add_argument(
        "--against", help="another scorer, by file or name: compare attributes of the same name"
    )
    parser.add_argument("-n", type=int, default=2000, help="number of images")
    parser.add_argument(
        "--batch",
        type=int,
        help=f"images that are scored at once (default: {MOST_AT_ONCE}, or as many as fit into the "
        "free memory)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument(
        "--out", type=usable_folder, help="folder of the page (default: scorer-check-NAME)"
    )
    add_config_dir(parser)
    return parser


def find_pictures(
    args: argparse.Namespace, generator_options: dict[str, Any], scorer: Scorer
) -> PictureSource:
    """What the scorers score: the images of a folder, or samples of a generator.

    Args:
        args: of the command.
        generator_options: the generator's class and options, as plain values.
        scorer: one of the scorers, which all take the same input.

    Raises:
        EditbenchError: the scorer needs another kind of input.
    """
    if args.images is not None:
        if scorer.input != "image":
            raise EditbenchError(f"--images: this scorer scores '{scorer.input}', not images")
        return FolderPictures(args.images, args.n, resolution_of(scorer), args.device)
    generator = load_network("generator", generator_options, args.device)
    # Such as latent codes for a scorer of images, or the reverse.
    if generator.output != scorer.input:
        raise EditbenchError(
            f"the scorer scores '{scorer.input}' but generator '{args.generator}' gives "
            f"'{generator.output}': choose another with --generator NAME"
        )
    return Generated(generator, args.n, args.generator, args.device)


@torch.no_grad()
def pictures_at_once(scorers: list[Scorer], pictures: PictureSource, device: str) -> int:
    """The number of pictures that fit into the free memory, at most MOST_AT_ONCE.

    Args:
        scorers: one of which scores at a time.
        pictures: that they score.
        device: of the networks.
    """

    def one() -> None:
        for scorer in scorers:
            scorer(pictures([0]))

    return fitting_batch(one, device, MOST_AT_ONCE)


def check_class(scorer: Scorer, name: str, pictures: PictureSource) -> None:
    """Try a scorer of a user's own class on a few pictures, as a job does.

    Args:
        scorer: of any class.
        name: for messages.
        pictures: that it scores.

    Raises:
        EditbenchError: it breaks the contract of scorers.
    """
    if not is_ours(type(scorer).__module__):
        check_own_scorer(scorer, name, pictures(range(min(PROBES, len(pictures)))))


def check_all(scorers: dict[str, Scorer], pictures: PictureSource, batch: int) -> list[Checkup]:
    """Examine the scorers of all roles. A scorer that has both roles is examined once.

    Args:
        scorers: role, 'teacher' or 'judge' -> scorer.
        pictures: the images or codes that all of them score.
        batch: number of images that are scored at once.

    Returns:
        One checkup per scorer. Its role is 'teacher and judge' if the scorer has both roles.
    """
    found: dict[str, Checkup] = {}
    for role, scorer in scorers.items():
        # The same network would give the same numbers again.
        same = [name for name in found if scorers[name] is scorer]
        if same:
            found[same[0]].role += f" and {role}"
            continue
        found[role] = examine(scorer, role, pictures, batch)
    return list(found.values())


def print_checkup(checkup: Checkup) -> None:
    """Print the tables and findings of one scorer."""
    print(f"\n{checkup.role}: {len(checkup.logits)} images")
    for name, part in checkup.shares.groupby("attribute", sort=False):
        shares = []
        for _, row in part.iterrows():
            shares.append(f"{row['class']} {row['share']:.1%}")
        print(f"  {name!s:16} {', '.join(shares)}")
    with pd.option_context("display.width", 200, "display.max_columns", 40):
        print(f"\nquantiles of the log-odds\n{checkup.quantiles.round(2).to_string()}")
        print(f"\ncorrelation of the log-odds\n{checkup.correlation.round(2).to_string()}")
    for item in checkup.ranges:
        print(
            f"range {item.name:40} information {item.information:5.2f} nats, median size "
            f"{item.size:.1f}"
        )
    for finding in checkup.findings:
        print(f"{finding.level}: {finding.where + ': ' if finding.where else ''}{finding.text}")


def as_json(
    checkups: list[Checkup], agreements: list[tuple[str, pd.DataFrame]], pictures: PictureSource
) -> dict:
    """The content of the page as plain values, for programs.

    Args:
        checkups: of the scorers.
        agreements: title and table of each comparison of two scorers.
        pictures: that were scored.

    Returns:
        Mappings, lists, texts, finite numbers, and None in place of others.
    """
    scorers = {}
    for checkup in checkups:
        scorers[checkup.role] = {
            "shares": checkup.shares.to_dict("records"),
            "quantiles": checkup.quantiles.to_dict("index"),
            "correlation": checkup.correlation.to_dict(),
            "ranges": [_finite(vars(item)) for item in checkup.ranges],
            "findings": [vars(item) for item in checkup.findings],
        }
    agreement = {}
    for title, table in agreements:
        rows = table.to_dict("index")
        agreement[title] = {name: _finite(row) for name, row in rows.items()}
    return {
        "pictures": pictures.about,
        # Interpolation and convolution differ by version.
        "torch": torch.__version__,
        "scorers": scorers,
        "agreement": agreement,
    }


def _finite(values: Mapping[Any, Any]) -> dict[str, Any]:
    """The values with None for NaN and infinity, which JSON does not have."""
    out = {}
    for name, value in values.items():
        broken = isinstance(value, float) and not math.isfinite(value)
        out[str(name)] = None if broken else value
    return out
