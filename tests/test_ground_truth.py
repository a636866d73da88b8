"""The world's renderer as a generator, the perfect edit on it, and the judge read against the truth."""

from __future__ import annotations

import shlex
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from scipy.stats import binomtest

from editbench.base.attributes import Attribute, Attributes
from editbench.base.conf import group_options
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.files import seal_folder
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.metrics.judge_truth.metric import JudgeTruth, target_lead
from editbench.metrics.judge_truth.observation import Truth
from editbench.report.load import load
from editbench.run.compose import compose_config
from editbench.run.record import Record
from editbench.walk.trajectory import Trajectories
from editbench.worlds.faces import attributes
from editbench.worlds.faces.factors import PRIORS, YAW_STEP, FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.faces.truth import WIDTH, YAW, RenderGenerator, to_codes, to_factors
from tests.by_config import run_job
from tests.fake_records import fake_run
from tests.toy import BINARY, MIXED, check_splits

torch.set_num_threads(1)
N = 1500


@pytest.fixture(scope="module")
def dense():
    return RenderGenerator(margin=0.0)


@pytest.fixture(scope="module")
def codes(dense):
    return dense.map(torch.from_numpy(normals(3, "test", 0, N, dense.z_dim)).float())


# -- the generator ---------------------------------------------------------------------------------
def test_codes_are_the_factors_and_decode_to_the_render():
    factors = sample_factors(FactorLaw(), 0, 0, 12)
    w = to_codes(factors)
    assert w.shape == (12, WIDTH)
    back = to_factors(w)
    for name, value in vars(factors).items():
        torch.testing.assert_close(getattr(back, name), value, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(
        RenderGenerator().decode(Codes(Space.W, w)), render(factors, 32), atol=1e-4, rtol=0
    )


def test_z_has_the_law_of_the_world(codes):
    labels, law = to_factors(codes).labels(), RenderGenerator()
    for place, item in enumerate(attributes()):
        share = np.bincount(labels[:, place], minlength=len(item.classes)) / N
        np.testing.assert_allclose(share, PRIORS[item.name], atol=0.05)
    old, glasses = labels[:, 4].double(), labels[:, 1].double()
    assert 0.15 < np.corrcoef(old, glasses)[0, 1] < 0.45  # planted: 0.30
    spaced = RenderGenerator(margin=0.2).map(
        torch.from_numpy(normals(3, "test", 0, N, law.z_dim)).float()
    )
    assert torch.equal(to_factors(spaced).labels(), labels)  # the margin moves amounts, not classes
    far, near = ((to_factors(w).amounts - 0.5).abs() for w in (spaced, codes))
    assert far.min() >= 0.1 - 1e-6 and near.min() < 0.01
    alone = RenderGenerator(correlations={})
    assert len({alone.digest, law.digest, RenderGenerator(margin=0.2).digest}) == 3
    assert law.digest == RenderGenerator(margin=0.0).digest


def test_law_and_drawing_are_those_that_the_digest_names():
    """Who changes a factor or a picture gives truth.DRAWING another value, and pins them anew."""
    assert RenderGenerator().digest == "ea99e4c2fe8a"
    factors = sample_factors(FactorLaw(), 7, 0, 16)
    codes = to_codes(factors).double().mean(0)
    expected = [0.489997, 0.505595, 0.362393, 0.510083, 0.461636, 0.362239, 0.193182, 0.058842]
    expected += [0.273937, 0.1118, 0.112873, 0.513599, 0.554005, 0.514784, 0.5964, 0.977035]
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    pixels = render(factors, 32).double()
    colours = [0.193995, 0.067657, 0.069888]
    np.testing.assert_allclose(pixels.mean((0, 2, 3)), colours, atol=1e-5)
    places = [0.500104, 0.500104, 0.500104, 0.500104, 0.377133, -0.123225, -0.236422, 0.292548]
    places += [0.254162, -0.258936, -0.069378, -0.190924, 0.131192, -0.077839, -0.070545, -0.078329]
    np.testing.assert_allclose(pixels.mean((0, 1))[::8, ::8].flatten(), places, atol=1e-5)


def test_a_sample_depends_on_its_z_alone(dense):
    z = torch.from_numpy(normals(3, "test", 0, 9, dense.z_dim)).float()
    w, image = dense.map(z), dense.decode(Codes(Space.Z, z))
    assert torch.equal(torch.cat([dense.map(part) for part in z.split(4)]), w)
    parts = [dense.decode(Codes(Space.W, part)) for part in w.split(2)]
    torch.testing.assert_close(torch.cat(parts), image, atol=1e-5, rtol=0)


def test_codes_out_of_range_are_drawn_as_the_nearest_face(dense, codes):
    w = codes[:4].clone()
    w[:, 0], w[:, 5:10], w[:, YAW] = 1.7, 0.0, 9.0
    factors = to_factors(w)
    assert (factors.amounts[:, 0] == 1).all() and (factors.yaw == 2.5 * YAW_STEP).all()
    torch.testing.assert_close(factors.hair, torch.full((4, 5), 0.2))
    assert torch.isfinite(dense.decode(Codes(Space.W, w))).all()
    w[0] = torch.nan
    image = dense.decode(Codes(Space.W, w))
    assert torch.isnan(image[0]).any() and torch.isfinite(image[1:]).all()


def test_a_correlation_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="expected 'trait,trait'"):
        RenderGenerator(correlations={"age,height": 0.5})


