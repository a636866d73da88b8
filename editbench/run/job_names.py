"""What a job is called: in the lines of its sweep, and by what it reads and writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

NAMING = ("method", "attribute", "seed")  # keys that the title of a job tells
PART = "part"  # key of the parts of a bank, which their titles tell


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


def own_words(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of each job of a sweep, the words that not all jobs have and that its title does not tell.

    Args:
        jobs: the overrides of each.
    """
    # Words that every job has, such as budget=demo, would tell nothing.
    counts = Counter(word for words in jobs for word in words)
    found: list[list[str]] = []
    for words in jobs:
        own: list[str] = []
        for word in words:
            key = word.partition("=")[0].lstrip("+")
            if key not in (*NAMING, PART) and counts[word] < len(jobs):
                own.append(word)
        found.append(own)
    return found


def full_title(title: str, own: Sequence[str]) -> str:
    """'gradctrl x smile, seed 0 (method.delta=0.1)'.

    Args:
        title: of a job; its words, where it could not be composed.
        own: of `own_words`.
    """
    told = [word for word in own if word not in title]
    return f"{title} ({' '.join(told)})" if told else title
