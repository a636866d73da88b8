"""The figures of a report, with their captions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

from editbench.figures.curves import caption_of_groups
from editbench.figures.drawing import Drawing
from editbench.figures.panels import FEWEST
from editbench.figures.theme import Theme, display_name
from editbench.report import figure_trade, figures
from editbench.report.load import Results
from editbench.report.numbers import Numbers
from editbench.report.problem import Problem
from editbench.report.tables import curves
from editbench.report.titles import Wording

BANDS = (
    "Bands: 95 % intervals, which contain the spread over seeds if there are several. Bins with "
    f"fewer than {FEWEST} starts are hidden."
)
AT_BIN = (
    "Each start counts once per bin, at the step at which its walk first passes the centre of the "
    "bin."
)
CAPTIONS = {
    "accuracy": "Share of starts that reach the target class while every other attribute keeps its "
    "class, judged at the first crossing. Whiskers: 95 % intervals.",
    "ad": "Mean change of the other attributes against the achieved effect on the target, both in "
    f"σ; lower is better. {AT_BIN} {BANDS}",
    "ad_max": "Change of the other attribute that changes most, against the achieved effect on the "
    f"target, both in σ; lower is better. {AT_BIN} {BANDS}",
    "ad_signed": "Mean change of the other attributes with its sign, against the achieved effect on "
    "the target, both in σ. It is positive if their log-odds grow: those of the positive class, or "
    "with more than two classes those of the start's class. Opposite changes cancel, so a value near "
    f"0 shows that there is no bias, not that nothing else changes. {AT_BIN} {BANDS}",
    "trade": figure_trade.CAPTION,
}
# The markers of some methods are crosses too, so the caption says where this one is.
NOT_DONE = " A thin cross below 0 marks a method that was skipped or failed on the attribute."
CURVE_CAPTION = f"Plotted against the achieved effect on the target, in σ. {BANDS}"
CURVE_TITLES = {
    "ad": "Attribute dependency",
    "ad_max": "Largest attribute dependency",
    "ad_signed": "Signed attribute dependency",
}
# Of the vertical axis; other curves have their name.
CURVE_LABELS = {"ad": "AD, σ", "ad_max": "largest AD, σ", "ad_signed": "signed AD, σ"}
ORDER = ("accuracy", "ad", "trade")  # these figures come first, in this order


def drawings_of(
    numbers: Numbers, theme: Theme, problems: list[Problem], folders: Sequence[Path] = ()
) -> list[Drawing]:
    """All figures that the records have data for.

    Args:
        numbers: of one setting.
        theme: of the methods.
        problems: a list to which figures of metrics that cannot be prepared are added.
        folders: a user's own configuration folders.
    """
    table = numbers.table
    results = numbers.results
    found = []
    if table["accuracy"].notna().any():
        accuracy = partial(figures.accuracy_figure, table)
        caption = CAPTIONS["accuracy"] + (NOT_DONE if figures.not_drawn(table).any() else "")
        found.append(Drawing("accuracy", "Accuracy", caption, accuracy, first=True))
    # There are no means if too few attributes are readable.
    if numbers.costs["accuracy"].notna().any():
        trade = partial(figure_trade.trade_figure, numbers.costs)
        title = "Accuracy against side effects and cost"
        found.append(Drawing("trade", title, CAPTIONS["trade"], trade, first=True))
    # The curves of metrics with a figure of their own are not drawn twice.
    own = metric_figures(results, folders)
    for group, name in own.items():
        try:
            found += resolve_name(name)(results, theme)
        except Exception as error:  # a user's figure must not stop the report
            problems.append(Problem(f"figure of {group}", f"{type(error).__name__}: {error}"))
    for name, curve in curves(results, without=own).items():
        title = CURVE_TITLES.get(name, display_name(name))
        label = CURVE_LABELS.get(name, display_name(name))
        draw = partial(figures.curve_figure, curve, ylabel=label)
        caption = CAPTIONS.get(name, CURVE_CAPTION)
        caption += caption_of_groups(set(curve["method"]), theme)
        found.append(Drawing(name, title, caption, draw, first=name in ORDER))
    return sorted(found, key=lambda one: [*ORDER, one.file].index(one.file))


def metric_figures(results: Results, folders: Sequence[Path] = ()) -> dict[str, str]:
    """Metric -> dotted name of the function that draws it.

    Args:
        results: the records.
        folders: a user's own configuration folders.
    """
    found: dict[str, str] = {}
    for name, wording in Wording(results, folders).metrics():
        if wording.get("figure"):
            found.setdefault(name, str(wording["figure"]))
    return dict(sorted(found.items()))
