"""torch.save archives, the zip format and the older stream of pickles: the storages and the pickle that names them."""

from __future__ import annotations

import abc
import io
import zipfile
from typing import Any, BinaryIO

import torch

from editbench.networks.pickles.atoms import DAMAGED, Cursor
from editbench.networks.pickles.limits import Budget, Refused
from editbench.networks.pickles.opaque import SIZE
from editbench.networks.pickles.opcodes import execute
from editbench.networks.pickles.table import TABLE
from editbench.networks.pickles.tensors import Storage, check_booleans, storage_dtype, whole

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of an older archive, after torch/serialization.py
DEEPEST = 4  # archives within archives
ZIP = b"PK\x03\x04"
WORDS = "expected ('storage', kind, key, location, numel)"


def load_from_bytes(budget: Budget, raw: Any = b"") -> Any:
    """torch.storage._load_from_bytes: an archive within a pickle."""
    if not isinstance(raw, (bytes, bytearray)):
        raise Refused("a storage's archive is not bytes; the file is damaged")
    if budget.archives >= DEEPEST:
        raise Refused(
            f"it has archives within archives, more than {DEEPEST} deep; no data needs this"
        )
    budget.archives += 1
    budget.take(len(raw))
    try:
        if bytes(raw[:4]) == ZIP:
            return read_zip(io.BytesIO(raw), len(raw), budget)
        return read_stream(bytes(raw), budget)
    finally:
        budget.archives -= 1


NAMES = TABLE | {"torch.storage._load_from_bytes": load_from_bytes}


