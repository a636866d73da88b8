"""What a check says: a status, and a message that names what was seen, what is owed, and the remedy."""

from __future__ import annotations

import inspect
import traceback
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
STATUSES = ("passed", "failed", "skipped", "warned")


@dataclass(frozen=True)
class CheckResult:
    """name of the check and its meaning; status, one of STATUSES; message; member: where the contract stands."""

    name: str
    status: str
    message: str
    meaning: str
    member: str


class Verdict(Exception):
    """Ends a check with a status other than 'passed'."""

    status = "skipped"


class Skipped(Verdict):
    """The check has nothing to judge, for this reason."""


class Failed(Verdict):
    """The contract is broken."""

    status = "failed"

    def __init__(self, seen: str, owed: str, fix: str) -> None:
        super().__init__(
            f"Seen: {seen.rstrip('.')}.\nOwed: {owed.rstrip('.')}.\nFix: {fix.rstrip('.')}."
        )


class Warned(Failed):
    """The contract is kept, but a user will want to know."""

    status = "warned"


def explain(error: BaseException, culprit: object = None) -> str:
    """An exception in one line, with the file and line of the editor's own code where it passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = ""
    if culprit is not None:
        try:
            own = inspect.getfile(culprit if inspect.isclass(culprit) else type(culprit))
        except (TypeError, OSError):
            own = ""
    place = next((f for f in reversed(frames) if f.filename == own), frames[-1] if frames else None)
    where = (
        f" ({place.filename}:{place.lineno})"
        if place and Path(place.filename).parent != HERE
        else ""
    )
    return f"{type(error).__name__}: {error}{where}"
