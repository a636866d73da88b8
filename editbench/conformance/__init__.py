"""The conformance suite: checks that an editor keeps its contract, on small testbeds."""

from editbench.conformance.suite import CHECKS, conform
from editbench.conformance.verdicts import CheckResult

__all__ = ["CHECKS", "CheckResult", "conform"]
