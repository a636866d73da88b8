"""Run every method on every evaluated attribute of the embedded world, then make tables and a page.

A method that draws its examples, directions or training starts at random runs with several seeds, as
many as its YAML sets. If the networks of `editbench fetch digiface` are installed, a few methods also
run on a GAN of realistic faces, in a separate section.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editbench.base.conf import group_options, quoted
from editbench.base.errors import EditbenchError
from editbench.base.files import read_json, usable_folder
from editbench.base.progress import print_message, status
from editbench.base.validation import check_at_least, check_kind
from editbench.base.workers import prepare_workers
from editbench.commands.options import CommandParser, add_config_dir
from editbench.networks.digiface import load as digiface
from editbench.report import Style, every_setting, load, print_table, write_report
from editbench.run.compose import compose_settings
from editbench.run.loading import load_bank, load_networks, locate_bank
from editbench.run.overrides import check_words_have_effect
from editbench.run.protocol import check_starts, evaluated_names
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.run.sweep_summary import print_summary
from editbench.run.workers import default_workers, run_jobs

EXAMPLES = """examples:
  editbench demo
  editbench demo starts.near=target
  editbench demo --out /data/demo --device cuda starts.n=600
  editbench demo --config-dir my_conf          adds the methods of my_conf/method/
"""
# On the GAN of real faces, a sample takes ten times as long. So there are few methods: one of each
# kind, and a floor.
DIGIFACE_METHODS = ("gradctrl", "interfacegan_conditional", "sefa", "random")


def main(argv: list[str]) -> int:
    parser = _make_parser()
    args = parser.parse_intermixed_args(argv)
    check_at_least("--workers", args.workers, 0)
    began = time.perf_counter()
    workers = args.workers or default_workers(args.device)
    if workers > 1:
        prepare_workers()
    methods = demo_methods(args.config_dir)
    # All settings are checked before the first network is loaded.
    composed = demo_settings(
        methods, args.out, args.device, args.overrides, args.config_dir, workers
    )
    base = composed[0]
    known = load_networks(base).judge.attributes
    attributes = evaluated_names(base, known)
    jobs = in_demo_order(composed, attributes)
    # Checked once for all jobs, and before the bank is built.
    check_starts(base, len(attributes))
    print_message(
        f"demo: {len(methods)} methods ({', '.join(methods)}) on {', '.join(attributes)}, "
        f"{len(jobs)} jobs (all seeds); bank of {base.bank.spec.n} samples"
    )
    # Looked up before the build, for the line about what was reused.
    bank_found = locate_bank(base).is_built
    # Built here and not in a worker, while the other workers would wait without any output.
    load_bank(base)
    # Overrides are meant for the embedded world.
    if digiface.is_here() and not args.overrides:
        jobs += digiface_jobs(args.out, args.device, workers)
    outcomes: list[dict[str, Any]] = []
    for settings, outcome in run_jobs(jobs, workers):
        outcomes.append({"job": settings.title, **vars(outcome)})
    code = print_summary(outcomes, again=shlex.join(["editbench", "demo", *argv]))
    print_message(describe_reuse(bank_found, outcomes, args.out))
    # The folder may have records of earlier demos, which are not reported.
    runs = {outcome["run_id"] for outcome in outcomes}
    with status("drawing the report"):
        results = load(args.out, runs, by_seed=False).with_failures()
        style = Style(folders=tuple(args.config_dir))
        every = every_setting(results, style)
        # The embedded world comes first.
        every.sort(key=lambda numbers: numbers.name.startswith("digiface"))
        page = write_report(results, every, files=False, style=style)
    print_table(results, every=every, style=style)
    print_message(f"demo took {time.perf_counter() - began:.0f} s")
    print(f"table  {page.parent / 'table.csv'}\nreport {page}")
    print(f"to write the figures for a paper: editbench report {shlex.quote(str(args.out))}")
    return code


def _make_parser() -> CommandParser:
    parser = CommandParser(
        "editbench demo",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "--out",
        type=usable_folder,
        default=Path("runs/demo"),
        help="folder of the records and the report",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="worker processes (default: one per core, at most 4; on a GPU: one)",
    )
    parser.add_argument(
        "overrides", nargs="*", help="configuration overrides, as for `editbench run`"
    )
    add_config_dir(parser)
    return parser


def demo_methods(more: Sequence[Path] = ()) -> list[str]:
    """The methods of the demo, including those of a user's own configuration folders.

    Methods with `demo: false` in their YAML are left out: they need files that are not in the
    package, or another method of their family is in the demo.
    """
    options = group_options("method", more)
    return [name for name, config in options.items() if config.get("demo", True)]


def demo_settings(
    methods: Sequence[str],
    out: Path,
    device: str,
    overrides: Sequence[str],
    more: Sequence[Path] = (),
    workers: int = 1,
) -> list[Settings]:
    """The settings of each method, for the default attribute and seed.

    Args:
        methods: their names.
        out: folder of the records.
        device: of the networks.
        overrides: words of the command line.
        more: a user's own configuration folders.
        workers: processes that build the bank.

    Raises:
        EditbenchError: a word sets what the command itself sets, or a value is wrong.
    """
    for word in overrides:
        key = word.partition("=")[0].lstrip("+")
        if key in ("experiment", "budget"):
            raise EditbenchError(
                f"{word}: the demo is one experiment with one budget, experiment=demo budget=demo; for "
                "others, use `editbench run -m`"
            )
        if key in ("method", "attribute"):
            raise EditbenchError(
                f"{word}: the demo runs every method on every evaluated attribute; to run "
                "only some, use `editbench run -m experiment=demo budget=demo`; for other attributes, "
                "set evaluated=[NAME,NAME]"
            )
    common = [
        "experiment=demo",
        "budget=demo",
        f"out={quoted(out)}",
        f"device={device}",
        f"bank.workers={workers}",
        *overrides,
    ]
    composed = [compose_settings([*common, f"method={method}"], more) for method in methods]
    check_words_have_effect(composed, overrides)
    return composed


def in_demo_order(composed: Sequence[Settings], attributes: Sequence[str]) -> list[Settings]:
    """The jobs of every method on every attribute, in an order that keeps all workers busy.

    The jobs of one attribute follow each other, so that all methods are fitted in parallel at the
    start. The scorer's last attributes come first: they have the most classes, and their fits take
    longest.

    Args:
        composed: the settings of each method; `seeds` in its YAML is its number of seeds.
        attributes: the evaluated attributes, in the scorer's order.
    """
    jobs: list[Settings] = []
    for attribute in reversed(attributes):
        for settings in composed:
            for seed in demo_seeds(settings):
                jobs.append(settings.with_values(attribute=attribute, seed=seed))
    return jobs


def digiface_jobs(out: Path, device: str, workers: int = 1) -> list[Settings]:
    """The jobs of DIGIFACE_METHODS on every attribute of real faces. Their bank is built here.

    Args:
        out: folder of the records.
        device: of the networks.
        workers: processes that build the bank.
    """
    words = ["experiment=digiface", "budget=demo", f"out={quoted(out)}", f"device={device}"]
    words.append(f"bank.workers={workers}")
    composed = [compose_settings([*words, f"method={method}"]) for method in DIGIFACE_METHODS]
    base = composed[0]
    attributes = evaluated_names(base, load_networks(base).judge.attributes)
    check_starts(base, len(attributes))
    print_message(
        f"faces of digiface: {', '.join(DIGIFACE_METHODS)} on {', '.join(attributes)}; "
        f"bank of {base.bank.spec.n} samples"
    )
    load_bank(base)
    return [settings.with_values(attribute=name) for name in attributes for settings in composed]


def demo_seeds(settings: Settings) -> list[int]:
    """The seeds of a method in the demo: `seed` and the following ones, `method.seeds` in total.

    Raises:
        EditbenchError: method.seeds is not a whole number of at least 1.
    """
    count = settings.plain["method"].get("seeds", 1)
    check_kind("method.seeds", count, "int", 3)
    check_at_least("method.seeds", count, 1)
    return list(range(settings.seed, settings.seed + count))


def describe_reuse(bank_found: bool, outcomes: Sequence[dict[str, Any]], out: Path) -> str:
    """A line about what this demo reused: the bank, records, and fits.

    Args:
        bank_found: whether the bank existed.
        outcomes: one mapping per job, with the fields of Outcome and the key 'job', its title.
        out: folder of the records.
    """
    fits: dict[str, bool] = {}  # method with a job that ran -> whether all its fits were cached
    for outcome in outcomes:
        made = out / outcome["run_id"] / Record.PROVENANCE
        if outcome["reused"] or not outcome["run_id"] or not made.exists():
            continue
        method = outcome["job"].split(" x ")[0]
        fits[method] = fits.get(method, True) and read_json(made)["fit_cached"]
    parts: list[str] = []
    if bank_found:
        parts.append("the bank")
    # For a reused record, it is unknown whether its fit is still in the cache.
    records = sum(outcome["reused"] for outcome in outcomes)
    if records:
        parts.append(f"{records} of {len(outcomes)} records")
    # A method is named only if none of its jobs had to fit anything.
    cached = [name for name, all_cached in fits.items() if all_cached]
    if cached:
        parts.append(f"the fits of {', '.join(cached)}")
    return f"reused: {'; '.join(parts) or 'nothing'}"
