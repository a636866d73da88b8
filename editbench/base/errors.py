"""Errors that a user can act on: every message names the file or key, and the remedy."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from traceback import FrameSummary

# From this similarity (difflib's ratio) on, a name counts as a misspelling of another.
CLOSE = 0.5
TYPO = 0.75  # the same for a name that was probably mistyped


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty; '' if there is none."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(filter(None, lines), "")


def one_line(error: BaseException) -> str:
    """An unexpected error as one line: its type and `first_line`, as in 'KeyError: 'smile''."""
    return f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")


def frames_of(error: BaseException, is_wanted: Callable[[str], bool]) -> list[FrameSummary]:
    """The frames of an error's traceback, with the one that raised it last.

    Args:
        error: the error.
        is_wanted: whether the frames of a file are included.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if is_wanted(frame.filename)]


def at_line(frame: FrameSummary) -> str:
    """The suffix of an error's message that names a line of source: ' (FILE:LINE)'."""
    return f" ({frame.filename}:{frame.lineno})"


def no_such(kind: str, path: Path) -> str:
    """Why a path is not a `kind`, for a message: 'no such file', or 'a folder, not a file'.

    Args:
        kind: 'folder', 'file', or a kind of file.
        path: the path.
    """
    if path.is_dir():
        return f"a folder, not a {kind}"
    if path.is_file():
        return f"a file, not a {kind}"
    return f"no such {kind}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names, for a message: ' Did you mean 'smile'?'; '' if none is near.

    Args:
        name: the unknown name.
        known: the existing names.
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=CLOSE)
    return f" Did you mean '{near[0]}'?" if near else ""


class EditbenchError(Exception):
    """Base of all errors that are printed without a traceback."""


def reason_of(error: BaseException) -> str:
    """Text about an error: the whole message of an EditbenchError, otherwise `one_line`."""
    return str(error) if isinstance(error, EditbenchError) else one_line(error)


class UnknownName(EditbenchError, KeyError):
    """A name that is not in a registry. The message gives the nearest name and the whole list.

    Args:
        kind: of the named thing, such as 'attribute'.
        name: the unknown name.
        known: the existing names.
        command: command whose --help gives more information; '' for none.
        advice: a sentence that is added unless the name is probably a known one, mistyped; '' for
            none.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], command: str = "", advice: str = ""
    ) -> None:
        # Sorted, so that the message does not depend on the order of registration.
        names = sorted(set(known))
        hint = did_you_mean(name, names)
        available = ", ".join(names) or "none"
        see = f" See `{command} --help`." if command else ""
        # A name of the user's own may resemble one of the project by chance.
        if advice and not difflib.get_close_matches(name, names, n=1, cutoff=TYPO):
            see += f" {advice}"
        self.message = f"unknown {kind} '{name}'.{hint} Available: {available}.{see}"
        super().__init__(self.message)

    # KeyError prints the repr of its argument, with quotation marks and escaped line ends.
    def __str__(self) -> str:
        return self.message


class BadFile(EditbenchError):
    """A file that is missing, truncated, altered or of another kind."""


# Also a TypeError, as Python raises for an argument of the wrong type.
class SpaceMismatch(EditbenchError, TypeError):
    """Codes of one latent space were given to something that works in another."""


class WrongType(EditbenchError, TypeError):
    """A function was given an argument of the wrong type."""


class Unsupported(EditbenchError):
    """A method does not support this generator, space or attribute.

    The job is recorded as skipped, with this reason.
    """


class NoControl(Unsupported):
    """A method searched and found no edit that changes the attribute enough.

    The job is recorded as skipped, with this reason. A report counts it as a failure on every start:
    a method whose search often fails must not look better than one whose edits often fail.
    """


class NonFinite(EditbenchError, FloatingPointError):
    """A generator or scorer produced NaN or infinity where the benchmark cannot continue."""
