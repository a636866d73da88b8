"""Which rows of W+ an edit should reach: one of a fixed set of ranges for each attribute, chosen on the tune split.

GradCtrl's table of ranges and GANSpace's published edits were found by looking, for one generator. The protocol here
takes the range with the most clean crossings on a small meta-validation set, scored by the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from editbench.editor import Editor, FitData
from methods.meta_validation import score_choices

Rows = tuple[int, int]

# Half-open ranges for the 18 rows of a 1024x1024 generator.
RANGES_OF_18: tuple[Rows, ...] = ((0, 18), (0, 4), (2, 6), (4, 6), (4, 8), (6, 9), (8, 12))


def layer_ranges(num_ws: int) -> list[Rows]:
    """The ranges for `num_ws` rows, in proportion and without repeats; the first one holds all rows."""
    scaled = []
    for first, last in RANGES_OF_18:
        a = min(round(first * num_ws / 18), num_ws - 1)
        scaled.append((a, max(round(last * num_ws / 18), a + 1)))
    return list(dict.fromkeys(scaled))


def choose_layers(editor: Editor, data: FitData, attribute: str) -> tuple[int, dict]:
    """Set editor.layers[attribute] to the range with the most clean crossings; of equals, to the widest.

    Returns the number of labels read and notes for the record.
    """
    layers = editor.layers
    assert isinstance(layers, dict)

    def apply(rows: Rows) -> None:
        layers[attribute] = rows

    scores, looked = score_choices(editor, data, attribute, layer_ranges(data.generator.num_ws), apply)
    apply(max(scores, key=lambda rows: (scores[rows], rows[1] - rows[0])))
    return looked, {f"layers.{attribute}": list(layers[attribute]),
                    f"clean_crossings_of_layers.{attribute}": {f"{a}:{b}": share for (a, b), share in scores.items()}}


def layers_state(layers: object) -> dict[str, Tensor]:
    """Chosen ranges as tensors, for an editor's state."""
    chosen = layers if isinstance(layers, Mapping) else {}
    return {f"layers.{name}": torch.tensor([int(row) for row in rows]) for name, rows in chosen.items()}


def load_layers(state: Mapping[str, Tensor]) -> dict[str, Rows]:
    """What `layers_state` gave."""
    return {key.removeprefix("layers."): (int(rows[0]), int(rows[1])) for key, rows in state.items()
            if key.startswith("layers.")}
