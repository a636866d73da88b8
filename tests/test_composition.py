"""Two edits one after the other: straight edits commute, others do not, and success is of the end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from torch.nn import functional as F

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.metrics.composition.metric import CompositionSuccess
from editbench.metrics.composition.observation import (
    FORWARD,
    CompositionObservation,
    _Drawn,
    _order_arrays,
    _Stage,
    advance,
)
from editbench.walk.editor import Editor, FitReport
from editbench.walk.observation import Observed, read_observed
from tests.by_config import run_job
from tests.toy_world import ATTRIBUTES, AlongColumn, ToyGenerator, ToyScorer, V, toy_config


class Bank:
    """150 samples of the toy world, all of them the test split."""

    samples_key, spec, sigma = (
        "bank",
        SimpleNamespace(split=lambda name: (0, 150)),
        {"judge": np.ones(ATTRIBUTES.width)},
    )

    def __init__(self):
        w = torch.randn(150, 8, generator=torch.Generator().manual_seed(0)) * 2
        logits = ToyScorer()(ToyGenerator().map(w / 2).reshape(-1, 1, 2, 4))
        self.arrays = {"w": w.numpy(), "judge": logits.numpy()}

    def array(self, name):
        return SimpleNamespace(take=lambda index: self.arrays[name][index])


def context(editor, other=None, **more):
    parts = {
        "editor": editor,
        "generator": ToyGenerator(),
        "teacher": ToyScorer(),
        "judge": ToyScorer(),
        "bank": Bank(),
        "attribute": "a",
        "target": None,
        "seed": 0,
        "device": "cpu",
        "batch": 16,
        "cache": Path("nowhere"),
        "editor_for": lambda name: other or editor,
    }
    return SimpleNamespace(**(parts | more))


class Turning(Editor):
    """A direction that turns with the code: two of these do not commute."""

    def fit(self, data):
        return FitReport()

    def step(self, walk):
        column, sign = ATTRIBUTES.column(walk.attribute, walk.target)
        straight = torch.as_tensor(sign)[:, None] * F.normalize(V.T, dim=-1)[column]
        return (
            walk.codes
            + 0.5 * straight
            + 0.1 * walk.codes.roll(1, 1) * (1 if walk.attribute == "a" else -1)
        )


def test_straight_edits_commute_and_turning_ones_do_not():
    straight = CompositionObservation("b", n=80, max_steps=30).look(context(AlongColumn()))
    both = straight.arrays["both"]
    assert np.nanmax(straight.arrays["distance"]) < 1e-5
    walked = np.isfinite(straight.arrays["distance"])
    assert walked.sum() > 30
    assert both[walked].all()
    assert (straight.arrays["travelled"][walked] > 0).all()
    assert (straight.arrays["pixels"][walked] < 1e-5).all()
    turning = CompositionObservation("b", n=80, max_steps=30).look(context(Turning()))
    walked = np.isfinite(turning.arrays["distance"])
    assert walked.sum() > 10 and (turning.arrays["distance"][walked] > 1e-3).all()


def test_the_ends_are_those_of_a_walk_by_hand():
    """Sample by sample: walk to the crossing of the first, then from there to that of the second."""
    found = CompositionObservation("b", n=40, max_steps=30).look(context(AlongColumn()))
    bank, unit = Bank(), F.normalize(V.T, dim=-1)
    for place, start in enumerate(found.arrays["start"]):
        for order, suffix in (((0, 1), ""), ((1, 0), "_reversed")):
            w = torch.from_numpy(bank.arrays["w"][start]).clone()
            aims = [(w @ V[:, k] <= 0).item() for k in (0, 1)]  # towards the class it lacks
            for k in order:
                for _ in range(30):
                    if (w @ V[:, k] > 0).item() == aims[k]:
                        break
                    w = w + 0.5 * (1 if aims[k] else -1) * unit[k]
            expected = all((w @ V[:, k] > 0).item() == aims[k] for k in (0, 1))
            assert found.arrays[f"both{suffix}"][place] == expected, (start, suffix)


def test_both_orders_have_the_same_starts_and_targets():
    one = CompositionObservation("b", n=50, max_steps=30).look(context(AlongColumn())).arrays
    other = (
        CompositionObservation("a", n=50, max_steps=30)
        .look(context(AlongColumn(), attribute="b"))
        .arrays
    )
    assert np.array_equal(one["start"], other["start"])
    assert np.array_equal(one["both"], other["both_reversed"])
    assert np.array_equal(one["both_reversed"], other["both"])
    assert np.array_equal(one["others"], other["others_reversed"])


def test_advance_gives_each_sample_its_own_number_of_steps():
    codes = np.zeros((3, 8), np.float32)
    end = advance(
        AlongColumn(),
        "a",
        np.arange(3),
        codes,
        np.array([0, 0, 1]),
        np.array([1, 1, 0]),
        np.array([0, 3, 2]),
        "cpu",
    )
    normal = F.normalize(V.T, dim=-1)[0].numpy()
    np.testing.assert_allclose(end, np.outer([0, 1.5, -1.0], normal), atol=1e-6)


class Leaving(AlongColumn):
    """Moves by the class that it leaves, as InterFaceGAN does: from a class to itself there is no way."""

    def step(self, walk):
        return torch.where((walk.source != walk.target)[:, None], super().step(walk), walk.codes)


def test_an_editor_that_reads_the_class_it_leaves_walks_the_same_lengths():
    plain, leaving = (
        CompositionObservation("b", n=60, max_steps=30).look(context(one())).arrays
        for one in (AlongColumn, Leaving)
    )
    walked = np.isfinite(plain["travelled"])
    assert walked.any() and (leaving["travelled"][walked] > 0).all()
    np.testing.assert_array_equal(leaving["travelled"], plain["travelled"])


def test_the_class_that_the_job_asks_for_is_asked_for():
    free = CompositionObservation("b", n=60, max_steps=30).look(context(AlongColumn())).arrays
    asked = (
        CompositionObservation("b", n=60, max_steps=30)
        .look(context(AlongColumn(), target=1))
        .arrays
    )
    bank = Bank()
    without = (
        bank.arrays["judge"][free["start"], 0] <= 0
    )  # a's first column; the others have class 1 already
    np.testing.assert_array_equal(asked["start"], free["start"][without])
    np.testing.assert_array_equal(asked["both"], free["both"][without])  # binary: the same targets


def test_pictures_begin_with_the_start():
    found = CompositionObservation("b", n=40, max_steps=30, pictures=3).look(context(AlongColumn()))
    assert found.arrays["pictures"].shape == (3, 5, 1, 2, 4) and found.meta["then"] == "b"


class OneByOne(ToyGenerator):
    """Decodes sample by sample, which gives nothing to join of an empty batch."""

    def _decode(self, codes):
        return torch.cat(
            [super(OneByOne, self)._decode(codes[k : k + 1]) for k in range(len(codes))]
        )


def test_without_a_start_where_both_hold_nothing_is_decoded():
    slow = AlongColumn(delta=1e-6)
    observation = CompositionObservation("b", n=20, max_steps=1, pictures=2)
    found = observation.look(context(slow, generator=OneByOne()))
    assert not found.arrays["both"].any() and "pictures" not in found.arrays


class SomeRows(AlongColumn):
    """Moves a row of W+ that a search has found, as GANSpace does; no option says so."""

    def codes(self, walk):
        rows = walk.origin.unsqueeze(1).repeat(1, 2, 1)
        rows[:, 0] = walk.codes
        return Codes(Space.W_PLUS, rows)


class SomeRowsTowardsTheLast(SomeRows):
    """Searched for every class of its own: only towards the last one it moves some rows."""

    def codes(self, walk):
        last = len(ATTRIBUTES[walk.attribute].classes) - 1
        if (walk.target == last).all():
            return super().codes(walk)
        return Codes(Space.W, walk.codes)


def test_what_cannot_be_composed_is_said():
    with pytest.raises(Unsupported, match="job's own attribute a"):
        CompositionObservation("a").check(context(AlongColumn()))
    layered = AlongColumn(layers=(0, 1))
    layered.bind(ToyGenerator())
    with pytest.raises(Unsupported, match="without a layer range"):
        CompositionObservation("b").look(context(layered))
    for editor in (SomeRows(), SomeRowsTowardsTheLast()):  # which only its codes show
        with pytest.raises(Unsupported, match="without a layer range"):
            CompositionObservation("b").look(context(editor))
    styles = AlongColumn()
    styles.space = Space.S
    with pytest.raises(Unsupported, match="one vector of W or Z"):
        CompositionObservation("b").check(context(styles))
    with pytest.raises(EditbenchError, match="n=0"):
        CompositionObservation("b", n=0)


def test_both_hold_only_where_each_walk_arrived_and_the_end_is_sound():
    """Four starts whose end has both targets: all is well; the first walk never arrived (the second
    took its attribute along); the second undid the first; the second turned NaN."""
    n = 4
    index = np.arange(n)
    start = np.full((n, ATTRIBUTES.width), -1.0, np.float32)
    end = np.ones_like(start)
    end[2, 0] = -1
    end[3] = np.nan
    classes = np.zeros(n, np.int64)
    codes = np.zeros((n, 8), np.float32)
    one = _Stage(codes, start, classes, np.array([True, False, True, True]))
    both = _Stage(codes, end, classes, np.ones(n, bool))
    drawn = _Drawn(index, codes, start, {"a": classes + 1, "b": classes + 1})
    found = _order_arrays(context(AlongColumn()), ("a", "b"), drawn, (one, both), FORWARD)
    assert found["both"].tolist() == [True, False, False, False]
    assert found["crossed"].tolist() == [True, False, True, True]


class Breaking(AlongColumn):
    """A step towards class 0 of b is not a number."""

    def step(self, walk):
        broken = (walk.attribute == "b") & (walk.target == 0)
        return super().step(walk).masked_fill(broken[:, None], torch.nan)


def test_an_edit_that_is_not_a_number_holds_in_no_order():
    """Logits of NaN would read as class 0, which is the target of such an edit."""
    found = CompositionObservation("b", n=80, max_steps=30).look(context(Breaking())).arrays
    sound = CompositionObservation("b", n=80, max_steps=30).look(context(AlongColumn())).arrays
    broken = Bank().arrays["judge"][found["start"], 1] > 0
    # The edit of a may move b along, and the edit of b has then no step to make.
    stepped = broken & np.isfinite(sound["travelled"])
    assert stepped.any() and not found["both"][stepped].any()
    assert sound["both_reversed"][broken].any() and not found["both_reversed"][broken].any()
    for name in ("both", "both_reversed"):
        np.testing.assert_array_equal(found[name][~broken], sound[name][~broken])


def test_the_metric_by_hand():
    arrays = {
        "start": np.array([9, 2, 5, 7]),
        "both": np.array([True, True, False, True]),
        "both_reversed": np.array([True, False, False, False]),
        "others": np.array([0, 2, 0, 0]),
        "others_reversed": np.array([1, 0, 0, 0]),
        "distance": np.array([1.0, 0.0, np.nan, 3.0]),
        "travelled": np.array([2.0, 0.0, np.nan, 4.0]),
        "pixels": np.array([0.1, 0.2, np.nan, 0.3]),
        "pictures": np.zeros((2, 5, 1, 2, 2)),
    }
    result = CompositionSuccess(draws=50)(Observed(arrays))
    value = result.rows.set_index("metric")["value"]
    assert value.to_dict() == pytest.approx(
        {
            "composition_success": 0.75,
            "composition_accuracy": 0.5,
            "composition_success_reversed": 0.25,
            "composition_accuracy_reversed": 0.0,
            "commutator": (0.5 + 0 + 0.75) / 3,
            "commutator_pixels": 0.2,
        }
    )
    rows = result.rows.set_index("metric")
    assert rows["count"].to_dict()["commutator"] == 3 and (rows["note"] == "").all()
    ends = binomtest(3, 4).proportion_ci(method="wilson")
    assert rows.loc["composition_success", ["low", "high"]].tolist() == pytest.approx(list(ends))
    low, high = rows.loc["commutator", ["low", "high"]]
    assert 0 < low < value["commutator"] < high < 0.75
    samples = result.samples[result.samples["metric"] == "commutator"]
    assert samples["start"].tolist() == [2, 7, 9]
    assert set(value.index) == set(CompositionSuccess.produces)
    order = [2, 0, 3, 1]
    mixed = {name: values[order] if len(values) == 4 else values for name, values in arrays.items()}
    pd.testing.assert_frame_equal(CompositionSuccess(draws=50)(Observed(mixed)).rows, result.rows)
    # This start has no commutator.
    few = {name: values[[2]] for name, values in arrays.items() if name != "pictures"}
    notes = CompositionSuccess(draws=50)(Observed(few)).rows.set_index("metric")["note"]
    without = "no start where both edits took a step and hold"
    assert notes[["commutator", "commutator_pixels"]].tolist() == [without] * 2
    assert notes["composition_success"] == ""


def test_a_second_attribute_that_is_not_evaluated_is_named_before_the_walk(tmp_path, monkeypatch):
    walked = []
    monkeypatch.setattr(AlongColumn, "step", lambda self, walk: walked.append(walk) or walk.codes)
    cfg = toy_config(tmp_path, "observation=[composition]", "metric=[crossing_accuracy]")
    cfg.evaluated, cfg.observation.composition.then = ["a", "b"], "c"
    outcome = run_job(cfg)
    expected = "unknown attribute in observation.composition.then 'c'. Available: a, b."
    assert (outcome.status, outcome.reason, walked) == ("failed", expected, [])


def test_in_a_job(tmp_path, monkeypatch):
    graded = []
    monkeypatch.setattr(
        AlongColumn,
        "tune",
        lambda self, data, name: graded.append((name, torch.is_grad_enabled())) or FitReport(),
    )
    cfg = toy_config(
        tmp_path, "observation=[composition]", "metric=[crossing_accuracy,composition]"
    )
    cfg.observation.composition.then, cfg.observation.composition.n = "b", 30
    outcome = run_job(cfg)
    assert outcome.status == "done", outcome.reason
    found = read_observed(tmp_path / outcome.run_id, "composition")
    assert found.meta["first"] == "a" and len(found.arrays["start"]) == 30
    rows = pd.read_parquet(tmp_path / outcome.run_id / "rows.parquet").set_index("metric")
    assert rows.loc["composition_success", "value"] == found.arrays["both"].mean() > 0.3
    assert rows.loc["commutator", "value"] < 1e-5
    assert graded == [("a", True), ("b", True)]  # fitted for both, and a fit may take derivatives