def test_a_law_or_a_picture_that_cannot_be_is_refused():
    for wrong in ({"margin": 1.5}, {"margin": -0.5}, {"margin": float("nan")}, {"resolution": 0}):
        with pytest.raises(EditbenchError, match="margin lies between 0 and 1"):
            RenderGenerator(**wrong)


def test_derivatives_are_of_w_alone(dense, codes):
    w = codes[:2].clone().requires_grad_(True)
    dense.decode(Codes(Space.W, w)).sum().backward()
    assert (w.grad[:, :5] != 0).any()
    with pytest.raises(Unsupported, match="no derivative in Z"):
        dense.decode(Codes(Space.Z, torch.zeros(2, dense.z_dim, requires_grad=True)))


def test_the_judges_attributes_must_be_known_to_the_generator(dense):
    own = attributes()
    renamed = Attribute("hat", ("no", "yes"))
    swapped = Attribute(own.names[0], own[own.names[0]].classes[::-1])
    for wrong in (renamed, swapped):
        judge = SimpleNamespace(attributes=Attributes([wrong]))
        networks = SimpleNamespace(generator=dense, judge=judge)
        with pytest.raises(EditbenchError, match=f"judge's attribute '{wrong.name}'"):
            Truth().prepare(networks, "cpu")


# -- the metric ------------------------------------------------------------------------------------
def walks(threshold: float, late: float = 0.5, steps: int = 12, starts: int = 7) -> Trajectories:
    """Amount 0.03 + 0.08 t (+ 0.01 for each start), true from 0.5 on; the judge of `a` switches at `threshold`.
    `b` never truly changes, but the judge calls it 1 beyond amount `late`; `c` changes at 0.9, the judge knows."""
    amount = np.minimum(
        0.03 + 0.08 * np.arange(steps)[None] + 0.01 * np.arange(starts)[:, None], 0.85
    ).ravel()
    step = np.tile(np.arange(steps), starts)
    crossed = amount > threshold
    table = pd.DataFrame(
        {
            "start": np.repeat(np.arange(starts) * 3 + 2, steps),
            "source": 0,
            "target": 1,
            "step": step,
            "path": amount - np.repeat(amount.reshape(starts, -1)[:, 0], steps),
            "crossed": crossed,
            "finite": True,
            "logit:a": 5 * (amount - threshold),
            "logit:b": amount - late,
            "logit:c": amount - 0.9,
            "true:a": amount > 0.5,
            "true:b": 0,
            "true:c": amount > 0.9,
            "true_margin": amount - 0.5,
        }
    )
    table["stopped"] = table["crossed"] & ~table.groupby("start")["crossed"].shift(
        fill_value=False
    ).astype(bool)
    return Trajectories(table, BINARY, "a", np.ones(3))


def value(result, name: str) -> float:
    return float(result.rows.set_index("metric").loc[name, "value"])


