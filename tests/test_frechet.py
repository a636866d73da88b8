"""Fréchet distance against closed forms of Gaussians."""

from __future__ import annotations

import numpy as np
import pytest

from editbench.stats.frechet import frechet_distance, gaussian_distance, moments

rng = np.random.default_rng(0)


def test_one_dimension() -> None:
    # (m1 - m2)^2 + (s1 - s2)^2
    found = gaussian_distance(
        np.array([1.0]), np.array([[4.0]]), np.array([-2.0]), np.array([[9.0]])
    )
    assert found == pytest.approx(9 + 1)


def test_commuting_covariances_in_a_rotated_frame() -> None:
    a, b = rng.uniform(0.1, 3, (2, 12))
    frame = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    mean = rng.normal(size=12)
    found = gaussian_distance(mean, frame * a @ frame.T, np.zeros(12), frame * b @ frame.T)
    assert found == pytest.approx(mean @ mean + np.square(np.sqrt(a) - np.sqrt(b)).sum(), rel=1e-10)


def test_two_by_two_covariances_that_do_not_commute() -> None:
    # In two dimensions tr sqrt(AB) = sqrt(tr(AB) + 2 sqrt(det(AB))).
    a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.0, -0.4], [-0.4, 3.0]])
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    found = gaussian_distance(np.zeros(2), a, np.zeros(2), b)
    assert found == pytest.approx(np.trace(a) + np.trace(b) - 2 * root, rel=1e-12)


def test_samples_of_two_gaussians_approach_the_closed_form() -> None:
    x, y = rng.normal(size=(40_000, 3)), 1.0 + 2.0 * rng.normal(size=(40_000, 3))
    assert frechet_distance(x, y) == pytest.approx(3 * (1 + 1), rel=0.03)


def test_it_is_zero_for_equal_sets_symmetric_and_survives_constant_features() -> None:
    x, y = rng.normal(size=(50, 8)), rng.normal(size=(70, 8))
    x[:, 3] = y[:, 3] = 0
    # A spectrum with an exact zero is known to 1e-16, its root to 1e-8.
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), abs=1e-6)


def test_a_shift_adds_its_square() -> None:
    x = rng.normal(size=(60, 4)).astype(np.float32)
    assert frechet_distance(x, x.astype(np.float64) + 3.0) == pytest.approx(36, rel=1e-9)


def test_two_samples_are_enough() -> None:
    mean, covariance = moments([[0, 0], [2, 4]])
    assert mean.tolist() == [1, 2] and covariance.tolist() == [[2, 4], [4, 8]]


@pytest.mark.parametrize("shape", [(1, 4), (5,), (0, 3)])
def test_too_little_to_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="N >= 2"):
        moments(np.zeros(shape))
