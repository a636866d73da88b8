"""Singular entropy: planted spectra, the observation, Spearman against scipy and brute force, and the figure's table."""

from __future__ import annotations

import warnings
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from editbench.base.errors import EditbenchError, Unsupported
from editbench.figures.theme import make_theme
from editbench.methods.neural_ode.field import Field
from editbench.metrics.singular_entropy.figure import STAND_IN, draw, entropies, sentence
from editbench.metrics.singular_entropy.metric import SingularEntropy, entropy
from editbench.metrics.singular_entropy.observation import SingularEntropyObservation
from editbench.report.drawings import drawings_of
from editbench.report.load import load
from editbench.report.numbers import numbers_of
from editbench.stats.rank_correlation import spearman
from editbench.walk.observation import Observed
from tests.fake_records import fake_run, metric_rows


# -- the entropy -----------------------------------------------------------------------------------
def test_planted_spectra():
    assert entropy(np.ones(40), 100) == pytest.approx(np.log(40))
    assert entropy(np.ones(40), 10) == pytest.approx(np.log(10))
    assert entropy(np.array([3.0, 0, 0]), 3) == 0
    assert entropy(np.array([[1.0, 1, 0], [2.0, 0, 0]]), 2).tolist() == pytest.approx(
        [np.log(2), 0]
    )
    assert np.isnan(entropy(np.zeros(4), 4))
    values = np.random.default_rng(0).exponential(size=30)
    top = np.sort(values)[::-1][:12]
    assert entropy(values, 12) == pytest.approx(scipy.stats.entropy(top))  # normalises by itself
    assert entropy(7 * values, 12) == pytest.approx(entropy(values, 12))


def context(weight: torch.Tensor | None, bias: torch.Tensor | None = None):
    fields = {} if weight is None else {"smile": Field(weight, bias)}
    return SimpleNamespace(editor=SimpleNamespace(fields=fields), attribute="smile")


def test_the_observation_has_the_values_of_the_layer_and_of_the_field():
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(1, 2, 9, 9, generator=rng)
    found = SingularEntropyObservation().look(context(weight, torch.zeros(1, 2, 9)))
    for k in range(2):
        layer = weight[0, k].double().numpy()
        np.testing.assert_allclose(
            found.arrays["layer"][k], np.linalg.svd(layer, compute_uv=False), rtol=1e-10
        )
        # F(w + e) - F(w) = (I + A) e: the field's own derivative, column by column
        field = Field(weight, torch.zeros(1, 2, 9)).to(torch.device("cpu"), torch.float64)
        columns = (
            field.raw(torch.eye(9).double().expand(2, 9, 9))
            - field.raw(torch.zeros(2, 9, 9).double())
        )[k]
        np.testing.assert_allclose(
            found.arrays["effective"][k], torch.linalg.svdvals(columns.T), rtol=1e-10
        )
    assert found.meta == {"dim": 9, "flows": 2}


def test_rotations_of_the_matrix_change_nothing():
    rng = torch.Generator().manual_seed(2)
    u, v = (
        torch.linalg.qr(torch.randn(12, 12, generator=rng, dtype=torch.float64)).Q for _ in range(2)
    )
    singular = torch.linspace(4, 0.1, 12).double()
    found = [
        SingularEntropyObservation().look(
            context((u @ singular.diag() @ v - torch.eye(12))[None, None], torch.zeros(1, 1, 12))
        ),
        SingularEntropyObservation().look(
            context((singular.diag() - torch.eye(12))[None, None].double(), torch.zeros(1, 1, 12))
        ),
    ]
    numbers = [SingularEntropy(kept=8)(one) for one in found]
    a, b = (one.rows.set_index("metric").loc["singular_entropy", "value"] for one in numbers)
    assert a == pytest.approx(b) == pytest.approx(scipy.stats.entropy(singular[:8].numpy()))
    # 8 of 12 values are used, as asked for.
    assert (numbers[0].rows["note"] == "").all()


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (None, "has no flow"),
        (torch.zeros(0, 1, 4, 4), "constant"),
        (torch.zeros(2, 1, 4, 4), "2 layers"),
        (torch.full((1, 1, 4, 4), torch.nan), "NaN"),
    ],
)
def test_what_is_no_linear_flow_is_said(weight, reason):
    with pytest.raises(Unsupported, match=reason):
        SingularEntropyObservation().look(context(weight, torch.zeros(1, 1, 4)))


