"""The tables of an atlas: all effects, a summary of each direction, and the best directions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.studies.atlas.make import Atlas

EPS = 1e-6  # sigmas: least off-target effect that is divided by


def effect_table(atlas: Atlas) -> pd.DataFrame:
    """All effects, as in atlas.csv: one row per direction and strength.

    Columns: place, direction, strength, distance; for each log-odds its mean change in sigmas and,
    with the ending `_error`, the standard error over the samples.
    """
    count = len(atlas.names)
    steps = len(atlas.strengths)
    columns: dict[str, object] = {
        "place": np.repeat(np.arange(count), steps),
        "direction": np.repeat(np.array(atlas.names, dtype=object), steps),
        "strength": np.tile(atlas.strengths, count),
        "distance": atlas.measured.distance.flatten().numpy(),
    }
    for at, name in enumerate(atlas.attributes.columns()):
        columns[name] = atlas.measured.change[..., at].flatten().numpy()
        columns[f"{name}_error"] = atlas.measured.error[..., at].flatten().numpy()
    return pd.DataFrame(columns)


def off_target(atlas: Atlas) -> np.ndarray:
    """What an edit does to the other attributes.

    Returns:
        (K, T, A) for each attribute the mean over the others of the mean absolute change of a
        sample, in sigmas; an attribute of many classes counts with the mean over its classes. NaN
        where there is no other attribute.
    """
    sizes = atlas.measured.size.numpy()
    of_attribute = []
    for name in atlas.attributes.names:
        of_attribute.append(sizes[..., atlas.attributes.slices[name]].mean(-1))
    moved = np.stack(of_attribute, -1)
    others = moved.shape[-1] - 1
    if not others:
        return np.full_like(moved, np.nan)
    return (moved.sum(-1, keepdims=True) - moved) / others


def summary_table(atlas: Atlas) -> pd.DataFrame:
    """One row per direction, from its largest strengths on both sides.

    Columns: place, direction; strongest, the log-odds that moves most at an end, with its effect
    (signed, in sigmas), the strength of that end, off_target there, and ratio, the size of the
    effect over off_target; distance, the larger of both ends; and for each log-odds NAME:low and
    NAME:high, its change at the negative and the positive end.
    """
    ends = [0, len(atlas.strengths) - 1]
    change = atlas.measured.change.numpy()[:, ends]
    beside = off_target(atlas)[:, ends]
    distance = atlas.measured.distance.numpy()[:, ends]
    names = atlas.attributes.columns()
    owner = _owners(atlas)
    rows = []
    for place, direction in enumerate(atlas.names):
        # A broken picture has no effect to be sorted by.
        sizes = np.nan_to_num(np.abs(change[place]), nan=-1.0)
        end, column = np.unravel_index(sizes.argmax(), sizes.shape)
        effect = float(change[place, end, column])
        aside = float(beside[place, end, owner[column]])
        row: dict[str, object] = {
            "place": place,
            "direction": direction,
            "strongest": names[column],
            "effect": effect,
            "strength": atlas.strengths[ends[end]],
            "off_target": aside,
            "ratio": abs(effect) / max(aside, EPS),
            "distance": float(distance[place].max()),
        }
        for at, name in enumerate(names):
            row[f"{name}:low"] = float(change[place, 0, at])
            row[f"{name}:high"] = float(change[place, 1, at])
        rows.append(row)
    return pd.DataFrame(rows)


def best_directions(atlas: Atlas, least: float) -> pd.DataFrame:
    """For each log-odds and side the direction with the largest ratio of effect to off-target.

    Args:
        atlas: of a method.
        least: sigmas that the effect must have at some strength to count.

    Returns:
        Columns: attribute, side (-1 or 1), direction, strength, effect, off_target, distance; a
        side without any such direction has direction '' and the largest effect that there is.
    """
    change = atlas.measured.change.numpy()
    beside = off_target(atlas)
    owner = _owners(atlas)
    rows = []
    for at, name in enumerate(atlas.attributes.columns()):
        aside = beside[..., owner[at]]
        for side in (-1, 1):
            effect = side * change[..., at]
            # A comparison with NaN is false: broken pictures are out of the choice.
            enough = effect >= least
            reached = bool(enough.any())
            values = np.where(effect > -np.inf, effect, -np.inf)
            if reached:
                values = np.where(enough, effect / np.fmax(aside, EPS), -np.inf)
            place, step = np.unravel_index(values.argmax(), values.shape)
            rows.append(
                {
                    "attribute": name,
                    "side": side,
                    "direction": atlas.names[place] if reached else "",
                    "strength": atlas.strengths[step],
                    "effect": float(change[place, step, at]),
                    "off_target": float(aside[place, step]),
                    "distance": float(atlas.measured.distance[place, step]),
                }
            )
    return pd.DataFrame(rows)


def _owners(atlas: Atlas) -> list[int]:
    """The attribute of each log-odds column, by its place."""
    owners = []
    for place, attribute in enumerate(atlas.attributes):
        owners += [place] * attribute.width
    return owners
