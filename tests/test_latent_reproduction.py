"""Shifts of latents that stand for a shift of the weights: a linear world whose best shift is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.files import seal_folder
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.figures.theme import make_theme
from editbench.metrics.latent_reproduction.figure import (
    draw,
    reproduced,
    reproduction_figure,
    side_by_side,
)
from editbench.metrics.latent_reproduction.latent_shift import (
    SPACES,
    activations,
    added,
    optimise,
    plant,
    shift_space,
)
from editbench.metrics.latent_reproduction.metric import LatentReproduction
from editbench.metrics.latent_reproduction.observation import LatentReproductionObservation
from editbench.metrics.latent_reproduction.weight_edit import WeightEdit
from editbench.networks.perceptual import PixelDistance
from editbench.networks.stylegan2.layers import shifted
from editbench.report.load import load
from editbench.run.compose import compose_config
from editbench.walk.editor import Editor, FitReport
from editbench.walk.observation import Observed, observation_file
from editbench.worlds.faces import load_generator
from tests.fake_records import fake_run, metric_rows
from tests.scenes import DELTA, scene_of
from tests.toy_world import DIM, AlongColumn, ToyGenerator, V, toy_config

N = 96
LINE = (V / V.norm(dim=0))[:, 0]
FAST = {
    "steps": 60,
    "batch": 16,
    "restarts": 2,
    "held_out": N,
    "samples": 64,
    "pictures": 2,
    "lr": dict.fromkeys(SPACES, 0.2),
}


class Layer(nn.Module):
    """A 1x1 convolution of (n, DIM + 1, 1, 1) features; the last is a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(DIM, DIM + 1)[:, :, None, None], requires_grad=False)

    def forward(self, x: Tensor, shift: WeightShift | None) -> Tensor:
        return shifted(torch.nn.functional.conv2d, x, self.weight, shift)


class Affine(ToyGenerator):
    """The toy world with a weight: a shift [X | v] of it adds X w + v to the picture w."""

    spaces = (Space.Z, Space.W, Space.W_PLUS, Space.THETA)

    def __init__(self) -> None:
        super().__init__()
        self.conv = Layer()

    def kernels(self):
        return {"conv": self.conv.weight}

    def _decode(self, codes: Codes) -> Tensor:
        w = self.map(codes.values) if codes.space == Space.Z else codes.values
        w = w.mean(1) if codes.space == Space.W_PLUS else w
        x = torch.cat([w, torch.ones(len(w), 1)], 1)[:, :, None, None]
        return self.conv(x, codes.shift).reshape(-1, 1, 2, 4)


class Weights(Editor):
    """A step moves the weight by DELTA [X | v] towards class 1."""

    space = Space.THETA

    def __init__(self, x: Tensor, v: Tensor = LINE) -> None:
        super().__init__()
        self.kernel = torch.cat([x, v[:, None]], 1)[None, :, :, None, None]

    def fit(self, data):
        return FitReport()

    def step(self, walk):
        return walk.codes + DELTA

    def codes(self, walk):
        t = walk.codes[:, 0] * torch.where(walk.target == 1, 1.0, -1.0)
        return Codes(
            Space.W, walk.latent, WeightShift("conv", self.kernel, torch.zeros_like(walk.target), t)
        )


MIX = 0.1 * torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(2))
MIX = MIX - LINE[:, None] * (LINE @ MIX)  # no part along the normal: the effect is v's alone


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return replace(
        scene_of(toy_config(tmp_path_factory.mktemp("reproduction"))), generator=Affine()
    )


def rows_of(found: Observed, **options):
    return LatentReproduction(draws=100, **options)(found).rows.set_index("metric")


@pytest.fixture(scope="module")
def mixed(context):
    with torch.no_grad():
        return LatentReproductionObservation(**FAST, comparator=AlongColumn(DELTA)).look(
            replace(context, editor=Weights(MIX))
        )


