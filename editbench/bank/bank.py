"""The bank: N samples of a generator with the logits of teacher and judge.

All editors use the same bank, and it is never modified. On disk it is a folder with bank.json and
one folder per shard. A shard has z.npy, w.npy, teacher.npy, judge.npy and checksums.json, and
quality.npy if the judge reports how well it can judge a sample. Sample i depends only on (seed, i).
The splits are consecutive ranges of the index: fit, then tune, then test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editbench.bank.layout import shard_folder
from editbench.bank.spec import BankSpec
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.files import check_folder, read_json
from editbench.base.spaces import Space

VERSION = 1  # of the format of bank.json and of the shards
IMPORTED = "imported"  # in place of a network's digest, in a bank that no network here has made


@dataclass
class Split:
    """Bank samples that an editor may see.

    Args:
        index: (n,) int64 bank indices.
        z: (n, z_dim) float32; z_dim is 0 if the bank was imported without Z.
        w: (n, w_dim) float32; None if the generator has no W.
        logits: (n, width) float32 logits of the teacher. An editor never sees the judge's.
    """

    index: Tensor
    z: Tensor
    w: Tensor | None
    logits: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def codes(self, space: Space) -> Tensor:
        """The samples' codes in Z or W, (n, dim).

        Raises:
            Unsupported: the bank has no codes in this space.
        """
        if space == Space.Z:
            return self.z
        if space == Space.W and self.w is not None:
            return self.w
        raise Unsupported(f"the bank holds no {space.name} codes")

    def first(self, count: int) -> Split:
        """The first `count` samples, or all samples if there are fewer."""
        w = None if self.w is None else self.w[:count]
        return Split(self.index[:count], self.z[:count], w, self.logits[:count])


class MappedFiles(Sequence[np.ndarray]):
    """Arrays of .npy files, each of which is memory-mapped while it is used.

    500,000 samples of 512 dimensions take 1 GB, and the processes of a sweep share the mapped pages.
    A map that is kept holds a file descriptor, of which a process often has 1,024.

    Args:
        files: of the arrays.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, k: int) -> np.ndarray:  # type: ignore[override]
        return np.load(self.files[k], mmap_mode="r", allow_pickle=False)


