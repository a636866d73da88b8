"""Observations after the walk: what a job measures on pictures, and what it keeps where that fails."""

import json
import re
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from editbench.base.errors import BadFile, EditbenchError, UnknownName, Unsupported
from editbench.base.spaces import Codes
from editbench.metrics.frechet_distance.observation import FrechetDistanceObservation
from editbench.metrics.frechet_distance.reference import BankImages
from editbench.metrics.identity.observation import FeatureSimilarity
from editbench.networks.features import FeatureNetwork
from editbench.networks.roles import Networks
from editbench.run import stages
from editbench.run.compose import compose_config
from editbench.run.overrides import check_overrides
from editbench.run.record import Record
from editbench.walk.editor import Walk
from editbench.walk.metric import Metric, MetricResult, ObservationMetric, ResultBuilder
from editbench.walk.observation import (
    AfterWalk,
    DuringWalk,
    ObservationContext,
    Observed,
    observation_file,
    read_observed,
)
from editbench.walk.strength import edited_codes, require_samples
from editbench.walk.trajectory import Trajectories
from tests.by_config import load_bank, load_networks, make_run_id, run_job
from tests.scenes import scene_of
from tests.toy_world import toy_config


class Peek(AfterWalk):
    """Mean picture of the first samples."""

    def __init__(self, n: int = 10, fail: str = "", reference: object = None) -> None:
        self.n, self.fail = n, fail
        if fail == "from the start":
            raise Unsupported("no use here")
        if fail == "wrong option":
            raise EditbenchError("n is wrong")

    def prepare(self, networks: Networks, device: str) -> None:
        if self.fail == "no second attribute":
            raise EditbenchError("no such attribute")

    def check(self, context: ObservationContext) -> None:
        if self.fail == "unsupported":
            raise Unsupported("nothing to see")
        require_samples(context, "observation.peek.n", self.n)

    def look(self, context: ObservationContext) -> Observed:
        if self.fail in ("unsupported", "late"):
            raise Unsupported("nothing to see after the fit")
        if self.fail == "error":
            raise EditbenchError("a file is missing")
        if self.fail == "mapping":
            return {"mean": 1.0}  # type: ignore[return-value]
        if self.fail == "numbers of numpy":
            return Observed({}, {"n": np.int64(self.n)})
        total = sum(
            context.generator.decode(codes).double().sum(0)
            for _, _, codes in edited_codes(context, [0.0], self.n)
        )
        return Observed({"mean": total.numpy() / self.n}, {"n": self.n})


class Brightness(ObservationMetric):
    """The mean of the mean picture."""

    name = "brightness"
    observation = "peek"
    citation = "a test"
    produces = {"brightness": None}
    shared = ("mean",)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def measure(self, arrays: dict[str, np.ndarray], meta: dict) -> MetricResult:
        out = ResultBuilder()
        out.add("brightness", self.scale * float(arrays["mean"].mean()), meta["n"])
        return out.result()


def with_observation(cfg, fail: str = "", n: int = 10):
    cfg.observation = OmegaConf.create(
        {"peek": {"_target_": f"{__name__}.Peek", "n": n, "fail": fail}}
    )
    return with_metric(cfg)


def with_metric(cfg):
    cfg.metric.brightness = OmegaConf.create({"_target_": f"{__name__}.Brightness"})
    return cfg


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return scene_of(toy_config(tmp_path_factory.mktemp("observation")))


def number(cfg, outcome) -> dict:
    rows = pd.read_parquet(Path(cfg.out) / outcome.run_id / "rows.parquet")
    return rows[rows["metric"] == "brightness"].iloc[0].to_dict()


# -- the stage -------------------------------------------------------------------------------------
def test_an_observation_leaves_arrays_that_a_metric_reads_and_is_no_cost_of_the_method(tmp_path):
    plain, probed = toy_config(tmp_path), with_observation(toy_config(tmp_path))
    began = time.perf_counter()
    ids = [run_job(plain).run_id, run_job(probed).run_id]
    elapsed = time.perf_counter() - began
    made = [json.loads((tmp_path / each / "provenance.json").read_text()) for each in ids]
    assert made[1]["observations"]["peek"]["generator_calls"] == 10
    assert "observations" not in made[0]
    assert 0 < made[1]["observations"]["peek"]["seconds"] < elapsed
    for name in ("generator_calls", "walk_generator_calls", "labels_used"):
        assert made[0][name] == made[1][name]
    bank = load_bank(probed)
    first = bank.spec.split("test")[0]
    found = number(probed, run_job(probed))
    assert found["value"] == pytest.approx(bank.array("w").range(first, first + 10).mean())
    assert found["count"] == 10


