"""Regression of metric numbers: pins of finished runs (`editbench baseline`) and their check
(`editbench check`)."""

from editbench.regression.compare import Comparison, Finding, compare
from editbench.regression.file import Baseline, read_baseline, write_baseline
from editbench.regression.pins import Pin, PinnedRun, pin_runs, surroundings
from editbench.regression.tolerance import measure

__all__ = [
    "Baseline",
    "Comparison",
    "Finding",
    "Pin",
    "PinnedRun",
    "compare",
    "measure",
    "pin_runs",
    "read_baseline",
    "surroundings",
    "write_baseline",
]
