"""Every editor through the engine and the metrics on worlds where crossing step, path and dependency are known.

Linear world: along a straight walk every logit is affine in the step, so the first crossing is at
floor(|l_k| / |slope_k|) + 1 and the dependency at effect x is x mean_i |slope_i / sigma_i| / |slope_k / sigma_k|,
whatever the direction. Curved world: the target is a disc, and from outside it a fixed direction serves at most half
of the starts.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from editbench.bank.starts import Starts
from editbench.base.spaces import Space
from editbench.conformance.toy import fit_data, make_walk
from editbench.methods.direction import Direction
from editbench.methods.ganspace.editor import GANSpace
from editbench.methods.gradctrl.editor import GradCtrl
from editbench.methods.gradctrl.latent_classifier import LatentClassifier
from editbench.methods.interfacegan.editor import InterFaceGAN
from editbench.methods.linear_regression import LinearRegression
from editbench.methods.navigan.editor import NaviGAN
from editbench.methods.neural_ode.editor import NeuralODE
from editbench.methods.random_direction import RandomDirection
from editbench.methods.stylespace.editor import StyleSpace
from editbench.metrics.attribute_dependency.metric import AttributeDependency
from editbench.walk.editor import Editor, FitData
from editbench.walk.engine import WalkInputs, walk_starts
from editbench.walk.spec import EngineSpec
from editbench.walk.trajectory import Trajectories
from tests.toy import CurvedScorer


def walk(
    editor: Editor,
    data: FitData,
    attribute: str = "a",
    steps: int = 40,
    n: int = 80,
    fit: bool = True,
    lacking: bool = False,
) -> Trajectories:
    """Fit, tune and walk through the engine, with the teacher as judge; `lacking`: only starts of class 0."""
    editor.bind(data.generator)
    if fit:
        editor.fit(data)
        editor.tune(data, attribute)
    editor.check(data.generator, data.attributes, attribute)
    begin = make_walk(data, Space.Z if editor.space == Space.Z else Space.W, attribute, n)
    if lacking:
        begin = begin[begin.source == 0]
    starts = Starts(begin.start.numpy(), begin.source.numpy(), begin.target.numpy(), 1.0)
    w = begin.latent if editor.space != Space.Z else data.generator.map(begin.latent)
    sigma = data.sigma.double().numpy()
    inputs = WalkInputs(editor, data.generator, attribute, starts, begin.latent, data.teacher(w))
    result = walk_starts(inputs, data.teacher, sigma, EngineSpec(steps, steps, 32, 0))
    return Trajectories(result.table, data.attributes, attribute, sigma)


def exact_gradctrl(data: FitData) -> GradCtrl:
    """GradCtrl whose heads are the teacher: leaky(x) - leaky(-x) = 1.1 x makes a linear function of two units."""
    heads = {}
    for name, normal in zip(data.attributes.names, data.teacher.normals):
        weight1, weight2 = torch.zeros(16, len(normal)), torch.zeros(1, 16)
        weight1[0], weight1[1], weight2[0, 0], weight2[0, 1] = normal, -normal, 1.0, -1.0
        heads[name] = (weight1, torch.zeros(16), weight2, torch.zeros(1))
    editor = GradCtrl(exclude=0, scale_step=False, delta=0.3)
    editor.classifier = LatentClassifier(heads)
    return editor


STRAIGHT = {
    "interfacegan": lambda data, tmp: InterFaceGAN(delta=0.4),
    "interfacegan z": lambda data, tmp: InterFaceGAN(delta=0.4, space="z"),
    "interfacegan conditional": lambda data, tmp: InterFaceGAN(conditions="all", delta=0.4),
    # With conditions it moves no other attribute at all: tests/test_linear_regression.py.
    "linear regression": lambda data, tmp: LinearRegression(conditions="none", delta=0.4),
    "linear regression z": lambda data, tmp: LinearRegression(
        conditions="none", delta=0.4, space="z"
    ),
    "random": lambda data, tmp: RandomDirection(delta=0.4),
    "direction": lambda data, tmp: Direction({"a": saved(data, tmp)}, delta=0.4),
    "ganspace": lambda data, tmp: GANSpace(samples=4000, components=24, step=0.2, min_effect=0.1),
    "stylespace": lambda data, tmp: StyleSpace(
        strengths=[5.0], candidates=12, min_effect=0.1, step=0.2
    ),
    "neural ode, constant": lambda data, tmp: NeuralODE(
        0, iterations=60, lr=0.1, weight=0.2, delta=0.4
    ),
    "navigan, svd": lambda data, tmp: NaviGAN(
        "svd",
        layer="conv",
        count=24,
        limit=1e4,
        min_effect=0.01,
        # The toy's pictures are the codes: a far one is no broken one.
        max_off_target=None,
        max_distance=None,
    ),
}
NOT_EVERY_START = (
    "random",
    "navigan, svd",
)  # no knowledge; a shift of weights acts on each start in its own way


def saved(data: FitData, folder) -> str:  # type: ignore[no-untyped-def]
    path = folder / "a.npy"
    np.save(path, (data.teacher.normals[0] + 0.3 * data.teacher.normals[1]).numpy())
    return str(path)


@pytest.mark.parametrize("name", STRAIGHT)
def test_straight_walks_cross_where_linear_algebra_says(name, tmp_path):
    data = fit_data(overlap=0.3)
    check_straight(walk(STRAIGHT[name](data, tmp_path), data), steers=name not in NOT_EVERY_START)


def test_gradctrl_with_the_true_classifier_walks_along_the_normal():
    data = fit_data(overlap=0.3)
    found = walk(exact_gradctrl(data), data, fit=False)
    check_straight(found)
    stopped = found.table[found.table["stopped"]]
    start = found.logits[found.first_row[stopped.index], 0]
    np.testing.assert_array_equal(
        stopped["step"], np.floor(np.abs(start) / 0.3).astype(int) + 1
    )  # unit normals
    np.testing.assert_allclose(stopped["path"], 0.3 * stopped["step"], rtol=1e-4)


def check_straight(found: Trajectories, steers: bool = True) -> None:
    table, logits = found.table, found.logits
    first, last = (
        logits[found.first_row],
        (table.groupby("start").cumcount(ascending=False) == 0).to_numpy(),
    )
    # Over the whole walk: of one step, single precision leaves too little where a direction hardly moves the target.
    slope = ((logits - first)[last] / table["step"].to_numpy()[last, None]).repeat(
        table.groupby("start").size(), 0
    )
    np.testing.assert_allclose(logits, first + slope * table["step"].to_numpy()[:, None], atol=2e-3)

    k = found.attributes.index(found.attribute)
    towards = (slope[:, k] * (2 * table["target"] - 1)).to_numpy()
    expected = np.where(
        towards > 0, np.floor(np.abs(first[:, k]) / np.abs(slope[:, k])) + 1, np.inf
    )
    step = table["step"].to_numpy()
    sure = (
        np.abs(np.abs(first[:, k] / slope[:, k]) % 1 - 0.5) < 0.499
    )  # off a tie, rounding cannot move the crossing
    np.testing.assert_array_equal((table["crossed"] == (step >= expected))[sure], True)
    assert not steers or (towards > 0).mean() == 1

    share = np.abs(slope / found.sigma)
    ratio = np.delete(share, k, 1).mean(1) / share[:, k]
    np.testing.assert_allclose(found.dependency().mean(1), np.abs(found.effect) * ratio, atol=2e-3)
    measured = AttributeDependency(at=1.0)(found).rows.set_index("metric").loc["ad_at"]
    reached = found.effect[last] >= 1
    assert measured["count"] == reached.sum()
    assert measured["value"] == pytest.approx(ratio[last][reached].mean(), rel=1e-3)


CURVED = {
    "gradctrl": (lambda: GradCtrl(n_per_class=300, exclude=0, delta=0.3), True),
    "neural ode, depth one": (
        lambda: NeuralODE(1, iterations=200, lr=0.1, weight=0.1, delta=0.3),
        True,
    ),
    "neural ode, depth two": (
        lambda: NeuralODE(2, iterations=60, lr=3e-2, weight=0.1, delta=0.3),
        True,
    ),
    "neural ode, constant": (
        lambda: NeuralODE(0, iterations=60, lr=0.1, weight=0.1, delta=0.3),
        False,
    ),
    "interfacegan": (lambda: InterFaceGAN(ratio=0.2, delta=0.3), False),
    "linear regression": (lambda: LinearRegression(delta=0.3), False),
    "ganspace": (lambda: GANSpace(samples=4000, components=12, min_effect=-9.0, step=0.15), False),
    "stylespace": (lambda: StyleSpace(strengths=[5.0], min_effect=-9.0, step=0.15), False),
}


@pytest.mark.parametrize("name", CURVED)
def test_a_fixed_direction_cannot_reach_a_disc_and_a_field_can(name):
    make, field = CURVED[name]
    data = fit_data(scorer=CurvedScorer(), dim=12, n=4000)
    editor = make()
    found = walk(editor, data, steps=60, n=200, lacking=True)
    success = found.table.groupby("start")["crossed"].max()
    if not field:
        assert success.mean() < 0.5
        return
    assert success.mean() > 0.9
    stopped = found.table[found.table["stopped"]].set_index("start")
    margin = -found.logits[
        found.first_row[found.table["stopped"].to_numpy()], 0
    ]  # distance to the disc
    assert (stopped["path"] >= margin - 1e-3).all()  # the closed form is the shortest way
    assert (stopped["path"] / np.maximum(margin, 0.5)).median() < 1.6
