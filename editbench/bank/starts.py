"""Start images and targets of the crossing test.

They are drawn once from the test split, and are the same for every method. Chen et al. 2022, section
4, take "images with logits around the decision boundaries", each with a target attribute drawn
uniformly. The paper leaves open what near means:

- `near='joint'`: q(x), the largest |margin| / sigma over the attributes, is among the M smallest of
  the test split. M is `pool` times the size of the bank (15,000 of 500,000).
- `near='target'`: the same for the margin of the target attribute alone, which makes the test easier
  for every method.
- `near='any'`: uniform over the whole test split, for metrics that follow walks from anywhere
  (Khrulkov et al. 2021, section 4).

The target is a class that the start does not have; for an ordered attribute, a neighbouring one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from editbench.bank.bank import Bank
from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError
from editbench.base.seeding import generator
from editbench.base.validation import check_at_least, check_choice, check_fields

NEAR = ("joint", "target", "any")  # how starts are chosen, see above


@dataclass(frozen=True)
class StartsSpec:
    """How starts are drawn.

    Args:
        n: starts of all attributes together.
        pool: candidates, as a share of the bank's size. near='any' has no pool.
        seed: of the draw.
        near: 'joint', 'target' or 'any'; see the module.
        min_quality: samples that the judge can judge less well than this are no starts; None takes
            all. The number is in the unit of the judge, see its YAML.

    Raises:
        EditbenchError: a field is out of its range, or of the wrong kind.
    """

    n: int = 3000
    pool: float = 0.03
    seed: int = 0
    near: str = "joint"
    min_quality: float | None = None

    def __post_init__(self) -> None:
        check_fields("starts", self)
        check_at_least("starts.n", self.n, 1)
        if not 0 < self.pool <= 1:
            raise EditbenchError(f"starts.pool={self.pool} must lie in (0, 1]: a share of bank.n")
        check_choice("starts.near", self.near, NEAR)


@dataclass(frozen=True)
class Starts:
    """The starts of one attribute.

    Args:
        index: (n,) places in the bank.
        source: (n,) classes that they have.
        target: (n,) classes that they are to reach.
        threshold: the largest q of the pool, in standard deviations; NaN where there is no pool.
        refused: share of the test split that min_quality refuses.
    """

    index: np.ndarray
    source: np.ndarray
    target: np.ndarray
    threshold: float
    refused: float = 0.0

    def __len__(self) -> int:
        return len(self.index)


def boundary_distance(logits: np.ndarray, sigma: np.ndarray, attributes: Attributes) -> np.ndarray:
    """How far samples are from the decision boundary of every attribute.

    Args:
        logits: (n, width) of the judge.
        sigma: (width,) standard deviation of each log-odds.
        attributes: of the judge.

    Returns:
        (n, A): |log-odds of the decided class| / sigma.
    """
    tensor = torch.from_numpy(np.asarray(logits, np.float64))
    odds = attributes.log_odds(tensor).numpy()
    labels = attributes.labels(tensor)
    # The log-odds of the decided class say how far the sample is from leaving it.
    rows = np.arange(len(odds))
    out = []
    for position, name in enumerate(attributes.names):
        column = np.asarray(attributes.column(name, labels[:, position])[0])
        out.append(np.abs(odds[rows, column]) / sigma[column])
    return np.stack(out, 1)


def draw_targets(spec: StartsSpec, bank: Bank, names: list[str]) -> dict[str, Starts]:
    """Draw the starts of several attributes. The draw depends on no method.

    Args:
        spec: how many, and how near.
        bank: whose test split they come from.
        names: of the attributes that share the draw.

    Returns:
        Name -> its starts, sorted by index.

    Raises:
        EditbenchError: the test split or the pool is smaller than spec.n.
    """
    attributes = bank.judge_attributes
    columns = [attributes.index(name) for name in names]
    first, last = bank.spec.split("test")
    allowed = usable(spec, bank)
    # The judge's classes and margins: a start is near the boundary that a crossing is measured at.
    logits = bank.array("judge").range(first, last)[allowed]
    refused = 1 - len(allowed) / (last - first)
    distance = boundary_distance(logits, bank.sigma["judge"], attributes)[:, columns]
    pool = max(round(spec.pool * len(bank)), 1)
    if spec.near == "any" and spec.n > len(allowed):
        raise EditbenchError(
            f"starts.n={spec.n} exceeds the {len(allowed)} usable samples of the test split of bank.n="
            f"{len(bank)}: raise bank.n, or lower starts.n"
        )
    if spec.near != "any" and spec.n > min(pool, len(allowed)):
        raise EditbenchError(
            f"starts.n={spec.n} exceeds the pool of {min(pool, len(allowed))} near-boundary samples "
            f"(starts.pool={spec.pool} of bank.n={len(bank)}, {len(allowed)} of them usable in the "
            "test split): raise bank.n or starts.pool, or lower starts.n"
        )
    # The key is of what the bank holds, so that another version of the code has the same starts.
    rng = generator(spec.seed, "starts", bank.samples_key, spec.n, spec.pool, spec.near, *names)
    if spec.near == "joint":
        q = distance.max(1)
        # A stable sort orders equal distances by index, whatever the version of NumPy.
        candidates = np.argsort(q, kind="stable")[:pool]
        threshold = q[candidates].max()
        chosen = np.sort(rng.permutation(candidates)[: spec.n])
        attribute = rng.integers(len(names), size=spec.n)
    elif spec.near == "target":
        # Each attribute has a pool of its own, so the attribute is drawn before the sample.
        attribute = np.sort(rng.integers(len(names), size=spec.n))
        chosen = np.empty(spec.n, np.int64)
        for k in range(len(names)):
            mine = attribute == k
            candidates = np.argsort(distance[:, k], kind="stable")[:pool]
            chosen[mine] = np.sort(rng.permutation(candidates)[: int(mine.sum())])
        threshold = distance[chosen, attribute].max()
    else:  # 'any'
        chosen = np.sort(rng.choice(len(allowed), size=spec.n, replace=False))
        attribute = rng.integers(len(names), size=spec.n)
        threshold = np.nan
    labels = attributes.labels(torch.from_numpy(np.asarray(logits[chosen]))).numpy()
    # One number a start, also where only one target is possible: the draws of the others then do
    # not depend on the attribute.
    draw = rng.random(spec.n)
    starts = {}
    for k, name in enumerate(names):
        mine = attribute == k
        source = labels[mine, columns[k]]
        classes = len(attributes[name].classes)
        target = draw_classes(source, draw[mine], classes, attributes[name].ordered)
        index = allowed[chosen[mine]] + first
        starts[name] = Starts(index, source, target, float(threshold), refused)
    return starts


def usable(spec: StartsSpec, bank: Bank) -> np.ndarray:
    """Samples of the test split that may be starts: (m,) places in it, in their order.

    Args:
        spec: whose min_quality decides.
        bank: with a field 'quality' where min_quality is set.

    Raises:
        EditbenchError: min_quality is set, and the bank's judge gave no quality.
    """
    first, last = bank.spec.split("test")
    if spec.min_quality is None:
        return np.arange(last - first)
    if "quality" not in bank.fields:
        raise EditbenchError(
            f"starts.min_quality={spec.min_quality:g} needs a judge that says how well a picture "
            "can be judged (quality: OUTPUT in the scorer's YAML); use one, or set it to null"
        )
    quality = bank.array("quality").range(first, last)[:, 0]
    return np.flatnonzero(quality >= spec.min_quality)


def aim(starts: Starts, target: int | None) -> Starts:
    """Send all starts towards one class.

    Args:
        starts: as drawn.
        target: the class; starts that have it already are left out. None leaves the draw as it is.
    """
    if target is None:
        return starts
    keep = starts.source != target
    aimed = np.full(int(keep.sum()), target, starts.target.dtype)
    return replace(starts, index=starts.index[keep], source=starts.source[keep], target=aimed)


def draw_classes(source: np.ndarray, draw: np.ndarray, classes: int, ordered: bool) -> np.ndarray:
    """Turn uniform draws into target classes.

    Args:
        source: (n,) classes of the starts.
        draw: (n,) uniform in [0, 1).
        classes: how many there are.
        ordered: whether only the neighbours of a class are targets.

    Returns:
        (n,) classes, none of them the source.
    """
    if ordered:
        # The first and the last class have one neighbour each.
        step = np.where(draw < 0.5, -1, 1)
        step = np.where(source == 0, 1, np.where(source == classes - 1, -1, step))
        return source + step
    # 1 to classes - 1 steps further, around the end: every class but the source, equally likely.
    return (source + 1 + (draw * (classes - 1)).astype(np.int64)) % classes
