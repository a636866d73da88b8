"""Metrics in anybody's loop: batches, a collection, and two processes that share the starts."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torchmetrics

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError
from editbench.metrics.attribute_dependency import AttributeDependency
from editbench.metrics.crossing_accuracy import CrossingAccuracy
from editbench.metrics.dependency_matrix import DependencyMatrix
from editbench.stats.moments import Moments
from editbench.walk.trajectory import Trajectories
from tests.processes import Started

ATTRIBUTES = Attributes([Attribute(name, ("no", "yes")) for name in "abc"])
STARTS = 40
FEATURES = np.random.default_rng(5).normal(size=(90, 6)).astype(np.float32)


def walks() -> Trajectories:
    """Random walks towards a = yes; step 0 is on the other side."""
    rng = np.random.default_rng(3)
    rows = []
    for start in range(STARTS):
        logits = np.cumsum(rng.normal([0.4, 0, 0], 0.5, (8, 3)), 0) - [1, 0, 0]
        over = (logits[:, 0] > 0) & (np.arange(8) > 0)
        crossed = np.maximum.accumulate(over)
        for step in range(8):
            rows.append(
                {
                    "start": 3 * start,
                    "source": 0,
                    "target": 1,
                    "step": step,
                    "path": 0.5 * step,
                    "crossed": crossed[step],
                    "stopped": over[step] and crossed[:step].sum() == 0,
                    "finite": True,
                    **{f"logit:{name}": logits[step, k] for k, name in enumerate("abc")},
                }
            )
    return Trajectories(pd.DataFrame(rows), ATTRIBUTES, "a", np.array([1.0, 2.0, 4.0]))


def of_starts(found: Trajectories, keep: np.ndarray) -> Trajectories:
    return dataclasses.replace(found, table=found.table[keep].reset_index(drop=True))


def metrics() -> dict[str, torchmetrics.Metric]:
    return {
        "accuracy": CrossingAccuracy(),
        "dependency": AttributeDependency(draws=50, min_points=1),
        "matrix": DependencyMatrix(draws=50),
    }


def one_process(rank: int, folder: str) -> None:
    """Updates with every second start and every second batch of features; computes of all."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    found = walks()
    mine = of_starts(found, (found.table["start"].to_numpy() // 3) % 2 == rank)
    results = {}
    for name, metric in metrics().items():
        metric.update(mine)
        results[name] = metric.compute()
    moments = Moments(len(FEATURES), 3, FEATURES.shape[1])
    for first in range(15 * rank, len(FEATURES), 30):
        moments.update(FEATURES[first : first + 15], first)
    results["moments"] = moments.compute()
    with open(f"{folder}/{rank}.pickle", "wb") as file:
        pickle.dump(results, file)
    # The group is not destroyed: with torch 2.6 that may wait for a thread that waits for it.


def test_two_processes_have_the_numbers_of_one(tmp_path):
    both = [Started(one_process, rank, str(tmp_path)) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    found = walks()
    for rank in (0, 1):
        results = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        for name, metric in metrics().items():
            metric.update(found)
            expected = metric.compute()
            pd.testing.assert_frame_equal(results[name].rows, expected.rows, check_exact=True)
            pd.testing.assert_frame_equal(results[name].samples, expected.samples, check_exact=True)
        mean, covariance = results["moments"]
        whole = FEATURES.astype(np.float64)
        np.testing.assert_allclose(mean, whole.mean(0), rtol=1e-12)
        np.testing.assert_allclose(covariance, np.cov(whole, rowvar=False), rtol=1e-10)


def test_batches_in_a_collection_have_the_numbers_of_the_whole():
    found = walks()
    collection = torchmetrics.MetricCollection(metrics())
    places = found.table["start"].to_numpy() // 3
    for batch in np.array_split(np.random.default_rng(0).permutation(STARTS), 4):
        collection.update(of_starts(found, np.isin(places, batch)))
    for name, result in collection.compute().items():
        pd.testing.assert_frame_equal(result.rows, metrics()[name](found).rows, check_exact=True)


def test_a_merge_after_a_result_counts():
    found = walks()
    early = found.table["start"].to_numpy() < 60
    metric = CrossingAccuracy()
    metric.update(of_starts(found, early))
    assert metric.compute().rows["count"].iloc[0] == 20
    other = CrossingAccuracy()
    other.update(of_starts(found, ~early))
    metric.merge_state(other)
    assert metric.compute().rows["count"].iloc[0] == STARTS


def test_a_reset_metric_and_parts_of_two_runs_are_explained():
    found = walks()
    metric = DependencyMatrix(draws=20)
    with pytest.warns(UserWarning), pytest.raises(EditbenchError, match="before update"):
        metric.compute()
    metric.update(found)
    metric.update(dataclasses.replace(found, attribute="b"))
    with pytest.raises(EditbenchError, match="one metric for each run"):
        metric.compute()


def test_moments_merge_by_block():
    parts = [Moments(90, 3, 6) for _ in range(2)]
    parts[0].update(FEATURES[:40], 0)
    parts[1].update(torch.from_numpy(FEATURES[40:]), 40)
    parts[0].merge_state(parts[1])
    sums = parts[0].arrays()
    assert sums["count"].tolist() == [30, 30, 30]
    expected = FEATURES.astype(np.float64).reshape(3, 30, 6).sum(1)
    np.testing.assert_allclose(sums["sum"], expected, rtol=1e-12)


@pytest.mark.parametrize("metric", [CrossingAccuracy, AttributeDependency, DependencyMatrix])
def test_the_direction_is_that_of_the_first_number(metric):
    assert metric.higher_is_better == next(iter(metric.produces.values()))