@pytest.mark.parametrize("threshold", [0.5, 0.62, 0.37])
def test_the_threshold_is_found_between_two_steps(threshold):
    result = JudgeTruth(draws=50)(walks(threshold))
    assert value(result, "threshold_shift") == pytest.approx(threshold - 0.5, abs=1e-9)
    assert value(result, "threshold_error") == pytest.approx(abs(threshold - 0.5), abs=1e-9)
    found = walks(threshold)
    table = found.table[found.table["step"] > 0]
    moved = table[
        table.groupby("start")["true_margin"].diff().fillna(1) > 0
    ]  # stands still at 0.85
    truly = moved["true_margin"] > 0
    assert value(result, "judge_right_target") == pytest.approx(
        ((moved["true_margin"] > threshold - 0.5) == truly).mean()
    )
    assert value(result, "judge_right_others") == pytest.approx(
        ((moved["true_margin"] <= 0).mean() + 1) / 2
    )
    stops = found.table[found.table["stopped"]]
    assert value(result, "stop_is_true") == pytest.approx((stops["true_margin"] > 0).mean())
    assert value(result, "true_flips") == 0
    assert value(result, "false_flips") == pytest.approx((stops["true_margin"] > 0).mean())


def test_a_judge_that_is_right_in_all_walks_is_not_certainly_right():
    """Labels of one start are not independent: the interval is that of 7 starts."""
    row = JudgeTruth(draws=50)(walks(0.5)).rows.set_index("metric").loc["judge_right_target"]
    expected = binomtest(7, 7).proportion_ci(method="wilson")
    assert (row["value"], row["low"], row["high"]) == pytest.approx((1.0, *expected))


def test_the_way_to_class_0_is_read_as_that_to_class_1():
    """Mirrored walks: logits change their sign, and classes their number."""
    found = walks(0.62)
    mirrored = {"source": 1, "target": 0, "logit:a": -found.table["logit:a"]}
    mirrored["true:a"] = ~found.table["true:a"]
    other = Trajectories(found.table.assign(**mirrored), BINARY, "a", np.ones(3))
    pd.testing.assert_frame_equal(
        JudgeTruth(draws=50)(other).rows, JudgeTruth(draws=50)(found).rows
    )


def test_a_true_flip_is_no_false_one():
    found = walks(0.6, late=9.0)
    table = found.table.assign(
        **{
            "true:b": (found.table["true_margin"] > 0.05).astype(int),
            "logit:b": found.table["true_margin"] - 0.05,
        }
    )
    result = JudgeTruth(draws=50)(Trajectories(table, BINARY, "a", np.ones(3)))
    assert value(result, "true_flips") == 1 and value(result, "false_flips") == 0


def test_the_lead_of_a_class_has_the_sign_of_the_label():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, MIXED.width))
    table = pd.DataFrame({f"logit:{c}": logits[:, k] for k, c in enumerate(MIXED.columns())})
    table = table.assign(start=range(200), step=0, target=rng.integers(3, size=200))
    found = Trajectories(table, MIXED, "kind", np.ones(MIXED.width))
    lead = target_lead(found)
    assert ((lead > 0) == (found.labels[:, 1] == table["target"])).all() and (lead > 0).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_and_permutations(seed):
    check_splits(JudgeTruth(draws=50), walks(0.6), [1, 3], seed)


def test_without_truth_there_is_a_remark_and_no_number():
    found = walks(0.5)
    table = found.table[[c for c in found.table if not c.startswith("true")]]
    result = JudgeTruth(draws=20)(Trajectories(table, BINARY, "a", np.ones(3)))
    assert result.rows["value"].isna().all()
    assert result.rows["note"].str.contains("observation=\\[truth\\]").all()
    assert result.samples.empty


def test_a_ratio_of_no_labels_says_why():
    found = walks(0.5)
    still = Trajectories(found.table.assign(path=0.0), BINARY, "a", np.ones(3))
    notes = JudgeTruth(draws=20)(still).rows.set_index("metric")["note"]
    assert notes["judge_right_target"] == "no step moved"
    alone = BINARY.select(["a"])
    columns = [c for c in found.table if c not in ("logit:b", "logit:c", "true:b", "true:c")]
    rows = JudgeTruth(draws=20)(Trajectories(found.table[columns], alone, "a", np.ones(1))).rows
    notes = rows.set_index("metric")["note"]
    assert "no other attribute" in notes["judge_right_others"] and not notes["judge_right_target"]
    nobody = Trajectories(found.table.iloc[:0], BINARY, "a", np.ones(3))
    assert (JudgeTruth(draws=20)(nobody).rows["note"] == "no starts").all()


