"""Comparison of pinned numbers with new ones: what moved, what agrees, what is missing, and what
cannot be compared.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from editbench.regression.pins import NAN, Key, Pin, PinnedRun
from editbench.stats.intervals import percentiles, resampled_means
from editbench.walk.rows import written_key

# The meanings are in `Finding`.
Verdict = Literal[
    "moved",
    "lost",
    "broke",
    "missing",
    "not comparable",
    "new",
    "noise",
    "within",
    "same",
    "unread",
]
FAILS: tuple[Verdict, ...] = ("moved", "lost", "broke", "missing")
REPORTED: tuple[Verdict, ...] = ("not comparable", "new")
AGREES: tuple[Verdict, ...] = ("noise", "within", "same")
VERDICTS: tuple[Verdict, ...] = (*FAILS, *REPORTED, *AGREES, "unread")  # in the order of tables
SHARED_STARTS = 0.9  # least share of common starts; below it the two draws of starts differ
# Skipped is above failed, since a job that gives the reason why it cannot run is in order.
RANK = {"done": 2, "skipped": 1, "failed": 0}
SLACK = 1e-9  # relative, so that a difference equal to its tolerance passes despite rounding


@dataclass(frozen=True)
class Finding:
    """The result of comparing one row, or a whole run.

    Attributes:
        run: label of the run.
        row: name of the number; '' for the whole run.
        verdict: what was found:

            - 'moved': beyond the tolerance, and the paired interval excludes zero or there are no
              samples;
            - 'lost': the row no longer exists or has no value;
            - 'broke': the run is no longer done;
            - 'missing': there is no such run;
            - 'not comparable': the setting or the version of the metric differs;
            - 'new': not pinned;
            - 'noise': beyond the tolerance, but the paired interval contains zero;
            - 'within': within the tolerance;
            - 'same': equal;
            - 'unread': a note says that the number should not be read.
        text: further explanation.
        old: pinned value.
        new: value now.
        difference: new - old.
        low: lower end of the paired interval of the difference; NaN without samples.
        high: upper end.
        pairs: number of starts that both have; 0 without samples.
        tolerance: of the pinned row.
    """

    run: str
    row: str
    verdict: Verdict
    text: str = ""
    old: float = NAN
    new: float = NAN
    difference: float = NAN
    low: float = NAN
    high: float = NAN
    pairs: int = 0
    tolerance: float = NAN


@dataclass(frozen=True)
class RegressionResult:
    """What `compare` found.

    Args:
        findings: in the order of the pins.
        notes: remarks that do not affect the verdicts.
        matched: whether any pinned run was found. If none was, the folder is probably of another
            experiment.
    """

    findings: list[Finding]
    notes: list[str]
    matched: bool

    def count(self, *verdicts: Verdict) -> int:
        """Number of findings with one of these verdicts."""
        return sum(finding.verdict in verdicts for finding in self.findings)

    def failures(self, allow_missing: bool = False, strict: bool = False) -> list[Finding]:
        """The findings that make the check fail.

        Args:
            allow_missing: whether missing runs are accepted.
            strict: whether numbers that cannot be compared count as failures.
        """
        kinds = set(FAILS)
        if strict:
            kinds.add("not comparable")
        if allow_missing:
            kinds.discard("missing")
        return [finding for finding in self.findings if finding.verdict in kinds]

    @property
    def blind(self) -> bool:
        """Whether runs were found, but no number or status could be compared."""
        # Such a check must not pass, although it has no failures.
        return (
            self.count("not comparable") > 0
            and self.count("moved", *AGREES, "lost", "broke", "unread") == 0
        )


def compare(pinned: Sequence[PinnedRun], found: Sequence[PinnedRun]) -> RegressionResult:
    """Compare every pinned run with its new one.

    Args:
        pinned: the runs of the baseline; each is paired with at most one of `found`.
        found: the runs of the folder that is checked.

    Returns:
        The findings of the pinned runs in their order, then a finding 'new' for each run of `found`
        that is not pinned. Changed options and changed code are notes.
    """
    pairs = pair_runs(pinned, found)
    # It may contain None, which is equal to no run.
    taken = {new for _, new in pairs}
    findings: list[Finding] = []
    recoded: Counter[str] = Counter()
    known: Counter[str] = Counter()  # runs whose code is known on both sides
    changes: Counter[tuple[str, str]] = Counter()
    for old, new in pairs:
        if new is None:
            findings.append(
                Finding(old.label, "", "missing", f"pinned as {old.status}, no such run now")
            )
            continue
        findings += compare_run(old, new)
        # Counted by the changed options, since a changed default affects the runs of all
        # attributes.
        changes[old.method, ", ".join(differences(old.options, new.options))] += 1
        if old.source and new.source:
            known[old.method] += 1
            recoded[old.method] += old.source != new.source
    notes = [
        f"{method}: options of {count} {'run' if count == 1 else 'runs'} differ from the pinned ones: "
        f"{changed}"
        for (method, changed), count in changes.items()
        if changed
    ]
    if any(recoded.values()):
        notes.append(f"code changed since the pins: {name_methods(recoded, known)}")
    findings += [
        Finding(new.label, "", "new", f"{new.status}, not pinned")
        for new in found
        if new not in taken
    ]
    return RegressionResult(findings, notes, any(new is not None for _, new in pairs))


def name_methods(some: Counter[str], every: Counter[str]) -> str:
    """List the methods of some records, as in 'gradctrl (2 of 12 records), sefa'.

    The numbers are omitted for a method if all of its records are meant.

    Args:
        some: method -> number of records that are meant; methods with 0 are omitted.
        every: method -> number of all its records.
    """
    named = []
    for method in sorted(some):
        if some[method] == every[method]:
            named.append(method)
        elif some[method]:
            named.append(f"{method} ({some[method]} of {every[method]} records)")
    return ", ".join(named)


def pair_runs(
    pinned: Sequence[PinnedRun], found: Sequence[PinnedRun]
) -> list[tuple[PinnedRun, PinnedRun | None]]:
    """Pair each pinned run with its new one.

    The new run has the same method, attribute and seed. Among several variants, the one with the
    same options and setting is chosen; otherwise the one with the same options, then the one with
    the same setting, then the only one that is left.

    Args:
        pinned: the pinned runs.
        found: the new runs; each is paired with at most one pinned run.

    Returns:
        (pinned run, new run) for every pinned run, in order. The new run is None if there is none,
        or if several fit equally well.
    """
    # The strictest test first, so that no run is paired with a variant of its counterpart.
    tests: list[Callable[[PinnedRun, PinnedRun], bool]] = [
        lambda old, new: (
            not differences(old.options, new.options) and not setting_mismatches(old, new)
        ),
        lambda old, new: not differences(old.options, new.options),
        lambda old, new: not setting_mismatches(old, new),
        lambda old, new: True,
    ]
    partner: dict[PinnedRun, PinnedRun] = {}
    for test in tests:
        pins = [old for old in pinned if old not in partner]
        taken = set(partner.values())
        free = [new for new in found if new not in taken]
        fits = {}
        for old in pins:
            fits[old] = {new for new in free if new.job == old.job and test(old, new)}
        for old in pins:
            # If two pinned runs fit the same new run, a later test decides.
            rivals = any(fits[old] & fits[other] for other in pins if other is not old)
            # The order of the runs must not matter, so an ambiguous pair is left open.
            if len(fits[old]) == 1 and not rivals:
                partner[old] = min(fits[old], key=lambda new: new.label)
    return [(old, partner.get(old)) for old in pinned]


def compare_run(old: PinnedRun, new: PinnedRun) -> list[Finding]:
    """Compare a pinned run with its new one.

    Args:
        old: the pinned run.
        new: its counterpart from `pair_runs`, whose status or setting may differ.

    Returns:
        A single finding for the whole run if its setting or status differs or if it was not done;
        otherwise one finding for each row of either run, sorted by key.
    """
    whole = _compare_status(old, new)
    if whole is not None:
        return [whole]
    pinned = _metric_versions(old)
    present = _metric_versions(new)
    findings = []
    for key in sorted(old.rows.keys() | new.rows.keys(), key=_sort_key):
        before = pinned.get(key[0])
        now = present.get(key[0])
        # Another version is another definition, so a difference is no regression.
        redefined = before is not None and now is not None and before != now
        # Only for display: rows are matched by the key itself.
        row = written_key(key)
        if key not in old.rows:
            # A new version may have other rows. The pinned rows are already 'not comparable'.
            if not redefined:
                value = new.rows[key].value
                findings.append(Finding(old.label, row, "new", "not pinned", new=value))
            continue
        pin = old.rows[key]
        finding = partial(Finding, old.label, row, old=pin.value, tolerance=pin.tolerance)
        if redefined:
            text = f"metric version {before} -> {now}; pin again"
            findings.append(finding(verdict="not comparable", text=text))
        elif key in new.rows:
            findings.append(compare_row(key, old, new))
        else:
            findings.append(finding(verdict="lost", text="the row no longer exists"))
    return findings


def _compare_status(old: PinnedRun, new: PinnedRun) -> Finding | None:
    """The finding about a run as a whole; None if its rows have to be compared."""
    # Checked first: with another judge or bank, not even the status has the same meaning.
    unequal = setting_mismatches(old, new)
    if unequal:
        return Finding(old.label, "", "not comparable", f"different setting: {', '.join(unequal)}")
    change = f"{old.status} -> {new.status}"
    if RANK[new.status] < RANK[old.status]:
        return Finding(old.label, "", "broke", f"{change}: {new.reason or 'no reason given'}")
    # An improvement, but there are no pinned numbers to compare with.
    if RANK[new.status] > RANK[old.status]:
        return Finding(old.label, "", "new", f"{change}; pin again")
    if old.status == "done":
        return None
    # Neither has rows.
    reason = f", the reason is now '{new.reason}'" if new.reason != old.reason else ""
    return Finding(old.label, "", "same", f"{old.status} as pinned{reason}")


def compare_row(key: Key, old: PinnedRun, new: PinnedRun) -> Finding:
    """Compare a row that both runs have.

    Args:
        key: of the row.
        old: the pinned run.
        new: the new run.
    """
    a = old.rows[key]
    b = new.rows[key]
    out = Finding(
        old.label, written_key(key), "same", old=a.value, new=b.value, tolerance=a.tolerance
    )
    # A number that could not be read when it was pinned cannot move.
    if a.note or not (math.isfinite(a.value) or math.isfinite(b.value)):
        text = f"pinned with a note: {a.note}" if a.note else "no value"
        return replace(out, verdict="unread", text=text)
    if not math.isfinite(a.value):
        return replace(out, verdict="new", text="pinned without a value")
    if not math.isfinite(b.value):
        reason = f": {b.note}" if b.note else ""
        return replace(out, verdict="lost", text=f"no longer has a value{reason}", new=NAN)
    # Checked after the missing value, which is a failure even if a note explains it.
    if b.note:
        return replace(out, verdict="unread", text=f"now has a note: {b.note}")
    gap = b.value - a.value
    out = replace(out, difference=gap)
    # An equal number needs no interval, and the bootstrap takes time.
    if gap == 0:
        return out
    # Without samples on both sides, only the tolerance decides.
    left = new.series(key)
    right = old.series(key)
    if left is not None and right is not None and len(left.index.intersection(right.index)):
        low, high, pairs = paired_interval(left, right)
        out = replace(out, low=low, high=high, pairs=pairs)
    # The tolerance before the interval: a small change passes even if it is significant.
    if abs(gap) <= a.tolerance * (1 + SLACK):
        return replace(out, verdict="within")
    if out.pairs and out.low <= 0 <= out.high:
        return replace(
            out, verdict="noise", text="beyond tolerance, but the paired interval contains zero"
        )
    return replace(
        out,
        verdict="moved",
        text=_direction(gap, b) + ("" if out.pairs else "; no samples, judged by tolerance alone"),
    )


def paired_interval(new: pd.Series, old: pd.Series) -> tuple[float, float, int]:
    """95 % bootstrap interval of mean(new) - mean(old).

    The two values of a start are drawn together. A start that only one side has counts only in the
    mean of that side, so that the interval is that of the difference of the two rows. If all starts
    are shared, this is the paired bootstrap.

    Args:
        new: values of a row by start, without NaN; the index has the ids of the starts.
        old: the same of the pinned row.

    Returns:
        Low end, high end, and the number of starts that both have.
    """
    # Sorted by start, since a draw selects rows by position.
    both = pd.concat([new, old], axis=1, keys=["new", "old"]).sort_index().to_numpy(np.float64)
    means = resampled_means(both, stream="paired")
    low, high = percentiles(means[:, :1] - means[:, 1:])[:, 0]
    return float(low), float(high), int(np.isfinite(both).all(1).sum())


def setting_mismatches(old: PinnedRun, new: PinnedRun) -> list[str]:
    """Why two runs cannot be compared, such as 'judge 586ab9d5b48a -> 0c1d2e3f4a5b'.

    Args:
        old: the pinned run. If a run was not walked, it has no hashes and no starts, and these are
            not compared.
        new: the new run.

    Returns:
        One text for each key of the setting whose values differ. If none differs, one text if they
        share too few starts. Empty if the runs can be compared.
    """
    found = differences(old.setting, new.setting)
    own = set(old.starts.tolist())
    others = set(new.starts.tolist())
    # If the setting differs, different starts are to be expected.
    if own and others and not found and not share_starts(own, others):
        found.append(
            f"only {len(own & others)} starts in common, of {len(old.starts)} pinned and "
            f"{len(new.starts)} new ones"
        )
    return found


def share_starts(own: set[int], others: set[int]) -> bool:
    """Whether two runs have at least the share SHARED_STARTS of all their starts in common.

    Args:
        own: ids of the starts of one run.
        others: ids of the starts of the other.
    """
    # Relative to the union, so that both fewer starts and different starts count.
    return len(own & others) >= SHARED_STARTS * len(own | others)


def differences(old: dict, new: dict) -> list[str]:
    """The keys of both mappings whose values differ, as text.

    A key that only one of them has is ignored.

    Args:
        old: flat options, or a flat setting, with keys such as 'hash.judge' or 'method.lr'.
        new: the same.

    Returns:
        'key old -> new' for each, sorted by key, without the prefixes 'hash.' and 'method.'. Hashes
        are shortened to 12 digits.
    """
    out = []
    for key in sorted(old.keys() & new.keys()):
        # As JSON, since tuples have become lists in the file of the pins.
        if json.dumps(old[key], default=str) != json.dumps(new[key], default=str):
            name = key.removeprefix("hash.").removeprefix("method.")
            shown = [
                _cut(value) if key.startswith("hash.") else value for value in (old[key], new[key])
            ]
            out.append(f"{name} {shown[0]} -> {shown[1]}")
    return out


def _cut(value: object) -> str:
    """The first 12 digits of a hash, with the precision that may follow it."""
    digits, dash, precision = str(value).partition("-")
    return digits[:12] + dash + precision


def _metric_versions(run: PinnedRun) -> dict[str, str]:
    """Name of a metric -> the version of its rows; 'none' if it is unknown."""
    found = {}
    for key, pin in run.rows.items():
        found[key[0]] = f"{pin.version:g}" if math.isfinite(pin.version) else "none"
    return found


def _direction(gap: float, pin: Pin) -> str:
    """'better' or 'worse'; 'moved' if it is not known which direction is better."""
    return "moved" if pin.better is None else "better" if (gap > 0) == pin.better else "worse"


def _sort_key(key: Key) -> tuple:
    """A key that can be compared with others: None, which cannot, sorts first."""
    return tuple(-math.inf if value is None else value for value in key)
