"""How many channels GradCtrl leaves alone, chosen on a small meta-validation set (Chen et al.
2022, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from editbench.methods.shared.meta_validation import score_choices

from editbench.walk.editor import FitData

if TYPE_CHECKING:
    from editbench.methods.gradctrl.editor import GradCtrl

COUNTS = (50, 100, 150, 200, 250)
DEFAULT = 100


def choose_count(editor: GradCtrl, data: FitData, attribute: str) -> tuple[int, dict]:
    """Set editor.tuned[attribute] to the count with the most clean crossings; of equals, to that
    nearest the default.

    Returns the number of labels read and notes for the record.
    """

    def apply(count: int) -> None:
        editor.tuned[attribute] = count

    scores, looked = score_choices(editor, data, attribute, COUNTS, apply)
    apply(max(COUNTS, key=lambda count: (scores[count], -abs(count - DEFAULT))))
    return looked, {
        f"exclude.{attribute}": editor.tuned[attribute],
        f"clean_crossings.{attribute}": scores,
    }
