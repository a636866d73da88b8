"""Show all directions of a method on one page, to look for controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from editbench.base.errors import EditbenchError
from editbench.base.files import create_folder, usable_folder
from editbench.commands.options import CommandParser, add_config_dir

EXAMPLES = """examples:
  editbench atlas method=navigan_spectrum budget=demo
  editbench atlas method=ganspace budget=demo --directions 20 --strengths 1,2,4
  editbench atlas method=stylespace budget=demo --directions 64 --out runs/channels
  editbench atlas method=sefa generator=stylegan2 scorer=mine --device cuda --samples 128

The overrides are those of `editbench run`. The command writes index.html, a page with one row per
direction, and atlas.csv with every effect. If it is stopped, the same command resumes from the
unfinished direction. By default the teacher scores samples of the tune split, so a direction that you
pick from the page is independent of the judge and of the benchmark's starts.
"""
LEAST = 0.5  # sigmas that an effect must have to be listed


def main(argv: list[str]) -> int:
    parser = CommandParser(
        "editbench atlas",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="configuration overrides, e.g. method=sefa",
    )
    parser.add_argument(
        "--directions",
        type=int,
        metavar="K",
        help="number of directions, in the method's order (default: all)",
    )
    parser.add_argument("--samples", type=int, default=64, help="samples that effects average over")
    parser.add_argument("--shown", type=int, default=4, help="samples whose images are shown")
    parser.add_argument(
        "--strengths",
        metavar="A,B,...",
        help="positive strengths, used in both directions, in the method's unit (default: its own)",
    )
    parser.add_argument(
        "--scorer",
        default="teacher",
        help="teacher, on the tune split (default), or judge, on the test split",
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:1 (default: that of the configuration)")
    parser.add_argument(
        "--out", type=usable_folder, help="output folder (default: runs/atlas/METHOD)"
    )
    add_config_dir(parser)
    args = parser.parse_intermixed_args(argv)
    # Imported here, so that `--help` does not wait for torch.
    from editbench.networks.registry import require_files
    from editbench.run.compose import compose_settings
    from editbench.studies.atlas.make import AtlasDesign, make_atlas
    from editbench.studies.atlas.page import write_atlas
    from editbench.studies.atlas.summary import best_directions

    design = AtlasDesign(
        args.directions, args.samples, args.shown, read_strengths(args.strengths), args.scorer
    )
    device = [f"device={args.device}"] if args.device else []
    settings = compose_settings([*device, *args.overrides], args.config_dir)
    require_files(settings.plain)  # with offline=true, missing files are reported first
    out = args.out or Path("runs/atlas") / settings.method.name
    create_folder(out)  # before the minutes that the directions take
    atlas = make_atlas(settings, design)
    page, table = write_atlas(out, atlas)
    print(f"{atlas.about['directions']} directions of {atlas.method}; strengths in {atlas.unit}")
    print_best(best_directions(atlas, LEAST))
    print(f"table {table}\npage  {page}")
    return 0


def read_strengths(text: str | None) -> tuple[float, ...] | None:
    """The numbers in a text such as '1,2.5'; None if there is no text."""
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise EditbenchError(f"--strengths {text} must be numbers: 1,2.5") from error


def print_best(best: pd.DataFrame) -> None:
    """Print the purest direction for each attribute and side.

    Args:
        best: of `best_directions`.
    """
    lines: list[Sequence[str]] = []
    for row in best.to_dict("records"):
        if not row["direction"]:
            # The largest effect shows how far the method is from having a control.
            lines.append((row["attribute"], "none", "", f"{row['effect']:+.2f}", "", ""))
            continue
        lines.append(
            (
                row["attribute"],
                row["direction"],
                f"{row['strength']:+g}",
                f"{row['effect']:+.2f}",
                f"{row['off_target']:.2f}",
                f"{row['distance']:.3f}",
            )
        )
    titles = ["towards", "direction", "strength", "effect", "others", "distance"]
    table = pd.DataFrame(lines, columns=titles)
    print(
        f"\npurest direction per side: effect of {LEAST:g} sigma or more, smallest change of the others"
    )
    print(table.to_string(index=False))
    print()
