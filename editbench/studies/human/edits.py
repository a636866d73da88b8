"""Where each method first reached the target: the rule by which two edits are of equal strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.report.load import Results, load
from editbench.run.record import Record
from editbench.walk.trajectory import Trajectories


@dataclass(frozen=True)
class Edits:
    """The first crossings of one run.

    Args:
        run_id: of the record.
        label: the method's name in reports.
        attribute: that was edited.
        classes: of the attribute.
        walks: indexed by start, columns source, target (classes) and step (of the first crossing,
            <NA> where there was none).
        trajectories: of the record.
        config: of the record.
        usable: the starts whose pictures can be had.
        pictures: where they come from, or why there are none, for people: manifest.json and the
            summary print it as it is.
    """

    run_id: str
    label: str
    attribute: str
    classes: tuple[str, ...]
    walks: pd.DataFrame
    trajectories: Trajectories
    config: dict[str, Any]
    usable: frozenset[int] = frozenset()
    pictures: str = ""

    @property
    def crossed(self) -> frozenset[int]:
        # <NA> in `step` says that the walk never crossed.
        return frozenset(self.walks.index[self.walks["step"].notna()].tolist())

    def with_pictures(self, usable: frozenset[int], pictures: str) -> Edits:
        """The same edits with what is known of their pictures.

        Args:
            usable: the starts whose pictures can be had.
            pictures: where they come from, or why there are none, for people.
        """
        return replace(self, usable=usable, pictures=pictures)

    def coverage(self) -> dict:
        """How many starts crossed, of all that were walked: the share that no rater will ever see
        is told.
        """
        crossed = len(self.crossed)
        n = len(self.walks)
        return {
            "method": self.label,
            "attribute": self.attribute,
            "run_id": self.run_id,
            "starts": n,
            "crossed": crossed,
            # JSON has no NaN, so null stands for the share of nothing.
            "not_crossed_share": 1 - crossed / n if n else None,
            "usable": len(self.usable),
            "pictures": self.pictures,
        }


def chosen(results: Results, methods: Sequence[str] = (), setting: str | None = None) -> Results:
    """The finished runs of one setting and of some methods.

    Args:
        results: of a runs folder.
        methods: labels in reports, or plain names, which take all variants; empty takes all.
        setting: name of the setting; None where there is one alone.

    Raises:
        EditbenchError: several settings could be meant, or fewer than two methods are left.
        UnknownName: a method or setting is not there.
    """
    # Edits of two worlds or judges have no start in common that means the same.
    found = results.by_setting()
    if setting is None and len(found) > 1:
        listed = "; ".join(f"'{name}'" for name, _ in found)
        raise EditbenchError(
            f"{results.root} holds runs that cannot be compared with one another: name one setting "
            f"with --setting: {listed}"
        )
    if setting is not None:
        if setting not in dict(found):
            raise UnknownName("setting", setting, dict(found))
        results = results.only(setting)
    # A run that was skipped or failed has no pictures to show.
    runs = results.runs[results.runs["status"] == "done"]
    for name in methods:
        # Checked before any is used: a misspelt name must not silently shrink the study.
        if name not in set(runs["label"]) | set(runs["method"]):
            raise UnknownName(
                "method with finished runs", name, set(runs["label"]) | set(runs["method"])
            )
    # A plain name takes all variants, a label takes one.
    if methods:
        runs = runs[runs["label"].isin(methods) | runs["method"].isin(methods)]
    # Counted by label: two variants of one method are a comparison.
    if runs["label"].nunique() < 2:
        raise EditbenchError(
            f"a comparison needs finished runs of two methods, {results.root} has "
            f"{', '.join(sorted(set(runs['label']))) or 'none'}"
        )
    return replace(results, runs=runs.reset_index(drop=True))


def crossings(results: Results) -> list[Edits]:
    """The edits of every run in `results`, sorted by attribute and label. Raises BadFile for an
    unreadable record.
    """
    found = []
    for run in results.runs.sort_values(["attribute", "label"]).to_dict("records"):
        folder = results.root / run["run_id"]
        trajectories = Record.read(folder).trajectories()
        table = trajectories.table
        # Step 0 is there for every start, crossed or not.
        walks = table[table["step"] == 0].set_index("start")[["source", "target"]]
        steps = table[table["stopped"]].set_index("start")["step"]
        # Twice the same start would make the pairing of methods ambiguous.
        if walks.index.has_duplicates or steps.index.has_duplicates:
            raise BadFile(f"{folder / Record.TRAJECTORY} has a start twice; run the job again")
        config = results.configs[run["run_id"]]
        # A status without classes leaves them to the trajectory.
        classes = tuple(run["classes"] or trajectories.attributes[run["attribute"]].classes)
        found.append(
            Edits(
                run["run_id"],
                run["label"],
                run["attribute"],
                classes,
                # Int64 with a capital letter can hold <NA>; int64 would turn steps into floats.
                walks.assign(step=steps.astype("Int64")),
                trajectories,
                config,
            )
        )
    return found


def read_edits(
    root: Path, methods: Sequence[str] = (), setting: str | None = None
) -> tuple[Results, list[Edits], list[dict[str, str]]]:
    """Read what a study may use from a runs folder.

    Args:
        root: the runs folder.
        methods: see `chosen`.
        setting: see `chosen`.

    Returns:
        The records, their edits, and the runs left out: {'run', 'reason'}.

    Raises:
        EditbenchError: see `chosen`.
        BadFile: a record cannot be read.
    """
    whole = load(root)
    results = chosen(whole, methods, setting)
    undone = whole.runs[whole.runs["status"] != "done"]
    # A run that nobody asked for was not left out.
    if methods:
        undone = undone[undone["label"].isin(methods) | undone["method"].isin(methods)]
    left_out = [
        {"run": run["run_id"], "reason": f"{run['status']}: {run['reason']}"}
        for run in undone.to_dict("records")
    ]
    left_out += [{"run": problem.name, "reason": problem.reason} for problem in whole.problems]
    return results, crossings(results), left_out