class Storages(abc.ABC):
    """The storages of one archive by key, each made once, of the size that its first mention declares."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.known: dict[str, Storage] = {}

    @abc.abstractmethod
    def open(self, key: str, dtype: torch.dtype, numel: int) -> torch.Tensor:
        """The storage of a key, numel elements, 1-D."""

    def __call__(self, identity: Any) -> Any:
        if isinstance(identity, tuple) and len(identity) > 1 and identity[0] == "module":
            return identity[
                1
            ]  # a class with its source, in files of PyTorch before 0.4; only the name stays
        if (
            not isinstance(identity, tuple)
            or len(identity) not in (5, 6)
            or identity[0] not in ("storage", b"storage")
        ):
            raise Refused(DAMAGED.format(f"a persistent id of another form, {WORDS}"))
        _, kind, key, _, numel = identity[:5]
        if not isinstance(key, str) or not isinstance(numel, int) or not 0 <= numel < 1 << 50:
            raise Refused(DAMAGED.format(f"a persistent id of another form, {WORDS}"))
        dtype = storage_dtype(kind)
        self.budget.take(SIZE)
        if key not in self.known:
            self.budget.take(1024)
            self.known[key] = whole(kind.name, self.open(key, dtype, numel))
        found = self.known[key]
        if found.flat.dtype != dtype or found.numel != numel:
            raise Refused(DAMAGED.format(f"storage {key[:40]!a} is declared twice, differently"))
        view = identity[5] if len(identity) == 6 else None
        if view is None:
            return found
        if (
            not isinstance(view, tuple)
            or len(view) != 3
            or not all(type(n) is int and n >= 0 for n in view[1:])
        ):
            raise Refused(DAMAGED.format("a view of a storage of another form"))
        if view[1] + view[2] > found.numel:
            raise Refused(DAMAGED.format("a view reaches beyond its storage"))
        return Storage(found.name, flat=found.flat, first=view[1], numel=view[2])


class StreamStorages(Storages):
    """Storages whose bytes follow the pickle: made empty, filled afterwards."""

    left = 0

    def open(self, key: str, dtype: torch.dtype, numel: int) -> torch.Tensor:
        self.left -= numel * dtype.itemsize
        if self.left < 0:
            raise Refused(
                DAMAGED.format(
                    f"its storages are declared {-self.left:,} bytes larger than what follows"
                )
            )
        self.budget.take(numel * dtype.itemsize)
        return torch.zeros(numel, dtype=dtype)


def read_stream(data: bytes, budget: Budget) -> Any:
    """An archive of PyTorch before 1.6: five pickles, then for each storage its length and bytes."""
    cursor = Cursor(data, budget)
    if execute(cursor, budget, {}) != MAGIC:
        raise Refused(
            "it is not a torch.save archive; read it as a pickle, or copy it again from where it came"
        )
    execute(cursor, budget, {})
    system = execute(cursor, budget, {})
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Refused("it was written on a big-endian machine; save it again on a usual one")
    storages = StreamStorages(budget)
    storages.left = len(data) - cursor.at
    root = execute(cursor, budget, NAMES, storages)
    keys = execute(cursor, budget, {})
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or sorted(keys) != sorted(storages.known)
    ):
        raise Refused(DAMAGED.format("the list of its storages is not that of its tensors"))
    for key in keys:
        flat = storages.known[key].flat
        if cursor.number("<q") != len(flat):
            raise Refused(DAMAGED.format(f"storage {key[:40]!a} has another length than declared"))
        raw = cursor.take(len(flat) * flat.element_size())
        if raw:
            flat.copy_(torch.frombuffer(bytearray(raw), dtype=flat.dtype))
        check_booleans(flat)
    if cursor.at != len(data):
        raise Refused(DAMAGED.format(f"{len(data) - cursor.at:,} bytes follow its end"))
    return root


class ZipStorages(Storages):
    """Storages that are members `prefix`/data/KEY of a zip file."""

    def __init__(self, budget: Budget, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(budget)
        self.archive, self.prefix = archive, prefix

    def open(self, key: str, dtype: torch.dtype, numel: int) -> torch.Tensor:
        raw = member(self.archive, f"{self.prefix}data/{key}", self.budget)
        if len(raw) != numel * dtype.itemsize:
            raise Refused(
                DAMAGED.format(
                    f"storage {key[:40]!a} has {len(raw):,} bytes, {numel * dtype.itemsize:,} "
                    "declared"
                )
            )
        self.budget.take(len(raw))
        flat = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        check_booleans(flat)
        return flat


def member(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    if name not in archive.NameToInfo:
        raise Refused(DAMAGED.format(f"its member {name[:60]!a} is missing"))
    info = archive.NameToInfo[name]
    budget.take(info.file_size)
    with archive.open(info) as stream:
        return stream.read(info.file_size)


def check_members(archive: zipfile.ZipFile, size: int, budget: Budget) -> None:
    """Refuse what torch.save never writes and a bomb needs: packed, encrypted, repeated or overlapping members."""
    infos = archive.infolist()
    budget.take(1024 * len(infos))
    if len({info.filename for info in infos}) < len(infos):
        raise Refused("two members of the archive have one name; do not trust the file")
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if (
            info.compress_type != zipfile.ZIP_STORED
            or info.file_size != info.compress_size
            or info.flag_bits & 1
        ):
            raise Refused(
                f"its member {info.filename[:60]!a} is compressed or encrypted, which torch.save never does; "
                "unpack and save the checkpoint again with torch.save"
            )
        if info.header_offset < end:
            raise Refused("members of the archive overlap; do not trust the file")
        end = info.header_offset + 30 + info.file_size
    if end > size:
        raise Refused(DAMAGED.format("members reach beyond its end"))


def read_zip(stream: BinaryIO, size: int, budget: Budget) -> Any:
    """An archive of PyTorch 1.6 or newer: a zip file with data.pkl and one member a storage."""
    try:
        with zipfile.ZipFile(stream) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.NameToInfo):
                raise Refused(
                    "it is a TorchScript program, not a checkpoint; save its state_dict with torch.save"
                )
            check_members(archive, size, budget)
            pickles = [
                name
                for name in archive.NameToInfo
                if name == "data.pkl" or name.endswith("/data.pkl")
            ]
            if len(pickles) != 1:
                raise Refused(
                    "it is a zip file without one data.pkl, so not of torch.save; give the checkpoint itself"
                )
            prefix = pickles[0].removesuffix("data.pkl")
            if (
                f"{prefix}byteorder" in archive.NameToInfo
                and member(archive, f"{prefix}byteorder", budget) != b"little"
            ):
                raise Refused(
                    "it was written on a big-endian machine; save it again on a usual one"
                )
            cursor = Cursor(member(archive, pickles[0], budget), budget)
            root = execute(cursor, budget, NAMES, ZipStorages(budget, archive, prefix))
            if cursor.at != len(cursor.data):
                raise Refused(DAMAGED.format("bytes follow the end of its pickle"))
            return root
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        raise Refused(DAMAGED.format(f"zip file: {str(error)[:120]}")) from error
