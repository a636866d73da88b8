"""A packed data set: pictures by index from memory-mapped shards, and their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editbench.base import seeding
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import file_sha256, read_json
from editbench.worlds.datasets.labels import choose_attributes

VERSION = 1
MOST_OPEN = 256  # shards: each takes a file descriptor, of which a process often has 1024
HASHED = 16 << 20  # bytes of pictures at once
DATASET = "dataset.json"
LABELS = "labels.npy"
PROBLEMS = "problems.csv"


def shard_folder(folder: Path, k: int) -> Path:
    """Folder of a shard.

    Args:
        folder: of the data set.
        k: number of the shard, from 0.
    """
    # Five digits, so that names sort in the order of the shards.
    return folder / f"shard-{k:05d}"


class Packed:
    """A folder that `editbench dataset pack` has finished.

    Attributes:
        n: number of pictures.
        resolution: their height and width.
        attributes: of its labels, or None.
        labels: (n, A) int64 class indices, or None.
        counts: what was found, packed and left out.
        digest: hash of pictures, labels and attributes.

    Raises:
        BadFile: not such a folder, or a part of it is missing or of another size.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / DATASET).exists():
            raise BadFile(
                f"{folder}: not a finished data set (no {DATASET}); `editbench dataset pack` "
                "makes one and resumes where it stopped"
            )
        try:
            about = read_json(folder / DATASET)
        except BadFile as error:
            # Without this file the folder counts as unfinished, and packing writes it anew.
            raise BadFile(f"{error}; delete {folder} and pack it again") from error
        if about.get("version") != VERSION:
            raise BadFile(f"{folder}: packed by another version of editbench; pack it again")
        self.folder = folder
        self.attributes: Attributes | None = None
        self.labels: np.ndarray | None = None
        self._open_shards: dict[int, np.ndarray] = {}
        try:
            self._read(about)
        # Errors that a damaged JSON file can cause.
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadFile(
                f"{folder / DATASET}: damaged ({error!r}); delete {folder} and pack it again"
            ) from error

    def _read(self, about: dict) -> None:
        self.n = int(about["n"])
        self.resolution = int(about["resolution"])
        self.counts = dict(about["counts"])
        self.digest = str(about["digest"])
        self._rows = [int(part["rows"]) for part in about["shards"]]
        self._sums = {self._images(k): part["sha256"] for k, part in enumerate(about["shards"])}
        self._first = np.cumsum([0, *self._rows])
        # Every shard is opened once, so that a missing one shows now and not in mid-training.
        for k in range(len(self._rows)):
            self._shard(k)
        if about["attributes"] is not None:
            self.attributes = Attributes.from_config(about["attributes"])
            path = self.folder / LABELS
            self.labels = np.array(self._open(path, (self.n, len(self.attributes)), np.int64))
            self._sums[path] = about["labels_sha256"]

    def _images(self, k: int) -> Path:
        return shard_folder(self.folder, k) / "images.npy"

    def _shard(self, k: int) -> np.ndarray:
        """Pictures of a shard, mapped; the one opened first is closed where too many are open."""
        if k not in self._open_shards:
            while len(self._open_shards) >= MOST_OPEN:
                del self._open_shards[next(iter(self._open_shards))]
            shape = (self._rows[k], self.resolution, self.resolution, 3)
            self._open_shards[k] = self._open(self._images(k), shape, np.uint8)
        return self._open_shards[k]

    def _open(self, path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        try:
            # An empty file cannot be mapped.
            array = np.load(path, mmap_mode="r" if shape[0] else None, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            # NumPy's message may be advice to load the file as a pickle.
            raise BadFile(
                f"{path}: missing or damaged ({type(error).__name__}); delete {self.folder} and pack it again"
            ) from error
        if array.shape != shape or array.dtype != dtype:
            raise BadFile(
                f"{path}: is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}; "
                f"delete {self.folder} and pack it again"
            )
        return array

    def __len__(self) -> int:
        return self.n

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Pictures by index, in any order: (len(rows), R, R, 3) uint8."""
        rows = np.asarray(rows)
        out = np.empty((len(rows), self.resolution, self.resolution, 3), np.uint8)
        # The shard of each row; each shard is then read once.
        home = np.searchsorted(self._first, rows, "right") - 1
        for k in np.unique(home):
            mine = home == k
            out[mine] = self._shard(k)[rows[mine] - self._first[k]]
        return out

    def images(self, rows: np.ndarray) -> Tensor:
        """Pictures by index: (len(rows), 3, R, R) float32 in [-1, 1]."""
        pixels = torch.from_numpy(self.pixels(rows)).permute(0, 3, 1, 2).contiguous()
        return pixels.float() / 127.5 - 1

    @cached_property
    def twins(self) -> np.ndarray:
        """(n,) int64: the first row that shows the same picture, byte for byte."""
        # By a 64-bit hash, the sum of 32-bit words by random odd weights: no row is held in memory.
        # Of 64-bit words, a difference in the upper bytes would leave few bits of the hash.
        size = 3 * self.resolution**2
        most = max(1, HASHED // size)
        words = np.zeros((most, math.ceil(size / 4)), np.uint32)
        stream = seeding.rng(0, "dataset", "twins")
        weights = stream.integers(2**63, size=words.shape[1], dtype=np.uint64) | 1
        sums = []
        for start in range(0, self.n, most):
            pixels = self.pixels(np.arange(start, min(start + most, self.n))).reshape(-1, size)
            words.view(np.uint8)[: len(pixels), :size] = pixels
            sums.append((words[: len(pixels)].astype(np.uint64) * weights).sum(1))
        _, first, group = np.unique(np.concatenate(sums), return_index=True, return_inverse=True)
        return first[group]

    def labelled(self) -> tuple[Attributes, np.ndarray]:
        """Attributes and labels (n, A); EditbenchError where the data set has none."""
        if self.attributes is None or self.labels is None:
            raise EditbenchError(f"{self.folder} has no labels: pack it with --labels")
        return self.attributes, self.labels

    def class_shares(self) -> dict[str, dict[str, float]]:
        """attribute -> class -> share of the pictures; empty where there are no labels."""
        out: dict[str, dict[str, float]] = {}
        if self.attributes is None or self.labels is None:
            return out
        for i, item in enumerate(self.attributes):
            counts = np.bincount(self.labels[:, i], minlength=len(item.classes))
            out[item.name] = dict(zip(item.classes, (counts / len(self)).tolist()))
        return out

    def select(self, names: Sequence[str] | None = None, bins: int | None = None) -> Packed:
        """The same pictures with other attributes.

        Args:
            names: attributes to keep; None: all. Constant ones are left out.
            bins: classes that ordered attributes are joined to; None: as they are.
        """
        # A shallow copy: both share the mapped shards.
        view = copy(self)
        view.attributes, view.labels = choose_attributes(*self.labelled(), names, bins)
        return view

    def verify(self) -> None:
        """Compare every file with its checksum; BadFile names the first that differs."""
        for path, expected in self._sums.items():
            if file_sha256(path) != expected:
                raise BadFile(
                    f"{path}: its checksum has changed since it was packed; "
                    f"delete {self.folder} and pack it again"
                )


class Epochs:
    """Rows in an order that is new in every pass.

    Item i of the stream depends on (seed, stream, i) alone.

    Args:
        rows: the rows, or how many there are.
        seed: of the orders.
        stream: names them.
    """

    def __init__(self, rows: np.ndarray | int, seed: int, stream: str) -> None:
        self.rows = np.arange(rows) if isinstance(rows, int) else rows
        if not len(self.rows):
            raise EditbenchError("no pictures to draw from")
        self.seed = seed
        self.stream = stream
        self._orders: dict[int, np.ndarray] = {}

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            # A batch may span two epochs, so the order of the previous one is kept.
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = seeding.rng(self.seed, self.stream, epoch).permutation(self.rows)
        return self._orders[epoch]

    def take(self, start: int, stop: int) -> np.ndarray:
        """Take some items of the stream; its passes over the rows follow each other without a gap.

        Args:
            start: first item.
            stop: item after the last.

        Returns:
            (stop - start,) rows.
        """
        n = len(self.rows)
        parts = [self.rows[:0]]
        # From the pass of the first item to that of the last; -(-a // b) rounds up.
        for epoch in range(start // n, -(-stop // n)):
            first = max(start - epoch * n, 0)
            last = min(stop - epoch * n, n)
            parts.append(self._order(epoch)[first:last])
        return np.concatenate(parts)
