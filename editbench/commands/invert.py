"""Project images into the latent space, or compare edits of real and generated images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from editbench.base.errors import EditbenchError
from editbench.base.files import usable_folder
from editbench.base.progress import print_message
from editbench.commands.options import CommandParser, add_config_dir, examples_of
from editbench.inversion.build import build_inversion
from editbench.inversion.page import print_inversion
from editbench.inversion.store import Inversion
from editbench.networks.registry import require_files
from editbench.run.compose import compose_config
from editbench.run.environment import peak_memory_mb
from editbench.run.inversions import request_inversion
from editbench.run.settings import Settings
from editbench.studies.real_images import compare_runs

EXAMPLES = """examples:
  editbench invert faces:64 --out runs/inverted_faces --steps 200
  editbench invert photos/ --out runs/photos --space w_plus generator=stylegan2 scorer=mine device=cuda
  editbench invert photos/ --out runs/photos 'inversion.perceptual={_target_:editbench.networks.perceptual.PixelDistance}'
  editbench run method=gradctrl inversion=folder inversion.path=runs/photos starts.near=any starts.n=64
  editbench invert show runs/inverted_faces            describe a finished inversion
  editbench invert compare runs/real_images            compare edits of real and generated images

If the command is stopped, run it again: it resumes from the unfinished block.
"""


def main(argv: list[str]) -> int:
    # Not subparsers of argparse, since the first word may also be any folder.
    if argv[:1] == ["show"]:
        return show_main(argv[1:])
    if argv[:1] == ["compare"]:
        return compare_main(argv[1:])
    parser = CommandParser(
        "editbench invert",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "images", help="a folder of images, or faces:N for N renders of the embedded world"
    )
    parser.add_argument(
        "--out",
        type=usable_folder,
        required=True,
        help="folder of the codes, the table and the page",
    )
    parser.add_argument(
        "--space", choices=("w", "w_plus", "z"), default="w", help="latent space of the codes"
    )
    parser.add_argument(
        "--steps", type=int, default=None, help="optimisation steps (default: the paper's 1000)"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],  # without it, argparse says that at least one is required
        help="configuration overrides: generator=..., inversion.noise=optimise",
    )
    add_config_dir(parser)
    # Overrides may come before and after the options, which parse_args does not allow.
    args = parser.parse_intermixed_args(argv)
    settings = invert_settings(args.images, args.space, args.steps, args.overrides, args.config_dir)
    inversion = make_inversion(args.out, settings)
    print_inversion(inversion)
    print(f"codes {inversion.folder / 'table.parquet'}\npage  {inversion.folder / 'index.html'}")
    return 0


def invert_settings(
    images: str,
    space: str,
    steps: int | None,
    overrides: list[str],
    more: Sequence[Path] = (),
) -> Settings:
    """The settings of a command line.

    Args:
        images: a folder, or faces:N.
        space: of the codes: 'w', 'w_plus' or 'z'.
        steps: optimisation steps; None for the configured number.
        overrides: words of the user, which take precedence over `space` and `steps`.
        more: a user's own configuration folders.

    Raises:
        UnknownName: a group option or key does not exist.
        EditbenchError: a value is wrong.
    """
    words = ["inversion=folder", f"inversion.space={space}"]
    if steps is not None:
        words.append(f"inversion.steps={steps}")
    cfg = compose_config([*words, *overrides], more)
    cfg.inversion.images = images  # not as a word, since Hydra's grammar would restrict the name
    return Settings.from_config(cfg)


def make_inversion(folder: Path, settings: Settings) -> Inversion:
    """Build an inversion, or open it if it is complete, and print its size and time.

    Args:
        folder: of the inversion, outside the folder of the images.
        settings: `settings.inversion` determines what is inverted and how.

    Raises:
        EditbenchError: the folder is inside that of the images, inversion=none, or with
            offline=true a file is missing.
    """
    source = Path(str(settings.inversion.images))
    # Otherwise the next call would take the images of the page for images to invert.
    if folder.resolve().is_relative_to(source.resolve()) and source.is_dir():
        raise EditbenchError(
            f"--out {folder} lies in the folder of the images and would add images to it: name a "
            "folder elsewhere"
        )
    require_files(settings.plain)  # with offline=true, missing files are reported first
    began = time.perf_counter()
    request = request_inversion(settings)
    if request is None:
        raise EditbenchError("inversion=none: this command makes an inversion; leave it out")
    inversion = build_inversion(folder, request.task)
    print_message(
        f"{len(inversion)} images in {time.perf_counter() - began:.0f} s, peak memory "
        f"{peak_memory_mb(settings.device):.0f} MiB"
    )
    return inversion


def show_main(argv: list[str]) -> int:
    parser = CommandParser(
        "editbench invert show",
        description="Verify an inversion and describe it.",
        epilog=examples_of("editbench invert show", EXAMPLES),
    )
    parser.add_argument("folder", type=Path, help="of the inversion")
    # Opening an inversion verifies its checksums.
    print_inversion(Inversion(parser.parse_args(argv).folder))
    return 0


def compare_main(argv: list[str]) -> int:
    parser = CommandParser(
        "editbench invert compare",
        description="Compare edits of real and generated images, for every method and attribute "
        "that was run on both.",
        epilog=examples_of("editbench invert compare", EXAMPLES),
    )
    parser.add_argument(
        "runs", type=Path, help="folder of the records, as written by experiment=real_images"
    )
    args = parser.parse_args(argv)
    compare_runs(args.runs)
    return 0
