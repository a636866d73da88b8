"""A restricted unpickler: a pickle or a torch.save file becomes a tree of inert values.

Python's unpickler calls `find_class` for every name and `persistent_load` for every external
object. Neither imports anything. A name becomes a class whose objects store what the unpickler
passes to them, or one that calls a function of TABLE, which builds a plain container.

Every file is read twice: first on trial by child.py, with limits of memory and time, then by
reader.py for the result. Both must therefore do exactly the same. The order of a set differs
between processes, so nothing here may take longer for some orders. Operations that can be slow for
their size, such as hashing, are done here, where the trial limits them.

torch.load(weights_only=True) is not used: it does not limit memory and time, unpacks compressed
members, and rejects argparse.Namespace, which checkpoints contain. The tests compare with it.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import zipfile

# The first pickle of an older archive (torch/serialization.py); other data do not begin with it.
MAGIC = 0x1950A86A20F9469CFC6C
ZIP = b"PK\x03\x04"
STORED = 0  # zipfile.ZIP_STORED
DEEPEST = 4  # maximum nesting of archives
REFUSED = 3  # exit code of child.py
STORAGES = {  # dtype and bytes of an element (torch/storage.py)
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
# First bytes of files that result from a failed download or copy.
NOT_PICKLES = {
    b"": "it is empty; copy it again from where it came",
    b"\x1f\x8b": "it is compressed with gzip; unpack it with gunzip first",
    b"<!": "it is a web page, so the download failed; fetch the file itself",
    b"<h": "it is a web page, so the download failed; fetch the file itself",
    b"vers": "it is a pointer of git-lfs; fetch the file itself with git lfs pull",
}
BIG_ENDIAN = "it was written on a big-endian machine; save it again on a usual one"
TOO_LARGE = (
    "its content would take more than the memory that a file of its size may; if you trust it, "
    "raise Limits(bytes=...), or save the arrays with numpy.save"
)


class Refused(Exception):
    """The file is rejected; the message has the reason and the remedy."""


def damaged(what: str) -> Refused:
    return Refused(f"it is damaged or incomplete ({what}); copy it again from where it came")


def reason(error: Exception) -> str:
    """The reason for rejecting a file, from an exception while reading it."""
    if isinstance(error, MemoryError):
        return TOO_LARGE
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error}); check the path and its permissions"
    if isinstance(error, EOFError):
        error = damaged("it ends in the middle")
    if isinstance(error, pickle.UnpicklingError):
        error = Refused(f"it is not a pickle, or {damaged(ascii(str(error)[:120]))}")
    # All other errors of the unpickler, NumPy and torch mean that the file is damaged.
    if not isinstance(error, Refused):
        error = damaged(f"{type(error).__name__}: {str(error)[:120]!a}")
    return str(error)


# -- stand-ins for names ---------------------------------------------------------------------------
class Opaque:
    """A stand-in for an object of a class, or a function's result, that was not imported."""

    __slots__ = ("args", "items", "kwargs", "name", "state")
    name: str  # 'module.qualname' in the file
    args: tuple  # positional arguments of the call
    kwargs: dict[str, Any]  # named arguments of the call
    state: Any  # the argument of __setstate__; None without one
    items: list  # the appended items; for a mapping, (key, value) pairs
    full_name = ""  # set in the subclass that is made for each name

    # Accepts any arguments, since the actual class is unknown.
    def __new__(cls, /, *args: Any, **kwargs: Any) -> Opaque:
        made = super().__new__(cls)
        made.name = cls.full_name
        made.args = args
        made.state = None
        made.items = []
        made.kwargs = kwargs
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def extend(self, values: Any) -> None:
        self.items.extend(values)

    def append(self, value: Any) -> None:
        self.items.append(value)

    add = append  # for sets

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __repr__(self) -> str:
        # Short, since the parts can be large. ASCII, since the file may contain any name.
        return f"{type(self).__name__}({self.name[:120]!a})"


class Global(Opaque):
    """A reference to a class or a function that is not called."""

    __slots__ = ()


class Storage(Opaque):
    """The storage of tensors; its bytes are not read here."""

    __slots__ = ("dtype", "flat", "numel", "open", "size")
    dtype: str  # torch's name
    numel: int  # number of elements
    size: int  # in bytes
    open: Callable[[], Any]  # returns a stream at the first byte
    flat: Any  # the elements as a 1-D tensor, after rebuild.py has read them


class PlainDict(dict):
    """A plain dict for other dict classes, without attributes (state_dict's _metadata)."""

    __slots__ = ()
    full_name = ""

    def __init__(self, pairs: Any = ()) -> None:
        # dict() would also accept sets, whose order differs between processes.
        plain = isinstance(pairs, dict) or all(
            type(part) in (list, tuple) for part in [pairs, *pairs]
        )
        if not plain:
            raise damaged("a dict is made from something other than pairs")
        super().__init__(pairs)

    def __setstate__(self, state: Any) -> None:
        pass


