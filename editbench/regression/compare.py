"""Pinned numbers against new ones: what moved, what cannot be compared, what is missing, what
agrees."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from editbench.regression.pins import NAN, Key, Pin, PinnedRun
from editbench.stats.intervals import percentiles, resampled_means
from editbench.walk.rows import written_key

FAILS = ("moved", "lost", "broke", "missing")
REPORTED = ("not comparable", "new")
AGREES = ("same", "within", "noise", "unread")
VERDICTS = (*FAILS, *REPORTED, "noise", "within", "same", "unread")  # in the order of tables
COMPARED = ("moved", "same", "within", "noise")
SHARED_STARTS = 0.9  # of all starts of both; fewer and the two were drawn otherwise
# Skipped is above failed: a job that says why it cannot run is in order.
RANK = {"done": 2, "skipped": 1, "failed": 0}
SLACK = 1e-9  # of rounding, so that a difference equal to its tolerance passes


@dataclass(frozen=True)
class Finding:
    """What became of one row, or of a whole run.

    Attributes:
        run: label of the run.
        row: the number in words, '' for the whole run.
        verdict: 'moved' (beyond tolerance, and its paired interval excludes zero or there are no
            samples), 'lost' (a row that is gone or has no value any more), 'broke' (the run is no
            longer done), 'missing' (no such run), 'not comparable', 'new', 'same', 'within'
            tolerance, 'noise' (beyond it, the paired interval holds zero), 'unread' (a note says
            not to read it).
        text: more about it.
        old: pinned value.
        new: value now.
        difference: new - old.
        low: lower end of the paired interval of the difference, NaN without samples.
        high: upper end.
        pairs: number of starts that both have, 0 without samples.
        tolerance: of the pinned row.
    """

    run: str
    row: str
    verdict: str
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
        notes: remarks that decide nothing.
        matched: whether any pinned run was found. If not, the folder is likely that of another
            experiment, and the caller says so.
    """

    findings: list[Finding]
    notes: list[str]
    matched: bool

    def count(self, *verdicts: str) -> int:
        return sum(finding.verdict in verdicts for finding in self.findings)

    def failures(self, allow_missing: bool = False, strict: bool = False) -> list[Finding]:
        """What makes the check fail.

        Args:
            allow_missing: runs that are missing do not.
            strict: what cannot be compared does too.
        """
        kinds = set(FAILS)
        if strict:
            kinds.add("not comparable")
        if allow_missing:
            kinds.discard("missing")
        return [finding for finding in self.findings if finding.verdict in kinds]

    @property
    def blind(self) -> bool:
        """Whether runs were found but not a single number or status of them could be compared."""
        # A check that compared nothing must not pass as one that found nothing.
        return (
            self.count("not comparable") > 0
            and self.count(*COMPARED, "lost", "broke", "unread") == 0
        )


def compare(pinned: Sequence[PinnedRun], found: Sequence[PinnedRun]) -> RegressionResult:
    """Compare every pinned run with its new one.

    Args:
        pinned: the runs of the baseline; each may have one partner among `found`.
        found: the runs of the folder that is checked.

    Returns:
        The findings of the pinned runs in their order, then one 'new' for each run of `found` that
        is not pinned; and notes on changed options and changed code, which decide nothing.
    """
    pairs = match(pinned, found)
    # None may be among them, which no found run equals.
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
        # Counted by what differs: a changed default would otherwise be reported for every attribute.
        changes[old.method, ", ".join(differences(old.options, new.options))] += 1
        if old.source and new.source:
            known[old.method] += 1
            recoded[old.method] += old.source != new.source
    notes = [
        f"{method}: options of {count} runs differ from the pinned ones: {changed}"
        for (method, changed), count in changes.items()
        if changed
    ]
    if any(recoded.values()):
        notes.append(f"code changed since the pins: {of_records(recoded, known)}")
    findings += [
        Finding(new.label, "", "new", f"{new.status}, not pinned")
        for new in found
        if new not in taken
    ]
    return RegressionResult(findings, notes, any(new is not None for _, new in pairs))


def of_records(some: Counter[str], every: Counter[str]) -> str:
    """Name the methods of which something is true, as 'gradctrl (2 of 12 records), sefa'.

    The numbers are left out where it is true of all records of a method.

    Args:
        some: method -> number of its records of which it is true; methods with 0 are left out.
        every: method -> number of its records.
    """
    named = []
    for method in sorted(some):
        if some[method] == every[method]:
            named.append(method)
        elif some[method]:
            named.append(f"{method} ({some[method]} of {every[method]} records)")
    return ", ".join(named)


