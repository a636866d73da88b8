"""What figures share: colours of methods, panels, legends, and the shape of what a figure is.

A metric brings its figure: a function that is named by `figure` in the metric's YAML and takes
`Records` and the methods' looks. It stands here, below the metrics and the report, so that both can
use it. Figures are drawn without pyplot: nothing of matplotlib's global state is kept or changed.

A method has the marker and, where no other one has it already, the colour of its slot, whatever else
is drawn. The shipped methods have fixed slots. Colours are told apart by people with the common
colour vision deficiencies (after Paul Tol's schemes); a floor is grey and not solid, and several
floors have other markers and dashes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from editbench.walk.observed import Observed

FEWEST = 30  # starts: below this an interval says little, and curves hide the bin
MOST = 8  # methods in colour in one panel of curves; more are drawn in groups
# The page swaps these three for its own, light or dark.
INK = "#24292f"
LINE = "#d3d8de"
BAND = "#f2f4f6"
GREY = "#8a8f98"
COLOURS = ("#4477aa", "#ee7733", "#228833", "#aa3377", "#33aacc", "#bba811", "#ee5566", "#8866cc")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
Dash = Literal["-", "--"] | tuple[float, tuple[float, ...]]
SOLID: Dash = "-"
# Of floors, in the order of their slots: dashed, dotted, dash and dot, dash and two dots. The fourth is
# that of the first floor of a user.
DASHES: tuple[Dash, ...] = (
    "--",
    (0, (1.2, 1.6)),
    (0, (5, 1.5, 1.2, 1.5)),
    (0, (5, 1.5, 1.2, 1.5, 1.2, 1.5)),
)
# 8 colours and 7 markers have no common factor, so that there are 56 different pairs.
PAIRS = len(COLOURS) * len(MARKERS)
# The slots of the shipped methods: eight that are often seen together have the eight colours. A new
# method is added at the end, since an inserted one would recolour those behind it.
SLOTS = (
    "gradctrl",
    "interfacegan",
    "ganspace",
    "navigan_spectrum",
    "neural_ode",
    "sefa",
    "stylespace",
    "navigan",
    "navigan_svd",
    "gradctrl_random",
    "interfacegan_random",
    "interfacegan_conditional",
    "stylespace_localised",
    "gradctrl_500",
    "true_factor",
    "direction",
    "neural_ode_linear",
    "neural_ode_deep",
    "neural_ode_identity",
    "navigan_hybrid",
    "stylespace_multi",
    "ganspace_activations",
    "gradctrl_layers",
    "interfacegan_layers",
    "gradctrl_ffhq_heads",
    "direction_ffhq",
)
FLOOR_SLOTS = ("random", "random_channel", "random_searched")  # of the shipped floors
TYPE = 9.5  # points, on the screen
NARROWEST = 2.1  # inches at screen type of a panel that can still be read
PER_LETTER = 0.075  # inches of a letter at screen type, about
PER_NAME = 0.5  # inches of a legend entry beside its name: mark, gap, space between columns
# Families of matplotlib, by the word of a report's style.
FONTS = {"sans": "sans-serif", "serif": "serif"}
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Liberation Sans", "Arial", "Helvetica", "DejaVu Sans"],
    # Times and its like, which most papers are set in; STIX comes with matplotlib.
    "font.serif": ["Times New Roman", "Liberation Serif", "STIXGeneral", "DejaVu Serif"],
    "font.size": TYPE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.hashsalt": "editbench",
    "svg.fonttype": "path",
    # TrueType: publishers refuse the Type 3 fonts that are the default.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.unicode_minus": True,
}


class Records(Protocol):
    """The records that a figure may draw from, of one setting.

    Attributes:
        root: folder of the runs.
        runs: one row a run, or a method and attribute where seeds are pooled: run_id, method, label
            (the method's name in tables), floor (whether it is one), attribute, status, run_ids (of
            all seeds).
        rows: metric rows, columns ROW_COLUMNS of editbench.walk.metric, with run_id and group.
        samples: values of single starts, columns SAMPLE_COLUMNS, with run_id.
        configs: run_id -> configuration.
    """

    @property
    def root(self) -> Path: ...
    @property
    def runs(self) -> pd.DataFrame: ...
    @property
    def rows(self) -> pd.DataFrame: ...
    @property
    def samples(self) -> pd.DataFrame: ...
    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]: ...

    def observation(self, run_id: str, name: str) -> Observed | None:
        """What an observation left in a run, None where the run had no such observation."""
        ...

    def strips(self, run_id: str) -> dict[str, Any] | None:
        """Pictures that a run kept of its walks, None where it kept none.

        Returns:
            images (k, c, C, H, W) uint8 of k starts at c steps; steps, crossed, effect (k, c);
            starts (k,). A short walk repeats its last step.

        Raises:
            EditbenchError: the file is unreadable.
        """
        ...


class Look(NamedTuple):
    """How a method is drawn, and how its name is written."""

    colour: str
    marker: str
    dash: Dash = SOLID
    floor: bool = False
    title: str = ""


class Looks(dict[str, Look]):
    """Label of a method -> its look, in the order of legends and tables; and how attributes are
    shown.

    Args:
        methods: label -> look.
        attributes: name -> title, in the order of panels and columns. Others follow, sorted.
        worlds: name of a generator -> title.
        width: inches at screen type that a figure has; None: as many as it likes.
        columns: key of a column -> title, of those that were renamed.
    """

    def __init__(
        self,
        methods: Mapping[str, Look],
        attributes: Mapping[str, str] | None = None,
        worlds: Mapping[str, str] | None = None,
        width: float | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(methods)
        self.attributes = dict(attributes or {})
        self.worlds = dict(worlds or {})
        self.width = width
        self.columns = dict(columns or {})

    def method(self, label: str) -> str:
        """How a method is written; its label where it has no title."""
        return self[label].title or label if label in self else label

    def attribute(self, name: str) -> str:
        """How an attribute is written: by its title, or 'hair color' of hair_color."""
        return self.attributes.get(name) or spoken(name)

    def listed(self, attributes: Iterable[str]) -> str:
        """Attributes as they are written, with commas between them."""
        return ", ".join(map(self.attribute, attributes))

    def world(self, name: str) -> str:
        """How a generator is written; its name where it has no title."""
        return self.worlds.get(name, name)

    def column(self, key: str, title: str) -> str:
        """How a column of a table is written; `title` where it was not renamed."""
        return self.columns.get(key, title)

    def order(self, attributes: Iterable[str]) -> list[str]:
        """Attributes, each once, in their order."""
        place = {name: k for k, name in enumerate(self.attributes)}
        return sorted(set(attributes), key=lambda name: (place.get(name, len(place)), name))

    def narrowed(self, width: float) -> Looks:
        """The same for figures of a width in inches at screen type."""
        return Looks(self, self.attributes, self.worlds, width, self.columns)

    def across(self, count: int, most: int, each: float = NARROWEST) -> int:
        """How many of `count` panels stand side by side.

        Args:
            count: of panels, at least 1.
            most: where there is room enough.
            each: inches at screen type that a panel needs.
        """
        if self.width is not None:
            most = min(most, max(1, int(self.width / each)))
        return min(count, most)


@dataclass(frozen=True)
class Drawing:
    """One figure of a report.

    Attributes:
        file: name of its files, without a suffix.
        title: heading.
        caption: what is drawn, and how to read it.
        draw: makes the figure. An error in it costs this figure alone.
        first: whether it stands among the first figures of the page, or is folded away.
    """

    file: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    first: bool = False


def looks(
    methods: Iterable[str],
    floors: Iterable[str] = (),
    titles: Mapping[str, str] | None = None,
) -> Looks:
    """The look of every method, by its slot. Floors stand last.

    Args:
        methods: labels.
        floors: labels of those that are floors.
        titles: label -> how it is written, where that is not the label.
    """
    titles = titles or {}
    names = set(methods)
    last = sorted(names & set(floors))
    rivals = sorted(names - set(floors))
    found = {}
    slots = slots_of(rivals, SLOTS)
    colours = colours_of(slots)
    for name, slot in zip(rivals, slots):
        # Only from the 57th pair on a line is not solid.
        dash = (SOLID, *DASHES)[slot // PAIRS % (1 + len(DASHES))]
        marker = MARKERS[slot % len(MARKERS)]
        found[name] = Look(colours[slot], marker, dash, title=titles.get(name, ""))
    for name, slot in zip(last, slots_of(last, FLOOR_SLOTS)):
        marker = MARKERS[slot % len(MARKERS)]
        dash = DASHES[slot % len(DASHES)]
        found[name] = Look(GREY, marker, dash, floor=True, title=titles.get(name, ""))
    return Looks(found)


def slots_of(names: Iterable[str], fixed: Sequence[str]) -> list[int]:
    """The slot of each name: its place in `fixed`, or else, in the order of the names, the first
    that is free behind them.

    Args:
        names: sorted.
        fixed: names with a slot of their own, whether they are there or not.
    """
    free = itertools.count(len(fixed))
    return [fixed.index(name) if name in fixed else next(free) for name in names]


def colours_of(slots: Iterable[int]) -> dict[int, str]:
    """The colour of each slot: its own, or, where an earlier slot has that, one that is no slot's
    own, as long as there are any. So up to eight methods never share a colour, and a further
    method changes none but such a spare one."""
    slots = sorted(slots)
    own = {slot: COLOURS[slot % len(COLOURS)] for slot in slots}
    spare = [colour for colour in COLOURS if colour not in own.values()]
    found: dict[int, str] = {}
    for slot in slots:
        taken = own[slot] in found.values()
        found[slot] = spare.pop(0) if taken and spare else own[slot]
    return found


def looks_of(runs: pd.DataFrame, titles: Mapping[str, str] | None = None) -> Looks:
    """The looks of the methods in a table of runs, with the columns `label` and `floor`.

    Args:
        runs: see Records.
        titles: label -> how it is written, where that is not the label.
    """
    return looks(runs["label"], set(runs.loc[runs["floor"].astype(bool), "label"]), titles)


def spoken(name: str) -> str:
    """A name of the configuration for people: 'hair_color' -> 'hair color'."""
    return name.replace("_", " ")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_grid(figure: FigureBase, count: int, columns: int, sharex: bool = True) -> np.ndarray:
    """`count` axes in rows of `columns` with a common y; what is left of the last row stays
    empty."""
    lines = -(-count // columns)
    panels = figure.subplots(lines, columns, sharex=sharex, sharey=True, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_visible(False)
    return panels


def bare(panels: np.ndarray) -> None:
    """Axes that hold pictures: no ticks, grid or frame."""
    for axes in panels.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)


def name_ticks(axes: Any, names: list[str], look: Looks) -> None:
    """Names at 0, 1, 2, ... of the horizontal axis; slanted where they would touch.

    Args:
        axes: whose ticks they are.
        names: as they are written; of two lines the longer counts.
        look: which knows the width of the figure.
    """
    longest = max(len(line) for name in names for line in name.splitlines())
    axes.set_xticks(range(len(names)), names)
    if look.width is not None and len(names) * (longest + 1) * PER_LETTER > look.width:
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def show_picture(axes: Any, picture: np.ndarray, most: float) -> None:
    """Draw a picture (h, w, C) of 1 or 3 channels with values from 0 to `most`."""
    shown = picture if picture.shape[2] == 3 else picture[..., 0]
    axes.imshow(shown, cmap="gray", vmin=0, vmax=most)


def order_methods(methods: Iterable[str], look: Looks) -> list[str]:
    """Labels, each once, in the order of the looks: sorted with floors last, or as asked for."""
    return sorted(set(methods), key=list(look).index)


def upper_limit(values: pd.Series) -> float:
    """The upper end of an axis of shares that starts at 0: 1, or less where all values are low."""
    finite = values[np.isfinite(values)]
    if len(values) and not len(finite):
        return 1.02
    highest = finite.max() if len(values) else 1.0
    return float(min(1.02, max(0.2, 1.08 * highest)))


@dataclass(frozen=True)
class Group:
    """A part of a figure of curves: some methods in their looks, all others pale.

    Attributes:
        methods: those in their looks, in order.
        pale: the others.
        panels: flat.
    """

    methods: list[str]
    pale: list[str]
    panels: np.ndarray


def grouped(methods: Iterable[str], look: Looks) -> list[list[str]]:
    """Methods in groups of at most MOST, in each as many colours as can be; of few methods one group.

    Each group has the floors as well, which are what all others have to beat.
    """
    names = order_methods(methods, look)
    if len(names) <= MOST:
        return [names]
    floors = [name for name in names if look[name].floor]
    # More of them would leave too little room: further ones stand in one group, as any other.
    floors = floors[: MOST // 2]
    rest = [name for name in names if name not in floors]
    size = MOST - len(floors)
    count = -(-len(rest) // size)
    # As even as that: one method in a last group would look forgotten.
    size = -(-len(rest) // count)
    groups: list[list[str]] = [[] for _ in range(count)]
    for name in rest:
        room = [group for group in groups if len(group) < size]
        colour = look[name].colour
        apart = [group for group in room if colour not in [look[other].colour for other in group]]
        # Names that follow each other are often variants of one method: they stay together.
        (apart or room)[0].append(name)
    return [[*group, *floors] for group in groups]


def caption_of_groups(methods: Iterable[str], look: Looks) -> str:
    """What the caption of a figure of curves says of its groups, after a space; '' of a single one."""
    if len(grouped(methods, look)) == 1:
        return ""
    floors = any(look[name].floor for name in methods)
    told = f" At most {MOST} methods are in colour at a time, all others pale"
    return told + ("; floors are in every group, and named in the first." if floors else ".")


def curve_groups(
    width: float,
    height: float,
    methods: Iterable[str],
    look: Looks,
    panels: Callable[[FigureBase], np.ndarray],
) -> tuple[Figure, list[Group]]:
    """An empty figure for curves of methods, with a legend for each group above its panels.

    In one panel more than MOST curves cannot be told apart. There the panels are repeated for each
    group of `grouped`, below each other, and the caller draws the others with `draw_pale`.

    Args:
        width: of the figure, inches.
        height: of the panels of a group, inches.
        methods: labels.
        look: of the methods.
        panels: makes the panels of a group, flat.
    """
    several = grouped(methods, look)
    figure = new_figure(width, height * len(several))
    legends = [several[0]]
    # Floors are in every group, and named in the first.
    for group in several[1:]:
        legends.append([name for name in group if name not in several[0]])
    parts: list[FigureBase] = [figure]
    if len(several) > 1:
        heights = []
        for names in legends:
            heights.append(height + legend_height(len(names), columns_of(names, look, width)))
        below = figure.subfigures(len(several), 1, height_ratios=heights)
        parts = list(cast(np.ndarray, below))
    groups = []
    for group, names, part in zip(several, legends, parts):
        pale = [name for name in order_methods(methods, look) if name not in group]
        groups.append(Group(group, pale, panels(part)))
        put_legend(part, names, look)
    return figure, groups


def groups_of_attributes(
    curves: pd.DataFrame,
    look: Looks,
    most: int,
    panel: tuple[float, float],
    margin: float,
    label: str = "",
) -> tuple[Figure, list[Group]]:
    """The figure of `curve_groups` with a panel for each attribute, under its name, in each group.

    Args:
        curves: rows with method and attribute.
        look: of the methods; the panels are in the order of its attributes.
        most: panels side by side.
        panel: width and height of a panel, inches.
        margin: height of what stands around the panels of a group, inches.
        label: of the vertical axes, beside the first panel of each row.
    """
    attributes = look.order(curves["attribute"])
    columns = look.across(len(attributes), most)
    lines = -(-len(attributes) // columns)
    figure, groups = curve_groups(
        max(5.5, panel[0] * columns),
        margin + panel[1] * lines,
        curves["method"],
        look,
        partial(panel_grid, count=len(attributes), columns=columns),
    )
    for group in groups:
        for place, (axes, attribute) in enumerate(zip(group.panels, attributes)):
            axes.set_title(look.attribute(attribute))
            axes.tick_params(labelbottom=place + columns >= len(attributes))
            if place % columns == 0:
                axes.set_ylabel(label)
    return figure, groups


def draw_pale(axes: Axes, curves: Iterable[tuple[Any, Any]]) -> None:
    """The curves of other groups, for comparison.

    Args:
        axes: to draw on.
        curves: (x, y) of each.
    """
    x: list[float] = []
    y: list[float] = []
    # One line with gaps is drawn much faster than a line a curve.
    for across, up in curves:
        x += [*across, np.nan]
        y += [*up, np.nan]
    if x:
        axes.plot(x, y, color=LINE, linewidth=0.9, zorder=1)


def share_limits(groups: Sequence[Group]) -> None:
    """The same axes for every group: bands are drawn for their own group alone."""
    for same in zip(*(group.panels for group in groups)):
        across = np.array([axes.get_xlim() for axes in same])
        up = np.array([axes.get_ylim() for axes in same])
        for axes in same:
            axes.set_xlim(across[:, 0].min(), across[:, 1].max())
            axes.set_ylim(up[:, 0].min(), up[:, 1].max())


def put_legend(figure: FigureBase, methods: list[str], look: Looks, line: bool = True) -> None:
    """A legend above the panels, which keep their height.

    Args:
        figure: the whole, or a part of it.
        methods: labels, in the order of the legend.
        line: whether a line goes through the marker, as in a curve.
    """
    handles: list[Line2D] = []
    for method in methods:
        handles.append(
            Line2D(
                [],
                [],
                color=look[method].colour,
                linestyle=look[method].dash if line else "none",
                linewidth=2,
                marker=look[method].marker,
                markersize=6,
                markeredgewidth=0,
            )
        )
    # Of a part it is the whole that gets higher.
    whole = cast(Figure, figure.figure)
    columns = columns_of(methods, look, float(whole.get_figwidth()))
    figure.legend(
        handles,
        [look.method(method) for method in methods],
        loc="outside upper left",
        ncols=columns,
        handlelength=1.8 if line else 1,
        columnspacing=1.4,
        handletextpad=0.5,
    )
    whole.set_figheight(whole.get_figheight() + legend_height(len(methods), columns))


def columns_of(methods: Iterable[str], look: Looks, width: float) -> int:
    """Columns of a legend of methods in a width in inches at screen type."""
    return columns_that_fit([look.method(method) for method in methods], width)


def columns_that_fit(names: list[str], width: float) -> int:
    """Columns of a legend that a width in inches takes at screen type, in the font of the
    figures."""
    font = FontProperties(size=TYPE)
    measure = TextToPath()
    widest = 0.0
    for name in names:
        points = measure.get_text_width_height_descent(name, font, False)[0]
        widest = max(widest, points)
    inches = PER_NAME + widest / 72  # 72 points an inch
    return max(1, min(len(names), int((width - 0.1) / inches)))


def legend_height(count: int, columns: int) -> float:
    """Inches at screen type of a legend of `count` names."""
    return -(-count // max(1, columns)) * 1.5 * TYPE / 72
