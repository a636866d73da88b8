"""Names of a job: its title in the lines of a sweep, and the names of the files that it uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

NAMING = ("method", "attribute", "seed")  # keys that the title of a job shows
PART = "part"  # key of the parts of a bank, which their titles show


@dataclass(frozen=True)
class JobNames:
    """The names of one job of a sweep: its record, its bank and its fits.

    Args:
        method: name of the method.
        attribute: name of the target attribute.
        seed: of the method's random draws.
        overrides: its words.
        reason: why it cannot run; '' if it can, and only then are the following fields set.
        run_id: name of its record.
        out: folder of the records.
        bank: identity of its bank.
        bank_folder: folder of the bank, which need not exist yet.
        n: number of samples in the bank.
        shard: samples per shard, unless the bank was started with another number.
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
    """For each job of a sweep, the words that not all jobs share and that its title does not show.

    Args:
        jobs: the overrides of each job.
    """
    # Words that every job has, such as budget=demo, do not distinguish them.
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
        title: of a job, or its words if it could not be composed.
        own: the job's words from `own_words`.
    """
    shown = [word for word in own if word not in title]
    return f"{title} ({' '.join(shown)})" if shown else title
