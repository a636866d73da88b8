"""Regression of metric numbers: pins of finished runs (`editbench baseline`) and their check
(`editbench check`).
"""

from editbench.regression.compare import Finding, RegressionResult, compare
from editbench.regression.file import Baseline, read_baseline, write_baseline
from editbench.regression.pins import Pin, PinnedRun, describe_runs, pin_runs, surroundings
from editbench.regression.tolerance import measure_tolerances

__all__ = [
    "Baseline",
    "Finding",
    "Pin",
    "PinnedRun",
    "RegressionResult",
    "compare",
    "describe_runs",
    "measure_tolerances",
    "pin_runs",
    "read_baseline",
    "surroundings",
    "write_baseline",
]
