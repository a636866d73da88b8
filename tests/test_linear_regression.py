"""Linear regression: closed forms of a linear world, the normal equations, and attributes that cannot be told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from editbench.bank.bank import Split
from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.methods.linear_regression import PENALTIES, LinearRegression, ridge
from editbench.methods.shared.projection import unit
from editbench.run.fits import learned_auc
from editbench.walk.editor import FitData
from tests.toy import (
    BINARY,
    MIXED,
    LinearScorer,
    check_editor,
    fit_data,
    fitted_and_restored,
    make_walk,
)

LEAST_SQUARES = 1e-9  # a penalty that leaves the coefficients of these worlds unchanged


def with_normals(data: FitData, normals: Tensor, bias: Tensor | None = None) -> FitData:
    """The same codes, scored by another linear teacher."""
    teacher = LinearScorer(data.attributes, normals, bias)

    def scored(split: Split) -> Split:
        return replace(split, logits=teacher(split.w))

    fit, tune = scored(data.fit), scored(data.tune)
    sigma = data.attributes.log_odds(fit.logits).std(0)
    return replace(data, teacher=teacher, fit=fit, tune=tune, sigma=sigma)


# -- the regression --------------------------------------------------------------------------------
def test_rows_solve_the_normal_equations_and_each_target_has_its_best_penalty() -> None:
    rng = np.random.default_rng(0)
    n, dim = 60, 12
    codes = rng.normal(size=(n, dim)) * rng.uniform(0.1, 3, dim) + 2.0
    signal = codes @ rng.normal(size=(dim, 3))
    targets = signal + rng.normal(size=(n, 3)) * np.array([0.01, 5.0, 100.0]) + 7.0
    penalties = (1e-4, 1e-2, 1.0)
    found = ridge(codes, targets, penalties)
    # One sample after the other is left out, and a column of ones gives the intercept.
    scale = codes.var(0).mean()
    errors = np.empty((len(penalties), 3))
    for place, penalty in enumerate(penalties):
        loss = np.diag([n * penalty * scale] * dim + [0.0])
        design = np.column_stack([codes, np.ones(n)])
        missed = np.empty((n, 3))
        for i in range(n):
            rest = np.delete(design, i, 0)
            solved = np.linalg.solve(rest.T @ rest + loss, rest.T @ np.delete(targets, i, 0))
            missed[i] = targets[i] - design[i] @ solved
        errors[place] = (missed**2).mean(0)
        full = np.linalg.solve(design.T @ design + loss, design.T @ targets)
        alone = ridge(codes, targets, (penalty,))
        np.testing.assert_allclose(alone.rows, full[:-1].T, atol=1e-8)
        np.testing.assert_allclose(alone.explained, 1 - errors[place] / targets.var(0), atol=1e-8)
    best = errors.argmin(0)
    assert len(set(best)) > 1, "the targets should ask for different penalties"
    np.testing.assert_allclose(found.penalty, np.array(penalties)[best])
    np.testing.assert_allclose(found.explained, 1 - errors.min(0) / targets.var(0), atol=1e-8)


def test_a_penalty_means_the_same_in_another_unit_of_the_codes() -> None:
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(200, 5))
    targets = codes @ rng.normal(size=(5, 2)) + rng.normal(size=(200, 2))
    one = ridge(codes, targets, (0.3,))
    other = ridge(1000 * codes, targets, (0.3,))
    np.testing.assert_allclose(1000 * other.rows, one.rows, rtol=1e-9)
    np.testing.assert_allclose(other.explained, one.explained, rtol=1e-9)


def test_constant_targets_have_no_coefficients_and_change_no_others() -> None:
    rng = np.random.default_rng(2)
    codes = rng.normal(size=(50, 4))
    target = codes @ np.arange(4.0) + rng.normal(size=50)
    # A third has no exact mean in floating point.
    found = ridge(codes, np.column_stack([np.full(50, 1 / 3), target]), PENALTIES)
    alone = ridge(codes, target[:, None], PENALTIES)
    assert not found.rows[0].any() and np.isnan([found.penalty[0], found.explained[0]]).all()
    np.testing.assert_allclose(found.rows[1], alone.rows[0], rtol=1e-12)
    nothing = ridge(codes, np.ones((50, 1)), PENALTIES)
    assert not nothing.rows.any() and np.isnan(nothing.explained).all()


# -- directions of a linear world ------------------------------------------------------------------
def test_joint_directions_are_the_columns_of_the_pseudoinverse_and_rows_off_the_span_of_the_others():
    data = fit_data(overlap=1.0)
    editor = LinearRegression(penalty=LEAST_SQUARES)
    editor.fit(data)
    # The log-odds are exactly linear, so the coefficients are the teacher's own.
    rows = data.teacher.normals.double().numpy()
    columns = np.linalg.pinv(rows).T
    np.testing.assert_allclose(rows @ columns.T, np.eye(3), atol=1e-12)
    for k, name in enumerate(BINARY.names):
        found = editor.directions[name].numpy()
        np.testing.assert_allclose(found[0, 1], columns[k] / np.linalg.norm(columns[k]), atol=1e-5)
        np.testing.assert_array_equal(found[1, 0], -found[0, 1])
        others = np.delete(rows, k, 0)
        weights = np.linalg.lstsq(others.T, rows[k], rcond=None)[0]
        np.testing.assert_allclose(found[0, 1], unit(rows[k] - weights @ others), atol=1e-5)


def test_a_walk_moves_the_log_odds_of_the_target_only_and_crosses_where_the_slope_says():
    data = fit_data(overlap=1.0, bias=torch.tensor([0.3, -0.8, 0.0]))
    editor = LinearRegression(penalty=LEAST_SQUARES, scale_step=False, delta=0.25)
    editor.fit(data)
    walk = make_walk(data, editor, "b")
    start = data.teacher(walk.codes).double()
    sign = 2 * walk.target - 1
    # <a_k, n'> is the distance of row k from the span of the other rows.
    rows = data.teacher.normals.double().numpy()
    others = np.linalg.qr(np.delete(rows, 1, 0).T)[0]
    slope = np.sqrt(1 - np.square(others.T @ rows[1]).sum())
    for step in range(1, 30):
        walk.codes = editor.step(walk)
        logits = data.teacher(walk.codes).double()
        torch.testing.assert_close(logits[:, [0, 2]], start[:, [0, 2]], atol=1e-4, rtol=0)
        expected = start[:, 1] + sign * step * 0.25 * slope
        torch.testing.assert_close(logits[:, 1], expected, atol=1e-4, rtol=0)


def test_without_conditions_the_direction_is_the_row_and_the_others_move():
    data = fit_data(overlap=1.0)
    plain = LinearRegression(penalty=LEAST_SQUARES, conditions="none")
    plain.fit(data)
    named = LinearRegression(penalty=LEAST_SQUARES, conditions=["c"])
    named.fit(data)
    rows = data.teacher.normals.double()
    for k, name in enumerate(BINARY.names):
        torch.testing.assert_close(plain.directions[name][0, 1], rows[k], atol=1e-5, rtol=0)
    moved = rows @ named.directions["a"][0, 1]
    assert moved[2].abs() < 1e-5 < 0.1 < moved[1]
    # An attribute is no condition of itself.
    torch.testing.assert_close(named.directions["c"], plain.directions["c"])


def test_the_length_of_the_log_odds_changes_nothing():
    """Neither their unit nor their share of the variance, as sigma would."""
    data = fit_data(overlap=1.0)
    other = with_normals(data, data.teacher.normals * torch.tensor([[1.0], [64.0], [0.125]]))
    one, two = LinearRegression(), LinearRegression()
    one.fit(data)
    two.fit(other)
    for name in BINARY.names:
        torch.testing.assert_close(one.directions[name], two.directions[name])


def test_of_many_classes_every_class_moves_alone_against_the_other_attributes():
    data = fit_data(MIXED, n=3000, overlap=1.0)
    editor = LinearRegression(penalty=LEAST_SQUARES)
    notes = editor.fit(data).notes
    odds = MIXED.log_odds(data.fit.logits).double()
    design = torch.cat([data.fit.w.double(), torch.ones(3000, 1, dtype=torch.float64)], 1)
    fitted = torch.linalg.lstsq(design, odds).solution[:-1].T
    own = MIXED.slices["kind"]
    others = [k for k in range(MIXED.width) if not own.start <= k < own.stop]
    # The four log-odds of 'angle' and the one of 'a'.
    assert len(others) == notes["projection.kind"]["rank"] == 5
    for c in range(3):
        for source in {0, 1, 2} - {c}:
            direction = editor.directions["kind"][source, c]
            assert direction.norm() == pytest.approx(1.0)
            assert (fitted[others] @ direction).abs().max() < 1e-5
            assert (fitted[own] @ direction).argmax() == c
    assert not editor.directions["kind"][1, 1].any()


# -- the contract ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "attribute"),
    [
        ({}, "a"),
        ({}, "kind"),
        ({"conditions": "none", "layers": (1, 3)}, "angle"),
        ({"penalty": 0.1, "conditions": ["kind"]}, "a"),
        ({"space": "z"}, "a"),
    ],
)
def test_contract(options: dict, attribute: str) -> None:
    data = fit_data(MIXED)
    editor, fresh = LinearRegression(**options), LinearRegression(**options)
    report = editor.fit(data)
    assert report.labels == len(data.fit)
    assert learned_auc(editor, data, MIXED.names)["a"] > 0.9
    check_editor(editor, data, attribute, fresh)
    fresh.check(data.generator, MIXED, attribute)


def test_the_record_says_what_was_chosen_and_what_is_explained():
    data = fit_data(MIXED, overlap=1.0)
    notes = LinearRegression().fit(data).notes
    # Logits are linear in the codes, and the log-odds of several classes are not.
    assert notes["explained.a"] == [1.0] and notes["penalty.a"] == [PENALTIES[0]]
    assert 0.5 < min(notes["explained.kind"]) < max(notes["explained.kind"]) < 1
    assert len(notes["penalty.angle"]) == 4
    assert LinearRegression(penalty=0.25).fit(data).notes["penalty.angle"] == [0.25] * 4


def test_tuned_layers_are_restored_and_with_nothing_to_avoid_they_are_all_rows():
    data = fit_data(overlap=1.0)
    editor, fresh = (LinearRegression(layers="tuned", delta=1.5) for _ in range(2))
    editor.fit(data)
    report = editor.tune(data, "a")
    # No range changes another label, and of equal ranges the widest is taken.
    shares = report.notes["clean_crossings_of_layers.a"]
    assert max(shares.values()) == shares["0:4"] and report.notes["layers.a"] == [0, 4]
    check_editor(editor, data, "a", fresh)
    assert fresh.rows("a") == (0, 4) and fresh.rows("b") is None


# -- what it cannot do -----------------------------------------------------------------------------
def test_a_class_without_examples_is_served_by_its_log_odds():
    data = fit_data(overlap=1.0, bias=torch.tensor([0.0, -100.0, 0.0]))
    assert not (data.fit.logits[:, 1] > 0).any()
    editor = LinearRegression(penalty=LEAST_SQUARES)
    editor.fit(data)
    editor.check(data.generator, BINARY, "b")
    column = torch.linalg.pinv(data.teacher.normals.double())[:, 1]
    # float32 leaves five digits of logits near -100.
    assert editor.directions["b"][0, 1] @ column / column.norm() > 1 - 1e-6


def test_a_constant_attribute_has_no_direction_and_is_no_condition_also_after_loading():
    data = fit_data(overlap=1.0)
    normals = data.teacher.normals.clone()
    normals[1] = 0
    data = with_normals(data, normals, torch.tensor([0.0, 0.3, 0.0]))
    editor, fresh = LinearRegression(), LinearRegression()
    notes = editor.fit(data).notes
    assert notes["projection.a"]["rank"] == 1
    assert not {"projection.b", "penalty.b", "explained.b"} & set(notes)
    fresh.load_state({name: tensor.clone() for name, tensor in editor.state().items()})
    for one in (editor, fresh):
        one.check(data.generator, BINARY, "a")
        with pytest.raises(Unsupported, match="log-odds of 'b' are the same on all samples"):
            one.check(data.generator, BINARY, "b")
        with pytest.raises(Unsupported, match="no direction for 'b'"):
            one.step(make_walk(data, one, "b"))
        assert one.class_scores(data, "b") is None
    LinearRegression().check(data.generator, BINARY, "b")  # before the fit nothing is known


def test_attributes_with_the_same_row_cannot_be_separated_also_after_loading():
    data = fit_data()
    normals = data.teacher.normals.clone()
    normals[1] = -2 * normals[0]
    data = with_normals(data, normals)
    editor, fresh = fitted_and_restored(LinearRegression, data)
    for one in (editor, fresh):
        one.check(data.generator, BINARY, "c")
        for name in ("a", "b"):
            with pytest.raises(Unsupported, match=f"'{name}' lies in the span of its conditions"):
                one.check(data.generator, BINARY, name)
    apart = LinearRegression(conditions=["c"])
    apart.fit(data)
    for name in BINARY.names:
        apart.check(data.generator, BINARY, name)


def test_with_fewer_channels_than_attributes_nothing_is_left():
    drawn = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    small = fit_data(dim=4)

    def first_two(split: Split) -> Split:
        return replace(split, w=split.w[:, :2], logits=split.w[:, :2] @ drawn.T)

    data = replace(small, fit=first_two(small.fit), tune=first_two(small.tune))
    editor = LinearRegression()
    editor.fit(data)
    plain = LinearRegression(conditions="none")
    plain.fit(data)
    for name in BINARY.names:
        with pytest.raises(Unsupported, match="span of its conditions"):
            editor.check(data.generator, BINARY, name)
        plain.check(data.generator, BINARY, name)


def test_a_single_attribute_has_no_conditions():
    data = fit_data()
    kept = BINARY.select(["b"])
    teacher = LinearScorer(kept, data.teacher.normals[1:2])
    fit, tune = (replace(split, logits=split.logits[:, 1:2]) for split in (data.fit, data.tune))
    data = replace(data, teacher=teacher, fit=fit, tune=tune, sigma=data.sigma[1:2])
    joint, plain = LinearRegression(), LinearRegression(conditions="none")
    assert "projection.b" not in joint.fit(data).notes
    plain.fit(data)
    assert torch.equal(joint.directions["b"], plain.directions["b"])
    check_editor(joint, data, "b", LinearRegression())


def test_more_channels_than_samples():
    data = fit_data(dim=80, n=40, overlap=1.0)
    editor = LinearRegression()
    notes = editor.fit(data).notes
    assert np.isfinite([notes[f"explained.{name}"] for name in BINARY.names]).all()
    check_editor(editor, data, "a", LinearRegression())


@pytest.mark.parametrize(
    "options",
    [
        {"penalty": 0},
        {"penalty": -1.0},
        {"penalty": "best"},
        {"penalty": float("nan")},
        {"conditions": "some"},
        {"delta": 0.0},
        {"space": "s"},
        {"layers": "chosen"},
    ],
)
def test_bad_options(options: dict) -> None:
    (key,) = options
    with pytest.raises(EditbenchError, match=key):
        LinearRegression(**options)


def test_a_misspelt_condition_is_named():
    data = fit_data()
    with pytest.raises(UnknownName, match=r"method.conditions 'bb'\. Did"):
        LinearRegression(conditions=["bb"]).check(data.generator, data.attributes, "a")
