"""Which runs of two folders are compared with each other, and what differs between them.

A run whose search found no control is compared like a finished one: it failed on all its starts
(`editbench.report.no_control`).

Runs are paired as in the regression check (`editbench.regression.compare.pair_runs`): they have the
same method, attribute and seed, and variants have the same options and setting. Runs with different
generators or judges are never paired, since their numbers have different meanings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from editbench.base.errors import EditbenchError
from editbench.regression import PinnedRun, describe_runs, pin_runs
from editbench.regression.compare import differences, pair_runs
from editbench.report.load import Results, load, require_readable

# Keys of the setting that determine the meaning of a number.
WORLD = ("generator", "hash.generator", "scorer.name", "hash.judge", "judged_in")
# Keys of the setting that determine which sample and class the id of a start refers to. All others
# may differ between the folders: their effect is what is compared.
START = ("bank.seed", "hash.bank", "inversion.", "target")


@dataclass(frozen=True)
class Pair:
    """The runs of both folders with the same method, attribute and seed.

    Args:
        a: run of the first folder, without its numbers.
        b: run of the second folder, without its numbers.
    """

    a: PinnedRun
    b: PinnedRun

    @property
    def method(self) -> str:
        """The method, with the options that distinguish its variants in the first folder."""
        job = f"{self.a.method} x {self.a.attribute}, seed {self.a.seed}"
        return self.a.method + self.a.label.removeprefix(job)

    @property
    def without_control(self) -> list[str]:
        """The sides whose search found no control: 'A', 'B', both or none."""
        return [side for side, run in (("A", self.a), ("B", self.b)) if run.status != "done"]

    @property
    def changed(self) -> list[str]:
        """Options and settings that differ, as 'key old -> new'."""
        options = differences(self.a.options, self.b.options)
        return [*options, *differences(self.a.setting, self.b.setting)]

    def refers_to_same_starts(self) -> bool:
        """Whether the id of a start means the same sample and target class in both runs."""
        own = {key: value for key, value in self.a.setting.items() if key.startswith(START)}
        if differences(own, self.b.setting):
            return False
        # Only an imported bank has this key. A run that was not walked has no hashes at all.
        walked = all("hash.judge" in run.setting for run in (self.a, self.b))
        one_imported = ("hash.bank" in self.a.setting) != ("hash.bank" in self.b.setting)
        return not (walked and one_imported)


@dataclass(frozen=True)
class Alone:
    """A run or record that is not compared.

    Args:
        side: 'A', 'B', or 'both'.
        run: its label.
        reason: why.
    """

    side: str
    run: str
    reason: str


@dataclass(frozen=True)
class Pairing:
    """The runs of two folders.

    Args:
        a: records of the first folder, with seeds not pooled and failures counted.
        b: records of the second folder, likewise.
        pairs: runs that have numbers in both.
        alone: all other runs, and records that cannot be read.
        notes: which record is used, for jobs with several records.
    """

    a: Results
    b: Results
    pairs: list[Pair]
    alone: list[Alone] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def pair_folders(first: Path, second: Path) -> Pairing:
    """Pair the runs of two folders.

    Args:
        first: runs folder A.
        second: runs folder B.

    Raises:
        EditbenchError: a folder has no readable record, both are the same, or they have no run in
            common.
    """
    if first.resolve() == second.resolve():
        raise EditbenchError(
            f"{first} and {second} are the same folder; name the folders of two sweeps, such as "
            "runs/before and runs/after"
        )
    a = load(first).with_failures()
    b = load(second).with_failures()
    require_readable(a)
    require_readable(b)
    left, left_notes = pin_runs(without_numbers(a))
    right, right_notes = pin_runs(without_numbers(b))
    left_measured = measured_runs(a)
    right_measured = measured_runs(b)
    pairs = []
    alone = []
    apart: dict[str, None] = {}
    taken = set()
    for old, new in pair_runs(left, right):
        if new is None:
            alone.append(Alone("A", old.label, why_alone(old, right, "B")))
            continue
        taken.add(new)
        other = differences(world_of(old.setting), new.setting)
        if other:
            apart |= dict.fromkeys(other)
            alone.append(Alone("both", old.label, f"not comparable: {', '.join(other)}"))
        elif old.run_id in left_measured and new.run_id in right_measured:
            pairs.append(Pair(old, new))
        else:
            alone.append(Alone("both", old.label, f"A: {state(old)}; B: {state(new)}"))
    for new in right:
        if new not in taken:
            alone.append(Alone("B", new.label, why_alone(new, left, "A")))
    for side, results in (("A", a), ("B", b)):
        alone += [Alone(side, one.name, f"unreadable: {one.reason}") for one in results.problems]
    if not pairs:
        raise EditbenchError(nothing_in_common(first, second, left, right, list(apart)))
    notes = [f"A: {note}" for note in left_notes] + [f"B: {note}" for note in right_notes]
    return Pairing(a, b, pairs, alone, notes)


def measured_runs(results: Results) -> set[str]:
    """The run ids of finished runs, and of those without a control that have rows of failures.

    Args:
        results: of a folder, with failures counted.
    """
    runs = results.runs
    failed = (runs["no_control"] > 0) & runs["run_id"].isin(results.rows["run_id"])
    return set(runs.loc[(runs["status"] == "done") | failed, "run_id"])


def without_numbers(results: Results) -> Results:
    """The same records without rows and samples, which are not needed for pairing."""
    return replace(results, rows=results.rows.iloc[:0], samples=results.samples.iloc[:0])


def world_of(setting: Mapping[str, Any]) -> dict[str, Any]:
    """The keys WORLD of a setting."""
    return {key: value for key, value in setting.items() if key in WORLD}


def state(run: PinnedRun) -> str:
    """The status of a run, with the reason if it is not done."""
    return f"{run.status}: {run.reason}" if run.reason else run.status


def why_alone(run: PinnedRun, others: list[PinnedRun], name: str) -> str:
    """Why a run has no counterpart in the other folder.

    Args:
        run: the run.
        others: the runs of the other folder.
        name: of the other folder.
    """
    rivals = [other for other in others if other.job == run.job]
    if rivals:
        return f"none of the {len(rivals)} runs in {name} has the same options and setting"
    seeds = sorted(
        other.seed
        for other in others
        if (other.method, other.attribute) == (run.method, run.attribute)
    )
    if seeds:
        return f"{name} has only other seeds: {', '.join(map(str, seeds))}"
    return f"not in {name}"


def nothing_in_common(
    first: Path, second: Path, left: list[PinnedRun], right: list[PinnedRun], apart: list[str]
) -> str:
    """The message of an error: no run is done in both folders.

    Args:
        first: folder A.
        second: folder B.
        left: runs of A.
        right: runs of B.
        apart: differences of the generator or judge, for paired runs; may be empty.
    """
    # Runs were paired, but they have different generators or judges.
    if apart:
        return (
            f"{first} and {second} cannot be compared: {', '.join(apart)}. Numbers of another "
            "generator or judge answer another question; `editbench transfer` compares rankings"
        )
    return (
        f"{first} and {second} have no finished run in common (same method, attribute and seed): "
        f"{first} holds {describe_runs(left)}; {second} holds {describe_runs(right)}"
    )