# -- what is found ---------------------------------------------------------------------------------
def test_a_weight_shift_that_is_a_latent_shift_is_reproduced_in_every_space(context):
    with torch.no_grad():
        found = LatentReproductionObservation(**FAST).look(
            replace(context, editor=Weights(torch.zeros(DIM, DIM)))
        )
    rows = rows_of(found)
    for space in SPACES:
        assert rows.loc[f"reproduction_{space}", "value"] < 1e-3, space
        assert rows.loc[f"reproduction_perceptual_{space}", "value"] < 1e-3
        assert rows.loc[f"reproduction_control_{space}", "value"] < 1e-3
        assert rows.loc[f"reproduction_{space}", "note"] == ""
    assert found.arrays["pictures"].shape == (2 + 4, 2, 1, 2, 4)
    assert found.meta["panels"] == ["start", "weight shift", *SPACES]
    assert found.meta["layer"] == "conv"
    shown = found.arrays["pictures"].astype(int)
    assert np.abs(shown[2:] - shown[1]).max() <= 8 < np.abs(shown[0] - shown[1]).max()


def test_what_no_shift_can_do_is_left_over_as_in_closed_form(context, mixed):
    """w ~ N(0, 4 I): the best shift is t v, and leaves 4 |X|^2 of 4 |X|^2 + |v|^2."""
    exact = 4 * float(MIX.square().sum()) / (4 * float(MIX.square().sum()) + 1)
    rows = rows_of(mixed)
    first = context.bank.spec.split("test")[0]
    w = torch.from_numpy(np.array(context.bank.array("w").range(first, first + N)))
    left, whole = (w @ MIX.T).square().sum(1), (w @ MIX.T + LINE).square().sum(1)  # t cancels
    held_out = float(left.mean() / whole.mean())
    for space in SPACES:
        assert rows.loc[f"reproduction_{space}", "value"] == pytest.approx(held_out, rel=0.03), (
            space
        )
        assert rows.loc[f"reproduction_control_{space}", "value"] < 0.01
        assert rows.loc[f"reproduction_{space}", "value"] == pytest.approx(exact, rel=0.1)
        assert (
            rows.loc[f"reproduction_{space}", "low"]
            < held_out
            < rows.loc[f"reproduction_{space}", "high"]
        )
    assert 0.3 < exact < 0.9 and set(rows.index) <= set(LatentReproduction.produces)
    t = mixed.meta["reach"]["strength"] * DELTA
    np.testing.assert_allclose(mixed.arrays["pixels"], t**2 * whole, rtol=1e-4)
    logits = (
        (context.teacher.scale * (w @ MIX.T + LINE) @ V).square().mean(1)
    )  # a teacher without features
    np.testing.assert_allclose(mixed.arrays["perceptual"], t**2 * logits, rtol=1e-3)


def test_the_planted_shift_has_the_effect_of_the_edit(mixed):
    for space in SPACES:
        planted = mixed.arrays[f"planted_pixels_{space}"].mean()
        assert planted == pytest.approx(mixed.arrays["pixels"].mean(), rel=0.03)


def test_a_latent_editor_at_the_same_effect_is_the_comparator(context, mixed):
    rows = rows_of(mixed)
    t, own = mixed.meta["reach"]["strength"], mixed.meta["editor_reach"]["strength"]
    first = context.bank.spec.split("test")[0]
    w = torch.from_numpy(np.array(context.bank.array("w").range(first, first + N)))
    left = (DELTA * own * LINE - DELTA * t * (w @ MIX.T + LINE)).square().sum(1)
    np.testing.assert_allclose(mixed.arrays["editor_pixels"], left, rtol=1e-3, atol=1e-5)
    assert rows.loc["reproduction_editor", "value"] == pytest.approx(
        float(left.mean()) / mixed.arrays["pixels"].mean(), rel=1e-3
    )
    for comparator, reason in ((Nowhere(), "Nowhere: no way"), (Lost(), "Lost: nothing found")):
        with torch.no_grad():
            served = LatentReproductionObservation(
                **FAST | {"steps": 1, "spaces": ["w"]}, comparator=comparator
            )
            rows = rows_of(served.look(replace(context, editor=Weights(MIX))))
        assert reason in rows.loc["reproduction_editor", "note"]


