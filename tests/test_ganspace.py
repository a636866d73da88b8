"""GANSpace: planted axes and closed-form effects, the regression from activations, published components, no control."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from editbench.bank.bank import Split
from editbench.base.errors import EditbenchError, NoControl, UnknownName, Unsupported
from editbench.base.seeding import normals
from editbench.base.spaces import Space
from editbench.methods.ganspace import editor as ganspace
from editbench.methods.ganspace.directions import activation_directions, latent_blocks
from editbench.methods.ganspace.editor import GANSpace
from editbench.methods.shared.layer_choice import RANGES, scale_ranges
from editbench.networks.latent_only import LatentOnly, PCALatents
from tests.toy import (
    BINARY,
    DATA,
    MIXED,
    LinearScorer,
    ToyGenerator,
    check_editor,
    fit_data,
    make_walk,
    needs_data,
    trajectories,
)

DIM = 12
SMALL = {"samples": 20_000, "components": 8, "search_samples": 40}


class Stretched(ToyGenerator):
    """w = mean + (z * std) @ axes, with standard deviations 4, 4 / 1.3, 4 / 1.3^2, ...: eigengaps of 40 %."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__(dim)
        rng = torch.Generator().manual_seed(3)
        self.axes = torch.linalg.qr(
            torch.randn(dim, dim, generator=rng, dtype=torch.float64)
        ).Q.float()
        self.std = 4 / 1.3 ** torch.arange(dim)
        self.mean = 2 * torch.randn(dim, generator=rng)
        self.largest = 0

    def map(self, z):
        self.largest = max(self.largest, len(z))
        return self.mean + (z * self.std) @ self.axes


def on(generator, teacher, seed=0):
    """The samples of `fit_data` on another generator and teacher."""
    data = fit_data(teacher.attributes, generator.z_dim, seed=seed)
    fit, tune = (
        replace(s, w=generator.map(s.z), logits=teacher(generator.map(s.z)))
        for s in (data.fit, data.tune)
    )
    sigma = teacher.attributes.log_odds(fit.logits).std(0)
    return replace(data, generator=generator, teacher=teacher, fit=fit, tune=tune, sigma=sigma)


def along_axes(attributes, columns):
    """A world whose logits are distances along principal axes, zero at the mean."""
    generator = Stretched()
    rows = generator.axes[list(columns)]
    return on(generator, LinearScorer(attributes, rows, -rows @ generator.mean))


def fitted(data, **options):
    editor = GANSpace(**(SMALL | options))
    return editor, editor.fit(data)


# -- components and effects in closed form ---------------------------------------------------------
def test_controls_are_the_planted_axes_with_their_signs_and_effects():
    data = along_axes(BINARY, (2, 0, 5))
    editor, report = fitted(data)
    for name, axis in (("a", 2), ("b", 0), ("c", 5)):
        note = report.notes[f"control.{name}"]
        for c, side in enumerate(("no", "yes")):
            assert note[side]["component"] == axis
            assert note[side]["rows"] == [0, 4]
            assert note[side]["found"]
            assert note[side]["effect"] == pytest.approx(
                3, rel=0.1
            )  # 3 deviations of the axis, in sigmas of the bank
            assert note[side]["off_target"] < 0.1
            expected = (2 * c - 1) * data.generator.std[axis] * data.generator.axes[axis]
            torch.testing.assert_close(editor.moves[name][c].float(), expected, atol=0.1, rtol=0)
        assert torch.equal(editor.moves[name][0], -editor.moves[name][1])
    walk = make_walk(data, editor, "a")
    table = trajectories(data, editor, walk, 6).table
    gain = table["logit:a"] - table.groupby("start")["logit:a"].transform("first")
    slope = editor.moves["a"][1].float() @ data.teacher.normals[0]
    np.testing.assert_allclose(
        gain, table["step"] * 0.5 * slope.item() * (2 * table["target"] - 1), atol=1e-4
    )


