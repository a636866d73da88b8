"""Checks that several editors need: of an option, and of the data that it requires."""

from __future__ import annotations

from editbench.base.errors import EditbenchError
from editbench.base.spaces import Space
from editbench.base.validation import check_choice
from editbench.walk.editor import FitData


def walk_space(space: str) -> Space:
    """The space of the option `space`.

    Args:
        space: 'w' or 'z'.

    Raises:
        EditbenchError: it is neither of them.
    """
    check_choice("space", str(space), (Space.W, Space.Z))
    return Space(str(space))


def check_tune_split(data: FitData, what: str) -> None:
    """Check that there are tune samples.

    Args:
        data: whose tune split is needed.
        what: plural noun, what is chosen with the split; for the message.

    Raises:
        EditbenchError: the split is empty.
    """
    if not len(data.tune):
        raise EditbenchError(
            f"the tune split is empty, but the method needs it to choose among {what}: raise "
            "bank.tune or bank.n"
        )
