"""How methods are drawn and how names are written, the same in every figure and table.

A method has the marker and, where no other one has it already, the colour of its slot, whatever
else is drawn. The shipped methods have fixed slots. Colours are told apart by people with the
common colour vision deficiencies (after Paul Tol's schemes); a floor is grey and not solid, and
several floors have other markers and dashes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import pandas as pd

# The page swaps these three for its own, light or dark.
INK = "#24292f"
LINE = "#d3d8de"
BAND = "#f2f4f6"
GREY = "#8a8f98"
COLOURS = ("#4477aa", "#ee7733", "#228833", "#aa3377", "#33aacc", "#bba811", "#ee5566", "#8866cc")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
Dash = Literal["-", "--"] | tuple[float, tuple[float, ...]]
SOLID: Dash = "-"
# Of floors, in the order of their slots: dashed, dotted, dash and dot, dash and two dots. The
# fourth is that of the first floor of a user.
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
    "linear_regression",
)
FLOOR_SLOTS = ("random", "random_channel", "random_searched")  # of the shipped floors
NARROWEST = 2.1  # inches at screen type of a panel that can still be read


class MethodStyle(NamedTuple):
    """How a method is drawn, and how its name is written."""

    colour: str
    marker: str
    dash: Dash = SOLID
    floor: bool = False
    title: str = ""


class Theme(dict[str, MethodStyle]):
    """Label of a method -> its style, in the order of legends and tables; and how attributes are
    shown.

    Args:
        methods: label -> how it is drawn.
        attributes: name -> title, in the order of panels and columns. Others follow, sorted.
        worlds: name of a generator -> title.
        width: inches at screen type that a figure has; None: as many as it likes.
        columns: key of a column -> title, of those that were renamed.
    """

    def __init__(
        self,
        methods: Mapping[str, MethodStyle],
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
        return self.attributes.get(name) or display_name(name)

    def join_attributes(self, attributes: Iterable[str]) -> str:
        """Attributes as they are written, with commas between them."""
        return ", ".join(map(self.attribute, attributes))

    def world(self, name: str) -> str:
        """How a generator is written; its name where it has no title."""
        return self.worlds.get(name, name)

    def column(self, key: str, title: str) -> str:
        """How a column of a table is written; `title` where it was not renamed.

        Args:
            key: of the column, as in the data.
            title: its usual one.
        """
        return self.columns.get(key, title)

    def order(self, attributes: Iterable[str]) -> list[str]:
        """Attributes, each once, in their order."""
        place = {name: k for k, name in enumerate(self.attributes)}
        return sorted(set(attributes), key=lambda name: (place.get(name, len(place)), name))

    def with_width(self, width: float) -> Theme:
        """The same for figures of a width in inches at screen type."""
        return Theme(self, self.attributes, self.worlds, width, self.columns)

    def panels_per_row(self, count: int, most: int, each: float = NARROWEST) -> int:
        """How many of `count` panels stand side by side.

        Args:
            count: of panels, at least 1.
            most: where there is room enough.
            each: inches at screen type that a panel needs.
        """
        if self.width is not None:
            most = min(most, max(1, int(self.width / each)))
        return min(count, most)


def make_theme(
    methods: Iterable[str],
    floors: Iterable[str] = (),
    titles: Mapping[str, str] | None = None,
) -> Theme:
    """The style of every method, by its slot. Floors stand last.

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
        found[name] = MethodStyle(colours[slot], marker, dash, title=titles.get(name, ""))
    for name, slot in zip(last, slots_of(last, FLOOR_SLOTS)):
        marker = MARKERS[slot % len(MARKERS)]
        dash = DASHES[slot % len(DASHES)]
        found[name] = MethodStyle(GREY, marker, dash, floor=True, title=titles.get(name, ""))
    return Theme(found)


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


def theme_of(runs: pd.DataFrame, titles: Mapping[str, str] | None = None) -> Theme:
    """The theme of the methods in a table of runs, with the columns `label` and `floor`.

    Args:
        runs: see Records.
        titles: label -> how it is written, where that is not the label.
    """
    return make_theme(runs["label"], set(runs.loc[runs["floor"].astype(bool), "label"]), titles)


def display_name(name: str) -> str:
    """A name of the configuration for people: 'hair_color' -> 'hair color'."""
    return name.replace("_", " ")


def order_methods(methods: Iterable[str], theme: Theme) -> list[str]:
    """Labels, each once, in the order of the theme: sorted with floors last, or as asked for.

    Args:
        methods: labels, in any order.
        theme: that has all of them.

    Raises:
        ValueError: the theme lacks a label.
    """
    return sorted(set(methods), key=list(theme).index)