def test_rows_are_the_mean_over_flows_and_the_sweep_is_clipped():
    rng = np.random.default_rng(3)
    arrays = {"effective": rng.exponential(size=(3, 50)), "layer": rng.exponential(size=(3, 50))}
    metric = SingularEntropy(kept=100, sweep=(8, 50, 64, 100))
    result = metric(Observed(arrays))
    rows = result.rows[result.rows["metric"] == "singular_entropy"]
    assert rows["value"].item() == pytest.approx(
        np.mean([scipy.stats.entropy(row) for row in arrays["effective"]])
    )
    assert rows["count"].item() == 3 and rows["note"].item() == "all 50 singular values"
    kept = result.rows[result.rows["metric"] == "singular_entropy_layer_kept"]
    assert kept["x"].tolist() == [8, 50] and set(result.rows["metric"]) == set(metric.produces)
    missing = metric(Observed(reason="the flow is constant"))
    assert missing.rows["note"].tolist() == ["the flow is constant"] and missing.samples.empty
    with pytest.raises(EditbenchError, match="kept=0 must be at least 1"):
        SingularEntropy(kept=0)
    # A single value has the share 1.
    one = SingularEntropy(kept=1)(Observed(arrays)).rows.set_index("metric")["value"]
    assert one["singular_entropy"] == one["singular_entropy_layer"] == 0


# -- Spearman --------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_rho_is_scipys_and_p_is_brute_force(seed, ties):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=7), rng.normal(size=7)
    if ties:
        a, b = a.round(), b.round()
    found, expected = spearman(a, b), scipy.stats.spearmanr(a, b).statistic
    assert found.rho == pytest.approx(expected, abs=1e-12) and found.exact and found.n == 7
    ranks = scipy.stats.rankdata(b)
    every = (
        [
            np.corrcoef(scipy.stats.rankdata(a), ranks[list(order)])[0, 1]
            for order in permutations(range(7))
        ]
        if seed == 0
        else []
    )
    if every:
        assert found.p == pytest.approx((np.abs(every) >= abs(expected) - 1e-9).mean())
    assert found.low < found.rho < found.high and spearman(b, a).p == found.p


def test_known_p_values():
    assert spearman(np.arange(4), np.arange(4)).p == pytest.approx(
        2 / 24
    )  # one order, and its reverse
    perfect = spearman(np.arange(8), -(np.arange(8) ** 3))
    assert perfect.rho == -1 and perfect.p == pytest.approx(2 / 40320)
    assert np.isnan([perfect.low, perfect.high]).all()  # a perfect order of eight is no certainty
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=25), rng.normal(size=25)
    found = spearman(a, b)
    assert not found.exact and found.p == pytest.approx(scipy.stats.spearmanr(a, b).pvalue)


def test_the_interval_covers():
    rng, hits, n = np.random.default_rng(6), 0, 40
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman's rho of a normal pair with correlation 0.6
    for _ in range(400):
        a = rng.normal(size=n)
        b = 0.6 * a + 0.8 * rng.normal(size=n)
        found = spearman(a, b)
        hits += found.low <= truth <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_too_few_pairs_have_no_number():
    assert np.isnan(spearman(np.array([1.0, 2]), np.array([2.0, 1])).rho)
    assert np.isnan(spearman(np.ones(6), np.arange(6)).p)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none = spearman(np.full(3, np.nan), np.arange(3))
    assert none.n == 0 and np.isnan(none.rho)
    three = spearman(np.array([1.0, 2, 3, np.nan]), np.array([2.0, 4, 5, 1]))
    assert (three.n, three.rho) == (3, 1) and np.isnan(three.low)


