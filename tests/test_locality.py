"""Heatmaps of edits and their numbers: against closed forms of a linear world, planted edits, and a slow loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from editbench.base.conf import CONF, group_options
from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.base.files import seal_folder
from editbench.base.spaces import Codes, Space
from editbench.figures.theme import make_theme
from editbench.metrics.locality.figure import draw, heatmap_figure, heats
from editbench.metrics.locality.metric import Locality, entropy, top_share
from editbench.metrics.locality.observation import LocalityObservation
from editbench.report.load import load
from editbench.run import job
from editbench.run.compose import compose_config
from editbench.walk.editor import Editor, FitReport
from editbench.walk.observation import Observed, observation_file
from editbench.walk.strength import edited_codes
from editbench.worlds.faces import attributes as face_attributes
from editbench.worlds.faces.factors import FactorLaw
from editbench.worlds.faces.regions import REGIONS, regions
from editbench.worlds.faces.truth import RenderGenerator, to_factors
from editbench.worlds.parser import RegionParser
from tests.by_config import run_job
from tests.fake_records import fake_run
from tests.scenes import DELTA, scene_of
from tests.toy_world import DIM, AlongColumn, ToyGenerator, V, toy_config

N, B, POINTS = 40, 5, 6
LINE = (V.T / V.T.norm(dim=1, keepdim=True))[0].double().numpy()
SHRINK = 0.01


class Small(ToyGenerator):
    """The toy pictures, so dark that none is clamped."""

    def _decode(self, codes: Codes) -> Tensor:
        return SHRINK * super()._decode(codes)


class Halves(torch.nn.Module):
    """Regions of a 2x4 picture by position; 'bright' where the picture is above zero in the right half."""

    names = ("left", "right", "bright")

    def forward(self, images: Tensor) -> Tensor:
        place = torch.tensor([0, 0, 1, 1]).expand(len(images), 2, 4)
        return torch.where((place == 1) & (images[:, 0] > 0), 2, place)


class Planted(Editor):
    """Adds a step along a fixed vector of the picture."""

    space = Space.W

    def __init__(self, vector: Tensor) -> None:
        super().__init__()
        self.vector = vector

    def fit(self, data):
        return FitReport()

    def step(self, walk):
        sign = torch.where(walk.target == 1, 1.0, -1.0)[:, None]
        return walk.codes + sign * self.vector


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return replace(scene_of(toy_config(tmp_path_factory.mktemp("heat"))), generator=Small())


def observation(**options) -> LocalityObservation:
    return LocalityObservation(
        **{"parser": Halves(), "n": N, "points": POINTS, "limit": 3.0, "blocks": B} | options
    )


def value(found: Observed, name: str, x: float | None = None, **own) -> float:
    rows = Locality({"a": ["left"]} | own)(found).rows
    rows = rows[(rows["metric"] == name) & (rows["x"].isna() if x is None else rows["x"] == x)]
    assert len(rows) == 1, name
    return float(rows["value"].iloc[0])


def test_too_few_samples_are_told_before_the_editor_is_fitted(context):
    reason = "observation.locality.n=10000: the test split .*: raise bank.n, or set"
    with pytest.raises(EditbenchError, match=reason):
        observation(n=10_000).check(context)


def test_pictures_that_the_parser_does_not_take_are_told_before_the_editor_is_fitted(context):
    before = context.generator.decoded
    observation().check(context)
    assert context.generator.decoded == before
    reason = r"multiples of 4, got \(1, 1, 2, 4\); set observation\.locality\.parser=null"
    with pytest.raises(EditbenchError, match=reason):
        observation(parser=RegionParser()).check(context)


# -- the observation -------------------------------------------------------------------------------
@pytest.mark.parametrize("points", [6, 7])
def test_a_linear_generator_has_the_closed_form(context, points):
    found = observation(points=points).look(context)
    t = np.linspace(-3, 3, points)
    exact = np.mean(t**2) * (SHRINK * DELTA * LINE.reshape(2, 4)) ** 2
    np.testing.assert_allclose(
        found.arrays["energy"].sum(0) / found.arrays["count"].sum(), exact, rtol=1e-3
    )
    assert found.arrays["count"].tolist() == [points * N / B] * B
    assert not found.arrays["broken"].any()
    np.testing.assert_allclose(found.arrays["strength"], t, atol=1e-12)
    change = value(found, "locality_change")
    assert change == pytest.approx(np.sqrt(exact.mean()), rel=1e-3)
    first = context.bank.spec.split("test")[0]
    start = SHRINK * context.bank.array("w").range(first, first + N).mean(0).reshape(1, 2, 4)
    np.testing.assert_allclose(found.arrays["mean"], start, atol=1e-6)


def test_pictures_are_clamped_before_the_difference(context):
    bright = replace(context, generator=ToyGenerator())
    found = observation(parser=None).look(bright)
    slow = 0.0
    pictures = {
        t: torch.cat(
            [c.values.reshape(-1, 2, 4) for s, _, c in edited_codes(bright, [t], N) if s == t]
        ).clamp(-1, 1)
        for t in [0.0, *np.linspace(-3, 3, POINTS)]
    }
    for t, after in pictures.items():
        if t:
            slow += (after.double() - pictures[0.0].double()).square().sum(0).numpy()
    np.testing.assert_allclose(found.arrays["energy"].sum(0), slow, rtol=1e-5)
    assert not {"region_energy", "region_pixels"} & set(found.arrays)


def test_any_batch_and_any_split_leave_the_same_sums(context):
    found = observation().look(context)
    for batch in (1, 7, 40):
        again = observation().look(replace(context, batch=batch))
        for name, array in found.arrays.items():
            np.testing.assert_allclose(
                again.arrays[name], array, rtol=1e-5, atol=1e-9, err_msg=name
            )
    part = observation(n=24, blocks=3).look(
        context
    )  # blocks of 8, as above: the first three of five
    for name in ("energy", "count", "region_energy", "region_pixels"):
        np.testing.assert_allclose(
            part.arrays[name], found.arrays[name][:3], rtol=1e-5, atol=1e-12, err_msg=name
        )


def test_regions_share_out_all_energy_and_all_pixels(context):
    arrays = observation().look(context).arrays
    np.testing.assert_allclose(
        arrays["region_energy"].sum((1, 2)), arrays["energy"].sum((1, 2)), rtol=1e-12
    )
    np.testing.assert_array_equal(arrays["region_pixels"].sum((1, 2)), arrays["count"] * 8)
    slow = np.zeros((3, 3))
    labels, ts = Halves(), np.linspace(-3, 3, POINTS)
    for t in ts:
        both = [
            context.generator.decode(c)
            for s, _, c in edited_codes(replace(context, batch=N), [0.0, t], N)
        ]
        for i, j in zip(labels(both[0]).flatten().tolist(), labels(both[1]).flatten().tolist()):
            slow[i, j] += 1
    np.testing.assert_array_equal(arrays["region_pixels"].sum(0), slow)
    assert slow[1, 2] > 0 and slow[2, 1] > 0


def test_the_grid_ends_where_the_effect_is_the_common_one_and_a_side_may_lead_nowhere(context):
    sigma = float(context.bank.sigma["judge"][0])
    sharp = replace(
        context, judge=type(context.judge)(scale=1 / SHRINK)
    )  # the bank's logits, of the undimmed pictures
    found = observation(limit=None, effect=1.0, samples=40).look(sharp)
    exact = sigma / (DELTA * float(V[:, 0].norm()))
    assert found.arrays["strength"][[0, -1]] == pytest.approx([-exact, exact], rel=0.03)
    assert found.meta["up"]["reached"]
    assert "not reached" not in Locality()(found).rows["note"].iloc[0]

    class OneWay(AlongColumn):
        def step(self, walk):
            return torch.where((walk.target == 1)[:, None], super().step(walk), walk.codes)

    found = observation(limit=None, samples=40).look(replace(sharp, editor=OneWay(DELTA)))
    assert (found.arrays["strength"] > 0).all() and len(found.arrays["strength"]) == POINTS // 2
    assert "towards 'no' was not reached" in Locality()(found).rows["note"].iloc[0]
    with pytest.raises(Unsupported, match="changes nothing"):
        observation(limit=None).look(replace(sharp, editor=AlongColumn(DELTA, fail="frozen")))


def test_pictures_that_are_not_finite_are_left_out_and_told(context):
    found = observation().look(replace(context, editor=AlongColumn(DELTA, fail="nan")))
    assert found.arrays["broken"].sum() == POINTS * N / 2
    assert np.isfinite(found.arrays["energy"]).all()
    assert "120 edited pictures are not finite" in Locality()(found).rows["note"].iloc[0]


def test_the_renderer_has_its_own_masks_and_a_perfect_edit_stays_in_them(tmp_path):
    class Smile(Editor):
        space = Space.W

        def fit(self, data):
            return FitReport()

        def step(self, walk):
            out = walk.codes.clone()
            out[:, 0] = (walk.target == 1).float()
            return out

    class Judge(torch.nn.Module):
        attributes = face_attributes()

    generator = RenderGenerator()

    class FakeBank:
        spec = type("Spec", (), {"split": staticmethod(lambda name: (0, 6))})

        def array(self, name):
            z = torch.randn(6, generator.z_dim, generator=torch.Generator().manual_seed(0))
            w = (
                generator.map(z).numpy()
                if name == "w"
                else np.zeros((6, Judge.attributes.width), np.float32)
            )
            return type("Field", (), {"range": staticmethod(lambda a, b: w[a:b])})

    context = replace(
        scene_of(toy_config(tmp_path)),
        generator=generator,
        editor=Smile(),
        judge=Judge(),
        bank=FakeBank(),
        attribute="smile",
    )
    found = LocalityObservation(n=6, points=2, limit=1.0, blocks=2).look(context)
    assert found.meta["regions"] == list(REGIONS) and found.meta["masks"] == "exact"
    w = torch.from_numpy(FakeBank().array("w").range(0, 6))
    before, slow = regions(to_factors(w), 32), np.zeros((len(REGIONS), len(REGIONS)))
    for amount in (0.0, 1.0):
        moved = w.clone()
        moved[:, 0] = amount
        np.add.at(slow, (before.numpy(), regions(to_factors(moved), 32).numpy()), 1)
    np.testing.assert_array_equal(found.arrays["region_pixels"].sum(0), slow)
    own = {"smile": ["mouth"]}
    rows = Locality(own)(found).rows.set_index("metric")["value"]
    assert rows["locality_touched"] > 0.5 and rows["locality_touched_ratio"] > 20
    assert rows["locality_inside"] <= rows["locality_touched"]
    assert FactorLaw() == generator.law


# -- the numbers -----------------------------------------------------------------------------------
def test_an_edit_in_a_mask_is_in_it_and_one_of_everything_is_nowhere(context):
    inside = torch.tensor([1.0, 1, 0, 0, 1, 1, 0, 0])
    found = observation().look(replace(context, editor=Planted(inside)))
    assert value(found, "locality_inside") == pytest.approx(1, rel=1e-12)
    assert value(found, "locality_inside_ratio") == pytest.approx(2)
    assert value(found, "locality_top") == pytest.approx(0.8 / 4, rel=1e-5)
    assert value(found, "locality_entropy") == pytest.approx(np.log(4) / np.log(8), rel=1e-6)
    assert value(found, "locality_region", 0) == pytest.approx(1)
    assert value(found, "locality_region_ratio", 0) == pytest.approx(2)
    everywhere = observation().look(replace(context, editor=Planted(torch.ones(DIM))))
    assert value(everywhere, "locality_entropy") == pytest.approx(1, abs=1e-6)
    assert value(everywhere, "locality_top") == pytest.approx(0.1, rel=1e-4)
    for name in ("locality_inside_ratio", "locality_touched_ratio"):
        assert value(everywhere, name) == pytest.approx(1, rel=1e-4)
    sums = [value(everywhere, "locality_region", k) for k in range(3)]
    assert sum(sums) == pytest.approx(1) and sums[0] == pytest.approx(0.5, rel=1e-4)


def test_pixels_that_become_a_region_count_as_touched(context):
    found = observation().look(
        replace(context, editor=Planted(torch.tensor([0.0, 0, 9, 9, 0, 0, 9, 9])))
    )
    own = {"a": ["bright"]}
    arrays = {
        name: array.sum(0) for name, array in found.arrays.items() if name.startswith("region")
    }
    energy = arrays["region_energy"]
    assert value(found, "locality_inside", **own) == pytest.approx(energy[2].sum() / energy.sum())
    touched = energy[2].sum() + energy[1, 2]
    assert value(found, "locality_touched", **own) == pytest.approx(touched / energy.sum())
    assert energy[1, 2] > 0


def test_top_share_and_entropy_of_known_maps():
    heat = np.zeros((2, 25))
    heat[0, 3] = 5
    heat[1] = np.arange(25)
    assert top_share(heat).tolist() == pytest.approx([1.0, (24 + 23 + 0.5 * 22) / 300])
    p = np.arange(1, 25) / 300
    assert entropy(heat).tolist() == pytest.approx([0.0, -(p * np.log(p)).sum() / np.log(25)])
    assert np.isnan(top_share(np.zeros((1, 10)))).all()
    assert np.isnan(entropy(np.zeros((1, 10)))).all()


def test_samples_are_pseudo_values_of_leaving_blocks_out_and_intervals_hold_the_value(context):
    found = observation().look(
        replace(context, editor=AlongColumn(DELTA), generator=ToyGenerator())
    )
    result = Locality({"a": ["left"]})(found)
    rows = result.rows[result.rows["x"].isna()].set_index("metric")
    for name in (
        "locality_top",
        "locality_entropy",
        "locality_inside",
        "locality_touched_ratio",
        "locality_change",
    ):
        pseudo = result.samples[result.samples["metric"] == name]["value"].to_numpy()
        left = []
        for b in range(B):
            arrays = {
                k: np.delete(v, b, 0) if len(v) == B and k != "strength" else v
                for k, v in found.arrays.items()
            }
            left.append(value(Observed(arrays, found.meta), name))
        whole = rows.loc[name, "value"]
        np.testing.assert_allclose(
            pseudo, B * whole - (B - 1) * np.array(left), rtol=1e-9, atol=1e-12
        )
        half = scipy.stats.t.ppf(0.975, B - 1) * scipy.stats.sem(pseudo)
        high = whole + half if name.endswith(("ratio", "change")) else min(whole + half, 1.0)
        assert rows.loc[name, "low"] == pytest.approx(max(whole - half, 0.0))
        assert rows.loc[name, "high"] == pytest.approx(high)
    assert set(result.rows["metric"]) <= set(Locality.produces)


def test_intervals_cover_the_map_of_all_samples():
    """Samples of very different energy, a share of it in four of 16 equally bright pixels."""
    rng = np.random.default_rng(0)
    blocks, n, repeats = 10, 200, 100
    end = {"reached": True, "effect": 1.0, "strength": 1.0}
    meta = {"n": n, "attribute": "a", "regions": ["left", "right"], "effect": 1.0}
    meta |= {"down": end, "up": end, "classes": ["no", "yes"]}
    block = np.arange(n) * blocks // n
    # Energy is lognormal(0, 1), its share in the four pixels is beta(2, 3), of mean 2/5.
    total = np.exp(0.5)
    pixels = np.r_[np.full(4, 0.4 / 4), np.full(12, 0.6 / 12)]
    exact = {
        "locality_top": 1.6 * pixels[0],
        "locality_entropy": -(pixels * np.log(pixels)).sum() / np.log(16),
        "locality_inside": 0.4,
        "locality_inside_ratio": 0.4 / (4 / 16),
        "locality_change": np.sqrt(total / 16),
    }
    covered = dict.fromkeys(exact, 0)
    for _ in range(repeats):
        energy = rng.lognormal(0, 1, n)
        left = energy * rng.beta(2, 3, n)
        maps = np.concatenate([np.tile(left / 4, (4, 1)), np.tile((energy - left) / 12, (12, 1))])
        maps = (maps * rng.gamma(2, 1 / 2, maps.shape)).T
        heat = np.stack([maps[block == b].sum(0) for b in range(blocks)])
        by_region = np.zeros((blocks, 2, 2))
        by_region[:, 0, 0] = heat[:, :4].sum(1)
        by_region[:, 1, 1] = heat[:, 4:].sum(1)
        count = np.bincount(block).astype(float)
        arrays = {
            "count": count,
            "broken": np.zeros(blocks),
            "energy": heat.reshape(blocks, 4, 4),
            "region_energy": by_region,
            "region_pixels": count[:, None, None] * np.diag([4.0, 12.0]),
            "mean": np.zeros((1, 4, 4), np.float32),
        }
        rows = Locality({"a": ["left"]})(Observed(arrays, meta)).rows
        rows = rows[rows["x"].isna()].set_index("metric")
        for name, number in exact.items():
            covered[name] += rows.loc[name, "low"] <= number <= rows.loc[name, "high"]
    assert min(covered.values()) >= 0.88 * repeats, covered


def test_intervals_end_where_a_share_does():
    """One of two samples, of all the energy in a single pixel: the share varies up to 1."""
    heat = np.zeros((4, 2, 8))
    heat[:, 0, 0] = 1.0
    heat[0, 1] = 0.2
    arrays = {"count": np.ones(4), "broken": np.zeros(4), "energy": heat}
    arrays |= {"mean": np.zeros((1, 2, 8), np.float32)}
    end = {"reached": True, "effect": 1.0, "strength": 1.0}
    meta = {"n": 4, "attribute": "a", "regions": [], "effect": 1.0, "down": end, "up": end}
    rows = Locality()(Observed(arrays, meta | {"classes": ["no", "yes"]})).rows.set_index("metric")
    assert rows.loc["locality_top", "high"] == 1.0
    assert rows.loc["locality_entropy", "low"] == 0.0
    assert rows.loc["locality_change", "low"] > 0


@pytest.mark.parametrize(
    "own, note", [({}, "no regions are declared for 'a'"), ({"a": "all"}, "the whole picture")]
)
def test_an_attribute_without_regions_has_no_share_of_its_own(context, own, note):
    rows = Locality(own)(observation().look(context)).rows.set_index("metric")
    assert np.isnan(rows.loc["locality_inside", "value"])
    assert note in rows.loc["locality_inside", "note"]
    bare = Locality({"a": ["left"]})(observation(parser=None).look(context)).rows.set_index(
        "metric"
    )
    assert "no parser" in bare.loc["locality_touched", "note"]
    assert np.isfinite(bare.loc["locality_top", "value"])


def test_a_wrong_declaration_or_option_is_named(context):
    with pytest.raises(UnknownName, match=r"metric\.locality\.regions\.a"):
        Locality({"a": ["nose"]})(observation().look(context))
    with pytest.raises(EditbenchError, match=r"regions\.a=left"):
        Locality({"a": "left"})
    for wrong in ({"points": 1}, {"limit": -1.0}, {"n": 3}, {"effect": 0}, {"tolerance": 1}):
        with pytest.raises(EditbenchError, match=r"observation\.locality"):
            observation(**wrong)
    with pytest.raises(EditbenchError, match="whole number"):
        observation(blocks=2.5)


def test_a_misspelt_attribute_is_refused_before_the_work(tmp_path, monkeypatch):
    cfg = toy_config(tmp_path, "metric=[crossing_accuracy,locality]")
    # The regions of the faces, which the YAML declares for every scorer.
    assert "smile" in cfg.metric.locality.regions
    cfg.metric.locality.regions["aa"] = ["mouth"]
    monkeypatch.setattr(job, "load_bank", None)  # would fail with another message
    with pytest.raises(UnknownName, match=r"metric.locality.regions 'aa'\. Did you mean 'a'\?"):
        run_job(cfg)
    monkeypatch.undo()
    del cfg.metric.locality.regions["aa"]
    cfg.metric.locality.regions["a"] = ["mouth"]
    assert run_job(cfg).status == "done"


def test_a_misspelt_region_is_told_before_the_editor_is_fitted(context, tmp_path):
    cfg = toy_config(tmp_path, "observation=[locality]", "metric=[locality]", fail="crash")
    cfg.observation.locality.update({"n": N, "points": POINTS, "limit": 3.0, "blocks": B})
    cfg.observation.locality.parser = {"_target_": "tests.test_locality.Halves"}
    cfg.metric.locality.regions = {"a": ["lefft"]}
    assert run_job(cfg).reason == (
        "unknown region of metric.locality.regions.a 'lefft'. Did you mean 'left'? "
        "Available: bright, left, right."
    )
    # Regions of other attributes, and those of a parser that is not there, are not asked for.
    Locality({"b": ["lefft"]}).check_observation(observation(), context)
    Locality({"a": ["lefft"]}).check_observation(observation(parser=None), context)


def test_declared_regions_are_the_worlds():
    declared = compose_config(["metric=[locality]"]).metric.locality.regions
    assert set(declared) == set(face_attributes().names)
    assert all(own == "all" or set(own) <= set(REGIONS) for own in declared.values())
    assert "locality" in group_options("observation")
    assert (CONF / "observation" / "locality.yaml").exists()


# -- the figure ------------------------------------------------------------------------------------
def test_a_map_a_method_and_attribute_with_seeds_added(tmp_path, context):
    maps = {"alpha": torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]), "beta": torch.ones(DIM)}
    for method, vector in maps.items():
        for seed in (0, 1) if method == "beta" else (0,):
            folder = fake_run(tmp_path, method, "smile", seed=seed, tag=f"{seed:010d}")
            found = observation(limit=float(1 + seed)).look(
                replace(context, editor=Planted(vector))
            )
            found.save(observation_file(folder, "locality"))
            seal_folder(folder)
    fake_run(tmp_path, "gamma", "smile")
    results = load(tmp_path)
    found = heats(results)
    assert set(found) == {("smile", "alpha"), ("smile", "beta")}
    mean = [np.mean((SHRINK * np.linspace(-limit, limit, POINTS)) ** 2) for limit in (1, 2)]
    np.testing.assert_allclose(
        found["smile", "beta"].heat, np.full((2, 4), np.mean(mean)), rtol=1e-3
    )
    assert found["smile", "alpha"].heat[0, 0] == pytest.approx(mean[0], rel=1e-3)
    names = [one.file for one in draw(results, make_theme(["alpha", "beta"]))]
    assert names == ["heatmaps", "heatmaps_shared"] and draw(load_empty(tmp_path / "x"), {}) == []
    theme = make_theme(["alpha", "beta"])
    own, shared = (heatmap_figure(found, theme, kind) for kind in (False, True))
    limits = [
        [image.get_clim()[1] for axes in figure.axes for image in axes.images][1:3]
        for figure in (own, shared)
    ]
    assert limits[0][0] != limits[0][1] and limits[1][0] == limits[1][1]


def load_empty(root):
    fake_run(root, "alpha", "smile")
    return load(root)