# -- the experiment --------------------------------------------------------------------------------
def job(tmp_path, *words: str):
    cfg = compose_config(
        [
            *shlex.split(
                "experiment=ground_truth budget=demo attribute=smile bank.n=500 "
                "bank.shard=250 bank.block=50 starts.n=14 starts.pool=0.33 "
                f"engine.sweep_steps=5 engine.pictures=1 out={tmp_path}"
            ),
            f"cache={tmp_path / 'cache'}",
            *words,
        ]
    )
    for name in ("attribute_dependency", "matched_effect", "identity", "judge_truth"):
        cfg.metric[name].draws = 50
    outcome = run_job(cfg)
    assert outcome.status == "done", outcome.reason
    return tmp_path / outcome.run_id


def test_the_experiment_on_a_small_bank(tmp_path):
    folder = job(tmp_path, "observation.feature_similarity.samples=64")
    record = Record.open(folder)
    table = record.trajectories().table
    first = table[table["step"] == 0]
    assert np.allclose(first["similarity:judge_features"], 1)
    assert (first["pixel_distance"] == 0).all()
    others = [f"true:{name}" for name in attributes().names if name != "smile"]
    assert (table.groupby("start")[others].nunique() == 1).all(
        axis=None
    )  # the truth of all others stands still
    assert (table["true_margin"].abs() <= 0.5 + 1e-6).all()
    rows = pd.read_parquet(folder / "rows.parquet").set_index("metric")
    assert rows.loc["true_flips", "value"] == 0 and rows.loc["judge_right_target", "value"] > 0.7
    assert {"matched_similarity", "judge_feature_similarity_at", "ad_at"} <= set(rows.index)
    plain = Record.open(job(tmp_path, "observation=[]"))
    assert plain.folder != folder
    walked = plain.trajectories().table
    pd.testing.assert_frame_equal(walked, table[walked.columns])  # an observation changes no step
    notes = pd.read_parquet(plain.folder / "rows.parquet").set_index("metric")["note"]
    assert "observation=[truth]" in notes["threshold_shift"]
    assert "observation=[feature_sim" in notes["judge_feature_similarity"]


def test_renders_and_the_gan_are_never_in_one_table(tmp_path):
    fake_run(tmp_path, "true_factor", "smile", generator="renders_clear")
    fake_run(tmp_path, "gradctrl", "smile", generator="faces32")
    parts = load(tmp_path).by_setting()
    assert [sorted(part.runs["method"]) for _, part in parts] == [["gradctrl"], ["true_factor"]]
    assert [name for name, _ in parts] == ["faces32", "renders_clear"]


def test_renders_of_different_laws_are_never_in_one_table(tmp_path):
    laws = {"a": None, "b": {}, "c": {"age,beard": 0.3}, "d": {"age,beard": 0.3, "smile,age": 0.1}}
    for tag, law in laws.items():
        path = (
            fake_run(tmp_path, "true_factor", "smile", generator="renders", tag=tag) / "config.yaml"
        )
        config = OmegaConf.load(path)
        config.generator.correlations = law
        OmegaConf.save(config, path)
        seal_folder(path.parent)  # as a run with this law would have written it
    assert [len(part.runs) for _, part in load(tmp_path).by_setting()] == [1, 1, 1, 1]


def test_both_experiments_compose_and_cover_all_attributes():
    for name in ("ground_truth", "ground_truth_cd"):
        params = group_options("experiment")[name]["hydra"]["sweeper"]["params"]
        assert params["attribute"].split(",") == list(attributes().names)
        for generator in params["generator"].split(","):
            cfg = compose_config([f"experiment={name}", "budget=demo", f"generator={generator}"])
            assert cfg.method.name == "true_factor" and "truth" in cfg.observation
    assert cfg.engine.sweep_steps * cfg.method.delta == pytest.approx(
        1.0
    )  # from a clear class to its neighbour
    assert cfg.starts.near == "any"
