"""Intervals that the metrics share; they live in `editbench.statistics`, where reports find them too."""

from __future__ import annotations

from editbench.statistics import (
    PairedDifference,
    bootstrap_mean,
    bootstrap_ratios,
    holm,
    median_interval,
    paired_difference,
    wilson,
)

__all__ = ["PairedDifference", "bootstrap_mean", "bootstrap_ratios", "holm", "median_interval", "paired_difference",
           "wilson"]
