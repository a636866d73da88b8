"""How methods are drawn and how names are written, in all figures and tables.

Every method has a slot, which gives its marker and, unless an earlier method has it already, its
colour. The shipped methods have fixed slots, so they look the same in all reports. The colours can
be distinguished with the common colour vision deficiencies (after Paul Tol's schemes). Floors are
grey, and their lines are not solid; several floors differ in marker and dash.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import pandas as pd

# The page replaces these three colours by those of its light or dark scheme.
INK = "#24292f"
LINE = "#d3d8de"
BAND = "#f2f4f6"
GREY = "#8a8f98"
COLOURS = ("#4477aa", "#ee7733", "#228833", "#aa3377", "#33aacc", "#bba811", "#ee5566", "#8866cc")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
Dash = Literal["-", "--"] | tuple[float, tuple[float, ...]]
SOLID: Dash = "-"
# Lines of floors, by slot: dashed, dotted, dash and dot, dash and two dots. The shipped floors have
# the first three, so a user's first floor has the fourth.
DASHES: tuple[Dash, ...] = (
    "--",
    (0, (1.2, 1.6)),
    (0, (5, 1.5, 1.2, 1.5)),
    (0, (5, 1.5, 1.2, 1.5, 1.2, 1.5)),
)
# 8 colours and 7 markers have no common factor, so that there are 56 different pairs.
PAIRS = len(COLOURS) * len(MARKERS)
# The slots of the shipped methods. The first eight are often drawn together and have the eight
# colours. A new method is added at the end, since inserting it would recolour those after it.
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
NARROWEST = 2.1  # least width of a readable panel, in inches at screen size


class MethodStyle(NamedTuple):
    """How a method is drawn, and how its name is written.

    Attributes:
        colour: hexadecimal, such as '#4477aa'.
        marker: of matplotlib.
        dash: line style of matplotlib.
        floor: whether the method is a floor.
        title: its name in figures and tables; '' for the label.
    """

    colour: str
    marker: str
    dash: Dash = SOLID
    floor: bool = False
    title: str = ""


class Theme(dict[str, MethodStyle]):
    """Label of a method -> its style, in the order of legends; also the titles of other names.

    Args:
        methods: label -> style.
        attributes: name -> title, in the order of panels and columns. Others follow, sorted.
        worlds: name of a generator -> title.
        width: available width of a figure, in inches at screen size; None if it is not limited.
        columns: key of a column -> title, for renamed columns.
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
        """The title of a method; its label if it has none."""
        return self[label].title or label if label in self else label

    def attribute(self, name: str) -> str:
        """The title of an attribute; without one, 'hair color' for hair_color."""
        return self.attributes.get(name) or display_name(name)

    def join_attributes(self, attributes: Iterable[str]) -> str:
        """The titles of attributes, separated by commas."""
        return ", ".join(map(self.attribute, attributes))

    def world(self, name: str) -> str:
        """The title of a generator; its name if it has none."""
        return self.worlds.get(name, name)

    def column(self, key: str, title: str) -> str:
        """The title of a column of a table.

        Args:
            key: of the column, as in the data.
            title: that it has if it was not renamed.
        """
        return self.columns.get(key, title)

    def order(self, attributes: Iterable[str]) -> list[str]:
        """Attributes without duplicates, in the order of the theme."""
        place = {name: k for k, name in enumerate(self.attributes)}
        return sorted(set(attributes), key=lambda name: (place.get(name, len(place)), name))

    def with_width(self, width: float) -> Theme:
        """The same theme for figures of a limited width, in inches at screen size."""
        return Theme(self, self.attributes, self.worlds, width, self.columns)

    def panels_per_row(self, count: int, most: int, each: float = NARROWEST) -> int:
        """Number of panels side by side.

        Args:
            count: number of panels, at least 1.
            most: maximum, if there is enough room.
            each: width that a panel needs, in inches at screen size.
        """
        if self.width is not None:
            most = min(most, max(1, int(self.width / each)))
        return min(count, most)


def make_theme(
    methods: Iterable[str],
    floors: Iterable[str] = (),
    titles: Mapping[str, str] | None = None,
) -> Theme:
    """The theme of some methods, sorted by label with floors last.

    Args:
        methods: labels.
        floors: labels of the methods that are floors.
        titles: label -> title, for methods that have one.
    """
    titles = titles or {}
    names = set(methods)
    last = sorted(names & set(floors))
    rivals = sorted(names - set(floors))
    found = {}
    slots = slots_of(rivals, SLOTS)
    colours = colours_of(slots)
    for name, slot in zip(rivals, slots):
        # With more than PAIRS methods, pairs repeat and lines are dashed.
        dash = (SOLID, *DASHES)[slot // PAIRS % (1 + len(DASHES))]
        marker = MARKERS[slot % len(MARKERS)]
        found[name] = MethodStyle(colours[slot], marker, dash, title=titles.get(name, ""))
    for name, slot in zip(last, slots_of(last, FLOOR_SLOTS)):
        marker = MARKERS[slot % len(MARKERS)]
        dash = DASHES[slot % len(DASHES)]
        found[name] = MethodStyle(GREY, marker, dash, floor=True, title=titles.get(name, ""))
    return Theme(found)


def slots_of(names: Iterable[str], fixed: Sequence[str]) -> list[int]:
    """The slot of each name: its position in `fixed`; other names get the slots after these.

    Args:
        names: sorted.
        fixed: names with a fixed slot, which is kept free if a name is absent.
    """
    free = itertools.count(len(fixed))
    return [fixed.index(name) if name in fixed else next(free) for name in names]


def colours_of(slots: Iterable[int]) -> dict[int, str]:
    """The colour of each slot.

    If an earlier slot has the same colour, the slot gets one that belongs to none of the slots, as
    long as there is one. Up to eight methods thus never share a colour. An additional method can
    change only the colours of slots that do not have their own.
    """
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
        titles: label -> title, for methods that have one.
    """
    return make_theme(runs["label"], set(runs.loc[runs["floor"].astype(bool), "label"]), titles)


def display_name(name: str) -> str:
    """A name of the configuration in plain words: 'hair_color' -> 'hair color'."""
    return name.replace("_", " ")


def order_methods(methods: Iterable[str], theme: Theme) -> list[str]:
    """Labels without duplicates, in the order of the theme.

    Args:
        methods: labels, in any order.
        theme: contains all of them.

    Raises:
        ValueError: the theme lacks a label.
    """
    return sorted(set(methods), key=list(theme).index)
