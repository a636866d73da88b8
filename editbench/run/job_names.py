"""What a job reads and writes, by name."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class JobNames:
    """One job of a sweep, by the names of its record, its bank and its fits.

    Args:
        method, attribute, seed: what it is.
        overrides: its words.
        reason: why it cannot run at all; '' where it can, and then the rest is given.
        run_id: name of its record.
        out: folder of the records.
        bank: identity of its bank.
        bank_folder: where that lies or will lie.
        n: samples of the bank.
        shard: samples of one of its files, unless it was begun with another number.
        fits: files of the cached fits that it needs.
    """

    method: str
    attribute: str
    seed: int
    overrides: list[str]
    reason: str = ""
    run_id: str = ""
    out: str = ""
    bank: str = ""
    bank_folder: str = ""
    n: int = 0
    shard: int = 1
    fits: list[str] = field(default_factory=list)
