"""A restricted unpickler: a pickle or a torch.save file becomes a tree of inert values.

Python's unpickler calls `find_class` for every name. It imports nothing here: a name becomes a
class whose objects only store what the unpickler passes to them. child.py runs it with limits of
memory and time, and without site-packages.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

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
DICTS = {
    "builtins.dict",
    "__builtin__.dict",
    "collections.OrderedDict",
    "collections.Counter",
    "munch.Munch",
}
BIG_ENDIAN = "it was written on a big-endian machine; save it again on a usual one"
REFUSED = 3  # exit code of child.py


class Refused(Exception):
    """The file is rejected; the message has the reason and the remedy."""


def reason(error: Exception) -> str:
    """The reason for rejecting a file, from an exception while reading it."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "its content would take more than the memory that a file of its size may (see Limits); "
            "if it is not damaged, save its arrays with numpy.save"
        )
    # All other errors mean that the file is damaged, or was never a pickle.
    words = f"it is not a pickle, or it is damaged ({type(error).__name__}: {str(error)[:120]!a})"
    if isinstance(error, EOFError) or "truncated" in str(error):
        words = "it is damaged or incomplete (it ends in the middle)"
    return f"{words}; copy it again from where it came"


# -- stand-ins -------------------------------------------------------------------------------------
class StandIn:
    """An object of a class that is not imported, or the result of a function that is not called.

    Its bytes become a bytearray, which can be the memory of an array later.
    """

    __slots__ = ("args", "items", "kwargs", "state")
    args: tuple[Any, ...]
    items: list[Any]
    kwargs: dict[str, Any]
    state: Any
    name = ""  # 'module.qualname' in the file; set in the subclass that is made for each name

    def __new__(cls, /, *args: Any, **kwargs: Any) -> StandIn:
        made = super().__new__(cls)
        made.args = writable(args)
        made.kwargs = kwargs
        made.state = None
        made.items = []
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = writable(state)

    def extend(self, values: Any) -> None:
        self.items.extend(values)

    def append(self, value: Any) -> None:
        self.items.append(value)

    add = append  # for sets

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


def writable(parts: Any) -> Any:
    if type(parts) is not tuple:
        return parts
    return tuple([bytearray(part) if type(part) is bytes else part for part in parts])


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


class Called(StandIn):
    """The name of a function that is called; the object is its result.

    A class, as for all other names: a file could set the attributes of a function, and pickle
    imports the module that a function's __module__ names when it writes the function.
    """

    __slots__ = ()

    def __new__(cls, /, *args: Any) -> Any:
        return FUNCTIONS[cls.name](*args)


class PlainDict(dict):
    """A plain dict for other dict classes."""

    __slots__ = ()
    name = ""

    def __setstate__(self, state: Any) -> None:
        """Leave out attributes, such as the _metadata of a state_dict."""


# -- functions -------------------------------------------------------------------------------------
def as_bytes(value: Any = b"", encoding: Any = "latin1") -> bytes:
    """Bytes; protocols 0 to 2 store them as text with the same code points."""
    if isinstance(value, str) and encoding in ("latin1", "latin-1"):
        return value.encode("latin-1")
    if not isinstance(value, (bytes, bytearray)):
        raise ValueError("bytes are made from something else")
    return bytes(value)


def new_object(cls: Any, base: Any, content: Any) -> Any:
    """copyreg._reconstructor, by which protocols 0 and 1 create objects.

    The result is the same as with protocol 2. The content is that of the base class, such as a dict
    or a number, and None for `object`.
    """
    if content is None:
        return cls()
    if not isinstance(content, (dict, list)):
        return cls(content)
    made = cls()
    if isinstance(content, list):
        made.extend(content)
        return made
    for key, value in content.items():
        made[key] = value
    return made


def read_nested(raw: Any = b"") -> Any:
    """torch.storage._load_from_bytes: outside torch.save, each tensor has an archive of its own."""
    return read_torch(io.BytesIO(as_bytes(raw)))


# The only functions that are called.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": as_bytes,
    "collections.defaultdict": lambda factory=None, *pairs: dict(*pairs),
    "torch.Size": tuple,
    "torch.storage._load_from_bytes": read_nested,
}
for _module in ("builtins", "__builtin__"):  # Python 3 and 2
    FUNCTIONS[f"{_module}.set"] = set
    FUNCTIONS[f"{_module}.frozenset"] = frozenset
    FUNCTIONS[f"{_module}.complex"] = complex
    FUNCTIONS[f"{_module}.bytes"] = as_bytes
    FUNCTIONS[f"{_module}.bytearray"] = lambda *args: bytearray(as_bytes(*args))
for _module in ("copyreg", "copy_reg"):  # Python 3 and 2
    FUNCTIONS[f"{_module}._reconstructor"] = new_object
    FUNCTIONS[f"{_module}.__newobj__"] = lambda cls, *args: cls(*args)


class Unpickler(pickle.Unpickler):
    """Python's unpickler without imports.

    Args:
        stream: at the first opcode; reading ends after the last one.
        storages: key -> storage, to which those of tensors are added; None if there can be none.
    """

    def __init__(self, stream: BinaryIO, storages: dict[str, Storage] | None = None) -> None:
        # Byte strings of Python 2 become text with the same code points.
        super().__init__(stream, encoding="latin1")
        self.storages = storages
        self.known: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self.known:
            base: type = StandIn
            if full in FUNCTIONS:
                base = Called
            # Many packages contain a copy of StyleGAN's EasyDict.
            elif full in DICTS or name == "EasyDict":
                base = PlainDict
            self.known[full] = type("Named", (base,), {"__slots__": (), "name": full})
        return self.known[full]

    def persistent_load(self, identity: Any) -> Any:
        if self.storages is None:
            raise Refused(
                "it has persistent ids, which only torch.save files may have; it is damaged or not "
                "a pickle of data"
            )
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


# -- files -----------------------------------------------------------------------------------------
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
    root = Unpickler(stream, storages).load()
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
    root = Unpickler(content, storages).load()
    check_end(content)
    for key, storage in storages.items():
        storage.fill(archive.read(f"{prefix}data/{key}"))
    return root


def check_end(stream: BinaryIO) -> None:
    if stream.read(1):
        raise Refused("bytes follow its end; it is damaged or holds several pickles: save one")