def match(
    pinned: Sequence[PinnedRun], found: Sequence[PinnedRun]
) -> list[tuple[PinnedRun, PinnedRun | None]]:
    """Pair each pinned run with its new one.

    The new one has the same method, attribute and seed. Among variants it is the one with the same
    options and setting, else the same options, else the same setting, else the only one that is
    left.

    Args:
        pinned: the pinned runs.
        found: the new runs; each is given to one pinned run at most.

    Returns:
        (pinned run, new run) for every pinned run in the order given. The new run is None if there
        is none, or if several fit equally well.
    """
    # From the strictest on: a variant must not be paired with another while its own is there.
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
            # Two pinned runs that claim the same new one leave it to a later test.
            rivals = any(fits[old] & fits[other] for other in pins if other is not old)
            # Order of the runs decides nothing: an ambiguous pair stays open.
            if len(fits[old]) == 1 and not rivals:
                partner[old] = min(fits[old], key=lambda new: new.label)
    return [(old, partner.get(old)) for old in pinned]


def compare_run(old: PinnedRun, new: PinnedRun) -> list[Finding]:
    """Findings of a pinned run and its new one: one for the whole run, or one a row.

    Args:
        old: the pinned run.
        new: its partner of `match`, which may have another status or setting.

    Returns:
        A single finding with row '' if setting or status decide; otherwise the findings of all rows
        that either run has, sorted by key.
    """
    whole = _compare_status(old, new)
    if whole is not None:
        return [whole]
    pinned = _metric_versions(old)
    present = _metric_versions(new)
    findings = []
    for key in sorted(old.rows.keys() | new.rows.keys(), key=_order):
        before = pinned.get(key[0])
        now = present.get(key[0])
        # Another version is another definition: the difference of the two is no regression.
        redefined = before is not None and now is not None and before != now
        # The words are for people; rows are matched by the key itself.
        row = written_key(key)
        if key not in old.rows:
            # A new version may have other rows; the pinned ones say 'not comparable' already.
            if not redefined:
                value = new.rows[key].value
                findings.append(Finding(old.label, row, "new", "not pinned", new=value))
            continue
        pin = old.rows[key]
        lost = Finding(
            old.label,
            row,
            "lost",
            "the row no longer exists",
            old=pin.value,
            tolerance=pin.tolerance,
        )
        if redefined:
            text = f"metric version {before} -> {now}; pin again"
            findings.append(replace(lost, verdict="not comparable", text=text))
        elif key in new.rows:
            findings.append(compare_row(lost, key, old, new))
        else:
            findings.append(lost)
    return findings


def _compare_status(old: PinnedRun, new: PinnedRun) -> Finding | None:
    """What is said of a run as a whole; None where its rows are to be compared."""
    # First of all: under another judge or bank not even the status means the same.
    unequal = setting_mismatches(old, new)
    if unequal:
        return Finding(old.label, "", "not comparable", f"different setting: {', '.join(unequal)}")
    change = f"{old.status} -> {new.status}"
    if RANK[new.status] < RANK[old.status]:
        return Finding(old.label, "", "broke", f"{change}: {new.reason or 'no reason given'}")
    # Good news, but without pins there is nothing that its numbers could be compared with.
    if RANK[new.status] > RANK[old.status]:
        return Finding(old.label, "", "new", f"{change}; pin again")
    if old.status == "done":
        return None
    # Neither has rows.
    reason = f", the reason is now '{new.reason}'" if new.reason != old.reason else ""
    return Finding(old.label, "", "same", f"{old.status} as pinned{reason}")


def compare_row(blank: Finding, key: Key, old: PinnedRun, new: PinnedRun) -> Finding:
    """The finding of a row that both runs have.

    Args:
        blank: a finding with run, row, pinned value and tolerance.
        key: of the row.
        old: the pinned run.
        new: the new one.
    """
    a = old.rows[key]
    b = new.rows[key]
    # A number that was not to be read when it was pinned cannot move.
    if a.note or not (math.isfinite(a.value) or math.isfinite(b.value)):
        text = f"pinned with a note: {a.note}" if a.note else "no value"
        return replace(blank, verdict="unread", text=text, new=b.value)
    if not math.isfinite(a.value):
        return replace(blank, verdict="new", text="pinned without a value", new=b.value)
    if not math.isfinite(b.value):
        return replace(
            blank, verdict="lost", text=f"no longer has a value{f': {b.note}' if b.note else ''}"
        )
    # After the missing value, for which a note alone is no excuse.
    if b.note:
        return replace(blank, verdict="unread", text=f"now has a note: {b.note}", new=b.value)
    gap = b.value - a.value
    out = replace(blank, new=b.value, difference=gap)
    # An equal number needs no interval, and the bootstrap takes time.
    if gap == 0:
        return replace(out, verdict="same", text="")
    # Without samples on both sides the tolerance is the only judge.
    left = new.series(key)
    right = old.series(key)
    if left is not None and right is not None and len(left.index.intersection(right.index)):
        low, high, pairs = paired_interval(left, right)
        out = replace(out, low=low, high=high, pairs=pairs)
    # Tolerance before the interval: a small change is passed even where it is significant.
    if abs(gap) <= a.tolerance * (1 + SLACK):
        return replace(out, verdict="within", text="")
    if out.pairs and out.low <= 0 <= out.high:
        return replace(
            out, verdict="noise", text="beyond tolerance, but the paired interval contains zero"
        )
    return replace(
        out,
        verdict="moved",
        text=_side(gap, b) + ("" if out.pairs else "; no samples, judged by tolerance alone"),
    )


