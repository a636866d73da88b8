"""The conformance suites: checks that an editor or a metric keeps its contract."""

from editbench.conformance.suite import CHECKS, METRIC_CHECKS, conform, conform_metric
from editbench.conformance.verdicts import CheckResult

__all__ = ["CHECKS", "METRIC_CHECKS", "CheckResult", "conform", "conform_metric"]