def test_only_an_observation_that_is_there_makes_another_identity(tmp_path):
    cfg = toy_config(tmp_path)
    bare = make_run_id(cfg, "bank", ["a"])
    cfg.observation = OmegaConf.create({})
    assert make_run_id(cfg, "bank", ["a"]) == bare
    ids = {
        make_run_id(with_observation(toy_config(tmp_path), n=n), "bank", ["a"])
        for n in (10, 11, 10)
    }
    assert len(ids) == 2 and bare not in ids


def test_other_pictures_in_the_folder_of_a_reference_make_another_identity(tmp_path):
    pictures, cfg = tmp_path / "pictures", with_observation(toy_config(tmp_path))
    pictures.mkdir()
    cfg.observation.peek.reference = {"path": str(pictures)}
    before = make_run_id(cfg, "bank", ["a"])
    assert make_run_id(cfg, "bank", ["a"]) == before
    (pictures / "1.png").write_bytes(b"one")
    after = make_run_id(cfg, "bank", ["a"])
    pictures.rename(tmp_path / "moved")  # the same files, wherever they lie
    cfg.observation.peek.reference.path = str(tmp_path / "moved")
    assert after != before and make_run_id(cfg, "bank", ["a"]) == after


def test_a_metric_on_pictures_is_recomputed_without_a_generator(tmp_path, monkeypatch):
    cfg = with_observation(toy_config(tmp_path))
    before = number(cfg, run_job(cfg))["value"]
    monkeypatch.setattr(stages, "walk_starts", None)
    monkeypatch.setattr(stages, "observe_after_walk", None)
    cfg.metric.brightness.scale = 3.0
    again = run_job(cfg)
    assert again.reused and number(cfg, again)["value"] == pytest.approx(3 * before)


def test_without_its_observation_a_metric_says_so_and_the_rest_is_there(tmp_path):
    cfg = with_metric(toy_config(tmp_path))
    found = number(cfg, run_job(cfg))
    assert np.isnan(found["value"])
    assert found["note"] == "no observation: run the job with observation=[peek]"
    rows = pd.read_parquet(next(tmp_path.glob("along*")) / "rows.parquet")
    assert rows.loc[rows["metric"] == "accuracy", "value"].notna().all()


