"""Results of checks: a status, and a message with what was found, what is required, and the fix."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from editbench.base.errors import at_line, frames_of
from editbench.base.user_code import is_users_file

HERE = Path(__file__).parent
STATUSES = ("passed", "failed", "skipped", "warned")


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check."""

    name: str  # of the check
    status: str  # one of STATUSES
    message: str
    meaning: str  # of the check, in one line
    member: str  # dotted name of the place in the contract


class Verdict(Exception):
    """Ends a check with a status other than 'passed'."""

    status = "skipped"


class Skipped(Verdict):
    """The check has nothing to judge, for this reason."""


class Failed(Verdict):
    """The contract is broken."""

    status = "failed"

    def __init__(self, found: str, required: str, fix: str) -> None:
        """Write the message.

        Args:
            found: what the editor did.
            required: what the contract requires.
            fix: what to change in the editor.
        """
        # Texts from an editor may end with a full stop of their own.
        super().__init__(
            f"Found: {found.rstrip('.')}.\n"
            f"Required: {required.rstrip('.')}.\n"
            f"Fix: {fix.rstrip('.')}."
        )


class Warned(Failed):
    """The contract is kept, but a user will want to know."""

    status = "warned"


@contextlib.contextmanager
def must_not_raise(what: str, required: str, fix: str, culprit: object = None) -> Iterator[None]:
    """Raise Failed for any exception of this block.

    Args:
        what: was done, such as 'load_state(state())'.
        required: see `Failed`.
        fix: see there.
        culprit: see `describe_error`.
    """
    try:
        yield
    except Exception as error:
        raise Failed(f"{what} raised {describe_error(error, culprit)}", required, fix) from None


def describe_error(error: BaseException, culprit: object = None) -> str:
    """An exception in one line, with the file and line of the editor's own code.

    Args:
        error: that was raised.
        culprit: the editor, or its class; None where there is none yet.

    Returns:
        Type, message and, where the exception did not come from the suite itself, the place.
    """
    own = _source_file(culprit)
    # The last frame in the editor's file says more than the library call below it, and one in any file
    # of the user's more than one in a library.
    frames = (
        frames_of(error, lambda file: file == own)
        or frames_of(error, is_users_file)
        or frames_of(error, lambda file: True)
    )
    where = ""
    if frames and Path(frames[-1].filename).parent != HERE:
        where = at_line(frames[-1])
    return f"{type(error).__name__}: {error}{where}"


def _source_file(culprit: object) -> str:
    """Where a class, or the class of an object, was written; '' where that is unknown."""
    if culprit is None:
        return ""
    try:
        return inspect.getfile(culprit if inspect.isclass(culprit) else type(culprit))
    except (TypeError, OSError):
        return ""  # a class that was typed into an interpreter has no file
