"""The configuration of a bank and of the starts drawn from it, and when starts count as near.

Does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.validation import check_at_least, check_choice, check_fields

SPLITS = ("fit", "tune", "test")  # of a bank, in the order of the index
NEAR = ("joint", "target", "any")  # how starts are chosen, see editbench.bank.starts
NEARBY = 0.5  # sigma; starts whose median distance is larger are not near their boundary


@dataclass(frozen=True)
class BankSpec:
    """What a bank holds.

    Args:
        n: number of samples.
        seed: of the samples; sample i depends only on (seed, i).
        fit: share of the samples in the fit split, which editors learn from.
        tune: share of the samples in the tune split, on which editors choose their options. The
            rest is the test split.
        block: number of samples that are summed together, and computed together unless `bank.batch`
            is set. Blocks start at multiples of it, so that the numbers of shards and workers do
            not change a bit of the result.
        shard: samples per shard, a multiple of `block`. It only affects the layout of the files.

    Raises:
        EditbenchError: a field is out of its range, or of the wrong kind.
    """

    n: int
    seed: int = 0
    fit: float = 0.6
    tune: float = 0.1
    block: int = 64
    shard: int = 6400

    def __post_init__(self) -> None:
        check_fields("bank", self)
        check_at_least("bank.n", self.n, 1)
        check_at_least("bank.block", self.block, 1)
        check_at_least("bank.shard", self.shard, 1)
        # Otherwise blocks would start elsewhere, and other batches may change the last bits.
        if self.shard % self.block:
            raise EditbenchError(
                f"bank.shard={self.shard} must be a multiple of bank.block={self.block}"
            )
        if not (self.fit > 0 and self.tune >= 0 and self.fit + self.tune < 1):
            raise EditbenchError(
                f"bank.fit={self.fit} and bank.tune={self.tune} must leave a test split"
            )

    @property
    def shards(self) -> int:
        """Number of shards; the last one may have fewer than `shard` samples."""
        return -(-self.n // self.shard)

    def range_of(self, shard: int) -> tuple[int, int]:
        """First and last + 1 index of a shard."""
        return shard * self.shard, min(self.n, (shard + 1) * self.shard)

    def split(self, name: str) -> tuple[int, int]:
        """First and last + 1 index of a split. Raises UnknownName if it is not one of SPLITS."""
        if name not in SPLITS:
            raise UnknownName("split", name, SPLITS)
        # Cumulative sums are rounded, not shares, so that neighbouring splits leave no gap.
        ends = [0, round(self.fit * self.n), round((self.fit + self.tune) * self.n), self.n]
        position = SPLITS.index(name)
        return ends[position], ends[position + 1]


@dataclass(frozen=True)
class StartsSpec:
    """How starts are drawn.

    Args:
        n: total number of starts, over all attributes.
        pool: share of the candidates (the usable samples of the test split) that counts as near.
            With near='any' there is no pool.
        seed: of the draw.
        near: 'joint', 'target' or 'any'; see editbench.bank.starts.
        min_quality: samples whose quality for the judge is lower than this cannot be starts; None
            allows all. The unit is the judge's, see its YAML.

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
            raise EditbenchError(
                f"starts.pool={self.pool} must lie in (0, 1]: a share of the test split"
            )
        check_choice("starts.near", self.near, NEAR)

    def pool_size(self, candidates: int) -> int:
        """Number of candidates that count as near; all of them with near='any'."""
        if self.near == "any":
            return candidates
        return min(max(round(self.pool * candidates), 1), candidates)

    def counts(self, attributes: int) -> list[int]:
        """Starts of each attribute: n is dealt in turn, so the first ones may have one more."""
        return [len(range(k, self.n, attributes)) for k in range(attributes)]

    def check_enough(
        self,
        candidates: int,
        attributes: int,
        what: str = "the test split",
        more: str = "raise bank.n",
    ) -> None:
        """Check that there are enough candidates for the starts; needs no bank.

        Args:
            candidates: number of samples that starts are drawn from.
            attributes: number of evaluated attributes.
            what: name of the candidates in the message.
            more: remedy in the message, which would give more candidates.

        Raises:
            EditbenchError: a pool is smaller than what is drawn from it.
        """
        pool = self.pool_size(candidates)
        if self.near == "any":
            if self.n > pool:
                raise EditbenchError(
                    f"starts.n={self.n} exceeds the {pool} samples of {what}: "
                    f"{more}, or lower starts.n"
                )
            return
        about = f"starts.pool={self.pool} of the {candidates} samples of {what}"
        # With near='target' each attribute has its own pool; the first one has the most starts.
        most = self.counts(attributes)[0] if self.near == "target" else self.n
        if most <= pool:
            return
        # If all candidates together are too few, a larger pool does not help.
        larger = ", raise starts.pool" if most <= candidates else ""
        remedy = f"{more}{larger}, or lower starts.n"
        if self.near == "joint":
            raise EditbenchError(
                f"starts.n={self.n} exceeds the pool of {pool} samples near all evaluated "
                f"attributes ({about}): {remedy}"
            )
        raise EditbenchError(
            f"starts.n={self.n} over {attributes} attributes means {most} per attribute, which "
            f"exceeds its pool of {pool} near samples ({about}): {remedy}"
        )


def far_starts(distances: Mapping[str, float], near: str) -> str:
    """A warning if starts that should be near their boundary lie far from it; otherwise ''.

    Args:
        distances: from `Starts.distances`.
        near: the rule of the draw; 'any' does not require starts to be near.
    """
    own = distances.get("target")
    if near == "any" or own is None or own <= NEARBY:
        return ""
    return (
        f"half of the starts lie more than {own:.2f} sigma from the target's boundary, where "
        f"{NEARBY} counts as near: lower starts.pool, raise bank.n, or set starts.near=target"
    )
