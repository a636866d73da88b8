"""Why a number is far from its paper's, from records whose numbers the test chose."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from editbench.base.files import seal_folder
from editbench.figures.theme import Theme
from editbench.report import load
from editbench.report.distance import explain, is_far
from editbench.report.published import published
from editbench.report.style import Style
from tests.fake_records import fake_run, metric_rows, report_of

MADE = {
    "learned": 0.6184,
    "method_notes": {"examples.smile": [30, 30], "examples.hair": [30, 12, 30]},
    "start_distance": {"target": 0.9, "nearest_other": 0.31},
    "resolution": 32,
}
PAPER = {"resolution": 1024}


def test_the_sentence_holds_what_the_record_holds() -> None:
    assert explain(MADE, "smile", PAPER) == (
        "What it learned ranks held-out samples with an AUC of 0.62 (30 examples per class); the "
        "median distance of the starts is 0.90 σ from the boundary and 0.31 σ from the nearest other "
        "boundary; its images have 32×32 pixels, those of the paper 1024×1024."
    )
    assert "(12 to 30 examples per class)" in explain(MADE, "hair", PAPER)
    assert explain({"learned": 0.7}, "smile", PAPER) == (
        "What it learned ranks held-out samples with an AUC of 0.70."
    )
    assert explain({"start_distance": {"target": 0.25}}, "smile", {}) == (
        "The median distance of the starts is 0.25 σ from the boundary."
    )


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"learned": None, "resolution": 1024, "start_distance": None},
        {"learned": float("nan"), "method_notes": "text", "start_distance": {"target": "far"}},
        {"resolution": True, "method_notes": {"examples.smile": "30"}},
    ],
)
def test_what_is_unknown_or_no_number_is_left_out(made: dict) -> None:
    assert explain(made, "smile", PAPER) == ""


def test_far_is_outside_of_the_interval() -> None:
    nan = float("nan")
    assert is_far(0.9, 0.5, 0.4, 0.6) and is_far(0.1, 0.5, 0.4, 0.6)
    assert not is_far(0.6, 0.5, 0.4, 0.6) and not is_far("x", 0.5, 0.4, 0.6)
    assert not is_far(0.9, nan, nan, nan)
    assert is_far(3, 2.0, nan, nan) and not is_far(2, 2.0, nan, nan)


def test_it_stands_where_the_papers_number_is_shown_and_only_if_that_is_far(tmp_path: Path) -> None:
    block = {
        "source": "Chen, Table 1",
        "setting": "FFHQ",
        "resolution": 1024,
        "metric": "accuracy",
        "values": {"alpha": {"smile": 0.9254, "age": 0.51}, "beta": {"smile": 0.9}},
    }
    runs = {("alpha", "smile"): 0.3, ("alpha", "age"): 0.5, ("beta", "smile"): 0.4}
    for (method, attribute), accuracy in runs.items():
        made = MADE if method == "alpha" else {}
        folder = fake_run(tmp_path, method, attribute, metric_rows(accuracy), made=made)
        config = OmegaConf.load(folder / "config.yaml")
        OmegaConf.save(OmegaConf.merge(config, {"published": block}), folder / "config.yaml")
        seal_folder(folder)
    (one,) = published(load(tmp_path), Theme({}))
    why = {(row["method"], row["attribute"]): row["why"] for row in one.rows}
    assert why["alpha", "smile"] == explain(MADE, "smile", block) != ""
    assert why["alpha", "age"] == "" and why["beta", "smile"] == ""
    page = report_of(tmp_path, style=Style(titles={"beta": "a|b"}))
    # Each line of a Markdown table has as many cells as its head.
    assert "\n| a\\|b | smile | 0.9 |" in (page.parent / "table.md").read_text()
    for text in (page.read_text(), (page.parent / "table.md").read_text()):
        assert f"alpha on smile: {why['alpha', 'smile']}" in text
        assert "alpha on age:" not in text and "beta on smile:" not in text
