"""One strip of images as a matplotlib figure, for notebooks."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from editbench.report.strips import Strip, frame_caption, picture

# Inches: a frame is a square of this side, with room for one line of text above it.
FRAME = 1.1
HEAD = 0.45


def draw_strip(shown: Strip) -> Figure:
    """Draw the frames of a strip side by side, with their effects; the crossing has a frame.

    Args:
        shown: the strip of one start.
    """
    count = len(shown.images)
    figure = StripFigure(figsize=(FRAME * count, FRAME + HEAD), dpi=110)
    figure.suptitle(f"{shown.method}, {shown.title}", fontsize=9)
    for place, image in enumerate(shown.images):
        axes = figure.add_subplot(1, count, place + 1)
        axes.imshow(picture(image), cmap="gray", interpolation="nearest")
        axes.set_title(frame_caption(shown, place), fontsize=7)
        axes.set_xticks([])
        axes.set_yticks([])
        is_crossing = place == shown.crossing
        for edge in axes.spines.values():
            edge.set_visible(is_crossing)
            edge.set_color("tab:orange")
            edge.set_linewidth(2.5)
    return figure


class StripFigure(Figure):
    """A figure that a notebook shows without pyplot or a backend."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()
