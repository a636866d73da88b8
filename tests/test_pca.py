"""Streamed principal components: scikit-learn and planted spectra as oracles, any split or order, awkward samples."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA, IncrementalPCA

from editbench.base.errors import EditbenchError, NonFinite
from editbench.methods.ganspace import pca
from editbench.methods.ganspace.pca import Components, Incremental, RunningMoments, estimator


def correlated(n: int, dim: int, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    """Standard deviations 2, 2 / sqrt 2, 2 / sqrt 3, ... along random axes."""
    rng = np.random.default_rng(seed)
    std = 2 / np.sqrt(1 + np.arange(dim))
    return (rng.normal(size=(n, dim)) * std) @ np.linalg.qr(rng.normal(size=(dim, dim)))[0] + mean


def streamed(x: np.ndarray, cuts: list[int]) -> RunningMoments:
    moments = RunningMoments(x.shape[1])
    for part in np.split(x, cuts):
        moments.add(part)
    return moments


def assert_same(a: Components, b: Components, atol: float) -> None:
    for name in ("mean", "rows", "stdev", "ratio"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=atol, err_msg=name)


# -- against scikit-learn and by hand --------------------------------------------------------------
@pytest.mark.parametrize("dtype, atol", [(np.float64, 1e-10), (np.float32, 2e-5)])
def test_the_components_are_those_of_the_full_decomposition(dtype, atol):
    x = correlated(3000, 40, mean=3.0).astype(dtype)
    found, oracle = (
        streamed(x, [7, 1500]).components(12),
        PCA(12, svd_solver="full").fit(x.astype(np.float64)),
    )
    np.testing.assert_allclose(found.stdev, np.sqrt(oracle.explained_variance_), atol=atol)
    np.testing.assert_allclose(found.ratio, oracle.explained_variance_ratio_, atol=atol)
    np.testing.assert_allclose(found.mean, oracle.mean_, atol=atol)
    np.testing.assert_allclose(
        found.rows.T @ found.rows, oracle.components_.T @ oracle.components_, atol=10 * atol
    )
    gaps = -np.diff(PCA(13).fit(x).explained_variance_) / oracle.explained_variance_
    apart = (gaps > 0.05) & np.r_[
        True, gaps[:-1] > 0.05
    ]  # where neighbours are close, rows may turn into one another
    assert apart.sum() >= 5
    np.testing.assert_allclose(
        np.abs((found.rows * oracle.components_).sum(1))[apart], 1, atol=1e-8
    )
    projected = (x.astype(np.float64) - found.mean) @ found.rows.T
    np.testing.assert_allclose(np.cov(projected.T), np.diag(found.stdev**2), atol=10 * atol)


def test_a_planted_covariance_is_recovered():
    rng = np.random.default_rng(1)
    axes, std, n = (
        np.linalg.qr(rng.normal(size=(20, 20)))[0][:4],
        np.array([4.0, 2.0, 1.0, 0.5]),
        200_000,
    )
    x = (rng.normal(size=(n, 4)) * std) @ axes + 10
    found = streamed(x, list(range(20_000, n, 20_000))).components(20)
    assert len(found) == 4 and found.samples == n and found.exact  # the other 16 axes hold nothing
    np.testing.assert_allclose(found.stdev, std, rtol=0.01)  # 4 sampling errors, 1 / sqrt(2 n) each
    assert (np.abs((found.rows * axes).sum(1)) > 0.9999).all()
    assert found.ratio.sum() == pytest.approx(1, abs=1e-12)


def test_in_every_row_the_largest_channel_is_positive():
    x = correlated(500, 15)
    for found in (streamed(x, []).components(15), streamed(-x, []).components(15)):
        assert (np.take_along_axis(found.rows, np.abs(found.rows).argmax(1)[:, None], 1) > 0).all()
    assert_same(streamed(x, []).components(15), _mirrored(streamed(-x, []).components(15)), 1e-9)


def _mirrored(found: Components) -> Components:
    return Components(-found.mean, found.rows, found.stdev, found.ratio, found.samples, found.exact)


# -- any split, any order, any machine -------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=6), st.integers(0, 10**6), st.integers(0, 400))
def test_splits_permutations_and_merges_change_nothing(cuts, seed, half):
    x = correlated(400, 9, mean=50.0)
    mixed = np.random.default_rng(seed).permutation(x)
    a, b = streamed(mixed[:half], []), streamed(mixed[half:], [])
    a.merge(b)
    whole, parts = streamed(x, []), streamed(mixed, sorted(cuts))
    assert a.count == parts.count == 400
    for other in (a, parts):
        np.testing.assert_allclose(other.mean, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(other.covariance(), np.cov(x.T), atol=1e-10)
        assert_same(other.components(9), whole.components(9), 1e-8)


@pytest.mark.parametrize("mean, dtype, rtol", [(1e8, np.float64, 1e-6), (1e4, np.float32, 1e-4)])
def test_a_mean_far_from_zero_costs_no_digits(mean, dtype, rtol):
    x = correlated(20_000, 6, mean=mean).astype(dtype)
    found = streamed(x, [100]).components(6)
    oracle = np.linalg.eigvalsh(np.cov((x - x.mean(0, dtype=np.float64)).T.astype(np.float64)))[
        ::-1
    ]
    np.testing.assert_allclose(found.stdev, np.sqrt(oracle), rtol=rtol)


def test_single_precision_adds_errors_of_its_own_rounding_only():
    x = correlated(30_000, 64, mean=1.0).astype(np.float32)
    fast, slow = streamed(x, []).components(30), streamed(x.astype(np.float64), []).components(30)
    np.testing.assert_allclose(fast.stdev, slow.stdev, rtol=2e-7)


def test_memory_does_not_grow_with_the_stream():
    def peak(blocks: int) -> int:
        moments, block = RunningMoments(64), np.ones((4096, 64), np.float32)
        tracemalloc.start()
        for _ in range(blocks):
            moments.add(block)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(200) < 1.05 * peak(5) < 1_000_000  # 200 blocks are 52 MB


# -- awkward samples -------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_directions_without_variance_are_left_out(dtype):
    few = correlated(12, 40, mean=5.0).astype(dtype)
    assert len(streamed(few, [3]).components(40)) == 11  # 12 samples span 11 directions
    constant = correlated(500, 10, mean=0.1).astype(dtype)
    constant[:, [2, 7]] = 0.1
    found = streamed(constant, [1, 200]).components(10)
    assert len(found) == 8 and np.abs(found.rows[:, [2, 7]]).max() < 1e-6
    for value in (0.0, 0.1, 123.4567):
        assert len(streamed(np.full((777, 3), value, dtype), [20, 21]).components(3)) == 0


def test_one_sample_has_no_covariance():
    for n in (0, 1):
        with pytest.raises(EditbenchError, match="at least 2 samples"):
            streamed(np.ones((n, 3)), []).components(2)


@pytest.mark.parametrize("make", [lambda: RunningMoments(3), lambda: Incremental(2)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_an_error(make, bad):
    x = np.zeros((40, 3))
    x[17, 1] = bad
    with pytest.raises(
        NonFinite, match="samples of a principal component analysis hold NaN or infinity"
    ):
        make().add(x)


# -- the approximation for many channels -----------------------------------------------------------
def test_the_estimator_is_exact_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(pca, "EXACT_LIMIT", 50)
    assert isinstance(estimator(50, 3), RunningMoments)
    assert isinstance(estimator(51, 3), Incremental)


@pytest.mark.parametrize("n", [1500, 2003, 4500])
def test_incremental_is_scikit_learns_in_the_published_batches_however_they_arrive(n):
    x, model = correlated(n, 30, mean=2.0), IncrementalPCA(5)
    cuts = (
        [0, 2000, 4000, n] if n > 4000 else [0, n]
    )  # a rest of less than k samples joins the batch before it
    for a, b in zip(cuts, cuts[1:]):
        model.partial_fit(x[a:b])
    found, pieces = Incremental(5), Incremental(5)
    found.add(x)
    for part in np.array_split(x, 37):
        pieces.add(part)
    first, second = found.components(5), pieces.components(5)
    assert_same(first, second, 0.0)
    assert not first.exact and first.samples == n
    np.testing.assert_allclose(first.stdev, np.sqrt(model.explained_variance_), rtol=1e-12)
    np.testing.assert_allclose(first.ratio, model.explained_variance_ratio_, rtol=1e-10)
    np.testing.assert_allclose(np.abs((first.rows * model.components_).sum(1)), 1, rtol=1e-12)
    exact = streamed(x, []).components(5)
    np.testing.assert_allclose(first.stdev, exact.stdev, rtol=0.02)


def test_incremental_needs_as_many_samples_as_components():
    few = Incremental(5)
    few.add(np.eye(4, 30))
    with pytest.raises(EditbenchError, match="too few for 5 components"):
        few.components(5)
