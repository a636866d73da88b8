"""`editbench plan`: what `editbench run -m` with the same words would run, and what is there."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from rich.markup import escape
from rich.table import Table

from editbench.base.errors import EditbenchError
from editbench.base.progress import results_console, status
from editbench.commands.command_line import CommandLine
from editbench.run.job_names import NAMING, own_words
from editbench.run.plan import STATUSES, PlannedJob, as_data, banks, plan_sweep, reasons, totals

HELP = """usage: editbench plan [--json] [arguments of `editbench run -m`]

Show for every job of a sweep whether its record exists, and whether its bank and fit are cached.
Nothing is built, fitted or written. The sweep would reuse done and skipped jobs, and run failed and
missing ones.

examples:
  editbench plan method=gradctrl,interfacegan attribute=smile,age
  editbench plan experiment=chen2022_table1 budget=demo
  editbench plan experiment=chen2022_table1 seed='range(3)' --json

exit code: 0; 1 if a job cannot run at all (an unknown attribute, a missing file), with the reason
"""
JSON = "--json"
COLOURS = {
    "done": "green",
    "skipped": "dim",
    "failed": "bold red",
    "missing": "yellow",
    "impossible": "bold red",
}


def main(argv: list[str]) -> int:
    # Not argparse, since the words are those of `run`, including flags of Hydra.
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    line = CommandLine.parse([word for word in argv if word != JSON], "editbench plan", own=(JSON,))
    if line.shows:
        raise EditbenchError(f"{line.shows} does not apply to a plan (see `editbench plan --help`)")
    line = line.with_names()
    # No progress bar in the output of a pipe.
    with status("planning") if sys.stderr.isatty() else nullcontext():
        jobs = plan_sweep(line.overrides, line.folders)
    if JSON in argv:
        print(json.dumps(as_data(jobs), indent=1))
    else:
        print_plan(jobs)
    return int(any(job.status == "impossible" for job in jobs))


def print_plan(jobs: Sequence[PlannedJob]) -> None:
    """Print the table, the banks, the reasons and the totals."""
    # In a pipe, rich would cut the table at 80 columns; this console does not.
    out = results_console()
    out.print(job_table(jobs))
    for bank in banks(jobs):
        state = "cached"
        if not bank.built:
            state = "to be built"
            if bank.shards_there:  # an earlier build was interrupted and will be resumed
                state += f", {bank.shards_there} of {bank.shards} shards built"
        out.print(f"bank {bank.id}: {state}, {bank.n} samples", highlight=False)
    for (name, reason), count in reasons(jobs).items():
        # A reason may contain brackets, which rich would read as markup.
        text = f"{name}, {counted_jobs(count)}: {reason}"
        out.print(text, markup=False, highlight=False, soft_wrap=True)
    sums = totals(jobs)
    counts = ", ".join(f"{sums[name]} {name}" for name in STATUSES if sums[name])
    text = (
        f"{counted_jobs(sums['jobs'])}: {counts}; to run: {sums['to_run']}; "
        f"fits to compute: {sums['to_fit']}"
    )
    if sums["to_tune"]:
        text += f"; tunings for one attribute: {sums['to_tune']}"
    out.print(text, highlight=False, soft_wrap=True)


def counted_jobs(count: int) -> str:
    """'1 job' or '5 jobs'."""
    return "1 job" if count == 1 else f"{count} jobs"


def job_table(jobs: Sequence[PlannedJob]) -> Table:
    """One row per job. A column 'more' has the differing overrides that have no other column."""
    varied = [" ".join(words) for words in own_words([job.names.overrides for job in jobs])]
    # Without such overrides the column would be empty.
    more = ["more"] if any(varied) else []
    table = Table(*NAMING, *more, "status", "run id", "bank", "fit", box=None)
    for job, words in zip(jobs, varied):
        names = job.names
        cells = [names.method, names.attribute, str(names.seed)]
        if more:
            cells.append(words)
        # Escaped, since brackets would be read as markup. The colours are markup.
        cells = [escape(cell) for cell in cells]
        cells += [f"[{COLOURS[job.status]}]{job.status}[/]", escape(names.run_id)]
        cells += [bank_cell(job), fit_cell(job)]
        table.add_row(*cells)
    return table


def bank_cell(job: PlannedJob) -> str:
    """The state of a job's bank; '' for a job that cannot run."""
    if job.bank is None:
        return ""
    if job.bank.built:
        return "cached"
    return "to build"


def fit_cell(job: PlannedJob) -> str:
    """The state of a job's fit; '' for a job that cannot run."""
    if job.bank is None:
        return ""
    if job.fit_cached:
        return "cached"
    if job.to_run:
        return "to fit"
    return "-"  # a record that is there needs no fit
