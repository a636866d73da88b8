"""Make pages on which raters choose between two edits, and analyse their answers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from editbench.base.errors import EditbenchError
from editbench.base.files import usable_folder
from editbench.base.progress import results_console
from editbench.base.text import read_text
from editbench.commands.options import CommandParser, add_subcommand, split_names
from editbench.studies.human import ASKED
from editbench.studies.human.responses import read_responses
from editbench.studies.human.study import StudyDesign, make_study, read_key, summary
from editbench.studies.human.write import analyse, print_analysis, write_analysis

EXAMPLES = """examples:
  editbench human make runs/demo --out study --methods gradctrl,interfacegan
  editbench human make runs/demo --out study --methods gradctrl,interfacegan,neural_ode --pairs 30 --sets 4 --split
  editbench human make runs/demo --out study_identity --methods neural_ode,neural_ode_identity --questions identity
  editbench human analyse study answers/responses-*.json

Give raters only the files of study/pages: key.json and manifest.json name the methods.
exit code of analyse: 0 if every file was used; 1 if some could not be (the rest is analysed).
"""


def main(argv: list[str]) -> int:
    parser = _make_parser()
    args = parser.parse_args(argv)
    return make(args) if args.job == "make" else analyse_files(args)


def _make_parser() -> CommandParser:
    parser = CommandParser(
        "editbench human",
        description=__doc__,
        epilog=EXAMPLES,
    )
    jobs = parser.add_subparsers(dest="job", required=True, metavar="make|analyse")
    plan = StudyDesign()  # has the defaults that the help shows
    about = "draw a study from finished runs"
    job = add_subcommand(jobs, "editbench human make", about, EXAMPLES)
    job.add_argument("root", type=Path, help="runs folder")
    job.add_argument("--out", type=usable_folder, required=True, help="new folder of the study")
    job.add_argument(
        "--methods",
        help="comma-separated (default: all with finished runs, including `random`)",
    )
    job.add_argument(
        "--pairs",
        type=int,
        default=plan.pairs,
        help="comparisons per attribute, over all pairs of methods",
    )
    job.add_argument(
        "--sets",
        type=int,
        default=plan.sets,
        help="number of pages, each in its own order",
    )
    job.add_argument(
        "--split",
        action="store_true",
        help="distribute the comparisons over the pages (default: each page has all)",
    )
    job.add_argument(
        "--duplicates",
        type=float,
        default=plan.duplicates,
        help="share of a page that is shown twice, with swapped sides",
    )
    job.add_argument(
        "--questions", default=",".join(ASKED), help=f"{' and/or '.join(ASKED)} (default: both)"
    )
    job.add_argument("--seed", type=int, default=plan.seed, help="seed of the draw of pairs")
    job.add_argument("--title", default=plan.title, help="heading of the pages")
    job.add_argument("--intro", type=Path, help="text file shown first: consent, and whom to ask")
    job.add_argument("--setting", help="which runs to use, if the folder has several settings")
    job.add_argument(
        "--device", default="cpu", help="device that redraws the images: cpu, cuda or cuda:1"
    )
    job.add_argument(
        "--cache", type=Path, help="folder of banks and fits (default: the one in each record)"
    )
    about = "compute win rates, strengths and agreement from raters' files"
    job = add_subcommand(jobs, "editbench human analyse", about, EXAMPLES)
    job.add_argument("study", type=Path, help="folder that `make` wrote")
    job.add_argument("files", type=Path, nargs="+", help="responses-*.json")
    job.add_argument("--out", type=usable_folder, help="output folder (default: STUDY/analysis)")
    job.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    return parser


def make(args: argparse.Namespace) -> int:
    """Run `editbench human make`; the exit code."""
    methods = split_names(args.methods or "")
    # Otherwise an empty variable of a shell would select all methods.
    if args.methods is not None and not methods:
        raise EditbenchError("--methods names no method: leave it out for all with finished runs")
    design = StudyDesign(
        methods=tuple(methods),
        pairs=args.pairs,
        sets=args.sets,
        split=args.split,
        duplicates=args.duplicates,
        seed=args.seed,
        asked=tuple(split_names(args.questions)),
        title=args.title,
        intro=_text(args.intro),
        setting=args.setting,
    )
    manifest = make_study(args.root, args.out, design, args.device, args.cache)
    out = results_console()
    for line in summary(manifest):
        # Labels of variants contain brackets, which rich would read as markup.
        out.print(line, soft_wrap=True, markup=False, highlight=False)
    # Raters must not see the key, which names the methods.
    print(f"pages  {args.out / 'pages'}\nkey    {args.out / 'key.json'}   (not for raters)")
    return 0


def analyse_files(args: argparse.Namespace) -> int:
    """Run `editbench human analyse`; the exit code."""
    key = read_key(args.study)
    found = analyse(read_responses(args.files, key), args.study, args.seed)
    print_analysis(found, results_console())
    folder = args.out or args.study / "analysis"
    write_analysis(found, folder)
    print(f"tables {folder}")
    # The other files are analysed nevertheless; the exit code shows that some are missing.
    wrong = len(found.responses.left_out)
    if wrong:
        print(
            f"failed: {wrong} of {len(args.files)} files could not be counted, see above",
            file=sys.stderr,
        )
    return int(bool(wrong))


def _text(path: Path | None) -> str:
    # `read_text` has a clear message for a file that is no UTF-8 text, such as a Word document.
    return "" if path is None else read_text(path)