class Function:
    """A function of TABLE. __setstate__ prevents a file from setting attributes of the class."""

    __slots__ = ()
    full_name = ""
    call: Callable[..., Any]

    def __new__(cls, *args: Any) -> Any:
        return cls.call(*args)

    def __setstate__(self, state: Any) -> None:
        pass


def as_bytes(value: Any = b"", encoding: Any = "latin1") -> bytes:
    """Bytes; protocols 0 to 2 store them as text with the same code points."""
    if isinstance(value, str) and encoding in ("latin1", "latin-1"):
        return value.encode("latin-1")
    if not isinstance(value, (bytes, bytearray)):
        raise damaged("bytes are made from something else")
    return bytes(value)


def as_size(lengths: Any = ()) -> tuple[Any, ...]:
    if not isinstance(lengths, (list, tuple)):
        raise damaged("a size is made from something else")
    return tuple(lengths)


def new_by_arguments(cls: Any, *args: Any) -> Any:
    """copyreg.__newobj__."""
    if not isinstance(cls, type) or not issubclass(cls, (Opaque, PlainDict)):
        raise damaged("an object's class is not a name")
    return cls(*args)


def new_object(cls: Any, base: Any, state: Any) -> Any:
    """copyreg._reconstructor, by which protocols 0 and 1 create objects.

    The state is the content of the base class (dict, list).
    """
    if isinstance(cls, type) and issubclass(cls, PlainDict):
        return cls(state or ())
    made = new_by_arguments(cls)
    if isinstance(state, dict):
        made.extend(state.items())
    elif isinstance(state, (list, tuple, set)):
        made.extend(state)
    return made


TABLE: dict[str, Callable[..., Any]] = {
    "collections.defaultdict": lambda factory=None, *pairs: PlainDict(*pairs),
    "_codecs.encode": as_bytes,
    "torch.Size": as_size,
}
for _module in ("builtins", "__builtin__"):  # Python 3 and 2
    for _type in (set, frozenset, complex):
        TABLE[f"{_module}.{_type.__name__}"] = _type
    TABLE[f"{_module}.bytes"] = as_bytes
    TABLE[f"{_module}.bytearray"] = lambda *args: bytearray(as_bytes(*args))
# The second name is that of Python 2.
for _module in ("copyreg", "copy_reg"):
    TABLE[f"{_module}._reconstructor"] = new_object
    TABLE[f"{_module}.__newobj__"] = new_by_arguments
LOAD_FROM_BYTES = "torch.storage._load_from_bytes"
EASY_DICT = "dnnlib.EasyDict"  # many packages contain a copy of it
DICTS = {
    "builtins.dict",
    "__builtin__.dict",
    "collections.OrderedDict",
    "collections.Counter",
    "munch.Munch",
    EASY_DICT,
}


class Unpickler(pickle.Unpickler):
    """Python's unpickler without imports.

    Args:
        stream: at the first opcode; reading ends after the last one.
        depth: number of archives that contain this pickle.
        storages: key -> storage, to which referenced storages are added; None if there can be none.
    """

    def __init__(
        self, stream: BinaryIO, depth: int, storages: dict[str, Storage] | None = None
    ) -> None:
        # Byte strings of Python 2 become text with the same code points.
        super().__init__(stream, encoding="latin1")
        self.storages = storages
        nested = partial(read_nested, depth=depth + 1)
        self.table: dict[str, Callable[..., Any]] = {**TABLE, LOAD_FROM_BYTES: nested}
        self.known: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> type:
        full = EASY_DICT
        if name != "EasyDict":
            full = f"{module}.{name}"
        if full not in self.known:
            base: type = Opaque
            content: dict[str, Any] = {"__slots__": (), "full_name": full}
            if full in DICTS:
                base = PlainDict
            if full in self.table:
                base = Function
                content["call"] = staticmethod(self.table[full])
            self.known[full] = type(base.__name__, (base,), content)
        return self.known[full]

    def persistent_load(self, identity: Any) -> Any:
        if self.storages is None:
            raise Refused("it has persistent ids, which only torch.save files may have")
        match identity:
            case ("module", cls, *_):  # a class with its source code, in older archives
                return cls
            case ("storage", _, _, _, _, tuple()):
                raise Refused(
                    "a tensor lies in a view of a storage, as PyTorch before 0.4 wrote it; load the "
                    "file with PyTorch, and save it again"
                )
            case ("storage", kind, str(key), _, int(numel), *view) if numel >= 0 and view in (
                [],
                [None],
            ):
                return declare(self.storages, key, getattr(kind, "full_name", ""), numel)
        raise damaged("a persistent id of another form than that of a storage")


# -- torch.save archives --------------------------------------------------------------------------
def declare(storages: dict[str, Storage], key: str, name: str, numel: int) -> Storage:
    """The storage of a key, which is created when the key first occurs."""
    owner, _, last = name.rpartition(".")
    if owner not in ("torch", "torch.cuda", "torch.storage") or last not in STORAGES:
        raise Refused(f"a tensor's storage is of the kind {name[:60]!a}; save a dense tensor")
    made = Storage()
    made.name = name
    made.dtype, width = STORAGES[last]
    made.numel = numel
    made.size = numel * width
    found = storages.setdefault(key, made)
    if (found.name, found.numel) != (name, numel):
        raise damaged(f"storage {key[:40]!a} is declared twice, differently")
    return found


