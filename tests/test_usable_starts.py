"""A judge's word on how well a sample can be judged: kept by the bank, and a condition on starts."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score
from torch import nn

from editbench.bank.agreement import scorer_agreement
from editbench.bank.build import build_bank
from editbench.bank.spec import BankSpec, StartsSpec
from editbench.bank.starts import draw_targets, set_target
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Space
from editbench.methods.random_direction import RandomDirection
from editbench.networks.roles import Networks
from editbench.networks.scorers.module import ModuleScorer
from editbench.stats.agreement import cohen_kappa, contradicted, foreign, single_class
from tests.toy_world import ATTRIBUTES, ToyGenerator, ToyScorer


class Picky(ToyScorer):
    """Says that a sample is as good as its first coordinate."""

    has_quality = True

    def assess(self, decoded):
        return self(decoded), decoded.flatten(1)[:, :1]


def models():
    return Networks(ToyGenerator(), ToyScorer("teacher", 2.0), Picky("picky"))


def toy_bank(folder, judge_has_quality=True, n=2000):
    made = (
        models
        if judge_has_quality
        else partial(Networks, ToyGenerator(), ToyScorer("t"), ToyScorer("j"))
    )
    return build_bank(folder, "id", BankSpec(n, block=100, shard=400), made)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return toy_bank(tmp_path_factory.mktemp("bank") / "b")


def test_a_bank_keeps_the_quality_of_each_sample(bank):
    z = bank.array("z").range(0, len(bank))
    quality = bank.array("quality").range(0, len(bank))
    # The toy's W is twice its Z, and its pictures are its W.
    assert quality.shape == (len(bank), 1) and np.array_equal(quality[:, 0], 2 * z[:, 0])


def test_one_scorer_in_both_roles_scores_once(tmp_path):
    calls = []
    scorer = Picky("both")
    scorer.register_forward_hook(lambda *_: calls.append(1))
    bank = build_bank(
        tmp_path / "b",
        "id",
        BankSpec(200, block=100, shard=200),
        lambda: Networks(ToyGenerator(), scorer, scorer),
    )
    assert len(calls) == 2
    teacher, judge = (bank.array(role).range(0, 200) for role in ("teacher", "judge"))
    assert np.array_equal(teacher, judge) and "quality" in bank.fields


@pytest.mark.parametrize("near", ["joint", "target", "any"])
def test_no_start_is_below_the_asked_quality(bank, near):
    spec = StartsSpec(40, pool=0.4, near=near, min_quality=0.5)
    quality = bank.array("quality").range(0, len(bank))[:, 0]
    first, last = bank.spec.split("test")
    drawn = draw_targets(spec, bank)
    index = np.concatenate([starts.index for starts in drawn.values()])
    assert len(index) == len(set(index.tolist())) or near == "target"
    assert (quality[index] >= 0.5).all() and (index >= first).all() and (index < last).all()
    share = float((quality[first:last] < 0.5).mean())
    for name, starts in drawn.items():
        assert starts.refused == pytest.approx(share) and 0.3 < share < 0.9
        assert set_target(starts, 1).refused == starts.refused
        labels = ATTRIBUTES.labels(torch.from_numpy(bank.array("judge").take(starts.index)), name)
        assert np.array_equal(labels.numpy(), starts.source)


def test_a_start_of_exactly_the_asked_quality_is_usable(bank):
    first, last = bank.spec.split("test")
    quality = bank.array("quality").range(first, last)[:, 0]
    drawn = draw_targets(StartsSpec(1, near="any", min_quality=float(quality.max())), bank)
    assert np.concatenate([starts.index for starts in drawn.values()]) == first + quality.argmax()


def test_starts_are_the_nearest_of_the_usable_ones(bank):
    quality = bank.array("quality").range(0, len(bank))[:, 0]
    first, last = bank.spec.split("test")
    candidates = int((quality[first:last] >= 0).sum())
    spec = StartsSpec(30, pool=30 / candidates, near="joint", min_quality=0.0)
    drawn = draw_targets(spec, bank)
    index = np.concatenate([starts.index for starts in drawn.values()])
    # All of the pool are drawn: a threshold that refuses the best of them gives others.
    again = draw_targets(StartsSpec(30, pool=30 / (last - first), min_quality=-100.0), bank)
    unlimited = np.concatenate([starts.index for starts in again.values()])
    kept = [one for one in unlimited if quality[one] >= 0]
    assert set(kept) < set(index.tolist())


def test_without_a_quality_there_is_one_line(tmp_path, bank):
    plain = toy_bank(tmp_path / "plain", judge_has_quality=False)
    assert "quality" not in plain.fields
    with pytest.raises(
        EditbenchError, match=r"starts.min_quality=1 needs a judge .*set it to null"
    ):
        draw_targets(StartsSpec(5, min_quality=1.0), plain)
    with pytest.raises(EditbenchError, match=r"exceeds the pool of 0"):
        draw_targets(StartsSpec(5, min_quality=1e9), bank)
    with pytest.raises(EditbenchError, match=r"starts.min_quality=high must be a number"):
        StartsSpec(5, min_quality="high")  # type: ignore[arg-type]


def test_a_module_gives_quality_as_one_of_its_outputs():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    declared = {
        "attributes": [{"name": "a", "classes": ["no", "yes"]}],
        "input_size": [2, 2],
        "columns": [1],
    }
    scorer = ModuleScorer(network, quality=2, **declared)
    images = torch.rand(4, 3, 2, 2) * 2 - 1
    logits, quality = scorer.assess(images)
    out = network(images)
    assert torch.allclose(logits, out[:, [1]]) and torch.allclose(quality, out[:, [2]])
    plain = ModuleScorer(network, **declared)
    assert plain.assess(images)[1] is None and plain.digest != scorer.digest
    for wrong, message in (
        (3, "gives 3 outputs"),
        (-1, "is not an output"),
        (True, "is not an output"),
    ):
        with pytest.raises(EditbenchError, match=message):
            ModuleScorer(network, quality=wrong, **declared)


# -- agreement -------------------------------------------------------------------------------------
def test_kappa_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for classes in (2, 3, 5):
        first = rng.integers(classes, size=300)
        second = np.where(rng.random(300) < 0.6, first, rng.integers(classes, size=300))
        assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))
        # The second classifier never gives the last class.
        second = np.minimum(second, classes - 2)
        expected = pytest.approx(cohen_kappa_score(first, second))
        assert cohen_kappa(first, second) == cohen_kappa(second, first) == expected
    assert np.isnan(cohen_kappa(np.zeros(5, int), np.zeros(5, int)))
    assert np.isnan(cohen_kappa(np.zeros(0, int), np.zeros(0, int)))


def test_agreement_is_remarkable_from_its_limits_on():
    kappas = {"opposite": -0.1, "slight": 0.2, "fair": 0.21, "single": None}
    agreement = {name: {"kappa": kappa} for name, kappa in kappas.items()}
    assert contradicted(agreement) == {"opposite": -0.1, "slight": 0.2}
    assert single_class(agreement) == ("single",)
    shares = {"judge": {"a": 0.979, "b": 0.98}, "teacher": {"a": 1.0, "b": 0.5}}
    assert foreign(shares) == {("judge", "a"): 0.979, ("teacher", "b"): 0.5}


def test_a_banks_agreement_is_over_all_samples(bank):
    found = scorer_agreement(bank)
    # Twice the same logits give the same classes.
    assert found == {name: {"agreement": 1.0, "kappa": 1.0} for name in ("a", "b", "c")}


# -- a generator without W -------------------------------------------------------------------------
def test_an_editor_of_w_names_the_option_that_would_serve_a_generator_of_z():
    only_z = SimpleNamespace(spaces=(Space.Z, Space.THETA), num_ws=0)
    with pytest.raises(
        Unsupported, match=r"needs W codes; the generator has Z, THETA; method.space=z would serve"
    ):
        RandomDirection().check(only_z, ATTRIBUTES, "a")
    RandomDirection(space="z").check(only_z, ATTRIBUTES, "a")
