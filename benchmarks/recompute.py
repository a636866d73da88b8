"""Measures the time of computing all metrics of a whole comparison again from its trajectories.

The comparison has the size of the paper's: seven methods with 3,000 starts each, divided among
seven attributes, and walks of 40 steps. The trajectories are simulated: straight walks of the
judge's logits with noise. They are written to disk first; this time is not counted. Nothing is
decoded.

The output gives the number of jobs and rows and the size of the files, and then seconds of wall
time for reading all files, for each metric over all jobs, and for everything together. A run takes
about a minute.

    python benchmarks/recompute.py

The result guards the speed of metrics/ and of editbench/walk/trajectory.py.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from editbench.base import seeding
from editbench.metrics.attribute_dependency.metric import AttributeDependency
from editbench.metrics.control_disentanglement.metric import ControlDisentanglement
from editbench.metrics.crossing_accuracy.metric import CrossingAccuracy
from editbench.metrics.dependency_matrix.metric import DependencyMatrix
from editbench.metrics.matched_effect.metric import MatchedEffect
from editbench.walk.trajectory import Trajectories
from editbench.worlds.faces import attributes

METHODS = 7
STARTS = 3000  # of each method, over all attributes
STEPS = 40  # of each walk
# The simulated walks, in units of the logits.
START_SPREAD = 0.6  # standard deviation of the logits at the starts
DRIFT = 0.05  # standard deviation of the change of a logit in a step, the same for all steps
NOISE = 0.02  # standard deviation of a logit around its straight line
TARGET_DRIFT = 0.12  # additional change of the target's logit in a step, towards the target
SIGMA = 1.5  # standard deviation of the logits over the bank
METRICS = (
    CrossingAccuracy(),
    AttributeDependency(),
    ControlDisentanglement(),
    DependencyMatrix(),
    MatchedEffect(),
)


def simulate_walks(job: int, attribute: str, starts: int) -> Trajectories:
    """Simulate the trajectories of a job: straight walks with noise, towards the target class.

    Args:
        job: number of the job, which seeds the random numbers.
        attribute: that is edited.
        starts: number of walks.

    Returns:
        Trajectories with STEPS + 1 rows per start.
    """
    rng = seeding.rng(0, "recompute", job)
    layout = attributes()
    width = layout.width
    steps = np.arange(STEPS + 1)
    drift = rng.normal(0, DRIFT, (starts, 1, width)) * steps[:, None]
    origin = rng.normal(0, START_SPREAD, (starts, 1, width))
    noise = rng.normal(0, NOISE, (starts, STEPS + 1, width))
    logits = origin + drift + noise
    target = rng.integers(0, len(layout[attribute].classes), starts)
    column = next(k for k, name in enumerate(layout.columns()) if name.startswith(attribute))
    sign = np.ones(starts)
    # Only a binary attribute has a logit that falls towards its first class.
    if layout[attribute].binary:
        sign = 2.0 * target - 1
    logits[:, :, column] += TARGET_DRIFT * sign[:, None] * steps
    start = np.repeat(np.arange(starts), STEPS + 1)
    step = np.tile(steps, starts)
    table = pd.DataFrame(
        {
            "start": start,
            "source": 0,
            "target": target[start],
            "step": step,
            "path": 0.1 * step,
            "crossed": False,
            "stopped": False,
            "finite": True,
        }
    )
    flat = logits.reshape(-1, width).astype(np.float32)
    table = table.assign(**{f"logit:{name}": flat[:, k] for k, name in enumerate(layout.columns())})
    # The labels follow from the logits. They tell where each walk has crossed.
    walks = Trajectories(table, layout, attribute, np.full(width, SIGMA))
    at_target = walks.labels[:, layout.index(attribute)] == table["target"]
    crossed = at_target.groupby(table["start"]).cummax()
    # A walk stops at its first step in the target class.
    stopped = crossed & ~crossed.groupby(table["start"]).shift(fill_value=False)
    table = table.assign(crossed=crossed, stopped=stopped)
    return Trajectories(table, layout, attribute, walks.sigma)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    names = attributes().names
    starts = STARTS // len(names)
    with tempfile.TemporaryDirectory() as folder:
        files: list[Path] = []
        for _ in range(METHODS):
            for attribute in names:
                job = len(files)
                file = Path(folder) / f"{job}.parquet"
                simulate_walks(job, attribute, starts).save(file)
                files.append(file)
        size = sum(file.stat().st_size for file in files) / 2**20
        seconds = dict.fromkeys(["read", *(metric.name for metric in METRICS)], 0.0)
        for file in files:
            began = time.perf_counter()
            walks = Trajectories.load(file)
            # All metrics share these properties, so their time counts as reading.
            _ = (walks.labels, walks.log_odds, walks.effect)
            seconds["read"] += time.perf_counter() - began
            for metric in METRICS:
                began = time.perf_counter()
                metric(walks)
                seconds[metric.name] += time.perf_counter() - began
    rows = len(files) * starts * (STEPS + 1)
    print(f"{len(files)} jobs, {rows:,} rows, {size:.0f} MiB")
    print(f"{'part':26} {'seconds':>8}")
    for name, spent in seconds.items():
        print(f"{name:26} {spent:8.1f}")
    print(f"{'all':26} {sum(seconds.values()):8.1f}")


if __name__ == "__main__":
    main()