def check_end(stream: BinaryIO) -> None:
    if stream.read(1):
        raise Refused("bytes follow its end; it is damaged or holds several pickles: save one")


def read_stream(stream: BinaryIO, size: int, depth: int) -> Any:
    """An archive of PyTorch before 1.6: five pickles, then the length and bytes of each storage."""
    if Unpickler(stream, depth).load() != MAGIC:
        raise Refused("it is not a torch.save archive; read it as a pickle, or copy it again")
    Unpickler(stream, depth).load()  # the version of the format
    # Byte order and type sizes of the machine that wrote the archive.
    system = Unpickler(stream, depth).load()
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Refused(BIG_ENDIAN)
    storages: dict[str, Storage] = {}
    root = Unpickler(stream, depth, storages).load()
    keys = Unpickler(stream, depth).load()
    texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not texts or sorted(keys) != sorted(storages):
        raise damaged("the list of its storages is not that of its tensors")
    for key in keys:
        storage = storages[key]
        (numel,) = struct.unpack("<q", stream.read(8))
        if numel != storage.numel:
            raise damaged(f"a storage has {numel:,} elements, {storage.numel:,} declared")
        start = stream.tell()
        storage.open = partial(opened, stream, start)
        if stream.seek(start + storage.size) > size:
            raise EOFError
    check_end(stream)
    return root


def opened(stream: BinaryIO, start: int) -> BinaryIO:
    stream.seek(start)
    return stream


def check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Reject compressed and overlapping members: torch.save never writes them, but bombs do."""
    infos = archive.infolist()
    if len(archive.NameToInfo) < len(infos):
        raise Refused("two members of the archive have the same name; do not trust the file")
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        packed = info.compress_type != STORED or info.file_size != info.compress_size
        encrypted = info.flag_bits & 1
        if packed or encrypted:
            raise Refused("a member is compressed or encrypted; save it again with torch.save")
        if info.header_offset < end:
            raise Refused("members of the archive overlap; do not trust the file")
        end = info.header_offset + 30 + info.file_size  # 30: the minimum size of a member's header
    if end > size:
        raise damaged("members reach beyond its end")


def read_zip(stream: BinaryIO, size: int, depth: int) -> Any:
    """An archive of PyTorch 1.6 or newer: a zip file with data.pkl and one member per storage."""
    # Imported here, since it would take a third of the start-up time for other files.
    import zipfile

    archive = zipfile.ZipFile(stream)  # stays open until the storages are read
    members = archive.NameToInfo
    if any(name.endswith("/constants.pkl") for name in members):
        raise Refused("it is a TorchScript program; save its state_dict with torch.save")
    check_members(archive, size)
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused("it is a zip file without one data.pkl; give the checkpoint itself")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}byteorder" in members and archive.read(f"{prefix}byteorder") != b"little":
        raise Refused(BIG_ENDIAN)
    content = io.BytesIO(archive.read(pickles[0]))
    storages: dict[str, Storage] = {}
    root = Unpickler(content, depth, storages).load()
    check_end(content)
    for key, storage in storages.items():
        name = f"{prefix}data/{key}"
        if name not in members:
            raise damaged(f"its member {name[:60]!a} is missing")
        found = members[name].file_size
        if found != storage.size:
            raise damaged(f"a storage has {found:,} bytes, {storage.size:,} declared")
        storage.open = partial(archive.open, name)
    return root


def read_nested(raw: Any = b"", *, depth: int) -> Any:
    """An archive within a pickle; tensors are pickled like this outside torch.save."""
    if depth > DEEPEST:
        raise Refused(f"it has archives within archives, more than {DEEPEST} deep")
    content = as_bytes(raw)
    return read_file(io.BytesIO(content), len(content), "torch", depth)


def read_file(stream: BinaryIO, size: int, kind: str, depth: int = 0) -> Any:
    """The tree of inert values in a file.

    Args:
        stream: seekable, at its first byte; it must stay open while storages are read.
        size: of the file in bytes.
        kind: pickle or torch; a pickle can also be a torch.save archive.
        depth: number of archives that contain this file.

    Raises:
        Exception: any error of Python's unpickler; `reason` describes it.
    """
    head = stream.read(4)
    stream.seek(0)
    if head == ZIP:
        return read_zip(stream, size, depth)
    if kind == "pickle":
        if head in NOT_PICKLES or head[:2] in NOT_PICKLES:
            raise Refused(NOT_PICKLES.get(head) or NOT_PICKLES[head[:2]])
        root = Unpickler(stream, depth).load()
        if type(root) is not int or root != MAGIC:
            check_end(stream)
            return root
        stream.seek(0)
    return read_stream(stream, size, depth)
