"""The conformance suite for editors: what every one of them owes, checked on small worlds."""

from editbench.conformance.suite import CHECKS, conform
from editbench.conformance.verdicts import CheckResult

__all__ = ["CHECKS", "CheckResult", "conform"]
