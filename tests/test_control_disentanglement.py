"""Control and disentanglement: eq. 6 and 7 as slow loops, closed forms of single flips, areas of known curves."""

from __future__ import annotations

import dataclasses
from collections import Counter
from math import log

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from scipy.stats import binomtest

from editbench.base.attributes import Attribute, Attributes
from editbench.figures.theme import theme_of
from editbench.metrics.control_disentanglement.figure import (
    bands,
    cd_curves,
    cd_figure,
    common_means,
    draw,
    kept_paths,
)
from editbench.metrics.control_disentanglement.metric import ControlDisentanglement
from editbench.report import load
from editbench.stats.first_crossing import area, at_level, most_within
from editbench.walk.trajectory import Trajectories
from tests.fake_records import fake_run, metric_rows, report_of
from tests.made_walks import check_rows
from tests.toy import check_splits

KINDS = Attributes(
    [Attribute("a", ("no", "yes")), Attribute("b", ("no", "yes")), Attribute("c", ("x", "y", "z"))]
)
NAMES = [f"logit:{name}" for name in KINDS.columns()]


def walks(
    labels: np.ndarray,
    target: np.ndarray | int = 1,
    attribute: str = "a",
    lost: dict[int, int] | None = None,
    attributes: Attributes = KINDS,
) -> Trajectories:
    """(n, T, A) classes -> trajectories whose logits decide them; lost: start -> step at which it turns NaN."""
    lost, rows = lost or {}, []
    place = attributes.index(attribute)
    for start, classes in enumerate(labels):
        crossed, aim = False, int(np.broadcast_to(target, len(labels))[start])
        for step, row in enumerate(classes):
            logits = []
            for item, value in zip(attributes, row):
                logits += (
                    [2.0 * value - 1]
                    if item.binary
                    else [3.0 * (value == k) for k in range(len(item.classes))]
                )
            finite = step < lost.get(start, len(classes))
            arrived = finite and step > 0 and row[place] == aim
            rows.append(
                [
                    10 + start,
                    classes[0][place],
                    aim,
                    step,
                    0.5 * step,
                    crossed or arrived,
                    arrived and not crossed,
                    finite,
                    *(logits if finite else [np.nan] * len(logits)),
                ]
            )
            crossed |= arrived
            if not finite:
                break
    columns = ["start", "source", "target", "step", "path", "crossed", "stopped", "finite"]
    table = pd.DataFrame(
        rows, columns=[*columns, *(f"logit:{name}" for name in attributes.columns())]
    )
    return Trajectories(table, attributes, attribute, np.ones(attributes.width))


