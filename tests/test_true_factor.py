"""The perfect edit: margins by hand, and a step that moves one true factor and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.base.seeding import normals
from editbench.methods.true_factor import TrueFactor
from editbench.metrics.judge_truth.observation import Truth
from editbench.worlds.faces import attributes, load_generator
from editbench.worlds.faces.factors import BINARY as TRAITS
from editbench.worlds.faces.truth import WIDTH, YAW, RenderGenerator, margins, to_factors, towards
from tests.toy import BINARY, ToyGenerator

N = 1500


@pytest.fixture(scope="module")
def codes():
    dense = RenderGenerator(margin=0.0)
    return dense.map(torch.from_numpy(normals(3, "test", 0, N, dense.z_dim)).float())


def test_a_margin_is_positive_exactly_inside_the_class(codes):
    labels = to_factors(codes).labels()
    for place, item in enumerate(attributes()):
        for k in range(len(item.classes)):
            margin = margins(codes, item.name, torch.full((N,), k))
            assert torch.equal(margin > 0, labels[:, place] == k)
            assert margin.max() <= 0.5


def test_margins_by_hand():
    w = torch.zeros(3, WIDTH)
    w[:, 0] = torch.tensor([0.1, 0.5, 0.9])
    w[:, 5:10] = torch.tensor([[0.6, 0.4, 0, 0, 0], [0.3, 0.5, 0.2, 0, 0], [0, 0, 0, 0, 1.0]])
    w[:, YAW] = torch.tensor([-2.3, 0.2, 1.0])
    np.testing.assert_allclose(
        margins(w, "smile", torch.tensor([1, 1, 0])), [-0.4, 0, -0.4], atol=1e-6
    )
    np.testing.assert_allclose(
        margins(w, "hair_color", torch.tensor([1, 1, 0])), [-0.1, 0.1, -0.5], atol=1e-6
    )
    np.testing.assert_allclose(
        margins(w, "yaw", torch.tensor([0, 2, 2])), [0.5, 0.3, -0.5], atol=1e-6
    )


@pytest.mark.parametrize("name", [*attributes().names])
def test_the_perfect_edit_changes_no_other_true_label_and_arrives(codes, name):
    place = attributes().index(name)
    before = to_factors(codes).labels()
    target = (before[:, place] + 1) % len(attributes()[name].classes)
    w, others = codes, [k for k in range(7) if k != place]
    own = (
        slice(5, 10)
        if name == "hair_color"
        else slice(YAW, YAW + 1)
        if name == "yaw"
        else slice(TRAITS.index(name), TRAITS.index(name) + 1)
    )
    fixed = [k for k in range(WIDTH) if k not in range(own.start, own.stop)]
    last = margins(w, name, target)
    for _ in range(95 if name == "yaw" else 21):  # yaw may have to cross all five poses
        w = towards(w, name, target, 0.05)
        now, margin = to_factors(w).labels(), margins(w, name, target)
        assert torch.equal(w[:, fixed], codes[:, fixed])
        assert torch.equal(now[:, others], before[:, others])
        assert (margin >= last - 1e-6).all()
        if name == "hair_color":  # from the old colour to the new one, by no third
            assert ((now[:, place] == target) | (now[:, place] == before[:, place])).all()
        last = margin
    assert torch.equal(now[:, place], target)
    np.testing.assert_allclose(last, 0.5, atol=1e-5)
    again = towards(w, name, target, 0.05)
    torch.testing.assert_close(again, w, atol=1e-6, rtol=0)  # and stays


def test_one_step_is_delta_amounts():
    w = torch.zeros(2, WIDTH)
    w[:, 5:10] = torch.tensor([0.6, 0.4, 0, 0, 0])
    assert towards(w, "age", torch.tensor([1, 0]), 0.2)[:, 4].tolist() == pytest.approx([0.2, 0.0])
    hair = towards(w, "hair_color", torch.tensor([1, 2]), 0.1)[:, 5:10]
    np.testing.assert_allclose(hair, [[0.5, 0.5, 0, 0, 0], [0.54, 0.36, 0.1, 0, 0]], atol=1e-6)
    with pytest.raises(UnknownName, match="unknown attribute 'height'"):
        towards(w, "height", torch.tensor([1, 0]), 0.1)


def test_other_generators_are_refused_with_the_remedy():
    with pytest.raises(Unsupported, match="generator=renders"):
        TrueFactor().check(ToyGenerator(8), BINARY, "a")
    for strange in (
        BINARY,
        Attributes([Attribute("smile", ("no", "yes", "grin"))]),
    ):  # the judge of another world
        with pytest.raises(Unsupported, match="the renderer has no factor"):
            TrueFactor().check(RenderGenerator(), strange, strange.names[0])
    with pytest.raises(EditbenchError, match="delta=0 must be positive"):
        TrueFactor(0)
    with pytest.raises(EditbenchError, match="generator=renders"):
        Truth().prepare(SimpleNamespace(generator=load_generator()), "cpu")
    with pytest.raises(EditbenchError, match="attribute 'a'"):
        Truth().prepare(
            SimpleNamespace(generator=RenderGenerator(), judge=SimpleNamespace(attributes=BINARY)),
            "cpu",
        )