def paired_interval(new: pd.Series, old: pd.Series) -> tuple[float, float, int]:
    """95 % bootstrap interval of mean(new) - mean(old), starts drawn whole.

    The two values of a start are drawn together. A start that only one of them has counts in that
    mean alone, so that the interval is of the difference of the rows; where all starts are shared
    it is the paired bootstrap.

    Args:
        new: values of a row by start, without NaN; the index holds the ids of the starts.
        old: likewise, of the pinned row.

    Returns:
        low, high, and the number of starts that both have.
    """
    # Sorted by start, since a draw picks rows by their place.
    both = pd.concat([new, old], axis=1, keys=["new", "old"]).sort_index().to_numpy(np.float64)
    means = resampled_means(both, stream="paired")
    low, high = percentiles(means[:, :1] - means[:, 1:])[:, 0]
    return float(low), float(high), int(np.isfinite(both).all(1).sum())


def setting_mismatches(old: PinnedRun, new: PinnedRun) -> list[str]:
    """What forbids a comparison of two runs, as 'judge 586ab9d5b48a -> 0c1d2e3f4a5b'.

    Args:
        old: the pinned run. A run that was not walked has no hashes and no starts, and these are
            then not compared.
        new: the new run.

    Returns:
        One text for each key of the setting with another value. If there is none: one text if fewer
        than SHARED_STARTS of their starts are common. Empty if the runs can be compared.
    """
    found = differences(old.setting, new.setting)
    own = set(old.starts.tolist())
    others = set(new.starts.tolist())
    # Other starts say nothing new where the setting differs already.
    if own and others and not found and not share_starts(own, others):
        found.append(
            f"only {len(own & others)} starts in common, of {len(old.starts)} pinned and "
            f"{len(new.starts)} new ones"
        )
    return found


def share_starts(own: set[int], others: set[int]) -> bool:
    """Whether two runs walked from the same starts.

    Of all starts that either has, both must have the share SHARED_STARTS.

    Args:
        own: ids of the starts of one run.
        others: ids of the starts of the other.
    """
    # Of the union, so that both fewer starts and other starts count.
    return len(own & others) >= SHARED_STARTS * len(own | others)


def differences(old: dict, new: dict) -> list[str]:
    """Describe the keys that both mappings have with other values.

    A key that only one of them has is no difference.

    Args:
        old: options or a setting, flat; keys such as 'hash.judge' or 'method.lr'.
        new: likewise.

    Returns:
        'key old -> new' for each, sorted by key, without the prefixes 'hash.' and 'method.'; hashes
        are cut to 12 digits.
    """
    out = []
    for key in sorted(old.keys() & new.keys()):
        # As JSON, since pins come from a file, where tuples have become lists.
        if json.dumps(old[key], default=str) != json.dumps(new[key], default=str):
            name = key.removeprefix("hash.").removeprefix("method.")
            shown = [
                _cut(value) if key.startswith("hash.") else value for value in (old[key], new[key])
            ]
            out.append(f"{name} {shown[0]} -> {shown[1]}")
    return out


def _cut(value: object) -> str:
    """The first 12 digits of a hash, and the precision that may stand behind it."""
    digits, dash, precision = str(value).partition("-")
    return digits[:12] + dash + precision


def _metric_versions(run: PinnedRun) -> dict[str, str]:
    """Name of a metric -> its version, which all its rows have; 'none' where they do not say it."""
    found = {}
    for key, pin in run.rows.items():
        found[key[0]] = f"{pin.version:g}" if math.isfinite(pin.version) else "none"
    return found


def _side(gap: float, pin: Pin) -> str:
    return "moved" if pin.better is None else "better" if (gap > 0) == pin.better else "worse"


def _order(key: Key) -> tuple:
    """For sorting keys: None, which compares with nothing, comes first."""
    return tuple(-math.inf if value is None else value for value in key)