class Largest(DuringWalk):
    """The largest pixel of every decoded sample."""

    def measure(
        self, walk: Walk, codes: Codes, decoded: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        return {"largest": decoded.flatten(1).max(1).values}


class LargestAtTheStart(Metric):
    name = "largest_at_the_start"
    produces = {"largest_at_the_start": None}
    reads = ("largest",)

    def __init__(self) -> None:
        super().__init__()
        self.add_columns("start", "value")

    def update(self, trajectories: Trajectories) -> None:
        first = trajectories.table[trajectories.table["step"] == 0]
        self.append(start=first["start"].to_numpy(), value=first["largest"].to_numpy(float))

    def compute(self) -> MetricResult:
        values = self.sorted_columns("value")["value"]
        out = ResultBuilder()
        out.add("largest_at_the_start", float(values.mean()), len(values))
        return out.result()


def test_a_metric_reads_a_column_that_was_measured_during_the_walk(tmp_path):
    def row_of(cfg) -> dict:
        cfg.metric.largest = OmegaConf.create({"_target_": f"{__name__}.LargestAtTheStart"})
        outcome = run_job(cfg)
        rows = pd.read_parquet(Path(cfg.out) / outcome.run_id / "rows.parquet")
        assert outcome.status == "done" and rows["metric"].eq("accuracy").any()
        return rows[rows["metric"] == "largest_at_the_start"].iloc[0].to_dict()

    cfg = toy_config(tmp_path)
    cfg.observation = OmegaConf.create({"largest": {"_target_": f"{__name__}.Largest"}})
    found = row_of(cfg)
    run = next(tmp_path.glob("along*"))
    kept = pd.read_parquet(run / "trajectory.parquet")
    starts = torch.tensor(sorted(set(kept["start"])))
    generator = load_networks(cfg).generator
    test = load_bank(cfg).split("test")
    places = [test.index.tolist().index(start) for start in starts.tolist()]
    codes = test.codes(generator.latent_space)[places]
    images = generator.decode(Codes(generator.latent_space, codes))
    expected = np.mean([float(image.max()) for image in images])
    assert found["value"] == pytest.approx(expected, rel=1e-5) and found["count"] == len(starts)
    # Without the observation the rest is there, and the row says what is missing.
    lacking = row_of(toy_config(tmp_path / "without"))
    assert np.isnan(lacking["value"])
    assert "no observation measured 'largest': run the job with" in lacking["note"]


class Undeclared(LargestAtTheStart):
    reads = ()


class OneText(LargestAtTheStart):
    reads = "largest"


def test_a_metric_that_declares_its_columns_wrongly_is_told_how(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.metric.largest = OmegaConf.create({"_target_": f"{__name__}.Undeclared"})
    outcome = run_job(cfg)
    assert outcome.status == "failed"
    assert "KeyError: 'largest'" in outcome.reason
    assert "; a column that an observation adds to the walks is declared by" in outcome.reason
    with pytest.raises(
        EditbenchError, match=r"OneText\.reads must be a tuple: reads = \('largest',"
    ):
        OneText()


def test_an_observation_that_cannot_look_gives_its_reason_and_a_defect_fails_the_job(
    tmp_path, monkeypatch
):
    checked = []
    check = Peek.check

    def counted(self, context):
        checked.append(self.fail)
        check(self, context)

    monkeypatch.setattr(Peek, "check", counted)
    reasons = {
        "unsupported": "nothing to see",  # and it does not look
        "late": "nothing to see after the fit",
        "from the start": "no use here",
    }
    for fail, reason in reasons.items():
        cfg = with_observation(toy_config(tmp_path), fail=fail)
        outcome = run_job(cfg)
        assert outcome.status == "done" and number(cfg, outcome)["note"] == reason
        assert run_job(cfg).reused
    assert checked == ["unsupported", "late"]
    outcome = run_job(with_observation(toy_config(tmp_path), fail="error"))
    assert (outcome.status, outcome.reason) == ("failed", "a file is missing")


class Fragile(Peek):
    """Raises what the test asks for; it keeps what the fit of the editor left."""

    raises: BaseException | None = None

    def look(self, context: ObservationContext) -> Observed:
        if self.raises is not None:
            raise self.raises
        found = super().look(context)
        return replace(
            found, arrays=found.arrays | {"fits": context.editor.state()["fits"].numpy()}
        )


@pytest.mark.parametrize(
    "raised, reason",
    [
        (EditbenchError("a file is missing"), "a file is missing"),
        (KeyError("layer"), "KeyError: 'layer' ("),
        (KeyboardInterrupt(), "stopped while its observations were computed"),
    ],
)
def test_walks_are_kept_where_an_observation_failed(tmp_path, monkeypatch, raised, reason):
    def fragile(out: Path):
        cfg = with_observation(toy_config(out))
        cfg.observation.peek._target_ = f"{__name__}.Fragile"
        return cfg

    stopped = isinstance(raised, KeyboardInterrupt)
    whole = tmp_path / "whole" / run_job(fragile(tmp_path / "whole")).run_id
    cfg = fragile(tmp_path)
    monkeypatch.setattr(Fragile, "raises", raised)
    with pytest.raises(KeyboardInterrupt) if stopped else nullcontext():
        run_job(cfg)
    folder = tmp_path / whole.name
    status = Record.open(folder).status
    assert status["status"] == "failed" and status["reason"].startswith(reason)
    monkeypatch.setattr(stages, "walk_starts", None)  # from here on nothing walks
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = pytest.raises(KeyboardInterrupt if stopped else EditbenchError)
    with again as told:
        run_job(cfg)
    assert stopped or str(told.value).startswith(reason)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # Then the observation succeeds and a metric is stopped: the metrics alone are missing.
    monkeypatch.setattr(Fragile, "raises", None)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Brightness, "measure", interrupted)
        run_job(cfg)
    assert Record.open(folder).status["reason"].startswith("its metrics are missing")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "observe_after_walk", None)
        outcome = run_job(cfg)
    assert (outcome.status, outcome.reason, outcome.reused) == ("done", "", True)
    # The record is that of a job that was not stopped.
    assert not list(tmp_path.glob(".partial*"))
    found, expected = Record.open(folder), Record.open(whole)
    assert found.status.keys() == expected.status.keys()
    assert found.provenance().keys() == expected.provenance().keys()
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    pd.testing.assert_frame_equal(found.rows(), expected.rows())
    pd.testing.assert_frame_equal(found.trajectories().table, expected.trajectories().table)
    arrays = read_observed(whole, "peek").arrays
    assert arrays["fits"] == 1
    for name, array in read_observed(folder, "peek").arrays.items():
        np.testing.assert_array_equal(array, arrays[name])


