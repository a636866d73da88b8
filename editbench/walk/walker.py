"""The one walk: an editor moves samples step by step, and the caller chooses which go on.

The engine (editbench.walk.engine), the curves over strength (editbench.walk.strength), the
composition of two edits and the meta-validation of methods all walk by this loop. It decodes
nothing; it gives the codes to decode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes
from editbench.walk.editor import Editor, Walk


class Walker:
    """Samples under way, moved by an editor."""

    def __init__(self, editor: Editor, walk: Walk) -> None:
        """Begin at a walk.

        Args:
            editor: gives the steps.
            walk: where to begin, at whatever step.
        """
        self.editor = editor
        self.walk = walk  # the samples as they stand now
        # The next step, where it was looked at already: no step is computed twice.
        self._next: Walk | None = None

    def codes(self) -> Codes:
        """What to decode for the samples as they stand now."""
        return self.editor.codes(self.walk)

    def peek(self) -> Walk:
        """The samples one step on, without going there.

        Raises:
            EditbenchError: the editor gives something else than codes like those it was given.
        """
        if self._next is None:
            moved = self.editor.step(self.walk)
            # Broadcasting would hide a wrong shape until much later.
            problem = kind_mismatch(moved, self.walk.codes)
            if problem:
                raise EditbenchError(f"{type(self.editor).__name__}.step returned {problem}")
            # A new Walk: whoever keeps the last one, as a path over strength does, keeps it whole.
            self._next = replace(self.walk, codes=moved, steps=self.walk.steps + 1)
        return self._next

    def step(self) -> Walk:
        """Move every sample by one step."""
        self.walk = self.peek()
        self._next = None
        return self.walk

    def steps(self, last: int) -> Iterator[Walk]:
        """Step on until step `last`, or until `keep` has left no sample.

        Args:
            last: number of the last step, counted from the start of the walk.

        Yields:
            The samples after each step. Call `keep` between two steps to drop some.
        """
        while len(self.walk) and self.walk.steps < last:
            yield self.step()

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the samples.

        Args:
            rows: (n,) bool or int64, the samples that go on.
        """
        self.walk = self.walk[rows]
        self._next = None  # it held all of the samples


def kind_mismatch(moved: object, codes: Tensor) -> str:
    """How the result of a step differs in kind from the codes of the walk; '' where it does not."""
    if not isinstance(moved, Tensor):
        return f"{type(moved).__name__}, expected a tensor: the next codes of every sample"
    if moved.shape != codes.shape:
        return f"codes of shape {tuple(moved.shape)}, expected {tuple(codes.shape)}"
    if (moved.dtype, moved.device) != (codes.dtype, codes.device):
        return (
            f"{moved.dtype} on {moved.device}, expected {codes.dtype} on {codes.device}: end with "
            ".to(walk.codes)"
        )
    return ""


def walk_own_lengths(editor: Editor, walk: Walk, lengths: Tensor) -> Tensor:
    """Walk each sample for its own number of steps.

    A sample that has made its steps stays in the batch and stands still: rows of a batch may round
    differently in a batch of another size, and the lengths differ by sample.

    Args:
        editor: gives the steps.
        walk: n samples with codes (n, d).
        lengths: (n,) steps to make, at least 0.

    Returns:
        (n, d) codes.
    """
    walker = Walker(editor, walk)
    longest = int(lengths.max()) if len(lengths) else 0
    for before in range(longest):
        here = walker.walk.codes
        moved = walker.step()
        going = (lengths > before)[:, None]
        walker.walk = replace(moved, codes=torch.where(going, moved.codes, here))
    return walker.walk.codes
