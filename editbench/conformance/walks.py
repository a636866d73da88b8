"""Walks that a metric is tried on: logits of a random walk towards the target class.

Ids of the starts have gaps. Some walks stop soon, some go on past their crossing, some never cross.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from editbench.base.attributes import Attribute, Attributes
from editbench.conformance.toy import BINARY, MIXED
from editbench.walk.trajectory import KEYS, LOGIT, Trajectories

STARTS = 24
STEPS = 9
DRIFT = 0.45  # of the target's logit per step, in logits
NOISE = 0.25  # of every logit per step
ALONE = Attributes([Attribute("a", ("no", "yes"))])


def make_walks(
    attributes: Attributes = BINARY,
    attribute: str = "a",
    seed: int = 0,
    reads: Sequence[str] = (),
) -> Trajectories:
    """The walks of a job, in memory of their own.

    Args:
        attributes: that the judge knows.
        attribute: that is edited.
        seed: of the noise.
        reads: columns of an observation, see `Metric.reads`; they get positive numbers.
    """
    rng = np.random.default_rng(seed)
    item = attributes[attribute]
    walks = []
    for place in range(STARTS):
        source = place % len(item.classes)
        # An ordered attribute goes to a neighbour, as the starts of a job do.
        target = source + 1 if source + 1 < len(item.classes) else source - 1
        walks.append(_walk(attributes, attribute, 7 * place + 5, source, target, rng))
    sigma = np.linspace(1.0, 2.0, attributes.width)
    # Joined before the table is made: two dozen tables would take most of the time of a check.
    columns = {name: np.concatenate([walk[name] for walk in walks]) for name in walks[0]}
    # After all walks, so that these are the same with and without an observation.
    for name in reads:
        columns[name] = rng.uniform(0.5, 1.5, len(columns["start"]))
    return Trajectories(pd.DataFrame(columns), attributes, attribute, sigma)


def _walk(
    attributes: Attributes,
    attribute: str,
    start: int,
    source: int,
    target: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """The columns of one walk, from a sample of class `source`."""
    length = int(rng.integers(4, STEPS))
    logits = rng.normal(0, NOISE, (length, attributes.width)).cumsum(0)
    logits += rng.normal(0, 1, attributes.width)
    first = int(attributes.column(attribute, 0)[0])
    item = attributes[attribute]
    steps = np.arange(length)
    # Every third walk is too slow to arrive.
    way = DRIFT * steps * (0.2 if start % 3 == 0 else 1.0)
    if item.binary:
        sign = 1 if target == 1 else -1
        # So far from the boundary that the noise of the first row does not carry it across.
        logits[:, first] = sign * (way - rng.uniform(0.3, 1.2))
    else:
        own = slice(first, first + item.width)
        logits[:, own] = rng.normal(0, 0.05, (length, item.width))
        logits[:, first + source] += 0.7
        logits[:, first + target] += way
    labels = attributes.labels(torch.tensor(logits), attribute).numpy()
    over = labels == target
    # As in the engine: a start is not of its target class.
    over[0] = False
    crossed = np.maximum.accumulate(over)
    table = {
        "start": np.full(length, start),
        "source": np.full(length, source),
        "target": np.full(length, target),
        "step": steps,
        "path": 0.5 * steps,
        "crossed": crossed,
        "stopped": crossed & (np.cumsum(crossed) == 1),
        "finite": np.ones(length, bool),
    }
    named = {f"{LOGIT}{name}": logits[:, k] for k, name in enumerate(attributes.columns())}
    return table | named


def of_starts(walks: Trajectories, starts: np.ndarray) -> Trajectories:
    """The walks of some starts.

    Args:
        walks: of all starts.
        starts: ids of the starts, int64, in the order that the table gets; may be empty.
    """
    groups = dict(list(walks.table.groupby("start")))
    tables = [groups[start] for start in starts.tolist()]
    # A table without rows keeps its columns and their types.
    table = pd.concat(tables, ignore_index=True) if tables else walks.table.iloc[:0].copy()
    return replace(walks, table=table)


def diverged(walks: Trajectories, every: int) -> Trajectories:
    """The walks, some of which become NaN after their start and end there.

    Args:
        walks: all finite; they are not changed.
        every: the first walk diverges, and every `every`-th after it; 1 for all.
    """
    table = walks.table.copy()
    # Counted, since the ids of the starts have gaps.
    place = pd.factorize(table["start"])[0]
    lost = (place % every == 0) & (table["step"] > 0).to_numpy()
    # What an observation measures of an image of NaN is NaN too.
    measured = [name for name in table.columns if name not in KEYS]
    table.loc[lost, measured] = np.nan
    table.loc[lost, ["crossed", "stopped", "finite"]] = False
    # The engine takes a walk that diverged no further.
    kept = ~(lost & (table["step"] > 1).to_numpy())
    return replace(walks, table=table[kept].reset_index(drop=True))


def many_classes(reads: Sequence[str] = ()) -> list[Trajectories]:
    """Walks between the classes of an attribute of many, and of an ordered one.

    Args:
        reads: as for `make_walks`.
    """
    return [make_walks(MIXED, name, reads=reads) for name in ("kind", "angle")]
