"""Where the shards of a bank lie, whole or begun. Neither torch nor a network is needed to know it."""

from __future__ import annotations

from pathlib import Path

from editbench.base.files import read_json

LAYOUT = "layout.json"  # of a bank that was begun: its samples a shard


def shard_folder(bank: Path, shard: int) -> Path:
    """The folder of a shard. Five digits keep the alphabetical order that of the index."""
    return bank / f"shard-{shard:05d}"


def shard_size(bank: Path, wanted: int) -> int:
    """Samples a shard: of a bank that was begun what it was begun with, else `wanted`."""
    path = bank / LAYOUT
    if not path.exists():
        return wanted
    return int(read_json(path, sealed=True)["shard"])