def random_labels(n: int, steps: int, seed: int = 0) -> np.ndarray:
    """Classes that stay for a while; attribute a starts at 0."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n, steps + 1, 3), int)
    labels[:, 0, 1:] = rng.integers(0, [2, 3], (n, 2))
    for t in range(1, steps + 1):
        fresh = np.stack([rng.integers(0, size, n) for size in (2, 2, 3)], 1)
        labels[:, t] = np.where(rng.random((n, 3)) < 0.15, fresh, labels[:, t - 1])
    return labels


def curve(result, name: str) -> pd.DataFrame:
    return result.rows[result.rows["metric"] == name].reset_index(drop=True)


def scalar(result, name: str) -> float:
    return curve(result, name)["value"].item()


def slow(
    labels: np.ndarray, target: np.ndarray, place: int, sizes=(2, 2, 3)
) -> tuple[list, list, list]:
    """C by eq. 6, C of the code, D by eq. 7, each at every step, in plain loops."""
    reached, ever, spread = [], [], []
    n, steps = labels.shape[:2]
    for t in range(steps):
        reached.append(sum(labels[i, t, place] == target[i] for i in range(n)) / n)
        ever.append(
            sum(
                any(labels[i, s, place] != labels[i, 0, place] for s in range(t + 1))
                for i in range(n)
            )
            / n
        )
        total = 0.0
        for i in range(n):
            for k, size in enumerate(sizes):
                if k != place:
                    shares = [m / (t + 1) for m in Counter(labels[i, : t + 1, k].tolist()).values()]
                    total += -sum(p * log(p) for p in shares) / log(size) / (len(sizes) - 1)
        spread.append(total / n)
    return reached, ever, spread


@pytest.mark.parametrize("place", [0, 2])
def test_the_curves_are_the_formulas(place):
    labels = random_labels(25, 12, seed=place)
    target = (labels[:, 0, place] + 1) % (2, 2, 3)[place]
    result = ControlDisentanglement(steps=12, draws=50)(walks(labels, target, KINDS.names[place]))
    reached, ever, spread = slow(labels, target, place)
    for name, expected in (
        ("cd_control", reached),
        ("cd_control_ever", ever),
        ("cd_entropy", spread),
    ):
        found = curve(result, name)
        assert found["x"].tolist() == list(range(13))
        assert (found["count"] == 25).all()
        assert (found["note"] == "").all()
        np.testing.assert_allclose(found["value"], expected, atol=1e-12)
    assert scalar(result, "cd_max_control") == pytest.approx(max(reached))
    ends = [
        np.mean([labels[i, -1, k] != labels[i, 0, k] for k in range(3) if k != place])
        for i in range(25)
    ]
    assert scalar(result, "cd_end_flips") == pytest.approx(np.mean(ends))
    interval = binomtest(round(25 * reached[5]), 25).proportion_ci(method="wilson")
    assert curve(result, "cd_control").loc[5, ["low", "high"]].tolist() == pytest.approx(
        [interval.low, interval.high]
    )
    # D at levels of C, its area and the control within a limit, from a fine grid along the curve.
    place_on_grid = np.linspace(0, 12, 120_001)
    fine_c = np.interp(place_on_grid, range(13), reached)
    fine_d = np.interp(place_on_grid, range(13), spread)
    levels = np.linspace(0, fine_c.max(), 20_001)
    first = np.searchsorted(np.maximum.accumulate(fine_c), levels - 1e-12)
    assert scalar(result, "cd_area") == pytest.approx(trapezoid(fine_d[first], levels), rel=1e-3)
    at = curve(result, "cd_entropy_at").set_index("x")
    assert at.index.tolist() == pytest.approx(np.arange(0.05, 1.01, 0.05).tolist())
    for level, row in at.iterrows():
        if level > fine_c.max():
            assert np.isnan([row["value"], row["low"], row["high"]]).all()
            assert row["note"] == "this much control is never reached"
        else:
            there = np.flatnonzero(fine_c >= level - 1e-12)[0]
            assert row["value"] == pytest.approx(fine_d[there], abs=1e-4) and row["note"] == ""
    within = fine_c[fine_d <= 0.1].max()
    assert scalar(result, "cd_control_at") == pytest.approx(within, abs=1e-3)
    assert within > 0
    for name in ("cd_max_control", "cd_area", "cd_control_at", "cd_end_flips"):
        assert curve(result, name)["note"].item() == ""
    single = result.samples.pivot(index="start", columns="metric", values="value")
    assert (
        single["cd_end_control"].tolist() == (labels[:, -1, place] == target).astype(float).tolist()
    )
    np.testing.assert_allclose(single["cd_end_flips"], ends)
    assert single["cd_end_entropy"].mean() == pytest.approx(spread[-1])


@pytest.mark.parametrize("flip", [1, 7, 20, 40])
def test_a_permanent_flip_has_the_entropy_of_two_shares(flip):
    labels = np.zeros((3, 41, 3), int)
    labels[:, flip:, 1] = 1  # one of two other attributes changes for good at step `flip`
    entropy = curve(ControlDisentanglement(draws=20)(walks(labels)), "cd_entropy")[
        "value"
    ].to_numpy()
    for t in range(41):
        p = max(0, t - flip + 1) / (t + 1)
        expected = 0.0 if p == 0 else -(p * log(p) + (1 - p) * log(1 - p)) / log(2) / 2
        assert entropy[t] == pytest.approx(expected, abs=1e-12)
    assert entropy[0] == 0
    if 2 * flip <= 41:  # half of the points before it, half after: one whole bit
        assert entropy[2 * flip - 1] == pytest.approx(0.5) and entropy.max() == pytest.approx(0.5)


def test_three_classes_in_equal_parts_have_entropy_one():
    labels = np.zeros((2, 3, 3), int)
    labels[:, :, 2] = [0, 1, 2]
    labels[:, :, 1] = [0, 1, 0]
    entropy = curve(ControlDisentanglement(steps=2, draws=5)(walks(labels)), "cd_entropy")["value"]
    binary = -(2 / 3 * log(2 / 3) + 1 / 3 * log(1 / 3)) / log(2)
    assert entropy.iloc[2] == pytest.approx((1 + binary) / 2)


def test_control_of_the_two_definitions_differs_where_a_class_comes_back_or_is_another():
    labels = np.zeros((3, 4, 3), int)
    labels[0, :, 2] = [0, 1, 0, 0]  # there and back
    labels[1, :, 2] = [0, 2, 2, 2]  # another class than the asked one
    labels[2, :, 2] = [0, 0, 0, 1]
    result = ControlDisentanglement(steps=3, draws=5)(walks(labels, 1, "c"))
    assert curve(result, "cd_control")["value"].tolist() == pytest.approx([0, 1 / 3, 0, 1 / 3])
    assert curve(result, "cd_control_ever")["value"].tolist() == pytest.approx([0, 2 / 3, 2 / 3, 1])


def test_a_diverged_walk_stays_in_the_denominator_of_control_and_has_no_entropy():
    labels = np.zeros((4, 6, 3), int)
    labels[:, 1:, 0] = 1  # all reach the target at once
    labels[3, 1:, 1] = 1  # this one would spoil b, but it diverges at step 3
    result = ControlDisentanglement(steps=5, draws=20)(walks(labels, lost={3: 3}))
    assert curve(result, "cd_control")["value"].tolist() == [0] + [0.75] * 5
    assert curve(result, "cd_control_ever")["value"].max() == 0.75
    assert (curve(result, "cd_control")["count"] == 4).all()
    assert (curve(result, "cd_entropy")["value"] == 0).all()
    assert (curve(result, "cd_entropy")["count"] == 3).all()
    assert scalar(result, "cd_end_flips") == 0
    for name in ("cd_area", "cd_max_control", "cd_control_at", "cd_end_flips"):
        assert "1 of 4 walks diverged" in curve(result, name)["note"].item()
    kept = result.samples.groupby("metric")["start"].count().to_dict()
    assert kept == {"cd_end_control": 4, "cd_end_entropy": 3, "cd_end_flips": 3}
    gone = ControlDisentanglement(steps=5, draws=20)(walks(labels, lost=dict.fromkeys(range(4), 2)))
    assert curve(gone, "cd_control")["value"].eq(0).all()
    assert curve(gone, "cd_entropy")["value"].isna().all()
    assert "every walk diverged" in curve(gone, "cd_area")["note"].item()
    assert np.isnan(scalar(gone, "cd_end_flips"))


def test_walks_that_stop_at_their_crossing_are_refused_with_the_fix():
    trajectories = walks(random_labels(6, 10))
    table = trajectories.table[
        (trajectories.table["start"] != 12) | (trajectories.table["step"] < 4)
    ]
    result = ControlDisentanglement(steps=10)(
        dataclasses.replace(trajectories, table=table.reset_index(drop=True))
    )
    assert result.rows["value"].isna().all()
    assert result.rows["low"].isna().all()
    assert not len(result.samples)
    assert (
        result.rows["note"]
        .str.contains(
            "1 of 6 walks end before step 10: set engine.max_steps and engine.sweep_steps to 10"
        )
        .all()
    )
    longer = ControlDisentanglement(steps=8)(trajectories)  # rows beyond the grid play no part
    cut = trajectories.table[trajectories.table["step"] <= 8].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        longer.rows,
        ControlDisentanglement(steps=8)(dataclasses.replace(trajectories, table=cut)).rows,
    )


TOY = walks(random_labels(40, 10, seed=3), lost={7: 4, 9: 0})


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, 39), max_size=4), seed=st.integers(0, 2**20))
def test_any_split_and_permutation_gives_the_same_number(cuts, seed):
    metric = ControlDisentanglement(steps=10, draws=50)
    check_splits(metric, TOY, cuts, seed)


def test_rows_keep_the_contract():
    metric = ControlDisentanglement(steps=10, draws=200)
    result = check_rows(metric, TOY)
    assert set(result.rows["metric"]) | set(result.samples["metric"]) == set(metric.produces)
    assert len(result.rows.dropna(subset=["value", "low"])) > 30
    for name, state in metric.metric_state.items():
        assert all(part.dtype == torch.float64 for part in state) or name == "start"


def test_one_attribute_and_no_starts_are_notes():
    alone = Attributes([Attribute("a", ("no", "yes"))])
    labels = np.zeros((3, 4, 1), int)
    labels[:, 2:] = 1
    result = ControlDisentanglement(steps=3)(walks(labels, attributes=alone))
    assert curve(result, "cd_control")["value"].tolist() == [0, 0, 1, 1]
    assert "one attribute only" in curve(result, "cd_area")["note"].item()
    assert np.isnan(scalar(result, "cd_area"))
    nobody = ControlDisentanglement(steps=3)(dataclasses.replace(TOY, table=TOY.table.iloc[:0]))
    assert (nobody.rows["count"] == 0).all()
    assert nobody.rows["note"].eq("no starts").all()
    assert not len(nobody.samples)


def test_a_method_without_control_has_no_area():
    labels = np.zeros((5, 4, 3), int)
    result = ControlDisentanglement(steps=3, draws=20)(walks(labels))
    assert scalar(result, "cd_max_control") == 0 and np.isnan(scalar(result, "cd_area"))
    assert "never controlled" in curve(result, "cd_area")["note"].item()


@pytest.mark.parametrize("hits", [0, 5])
def test_a_control_of_0_or_1_is_not_certain(hits):
    labels = np.zeros((5, 4, 3), int)
    labels[:hits, 2:, 0] = 1
    row = curve(ControlDisentanglement(steps=3, draws=20)(walks(labels)), "cd_max_control").iloc[0]
    expected = binomtest(hits, 5).proportion_ci(method="wilson")
    assert (row["value"], row["low"], row["high"]) == pytest.approx((hits / 5, *expected))


def test_a_single_start_has_no_interval_of_its_entropy():
    rows = ControlDisentanglement(steps=12, draws=20)(walks(random_labels(1, 12))).rows
    # Shares have Wilson's interval, the largest one too if it is 0 or 1.
    shares = ["cd_control", "cd_control_ever", "cd_end_control", "cd_max_control"]
    resampled = rows[~rows["metric"].isin(shares)]
    assert resampled[["low", "high"]].isna().all(axis=None) and resampled["value"].notna().any()


# -- reading one curve against another -------------------------------------------------------------
def test_area_and_levels_of_a_straight_and_of_a_falling_back_curve():
    c = np.linspace(0, 0.8, 41)
    assert area(c, 0.5 * c) == pytest.approx(0.5 * 0.8**2 / 2)
    assert area(c, 0.5 * c, 0.3) == pytest.approx(0.5 * 0.3**2 / 2)
    np.testing.assert_allclose(
        at_level(c, 0.5 * c, np.array([0.25, 0.8, 0.9])), [0.125, 0.4, np.nan]
    )
    # The first point has these levels already.
    np.testing.assert_array_equal(
        at_level(np.array([0.3, 0.3, 0.7]), np.array([7, 8, 9]), np.array([0.1, 0.3])), [7, 7]
    )
    # up to 0.4, back to 0.2, on to 0.6: between 0.4 and 0.6 D is that of the last piece, 0.3 + (c - 0.2) * 0.25
    c, d = np.array([0, 0.4, 0.2, 0.6]), np.array([0, 0.1, 0.3, 0.4])
    grid = np.linspace(0, 0.6, 60001)
    fine = np.where(grid <= 0.4, grid * 0.25, 0.3 + (grid - 0.2) * 0.25)
    assert area(c, d) == pytest.approx(trapezoid(fine, grid), abs=1e-5)
    np.testing.assert_allclose(at_level(c, d, grid[7::501]), fine[7::501], atol=1e-12)
    assert area(np.stack([c, c]), np.stack([d, 2 * d])) == pytest.approx(
        [area(c, d), 2 * area(c, d)]
    )


def test_most_within_looks_between_the_points_and_over_all_of_the_curve():
    assert most_within(np.array([0, 0.5]), np.array([0, 0.2]), 0.1) == pytest.approx(0.25)
    assert most_within(np.array([0, 0.5, 0.9]), np.array([0, 0.2, 0.05]), 0.1) == pytest.approx(0.9)
    assert most_within(np.array([0, 0.5, 0.9]), np.array([0, 0.05, 0.3]), 0.1) == pytest.approx(
        0.5 + 0.4 * 0.2
    )
    assert most_within(np.array([0.2, 0.3]), np.array([0.0, 0.0]), 0.1) == 0.3
    # A single point has no segment.
    assert most_within(np.array([0.2]), np.array([0.1]), 0.1) == 0.2
    assert np.isnan(most_within(np.array([0.2]), np.array([0.2]), 0.1))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=9))
def test_most_within_is_what_a_fine_grid_finds(points):
    c, d = np.array([(0.0, 0.0), *points]).T
    s = np.linspace(0, len(c) - 1, 4001)
    fine_c, fine_d = np.interp(s, range(len(c)), c), np.interp(s, range(len(c)), d)
    best = most_within(c, d, 0.3)
    assert best >= fine_c[fine_d <= 0.3].max() - 1e-12
    assert best <= fine_c[fine_d <= 0.3 + 0.02].max() + 0.02


# -- figures ---------------------------------------------------------------------------------------
METRICS = {
    "control_disentanglement": {"figure": "editbench.metrics.control_disentanglement.figure.draw"}
}


def cd_rows(scale: float, most: float) -> pd.DataFrame:
    """D = scale C along a walk that reaches the control `most`."""
    control = np.linspace(0, most, 41)
    rows = [
        {
            "metric": name,
            "x": float(t),
            "value": value,
            "low": value,
            "high": value,
            "count": 50,
            "note": "",
        }
        for name, values in (("cd_control", control), ("cd_entropy", scale * control))
        for t, value in enumerate(values)
    ]
    frame = pd.concat([metric_rows(), pd.DataFrame(rows)], ignore_index=True)
    group = np.where(frame["metric"].str.startswith("cd_"), "control_disentanglement", "")
    return frame.assign(version=1, higher_is_better=None, group=group)


def test_the_common_range_is_that_of_the_shortest_method_but_the_floor(tmp_path):
    for name, scale, most in (
        ("alpha", 0.2, 0.8),
        ("beta", 0.4, 0.5),
        ("weak", 0.9, 0.05),
        ("random", 0.5, 0.3),
    ):
        fake_run(tmp_path, name, "smile", cd_rows(scale, most), metrics=METRICS)
    results = load(tmp_path)
    means = common_means(cd_curves(results)).set_index("method")
    assert (means["common"] == 0.5).all()
    assert means["mean"].dropna().to_dict() == pytest.approx(
        {"alpha": 0.2 * 0.25, "beta": 0.4 * 0.25}
    )
    keys = [one.file for one in draw(results, theme_of(results.runs))]
    page = report_of(tmp_path, draws=keys)
    assert keys == ["cd", "cd_area"] and not load(tmp_path).problems
    assert all(
        (page.parent / "figures" / f"{key}.{kind}").exists()
        for key in keys
        for kind in ("png", "pdf", "svg")
    )
    text = page.read_text()
    assert (
        "Control and disentanglement" in text and "cd control" not in text
    )  # no curve over steps as if over effects


def test_the_ends_of_the_figure_are_those_of_the_curve(tmp_path):
    fake_run(tmp_path, "alpha", "smile", cd_rows(0.2, 0.8), metrics=METRICS)
    results = load(tmp_path)
    theme = theme_of(results.runs)
    figure = cd_figure(cd_curves(results), bands(results), theme)
    line = max(figure.axes[0].lines, key=lambda line: len(line.get_xdata()))
    np.testing.assert_allclose(line.get_xdata(), np.linspace(0, 0.8, 41))
    np.testing.assert_allclose(line.get_ydata(), 0.2 * np.linspace(0, 0.8, 41))


def test_paths_are_drawn_of_the_starts_that_the_methods_share(tmp_path):
    pictures = torch.randint(0, 255, (3, 4, 3, 8, 8), dtype=torch.uint8)
    for name in ("alpha", "beta"):
        rows = cd_rows(0.2, 0.8)
        fake_run(tmp_path, name, "smile", rows, metrics=METRICS, pictures=pictures)
    fake_run(tmp_path, "bare", "smile", cd_rows(0.2, 0.8), metrics=METRICS)
    results = load(tmp_path)
    kept = kept_paths(results)
    assert set(kept) == {"smile"} and list(kept["smile"]) == [40, 41]
    for by_method in kept["smile"].values():
        assert set(by_method) == {"alpha", "beta"}
    theme = theme_of(results.runs)
    found = {one.file: one for one in draw(results, theme)}
    assert not found["cd_paths_smile"].first
    panels = found["cd_paths_smile"].draw(theme).axes
    # Two starts of two methods, four steps each; the first picture is the start's own.
    assert len(panels) == 16 and panels[0].get_ylabel() == "alpha"
    shown = panels[0].images[0].get_array()
    np.testing.assert_array_equal(shown, pictures[0, 0].permute(1, 2, 0).numpy())
    underlined = [axes.spines["bottom"].get_visible() for axes in panels[:4]]
    assert underlined == [False, False, True, True]
