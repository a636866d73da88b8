"""The three networks of a job: generator, teacher and judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.networks.selected import select_attributes

ROLES = ("teacher", "judge")  # of scorers


@dataclass(frozen=True)
class Networks:
    """The networks of a job, on the job's device."""

    generator: Generator  # decodes codes to samples
    teacher: Scorer  # a method may learn from it
    judge: Scorer  # the benchmark measures with it; a method never sees it

    @property
    def scorers(self) -> dict[str, Scorer]:
        """Role -> scorer, for both of ROLES."""
        return {"teacher": self.teacher, "judge": self.judge}

    @property
    def leaking(self) -> bool:
        """Whether the judge is the teacher, so that methods were fitted to the judge."""
        return self.teacher.digest == self.judge.digest

    def select(self, names: Sequence[str]) -> Networks:
        """The same networks, with scorers of only some attributes.

        Args:
            names: of the evaluated attributes.

        Raises:
            UnknownName: a scorer has no such attribute.
        """
        teacher = select_attributes(self.teacher, names)
        judge = teacher
        # If the judge is the teacher, it remains the same object.
        if self.judge is not self.teacher:
            judge = select_attributes(self.judge, names)
        return replace(self, teacher=teacher, judge=judge)
