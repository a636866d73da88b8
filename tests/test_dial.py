"""The entanglement dial: the worlds that ship, the laws behind them, slopes by hand, and their place in a report."""

from __future__ import annotations

import csv
import functools

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from editbench.base.errors import EditbenchError
from editbench.base.files import seal_folder
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.figures.theme import make_theme
from editbench.report import dial, figure_dial
from editbench.report.load import load
from editbench.worlds.card import phi
from editbench.worlds.faces import load_scorer
from editbench.worlds.faces.dial import (
    CURVATURES,
    PAIRS,
    SETTINGS,
    law,
    load_generator,
    partner,
)
from editbench.worlds.faces.factors import TRAITS, sample_factors
from tests.fake_records import fake_run, metric_rows, report_of, start_samples

HALF = 0.05


@functools.cache
def labels_of(rho: float, n: int) -> np.ndarray:
    """The judge's labels of generated faces."""
    generator, judge = load_generator(rho), load_scorer("judge")
    z = torch.from_numpy(normals(77, "dial", 0, n, generator.z_dim)).float()
    with torch.inference_mode():
        parts = [judge(generator.decode(Codes(Space.Z, part))) for part in z.split(128)]
    return judge.attributes.labels(torch.cat(parts)).numpy()


@pytest.mark.parametrize("rho", SETTINGS)
def test_the_generator_has_learnt_the_ties_of_its_world_and_no_others(rho):
    made, data = labels_of(rho, 400), sample_factors(law(rho), 3, 0, 20000).labels().numpy()
    binary = [k for k, name in enumerate(TRAITS) if name not in ("hair_color", "yaw")]
    for i in binary:
        assert abs(made[:, i].mean() - data[:, i].mean()) < 0.10, TRAITS[i]  # the bar of the card
        for j in binary[:i]:
            gap = phi(made[:, i], made[:, j]) - phi(data[:, i], data[:, j])
            # The noise of 400 faces, and a generator that exaggerates: docs/entanglement_dial.md.
            assert abs(gap) < 0.25, (TRAITS[i], TRAITS[j])


def test_the_ties_of_the_generators_grow_along_the_dial():
    found = {rho: labels_of(rho, 400) for rho in SETTINGS}
    for (first, second), sign in PAIRS.items():
        i, j = TRAITS.index(first), TRAITS.index(second)
        ties = [sign * phi(labels[:, i], labels[:, j]) for labels in found.values()]
        assert ties == sorted(ties), (first, second)


def test_the_law_ties_two_pairs_and_nothing_else():
    matrix = law(0.6).correlation_matrix()
    expected = np.eye(len(TRAITS))
    for a, b, rho in (("age", "eyeglasses", 0.6), ("beard", "long_hair", -0.6)):
        i, j = TRAITS.index(a), TRAITS.index(b)
        expected[i, j] = expected[j, i] = rho
    np.testing.assert_array_equal(matrix, expected)
    assert partner("eyeglasses") == ("age", 1)
    assert partner("beard") == ("long_hair", -1)
    assert partner("smile") is None


def test_a_setting_that_is_not_there_is_named_with_the_remedy():
    with pytest.raises(
        EditbenchError, match=r"generator.rho=0.45: the package has rho 0.0, 0.3, 0.6, 0.9; train"
    ):
        load_generator(0.45)


