"""Singular entropy of each attribute against the gain of a nonlinear control.

Khrulkov et al. 2021, Fig. 10 and 16, and section 5.2.5. The paper's gain is human preference for
the nonlinear flow (depth one). Without human answers, a difference of accuracies replaces it: that
of the nonlinear flow minus that of the linear flow (a constant field). Every table and figure names
it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from editbench.figures.drawing import Drawing, Records
from editbench.figures.panels import new_figure
from editbench.figures.theme import INK, Theme
from editbench.stats.rank_correlation import Spearman, spearman

ENTROPY = "singular_entropy"
# Methods of the experiment, in the paper's terms: the flow of depth one, whose field has a matrix,
# and the constant field, whose accuracy is subtracted.
NONLINEAR = "neural_ode"
LINEAR = "neural_ode_linear"
HUMAN = "human_gain.csv"  # in the folder of the runs, from a human evaluation
STAND_IN = f"accuracy of {NONLINEAR} minus that of {LINEAR}"
CAPTION = (
    "Left: entropy of the normalised singular values of each attribute's nonlinear flow; a larger "
    "value means that its matrix acts in more directions. Right: this entropy against the gain. "
)


@dataclass(frozen=True)
class Entropies:
    """The numbers of the figure.

    Attributes:
        table: attribute, entropy, entropy_layer, gain, lowest entropy first.
        gain: description of the gain.
        test: Spearman's rank correlation of entropy and gain.
        kept: the same test at each N of the sweep, columns kept, rho, p.
    """

    table: pd.DataFrame
    gain: str
    test: Spearman
    kept: pd.DataFrame


def entropies(records: Records) -> Entropies | None:
    """The numbers of one setting; None if no run has an entropy."""
    rows = records.rows
    rows = rows[rows["metric"].str.startswith(ENTROPY) & np.isfinite(rows["value"])]
    runs = records.runs
    runs = runs[(runs["method"] == NONLINEAR) & runs["run_id"].isin(rows["run_id"])]
    if runs.empty:
        return None
    rows = rows.merge(runs.drop_duplicates("attribute")[["run_id", "attribute"]])
    # Rows with an x are the sweep.
    scalars = rows[~np.isfinite(rows["x"])].pivot(
        index="attribute", columns="metric", values="value"
    )
    gain, name = gains(records)
    table = pd.DataFrame(
        {"entropy": scalars[ENTROPY], "entropy_layer": scalars.get(f"{ENTROPY}_layer")}
    )
    table = (
        table.join(gain.rename("gain"))
        .sort_values("entropy", kind="stable")
        .reset_index(names="attribute")
    )
    test = spearman(table["entropy"].to_numpy(), table["gain"].to_numpy())
    kept = []
    for n, part in rows[rows["metric"] == f"{ENTROPY}_kept"].groupby("x"):
        values = part.set_index("attribute")["value"].reindex(table["attribute"])
        found = spearman(values.to_numpy(), table["gain"].to_numpy())
        kept.append({"kept": n, "rho": found.rho, "p": found.p})
    return Entropies(table, name, test, pd.DataFrame(kept, columns=["kept", "rho", "p"]))


def gains(records: Records) -> tuple[pd.Series, str]:
    """attribute -> gain, and a description of the gain.

    Raises:
        ValueError: the file of human answers lacks a column.
    """
    path = records.root / HUMAN
    if path.exists():
        try:
            table = pd.read_csv(path)
            if table["attribute"].duplicated().any():
                raise ValueError("an attribute has two rows")
            return table.set_index("attribute")["gain"].astype(float), f"human preference ({HUMAN})"
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{path} must have the columns attribute and gain, one row an attribute ({error})"
            ) from error
    rows = records.rows[records.rows["metric"] == "accuracy"]
    rows = rows.merge(records.runs[["run_id", "method", "attribute"]])
    wide = rows.pivot_table(index="attribute", columns="method", values="value", aggfunc="first")
    wide = wide.reindex(columns=[NONLINEAR, LINEAR])
    return wide[NONLINEAR] - wide[LINEAR], STAND_IN


def sentence(found: Entropies) -> str:
    """The result of the test as a sentence."""
    test = found.test
    if not np.isfinite(test.rho):
        return (
            f"No rank correlation: only {test.n} attributes have both an entropy and a gain "
            f"({found.gain})."
        )
    interval = ""
    if np.isfinite(test.low):
        interval = f", 95 % interval {test.low:.2f} to {test.high:.2f}"
    kind = "exact" if test.exact else "approximate"
    text = (
        f"Spearman's rho {test.rho:.2f}{interval}, {kind} p {test.p:.3f}, {test.n} attributes. "
        f"Gain: {found.gain}."
    )
    sweep = "; ".join(f"{row.kept:g}: {row.rho:.2f}" for row in found.kept.itertuples())
    if sweep:
        text += f" rho by the number of singular values kept: {sweep}."
    return text


def draw(records: Records, theme: Theme) -> list[Drawing]:
    """The figure; none where no run has an entropy.

    Raises:
        ValueError: a file of human answers that cannot be read.
    """
    found = entropies(records)
    if found is None:
        return []
    caption = CAPTION + sentence(found)
    figure = partial(entropy_figure, found)
    return [Drawing("singular_entropy", "Singular entropy", caption, figure)]


def entropy_figure(found: Entropies, theme: Theme) -> Figure:
    """H of each attribute, and H against the gain if there is one.

    See Khrulkov et al. 2021, Fig. 10 and 16.

    Args:
        found: entropies and gains; attributes without a gain are in the first panel only.
        theme: of the methods and attributes.
    """
    table = found.table
    colour = INK
    for label, one in theme.items():
        # The entropies are of this flow, so the points have its colour.
        # A variant's label begins with the name of its method.
        if label.split(" ")[0] == NONLINEAR:
            colour = one.colour
            break
    drawn = table[np.isfinite(table["gain"])]
    count = 2 if len(drawn) else 1
    columns = theme.panels_per_row(count, count)
    lines = count // columns
    figure = new_figure(9.0 if columns == 2 else 5.5, (1.4 + 0.3 * len(table)) * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    names = [theme.attribute(name) for name in table["attribute"]]
    # Points instead of bars: all H are near ln N, and an axis from 0 would hide the differences.
    panels[0].plot(
        table["entropy"], range(len(table)), "o", color=colour, markersize=6, markeredgewidth=0
    )
    panels[0].set_yticks(range(len(table)), names)
    panels[0].set_xlabel("singular entropy H")
    panels[0].margins(x=0.08, y=0.08)
    if len(drawn):
        panels[1].plot(
            drawn["entropy"], drawn["gain"], "o", color=colour, markersize=5, markeredgewidth=0
        )
        for name, x, y in zip(drawn["attribute"], drawn["entropy"], drawn["gain"]):
            panels[1].annotate(
                theme.attribute(name),
                (x, y),
                xytext=(5, 3),
                textcoords="offset points",
                fontsize=8,
            )
        panels[1].axhline(0, color=INK, linewidth=0.8, alpha=0.5)
        panels[1].margins(x=0.25, y=0.15)
        panels[1].set_xlabel("singular entropy H")
        panels[1].set_ylabel("gain" if found.gain.startswith("human") else "gain in accuracy")
    return figure
