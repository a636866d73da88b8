"""Choosing the number of channels that GradCtrl excludes, on a small meta-validation set.

Chen et al. 2022, section 4.
"""

from __future__ import annotations

from editbench.methods.shared.meta_validation import score_choices
from editbench.walk.editor import Editor, FitData

# The counts that the paper tries for 512 channels, and the one it calls a good default.
COUNTS = (50, 100, 150, 200, 250)
DEFAULT = 100


def choose_count(
    editor: Editor, tuned: dict[str, int], data: FitData, attribute: str
) -> tuple[int, dict]:
    """Set tuned[attribute] to the count with the most clean crossings.

    Args:
        editor: the editor that walks with the counts in `tuned`.
        tuned: attribute -> count for 512 channels; the editor's own mapping.
        data: the splits, the generator and the teacher.
        attribute: the target.

    Returns the number of labels read and notes for the record.
    """

    def apply(count: int) -> None:
        tuned[attribute] = count

    scores, looked = score_choices(editor, data, attribute, COUNTS, apply)
    # Thirty samples give many ties; a tie goes to the count nearest to the default.
    apply(max(COUNTS, key=lambda count: (scores[count], -abs(count - DEFAULT))))
    return looked, {
        f"exclude.{attribute}": tuned[attribute],
        f"clean_crossings.{attribute}": scores,
    }
