"""Moments, kernel distances, mixtures and the jackknife: against numpy, torchmetrics and slow formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from editbench.metrics.frechet_distance.blocks import jackknife, over_blocks
from editbench.stats.frechet import frechet_distance, gaussian_distance
from editbench.stats.moments import KernelDistances, Moments, block_ends, mixture, squared_mmd
from tests.frechet_scene import GROUPS, B, N, X, Y, moments_of, rng
from tests.toy_world import DIM


# -- statistics ------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", [1, 7, 20, 120])
def test_streamed_moments_are_numpys_in_any_batches(batch):
    moments = Moments(N, B, DIM)
    for first in range(0, N, batch):
        moments.update(X[first : first + batch], first)
    mean, cov = moments.compute()
    np.testing.assert_allclose(mean, X.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        cov, np.cov(X.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-12
    )
    assert moments.count.tolist() == [N // B] * B
    np.testing.assert_allclose(moments.sum[2], X[40:60].astype(np.float64).sum(0), rtol=1e-12)


def test_blocks_of_a_number_that_does_not_divide():
    ends = block_ends(23, 5)
    assert [i * 5 // 23 for i in range(23)] == [
        b for b in range(5) for _ in range(ends[b + 1] - ends[b])
    ]
    assert len(ends) == 6 and ends[-1] == 23


@pytest.mark.parametrize("batch", [3, 16, 120])
def test_block_kernel_distances_are_those_of_the_slow_formula(batch):
    kernel = KernelDistances(N, B, 15, 2, Y[:30])
    for first in range(0, N, batch):
        for place, x in enumerate((X, X + 1)):
            kernel.add(place, x[first : first + batch], first)
    for b in range(B):
        x, y = X[20 * b : 20 * b + 15].astype(np.float64), Y[:30].astype(np.float64)
        k = lambda u, v: (sum(p * q for p, q in zip(u, v)) / DIM + 1) ** 3  # noqa: E731
        slow = (
            np.mean([k(u, v) for i, u in enumerate(x) for j, v in enumerate(x) if i != j])
            + np.mean([k(u, v) for i, u in enumerate(y) for j, v in enumerate(y) if i != j])
            - 2 * np.mean([k(u, v) for u in x for v in y])
        )
        assert kernel.value[0, b] == pytest.approx(slow, rel=1e-9)
    assert not kernel._open and np.isfinite(kernel.value).all()


def test_torchmetrics_gives_the_same_distances_of_the_same_features():
    fid = pytest.importorskip("torchmetrics.image.fid")
    kid = pytest.importorskip("torchmetrics.image.kid")

    class Features(torch.nn.Module):
        num_features = DIM

        def forward(self, x):
            return x.flatten(1)

    def fed(metric):
        for real, x in ((True, Y), (False, X)):
            metric.update(torch.tensor(x.astype(np.float64)).reshape(N, 1, 2, 4), real=real)
        return metric

    whole = fed(fid.FrechetInceptionDistance(Features(), normalize=True).set_dtype(torch.float64))
    assert frechet_distance(X, Y) == pytest.approx(float(whole.compute()), rel=1e-8)
    moments, other = Moments(N, B, DIM), Moments(N, 1, DIM)
    moments.update(X, 0)
    other.update(Y, 0)
    arrays = {
        "count": moments.arrays()["count"][None],
        "sum": moments.arrays()["sum"][None],
        "outer": moments.arrays()["outer"][None],
        "reference_count": other.arrays()["count"],
        "reference_sum": other.arrays()["sum"][0],
        "reference_outer": other.arrays()["outer"][0],
    }
    assert jackknife(arrays, np.array([True])).value[0] == pytest.approx(
        float(whole.compute()), rel=1e-8
    )
    mean, _ = fed(
        kid.KernelInceptionDistance(Features(), subsets=1, subset_size=N, normalize=True)
    ).compute()
    assert squared_mmd(X.astype(np.float64), Y.astype(np.float64)) == pytest.approx(
        float(mean), rel=1e-5
    )


def test_a_set_is_at_no_distance_from_itself():
    moments = Moments(N, 2, DIM)
    moments.update(X, 0)
    one = [part.numpy() for part in moments.compute()]
    assert gaussian_distance(*one, *one) == pytest.approx(0, abs=1e-9)
    halves = np.stack([X, rng.normal(size=X.shape)]).astype(np.float64)
    assert (
        abs(squared_mmd(*halves)) < 0.3 < squared_mmd(halves[0], halves[1] + 1)
    )  # no bias away from 0


def test_the_jackknife_is_that_of_leaving_blocks_out_and_covers():
    hits, spread = 0, []
    for trial in range(60):
        x = np.random.default_rng(trial).normal(size=(N, 3)) + 0.5
        moments, other = Moments(N, B, 3), Moments(N, 1, 3)
        moments.update(x, 0)
        other.update(Y[:, :3], 0)
        arrays = {
            "count": moments.arrays()["count"][None],
            "sum": moments.arrays()["sum"][None],
            "outer": moments.arrays()["outer"][None],
            "reference_count": other.arrays()["count"],
            "reference_sum": other.arrays()["sum"][0],
            "reference_outer": other.arrays()["outer"][0],
        }
        made = jackknife(arrays, np.array([True]))
        if not trial:
            left = [
                frechet_distance(np.delete(x, slice(20 * b, 20 * b + 20), 0), Y[:, :3])
                for b in range(B)
            ]
            slow = [B * frechet_distance(x, Y[:, :3]) - (B - 1) * one for one in left]
            np.testing.assert_allclose(made.blocks[0], slow, rtol=1e-7)
        low, high = made.interval(0)
        spread.append(made.value[0])
        hits += low <= 0.5276 <= high  # the mean of 4,000 trials
    assert hits >= 51 and np.mean(spread) == pytest.approx(0.5276, abs=0.05)


def test_over_blocks_is_their_mean_and_a_broken_block_takes_the_strength_out():
    made = over_blocks(
        np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 1.0], [0, 0, 0]]), np.array([True, True, False])
    )
    assert made.value[0] == 2 and np.isnan(made.value[1:]).all()
    assert made.interval(0) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), rel=1e-4)
    assert np.isnan(made.interval(1)[0])


@pytest.mark.parametrize("share", [(0.2, 0.3, 0.5), (0.0, 0.9, 0.1), (13, 40, 67)])
def test_moments_of_a_mixture_are_numpys_with_weights(share):
    label = np.repeat([0, 1, 2], GROUPS)
    mean, cov, effective = mixture(*moments_of(X, label), np.array(share, float))
    weight = (np.array(share) / np.array(GROUPS))[label]
    np.testing.assert_allclose(mean, np.average(X.astype(float), 0, weight), rtol=1e-10)
    slow = np.cov(X.astype(float), rowvar=False, aweights=weight)
    np.testing.assert_allclose(cov, slow, rtol=1e-9, atol=1e-12)
    assert effective == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    if share == GROUPS:
        np.testing.assert_allclose(
            cov, np.cov(X.astype(float), rowvar=False), rtol=1e-9, atol=1e-12
        )
        assert effective == pytest.approx(N)


def test_a_mixture_of_an_empty_group_has_no_moments():
    count, total, outer = moments_of(X, np.repeat([0, 1, 2], GROUPS))
    for empty in (0, 1):
        mean, cov, effective = mixture(count * (np.arange(3) != empty), total, outer, np.ones(3))
        assert np.isnan(mean).all() and np.isnan(cov).all() and np.isnan(effective)