def dial_run(
    root,
    method: str,
    attribute: str,
    rho: float,
    n: int = 100,
    note: str = "",
    key: str = "rho",
    samples: pd.DataFrame | None = None,
    half: float = HALF,
    seed: int = 0,
    **numbers: float,
) -> None:
    other = partner(attribute)
    rows = metric_rows(0.5)
    rows = rows[rows["metric"] == "accuracy"]
    for name, value in numbers.items():
        variant = ""
        metric = name
        if name == "entanglement":
            variant = other[0]
            metric = "entanglement_with"
        x = np.nan if name == "accuracy" else 1.0
        one = {
            "metric": metric,
            "variant": variant,
            "x": x,
            "value": value,
            "low": value - half,
            "high": value + half,
            "count": n,
            "note": note,
            "version": 1,
            "higher_is_better": None,
        }
        rows = pd.concat([rows[rows["metric"] != metric], pd.DataFrame([one])], ignore_index=True)
    folder = fake_run(
        root,
        method,
        attribute,
        rows,
        generator=f"faces32_rho{rho}",
        tag=f"rho{10 * rho:.0f}",
        samples=samples,
        seed=seed,
    )
    config = folder / "config.yaml"
    config.write_text(
        config.read_text().replace(
            "_target_: somewhere.load", f"_target_: somewhere.load\n  {key}: {rho}"
        )
    )
    seal_folder(folder)


def write(root, rhos=SETTINGS):
    for rho in rhos:
        dial_run(root, "bound", "eyeglasses", rho, entanglement=0.1 + rho, accuracy=0.8 - 0.5 * rho)
        dial_run(root, "bound", "beard", rho, entanglement=-0.4 * rho, accuracy=0.6)
        dial_run(root, "free", "eyeglasses", rho, entanglement=0.02, accuracy=0.7)
    return root


def test_slopes_by_hand(tmp_path):
    found = dial.slopes(load(write(tmp_path))).set_index(["quantity", "method"])
    assert found.loc[("entanglement", "bound"), "slope"] == pytest.approx(
        (1 + 0.4) / 2
    )  # a tie of sign -1 is turned
    assert found.loc[("entanglement", "bound"), ["first", "last"]].tolist() == pytest.approx(
        [0.05, (1.0 + 0.36) / 2]
    )
    assert found.loc[("entanglement", "free"), "slope"] == pytest.approx(0, abs=1e-12)
    assert found.loc[("accuracy", "bound"), "slope"] == pytest.approx(-0.25)
    assert found.loc[("accuracy", "bound"), ["attributes", "worlds"]].tolist() == [2, 4]
    # One attribute: the interval of a weighted fit with known errors.
    _, covariance = np.polyfit(
        SETTINGS, np.full(4, 0.02), 1, w=np.full(4, dial.Z95 / HALF), cov="unscaled"
    )
    half = dial.Z95 * np.sqrt(covariance[0, 0])
    assert found.loc[("entanglement", "free"), ["low", "high"]].tolist() == pytest.approx(
        [-half, half], rel=1e-6
    )


def test_the_linearity_dial_ties_nothing(tmp_path):
    for setting, accuracy in ((0.0, 0.3), (0.3, 0.45), (1.0, 0.8)):
        one = {"key": "linearity", "accuracy": accuracy}
        dial_run(tmp_path, "bound", "eyeglasses", setting, **one)
        dial_run(tmp_path, "free", "eyeglasses", setting, key="linearity", accuracy=0.7)
    results = load(tmp_path)
    assert dial.title(results) == "The linearity dial"
    found = dial.slopes(results).set_index(["quantity", "method"])
    assert found.loc[("accuracy", "bound"), "slope"] == pytest.approx(0.5)
    assert found.loc[("accuracy", "free"), "slope"] == pytest.approx(0, abs=1e-12)
    assert "entanglement" not in found.index.get_level_values(0)


def test_the_curvature_dial_is_drawn_against_its_turns(tmp_path):
    for setting in CURVATURES:
        one = {"key": "curvature", "accuracy": 0.8 - 0.4 * setting}
        dial_run(tmp_path, "straight", "smile", setting, **one)
    results = load(tmp_path)
    assert dial.title(results) == "The curvature dial"
    found = dial.slopes(results).iloc[0]
    assert found["slope"] == pytest.approx(-0.4) and found["worlds"] == len(CURVATURES)


