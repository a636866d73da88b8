"""The formats of files: a pickle, and the two of torch.save.

An archive of torch.save consists of pickles and of the elements of the tensors. The pickles refer
to the elements by persistent ids.
"""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO

from refused import Refused
from unpickle import FUNCTIONS, Unpickler, as_bytes

ZIP = b"PK\x03\x04"  # the first bytes of a zip file
# The first pickle of an archive of PyTorch before 1.6 (torch/serialization.py).
MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {  # torch's dtype and the bytes of an element (torch/storage.py)
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "UntypedStorage": ("uint8", 1),
}
BIG_ENDIAN = "it was written on a big-endian machine; save it again on a usual one"


class Storage:
    """The elements of tensors.

    Args:
        kind: the stand-in for the class of the storage.
        numel: number of elements.
    """

    def __init__(self, kind: Any, numel: int) -> None:
        module, _, name = getattr(kind, "name", "").rpartition(".")
        if module not in ("torch", "torch.cuda", "torch.storage") or name not in STORAGES:
            raise Refused("a tensor has an unsupported storage; save a dense tensor")
        self.dtype, width = STORAGES[name]
        self.numel = numel
        self.size = numel * width
        self.data = bytearray()

    def __setstate__(self, state: Any) -> None:
        """Ignore what the file would set."""

    def fill(self, data: bytes) -> None:
        if len(data) != self.size:
            raise ValueError(f"a storage has {len(data):,} bytes, {self.size:,} declared")
        self.data = bytearray(data)


class ArchiveUnpickler(Unpickler):
    """An unpickler for the content of an archive.

    Args:
        stream: at the first opcode.
        storages: key -> storage, to which those of the tensors are added, without their elements.
    """

    def __init__(self, stream: BinaryIO, storages: dict[str, Storage]) -> None:
        super().__init__(stream)
        self.storages = storages

    def persistent_load(self, identity: Any) -> Any:
        match identity:
            case ("module", cls, *_):  # a class with its source code, in older archives
                return cls
            case ("storage", kind, str(key), _, int(numel)) | (
                ("storage", kind, str(key), _, int(numel), None)
            ):
                return self.storages.setdefault(key, Storage(kind, numel))
        raise Refused(
            "a tensor lies in a view of a storage, as PyTorch before 0.4 wrote it, or has another "
            "unknown id; load the file with PyTorch, and save it again"
        )


def read_pickle(stream: Any) -> Any:
    """The content of a pickle or a torch.save file; the stream is at its first byte."""
    if not stream.peek(len(ZIP)).startswith(ZIP):
        root = Unpickler(stream).load()
        if type(root) is not int or root != MAGIC:
            check_end(stream)
            return root
        stream.seek(0)
    return read_torch(stream)


def read_torch(stream: BinaryIO) -> Any:
    """The content of a torch.save file: a zip archive, or the format before PyTorch 1.6."""
    head = stream.read(len(ZIP))
    stream.seek(0)
    if head == ZIP:
        return read_zip(stream)
    if Unpickler(stream).load() != MAGIC:
        raise Refused("it is not a torch.save archive; read it as a pickle, or copy it again")
    Unpickler(stream).load()  # the version of the format
    # Byte order and type sizes of the machine that wrote the archive.
    if Unpickler(stream).load().get("little_endian") is False:
        raise Refused(BIG_ENDIAN)
    storages: dict[str, Storage] = {}
    root = ArchiveUnpickler(stream, storages).load()
    for key in Unpickler(stream).load():
        storage = storages.pop(key)
        (numel,) = struct.unpack("<q", stream.read(8))
        if numel != storage.numel:
            raise ValueError(f"a storage has {numel:,} elements, {storage.numel:,} declared")
        storage.fill(stream.read(storage.size))
    if storages:
        raise ValueError("the elements of a storage are missing")
    check_end(stream)
    return root


def read_zip(stream: BinaryIO) -> Any:
    """The content of an archive of PyTorch 1.6 or newer: data.pkl and one member per storage."""
    import zipfile  # here, since it would take a third of the start-up time for other files

    if not zipfile.is_zipfile(stream):
        raise EOFError("the list of members is missing, which is at the end of a zip file")
    archive = zipfile.ZipFile(stream)
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise Refused("two members of the archive have the same name; do not trust the file")
    if any(name.endswith("/constants.pkl") for name in names):
        raise Refused("it is a TorchScript program; save its state_dict with torch.save")
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused("it is a zip file without one data.pkl; give the checkpoint itself")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}byteorder" in names and archive.read(f"{prefix}byteorder") != b"little":
        raise Refused(BIG_ENDIAN)
    content = io.BytesIO(archive.read(pickles[0]))
    storages: dict[str, Storage] = {}
    root = ArchiveUnpickler(content, storages).load()
    check_end(content)
    for key, storage in storages.items():
        storage.fill(archive.read(f"{prefix}data/{key}"))
    return root


def check_end(stream: BinaryIO) -> None:
    if stream.read(1):
        raise Refused("bytes follow its end; it is damaged or holds several pickles: save one")


def read_nested(raw: Any = b"") -> Any:
    """torch.storage._load_from_bytes: outside torch.save, each tensor has an archive of its own."""
    return read_torch(io.BytesIO(as_bytes(raw)))


# Added here, since the unpickler does not know of archives, whose format needs the unpickler.
FUNCTIONS["torch.storage._load_from_bytes"] = read_nested
