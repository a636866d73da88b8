"""How well what an editor learnt orders the teacher's labels: in the fit, the record and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from editbench.base.errors import Unsupported
from editbench.base.files import seal_folder, write_checked, write_json
from editbench.base.spaces import Space
from editbench.methods.ganspace.editor import GANSpace
from editbench.methods.navigan.editor import NaviGAN
from editbench.methods.neural_ode.editor import NeuralODE
from editbench.methods.random_direction import RandomDirection
from editbench.methods.stylespace.editor import StyleSpace
from editbench.report import load
from editbench.report.numbers import numbers_of
from editbench.report.tables import main_table
from editbench.report.text_tables import markdown
from editbench.run import fits
from editbench.run.fits import learned_auc
from tests.by_config import run_job
from tests.fake_records import fake_run, metric_rows, printed_table, report_of
from tests.toy import MIXED, fit_data
from tests.toy_world import ATTRIBUTES, AlongColumn, V, toy_config


def scores_of(noise: float):
    """Class scores of the toy world's editor: the teacher's logits of the codes, and some noise."""

    def class_scores(self, data, attribute):
        assert torch.isnan(data.tune.logits).all(), "the answers are hidden"
        if attribute == "b":
            return None
        logits = data.tune.codes(Space.W) @ V
        logits += noise * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
        own = ATTRIBUTES.logits(logits, attribute)
        return torch.cat([-own, own], 1) if own.shape[1] == 1 else own

    return class_scores


def provenance_of(cfg) -> dict:
    outcome = run_job(cfg)
    assert outcome.status == "done", outcome.reason
    return json.loads((Path(cfg.out) / outcome.run_id / "provenance.json").read_text())


def test_the_record_holds_the_auc_of_the_scores_on_the_tune_split(tmp_path, monkeypatch):
    seen = []
    plain = learned_auc

    def spy(editor, data, names):
        seen.append(data)
        return plain(editor, data, names)

    monkeypatch.setattr(fits, "learned_auc", spy)
    monkeypatch.setattr(AlongColumn, "class_scores", scores_of(20.0))
    found = provenance_of(toy_config(tmp_path))
    (data,) = seen
    labels = data.attributes.labels(data.tune.logits)
    answer = scores_of(20.0)(None, hidden(data), "a")[:, 1]
    assert found["learned"] == pytest.approx(roc_auc_score(labels[:, 0], answer), abs=1e-12)
    assert 0.5 < found["learned"] < 1.0
    # Attributes share the fit, and with it the values; one of them has none.
    other = provenance_of(toy_config(tmp_path, "attribute=c"))
    scores = scores_of(20.0)(None, hidden(data), "c")
    each = [roc_auc_score(labels[:, 2] == c, scores[:, c]) for c in range(3)]
    assert other["fit_cached"] and other["learned"] == pytest.approx(np.mean(each), abs=1e-12)
    assert provenance_of(toy_config(tmp_path, "attribute=b"))["learned"] is None
    assert len(seen) == 1


def hidden(data):
    nothing = torch.full_like(data.tune.logits, torch.nan)
    tune = type(data.tune)(data.tune.index, data.tune.z, data.tune.w, nothing)
    return type(data)(data.generator, data.teacher, data.fit, tune, data.sigma, data.seed)


def test_a_fit_of_an_earlier_format_is_made_anew(tmp_path, monkeypatch):
    run_job(toy_config(tmp_path))
    (path,) = (tmp_path / "cache" / "fits").glob("*.safetensors")
    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["fitted"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert meta.pop("learned") == {}
    save_file(state, tmp_path / "old", {"fitted": json.dumps(meta)})
    write_checked(path, (tmp_path / "old").read_bytes())
    assert provenance_of(toy_config(tmp_path, "attribute=b"))["fit_cached"] is False
    assert provenance_of(toy_config(tmp_path, "attribute=c"))["fit_cached"] is True


@pytest.mark.parametrize(
    "scores, told", [(torch.zeros(3, 2), "(3, 2)"), (np.zeros((300, 2)), "ndarray")]
)
def test_scores_that_do_not_fit_the_classes_are_named(tmp_path, monkeypatch, scores, told):
    monkeypatch.setattr(AlongColumn, "class_scores", lambda self, data, name: scores)
    outcome = run_job(toy_config(tmp_path))
    assert outcome.status == "failed"
    assert f"AlongColumn.class_scores returned {told} for 'a': return a tensor (" in outcome.reason


def test_an_attribute_without_scores_does_not_skip_the_job_of_another(tmp_path, monkeypatch):
    def scores(self, data, attribute):
        if attribute != "a":
            raise Unsupported(f"no scores of {attribute}")
        return data.tune.codes(Space.W)[:, :2]

    monkeypatch.setattr(AlongColumn, "class_scores", scores)
    assert 0 <= provenance_of(toy_config(tmp_path))["learned"] <= 1


def test_a_large_tune_split_is_judged_by_its_first_samples(monkeypatch):
    monkeypatch.setattr(fits, "JUDGED", 50)
    data = fit_data()
    lengths = []

    class Editor(RandomDirection):
        def class_scores(self, part, attribute):
            lengths.append(len(part.tune))
            return torch.zeros(len(part.tune), 2)

    assert learned_auc(Editor(), data, ["a"]) == {"a": 0.5} and lengths == [50]


# -- of the methods --------------------------------------------------------------------------------
def test_controls_give_their_coordinates_and_flows_shifts_and_floors_nothing():
    data = fit_data(MIXED, n=800)
    space = GANSpace(samples=2000, components=4, search_samples=16, ranges=[[0, 18]], min_effect=0)
    style = StyleSpace(candidates=3, samples=16, min_effect=-9)
    for editor in (space, style):
        editor.bind(data.generator)
        editor.fit(data)
    moved = space.moves["kind"]
    for c in range(3):
        along = data.tune.w.double() @ moved[c]
        assert torch.equal(space.class_scores(data, "kind")[:, c].argsort(), along.argsort())
    styles = data.generator.lift(data.tune.w, Space.S).double()
    channel = int(style.directions["a"][1].abs().argmax())
    sign = style.directions["a"][1, channel].sign()
    expected = (sign * styles[:, channel]).argsort()
    assert torch.equal(style.class_scores(data, "a")[:, 1].argsort(), expected)
    for editor in (NeuralODE(), NaviGAN(), RandomDirection(), GANSpace(), StyleSpace()):
        assert editor.class_scores(data, "a") is None


# -- in the report ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    values = {("alpha", "smile"): 0.5449, ("alpha", "age"): 0.9, ("beta", "smile"): 0.8}
    for (method, attribute), value in values.items():
        fake_run(folder, method, attribute, metric_rows(0.5), made={"learned": value})
    fake_run(folder, "beta", "age", metric_rows(0.5), made={"learned": None})
    fake_run(folder, "random", "smile", metric_rows(0.1))
    report_of(folder)
    return folder


def test_tables_hold_it_and_means_are_over_the_same_attributes(root: Path) -> None:
    table = main_table(load(root)).set_index(["method", "attribute"])
    assert table.loc[("alpha", "smile"), "learned"] == 0.5449
    assert table.loc[["beta", "random"], "learned"].isna().tolist() == [True, False, True]
    means = numbers_of("", load(root)).means.set_index("method")["learned"]
    assert means["alpha"] == pytest.approx(0.72245)
    # beta has none on age: a mean over smile alone could not be compared.
    assert np.isnan(means["beta"]) and np.isnan(means["random"])
    written = pd.read_csv(root / "report" / "table.csv").set_index(["method", "attribute"])
    assert written["learned"].dropna().tolist() == table["learned"].dropna().tolist()


def test_what_was_not_learnt_is_marked_by_words(root: Path) -> None:
    markdown = (root / "report" / "table.md").read_text()
    for text in (printed_table(load(root), 240), markdown):
        assert "learned ↑" in text and text.count("0.54 not learned") == 1
        assert "0.80 not learned" not in text and "AUC below 0.6" in text
    page = (root / "report" / "index.html").read_text()
    # In the grid of accuracy and in the table of every run.
    assert page.count('<span class="ci">not learned</span>') == 2


def test_a_skipped_run_that_learned_nothing_needs_no_explanation(tmp_path: Path) -> None:
    """Its row shows the status, so the words are nowhere in the table."""
    fake_run(tmp_path, "alpha", "smile", metric_rows(0.5), made={"learned": 0.9})
    skipped = fake_run(tmp_path, "beta", "smile", status="skipped", reason="no control found")
    write_json(skipped / "provenance.json", {"learned": 0.52, "fit_seconds": 2.0})
    seal_folder(skipped)
    text = markdown(load(tmp_path))
    assert "0.90" in text and "not learned" not in text


def test_latex_has_a_table_of_it_and_marks_the_other_tables(root: Path) -> None:
    folder = root / "report" / "latex"
    assert "0.54\\textsuperscript{\\ddag}" in (folder / "learned.tex").read_text()
    for name in ("accuracy", "ad"):
        text = (folder / f"{name}.tex").read_text()
        assert text.count("\\textsuperscript{\\ddag}") == 2, "the cell and its note"
        assert "(alpha/smile)" in text


def test_without_any_value_there_is_no_column(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile")
    assert "learned" not in markdown(load(tmp_path))