# -- the report ------------------------------------------------------------------------------------
METRICS = {"singular_entropy": {"figure": "editbench.metrics.singular_entropy.figure.draw"}}
H = {"smile": 4.1, "age": 4.4, "beard": 4.2, "yaw": 4.5}
GAIN = {"smile": -0.05, "age": 0.2, "beard": 0.0, "yaw": 0.1}


def write(root) -> None:
    for name in H:
        more = pd.DataFrame(
            [
                {
                    "metric": f"singular_entropy{end}",
                    "group": "singular_entropy",
                    "x": x,
                    "value": H[name] - 0.1 * k,
                    "low": np.nan,
                    "high": np.nan,
                    "count": 1,
                    "note": "",
                    "version": 1,
                    "higher_is_better": None,
                }
                for k, (end, x) in enumerate(
                    (("", np.nan), ("_layer", np.nan), ("_kept", 32.0), ("_kept", 64.0))
                )
            ]
        )
        rows = pd.concat([metric_rows(0.4), more])
        fake_run(root, "neural_ode", name, rows=rows, metrics=METRICS)
        fake_run(root, "neural_ode_linear", name, rows=metric_rows(0.4 - GAIN[name]))


def test_the_report_orders_the_attributes_and_tests_the_order(tmp_path):
    write(tmp_path)
    found = entropies(load(tmp_path))
    assert found.table["attribute"].tolist() == ["smile", "beard", "age", "yaw"]
    assert found.table["gain"].tolist() == pytest.approx([-0.05, 0.0, 0.2, 0.1])
    assert found.gain == STAND_IN
    assert found.test.rho == pytest.approx(0.8) and found.kept["kept"].tolist() == [32, 64]
    assert all(
        word in sentence(found)
        for word in (
            "rho 0.80",
            "exact p",
            "accuracy of neural_ode minus that of neural_ode_linear",
        )
    )
    results = load(tmp_path)
    theme = make_theme(results.runs["label"])
    (one,) = draw(results, theme)
    assert one.file == "singular_entropy" and "Spearman" in one.caption
    left, right = one.draw(theme).axes
    assert left.lines[0].get_xdata().tolist() == sorted(H.values())
    assert right.lines[0].get_ydata().tolist() == pytest.approx([-0.05, 0.0, 0.2, 0.1])
    # The entropies are those of the nonlinear flow, and have its colour.
    assert theme["neural_ode"].colour != theme["neural_ode_linear"].colour
    assert left.lines[0].get_color() == theme["neural_ode"].colour
    found = drawings_of(numbers_of("", results), make_theme(results.runs["label"]), [])
    drawn = [one.file for one in found]
    assert drawn.count("singular_entropy") == 1 and "singular_entropy_kept" not in drawn


def test_human_answers_take_the_place_of_the_stand_in(tmp_path):
    write(tmp_path)
    path = tmp_path / "human_gain.csv"
    pd.DataFrame({"attribute": list(H), "gain": [0.1, 0.2, 0.3, 0.4]}).to_csv(path, index=False)
    found = entropies(load(tmp_path))
    assert found.gain.startswith("human preference")
    assert found.test.rho == pytest.approx(
        scipy.stats.spearmanr(list(H.values()), [0.1, 0.2, 0.3, 0.4]).statistic
    )
    for text in (
        "name,value\nsmile,1\n",
        "attribute,gain\nsmile,much\n",
        "attribute,gain\nsmile,1\nsmile,2\n",
        "",
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match="columns attribute and gain"):
            draw(load(tmp_path), {})
        problems = []  # what fails is listed, and the rest of the report is made
        results = load(tmp_path)
        drawn = drawings_of(numbers_of("", results), make_theme(results.runs["label"]), problems)
        assert "accuracy" in [one.file for one in drawn]
        assert problems[0].name == "figure of singular_entropy"
        assert "columns attribute and gain" in problems[0].reason


def test_without_a_linear_flow_there_is_no_figure(tmp_path):
    fake_run(tmp_path, "gradctrl", "smile")
    assert entropies(load(tmp_path)) is None
