"""Errors a user can act on: every message names the file or key and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EditbenchError(Exception):
    """Base of all errors that are printed without a traceback."""


class UnknownName(EditbenchError, KeyError):
    """A name that is not in a registry: says the nearest match and the whole list."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(set(known))
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        self.message = f"unknown {kind} '{name}'.{hint} Available: {', '.join(known) or 'none'}."
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would print the repr
        return self.message


class BadFile(EditbenchError):
    """A file that is missing, truncated, altered or of another kind."""


class SpaceMismatch(EditbenchError, TypeError):
    """Codes of one latent space handed to something that works in another."""


class Unsupported(EditbenchError):
    """A method cannot serve this generator, space or attribute. The job is recorded as skipped with this reason."""


class NonFinite(EditbenchError, FloatingPointError):
    """A generator or scorer produced NaN or infinity where the benchmark cannot go on."""
