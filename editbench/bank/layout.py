"""Where the shards of a complete or unfinished bank lie. Imports neither torch nor a network."""

from __future__ import annotations

from pathlib import Path

from editbench.base.files import read_json

LAYOUT = "layout.json"  # holds the shard size of a bank, from the start of its build


def shard_folder(bank: Path, shard: int) -> Path:
    """The folder of a shard. With five digits, alphabetical order is the order of the index.

    Args:
        bank: folder of the bank.
        shard: number of the shard, from 0.
    """
    return bank / f"shard-{shard:05d}"


def shard_size(bank: Path, wanted: int) -> int:
    """Samples per shard: the size that the bank was started with, or `wanted` for a new bank.

    Args:
        bank: folder of the bank.
        wanted: samples per shard, as the configuration has it.

    Raises:
        BadFile: the layout file of the bank is damaged.
    """
    path = bank / LAYOUT
    if not path.exists():
        return wanted
    # Sealed, since a size edited by hand would assign the samples to other shards.
    return int(read_json(path, sealed=True)["shard"])
