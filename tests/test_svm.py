"""The primal machine against scikit-learn's SVC, which solves the dual, and against closed forms."""

import numpy as np
import pytest
from sklearn.svm import SVC

from editbench.methods.interfacegan.svm import linear_svm


@pytest.mark.parametrize(
    "noise, offset, d",
    [(0.0, 0.0, 24), (0.3, 5.0, 32), (1.0, 0.0, 96), (3.0, -2.0, 48)],
    ids=["separable", "far off", "overlapping", "hardly separable"],
)
def test_it_finds_the_optimum_of_svc(noise, offset, d):
    rng = np.random.default_rng(d)
    x = rng.normal(size=(1500, d))
    y = x @ rng.normal(size=d) / np.sqrt(d) + noise * rng.normal(size=len(x)) > 0.1
    found, published = linear_svm(x + offset, y), SVC(kernel="linear", C=1.0).fit(x + offset, y)
    normal = published.coef_[0]
    assert found.normal @ normal / np.linalg.norm(found.normal) / np.linalg.norm(normal) > 0.9999
    assert np.linalg.norm(found.normal) == pytest.approx(np.linalg.norm(normal), rel=0.01)
    assert abs(found.gap) < 1e-3
    distance = ((x + offset) @ normal + published.intercept_[0]) / np.linalg.norm(normal)
    own = ((x + offset) @ found.normal + found.intercept) / np.linalg.norm(found.normal)
    assert np.abs(own - distance).max() < 0.05 * distance.std()


def test_two_points_have_the_widest_street():
    found = linear_svm(np.array([[3.0, 1.0], [1.0, 1.0]]), np.array([7, 2]))
    np.testing.assert_allclose(found.normal, [1.0, 0.0], atol=2e-3)
    assert found.intercept == pytest.approx(-2.0, abs=5e-3)


def test_labels_of_one_kind_are_refused():
    with pytest.raises(ValueError, match="one class only"):
        linear_svm(np.zeros((3, 2)), np.ones(3))
