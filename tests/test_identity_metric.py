"""Likeness to the original: the observations in closed form, the metric by hand, and a walk that is none the wiser."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from omegaconf import OmegaConf
from torch import nn

from editbench.base import batches
from editbench.base.batches import Batches
from editbench.base.errors import EditbenchError
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.metrics.identity.metric import Identity, row_name
from editbench.metrics.identity.observation import JUDGE, FeatureSimilarity, PixelDistance
from editbench.run.record import Record
from editbench.walk.editor import Walk
from editbench.walk.observation import DuringWalk, WalkObserver
from editbench.walk.trajectory import Trajectories
from tests.by_config import run_job
from tests.toy import BINARY, check_splits
from tests.toy_world import ToyGenerator, ToyScorer, toy_config

GENERATOR, JUDGE_NET = ToyGenerator(), ToyScorer()


class Features(ToyScorer):
    """A scorer with features of its own."""

    def features(self, decoded):
        return decoded.flatten(1)[:, :3] + 1


def world(judge=JUDGE_NET, generator=GENERATOR):
    return SimpleNamespace(generator=generator, judge=judge)


def walk_of(w, start):
    zeros = torch.zeros(len(w), dtype=torch.int64)
    return Walk("a", torch.tensor(start), w, w, zeros, zeros + 1, latent=w)


# -- during the walk -------------------------------------------------------------------------------
def test_the_columns_are_the_cosine_and_the_pixels():
    w = torch.from_numpy(normals(0, "w", 0, 6, 8)).float()
    moved = w + torch.from_numpy(normals(1, "w", 0, 6, 8)).float() * 0.3
    similarity, pixels = (
        FeatureSimilarity(nn.Flatten(), label="flat", threshold=0.4),
        PixelDistance(),
    )
    for observation in (similarity, pixels):
        observation.prepare(world(), "cpu")
    observer = WalkObserver({"similarity": similarity, "pixels": pixels})
    walk = walk_of(w, [40, 8, 90, 3, 5, 77])  # references are found by start, in whatever order
    observer.start(walk, Codes(Space.W, w), GENERATOR, Batches(4, "walk"))
    first = observer.take_columns()
    np.testing.assert_allclose(first["similarity:flat"], 1, atol=1e-6)
    assert (first["pixel_distance"] == 0).all() and observer.decoded == 12
    some = torch.tensor([5, 0, 3])
    part = walk[some]
    observer.measure(
        part, Codes(Space.W, moved[some]), GENERATOR.decode(Codes(Space.W, moved[some]))
    )
    found = observer.take_columns()
    a, b = w[some].double().numpy(), moved[some].double().numpy()
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found["similarity:flat"], cosine, rtol=1e-5)
    assert (found["similarity_threshold:flat"] == np.float32(0.4)).all()
    gap = np.sqrt(((a.clip(-1, 1) - b.clip(-1, 1)) ** 2).mean(1))
    np.testing.assert_allclose(found["pixel_distance"], gap, rtol=1e-5)
    assert observer.take_columns() == {}


def test_the_threshold_is_measured_in_batches_that_fit_into_memory(monkeypatch):
    sizes = []

    class Counting(ToyGenerator):
        def _decode(self, codes):
            sizes.append(len(codes))
            return super()._decode(codes)

    found = []
    # 0 is unknown. In a kilobyte there is room for a few codes of 32 bytes and their images.
    for free in (0, 1000):
        monkeypatch.setattr(batches, "free_memory", lambda device, free=free: free)
        sizes.clear()
        observation = FeatureSimilarity(nn.Flatten(), samples=40)
        observation.prepare(world(generator=Counting()), "cpu")
        found.append((observation.threshold, max(sizes)))
    assert found[0][1] == 40 and found[1][1] < 8
    assert found[1][0] == pytest.approx(found[0][0])


def test_the_threshold_lets_a_share_of_the_strangers_pass():
    observation = FeatureSimilarity(nn.Flatten(), far=0.1, samples=70)
    observation.prepare(world(), "cpu")
    x = 2 * normals(0, "gauge/impostors", 0, 70, 8)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    pairs = np.array([x[i] @ x[j] for i in range(70) for j in range(i)])
    assert (pairs > observation.threshold + 1e-6).mean() == pytest.approx(0.1, abs=1e-3)
    assert (pairs >= observation.threshold - 1e-6).sum() == round(0.1 * len(pairs)) + 1
    assert observation.label == "Flatten" and GENERATOR.output == "image"


def test_the_judge_stands_in_under_its_own_name():
    observation = FeatureSimilarity(samples=8)
    observation.prepare(world(Features()), "cpu")
    image = GENERATOR.decode(Codes(Space.W, torch.ones(2, 8)))
    np.testing.assert_allclose(observation.reference(image), np.full((2, 3), 3**-0.5), rtol=1e-6)
    assert observation.label == JUDGE
    assert row_name(JUDGE, "similarity_at") == "judge_feature_similarity_at"
    assert row_name("facenet", "verified") == "identity_verified"


def test_what_cannot_be_measured_is_said():
    latents = SimpleNamespace(output="w")
    for observation in (FeatureSimilarity(), PixelDistance()):
        with pytest.raises(EditbenchError, match="returns no images"):
            observation.prepare(world(generator=latents), "cpu")
    with pytest.raises(EditbenchError, match="far=0"):
        FeatureSimilarity(far=0)
    with pytest.raises(EditbenchError, match="size must be"):
        PixelDistance(0)


def test_large_pictures_are_averaged_down():
    image = torch.rand(2, 3, 8, 8) * 2 - 1
    small = PixelDistance(4).reference(image)
    np.testing.assert_allclose(
        small.reshape(2, 3, 4, 4), image.reshape(2, 3, 4, 2, 4, 2).mean((3, 5)), atol=1e-6
    )
    assert PixelDistance(8).reference(image).shape == (2, 192)


# -- in a job --------------------------------------------------------------------------------------
def job(tmp_path, *words: str, batch: int = 16):
    cfg = toy_config(tmp_path, "observation=[feature_similarity,pixel_distance]", *words)
    cfg.observation.feature_similarity.network = {"_target_": "torch.nn.Flatten"}
    cfg.observation.feature_similarity.samples = 40
    cfg.engine.batch = batch
    cfg.metric = OmegaConf.create(
        {"identity": {"_target_": "editbench.metrics.identity.Identity", "draws": 50}}
    )
    outcome = run_job(cfg)
    assert outcome.status == "done", outcome.reason
    return tmp_path / outcome.run_id


def test_an_observation_changes_no_step_and_no_cost(tmp_path):
    plain = tmp_path / run_job(toy_config(tmp_path)).run_id
    folder = job(tmp_path)
    assert plain != folder
    table, walked = (Record.open(one).trajectories().table for one in (folder, plain))
    pd.testing.assert_frame_equal(table[walked.columns], walked)
    assert set(table.columns) - set(walked.columns) == {
        "similarity:Flatten",
        "similarity_threshold:Flatten",
        "pixel_distance",
    }
    made, without = (json.loads((one / "provenance.json").read_text()) for one in (folder, plain))
    assert made["generator_calls"] == without["generator_calls"]
    starts = table["start"].nunique()
    assert made["walk_generator_calls"] == without["walk_generator_calls"] + 2 * starts
    first = table[table["step"] == 0]
    assert np.allclose(first["similarity:Flatten"], 1) and (first["pixel_distance"] == 0).all()
    assert run_job(toy_config(tmp_path)).reused
    other = Record.open(job(tmp_path / "other", batch=5)).trajectories().table
    pd.testing.assert_frame_equal(other, table, rtol=1e-5, atol=1e-6)


def test_the_options_of_an_observation_belong_to_the_run(tmp_path):
    assert job(tmp_path) != job(tmp_path, "observation.feature_similarity.far=0.05")


def test_an_observation_that_cannot_serve_fails_its_job_with_the_remedy(tmp_path):
    outcome = run_job(toy_config(tmp_path, "observation=[truth]"))
    assert outcome.status == "failed" and "generator=renders" in outcome.reason


def test_an_observation_without_a_reference_needs_none():
    class Step(DuringWalk):
        def measure(self, walk, codes, decoded, reference):
            assert reference.shape == (len(walk), 0)
            return {"made": torch.full((len(walk),), float(walk.steps))}

    observer, w = WalkObserver({"step": Step()}), torch.zeros(3, 8)
    observer.start(walk_of(w, [1, 2, 3]), Codes(Space.W, w), GENERATOR, Batches(2, "walk"))
    assert observer.take_columns()["made"].tolist() == [0, 0, 0]


def test_what_is_no_mapping_of_columns_is_told():
    class Bare(DuringWalk):
        def measure(self, walk, codes, decoded, reference):
            return torch.zeros(len(walk))

    observer, w = WalkObserver({"bare": Bare()}), torch.zeros(3, 8)
    with pytest.raises(EditbenchError, match=r"observation bare: Bare\.measure .*, not Tensor"):
        observer.start(walk_of(w, [1, 2, 3]), Codes(Space.W, w), GENERATOR, Batches(2, "walk"))


@pytest.mark.parametrize(("given", "column"), [("same", "same"), ("path", "path")])
def test_a_column_that_is_there_already_is_refused_and_not_lost(given, column):
    class Named(DuringWalk):
        def __init__(self, name):
            self.name = name

        def measure(self, walk, codes, decoded, reference):
            return {self.name: torch.zeros(len(walk))}

    observer, w = WalkObserver({"one": Named("same"), "two": Named(given)}), torch.zeros(3, 8)
    with pytest.raises(EditbenchError, match=f"observation two measures the column '{column}'"):
        observer.start(walk_of(w, [1, 2, 3]), Codes(Space.W, w), GENERATOR, Batches(2, "walk"))


# -- the metric ------------------------------------------------------------------------------------
def table_of(walks: dict[int, list[tuple]], threshold: float = 0.8) -> Trajectories:
    """start -> (effect, cosine) of each step; sigma of the target is 2."""
    rows = []
    for start, steps in walks.items():
        rows += [
            {
                "start": start,
                "source": 0,
                "target": 1,
                "step": step,
                "path": step,
                "crossed": False,
                "stopped": False,
                "finite": cosine is not None,
                "similarity:judge_features": cosine,
                "similarity_threshold:judge_features": threshold,
                "logit:a": -1 + 2 * (x or 0),
                "logit:b": 1.0,
                "logit:c": 1.0,
            }
            for step, (x, cosine) in enumerate(steps)
        ]
    table = pd.DataFrame(rows).astype({"similarity:judge_features": float})
    return Trajectories(table, BINARY, "a", np.array([2.0, 1.0, 1.0]))


HAND = table_of(
    {
        3: [(0, 1.0), (0.4, 0.9), (0.8, 0.9), (1.2, 0.7)],  # passes x = 1 at 0.8
        5: [(0, 1.0), (0.4, 0.7), (2.0, 0.3)],  # at 0.7 + 0.375 * -0.4 = 0.55
        6: [(0, 1.0), (-0.2, 0.9), (0.6, 0.8)],  # goes back first, never reaches it
        9: [(0, 1.0), (0.4, 0.6), (1.5, None)],  # diverges
    }
)


def test_by_hand():
    result = Identity(draws=50)(HAND)
    at = result.rows.set_index("metric")
    assert at.loc["judge_feature_similarity_at", "value"] == pytest.approx((0.8 + 0.55) / 2)
    assert at.loc["judge_feature_verified_at", ["value", "count"]].tolist() == [0.5, 2]
    curve = result.rows[result.rows["metric"] == "judge_feature_similarity"].set_index("x")
    # A start counts once, where it first passes the centre: between the steps before and after.
    passing = [1 - 0.1 * 15 / 16, 1 - 0.3 * 15 / 16, 0.9 - 0.1 * 23 / 32, 1 - 0.4 * 15 / 16]
    assert curve.loc[0.375, ["value", "count"]].tolist() == pytest.approx([np.mean(passing), 4])
    low, high = curve.loc[0.375, ["low", "high"]]
    assert min(passing) <= low < np.mean(passing) < high <= max(passing)
    passing = [0.9, 0.7 - 0.4 * 9 / 64]
    assert curve.loc[0.625, ["value", "count"]].tolist() == pytest.approx([np.mean(passing), 2])
    assert curve["note"].str.startswith("hidden").all()
    passed = result.rows[result.rows["metric"] == "judge_feature_verified"].set_index("x")
    assert passed.loc[[0.375, 0.625], "value"].tolist() == [0.5, 0.5]
    samples = result.samples[result.samples["metric"] == "judge_feature_similarity_at"]
    assert dict(zip(samples["start"], samples["value"])) == pytest.approx({3: 0.8, 5: 0.55})


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_and_permutations(seed):
    check_splits(Identity(draws=50), HAND, [1, 2], seed)


@pytest.mark.parametrize("passing", [0, 7, 20])
def test_the_share_of_verified_images_has_the_interval_of_a_share(passing):
    """Also if all images pass or none does, where a bootstrap has no width."""
    cosines = [0.9] * passing + [0.5] * (20 - passing)
    walks = {start: [(0, 1.0), (2.0, 2 * c - 1)] for start, c in enumerate(cosines)}
    rows = Identity(draws=50)(table_of(walks)).rows
    expected = scipy.stats.binomtest(passing, 20).proportion_ci(method="wilson")
    at = rows[rows["metric"] == "judge_feature_verified_at"].iloc[0]
    assert (at["value"], at["low"], at["high"]) == pytest.approx((passing / 20, *expected))
    curve = rows[rows["metric"] == "judge_feature_verified"].set_index("x")
    assert (curve.loc[0.875, ["low", "high"]]).tolist() == pytest.approx([*expected])


def test_without_an_observation_there_is_a_remark_and_no_number():
    table = HAND.table[[c for c in HAND.table if not c.startswith("similarity")]]
    result = Identity()(Trajectories(table, BINARY, "a", HAND.sigma))
    assert len(result.rows) == 1
    assert "observation=[feature_similarity]" in result.rows["note"].iloc[0]
    assert result.samples.empty and set(result.rows["metric"]) <= set(Identity.produces)


def test_impossible_bins_are_refused():
    with pytest.raises(EditbenchError, match="at=0 must be positive"):
        Identity(at=0)
