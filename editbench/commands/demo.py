"""`editbench demo`: every method on every attribute of the embedded world, then the table and the page."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from editbench.base.conf import group_options
from editbench.base.files import read_json
from editbench.base.progress import status
from editbench.report import load, print_table, report
from editbench.run.compose import compose_config
from editbench.run.loading import bank_folder, load_bank, load_networks
from editbench.run.record import peak_memory_mb
from editbench.run.sweep import say, summarise
from editbench.run.workers import default_workers, run_jobs

EXAMPLES = """examples:
  editbench demo
  editbench demo --out /data/demo --device cuda starts.n=1400
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "editbench demo",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder of the records and the report"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes (default: one a core, at most 4; GPU: one)",
    )
    parser.add_argument(
        "overrides", nargs="*", help="configuration overrides, as for `editbench run`"
    )
    args = parser.parse_args(argv)
    began = time.perf_counter()
    common = [
        "budget=demo",
        "name=demo",
        f"out={args.out}",
        f"device={args.device}",
        *args.overrides,
    ]
    base = compose_config(common)
    attributes = load_networks(base).judge.attributes.names
    methods = demo_methods()
    say(
        f"demo: {len(methods)} methods ({', '.join(methods)}) on {len(attributes)} attributes; bank of "
        f"{base.bank.n} samples"
    )
    bank_found = (bank_folder(base)[0] / "bank.json").exists()
    load_bank(base)

    # Attribute by attribute, so that the methods are fitted side by side at the start; those of many classes, whose
    # fits are the longest, stand last in the world and go first here.
    composed = [compose_config([*common, f"method={method}"]) for method in methods]
    configs = [
        cast(DictConfig, OmegaConf.merge(cfg, {"attribute": attribute}))
        for attribute in reversed(attributes)
        for cfg in composed
    ]
    outcomes = []
    for cfg, outcome in run_jobs(configs, args.workers or default_workers(args.device)):
        outcomes.append({"job": f"{cfg.method.name} x {cfg.attribute}", **vars(outcome)})
    code = summarise(outcomes)
    say(reuse(bank_found, outcomes, args.out))
    runs = {
        outcome["run_id"] for outcome in outcomes
    }  # records of earlier demos stay, but in no table of this one
    with status("drawing the report"):
        page = report(args.out, only=runs)
    print_table(load(args.out, runs))
    say(
        f"demo took {time.perf_counter() - began:.0f} s, peak memory of a process "
        f"{peak_memory_mb(args.device):.0f} MiB"
    )
    print(f"table  {page.parent / 'table.csv'}\nreport {page}")
    return code


def reuse(bank_found: bool, outcomes: list[dict], out: Path) -> str:
    """What this demo did not have to do again: the bank, records, and the fits of methods whose jobs ran."""
    records = sum(outcome["reused"] for outcome in outcomes)
    fits: dict[str, bool] = {}  # method -> was every fit there already
    for outcome in outcomes:
        made = out / outcome["run_id"] / "provenance.json"
        if not outcome["reused"] and outcome["run_id"] and made.exists():
            method = outcome["job"].split(" x ")[0]
            fits[method] = fits.get(method, True) and read_json(made)["fit_cached"]
    parts = ["the bank"] * bank_found + [f"{records} of {len(outcomes)} records"] * (records > 0)
    parts += [f"the fits of {', '.join(name for name, cached in fits.items() if cached)}"] * any(
        fits.values()
    )
    return f"reused from before: {'; '.join(parts) or 'nothing'}"


def demo_methods() -> list[str]:
    """Methods whose configuration does not opt out with `demo: false` (they need files that are not in the box)."""
    return [name for name, config in group_options("method").items() if config.get("demo", True)]
