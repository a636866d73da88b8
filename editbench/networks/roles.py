"""The three networks of a job: the generator, and the two scorers in their roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.networks.selected import select_attributes


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

    def select(self, names: Sequence[str]) -> Networks:
        """The same networks with scorers that know these attributes alone.

        Args:
            names: of the evaluated attributes.

        Raises:
            UnknownName: a scorer has no such attribute.
        """
        teacher = select_attributes(self.teacher, names)
        judge = teacher
        # Where one network is both, it stays one.
        if self.judge is not self.teacher:
            judge = select_attributes(self.judge, names)
        return replace(self, teacher=teacher, judge=judge)
