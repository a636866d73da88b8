"""Dials: the same comparison in worlds that differ in one number, and the slopes of the results.

It reads records whose generator has a `rho`, a `linearity` or a `curvature`
(editbench.worlds.faces.dial). A slope is fitted by weighted least squares, with the variances of
the intervals. These cover starts and seeds, but not the training of the worlds' generators. Worlds
hardly share starts, so their numbers are treated as independent. The curvature dial is an
exception: its images are the same at every setting, so the slope takes the covariance of shared
starts into account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import ndtri

from editbench.figures.drawing import with_methods
from editbench.figures.panels import FEWEST
from editbench.report.cells import MISSING, number
from editbench.report.load import Results
from editbench.report.paired import keyed_values
from editbench.walk.rows import key_of

# Half the width of a 95 % interval in standard deviations, about 1.96.
Z95 = float(ndtri(0.975))
TITLES = {
    "entanglement": "side effect on the correlated attribute, σ",
    "accuracy": "accuracy",
    "ad_at": "AD at matched effect, σ",
}
METRICS = ("entanglement_with", "accuracy", "ad_at")  # the quantities come from these
WHISKERS = (
    f" Whiskers: 95 % intervals over starts and seeds. Points with fewer than {FEWEST} starts that "
    "reach the effect are left out."
)


@dataclass(frozen=True)
class Dial:
    """A number in which worlds differ.

    Attributes:
        key: option of the generator that sets it.
        title: heading of the figure and of the table.
        axis: label of the horizontal axis.
        caption: of the figure.
        correlates: whether it correlates pairs of attributes, so that an edit also changes the
            partner.
        paired: whether a sample is the same image at every setting.
    """

    key: str
    title: str
    axis: str
    caption: str
    correlates: bool
    paired: bool


DIALS = (
    Dial(
        "rho",
        "The entanglement dial",
        "rho of the world",
        "Plotted against the correlation rho of the world: the side effect on the correlated "
        "attribute (in σ, at matched effect, positive in the direction of the correlation), the "
        "accuracy at the first crossing, and AD at matched effect. The first panel is empty for an "
        "attribute that is correlated with no other." + WHISKERS,
        correlates=True,
        paired=False,
    ),
    Dial(
        "linearity",
        "The linearity dial",
        "lambda of the world",
        "Plotted against lambda, the weight of the term that makes the traits linear in W during "
        "the training of the generator (0: the curvature of W is not constrained): the accuracy at "
        "the first crossing, and AD at matched effect." + WHISKERS,
        correlates=False,
        paired=False,
    ),
    Dial(
        "curvature",
        "The curvature dial",
        "rotation in W, radians per standard deviation",
        "Plotted against the rotation that was applied to W (0: the network's own W; images, starts "
        "and S are the same at every setting): the accuracy at the first crossing, and AD at matched "
        "effect." + WHISKERS,
        correlates=False,
        paired=True,
    ),
)
SLOPE = (
    "values: at the smallest and at the largest setting (–: an attribute has no number there); "
    "slope: change per unit of the setting, by weighted least squares over the worlds, averaged "
    "over the attributes; 95 % interval over starts and seeds, for these generators"
)


def dial_of(results: Results) -> Dial | None:
    """The first dial for which the runs have at least two settings; None if there is none."""
    for dial in DIALS:
        settings = _settings(results, dial)
        if settings[results.runs["status"] == "done"].nunique() > 1:
            return dial
    return None


def title(results: Results) -> str:
    """Heading of the runs' dial; '' if there is none."""
    dial = dial_of(results)
    return dial.title if dial else ""


def _settings(results: Results, dial: Dial) -> pd.Series:
    """The setting of each run, in the order of results.runs; NaN if its generator has none."""
    # A world may have no dial, and the record of a failed run may have no generator.
    found = {
        run: (config.get("generator") or {}).get(dial.key)
        for run, config in results.configs.items()
    }
    return pd.to_numeric(results.runs["run_id"].map(found), errors="coerce")


def partners_of(attributes: Iterable[str], dial: Dial) -> dict[str, tuple[str, int]]:
    """The trait that each attribute is correlated with, and the sign of the correlation.

    Args:
        attributes: names.
        dial: if it does not correlate traits, there are no partners.

    Returns:
        Attribute -> (trait, 1 or -1), without the attributes that have no partner.
    """
    if not dial.correlates:
        return {}
    # Imported here, since the worlds need torch and most reports have no dial.
    from editbench.worlds.faces.dial import partner

    found = {name: partner(name) for name in attributes}
    return {name: pair for name, pair in found.items() if pair is not None}