def test_components_and_deviations_are_those_of_the_full_decomposition_of_the_same_draws():
    data = along_axes(BINARY, (2, 0, 5))
    editor, report = fitted(data, samples=9000)
    z = normals(0, "ganspace/components", 0, 9000, DIM)
    oracle = PCA(8, svd_solver="full").fit(
        data.generator.map(torch.from_numpy(z).float()).double().numpy()
    )
    np.testing.assert_allclose(editor.mean, oracle.mean_, atol=1e-5)
    for name, axis in (("a", 2), ("b", 0), ("c", 5)):
        move = editor.moves[name][1].numpy()
        assert np.linalg.norm(move) == pytest.approx(
            np.sqrt(oracle.explained_variance_[axis]), rel=1e-5
        )
        assert abs(move @ oracle.components_[axis]) / np.linalg.norm(move) == pytest.approx(
            1, abs=1e-8
        )
    assert report.notes["variance_explained"] == pytest.approx(
        oracle.explained_variance_ratio_.sum(), abs=1e-4
    )


def test_the_search_is_counted_and_repeats():
    data = along_axes(BINARY, (2, 0, 5))
    editor, report = fitted(data)
    candidates = 8 * len(scale_ranges(RANGES, 4))
    assert report.notes["candidates"] == candidates
    assert report.notes["search_decodes"] == candidates * 2 * 40
    assert report.labels == 40 and data.generator.decoded == report.notes["search_decodes"]
    again, other = fitted(data)[0].state(), fitted(replace(data, seed=1))[0].state()
    assert all(torch.equal(value, again[name]) for name, value in editor.state().items())
    assert not torch.equal(editor.state()["move.a"], other["move.a"])


def test_draws_are_streamed_and_do_not_depend_on_the_block(monkeypatch):
    data = along_axes(BINARY, (2, 0, 5))
    parts = [
        torch.cat(list(latent_blocks(data, Space.W, 1000, "components", block)))
        for block in (7, 256, 5000)
    ]
    assert torch.allclose(parts[0], parts[2], atol=1e-5)
    assert torch.allclose(parts[1], parts[2], atol=1e-5)
    monkeypatch.setattr(ganspace, "BLOCK", 100)
    data.generator.largest = 0
    fitted(data)
    assert data.generator.largest == 100


# -- contract --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, attribute",
    [
        ({}, "a"),
        ({}, "kind"),
        ({}, "angle"),
        ({"centre": True}, "kind"),
        ({"layer": "conv", "centre": True}, "angle"),
        ({"layer": "conv", "space": "z"}, "kind"),
        ({"ranges": [[0, 9], [4, 13]]}, "kind"),
    ],
)
def test_contract(options, attribute):
    data = along_axes(MIXED, range(8))
    editor, report = fitted(data, **options)
    check_editor(editor, data, attribute, GANSpace(**(SMALL | options)))
    editor.check(data.generator, MIXED, attribute)
    notes = report.notes[f"control.{attribute}"].values()
    assert all(note["found"] for note in notes)
    # Walks move the rows that the search has found.
    assert editor.row_ranges[attribute].tolist() == [note["rows"] for note in notes]


def test_every_class_walks_along_its_own_component_in_its_own_rows():
    data = along_axes(MIXED, range(8))
    editor, _ = fitted(data)
    walk = make_walk(data, editor, "kind")
    editor.row_ranges["kind"] = torch.tensor([[0, 4], [1, 3], [3, 4]])
    walk.codes, walk.steps = editor.step(walk), 1
    moved = (walk.codes - walk.origin) / 0.5
    for row, target in zip(moved, walk.target):
        torch.testing.assert_close(row, editor.moves["kind"][target].float(), atol=1e-4, rtol=0)
    codes = editor.codes(walk)
    assert codes.space == Space.W_PLUS
    for n, target in enumerate(walk.target.tolist()):
        a, b = editor.row_ranges["kind"][target].tolist()
        expected = torch.stack([walk.codes[n] if a <= r < b else walk.origin[n] for r in range(4)])
        assert torch.equal(codes.values[n], expected)


