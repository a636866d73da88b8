"""A user's own observations during the walk are tried on a few starts before the walk.

The project's own observations are checked by its tests. This module is separate from `observation`
because it changes no number.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from editbench.base.errors import EditbenchError, WrongType
from editbench.base.spaces import Codes
from editbench.networks.generator import Generator
from editbench.walk.editor import Editor, Walk
from editbench.walk.observation import DuringWalk
from editbench.walk.trajectory import KEYS, LOGIT

TRIED = 3  # starts
# Accepted difference of a sample alone and in a batch: relative to its value, and to the largest.
MIXED = 1e-2
ROUNDING = 1e-3


@torch.no_grad()
def try_observations(
    observations: Mapping[str, DuringWalk], editor: Editor, walk: Walk, generator: Generator
) -> None:
    """Measure a few starts, together and each alone, and compare what is returned with the contract.

    Args:
        observations: by name.
        editor: of the walk.
        walk: at step 0; it is not changed.
        generator: decodes the codes.

    Raises:
        EditbenchError: `reference` or `measure` returned something of another shape, a column that
            a trajectory has already, or other numbers for a sample alone.
        WrongType: they returned something of another type.
    """
    few = walk[: min(len(walk), TRIED)]
    codes = editor.codes(few)
    images = generator.decode(codes)
    device = few.codes.device
    for name, observation in observations.items():
        where = f"observation {name}: {type(observation).__name__}"
        # An observation that breaks the contract may draw from the global random state.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            _try(where, observation, few, codes, images)


def _try(where: str, observation: DuringWalk, few: Walk, codes: Codes, images: Tensor) -> None:
    """Try one observation.

    Args:
        where: its name and class, for messages.
        observation: of a user's own class.
        few: some starts at step 0.
        codes: of the starts.
        images: of the codes.
    """
    # Each start is measured with the image of another one: its own is exactly its reference, of
    # which differences are 0 whatever the batch.
    order = torch.arange(len(few)).roll(1).to(few.codes.device)

    def measure(rows: slice) -> dict[str, Tensor]:
        part = images[rows]
        other = order[rows]
        reference = observation.reference(part)
        _check_reference(f"{where}.reference", reference, len(part))
        columns = observation.measure(few[rows], codes[other], images[other], reference)
        _check_columns(f"{where}.measure", columns, len(part))
        return columns

    together = measure(slice(None))
    differing = 0
    for row in range(len(few)):
        alone = measure(slice(row, row + 1))
        if alone.keys() != together.keys():
            raise EditbenchError(
                f"{where}.measure returns the columns {', '.join(sorted(together)) or 'none'} for "
                f"{len(few)} samples and {', '.join(sorted(alone)) or 'none'} for one: return the "
                "same columns always, with NaN where there is no number"
            )
        differing += any(_differs(alone[name], together[name], row) for name in together)
    if 2 * differing > len(few):
        raise EditbenchError(
            f"{where}.measure gives a sample other numbers alone than in a batch, or other numbers "
            "in a second call: reduce over the other axes and never over the samples, keep nothing "
            "between two calls, and draw no random numbers"
        )


def _check_reference(where: str, reference: object, count: int) -> None:
    if not isinstance(reference, Tensor):
        raise WrongType(
            f"{where} must return a tensor with one row per start, not {type(reference).__name__}"
        )
    if reference.dim() != 2 or len(reference) != count:
        raise EditbenchError(
            f"{where} returns the shape {tuple(reference.shape)} for {count} starts: "
            f"({count}, e) is needed"
        )


def _check_columns(where: str, columns: object, count: int) -> None:
    if not isinstance(columns, Mapping):
        raise WrongType(
            f"{where} must return a mapping of column names to tensors, not "
            f"{type(columns).__name__}"
        )
    for name, values in columns.items():
        if not isinstance(name, str):
            raise WrongType(f"{where} returns a column named {name!r}: names must be text")
        if name in KEYS or name.startswith(LOGIT):
            raise EditbenchError(
                f"{where} returns the column '{name}', which trajectories have already: give it "
                "another name"
            )
        if not isinstance(values, Tensor):
            raise WrongType(
                f"{where} returns {type(values).__name__} for '{name}': a tensor with one number per "
                "sample is needed"
            )
        if tuple(values.shape) != (count,) or values.is_complex():
            kind = f"{values.dtype} " if values.is_complex() else ""
            raise EditbenchError(
                f"{where} returns {kind}{tuple(values.shape)} for '{name}' of {count} samples: one "
                f"real number per sample, ({count},), is needed"
            )


def _differs(alone: Tensor, together: Tensor, row: int) -> bool:
    """Whether the number of a sample is another one alone; False if it is NaN."""
    every = together.double()
    allowed = MIXED * every[row].abs() + ROUNDING * every.abs().max()
    return bool((alone.double()[0] - every[row]).abs() > allowed)