class Nowhere(AlongColumn):
    """Cannot serve, as is known before its fit."""

    def check(self, generator, attributes, attribute):
        raise Unsupported("no way")

    def fit(self, data):
        pytest.fail("fitted in vain")


class Lost(AlongColumn):
    """Finds in its fit that it cannot serve."""

    fitted = False

    def check(self, generator, attributes, attribute):
        if self.fitted:
            raise Unsupported("nothing found")

    def fit(self, data):
        self.fitted = True
        return super().fit(data)


# -- the optimiser ---------------------------------------------------------------------------------
def search(context, name: str, restarts: int, steps: int = 30):
    edit = WeightEdit(replace(context, editor=Weights(MIX)), 2.0)
    space = shift_space(name, edit, 0.1)
    return edit, space, *optimise(edit, space, plant(edit, space, 1.0), steps, 8, restarts)


@pytest.mark.parametrize("name", SPACES)
def test_restarts_and_targets_do_not_meet(context, name):
    _, _, one, alone = search(context, name, 1)
    _, _, several, together = search(context, name, 3)
    torch.testing.assert_close(several[:, :1], one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[:, :1], alone, rtol=1e-3, atol=1e-5)
    assert (several[0, 1] - several[0, 2]).abs().max() > 1e-6


def test_it_is_torchs_adam_on_equation_5(context):
    edit, _, found, losses = search(context, "w", 1, steps=20)
    h = torch.zeros(DIM, requires_grad=True)
    adam = torch.optim.Adam([h], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 20)
    expected = []
    for step in range(20):
        _, w = edit.draw(64 + 8 * step, 64 + 8 * step + 8)
        edited = (w + 2.0 * DELTA * (w @ MIX.T + LINE)).detach()
        adam.zero_grad()
        loss = (w + h - edited).square().sum(1).mean()
        loss.backward()
        adam.step()
        schedule.step()
        expected.append(loss.item())
    torch.testing.assert_close(found[0, 0], h.detach(), rtol=1e-4, atol=1e-5)
    # The last tenth of 20 steps.
    assert losses[0, 0].item() == pytest.approx(np.mean(expected[-2:]), rel=1e-4)


def test_any_batch_of_held_out_samples_gives_the_same(context, mixed):
    with torch.no_grad():
        again = LatentReproductionObservation(**FAST | {"spaces": ["w"]}).look(
            replace(context, editor=Weights(MIX), batch=11)
        )
    for name in (
        "pixels_w",
        "perceptual_w",
        "restarts_w",
        "training_w",
        "planted_pixels_w",
        "pixels",
        "perceptual",
    ):
        np.testing.assert_allclose(
            again.arrays[name], mixed.arrays[name], rtol=2e-2, atol=1e-3, err_msg=name
        )
    best = mixed.arrays["training_w"].argmin(1)
    np.testing.assert_allclose(
        mixed.arrays["restarts_w"][[0, 1], best], mixed.arrays["pixels_w"].mean(1), rtol=1e-6
    )


def test_an_optimiser_that_fails_its_control_may_not_say_unreachable(context):
    with torch.no_grad():
        found = LatentReproductionObservation(**FAST | {"steps": 1, "spaces": ["w"]}).look(
            replace(context, editor=Weights(MIX))
        )
    rows = rows_of(found)
    for kind in ("", "perceptual_", "control_"):
        assert "must not be concluded" in rows.loc[f"reproduction_{kind}w", "note"]
    assert rows.loc["reproduction_control_w", "value"] > 0.3
    assert "must not" not in rows_of(found, recovered=0.999).loc["reproduction_w", "note"]


