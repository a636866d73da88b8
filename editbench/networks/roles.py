"""The three networks of a job: the generator, and the two scorers in their roles."""

from __future__ import annotations

from dataclasses import dataclass

from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer


@dataclass(frozen=True)
class Networks:
    """The networks of a job, on the job's device.

    Attributes:
        generator: decodes codes into samples.
        teacher: the scorer that a method may learn from.
        judge: the scorer that the benchmark measures with; a method never sees it.
    """

    generator: Generator
    teacher: Scorer
    judge: Scorer

    @property
    def leaking(self) -> bool:
        """Whether the judge is the teacher: numbers then reward what the method was fitted to."""
        return self.teacher.digest == self.judge.digest
