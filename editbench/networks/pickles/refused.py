"""Rejecting a file, with the reason and the remedy; used in both processes."""

from __future__ import annotations

REFUSED = 3  # exit code of child.py


class Refused(Exception):
    """The file is rejected; the message has the reason and the remedy."""


def reason(error: Exception) -> str:
    """The reason for rejecting a file, from an exception while reading it."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "its content would take more than the memory that a file of its size may (see Limits); "
            "if it is not damaged, save its arrays with numpy.save"
        )
    # All other errors mean that the file is damaged, or was never a pickle.
    words = f"it is not a pickle, or it is damaged ({type(error).__name__}: {str(error)[:120]!a})"
    if isinstance(error, EOFError) or "truncated" in str(error):
        words = "it is damaged or incomplete (it ends in the middle)"
    return f"{words}; copy it again from where it came"
