"""Text in figures: names stay as they are written, labels do not touch, captions explain the axes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from editbench.figures.panels import STYLE
from editbench.figures.theme import Theme, make_theme
from editbench.report import figures, load
from editbench.report.drawings import drawings_of
from editbench.report.numbers import numbers_of
from tests.fake_records import fake_run, metric_rows

GARMENTS = ("earrings", "hat", "lipstick", "necklace", "necktie", "scarf", "gloves", "sunglasses")
LONG = sorted(f"wearing_something_long_{name}" for name in GARMENTS)


def curve_of(attributes: list[str], methods: list[str], **changed: object) -> pd.DataFrame:
    """Rows of `curve_figure`: a straight line of 12 bins for each method and attribute."""
    parts = []
    for attribute in attributes:
        for method in methods:
            rows = metric_rows()
            ad = rows[rows["metric"] == "ad"].assign(count=400, note="", **changed)
            parts.append(ad.assign(method=method, attribute=attribute))
    return pd.concat(parts, ignore_index=True)


def drawn(figure: Figure) -> Figure:
    """The figure with the layout of its file."""
    figures.render(figure, "png")
    figure.set_layout_engine(None)
    # Texts are measured at the resolution of the last drawing.
    figure.canvas.draw()
    return figure


def boxes(texts: list[Text]) -> list[Bbox]:
    """Where texts are drawn, from left to right."""
    found = [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]
    return sorted(found, key=lambda box: box.x0)


def accuracy_of(attributes: list[str], methods: list[str]) -> pd.DataFrame:
    """The columns of `main_table` that the figure of accuracy reads."""
    rows = [{"attribute": a, "method": m} for a in attributes for m in methods]
    numbers = {"status": "done", "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6}
    return pd.DataFrame(rows).assign(**numbers)


def test_a_name_with_dollars_is_not_a_formula() -> None:
    methods = ["$money$", r"$\nosuchcommand$"]
    with matplotlib.rc_context(STYLE):
        figure = figures.curve_figure(curve_of(["$x$"], methods), make_theme(methods), "AD")
        # As a formula, the second name would raise an error here.
        drawn(figure)
        panel = figure.axes[0]
        # A formula without its dollars would be as wide as the letters between them.
        plain = figure.text(0, 0, "x", fontsize=10, fontweight="bold").get_window_extent().width
        title = panel.get_title(loc="left")
        assert title == "$x$"
        widest = max(
            t.get_window_extent().width for t in panel.findobj(Text) if t.get_text() == title
        )
        assert widest > 2 * plain


@pytest.mark.parametrize("count", [3, 8])
def test_names_below_an_axis_do_not_touch_on_the_page(count: int) -> None:
    attributes = LONG[:count]
    with matplotlib.rc_context(STYLE):
        table = accuracy_of(attributes, ["gradctrl", "sefa"])
        figure = drawn(figures.accuracy_figure(table, make_theme(["gradctrl", "sefa"])))
        texts = figure.axes[0].get_xticklabels()
        labels = boxes(texts)
    assert [" ".join(text.get_text().split()) for text in texts] == [
        name.replace("_", " ") for name in attributes
    ]
    # Three names have room side by side, eight do not.
    assert {text.get_rotation() for text in texts} == {0 if count == 3 else 40}
    if count == 3:
        assert all(left.x1 < right.x0 for left, right in pairwise(labels))


@pytest.mark.parametrize("width", [None, 4.5])
def test_the_title_of_a_panel_stays_above_it(width: float | None) -> None:
    theme = make_theme(["gradctrl"])
    with matplotlib.rc_context(STYLE):
        sized = theme if width is None else theme.with_width(width)
        curve = curve_of(LONG[:4], ["gradctrl"])
        figure = figures.curve_figure(curve, sized, "AD")
        figure.set_size_inches(width or figure.get_figwidth(), figure.get_figheight())
        drawn(figure)
        for axes in figure.axes:
            title = next(
                t for t in axes.findobj(Text) if t.get_text() == axes.get_title(loc="left")
            )
            # Less than the gap between two panels.
            room = 0.12 * figure.dpi
            assert title.get_window_extent().x1 < axes.get_window_extent().x1 + room


@pytest.mark.parametrize("share", [1.0, 1.3, 1.6])
def test_the_ticks_of_neighbouring_panels_do_not_touch(share: float) -> None:
    theme = make_theme(["gradctrl"])
    with matplotlib.rc_context(STYLE):
        curve = curve_of(["age", "beard", "eyeglasses", "smile"], ["gradctrl"], low=-0.7, high=0.8)
        figure = figures.curve_figure(curve, theme, "signed AD, σ")
        assert figure.get_layout_engine() is not None
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine(None)
        # The panels become wider after the layout, as when their labels need less room.
        figure.set_size_inches(share * figure.get_figwidth(), figure.get_figheight())
        figure.canvas.draw()
        texts = []
        for axes in figure.axes:
            low, high = axes.get_xlim()
            # Matplotlib keeps labels of ticks out of view, too.
            texts += [t for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
        labels = boxes(texts)
        right = figure.bbox.x1
    assert [text.get_text() for text in texts] == 4 * ["0", "1", "2", "3"]
    assert all(first.x1 < second.x0 for first, second in pairwise(labels))
    assert labels[-1].x1 <= right


def test_each_curve_has_an_axis_and_a_caption_of_its_own(tmp_path: Path) -> None:
    rows = metric_rows()
    curve = rows[rows["metric"] == "ad"]
    more = [curve.assign(metric=name) for name in ("ad_max", "ad_signed")]
    fake_run(tmp_path, "gradctrl", "smile", pd.concat([rows, *more], ignore_index=True))
    results = load(tmp_path)
    theme: Theme = make_theme(["gradctrl"])
    found = {one.file: one for one in drawings_of(numbers_of("", results), theme, [])}
    names = ("ad", "ad_max", "ad_signed")
    labels = {found[name].draw(theme).axes[0].get_ylabel() for name in names}
    assert labels == {"AD, σ", "largest AD, σ", "signed AD, σ"}
    captions = {name: found[name].caption for name in names}
    assert len(set(captions.values())) == 3
    for caption in captions.values():
        assert "Bins with fewer than 30 starts are hidden" in caption
        assert "seeds" in caption
    assert "changes most" in captions["ad_max"]
    assert "cancel" in captions["ad_signed"]
