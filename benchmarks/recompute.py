"""All metrics of a whole comparison from stored trajectories: 3,000 starts x 7 methods x 7 attributes, no generator.

The trajectories are made up (walks of the judge's logits with noise), at the size that a run of the paper's counts
leaves: every method has 3,000 starts over seven attributes, 41 points each.

    python benchmarks/recompute.py
"""

from __future__ import annotations

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

METHODS, STARTS, STEPS = 7, 3000, 40
METRICS = (
    CrossingAccuracy(),
    AttributeDependency(),
    ControlDisentanglement(),
    DependencyMatrix(),
    MatchedEffect(),
)


def made_up(job: int, attribute: str, starts: int) -> Trajectories:
    """Straight walks with noise, towards the target class."""
    rng, layout = seeding.rng(0, "recompute", job), attributes()
    n, width = starts, layout.width
    drift = rng.normal(0, 0.05, (n, 1, width)) * np.arange(STEPS + 1)[:, None]
    logits = rng.normal(0, 0.6, (n, 1, width)) + drift + rng.normal(0, 0.02, (n, STEPS + 1, width))
    target = rng.integers(0, len(layout[attribute].classes), n)
    place = next(k for k, name in enumerate(layout.columns()) if name.startswith(attribute))
    sign = 2 * target - 1 if layout[attribute].binary else np.ones(n)
    logits[:, :, place] += 0.12 * sign[:, None] * np.arange(STEPS + 1)
    start, step = np.repeat(np.arange(n), STEPS + 1), np.tile(np.arange(STEPS + 1), n)
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
    found = Trajectories(table, layout, attribute, np.full(width, 1.5))
    there = found.labels[:, layout.index(attribute)] == table["target"]
    crossed = there.groupby(table["start"]).cummax()
    stopped = crossed & ~crossed.groupby(table["start"]).shift(fill_value=False)
    return Trajectories(
        table.assign(crossed=crossed, stopped=stopped), layout, attribute, found.sigma
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files, jobs = [], [(m, a) for m in range(METHODS) for a in attributes().names]
        for job, (_, attribute) in enumerate(jobs):
            files.append(Path(folder) / f"{job}.parquet")
            made_up(job, attribute, STARTS // len(attributes())).save(files[-1])
        size = sum(file.stat().st_size for file in files) / 2**20
        spent = dict.fromkeys(["read", *(metric.name for metric in METRICS)], 0.0)
        for file in files:
            began = time.perf_counter()
            found = Trajectories.load(file)
            _ = found.labels, found.log_odds, found.effect
            spent["read"] += time.perf_counter() - began
            for metric in METRICS:
                began = time.perf_counter()
                metric(found)
                spent[metric.name] += time.perf_counter() - began
    rows = len(files) * (STARTS // len(attributes())) * (STEPS + 1)
    print(f"{len(files)} jobs, {rows:,} rows, {size:.0f} MiB")
    for name, seconds in spent.items():
        print(f"{name:26} {seconds:6.1f} s")
    print(f"{'all metrics':26} {sum(spent.values()):6.1f} s")


if __name__ == "__main__":
    main()
