"""The first crossing of each walk, at which the edits of two methods are of equal strength."""

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
        walks: indexed by start, with the columns source, target (classes) and step (of the first
            crossing; <NA> if there was none).
        trajectories: of the record.
        config: of the record.
        usable: the starts whose pictures are available.
        pictures: text about where they come from, or why there are none.
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
        """The starts whose walks crossed."""
        return frozenset(self.walks.index[self.walks["step"].notna()].tolist())

    def with_pictures(self, usable: frozenset[int], pictures: str) -> Edits:
        """The same edits with information about their pictures.

        Args:
            usable: the starts whose pictures are available.
            pictures: text about where they come from, or why there are none.
        """
        return replace(self, usable=usable, pictures=pictures)

    def coverage(self) -> dict:
        """How many starts crossed and have pictures. Raters never see the others."""
        crossed = len(self.crossed)
        n = len(self.walks)
        return {
            "method": self.label,
            "attribute": self.attribute,
            "run_id": self.run_id,
            "starts": n,
            "crossed": crossed,
            # null if there were no walks, since JSON has no NaN.
            "not_crossed_share": 1 - crossed / n if n else None,
            "usable": len(self.usable),
            "pictures": self.pictures,
        }


def chosen(results: Results, methods: Sequence[str] = (), setting: str | None = None) -> Results:
    """The finished runs of one setting and of some methods.

    Args:
        results: of a runs folder.
        methods: labels in reports, or plain names, which take all variants; empty takes all.
        setting: name of the setting; None if there is only one.

    Raises:
        EditbenchError: several settings could be meant, or fewer than two methods are left.
        UnknownName: a method or setting does not exist.
    """
    # Edits with different generators or judges cannot be compared.
    settings = dict(results.by_setting())
    if setting is None and len(settings) > 1:
        listed = "; ".join(f"'{name}'" for name in settings)
        raise EditbenchError(
            f"{results.root} holds runs that cannot be compared with one another: name one setting "
            f"with --setting: {listed}"
        )
    if setting is not None:
        if setting not in settings:
            raise UnknownName("setting", setting, settings)
        results = settings[setting]
    # A run that was skipped or failed has no pictures to show.
    runs = results.runs[results.runs["status"] == "done"]
    for name in methods:
        # A misspelt name must not silently shrink the study.
        if name not in set(runs["label"]) | set(runs["method"]):
            raise UnknownName(
                "method with finished runs", name, set(runs["label"]) | set(runs["method"])
            )
    # A name selects all variants, a label one.
    if methods:
        runs = runs[runs["label"].isin(methods) | runs["method"].isin(methods)]
    # Counted by label, since two variants of a method can be compared.
    if runs["label"].nunique() < 2:
        raise EditbenchError(
            f"a comparison needs finished runs of two methods, {results.root} has "
            f"{', '.join(sorted(set(runs['label']))) or 'none'}"
        )
    return replace(results, runs=runs.reset_index(drop=True))


def crossings(results: Results) -> list[Edits]:
    """The edits of every run in `results`, sorted by attribute and label.

    Raises:
        BadFile: a record cannot be read.
    """
    found = []
    for run in results.runs.sort_values(["attribute", "label"]).to_dict("records"):
        folder = results.root / run["run_id"]
        trajectories = Record.read(folder).trajectories()
        table = trajectories.table
        # Every walk has a step 0, whether it crossed or not.
        walks = table[table["step"] == 0].set_index("start")[["source", "target"]]
        steps = table[table["stopped"]].set_index("start")["step"]
        # With a duplicate start, the pairing of methods would be ambiguous.
        if walks.index.has_duplicates or steps.index.has_duplicates:
            raise BadFile(f"{folder / Record.TRAJECTORY} has a start twice; run the job again")
        config = results.configs[run["run_id"]]
        # Older records have the classes only in the trajectories.
        classes = tuple(run["classes"] or trajectories.attributes[run["attribute"]].classes)
        found.append(
            Edits(
                run["run_id"],
                run["label"],
                run["attribute"],
                classes,
                # The type Int64 allows <NA>; with int64, missing steps would make floats.
                walks.assign(step=steps.astype("Int64")),
                trajectories,
                config,
            )
        )
    return found


def read_edits(
    root: Path, methods: Sequence[str] = (), setting: str | None = None
) -> tuple[Results, list[Edits], list[dict[str, str]]]:
    """Read the edits that a study can use from a runs folder.

    If a method ran with several seeds, the edits are those of its first finished seed, whose images
    the report shows too.

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
    # With a row for each seed, each seed would be a setting of its own.
    whole = load(root, by_seed=False)
    results = chosen(whole, methods, setting)
    undone = whole.runs[whole.runs["status"] != "done"]
    # Runs of methods that were not requested are not listed.
    if methods:
        undone = undone[undone["label"].isin(methods) | undone["method"].isin(methods)]
    left_out = [
        {"run": run["run_id"], "reason": f"{run['status']}: {run['reason']}"}
        for run in undone.to_dict("records")
    ]
    left_out += [{"run": problem.name, "reason": problem.reason} for problem in whole.problems]
    return results, crossings(results), left_out
