"""Starts and target classes of the crossing test.

They are drawn once from the test split, and are the same for every method. Chen et al. 2022,
section 4, take "images with logits around the decision boundaries", each with a target attribute
drawn uniformly: 15,000 candidates of 500,000 samples, 3 %. The paper leaves open what near means,
and both readings are here:

- `near='joint'`: q(x), the largest distance over the evaluated attributes (below), is among the M
  smallest of the candidates. The candidates are the test split, and M is `pool` times their number.
- `near='target'`: the same for the distance from the target attribute's boundary alone, with a pool
  of its own for each attribute. The test is then easier for every method: any step may cross.
- `near='any'`: uniform over the whole test split, for metrics that follow walks from anywhere
  (Khrulkov et al. 2021, section 4).

Distances are in the sigma of the judge's log-odds, see `Attributes.boundary_distance`; two classes
of many that tie are at distance 0. The starts are dealt evenly to the evaluated attributes. The
target is a class that the start does not have; for an ordered attribute, a neighbouring one. The
k-th start of the draw depends on the seed, the pool and k alone, so that a larger draw from the
same pool begins with the smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from editbench.bank.bank import Bank
from editbench.bank.spec import StartsSpec
from editbench.base import seeding
from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError


@dataclass(frozen=True)
class Starts:
    """The starts of one target attribute.

    Args:
        index: (n,) bank indices.
        source: (n,) classes of the starts.
        target: (n,) target classes.
        threshold: largest distance in the pool, in sigma; NaN if there is no pool.
        own: (n,) distance from the attribute's boundary, in sigma; None if unknown.
        other: (n,) distance from the nearest boundary of another evaluated attribute, in sigma; NaN
            if there is no other attribute; None if unknown.
        refused: share of the test split that min_quality excludes.
    """

    index: np.ndarray
    source: np.ndarray
    target: np.ndarray
    threshold: float
    own: np.ndarray | None = None
    other: np.ndarray | None = None
    refused: float = 0.0

    def __len__(self) -> int:
        return len(self.index)

    def distances(self) -> dict[str, float]:
        """Median distances in sigma: from the target attribute's boundary, and from the nearest
        boundary of another attribute."""
        found: dict[str, float] = {}
        for name, values in (("target", self.own), ("nearest_other", self.other)):
            if values is not None and len(values) and not np.isnan(values).all():
                found[name] = float(np.median(values))
        return found


def boundary_distance(logits: np.ndarray, sigma: np.ndarray, attributes: Attributes) -> np.ndarray:
    """`Attributes.boundary_distance` for NumPy arrays, in float64.

    Args:
        logits: (n, width) of the judge.
        sigma: (width,) standard deviation of each log-odds.
        attributes: of the judge.

    Returns:
        (n, A) in sigma.
    """
    tensor = torch.from_numpy(np.asarray(logits, np.float64))
    return attributes.boundary_distance(tensor, torch.from_numpy(np.asarray(sigma))).numpy()


@dataclass(frozen=True)
class Candidates:
    """The samples from which starts are drawn.

    Args:
        index: (n,) their positions in the bank, or in another table.
        logits: (n, width) of the judge.
        sigma: (width,) standard deviation of each log-odds, the unit of distance.
        attributes: the evaluated attributes.
        key: identifies the samples independently of the version of the code that made them. It is
            part of the draw's seed.
    """

    index: np.ndarray
    logits: np.ndarray
    sigma: np.ndarray
    attributes: Attributes
    key: str


def draw_targets(spec: StartsSpec, bank: Bank) -> dict[str, Starts]:
    """Draw the starts of all evaluated attributes. The draw does not depend on the method.

    Args:
        spec: how many starts, and how near the boundaries.
        bank: the starts come from its test split; it has only the evaluated attributes, see
            `Bank.select`.

    Returns:
        Attribute -> its starts, sorted by index.

    Raises:
        EditbenchError: the test split or a pool is smaller than what is drawn from it.
    """
    first, last = bank.spec.split("test")
    allowed = usable(spec, bank)
    what = "the test split" if spec.min_quality is None else "the test split above min_quality"
    spec.check_enough(len(allowed), len(bank.judge_attributes), what)
    candidates = Candidates(
        allowed + first,
        # The judge's logits, since crossings are measured at the judge's boundary.
        bank.array("judge").range(first, last)[allowed],
        bank.sigma["judge"],
        bank.judge_attributes,
        bank.samples_key,
    )
    refused = 1 - len(allowed) / (last - first)
    drawn = draw_among(spec, candidates)
    return {name: replace(starts, refused=refused) for name, starts in drawn.items()}


def draw_among(spec: StartsSpec, candidates: Candidates) -> dict[str, Starts]:
    """Draw the starts of all attributes. The caller has checked that there are enough candidates.

    Args:
        spec: how many starts, and how near; its min_quality has been applied to the candidates.
        candidates: all samples that may become starts.

    Returns:
        Attribute -> its starts, sorted by index.
    """
    attributes = candidates.attributes
    distance = boundary_distance(candidates.logits, candidates.sigma, attributes)
    labels = attributes.labels(torch.from_numpy(np.asarray(candidates.logits))).numpy()
    starts: dict[str, Starts] = {}
    draws = _draw(spec, candidates.key, distance, attributes.names)
    for k, (name, (chosen, draw, threshold)) in enumerate(zip(attributes.names, draws)):
        order = np.argsort(chosen)
        chosen = chosen[order]
        source = labels[chosen, k]
        classes = len(attributes[name].classes)
        others = np.delete(distance[chosen], k, 1)
        starts[name] = Starts(
            candidates.index[chosen],
            source,
            draw_classes(source, draw[order], classes, attributes[name].ordered),
            threshold,
            distance[chosen, k],
            others.min(1) if others.shape[1] else np.full(len(chosen), np.nan),
        )
    return starts


def _draw(
    spec: StartsSpec, key: str, distance: np.ndarray, names: tuple[str, ...]
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Draw the samples of every attribute.

    Args:
        spec: of the draw.
        key: of the bank's samples, so that every version of the code draws the same starts.
        distance: (candidates, A) distance from each boundary.
        names: of the evaluated attributes.

    Returns:
        For each attribute: positions (m,) among the candidates, uniform draws (m,) for the target
        classes, and the threshold of the pool.
    """
    candidates = len(distance)
    size = spec.pool_size(candidates)
    # The seed leaves out n, so that a larger draw begins with the smaller one.
    seeds = (spec.seed, "starts", key, spec.pool, spec.near)
    found = []
    if spec.near == "target":
        # One pool and one independent draw per attribute.
        for k, count in enumerate(spec.counts(len(names))):
            pool, threshold = _nearest(distance[:, k], size)
            places, draws = _shuffled(seeding.rng(*seeds, names[k]), pool)
            found.append((places[:count], draws[:count], threshold))
        return found
    pool = np.arange(candidates)
    threshold = float("nan")
    if spec.near == "joint":
        pool, threshold = _nearest(distance.max(1), size)
    # One draw for all attributes, dealt in turn, so that no sample is a start of two attributes.
    places, draws = _shuffled(seeding.rng(*seeds, *names), pool)
    for k in range(len(names)):
        mine = slice(k, spec.n, len(names))
        found.append((places[mine], draws[mine], threshold))
    return found


