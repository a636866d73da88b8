"""Python's unpickler, restricted: a pickle or a torch.save file becomes a tree of inert values.

It asks `find_class` for every name and `persistent_load` for every external object. Neither imports
anything: a name becomes a class whose objects keep what the unpickler hands to them, or one that
calls a function of TABLE, which builds a plain container.

Every file is read twice: child.py tries it under limits of memory and time, and reader.py does the
same once more where the result is wanted. So both must do the same, step by step. The order of a
set differs between processes; nothing is made of one here that could take longer in one order. And
what can take long for its size, such as hashing, is done here, where the trial bounds it.

torch.load(weights_only=True) is not used: it has no bound on memory and time, unpacks compressed
members, and refuses the argparse.Namespace that checkpoints hold. It is the oracle of the tests.
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

# The first pickle of an older archive, after torch/serialization.py; no other data begin with it.
MAGIC = 0x1950A86A20F9469CFC6C
ZIP = b"PK\x03\x04"
STORED = 0  # zipfile.ZIP_STORED
DEEPEST = 4  # archives within archives
REFUSED = 3  # exit code of child.py
STORAGES = {  # dtype and bytes of an element, after torch/storage.py
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
# First bytes of what a failed download or copy leaves.
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
    """What is wrong with the file, and the remedy."""


def damaged(what: str) -> Refused:
    return Refused(f"it is damaged or incomplete ({what}); copy it again from where it came")


def reason(error: Exception) -> str:
    """What an exception says about the file that was being read."""
    if isinstance(error, MemoryError):
        return TOO_LARGE
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error}); check the path and its permissions"
    if isinstance(error, EOFError):
        error = damaged("it ends in the middle")
    if isinstance(error, pickle.UnpicklingError):
        error = Refused(f"it is not a pickle, or {damaged(ascii(str(error)[:120]))}")
    # Whatever else bytes can make the unpickler, NumPy and torch raise is the fault of the file.
    if not isinstance(error, Refused):
        error = damaged(f"{type(error).__name__}: {str(error)[:120]!a}")
    return str(error)


# -- what names become ----------------------------------------------------------------------------
class Opaque:
    """An object of a class, or the result of a function, that was neither imported nor called."""

    __slots__ = ("args", "items", "kwargs", "name", "state")
    name: str  # 'module.qualname' as the file has it
    args: tuple  # what it would have been called with
    kwargs: dict[str, Any]  # the named arguments of that call
    state: Any  # what would have been handed to its __setstate__; None without one
    items: list  # what would have been appended to it; for a mapping (key, value) pairs
    full_name = ""  # each name of a file has a class of its own

    # Takes any arguments, as nothing is known of the class that it stands for.
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

    add = append  # a set's

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __repr__(self) -> str:
        # Short, as the parts can be large; ASCII, as the name is the file's choice.
        return f"{type(self).__name__}({self.name[:120]!a})"


class Global(Opaque):
    """A bare reference to a name: a class or a function that is not called here."""

    __slots__ = ()


class Storage(Opaque):
    """The elements of tensors, whose bytes are not read here."""

    __slots__ = ("dtype", "flat", "numel", "open", "size")
    dtype: str  # torch's name of it
    numel: int  # elements
    size: int  # bytes
    open: Callable[[], Any]  # gives a stream at the first byte
    flat: Any  # the elements as a 1-D tensor, once rebuild.py has read them


class PlainDict(dict):
    """A dict of another class, whose attributes (state_dict's _metadata) are dropped."""

    __slots__ = ()
    full_name = ""

    def __init__(self, pairs: Any = ()) -> None:
        # dict() would take sets, too, whose order differs from process to process.
        plain = isinstance(pairs, dict) or all(
            type(part) in (list, tuple) for part in [pairs, *pairs]
        )
        if not plain:
            raise damaged("a dict is made from something other than pairs")
        super().__init__(pairs)

    def __setstate__(self, state: Any) -> None:
        pass


class Function:
    """A function of TABLE. Without __setstate__, a file could set attributes of the class."""

    __slots__ = ()
    full_name = ""
    call: Callable[..., Any]

    def __new__(cls, *args: Any) -> Any:
        return cls.call(*args)

    def __setstate__(self, state: Any) -> None:
        pass


def as_bytes(value: Any = b"", encoding: Any = "latin1") -> bytes:
    """Bytes; protocols 0 to 2 write them as text of the same codes."""
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
    """copyreg._reconstructor, with which protocols 0 and 1 make an object.

    The state is what the base class (dict, list) held.
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
for _module in ("builtins", "__builtin__"):  # of Python 3 and 2
    for _type in (set, frozenset, complex):
        TABLE[f"{_module}.{_type.__name__}"] = _type
    TABLE[f"{_module}.bytes"] = as_bytes
    TABLE[f"{_module}.bytearray"] = lambda *args: bytearray(as_bytes(*args))
# The module had another name in Python 2.
for _module in ("copyreg", "copy_reg"):
    TABLE[f"{_module}._reconstructor"] = new_object
    TABLE[f"{_module}.__newobj__"] = new_by_arguments
LOAD_FROM_BYTES = "torch.storage._load_from_bytes"
EASY_DICT = "dnnlib.EasyDict"  # copies of it lie in many packages
DICTS = {
    "builtins.dict",
    "__builtin__.dict",
    "collections.OrderedDict",
    "collections.Counter",
    "munch.Munch",
    EASY_DICT,
}


class Unpickler(pickle.Unpickler):
    """Python's unpickler, which imports nothing.

    Args:
        stream: at the first opcode; it is left behind the last one.
        depth: archives that this pickle lies within.
        storages: by key, filled with those that are mentioned; None where there can be none.
    """

    def __init__(
        self, stream: BinaryIO, depth: int, storages: dict[str, Storage] | None = None
    ) -> None:
        # Python 2's byte strings become text with the same codes.
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
            case ("module", cls, *_):  # a class with its source, in older archives
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
    """The storage of this key; the first mention of a key makes it."""
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
    # Byte order and sizes of the machine that wrote the archive.
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
    """Refuse what torch.save never writes and a bomb needs: packed or overlapping members."""
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
        end = info.header_offset + 30 + info.file_size  # 30: the shortest header of a member
    if end > size:
        raise damaged("members reach beyond its end")


def read_zip(stream: BinaryIO, size: int, depth: int) -> Any:
    """An archive of PyTorch 1.6 or newer: a zip file with data.pkl and one member a storage."""
    # Here, since it would be a third of the start of every other file.
    import zipfile

    archive = zipfile.ZipFile(stream)  # open until the storages are read
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
    """An archive within a pickle, which is how tensors outside of torch.save are pickled."""
    if depth > DEEPEST:
        raise Refused(f"it has archives within archives, more than {DEEPEST} deep")
    content = as_bytes(raw)
    return read_file(io.BytesIO(content), len(content), "torch", depth)


def read_file(stream: BinaryIO, size: int, kind: str, depth: int = 0) -> Any:
    """The tree of inert values that a file holds.

    Args:
        stream: at its first byte; it can be sought in, and stays open while storages are read.
        size: bytes of the file.
        kind: pickle or torch; a pickle can also be a torch.save archive.
        depth: archives that it lies within.

    Raises:
        Exception: whatever bytes can make Python's unpickler raise; `reason` puts it into words.
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