def points(results: Results) -> pd.DataFrame:
    """The numbers of the figure.

    Values with a note are left out, and so are bootstrap means over fewer than FEWEST starts, whose
    intervals are too narrow to be used as weights.

    Returns:
        One row per number: run_id, key (of the number, `key_of`), method, attribute, dial (the
        setting), quantity (a key of TITLES), value, low, high, count, seed_variance. Empty if fewer
        than two settings were run.
    """
    columns = [
        "run_id",
        "key",
        "method",
        "attribute",
        "dial",
        "quantity",
        "value",
        "low",
        "high",
        "count",
        "seed_variance",
    ]
    dial = dial_of(results)
    # A single world has no slope.
    if dial is None:
        return pd.DataFrame(columns=columns)
    runs = results.runs.assign(dial=_settings(results, dial))
    runs = runs[np.isfinite(runs["dial"])]
    rows = results.rows
    rows = rows[np.isfinite(rows["value"]) & (rows["note"] == "")]
    found = with_methods(rows, runs, "dial")
    # The correlated pairs are known from the definition of the world.
    partners = partners_of(runs["attribute"].unique(), dial)
    # Of an attribute's entanglements, only the one with its partner is kept.
    with_partner = found["attribute"].map(
        {name: partner for name, (partner, _) in partners.items()}
    )
    wanted = (found["metric"] == "entanglement_with") & (found["variant"] == with_partner)
    found["quantity"] = np.where(wanted, "entanglement", found["metric"])
    # The interval of accuracy is Wilson's, which is also valid for few starts.
    enough = (found["count"] >= FEWEST) | (found["quantity"] == "accuracy")
    found = found[found["quantity"].isin(list(TITLES)) & enough].copy()
    found["key"] = [key_of(record) for record in found.to_dict("records")]
    # Beard and long hair are correlated by -rho. With the sign reversed, a positive number always
    # means a change in the direction of the correlation.
    negative = [name for name, (_, sign) in partners.items() if sign < 0]
    turned = (found["quantity"] == "entanglement") & found["attribute"].isin(negative)
    # The ends of the interval are swapped. to_numpy, since pandas would align columns by name.
    ends = found.loc[turned, ["value", "high", "low"]].to_numpy()
    found.loc[turned, ["value", "low", "high"]] = -ends
    return found[columns].sort_values(
        ["quantity", "attribute", "method", "dial"], ignore_index=True
    )


@lru_cache(maxsize=1)
def slopes(results: Results) -> pd.DataFrame:
    """Slopes of the quantities over the setting, as means over attributes.

    The terminal, Markdown, CSV and the page use the same table, which must not be changed.

    Returns:
        One row per method and quantity: first and last (means over attributes at the smallest and
        largest setting of the dial; NaN if one of the attributes has no number there), slope, low,
        high, attributes (their number), and worlds (the smallest number of any attribute). An
        attribute with one world has no slope and is left out.
    """
    found = points(results)
    dial = dial_of(results)
    starts = keyed_values(results, METRICS) if dial is not None and dial.paired else {}
    ends = [found["dial"].min(), found["dial"].max()]
    rows = []
    for (quantity, method), group in found.groupby(["quantity", "method"]):
        fits = {
            name: fit
            # One line per attribute, since pooling would mix differences of level into the slope.
            for name, part in group.groupby("attribute")
            if (fit := _line(part, starts)) is not None
        }
        if not fits:
            continue
        slope, variance = np.array(list(fits.values())).T
        # The variance of a mean of independent slopes.
        half = Z95 * np.sqrt(variance.sum()) / len(fits)
        # Only attributes with a slope, so that first, last and slope are over the same ones.
        used = group[group["attribute"].isin(list(fits))]
        by_setting = used.pivot_table(index="dial", columns="attribute", values="value")
        # Unknown if an attribute has no number at this setting.
        first, last = by_setting.reindex(ends).mean(axis=1, skipna=False)
        rows.append(
            {
                "quantity": quantity,
                "method": method,
                "first": first,
                "last": last,
                "slope": slope.mean(),
                "low": slope.mean() - half,
                "high": slope.mean() + half,
                "attributes": len(fits),
                # The minimum, since the line with the fewest points is the least reliable.
                "worlds": int(by_setting.count().min()),
            }
        )
    columns = [
        "quantity",
        "method",
        "first",
        "last",
        "slope",
        "low",
        "high",
        "attributes",
        "worlds",
    ]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values(
        ["quantity", "slope"],
        ignore_index=True,
        # Sorted by the absolute slope, the strength of the dependence.
        key=lambda column: column.abs() if column.name == "slope" else column,
    )


