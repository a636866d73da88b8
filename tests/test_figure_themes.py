"""Signs of methods in figures: colour, marker and dash tell all methods and floors apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from editbench.base.conf import option_names
from editbench.figures.curves import MOST, grouped
from editbench.figures.theme import (
    FLOOR_SLOTS,
    GREY,
    LINE,
    MARKERS,
    SLOTS,
    colours_of,
    make_theme,
    order_methods,
)
from editbench.report import figures
from editbench.report.paper import TALLEST, to_paper
from tests.fake_records import metric_rows

FLOORS = ["random", "random_channel", "random_searched"]


def test_a_method_keeps_its_sign_whatever_else_is_reported() -> None:
    names = option_names("method")
    assert sorted(names) == sorted([*SLOTS, *FLOOR_SLOTS])
    whole = make_theme(names, FLOORS)
    for name in names:
        alone = make_theme([name], {name} & set(FLOORS))
        assert alone[name] == whole[name]
    # With few of them, one whose colour is taken has a spare one.
    shared = ("gradctrl", "neural_ode_linear")
    assert len({whole[name].colour for name in shared}) == 1
    for count in range(2, 9):
        few = make_theme([*shared, *SLOTS[-count + 2 :]][:count])
        assert len({theme.colour for theme in few.values()}) == count
        assert {name: theme.marker for name, theme in few.items()} == {
            name: whole[name].marker for name in few
        }
        assert few["gradctrl"] == whole["gradctrl"]
    # A user's methods and floors move no other, whatever their names; theirs follow their order.
    own = make_theme([*names, "0", "sega", "zz", "low", "random_0"], [*FLOORS, "low", "random_0"])
    assert all(own[name] == whole[name] for name in names)
    alone = make_theme(["zz", "0", "sega"])
    assert {name: theme.marker for name, theme in alone.items()} == {
        name: own[name].marker for name in ("0", "sega", "zz")
    }


def test_no_two_methods_look_alike() -> None:
    draw = np.random.default_rng(0)
    for count in draw.integers(1, 57, 40):
        slots = draw.choice(56, count, replace=False).tolist()
        pairs = {(colour, slot % len(MARKERS)) for slot, colour in colours_of(slots).items()}
        assert len(pairs) == count
    names = [f"m{k:03d}" for k in range(150)] + list(SLOTS)
    floors = [f"f{k}" for k in range(21)]
    assert make_theme(names + floors, floors) == make_theme(reversed(names + floors), floors)
    found = make_theme(names + floors, floors).values()
    assert (
        len({(theme.colour, theme.marker, theme.dash) for theme in found})
        == len(found)
        == len(names) + len(floors)
    )
    # Beside a name only colour and marker are seen.
    assert len({theme[:2] for theme in make_theme(names[-56:]).values()}) == 56


def test_floors_are_grey_and_told_apart() -> None:
    found = make_theme(["a", "random", "random_channel", "random_searched"], FLOORS)
    floors = [found[name] for name in FLOORS]
    assert {theme.colour for theme in floors} == {GREY} and found["a"].colour != GREY
    assert len({theme.marker for theme in floors}) == len({theme.dash for theme in floors}) == 3
    assert "-" not in {theme.dash for theme in floors} and found["a"].dash == "-"
    assert order_methods(found, found) == ["a", *FLOORS]


def test_many_curves_are_drawn_in_groups_that_can_be_told_apart() -> None:
    names = [*SLOTS[:14], *FLOORS]
    theme = make_theme(names, FLOORS)
    assert grouped(names[:8], theme) == [sorted(names[:8])]
    groups = grouped(names, theme)
    for group in groups:
        assert group[-3:] == FLOORS and len(group) <= MOST
        # One pair of a colour is left over, which the markers tell apart.
        assert len({theme[name].colour for name in group}) >= len(group) - 3
        assert len({theme[name][:2] for name in group}) == len(group)
    rivals = [name for group in groups for name in group[:-3]]
    assert sorted(rivals) == sorted(names[:14]) and len(groups) == 3
    # Floors alone, too many of them for every group.
    many = [f"f{k}" for k in range(20)]
    groups = grouped(many, make_theme(many, many))
    assert {name for group in groups for name in group} == set(many)
    assert max(map(len, groups)) <= MOST


def test_a_figure_of_many_curves_has_each_method_in_colour_once(tmp_path: Path) -> None:
    rows = pd.concat(
        metric_rows(ad=0.3 + 0.02 * k).assign(method=name, attribute=attribute)
        for k, name in enumerate([*SLOTS[:10], *FLOORS])
        for attribute in ("age", "smile")
    )
    curve = rows[rows["metric"] == "ad"]
    curve.loc[curve["method"] == "sefa", "note"] = "excluded: few successes"
    theme = make_theme(curve["method"], FLOORS)
    figure = figures.curve_figure(curve, theme, "AD")
    assert len(figure.subfigs) == 2
    seen = []
    for part in figure.subfigs:
        for axes in part.axes:
            lines = [line for line in axes.lines if line.get_color() != LINE]
            seen += [(line.get_color(), line.get_marker()) for line in lines]
            # The other curves are there, as one line with gaps.
            (pale,) = (line for line in axes.lines if line.get_color() == LINE)
            curves = int(np.isnan(pale.get_xdata()).sum())
            assert curves + len(lines) == 12 and axes.get_ylim() == part.axes[0].get_ylim()
    assert all(seen.count(theme[name][:2]) == 2 for name in SLOTS[:10] if name != "sefa")
    assert all(seen.count(theme[name][:2]) == 4 for name in FLOORS)
    told = [text.get_text() for part in figure.subfigs for text in part.axes[0].texts]
    assert told == ["excluded: sefa"]
    names = [text.get_text() for part in figure.subfigs for text in part.legends[0].get_texts()]
    assert sorted(names) == sorted(set(curve["method"]))
    # In print too, and no taller than a page.
    assert to_paper(figure).get_figheight() <= TALLEST
