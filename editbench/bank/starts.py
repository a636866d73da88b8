"""Start images and targets of the crossing test: drawn once from the test split, the same for every method.

Chen et al. 2022, section 4: "images with logits around the decision boundaries", each with a target attribute drawn
uniformly. Choices the paper leaves open: near means that q(x) = max over attributes of |margin| / sigma is among the M
smallest of the test split, M = `pool` times the size of the bank (15,000 of 500,000). That is the joint reading;
`near='target'` ranks by the target attribute alone and is kinder to everyone. `near='any'` draws uniformly from the
whole test split, near or far, for metrics that follow walks from anywhere (Khrulkov et al. 2021, section 4); every
start still lacks the class that it is asked for. An ordered attribute is asked for a neighbouring class.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """n starts in all; pool: candidates, as a share of the bank's size (near='any' has no pool: the whole test split);
    seed of the draw; near: 'joint', 'target' or 'any'."""

    n: int = 3000
    pool: float = 0.03
    seed: int = 0
    near: str = "joint"

    def __post_init__(self) -> None:
        check_fields("starts", self)
        check_at_least("starts.n", self.n, 1)
        if not 0 < self.pool <= 1:
            raise EditbenchError(f"starts.pool={self.pool} must lie in (0, 1]: a share of bank.n")
        check_choice("starts.near", self.near, NEAR)


@dataclass(frozen=True)
class Starts:
    """index (n,) bank indices; source, target (n,) classes of one attribute; threshold: the largest q of the pool, NaN
    where there is none."""

    index: np.ndarray
    source: np.ndarray
    target: np.ndarray
    threshold: float

    def __len__(self) -> int:
        return len(self.index)


def boundary_distance(logits: np.ndarray, sigma: np.ndarray, attributes: Attributes) -> np.ndarray:
    """|log-odds of the decided class| / sigma for every attribute: (n, width) -> (n, A)."""
    tensor = torch.from_numpy(np.asarray(logits, np.float64))
    odds, labels = attributes.log_odds(tensor).numpy(), attributes.labels(tensor)
    rows = np.arange(len(odds))
    out = []
    for position, name in enumerate(attributes.names):
        column = np.asarray(attributes.column(name, labels[:, position])[0])
        out.append(np.abs(odds[rows, column]) / sigma[column])
    return np.stack(out, 1)


def draw_targets(spec: StartsSpec, bank: Bank, names: list[str]) -> dict[str, Starts]:
    """Starts of every attribute in `names`: the draw depends on the bank, the spec and the names, on no method."""
    attributes = bank.judge_attributes
    columns = [attributes.index(name) for name in names]
    first, last = bank.spec.split("test")
    logits = bank.array("judge").range(first, last)
    distance = boundary_distance(logits, bank.sigma["judge"], attributes)[:, columns]
    pool = max(round(spec.pool * len(bank)), 1)
    if spec.near == "any" and spec.n > last - first:
        raise EditbenchError(
            f"starts.n={spec.n} exceeds the {last - first} samples of the test split of bank.n="
            f"{len(bank)}: raise bank.n, or lower starts.n"
        )
    if spec.near != "any" and spec.n > min(pool, last - first):
        raise EditbenchError(
            f"starts.n={spec.n} exceeds the pool of {min(pool, last - first)} near-boundary samples "
            f"(starts.pool={spec.pool} of bank.n={len(bank)}, {last - first} of them in the test "
            "split): raise bank.n or starts.pool, or lower starts.n"
        )
    rng = generator(spec.seed, "starts", bank.samples_key, spec.n, spec.pool, spec.near, *names)
    if spec.near == "joint":
        q = distance.max(1)
        candidates = np.argsort(q, kind="stable")[:pool]
        threshold = q[candidates].max()
        chosen = np.sort(rng.permutation(candidates)[: spec.n])
        asked = rng.integers(len(names), size=spec.n)
    elif spec.near == "target":
        asked = np.sort(rng.integers(len(names), size=spec.n))
        chosen = np.empty(spec.n, np.int64)
        for k in range(len(names)):
            candidates = np.argsort(distance[:, k], kind="stable")[:pool]
            chosen[asked == k] = np.sort(rng.permutation(candidates)[: int((asked == k).sum())])
        threshold = distance[chosen, asked].max()
    else:  # 'any'
        chosen = np.sort(rng.choice(last - first, size=spec.n, replace=False))
        asked = rng.integers(len(names), size=spec.n)
        threshold = np.nan
    labels = attributes.labels(torch.from_numpy(np.asarray(logits[chosen]))).numpy()
    draw = rng.random(spec.n)
    starts = {}
    for k, name in enumerate(names):
        mine = asked == k
        source = labels[mine, columns[k]]
        target = draw_classes(
            source, draw[mine], len(attributes[name].classes), attributes[name].ordered
        )
        starts[name] = Starts(chosen[mine] + first, source, target, float(threshold))
    return starts


def aim(starts: Starts, target: int | None) -> Starts:
    """The starts of other classes, all towards one class; None leaves the draw as it is."""
    if target is None:
        return starts
    keep = starts.source != target
    aimed = np.full(int(keep.sum()), target, starts.target.dtype)
    return Starts(starts.index[keep], starts.source[keep], aimed, starts.threshold)


def draw_classes(source: np.ndarray, draw: np.ndarray, classes: int, ordered: bool) -> np.ndarray:
    """A class other than the source's, uniformly; for an ordered attribute one of its neighbours."""
    if ordered:
        step = np.where(draw < 0.5, -1, 1)
        step = np.where(source == 0, 1, np.where(source == classes - 1, -1, step))
        return source + step
    return (source + 1 + (draw * (classes - 1)).astype(np.int64)) % classes
