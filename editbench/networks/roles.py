"""The three networks of a job."""

from __future__ import annotations

from dataclasses import dataclass

from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer


@dataclass(frozen=True)
class World:
    """The networks of a job on their device."""

    generator: Generator
    teacher: Scorer
    judge: Scorer

    @property
    def leaking(self) -> bool:
        return self.teacher.digest == self.judge.digest