def _nearest(distance: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Positions of the `size` smallest distances (candidates,), and the largest of these."""
    # A stable sort orders equal distances by index in every version of NumPy.
    pool = np.argsort(distance, kind="stable")[:size]
    return pool, float(distance[pool].max())


def _shuffled(rng: np.random.Generator, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A pool in random order, and one uniform number for each of its samples."""
    # A number is drawn even if only one target is possible, so that other draws do not change.
    return rng.permutation(pool), rng.random(len(pool))


def usable(spec: StartsSpec, bank: Bank) -> np.ndarray:
    """Samples of the test split that may be starts: (m,) ascending positions in the split.

    Args:
        spec: gives min_quality.
        bank: must have the field 'quality' if min_quality is set.

    Raises:
        EditbenchError: min_quality is set, but the bank has no quality from its judge.
    """
    first, last = bank.spec.split("test")
    if spec.min_quality is None:
        return np.arange(last - first)
    if "quality" not in bank.fields:
        raise EditbenchError(
            f"starts.min_quality={spec.min_quality:g} needs a judge that rates the quality of an "
            "image (quality: OUTPUT in the scorer's YAML); use one, or set it to null"
        )
    quality = bank.array("quality").range(first, last)[:, 0]
    return np.flatnonzero(quality >= spec.min_quality)


def set_target(starts: Starts, target: int | None) -> Starts:
    """Give all starts the same target class.

    Args:
        starts: as drawn.
        target: the class; starts that already have it are left out. None leaves the draw unchanged.
    """
    if target is None:
        return starts
    # A start that has the class already has no boundary to cross.
    keep = starts.source != target
    targets = np.full(int(keep.sum()), target, starts.target.dtype)
    own = None if starts.own is None else starts.own[keep]
    other = None if starts.other is None else starts.other[keep]
    return replace(
        starts,
        index=starts.index[keep],
        source=starts.source[keep],
        target=targets,
        own=own,
        other=other,
    )


def draw_classes(source: np.ndarray, draw: np.ndarray, classes: int, ordered: bool) -> np.ndarray:
    """Turn uniform draws into target classes.

    Args:
        source: (n,) classes of the starts.
        draw: (n,) uniform in [0, 1).
        classes: number of classes.
        ordered: whether only neighbouring classes can be targets.

    Returns:
        (n,) target classes, which always differ from the source.
    """
    if ordered:
        # The first and the last class have only one neighbour.
        step = np.where(draw < 0.5, -1, 1)
        step = np.where(source == 0, 1, np.where(source == classes - 1, -1, step))
        return source + step
    # 1 to classes - 1 steps further, modulo classes: every class but the source, equally likely.
    return (source + 1 + (draw * (classes - 1)).astype(np.int64)) % classes
