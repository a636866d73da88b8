"""The step loop: an editor moves a batch of samples step by step, and the caller drops samples.

The engine (editbench.walk.engine), the curves over strength (editbench.walk.strength), the
composition of two edits and the meta-validation of methods all use this loop. It does not decode
images; it returns the codes to decode.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from editbench.base.changes import change_counts
from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes
from editbench.walk.editor import Editor, Walk

TRIED = 3  # samples whose first step is made together and alone
# Difference that is a fault, relative to the length of the step. In a low precision, rounding may
# change some signs of a gradient, or which channel is the largest one.
MIXED = 0.25
ROUNDING = 1e-5  # the same relative to the codes, for steps that hardly move


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
        return codes_to_decode(self.editor, self.walk)

    def peek(self) -> Walk:
        """The samples after the next step, without taking the step.

        Raises:
            EditbenchError: the editor changes the walk in place, or returns something other than a
                tensor with the shape, dtype and device of the current codes.
        """
        if self._next is None:
            with _unchanged(self.editor, "step", self.walk):
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

    def at(self, position: float) -> Walk:
        """Walk on to a position between two steps.

        The walker itself stops at the whole step below it. The codes at the position are
        interpolated linearly.

        Args:
            position: number of steps since the start, at least those that have been made.
        """
        whole = math.floor(position)
        for _ in self.steps(whole):
            pass
        rest = position - whole
        if not rest:
            return self.walk
        here = self.walk.codes
        return replace(self.walk, codes=here + rest * (self.peek().codes - here))

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
        if self._next is not None:
            self._next = self._next[rows]


class StridedWalker(Walker):
    """A walker with steps of another length, along the same path.

    After k steps it is where `editor` is after k * `stride` steps, interpolated linearly. So steps
    of several methods can be given the same effect without changing where the methods lead.
    """

    def __init__(self, editor: Editor, walk: Walk, stride: float) -> None:
        """Start from a walk at step 0.

        Args:
            editor: computes the steps.
            walk: the samples to start from.
            stride: number of the editor's steps in one step of this walker; above 0.
        """
        super().__init__(editor, walk)
        self.stride = stride
        self._own = Walker(editor, walk)  # at the editor's last whole step

    def peek(self) -> Walk:
        if self._next is None:
            steps = self.walk.steps + 1
            self._next = replace(self._own.at(steps * self.stride), steps=steps)
        return self._next

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self._own.keep(rows)


def codes_to_decode(editor: Editor, walk: Walk) -> Codes:
    """The codes to decode for the samples of a walk, as the editor gives them.

    Args:
        editor: whose walk it is.
        walk: n samples.

    Returns:
        n codes.

    Raises:
        EditbenchError: the editor changes the walk in place.
    """
    with _unchanged(editor, "codes", walk):
        return editor.codes(walk)


@contextmanager
def _unchanged(editor: Editor, call: str, walk: Walk) -> Iterator[None]:
    """Refuse a call of an editor that changes the walk in place.

    The walk is also the state before the step: the length of the path, the interpolation between
    two steps and the rows outside a layer range are computed from it.

    Args:
        editor: that is called in the context.
        call: name of its method.
        walk: that it is given.

    Raises:
        EditbenchError: a tensor of the walk was changed.
    """
    tensors = (walk.origin, walk.codes, walk.latent, walk.source, walk.target, walk.start)
    before = change_counts(tensors)
    yield
    if change_counts(tensors) != before:
        raise EditbenchError(
            f"{type(editor).__name__}.{call} changes the walk that it is given: return new codes, "
            "`walk.codes + change` instead of `walk.codes += change`"
        )


@torch.no_grad()
def refuse_mixing(editor: Editor, walk: Walk) -> None:
    """Refuse an editor whose steps depend on the other samples of the batch or on chance.

    A few samples make one step together and one step each alone. The margin is wide, so that
    rounding is never taken for a fault; `editbench conform` checks it sharply.

    Args:
        editor: fitted for the attribute of the walk.
        walk: at step 0; it is not changed.

    Raises:
        EditbenchError: most of the samples step differently alone.
    """
    few = walk[: min(len(walk), TRIED)]
    device = walk.codes.device
    # An editor that breaks the contract in this way draws from the global random state.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        together = Walker(editor, few).step().codes
        differing = 0
        for row in range(len(few)):
            alone = Walker(editor, few[row : row + 1]).step().codes[0]
            length = (together[row] - few.codes[row]).norm()
            allowed = MIXED * length + ROUNDING * few.codes[row].norm()
            # False for a walk that became NaN, which counts as a failed walk.
            differing += bool((alone - together[row]).norm() > allowed)
    if 2 * differing > len(few):
        raise EditbenchError(
            "the method's `step` gives a sample other codes alone than in a batch, or other codes in "
            "a second call: reduce over dim=1 and never over the samples, keep nothing from one step "
            "for the next, and draw no random numbers in it (`editbench conform` says more)"
        )


def kind_mismatch(moved: object, codes: Tensor) -> str:
    """Describe how a step's result differs from the walk's codes in type, shape, dtype or device.

    Args:
        moved: what `Editor.step` returned, of any type.
        codes: (n, ...) the walk's codes before the step.

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
