"""The figure of the side effects of each edit: its cells by hand, what is drawn in them, and its place in a report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from editbench.figures.theme import theme_of
from editbench.metrics.dependency_matrix.figure import cells, draw, matrix_figure
from editbench.report import report
from editbench.report.load import load
from tests.fake_records import fake_run, metric_rows

METRICS = {"dependency_matrix": {"figure": "editbench.metrics.dependency_matrix.figure.draw"}}
VALUES = {
    ("alpha", "smile"): {"age": 0.25, "beard": 0.5},
    ("beta", "smile"): {"age": 0.1, "beard": 0.0},
    ("alpha", "age"): {"smile": 0.75, "beard": 0.3},
}


def write(root, counts: dict[str, int] | None = None) -> None:
    for (method, target), values in VALUES.items():
        more = [
            {
                "metric": kind,
                "variant": other,
                "group": "dependency_matrix",
                "x": 1.0,
                "value": sign * value,
                "low": value - 0.05,
                "high": value + 0.05,
                "count": (counts or {}).get(other, 40),
                "note": "",
                "version": 1,
                "higher_is_better": None,
            }
            for kind, sign in (("dependency_on", 1), ("entanglement_with", -1))
            for other, value in values.items()
        ]
        rows = pd.concat([metric_rows(), pd.DataFrame(more)])
        fake_run(root, method, target, rows=rows, metrics=METRICS)


def test_cells_by_hand(tmp_path):
    write(tmp_path, {"beard": 29})
    fake_run(tmp_path, "beta", "age", status="skipped", reason="no control")
    found = cells(
        load(tmp_path)
    )  # no beard: 29 starts are too few; no sign: that is another number
    assert set(
        zip(found["attribute"], found["method"], found["other"], found["value"], found["count"])
    ) == {
        ("smile", "alpha", "age", 0.25, 40),
        ("smile", "beta", "age", 0.1, 40),
        ("age", "alpha", "smile", 0.75, 40),
    }


def test_the_figure_has_a_panel_a_target_and_a_number_a_cell(tmp_path):
    write(tmp_path)
    results = load(tmp_path)
    panels = [
        axes
        for axes in matrix_figure(cells(results), theme_of(results.runs)).axes
        if axes.get_title()
    ]
    assert [axes.get_title() for axes in panels] == ["age", "smile"]
    age, smile = panels
    assert [one.get_text() for one in smile.get_xticklabels()] == [
        "age",
        "beard",
    ]  # never the target itself
    assert [one.get_text() for one in age.get_yticklabels()] == [
        "alpha",
        "beta",
    ]  # shared by the panels of a line
    np.testing.assert_allclose(
        np.ma.filled(smile.images[0].get_array(), np.nan), [[0.25, 0.5], [0.1, 0.0]]
    )
    np.testing.assert_allclose(
        np.ma.filled(age.images[0].get_array(), np.nan), [[0.3, 0.75], [np.nan, np.nan]]
    )
    assert sorted(one.get_text() for one in age.texts) == [
        "0.30",
        "0.75",
    ]  # beta was not run there: empty
    assert (
        smile.images[0].get_clim()
        == age.images[0].get_clim()
        == pytest.approx(
            (
                0,
                pd.Series(
                    [value for values in VALUES.values() for value in values.values()]
                ).quantile(0.98),
            )
        )
    )


def test_without_the_numbers_there_is_no_figure(tmp_path):
    fake_run(tmp_path, "alpha", "smile")
    assert not draw(load(tmp_path), {})


def test_the_report_draws_it_and_no_curves_of_its_numbers(tmp_path):
    write(tmp_path / "runs")
    page = report(tmp_path / "runs", tmp_path / "out").read_text()
    assert "Side effects on each attribute" in page and "Figure dependency_matrix" not in page
    drawn = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {f"dependency_matrix.{kind}" for kind in ("svg", "png", "pdf")} <= drawn
    assert not any(name.startswith(("dependency_on", "entanglement_with")) for name in drawn)
