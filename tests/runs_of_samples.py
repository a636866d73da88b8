"""Runs whose numbers are those of their samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from editbench.stats.intervals import wilson
from tests.fake_records import fake_run, metric_rows, start_samples

ATTRIBUTES = ("age", "beard", "hat", "smile")


N = 60


NO_CONTROL = {"status": "skipped", "reason": "no control found", "no_control": True}


def outcomes(share: float, seed: int, n: int = N) -> np.ndarray:
    return (np.random.default_rng(seed).uniform(size=n) < share).astype(float)


def one_run(
    root: Path,
    method: str,
    attribute: str,
    values: np.ndarray,
    ad: np.ndarray | None = None,
    **options: object,
) -> None:
    """A run whose numbers are those of its samples."""
    ad = 0.3 + 0.01 * np.arange(float(len(values))) if ad is None else ad
    rows = metric_rows(float(values.mean()), float(np.nanmean(ad)), n=len(values))
    samples = start_samples(accuracy=values, ad_at=ad)
    samples["x"] = np.where(samples["metric"] == "ad_at", 1.0, np.nan)
    rows.loc[rows["metric"] == "ad_at", "count"] = np.isfinite(ad).sum()
    low, high = wilson(int(values.sum()), len(values))
    rows.loc[rows["metric"] == "accuracy", ["low", "high"]] = low, high
    fake_run(root, method, attribute, rows, samples=samples, **options)  # type: ignore[arg-type]