def test_centring_starts_every_sample_from_the_mean_along_its_component():
    data = along_axes(BINARY, (2, 0, 5))
    editor, _ = fitted(data, centre=True)
    walk = make_walk(data, editor, "a")
    for steps in range(1, 4):
        walk.codes, walk.steps = editor.step(walk), steps
        for origin, code, target in zip(walk.origin, walk.codes, walk.target):
            move = editor.moves["a"][target].float()
            unit, offset = move / move.norm(), origin - editor.mean.float()
            torch.testing.assert_close(
                code, origin - (offset @ unit) * unit + 0.5 * steps * move, atol=1e-4, rtol=0
            )
        logits = data.teacher(walk.codes)[:, 0] * (2 * walk.target - 1)
        assert logits.std() < 0.15
        assert logits.mean() == pytest.approx(0.5 * steps * 4 / 1.3**2, abs=0.15)


def test_no_control_is_an_answer_that_survives_the_cache():
    data = along_axes(
        BINARY, (2, 0, 11)
    )  # c lies along the last axis, which is not among the 8 components
    editor, report = fitted(data)
    fresh = GANSpace()
    fresh.load_state({name: tensor.clone() for name, tensor in editor.state().items()})
    for one in (editor, fresh):
        with pytest.raises(
            NoControl, match="no control found for 'c': the best of 32 candidates moves it by 0"
        ):
            one.check(data.generator, BINARY, "c")
        with pytest.raises(Unsupported, match="no control"):
            one.step(make_walk(data, editor, "c"))
        one.check(data.generator, BINARY, "a")
    assert "no control found" in report.notes["control.c"] and set(editor.moves) == {"a", "b"}


# -- activations -----------------------------------------------------------------------------------
def test_regression_from_activations_that_are_w_gives_the_components_of_w_and_the_axes_of_z():
    data = along_axes(BINARY, (2, 0, 5))
    generator = data.generator
    in_w = activation_directions(data, "conv", Space.W, 20_000, 8)
    np.testing.assert_allclose(
        np.abs((in_w.vectors * generator.axes[:8].double().numpy()).sum(1)), 1, atol=2e-3
    )
    np.testing.assert_allclose(in_w.stdev, generator.std[:8], rtol=0.03)
    np.testing.assert_allclose(in_w.mean, generator.mean, atol=0.15)
    in_z = activation_directions(
        data, "conv", Space.Z, 20_000, 8
    )  # z_i is the distance along axis i, in deviations
    np.testing.assert_allclose(np.abs(in_z.vectors), np.eye(8, DIM), atol=0.06)
    assert (in_z.stdev == 1).all() and np.abs(in_z.mean).max() < 0.03


@pytest.mark.parametrize("space", [Space.W, Space.Z])
def test_regression_is_least_squares_on_fresh_samples(space):
    data = along_axes(BINARY, (2, 0, 5))
    data.generator.conv = torch.nn.Sequential(
        torch.nn.Linear(DIM, 30), torch.nn.Tanh()
    ).requires_grad_(False)
    found = activation_directions(data, "conv", space, 3000, 5)
    draws = [
        torch.from_numpy(normals(0, f"ganspace/{name}", 0, n, DIM)).float()
        for name, n in (("components", 3000), ("regression", 10_000))
    ]
    codes = [z if space == Space.Z else data.generator.map(z) for z in draws]
    first, second = (
        data.generator.conv(data.generator.map(z)).detach().double().numpy() for z in draws
    )
    oracle = PCA(5, svd_solver="full").fit(first)
    coordinates = oracle.transform(second) / np.sqrt(oracle.explained_variance_)
    slopes = LinearRegression().fit(coordinates, codes[1].double().numpy()).coef_.T
    slopes /= np.linalg.norm(slopes, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs((found.vectors * slopes).sum(1)), 1, atol=1e-6)
    if space == Space.W:
        np.testing.assert_allclose(
            found.stdev, (codes[1].double().numpy() @ slopes.T).std(0, ddof=1), rtol=1e-4
        )