# -- spaces ----------------------------------------------------------------------------------------
def test_shifts_in_a_stylegan_are_where_they_say():
    generator = load_generator()
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(0))
    w = generator.map(z)
    edit = type(
        "Edit",
        (),
        {
            "generator": generator,
            "layer": "conv8",
            "latent_space": Space.W,
            "draw": staticmethod(lambda a, b: (z, w)),
            "latents": staticmethod(lambda rows, f: w),
        },
    )()
    for name, by in (
        ("z", lambda h: Codes(Space.Z, z + h)),
        ("w", lambda h: Codes(Space.W, w + h)),
        ("w_plus", lambda h: Codes(Space.W_PLUS, generator.w_plus(w) + h)),
    ):
        space = shift_space(name, edit, 0.1)
        shifts = 0.3 * torch.randn(2, *space.shape, generator=torch.Generator().manual_seed(1))
        made = space.decode(z if name == "z" else w, shifts)
        torch.testing.assert_close(
            made, torch.cat([generator.decode(by(h)) for h in shifts]), atol=1e-4, rtol=1e-4
        )
    space = shift_space("activation", edit, 0.1)
    before = generator.activation(Codes(Space.W, w), "conv8_up")
    assert space.shape == before.shape[1:]
    assert space.unit == pytest.approx(float(before.square().mean().sqrt()))
    assert space.lr == pytest.approx(0.1 * space.unit)
    shift, style = torch.randn(space.shape), generator.inner("conv8").affine(w)
    with added(generator.inner("conv8"), shift[None].expand(3, -1, -1, -1)):
        inside = generator.activation(Codes(Space.W, w), "conv8")
    torch.testing.assert_close(
        inside, generator.inner("conv8")(before + shift, style), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(activations(generator, "conv8", Codes(Space.W, w)), before)


def test_a_space_that_is_not_there_has_a_reason(context):
    class Flat(Affine):
        spaces = (Space.Z, Space.W, Space.THETA)

    with torch.no_grad():
        found = LatentReproductionObservation(
            **FAST | {"steps": 1, "spaces": ["w_plus", "w"]}
        ).look(replace(context, generator=Flat(), editor=Weights(MIX)))
    assert found.meta["left_out"] == {"w_plus": "the generator has no W_PLUS"}
    assert found.meta["spaces"] == ["w"]
    assert "no W_PLUS" in rows_of(found).loc["reproduction_w_plus", "note"]


@pytest.mark.parametrize("name", ["held_out", "samples"])
def test_too_few_samples_are_told_before_the_editor_is_fitted(context, name):
    asked = LatentReproductionObservation(**FAST | {name: 10_000})
    reason = f"observation.latent_reproduction.{name}=10000: the test split .*: raise bank.n, or"
    with pytest.raises(EditbenchError, match=reason):
        asked.check(replace(context, editor=Weights(MIX)))


def test_only_editors_of_the_weights_are_asked(context):
    with pytest.raises(Unsupported, match="walks in W"):
        LatentReproductionObservation(**FAST).check(context)
    with pytest.raises(Unsupported, match="changes nothing"):
        LatentReproductionObservation(**FAST).look(
            replace(context, editor=Weights(torch.zeros(DIM, DIM), torch.zeros(DIM)))
        )


def test_an_effect_out_of_reach_is_told(context):
    with torch.no_grad():
        found = LatentReproductionObservation(
            **FAST | {"steps": 1, "spaces": ["w"], "effect": 40.0, "cap": 2}
        ).look(replace(context, editor=Weights(MIX)))
    assert "40 sigma towards 'yes' was not reached" in rows_of(found).loc["reproduction_w", "note"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"spaces": ["s"]},
        {"spaces": []},
        {"lr": {"w": 0}},
        {"lr": {"s": 1}},
        {"effect": -1},
        {"restarts": 1.5},
        {"pictures": -1},
    ],
)
def test_a_wrong_option_is_named(wrong):
    with pytest.raises(EditbenchError, match=r"observation\.latent_reproduction"):
        LatentReproductionObservation(**wrong)


