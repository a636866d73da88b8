"""The outcome of a job: as a file for the sweep, and as a printed line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editbench.base.errors import EditbenchError, reason_of
from editbench.base.files import write_json
from editbench.run.caveats import remarks
from editbench.run.record import Record
from editbench.run.settings import Settings

FIRST = 2  # scalar rows of a record that are printed first, whatever their metrics
MOST = 5  # rows of a record that are printed


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    Args:
        status: 'done', 'skipped' or 'failed'.
        reason: why the job was skipped or failed; '' if it was done.
        run_id: name of its record; '' if the job failed before it had one.
        reused: whether an earlier record was found.
        removed: metrics whose rows were removed from that record, since this job's settings do not
            include them.
        seconds: how long the job took, without the time to build its bank or to wait for it; 0 if
            it did not begin, if an earlier record was found, or for a part of a bank, whose time
            says nothing about other parts.
    """

    status: str
    reason: str = ""
    run_id: str = ""
    reused: bool = False
    removed: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)


def write_outcome(folder: Path, number: int, title: str, outcome: Outcome, text: str) -> None:
    """Write the outcome of a job of a sweep, and what to print of it, to NUMBER.json.

    Args:
        folder: of the sweep.
        number: of the job in its sweep, from 0.
        title: of the job.
        outcome: of the job.
        text: what to print after the title.
    """
    write_json(folder / f"{number}.json", {"job": title, **vars(outcome), "told": text})


def write_failure(folder: Path, number: int, title: str, error: EditbenchError) -> Outcome:
    """Write the outcome of a job whose settings are wrong, and return it.

    Args:
        folder: of the sweep.
        number: of the job in its sweep, from 0.
        title: the words of the job, since there are no settings to name it by.
        error: the reason.
    """
    outcome = failed_outcome(error)
    write_outcome(folder, number, title, outcome, f"failed: {outcome.reason}")
    return outcome


def failed_outcome(error: Exception) -> Outcome:
    """The outcome of a job that failed before it could leave a record."""
    return Outcome("failed", reason_of(error))


def describe_outcome(settings: Settings, outcome: Outcome) -> str:
    """Text to print after the title of a job: its status, and its main numbers or its reason.

    Args:
        settings: of the job; they give the folder of its record.
        outcome: of the job. If it is 'done', the record is read.
    """
    head = outcome.status
    if outcome.reused:
        head += " (reused)"
    if outcome.status != "done":
        return f"{head}: {outcome.reason}"
    record = Record.read(settings.out / outcome.run_id)
    notes = remarks(record.provenance())
    if outcome.removed:
        names = ", ".join(outcome.removed)
        notes.append(f"removed rows of {names}, which metric=[...] does not list")
    text = "; ".join(notes)
    return f"{head}: {headline(record)}" + (f" ({text})" if text else "")


def headline(record: Record) -> str:
    """The main numbers of a record, as text.

    These are the first FIRST scalar rows, and of each further metric the first row, if it is a
    scalar; MOST rows altogether.
    """
    rows = record.rows()
    first = rows[rows["x"].isna()].head(FIRST)
    # A metric whose first row lies on a curve has no single number to show.
    others = rows[~rows["group"].isin(first["group"])].drop_duplicates("group")
    scalars = others[others["x"].isna()]
    shown = rows.loc[[*first.index, *scalars.index][:MOST]]
    return ", ".join(_number(row) for row in shown.to_dict("records"))


def _number(row: Mapping[Any, Any]) -> str:
    """Text such as 'accuracy 0.665 [0.597, 0.727]', without brackets if there is no interval."""
    if math.isnan(row["value"]):
        return f"{row['metric']}: {row['note'] or 'no value'}"
    text = f"{row['metric']} {row['value']:.3f}"
    if math.isnan(row["low"]):
        return text
    return f"{text} [{row['low']:.3f}, {row['high']:.3f}]"