def bootstrapped_slopes(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the slope of the means of values (starts, CURVATURES), over whole starts."""
    rng = np.random.default_rng(5)
    draws = []
    for _ in range(4000):
        drawn = values[rng.integers(0, len(values), len(values))]
        draws.append(np.polyfit(CURVATURES, drawn.mean(0), 1)[0])
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_slopes_over_the_same_starts_are_paired(tmp_path, shared):
    """The interval is that of resampling whole starts, whether they vary together or not."""
    n = 400
    rng = np.random.default_rng(3)
    own = rng.normal(size=(n, len(CURVATURES)))
    common = rng.normal(size=(n, 1))
    values = 1.0 + 0.3 * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
    half = dial.Z95 * values.std(0).mean() / np.sqrt(n)
    for setting, column in zip(CURVATURES, values.T):
        dial_run(
            tmp_path,
            "walk",
            "smile",
            setting,
            key="curvature",
            samples=start_samples(ad_at=column).assign(x=1.0),
            half=half,
            ad_at=column.mean(),
        )
    found = dial.slopes(load(tmp_path)).set_index("quantity").loc["ad_at"]
    low, high = bootstrapped_slopes(values)
    assert found["slope"] == pytest.approx(np.polyfit(CURVATURES, values.mean(0), 1)[0])
    assert found["high"] - found["low"] == pytest.approx(high - low, rel=0.06)


def test_starts_that_agree_everywhere_leave_no_doubt(tmp_path):
    """The control of the curvature dial: the same outcome of every start at every setting."""
    same = start_samples(accuracy=(np.arange(100) < 60).astype(float))
    for setting in CURVATURES:
        one = {"key": "curvature", "accuracy": 0.6, "samples": same}
        dial_run(tmp_path, "control", "smile", setting, **one)
    found = dial.slopes(load(tmp_path)).iloc[0]
    assert found[["slope", "low", "high"]].tolist() == pytest.approx([0, 0, 0], abs=1e-9)


def test_the_report_has_the_dial_as_figure_table_and_file(tmp_path):
    page = report_of(write(tmp_path / "runs", (0.0, 0.9)), tmp_path, ["dial"]).read_text()
    assert "Across worlds" in page and "The entanglement dial" in page and "0.700 (" in page
    assert (tmp_path / "figures" / "dial.png").stat().st_size > 10_000
    rows = list(csv.DictReader((tmp_path / "dial.csv").open()))
    assert {row["method"] for row in rows} == {"bound", "free"} and "variant_of" not in rows[0]
    assert "## The entanglement dial" in (tmp_path / "table.md").read_text()


def test_few_starts_and_remarked_numbers_have_no_weight(tmp_path):
    for rho in SETTINGS:
        dial_run(
            tmp_path,
            "bound",
            "eyeglasses",
            rho,
            n=100 if rho < 0.9 else 4,
            entanglement=rho,
            accuracy=0.5,
        )
        dial_run(tmp_path, "excluded", "eyeglasses", rho, note="excluded: few cross", ad_at=0.1)
    found = dial.points(load(tmp_path))
    assert found[found["quantity"] == "entanglement"]["dial"].tolist() == [
        0.0,
        0.3,
        0.6,
    ]  # four starts say nothing
    assert found[found["quantity"] == "accuracy"].groupby("method")["dial"].count()["bound"] == 4
    assert not ((found["quantity"] == "ad_at") & (found["method"] == "excluded")).any()


def test_the_table_has_the_methods_of_every_quantity(tmp_path):
    """smile is tied to none: a method that serves it alone has no entanglement, but an accuracy."""
    for rho in SETTINGS:
        dial_run(tmp_path, "bound", "eyeglasses", rho, entanglement=rho, accuracy=0.5)
        dial_run(tmp_path, "smiling", "smile", rho, accuracy=0.6)
    heads, *rows = dial.table(load(tmp_path))
    assert [row[0] for row in rows] == ["bound", "smiling"]
    assert rows[1][heads.index("accuracy")] == "0.600 → 0.600" and rows[1][1:3] == ["–", "–"]


def test_both_ends_are_of_the_attributes_that_have_a_slope(tmp_path):
    for rho in SETTINGS:
        dial_run(tmp_path, "bound", "eyeglasses", rho, entanglement=rho, accuracy=0.5)
    dial_run(tmp_path, "bound", "beard", 0.9, entanglement=-5.0, accuracy=0.5)  # one world: no line
    one = dial.slopes(load(tmp_path)).set_index("quantity").loc["entanglement"]
    assert one[["first", "last", "slope"]].tolist() == pytest.approx([0, 0.9, 1])
    assert one["attributes"] == 1


def test_an_end_that_an_attribute_does_not_reach_is_not_replaced_by_another_setting(tmp_path):
    for rho in SETTINGS:
        dial_run(tmp_path, "bound", "eyeglasses", rho, entanglement=rho, accuracy=0.5)
    for rho in SETTINGS[:-1]:
        dial_run(tmp_path, "bound", "beard", rho, entanglement=-rho, accuracy=0.5)
    results = load(tmp_path)
    one = dial.slopes(results).set_index("quantity").loc["entanglement"]
    assert one["first"] == 0
    assert np.isnan(one["last"])
    assert one["slope"] == pytest.approx(1)
    assert one["worlds"] == len(SETTINGS) - 1
    heads, row = dial.table(results)
    assert row[heads.index("entanglement")] == "0.000 → –"


def test_an_end_of_seeds_that_are_kept_apart_is_their_mean(tmp_path):
    for rho in SETTINGS:
        for seed in (0, 1):
            numbers = {"entanglement": rho + 0.2 * seed, "accuracy": 0.5}
            dial_run(tmp_path, "bound", "eyeglasses", rho, seed=seed, **numbers)
    results = load(tmp_path, by_seed=True)
    one = dial.slopes(results).set_index("quantity").loc["entanglement"]
    assert one[["first", "last", "slope"]].tolist() == pytest.approx([0.1, 1.0, 1.0])
    assert (one["attributes"], one["worlds"]) == (1, len(SETTINGS))


def test_one_world_is_no_dial(tmp_path):
    dial_run(tmp_path, "bound", "eyeglasses", 0.3, entanglement=0.1, accuracy=0.5)
    alone = load(tmp_path)
    assert dial.points(alone).empty
    assert not dial.table(alone)
    assert not figure_dial.drawings(alone, {})


@pytest.mark.parametrize(("low", "high", "cut"), [(-5, 9, True), (0.1, 0.6, False)])
def test_a_whisker_longer_than_the_lines_are_apart_is_cut_at_the_edge(low, high, cut):
    axes = Figure().subplots()
    values = pd.Series([0.2, 0.5, 0.4])
    axes.plot([0, 1, 2], values)
    axes.vlines([0], low, high)
    scaled = axes.get_ylim()
    figure_dial._cut_whiskers(axes, values)
    assert axes.get_ylim() == (pytest.approx((0.2 - 0.3, 0.5 + 0.3)) if cut else scaled)


def test_no_line_of_any_panel_leaves_the_figure():
    """The panels of a quantity share their limits, and the largest values may be in the last one."""
    cells = []
    for quantity in ("accuracy", "ad_at"):
        for k, attribute in enumerate(("age", "beard", "smile")):
            for x in (0.0, 1.0):
                value = k + x
                cells.append((quantity, attribute, "m", x, value, value - 0.1, value + 0.1))
    columns = ["quantity", "attribute", "method", "dial", "value", "low", "high"]
    found = pd.DataFrame(cells, columns=columns)
    drawn = figure_dial.dial_figure(found, make_theme(["m"], ()), dial.DIALS[1])
    for axes in drawn.get_axes():
        for line in axes.get_lines():
            low, high = axes.get_ylim()
            assert (low <= np.asarray(line.get_ydata())).all()
            assert (np.asarray(line.get_ydata()) <= high).all()