def _line(
    part: pd.DataFrame, starts: Mapping[tuple[str, tuple], pd.Series]
) -> tuple[float, float] | None:
    """(slope, its variance) of the values over the setting; None with fewer than two settings.

    Args:
        part: points of a method, attribute and quantity.
        starts: (run_id, key) -> values by start; empty if the points are independent.
    """
    # Bootstrap and Wilson intervals are treated as those of a normal distribution.
    deviation = (part["high"] - part["low"]).to_numpy(np.float64) / (2 * Z95)
    # An interval of width 0 would have an infinite weight.
    sound = np.isfinite(deviation) & (deviation > 0)
    part = part[sound]
    deviation = deviation[sound]
    setting = part["dial"].to_numpy(np.float64)
    if len(np.unique(setting)) < 2:
        return None
    weight = deviation**-2
    centred = setting - np.average(setting, weights=weight)
    # The slope is the sum of the values times these factors.
    factors = weight * centred / (weight * centred**2).sum()
    covariance = np.diag(deviation**2) + _shared_covariance(part, deviation, starts)
    slope = factors @ part["value"].to_numpy(np.float64)
    # If all starts agree, rounding may give a slightly negative variance.
    return float(slope), float(max(0.0, factors @ covariance @ factors))


def _shared_covariance(
    part: pd.DataFrame, deviation: np.ndarray, starts: Mapping[tuple[str, tuple], pd.Series]
) -> np.ndarray:
    """Covariances of points due to shared starts: (points, points), 0 on the diagonal.

    Let two means be over n_a and n_b values, of which n are of the same starts, with correlation r.
    Their covariance is r n / sqrt(n_a n_b) times their standard deviations over starts. The seeds'
    part of a deviation is not shared.

    Args:
        part: the points.
        deviation: of each point, including the part of the seeds.
        starts: as in `_line`.
    """
    covariance = np.zeros((len(part), len(part)))
    by_seeds = np.nan_to_num(part["seed_variance"].to_numpy(np.float64))
    over_starts = np.sqrt(np.clip(deviation**2 - by_seeds, 0, None))
    keys = list(zip(part["run_id"], part["key"]))
    for (j, one), (k, other) in combinations(enumerate(keys), 2):
        if one not in starts or other not in starts:
            continue
        shared = pd.concat([starts[one], starts[other]], axis=1).dropna().to_numpy()
        # With too few starts, or constant values, the correlation is unknown.
        if len(shared) < FEWEST or not shared.std(0).all():
            continue
        overlap = len(shared) / np.sqrt(starts[one].count() * starts[other].count())
        correlation = np.corrcoef(shared.T)[0, 1] * overlap
        covariance[j, k] = covariance[k, j] = correlation * over_starts[j] * over_starts[k]
    return covariance


def table(results: Results) -> list[list[str]]:
    """Headings, then one row per method, sorted by the first slope; empty without a dial."""
    found = slopes(results)
    if found.empty:
        return []
    shown = [name for name in TITLES if name in set(found["quantity"])]
    # `slopes` sorts by absolute slope. Rows are in the order of the first quantity; methods without
    # it follow, in the order of the next quantities.
    ordered = [found.loc[found["quantity"] == name, "method"] for name in shown]
    order = list(dict.fromkeys(pd.concat(ordered)))
    cells = {(row["method"], row["quantity"]): row for row in found.to_dict("records")}
    heads = ["method"]
    for name in shown:
        heads += [name.replace("ad_at", "AD"), "slope"]
    lines = [heads]
    for method in order:
        line = [method]
        for name in shown:
            one = cells.get((method, name))
            # A method may support no attribute that has this quantity.
            if one is None:
                line += [MISSING, MISSING]
                continue
            line += [
                f"{number(one['first'], 3)} → {number(one['last'], 3)}",
                f"{number(one['slope'], 3)} ({number(one['low'], 3)} to {number(one['high'], 3)})",
            ]
        lines.append(line)
    return lines