# -- the metric ------------------------------------------------------------------------------------
def test_rho_its_interval_and_its_samples():
    rng = np.random.default_rng(0)
    whole, left = rng.gamma(2, 1, 400), rng.gamma(2, 0.5, 400)
    meta = {
        "spaces": ["w"],
        "left_out": {},
        "reach": {"reached": True},
        "effect": 1.0,
        "class": "yes",
        "editor": "",
    }
    arrays = {
        "pixels": whole,
        "perceptual": 2 * whole,
        "pixels_w": np.stack([left, 0.01 * whole]),
        "perceptual_w": np.stack([left, left]),
        "planted_pixels_w": whole,
    }
    result = LatentReproduction()(Observed(arrays, meta))
    rows = result.rows.set_index("metric")
    ratio = left.mean() / whole.mean()
    assert rows.loc["reproduction_w", "value"] == pytest.approx(ratio)
    assert rows.loc["reproduction_perceptual_w", "value"] == pytest.approx(ratio / 2)
    assert rows.loc["reproduction_control_w", "value"] == pytest.approx(0.01)
    error = np.std(left - ratio * whole) / whole.mean() / 20  # the delta method's
    low, high = rows.loc["reproduction_w", ["low", "high"]]
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15) and low < ratio < high
    mine = result.samples[result.samples["metric"] == "reproduction_w"]
    assert mine["value"].mean() == pytest.approx(ratio)
    assert mine["start"].tolist() == list(range(400))
    assert float(PixelDistance()(torch.zeros(1, 3), torch.ones(1, 3))) == 3
    # A search whose control turned NaN has not passed it.
    lost = arrays | {"pixels_w": np.stack([left, np.full(400, np.nan)])}
    rows = LatentReproduction()(Observed(lost, meta)).rows.set_index("metric")
    assert "must not be concluded" in rows.loc["reproduction_w", "note"]


def test_the_configured_observation_is_the_papers():
    options = compose_config(
        ["observation=[latent_reproduction]", "metric=[latent_reproduction]"]
    ).observation.latent_reproduction
    assert (options.steps, options.batch, options.restarts, options.held_out) == (5000, 16, 3, 512)
    assert dict(options.lr) == {"z": 0.05, "w": 0.01, "w_plus": 0.01, "activation": 0.01}


# -- the figure ------------------------------------------------------------------------------------
def test_pictures_stand_by_space_and_a_failed_control_in_brackets(tmp_path, mixed):
    rows = LatentReproduction(draws=10, recovered=1e-9)(mixed).rows
    rows.loc[rows["metric"] == "reproduction_z", "note"] = ""
    folder = fake_run(
        tmp_path, "alpha", "smile", rows=pd.concat([metric_rows(), rows], ignore_index=True)
    )
    mixed.save(observation_file(folder, "latent_reproduction"))
    seal_folder(folder)
    other = fake_run(tmp_path, "beta", "smile")
    Observed(reason="walks in W").save(observation_file(other, "latent_reproduction"))
    seal_folder(other)
    results = load(tmp_path)
    found = reproduced(results)
    assert list(found) == ["smile"] and list(found["smile"]) == ["alpha"]
    one = found["smile"]["alpha"]
    assert list(one.lines) == ["start", "weight shift", *SPACES]
    np.testing.assert_array_equal(one.lines["w_plus"], mixed.arrays["pictures"][4])
    assert {space: sound for space, (_, sound) in one.rho.items()} == {
        "z": True,
        "w": False,
        "w_plus": False,
        "activation": False,
    }
    assert [each.file for each in draw(results, make_theme(["alpha"]))] == ["reproduction_smile"]
    figure = reproduction_figure(found["smile"], make_theme(["alpha"]))
    told = [axes.get_xlabel() for axes in figure.axes]
    assert told[:2] == ["", ""]
    assert not told[2].startswith("(")
    assert told[3] == f"({one.rho['w'][0]:.2f})"
    strip = side_by_side(np.arange(2 * 3 * 2 * 4, dtype=np.uint8).reshape(2, 3, 2, 4))
    assert strip.shape == (2, 10, 3)
    assert (strip[:, 4:6] == 255).all()
    assert strip[0, 6].tolist() == [24, 32, 40]
