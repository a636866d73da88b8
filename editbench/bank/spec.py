"""What a configuration says of a bank and of the starts drawn from it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from editbench.base.errors import EditbenchError
from editbench.base.validation import check_at_least, check_choice, check_fields

SPLITS = ("fit", "tune", "test")  # of a bank, in the order of the index
NEAR = ("joint", "target", "any")  # how starts are chosen, see editbench.bank.starts


@dataclass(frozen=True)
class BankSpec:
    """What a bank holds.

    Args:
        n: samples.
        seed: of the samples; sample i depends on (seed, i) alone.
        fit: share of the index range that editors learn from.
        tune: share that they choose their options on; the rest is the test split.
        block: samples that are computed together unless `bank.batch` says otherwise, and summed
            together in any case. Blocks start at multiples of it, so that the number of shards and
            workers changes no bit.
        shard: samples a shard, a multiple of `block`. It only lays out files.

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
        # Blocks would begin elsewhere with another shard size, and another batch may change bits.
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
        """Number of shards; the last one may be shorter than `shard`."""
        return -(-self.n // self.shard)

    def range_of(self, shard: int) -> tuple[int, int]:
        """First and last + 1 index of a shard."""
        return shard * self.shard, min(self.n, (shard + 1) * self.shard)

    def split(self, name: str) -> tuple[int, int]:
        """First and last + 1 index of a split: one of SPLITS."""
        # Rounded sums, not sums of rounded shares: neighbouring splits then meet without a gap.
        ends = [0, round(self.fit * self.n), round((self.fit + self.tune) * self.n), self.n]
        position = SPLITS.index(name)
        return ends[position], ends[position + 1]


@dataclass(frozen=True)
class StartsSpec:
    """How starts are drawn.

    Args:
        n: starts of all attributes together.
        pool: share of the candidates, which are the usable samples of the test split, that counts as
            near. near='any' has no pool.
        seed: of the draw.
        near: 'joint', 'target' or 'any'; see editbench.bank.starts.
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
            raise EditbenchError(
                f"starts.pool={self.pool} must lie in (0, 1]: a share of the test split"
            )
        check_choice("starts.near", self.near, NEAR)

    def pool_size(self, candidates: int) -> int:
        """How many of the candidates count as near; all of them with near='any'."""
        if self.near == "any":
            return candidates
        return min(max(round(self.pool * candidates), 1), candidates)

    def counts(self, attributes: int) -> list[int]:
        """Starts of each attribute: n dealt in turn, so that the first ones have one more."""
        return [len(range(k, self.n, attributes)) for k in range(attributes)]

    def check_enough(
        self,
        candidates: int,
        attributes: int,
        what: str = "the test split",
        more: str = "raise bank.n",
    ) -> None:
        """Refuse more starts than there are; it needs no bank.

        Args:
            candidates: number of samples that starts are drawn from.
            attributes: number of evaluated attributes.
            what: the candidates are called.
            more: how there would be more of them.

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
        # Each attribute has a pool of its own; the first attributes have the most starts.
        most = self.counts(attributes)[0] if self.near == "target" else self.n
        if most <= pool:
            return
        # Where all candidates together are too few, no larger share of them is enough.
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