def interrupted(*_) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "fail, reason",
    [
        ("mapping", r"observation peek: Peek\.look must return .*Observed.*, not dict"),
        ("numbers of numpy", r"observation-peek.*JSON cannot hold the meta .*int64"),
    ],
)
def test_what_an_observation_cannot_keep_is_told_with_what_to_give(tmp_path, fail, reason):
    outcome = run_job(with_observation(toy_config(tmp_path), fail=fail))
    assert outcome.status == "failed" and re.match(reason, outcome.reason)


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"fail": "wrong option"}, "n is wrong"),
        ({"fail": "no second attribute"}, "no such attribute"),
        ({"n": 10_000}, "observation.peek.n=10000: the test split of bank.n="),
    ],
)
def test_a_wrong_option_of_an_observation_is_told_before_the_work(
    tmp_path, monkeypatch, options, reason
):
    monkeypatch.setattr(stages, "fit_editor", None)  # would fail with another message
    outcome = run_job(with_observation(toy_config(tmp_path), **options))
    assert outcome.status == "failed" and reason in outcome.reason


def test_a_record_with_a_lost_or_cut_observation_is_run_again(tmp_path):
    cfg = with_observation(toy_config(tmp_path))
    folder = tmp_path / run_job(cfg).run_id
    path = observation_file(folder, "peek")
    path.write_bytes(path.read_bytes()[:40])
    assert "delete its folder" in read_observed(folder, "peek").reason
    assert Record.open(folder) is None
    with pytest.raises(BadFile, match="run the job again"):
        Observed.load(path)
    assert not run_job(cfg).reused
    path.unlink()
    assert not run_job(cfg).reused and path.exists()


def test_observations_are_chosen_as_metrics_are():
    cfg = compose_config(["observation=[frechet_distance]", "observation.frechet_distance.n=100"])
    assert cfg.observation.frechet_distance.n == 100 and not compose_config([]).get("observation")
    with pytest.raises(UnknownName, match="frechet"):
        compose_config(["observation=[frechett]"])
    check_overrides(
        ["metric=[crossing_accuracy],[crossing_accuracy,attribute_dependency]"]
    )  # a sweep over lists


# -- networks of features of one's own -------------------------------------------------------------
class Scaled(nn.Module):
    """Has no parameter: what it computes is in its graph alone."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] * self.factor


class Exported(FeatureNetwork):
    """A graph of torch.export, which refuses to change its mode."""

    name, dim, resize, digest = "mine", 3, "none", "mine"

    def __init__(self, path: str) -> None:
        super().__init__()
        self.graph = torch.export.load(path).module()

    def forward(self, images: Tensor) -> Tensor:
        return self.graph(images)


def test_a_network_of_features_may_hold_an_exported_graph_and_is_told_by_its_file(tmp_path):
    file = tmp_path / "features.pt2"
    images = (torch.rand(4, 1, 2, 4),)
    batch = ({0: torch.export.Dim.DYNAMIC},)
    seen = set()
    for factor in (1.0, 2.0):
        made = torch.export.export(Scaled(factor), images, dynamic_shapes=batch)
        torch.export.save(made, file)
        cfg = toy_config(tmp_path)
        cfg.observation = {
            "frechet_distance": {
                "_target_": f"{FrechetDistanceObservation.__module__}.FrechetDistanceObservation",
                "network": {"_target_": f"{__name__}.Exported", "path": str(file)},
                "reference": {"_target_": f"{BankImages.__module__}.BankImages"},
                **{"n": 40, "points": 3, "samples": 40, "blocks": 2, "subsets": 2, "kernel": 10},
            }
        }
        outcome = run_job(cfg)
        assert outcome.status == "done", outcome.reason
        found = read_observed(tmp_path / outcome.run_id, "frechet_distance")
        seen.add((outcome.run_id, found.meta["network"], found.arrays["reference_sum"].sum()))
    for values in zip(*seen):
        assert len(set(values)) == 2


def test_similarity_takes_a_graph_as_it_is(tmp_path):
    images = torch.rand(4, 1, 2, 4)
    traced = torch.jit.trace(Scaled(2.0), images)
    batch = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Scaled(2.0), (images,), dynamic_shapes=batch)
    networks = load_networks(toy_config(tmp_path))
    for network in (traced, program):
        seen = FeatureSimilarity(network)
        seen.prepare(networks, "cpu")
        expected = torch.nn.functional.normalize(images.flatten(1)[:, :3], dim=1)
        torch.testing.assert_close(seen.reference(images), expected)