# -- other generators ------------------------------------------------------------------------------
@needs_data
def test_published_components_are_recovered_from_their_draws():
    generator = PCALatents(DATA / "ffhq-latents" / "w_pca.safetensors")
    teacher = LinearScorer(
        BINARY, generator.comp[[0, 3, 30]].clone(), -generator.comp[[0, 3, 30]] @ generator.mean
    )
    n = 40_000
    editor, report = fitted(on(generator, teacher), samples=n, components=90, search_samples=8)
    assert report.notes["components"] == 80 and report.notes["components_asked"] == 90
    assert report.notes["component_codes"] == "fresh draws"
    assert report.notes["variance_explained"] == 1
    spread = generator.std.square().sum().sqrt().item() * 4 / np.sqrt(n)
    assert (editor.mean.float() - generator.mean).norm() < spread
    for name, axis in (("a", 0), ("b", 3)):  # gaps to the neighbours above 5 %
        move = editor.moves[name][1].float()
        assert report.notes[f"control.{name}"]["yes"]["component"] == axis
        assert move.norm().item() == pytest.approx(
            generator.std[axis].item(), rel=4 / np.sqrt(2 * n)
        )
        assert move @ generator.comp[axis] / move.norm() > 0.99
    editor.check(generator, BINARY, "a")
    assert (
        editor.codes(make_walk(on(generator, teacher), editor, "a")).space == Space.W
    )  # there are no rows


def test_a_generator_that_cannot_draw_gives_the_codes_of_its_bank():
    generator, w = (
        LatentOnly(DIM),
        Stretched().map(torch.randn(900, DIM, generator=torch.Generator().manual_seed(1))),
    )
    teacher = LinearScorer(BINARY, Stretched().axes[:3])
    splits = [Split(torch.arange(len(p)), p[:, :0], p, teacher(p)) for p in (w[:700], w[700:])]
    data = replace(
        fit_data(),
        generator=generator,
        teacher=teacher,
        fit=splits[0],
        tune=splits[1],
        sigma=splits[0].logits.std(0),
    )
    editor, report = fitted(data)
    assert report.notes["component_samples"] == 700
    assert "cannot draw" in report.notes["component_codes"]
    oracle = PCA(8).fit(w[:700].double().numpy())
    assert editor.moves["a"][1].norm().item() == pytest.approx(
        np.sqrt(oracle.explained_variance_[0]), rel=1e-5
    )
    assert fitted(data, samples=300)[1].notes["component_samples"] == 300


def test_more_components_than_channels_are_as_many_as_there_are():
    _, report = fitted(along_axes(BINARY, (2, 0, 5)), components=500)
    assert report.notes["components"] == DIM and report.notes["components_asked"] == 500


# -- options ---------------------------------------------------------------------------------------
def test_ranges_are_carried_over_in_proportion():
    assert scale_ranges(RANGES, 18) == list(RANGES)
    assert scale_ranges(RANGES, 8) == [(0, 8), (0, 2), (1, 3), (2, 3), (2, 4), (3, 4), (4, 5)]
    for rows in range(1, 19):
        scaled = scale_ranges(RANGES, rows)
        assert len(set(scaled)) == len(scaled) and all(0 <= a < b <= rows for a, b in scaled)


@pytest.mark.parametrize(
    "options, key",
    [
        ({"samples": 1}, "samples=1"),
        ({"components": 0}, "components=0"),
        ({"search_samples": 0}, "search_samples=0"),
        ({"step": 0.0}, "step=0"),
        ({"strength": -3.0}, "strength=-3"),
        ({"ranges": []}, "ranges"),
        ({"ranges": [[4, 4]]}, "ranges"),
        ({"ranges": [[0, 19]]}, "ranges"),
        ({"ranges": [[0, 4, 6]]}, "ranges"),
        ({"ranges": [4, 8]}, "ranges"),
        ({"ranges": ["48"]}, "ranges"),
        ({"space": "s"}, "space"),
        ({"space": "z"}, "method.layer"),
    ],
)
def test_bad_options_name_their_key(options, key):
    with pytest.raises(EditbenchError, match=key):
        GANSpace(**options)


def test_bad_layers_and_codes_that_do_not_vary():
    data = along_axes(BINARY, (2, 0, 5))
    with pytest.raises(UnknownName, match="conv"):
        GANSpace(layer="cnov").check(data.generator, BINARY, "a")
    with pytest.raises(UnknownName, match="conv"):
        fitted(data, layer="cnov")
    data.generator.std = torch.zeros(DIM)
    with pytest.raises(EditbenchError, match="do not vary"):
        fitted(data)
