"""The dependency matrix: by hand, the closed form of a linear world, its mean is AD, and what every metric owes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError
from editbench.metrics.attribute_dependency.metric import AttributeDependency
from editbench.metrics.dependency_matrix.metric import DependencyMatrix
from tests.made_walks import HAND, TOY, check_rows, straight_walks, toy_walks
from tests.toy import check_splits


def values(result) -> dict[tuple[str, str], float]:
    return result.rows.set_index(["metric", "variant"])["value"].to_dict()


def test_by_hand():
    result = DependencyMatrix()(HAND)
    # start 1 passes x = 1 at 2/7 of its second step, where c has risen by 2/7 and b has fallen by 2/7 * 0.5;
    # start 4 at 2/3 of its first, where b has fallen by 2/3 * 2. sigma is 2 for b and 4 for c; the target is yes.
    b, c = [2 / 7 * 0.5 / 2, 2 / 3 * 2 / 2], [2 / 7 * 1 / 4, 0.0]
    assert values(result) == pytest.approx(
        {
            ("dependency_on", "b"): np.mean(b),
            ("entanglement_with", "b"): -np.mean(b),
            ("dependency_on", "c"): np.mean(c),
            ("entanglement_with", "c"): np.mean(c),
        }
    )
    assert (result.rows["count"] == 2).all() and (result.rows["x"] == 1).all()
    samples = result.samples.set_index(["metric", "variant", "start"])["value"]
    of_b = samples["dependency_on", "b"]
    assert of_b.to_dict() == pytest.approx({1: b[0], 4: b[1]})


def test_a_linear_world_has_the_signed_ratio_of_the_slopes_whatever_the_target():
    walks, slopes = straight_walks(overlap=0.8, n=30, steps=80)
    slopes = slopes / walks.sigma
    result = DependencyMatrix()(walks)
    assert (result.rows["count"] == 30).all()
    found = values(result)
    for name, ratio in zip(("b", "c"), slopes[1:] / slopes[0]):
        assert found["entanglement_with", name] == pytest.approx(ratio, rel=1e-3)
        assert found["dependency_on", name] == pytest.approx(abs(ratio), rel=1e-3)


@pytest.mark.parametrize("found", [HAND, TOY], ids=["binary", "many classes"])
def test_the_mean_over_the_others_is_the_ad(found):
    mine = values(DependencyMatrix()(found))
    ad = AttributeDependency()(found).rows.set_index("metric").loc["ad_at", "value"]
    assert np.mean(
        [value for (name, _), value in mine.items() if name == "dependency_on"]
    ) == pytest.approx(ad)


def test_only_two_binary_attributes_have_a_sign():
    assert {name for name, _ in values(DependencyMatrix()(TOY))} == {"dependency_on"}


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, 39), max_size=4), seed=st.integers(0, 2**20))
def test_any_split_and_permutation_gives_the_same_number(cuts, seed):
    check_splits(DependencyMatrix(draws=50), TOY, cuts, seed)


def test_rows_keep_the_contract_and_nothing_to_read_is_a_note():
    check_rows(DependencyMatrix(), TOY)
    far = DependencyMatrix(at=9)(HAND)
    assert far.rows["value"].isna().all()
    assert far.rows["note"].str.contains("no start reaches x = 9").all()
    none = DependencyMatrix()(dataclasses.replace(TOY, table=TOY.table.iloc[:0]))
    assert (none.rows["count"] == 0).all() and len(none.samples) == 0
    alone = DependencyMatrix()(toy_walks(Attributes([Attribute("a", ("no", "yes"))]), "a"))
    assert alone.rows["note"].str.contains("one attribute only").all() and len(alone.rows) == 1
    assert len(alone.samples) == 0
    with pytest.raises(EditbenchError, match="at=0 must be positive"):
        DependencyMatrix(at=0)
