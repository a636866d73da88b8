"""Choosing the rows of W+ that are edited: one range per attribute, chosen on the tune split.

GradCtrl's table of ranges and GANSpace's published edits were chosen by eye for one generator.
Here the range with the most clean crossings on a small meta-validation set is taken, scored by the
teacher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from editbench.base.errors import Unsupported
from editbench.base.spaces import Space
from editbench.methods.shared.meta_validation import score_choices
from editbench.methods.shared.state import group
from editbench.networks.generator import Generator
from editbench.walk.editor import Editor, FitData

Rows = tuple[int, int]

# Half-open ranges for a generator with RANGES_OF rows (1024x1024).
RANGES_OF = 18
RANGES: tuple[Rows, ...] = ((0, 18), (0, 4), (2, 6), (4, 6), (4, 8), (6, 9), (8, 12))


def scale_ranges(ranges: Sequence[Rows], num_ws: int) -> list[Rows]:
    """Scale ranges of rows of W+ to a generator with another number of rows.

    Args:
        ranges: half-open, [a, b) of RANGES_OF rows.
        num_ws: number of rows of the generator.

    Returns:
        Half-open ranges of at least one row, in the given order and without duplicates.
    """
    out = []
    for a, b in ranges:
        # floor(x + 0.5) instead of round(), which rounds halves to the even neighbour.
        first = min(math.floor(a * num_ws / RANGES_OF + 0.5), num_ws - 1)
        # A narrow range may round to no row at all; it keeps one.
        last = max(math.floor(b * num_ws / RANGES_OF + 0.5), first + 1)
        out.append((first, last))
    # For small generators some ranges become equal; each is tried once.
    return list(dict.fromkeys(out))


def choose_layers(editor: Editor, data: FitData, attribute: str) -> tuple[int, dict]:
    """Set editor.layers[attribute] to the range with the most clean crossings.

    Args:
        editor: fitted for the attribute; its `layers` must be a dictionary, which is changed.
        data: its tune split has the meta-validation set, its teacher scores it.
        attribute: the target attribute.

    Returns:
        Number of labels read, and notes for the record.

    Raises:
        EditbenchError: the tune split is empty.
    """
    layers = editor.layers
    # Editors with `layers: tuned` begin with an empty dictionary.
    assert isinstance(layers, dict)

    def apply(rows: Rows) -> None:
        layers[attribute] = rows

    ranges = scale_ranges(RANGES, data.generator.num_ws)
    scores, looked = score_choices(editor, data, attribute, ranges, apply)
    # Ties go to the widest range, which is nearest to the unrestricted edit of the papers.
    apply(max(scores, key=lambda rows: (scores[rows], rows[1] - rows[0])))
    shares = {f"{a}:{b}": share for (a, b), share in scores.items()}
    return looked, {
        f"layers.{attribute}": list(layers[attribute]),
        f"clean_crossings_of_layers.{attribute}": shares,
    }


def check_tuned(tuned: bool, generator: Generator) -> None:
    """Check that a generator has rows of W+ to choose from.

    Args:
        tuned: whether `layers: tuned` is set; otherwise there is nothing to check.
        generator: of the job.

    Raises:
        Unsupported: the generator has no W+.
    """
    # Without W+ there is only one row.
    if tuned and Space.W_PLUS not in generator.spaces:
        raise Unsupported("layers: tuned needs a generator with W+")


def layers_state(layers: object) -> dict[str, Tensor]:
    """Chosen ranges as tensors, for an editor's state."""
    # A single range for all attributes was configured, not chosen, and needs no state.
    chosen = layers if isinstance(layers, Mapping) else {}
    out = {}
    for name, (first, last) in chosen.items():
        out[f"layers.{name}"] = torch.tensor([int(first), int(last)])
    return out


def load_layers(state: Mapping[str, Tensor]) -> dict[str, Rows]:
    """Restore what `layers_state` returned."""
    return {name: (int(rows[0]), int(rows[1])) for name, rows in group(state, "layers").items()}