class ShardedArray:
    """Rows of one field over all shards.

    Args:
        shards: (rows of the shard, width) arrays, in the order of the index.
    """

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self.shards = shards
        # Last + 1 index of each shard.
        self.ends = np.cumsum([len(shard) for shard in shards])
        self.dtype = shards[0].dtype
        self.row_shape = shards[0].shape[1:]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def range(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1 as one array in memory, copied from the shards that they lie in.

        Args:
            start: index of the first row.
            stop: index of the last row + 1; rows beyond the last shard are left out.

        Returns:
            (stop - start, width), in the dtype of the shards.
        """
        stop = min(stop, len(self))
        out = np.empty((max(stop - start, 0), *self.row_shape), self.dtype)
        begin = 0
        for shard, end in enumerate(self.ends.tolist()):
            first = max(start, begin)
            last = min(stop, end)
            if first < last:
                out[first - start : last - start] = self.shards[shard][first - begin : last - begin]
            begin = end
        return out

    def take(self, index: np.ndarray) -> np.ndarray:
        """Rows at arbitrary indices (n,), in the given order: (n, width)."""
        index = np.asarray(index)
        # side="right": an index equal to a shard's end is the first of the next shard.
        which = np.searchsorted(self.ends, index, side="right")
        out = np.empty((len(index), *self.row_shape), self.dtype)
        # One copy per shard instead of one per row.
        for shard in np.unique(which):
            rows = which == shard
            values = self.shards[shard]
            out[rows] = values[index[rows] - (self.ends[shard] - len(values))]
        return out

    def stream(self) -> Iterator[np.ndarray]:
        """Yield the shards one by one, for fields that do not fit into memory."""
        yield from self.shards


class Bank:
    """A complete bank, opened read-only with its checksums verified.

    Args:
        folder: has bank.json and the shards.

    Raises:
        BadFile: a file is missing or changed, or has another format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = _read_meta(folder)
        if self.meta.get("version") != VERSION:
            raise BadFile(
                f"{folder} has bank format {self.meta.get('version')}, expected {VERSION}: "
                "build it again"
            )
        self.spec = BankSpec(**self.meta["spec"])
        self.id: str = self.meta["id"]
        # Part of the seed of every draw from this bank. For an imported bank it is the id.
        self.samples_key: str = self.meta.get("samples", self.id)
        self.teacher_attributes = Attributes.from_config(self.meta["teacher_attributes"])
        self.judge_attributes = Attributes.from_config(self.meta["judge_attributes"])
        self.fields: tuple[str, ...] = tuple(self.meta["fields"])
        # All shards are checked first, so that a damaged bank ends a run at its start.
        folders = []
        for k in range(self.spec.shards):
            path = shard_folder(folder, k)
            check_shard(path, self.spec.range_of(k))
            folders.append(path)
        self._arrays: dict[str, ShardedArray] = {}
        for name in self.fields:
            self._arrays[name] = ShardedArray(
                MappedFiles([path / f"{name}.npy" for path in folders])
            )
        # (split, device) -> the loaded samples, shared by all editors of a process.
        self._splits: dict[tuple[str, str], Split] = {}
        self._selections: dict[tuple[str, ...], Bank] = {}  # attributes -> the view, also shared

    def __len__(self) -> int:
        return self.spec.n

    def array(self, field: str) -> ShardedArray:
        """A field, whose rows stay on disk.

        Args:
            field: 'z', 'w', 'teacher', 'judge' or 'quality'.

        Raises:
            EditbenchError: the bank has no such field.
        """
        if field not in self._arrays:
            raise EditbenchError(f"{self.folder} holds {', '.join(self.fields)} but no '{field}'")
        return self._arrays[field]

    @cached_property
    def sigma(self) -> dict[str, np.ndarray]:
        """Standard deviation of each log-odds over the whole bank.

        Returns:
            'teacher' and 'judge' -> (width,) float64.
        """
        return {role: np.asarray(self.meta["sigma"][role]) for role in ("teacher", "judge")}

    def split(self, name: str, device: str = "cpu") -> Split:
        """A split with the teacher's logits, loaded once and shared by every editor.

        Args:
            name: one of SPLITS.
            device: of the split's tensors.
        """
        if (name, device) not in self._splits:
            self._splits[name, device] = self._load_split(name, device)
        return self._splits[name, device]

    def forget_splits(self) -> None:
        """Drop the loaded splits, whose tensors someone has changed; they are read again."""
        self._splits.clear()
        for selection in self._selections.values():  # they share the codes of these splits
            selection._splits.clear()

    def select(self, names: Sequence[str]) -> Bank:
        """The same samples with the logits of some attributes only.

        Args:
            names: of the attributes to keep, in any order.

        Returns:
            A view of this bank, or the bank itself if all of its attributes are kept.

        Raises:
            UnknownName: the bank has no such attribute.
        """
        kept = self.judge_attributes.select(names)
        if kept == self.judge_attributes:
            return self
        if kept.names not in self._selections:
            self._selections[kept.names] = SelectedBank(self, kept.names)
        return self._selections[kept.names]

    def _load_split(self, name: str, device: str) -> Split:
        start, stop = self.spec.split(name)

        def load(field: str) -> Tensor:
            # An imported file may be column-major; editors get the same layout from every bank.
            rows = np.ascontiguousarray(self.array(field).range(start, stop))
            return torch.from_numpy(rows).to(device)

        w = None
        if "w" in self.fields:
            w = load("w")
        # An imported bank may have only W; an empty Z keeps the dtype and the number of rows.
        z = torch.empty(stop - start, 0, device=device)
        if "z" in self.fields:
            z = load("z")
        return Split(torch.arange(start, stop, device=device), z, w, load("teacher"))


class SelectedColumns(ShardedArray):
    """Some columns of a field.

    Args:
        base: the field.
        columns: (k,) the columns to keep.
    """

    def __init__(self, base: ShardedArray, columns: Sequence[int]) -> None:
        # Taken from the base, so that no shard is opened again.
        self.shards = base.shards
        self.ends = base.ends
        self.dtype = base.dtype
        self.row_shape = base.row_shape
        self.columns = np.asarray(columns)

    def range(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1 of the selected columns, as one array in memory.

        Args:
            start: index of the first row.
            stop: index of the last row + 1.

        Returns:
            (stop - start, k), C-contiguous.
        """
        return np.ascontiguousarray(super().range(start, stop)[:, self.columns])

    def take(self, index: np.ndarray) -> np.ndarray:
        """Rows at arbitrary indices (n,), in the given order: (n, k)."""
        return np.ascontiguousarray(super().take(index)[:, self.columns])

    def stream(self) -> Iterator[np.ndarray]:
        """Yield the shards one by one, each (rows, k)."""
        for shard in super().stream():
            yield shard[:, self.columns]


class SelectedBank(Bank):
    """A bank with the logits of some attributes: what a job sees, see `Bank.select`.

    Args:
        base: the bank; nothing of it is opened or checked again.
        names: of the attributes to keep.
    """

    def __init__(self, base: Bank, names: Sequence[str]) -> None:
        self.base = base
        self.folder = base.folder
        self.meta = base.meta
        self.spec = base.spec
        self.id = base.id
        self.samples_key = base.samples_key
        self.fields = base.fields
        self.teacher_attributes = base.teacher_attributes.select(names)
        self.judge_attributes = base.judge_attributes.select(names)
        self._columns = {
            "teacher": base.teacher_attributes.positions(self.teacher_attributes),
            "judge": base.judge_attributes.positions(self.judge_attributes),
        }
        # Not those of the base, which have all columns.
        self._splits = {}

    def array(self, field: str) -> ShardedArray:
        """A field, whose rows stay on disk; of logits the columns of the kept attributes."""
        found = self.base.array(field)
        if field not in self._columns:
            return found
        return SelectedColumns(found, self._columns[field])

    @cached_property
    def sigma(self) -> dict[str, np.ndarray]:
        """Standard deviation of each kept log-odds, 'teacher' and 'judge' -> (width,) float64."""
        return {role: self.base.sigma[role][places] for role, places in self._columns.items()}

    def select(self, names: Sequence[str]) -> Bank:
        # Of the whole bank: its rows are what the places of columns count in.
        return self.base.select(self.judge_attributes.select(names).names)

    def forget_splits(self) -> None:
        self.base.forget_splits()

    def _load_split(self, name: str, device: str) -> Split:
        # Codes are shared with the whole bank; they are far larger than the logits.
        whole = self.base.split(name, device)
        places = torch.tensor(self._columns["teacher"], device=whole.logits.device)
        return replace(whole, logits=whole.logits.index_select(1, places))


def read_spec(folder: Path) -> BankSpec:
    """What a bank holds, by its bank.json alone: no shard is opened.

    Raises:
        BadFile: there is no bank, or its bank.json was altered.
    """
    return BankSpec(**_read_meta(folder)["spec"])


def _read_meta(folder: Path) -> dict:
    if not (folder / "bank.json").exists():
        raise BadFile(
            f"{folder} is not a bank (bank.json is missing); give the folder of a finished one"
        )
    return read_json(folder / "bank.json", sealed=True)


# -- shards ----------------------------------------------------------------------------------------
def check_shard(path: Path, rows: tuple[int, int]) -> None:
    """Check that a shard is whole and unaltered.

    Args:
        path: folder of the shard.
        rows: first and last + 1 index that it must have.

    Raises:
        BadFile: a file is missing or changed, or the shard has other samples.
    """
    remedy = f"delete {path} and start again: only this shard is rebuilt"
    if not path.is_dir():
        raise BadFile(f"bank shard {path} is missing; build the bank again to restore it")
    found = check_folder(path, remedy).get("rows")
    # A shard of another layout is whole, but its samples have other indices.
    if found != list(rows):
        raise BadFile(f"bank shard {path} holds samples {found}, expected {list(rows)}; {remedy}")
