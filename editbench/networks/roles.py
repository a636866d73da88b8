"""The three networks of a job: the generator, and the two scorers in their roles."""

from __future__ import annotations

from dataclasses import dataclass

from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer


@dataclass(frozen=True)
class Networks:
    """The networks of a job, on the job's device."""

    generator: Generator  # decodes codes into samples
    teacher: Scorer  # that a method may learn from
    judge: Scorer  # that the benchmark measures with; a method never sees it

    @property
    def leaking(self) -> bool:
        """Whether the judge is the teacher: numbers then reward what the method was fitted to."""
        return self.teacher.digest == self.judge.digest
