"""The summary of a sweep, made from the outcomes that its jobs left.

With any launcher and on any machine, every job of a sweep writes its outcome as a small file to the
sweep's folder. A job without such a file did not report back.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editbench.base.errors import BadFile
from editbench.base.files import read_json
from editbench.base.progress import print_message
from editbench.run.follow import outcome_numbers
from editbench.run.job_names import full_title, own_words

LISTED = 20  # jobs that a line of the summary names
# Words of the failed jobs and of all jobs of a sweep -> the command that runs the failed ones
# again.
Again = Callable[[Sequence[Sequence[str]], Sequence[Sequence[str]]], str]


@dataclass(frozen=True)
class Sweep:
    """A sweep under way.

    Args:
        folder: where its jobs leave their outcomes, as NUMBER.json.
        jobs: the overrides of each job, in order.
    """

    folder: Path
    jobs: list[list[str]]

    @property
    def own(self) -> list[list[str]]:
        """Of each job, the words that its title lacks."""
        return own_words(self.jobs)


def summarize_sweep(
    sweep: Sweep,
    stopped: bool = False,
    again: Again | None = None,
    describe_end: Callable[[int], str] = lambda _: "",
) -> int:
    """Print the summary of a sweep from the outcomes that its jobs left.

    Args:
        sweep: that has ended.
        stopped: whether a person stopped it.
        again: makes the command that runs the failed jobs again.
        describe_end: number of a job without an outcome -> why it left none, or ''.

    Returns:
        The exit code, see `print_summary`.
    """
    # The launcher's results are ignored, since a worker that was killed returns nothing.
    outcomes = _read_outcomes(sweep.folder)
    for number, words in enumerate(sweep.own):
        if number in outcomes:
            outcomes[number]["job"] = full_title(outcomes[number]["job"], words)
    common: set[str] = set()  # words that all jobs share, which do not distinguish them
    if len(sweep.jobs) > 1:
        common = set.intersection(*map(set, sweep.jobs))
    lost: list[str] = []
    to_repeat: list[list[str]] = []
    for number, job in enumerate(sweep.jobs):
        if number not in outcomes or outcomes[number]["status"] == "failed":
            to_repeat.append(job)
        if number not in outcomes:
            own = " ".join(word for word in job if word not in common)
            # After Ctrl-C they are only counted.
            end = "" if stopped else describe_end(number)
            lost.append(f"#{number} {own}: {end}" if end else f"#{number} {own}")
    command = again(to_repeat, sweep.jobs) if again and to_repeat else ""
    return print_summary(list(outcomes.values()), lost, stopped, command)


def print_summary(
    outcomes: Sequence[dict[str, Any]],
    lost: Sequence[str] = (),
    stopped: bool = False,
    again: str = "",
) -> int:
    """Print how many jobs were done, skipped and failed, and why.

    Args:
        outcomes: one mapping per job, with the fields of Outcome and the key 'job', its title.
        lost: titles of jobs that left no outcome. They count as failed unless a person stopped the
            sweep.
        stopped: whether a person stopped the sweep.
        again: the command that runs the failed jobs again; '' for none.

    Returns:
        The exit code: 1 if any job failed.
    """
    by_status: dict[str, list[dict[str, Any]]] = {"done": [], "skipped": [], "failed": []}
    for outcome in outcomes:
        by_status[outcome["status"]].append(outcome)
    parts = [f"{len(jobs)} {status}" for status, jobs in by_status.items()]
    if lost:
        parts.append(f"{len(lost)} not finished")
    reused = sum(outcome["reused"] for outcome in outcomes)
    found = f" ({reused} reused)" if reused else ""
    count = len(outcomes) + len(lost)
    all_jobs = "1 job" if count == 1 else f"{count} jobs"
    print_message(f"\n{all_jobs}: {', '.join(parts)}{found}")
    for status in ("skipped", "failed"):
        # Many jobs may have the same reason, which is printed once.
        by_reason: dict[str, list[str]] = {}
        for outcome in by_status[status]:
            by_reason.setdefault(outcome["reason"], []).append(str(outcome["job"]))
        for reason, jobs in by_reason.items():
            print_message(f"  {status}  {_listed(jobs)}: {reason}")
    # After Ctrl-C, jobs without an outcome are expected.
    are_missed = bool(lost) and not stopped
    if are_missed:
        _print_lost(lost)
    failed = bool(by_status["failed"])
    if again and (failed or are_missed):
        print_message(f"run them again: {again}")
    return int(failed or are_missed)


def again_command(
    command: Sequence[str],
    overrides: Sequence[str],
    failed: Sequence[Sequence[str]],
    jobs: Sequence[Sequence[str]],
) -> str:
    """The command that runs the failed jobs of a sweep again.

    The swept values are narrowed to those of the failed jobs. Their product may contain other jobs
    too, whose records are found, so they are not repeated.

    Args:
        command: the program with its flags, such as editbench run -m.
        overrides: words of the command line.
        failed: words of each failed job.
        jobs: words of each job of the sweep.
    """
    values: dict[str, dict[str, None]] = {}  # key -> values of all jobs
    for job in jobs:
        for word in job:
            key, _, value = word.partition("=")
            values.setdefault(key, {})[value] = None
    swept = {key for key, found in values.items() if len(found) > 1}
    narrowed: dict[str, str] = {}
    for key in sorted(swept):
        chosen = [word.partition("=")[2] for job in failed for word in job if _key(word) == key]
        narrowed[key] = f"{key}={','.join(dict.fromkeys(chosen))}"
    words = [narrowed.pop(_key(word), word) for word in overrides]
    # The remaining keys are swept by an experiment and not by a word.
    return shlex.join([*command, *words, *narrowed.values()])


def _read_outcomes(folder: Path) -> dict[int, dict[str, Any]]:
    """Number of a job -> the outcome that it left. Damaged files are printed and left out."""
    outcomes: dict[int, dict[str, Any]] = {}
    for number in outcome_numbers(folder):
        try:
            outcomes[number] = read_json(folder / f"{number}.json")
        except BadFile as error:
            print_message(str(error))
    return outcomes


def _listed(jobs: Sequence[str]) -> str:
    """The first LISTED titles in one line, and the number of the others."""
    named = "; ".join(jobs[:LISTED])
    if len(jobs) > LISTED:
        named += f"; and {len(jobs) - LISTED} more"
    return named


def _print_lost(lost: Sequence[str]) -> None:
    for job in lost[:LISTED]:
        print_message(f"  not finished  {job}")
    if len(lost) > LISTED:
        print_message(f"  not finished  and {len(lost) - LISTED} more")
    print_message(
        "these jobs did not report back: their workers were killed (out of memory?), cancelled or "
        "stopped. Finished jobs and bank shards are kept; run the same command to complete the rest"
    )


def _key(word: str) -> str:
    return word.partition("=")[0]
