"""Randomness: item i depends on (seed, stream, i) alone."""

import numpy as np
import pytest
from scipy import stats

from editbench.base import seeding
from editbench.base.seeding import _open_interval, normals, uniforms


@pytest.mark.parametrize("width", [1, 4, 5, 128])
def test_any_split_of_the_indices_draws_the_same_bits(width):
    whole = normals(3, "bank", 0, 100, width)
    for cuts in ([0, 100], [0, 1, 7, 64, 100], [0, 33, 34, 99, 100]):
        parts = [normals(3, "bank", a, b, width) for a, b in zip(cuts, cuts[1:])]
        assert np.array_equal(np.concatenate(parts), whole)


def test_streams_and_seeds_are_independent():
    base = uniforms(0, "a", 0, 5000, 1)[:, 0]
    for other in (
        uniforms(1, "a", 0, 5000, 1),
        uniforms(0, "b", 0, 5000, 1),
        uniforms(0, "a", 5000, 10000, 1),
    ):
        assert abs(np.corrcoef(base, other[:, 0])[0, 1]) < 0.05


def test_the_law_is_right():
    assert stats.kstest(uniforms(0, "u", 0, 20000, 1)[:, 0], "uniform").pvalue > 1e-3
    assert stats.kstest(normals(0, "n", 0, 20000, 1)[:, 0], "norm").pvalue > 1e-3
    assert 0 < uniforms(0, "u", 0, 20000, 8).min() and uniforms(0, "u", 0, 20000, 8).max() < 1


def test_named_generators_differ_by_name_only():
    assert (
        seeding.rng(0, "x", 1).random()
        == seeding.rng(0, "x", 1).random()
        != seeding.rng(0, "x", 2).random()
    )


def test_bad_range():
    with pytest.raises(ValueError, match="start <= stop"):
        uniforms(0, "u", 5, 2, 1)


def test_the_ends_of_the_interval_are_never_drawn():
    ends = _open_interval(np.array([0, 2**64 - 1], np.uint64))
    assert 0 < ends[0] and ends[1] < 1
    assert np.isfinite(stats.norm.ppf(ends)).all()
