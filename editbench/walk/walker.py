"""The step loop: an editor moves a batch of samples step by step, and the caller drops samples.

The engine (editbench.walk.engine), the curves over strength (editbench.walk.strength), the
composition of two edits and the meta-validation of methods all use this loop. It does not decode
images; it returns the codes to decode.
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
    """A batch of samples that an editor moves step by step."""

    def __init__(self, editor: Editor, walk: Walk) -> None:
        """Start from a walk.

        Args:
            editor: computes the steps.
            walk: the samples to start from; they may have made steps already.
        """
        self.editor = editor
        self.walk = walk  # the samples in their current state
        # The next step if `peek` has computed it, so that no step is computed twice.
        self._next: Walk | None = None

    def codes(self) -> Codes:
        """The codes to decode for the samples in their current state."""
        return self.editor.codes(self.walk)

    def peek(self) -> Walk:
        """The samples after the next step, without taking the step.

        Raises:
            EditbenchError: the editor returns something other than a tensor with the shape, dtype
                and device of the current codes.
        """
        if self._next is None:
            moved = self.editor.step(self.walk)
            # Broadcasting would hide a wrong shape until much later.
            problem = kind_mismatch(moved, self.walk.codes)
            if problem:
                raise EditbenchError(f"{type(self.editor).__name__}.step returned {problem}")
            # A new Walk: callers that keep the previous one, such as StrengthPath, rely on it
            # staying unchanged.
            self._next = replace(self.walk, codes=moved, steps=self.walk.steps + 1)
        return self._next

    def step(self) -> Walk:
        """Move every sample by one step."""
        self.walk = self.peek()
        self._next = None
        return self.walk

    def steps(self, last: int) -> Iterator[Walk]:
        """Take steps until step `last`, or until `keep` has dropped every sample.

        Args:
            last: number of the last step, counted from the start of the walk.

        Yields:
            The samples after each step. Call `keep` between two steps to drop some of them.
        """
        while len(self.walk) and self.walk.steps < last:
            yield self.step()

    def keep(self, rows: Tensor) -> None:
        """Continue with some of the samples and drop the others.

        Args:
            rows: (n,) bool mask or int64 indices of the samples to keep.
        """
        self.walk = self.walk[rows]
        self._next = None  # it was computed for all samples


def kind_mismatch(moved: object, codes: Tensor) -> str:
    """Describe how a step's result differs from the walk's codes in type, shape, dtype or device.

    Returns:
        A phrase for the error message; '' if nothing differs.
    """
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

    A sample that has finished stays in the batch and no longer moves. Dropping it would change the
    batch size, and the other rows could then round differently.

    Args:
        editor: computes the steps.
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
