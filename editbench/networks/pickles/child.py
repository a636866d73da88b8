"""The process that reads a pickle: a restricted unpickler, under limits of memory and time.

Run as a script by reader.py, in an interpreter without site-packages:

    python -I -S child.py FILE KIND MEMORY SECONDS      KIND: pickle or torch

It imports nothing but the standard library, so it starts in some 50 ms. What the file holds goes to
the standard output as records, children before their parents. A record is a line of JSON; for
bytes, text and storages the raw data follow. A refusal goes to the standard error, with exit code
3.

Python's unpickler asks `find_class` for every name and `persistent_load` for every external object.
Neither imports anything here: a name becomes a class of stand-ins, or a function of TABLE that
builds a plain container. A stand-in keeps what the unpickler hands to it, and does nothing.

torch.load(weights_only=True) is not used: it has no bound on memory and time, unpacks compressed
members, and refuses the argparse.Namespace that checkpoints hold. It is the oracle of the tests.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import zipfile

REFUSED = 3  # exit code
DAMAGED = "it is damaged or incomplete ({}); copy it again from where it came"
TOO_LARGE = (
    "its content would take more than {:,} bytes of memory, the bound for a file of its size; if "
    "you trust it, raise Limits(bytes=...), or save the arrays with numpy.save"
)
# torch/serialization.py; a number that no pickle of other data begins with.
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of an older archive, after torch/serialization.py
ZIP = b"PK\x03\x04"
STORED = 0  # zipfile.ZIP_STORED
DEEPEST = 4  # archives within archives
INLINE = 64  # characters; longer text is written once, however often it is referred to
STORAGE_WIDTHS = {  # bytes of an element, after torch/storage.py
    "FloatStorage": 4,
    "DoubleStorage": 8,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "UntypedStorage": 1,
}
# First bytes of what a failed download or copy leaves.
NOT_PICKLES = {
    b"": "it is empty; copy it again from where it came",
    b"\x1f\x8b": "it is compressed with gzip; unpack it with gunzip first",
    b"<!": "it is a web page, so the download failed; fetch the file itself",
    b"<h": "it is a web page, so the download failed; fetch the file itself",
    b"vers": "it is a pointer of git-lfs; fetch the file itself with git lfs pull",
}


class Refused(Exception):
    """What is wrong with the file, and the remedy."""


# -- stand-ins ------------------------------------------------------------------------------------
class StandIn:
    """An object of a class, or the result of a function, of the file; each name has a subclass."""

    __slots__ = ("args", "items", "kwargs", "state")
    name = ""
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None
    state: Any
    items: list[Any] | None

    # Takes any arguments, as nothing is known of the class that it stands for.
    def __new__(cls, *args: Any, **kwargs: Any) -> StandIn:
        made = super().__new__(cls)
        made.args = args
        made.kwargs = kwargs or None  # None is smaller than an empty dict
        made.state = None
        made.items = None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def extend(self, values: Any) -> None:
        if self.items is None:
            self.items = []
        self.items.extend(values)

    def append(self, value: Any) -> None:
        self.extend([value])

    add = append  # a set's

    def __setitem__(self, key: Any, value: Any) -> None:
        self.extend([(key, value)])


class PlainDict(dict):
    """A dict of another class, whose attributes (state_dict's _metadata) are dropped."""

    name = ""

    def __setstate__(self, state: Any) -> None:
        pass


class Builder:
    """A function of TABLE. A bare function would let BUILD set its attributes; this refuses."""

    __slots__ = ("function", "name")

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __setstate__(self, state: Any) -> None:
        raise Refused(DAMAGED.format("a function is given a state"))


class Storage:
    """The elements of tensors, or a view of another storage. `load` gives the raw bytes."""

    __slots__ = ("base", "first", "kind", "load", "numel")

    def __init__(self, kind: str, numel: int, load: Callable[[], bytes] = bytes) -> None:
        self.kind = kind
        self.numel = numel
        self.load = load
        self.base: Storage | None = None
        self.first = 0

    @property
    def width(self) -> int:
        return STORAGE_WIDTHS[self.kind.rpartition(".")[2]]


# -- the names that are rebuilt -------------------------------------------------------------------
def as_bytes(value: Any = b"", encoding: Any = "latin1") -> bytes:
    """Bytes; protocols 0 to 2 write them as text of the same codes."""
    if isinstance(value, str) and encoding in ("latin1", "latin-1"):
        return value.encode("latin-1")
    if not isinstance(value, (bytes, bytearray)):
        raise Refused(DAMAGED.format("bytes are made from something else"))
    return bytes(value)


def as_default_dict(factory: Any = None, *args: Any) -> PlainDict:
    return PlainDict(*args)


def new_object(cls: Any, base: Any, state: Any) -> Any:
    """copyreg._reconstructor, with which protocols 0 and 1 make an object."""
    if not isinstance(cls, type):
        raise Refused(DAMAGED.format("an object's class is not a name"))
    if issubclass(cls, PlainDict):
        if state is None:
            return cls()
        return cls(state)
    made = cls()
    # The state is what the base class (dict, list) held.
    if isinstance(made, StandIn) and isinstance(state, dict):
        made.extend(state.items())
    elif isinstance(made, StandIn) and isinstance(state, (list, tuple, set)):
        made.extend(state)
    return made


def new_by_arguments(cls: Any, *args: Any) -> Any:
    """copyreg.__newobj__."""
    if not isinstance(cls, type):
        raise Refused(DAMAGED.format("an object's class is not a name"))
    return cls(*args)


TABLE: dict[str, Callable[..., Any]] = {
    "collections.defaultdict": as_default_dict,
    "_codecs.encode": as_bytes,
    "torch.Size": tuple,
}
for _module in ("builtins", "__builtin__"):  # of Python 3 and 2
    for _type in (list, tuple, set, frozenset, complex):
        TABLE[f"{_module}.{_type.__name__}"] = _type
    TABLE[f"{_module}.bytes"] = as_bytes
    TABLE[f"{_module}.bytearray"] = lambda *args: bytearray(as_bytes(*args))
# The module had another name in Python 2.
for _module in ("copyreg", "copy_reg"):
    TABLE[f"{_module}._reconstructor"] = new_object
    TABLE[f"{_module}.__newobj__"] = new_by_arguments
EASY_DICT = "dnnlib.EasyDict"  # copies of it lie in many packages
DICTS = {
    "builtins.dict",
    "__builtin__.dict",
    "collections.OrderedDict",
    "collections.Counter",
    "munch.Munch",
    EASY_DICT,
}
LOAD_FROM_BYTES = "torch.storage._load_from_bytes"


class Unpickler(pickle.Unpickler):
    """Python's unpickler, which imports nothing.

    Args:
        stream: at the first opcode; it is left behind the last one.
        depth: archives that this pickle lies within.
        storages: what persistent ids refer to; without it they are refused.
    """

    def __init__(self, stream: BinaryIO, depth: int, storages: Storages | None = None) -> None:
        # Python 2's byte strings become text with the same codes.
        super().__init__(stream, encoding="latin1")
        self.depth = depth
        self.storages = storages
        self.known: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = EASY_DICT
        if name != "EasyDict":
            full = f"{module}.{name}"
        if full not in self.known:
            self.known[full] = self.stand_in(full)
        return self.known[full]

    def stand_in(self, full: str) -> Any:
        if full == LOAD_FROM_BYTES:
            return Builder(full, lambda raw=b"": read_nested(as_bytes(raw), self.depth + 1))
        if full in TABLE:
            return Builder(full, TABLE[full])
        base: type = StandIn
        if full in DICTS:
            # A new class for each name, so that the unpickler can call __new__ on it.
            base = PlainDict
        return type(base.__name__, (base,), {"__slots__": (), "name": full})

    def persistent_load(self, identity: Any) -> Any:
        if self.storages is None:
            raise Refused(
                "it refers to objects outside of itself (persistent ids), which only torch.save "
                "files may do"
            )
        return self.storages.find(identity)


# -- torch.save archives --------------------------------------------------------------------------
class Storages:
    """The storages of one archive by key. Each has the size that its first mention declares."""

    def __init__(self, load: Callable[[str], bytes]) -> None:
        self.load = load
        self.known: dict[str, Storage] = {}

    def find(self, identity: Any) -> Any:
        words = DAMAGED.format(
            "a persistent id of another form, expected ('storage', kind, key, location, numel)"
        )
        if isinstance(identity, tuple) and len(identity) > 1 and identity[0] == "module":
            return identity[1]  # a class with its source, in files of PyTorch before 0.4
        if not isinstance(identity, tuple) or len(identity) not in (5, 6):
            raise Refused(words)
        mark, kind, key, _, numel = identity[:5]
        if mark not in ("storage", b"storage") or not isinstance(key, str):
            raise Refused(words)
        if not isinstance(numel, int) or not 0 <= numel < 1 << 50:
            raise Refused(words)
        name = getattr(kind, "name", "") if isinstance(kind, type) else ""
        owner, _, last = name.rpartition(".")
        if owner not in ("torch", "torch.cuda", "torch.storage") or last not in STORAGE_WIDTHS:
            raise Refused(
                f"a tensor's storage is of the kind {name[:60]!a}, which is not read; save it as a "
                "dense tensor"
            )
        # Its bytes are read when the tree is written, if they are referred to at all.
        if key not in self.known:
            self.known[key] = Storage(name, numel, lambda: self.load(key))
        found = self.known[key]
        if found.width != STORAGE_WIDTHS[last] or found.numel != numel:
            raise Refused(DAMAGED.format(f"storage {key[:40]!a} is declared twice, differently"))
        if len(identity) == 5 or identity[5] is None:
            return found
        return view_of(found, identity[5])


def view_of(base: Storage, view: Any) -> Storage:
    """Part of a storage, in archives of PyTorch before 0.4: (key, first element, elements)."""
    if not isinstance(view, tuple) or len(view) != 3:
        raise Refused(DAMAGED.format("a view of a storage of another form"))
    _, first, numel = view
    if type(first) is not int or type(numel) is not int or min(first, numel) < 0:
        raise Refused(DAMAGED.format("a view of a storage of another form"))
    if first + numel > base.numel:
        raise Refused(DAMAGED.format("a view reaches beyond its storage"))
    made = Storage(base.kind, numel)
    made.base = base
    made.first = first
    return made


def read_exactly(stream: BinaryIO, number: int) -> bytes:
    raw = stream.read(number)
    if len(raw) != number:
        raise Refused(DAMAGED.format(f"{number:,} bytes declared, {len(raw):,} left"))
    return raw


def check_end(stream: BinaryIO) -> None:
    if stream.read(1):
        raise Refused(
            "bytes follow its end; it is damaged, or holds several pickles: save one object"
        )


def read_stream(stream: BinaryIO, depth: int) -> Any:
    """An archive of PyTorch before 1.6: five pickles, then the length and bytes of each storage."""
    if Unpickler(stream, depth).load() != MAGIC:
        raise Refused(
            "it is not a torch.save archive; read it as a pickle, or copy it again from where it "
            "came"
        )
    Unpickler(stream, depth).load()  # the version of the format
    # Byte order and sizes of the machine that wrote the archive.
    system = Unpickler(stream, depth).load()
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Refused("it was written on a big-endian machine; save it again on a usual one")
    # Filled after the pickle: the bytes of the storages come last.
    raw: dict[str, bytes] = {}
    storages = Storages(raw.__getitem__)
    root = Unpickler(stream, depth, storages).load()
    keys = Unpickler(stream, depth).load()
    texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not texts or sorted(keys) != sorted(storages.known):
        raise Refused(DAMAGED.format("the list of its storages is not that of its tensors"))
    for key in keys:
        storage = storages.known[key]
        (numel,) = struct.unpack("<q", read_exactly(stream, 8))
        if numel != storage.numel:
            raise Refused(DAMAGED.format(f"storage {key[:40]!a} has another length than declared"))
        raw[key] = read_exactly(stream, numel * storage.width)
    check_end(stream)
    return root


def check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse what torch.save never writes and a bomb needs: packed or overlapping members."""
    infos = archive.infolist()
    if len(archive.NameToInfo) < len(infos):
        raise Refused("two members of the archive have one name; do not trust the file")
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        packed = info.compress_type != STORED or info.file_size != info.compress_size
        encrypted = info.flag_bits & 1
        if packed or encrypted:
            raise Refused(
                f"its member {info.filename[:60]!a} is compressed or encrypted, which torch.save "
                "never does; unpack and save the checkpoint again with torch.save"
            )
        if info.header_offset < end:
            raise Refused("members of the archive overlap; do not trust the file")
        end = info.header_offset + 30 + info.file_size  # 30: the shortest header of a member
    if end > size:
        raise Refused(DAMAGED.format("members reach beyond its end"))


def read_zip(stream: BinaryIO, size: int, depth: int) -> Any:
    """An archive of PyTorch 1.6 or newer: a zip file with data.pkl and one member a storage."""
    # Here, since it would be a third of the start of every other file.
    import zipfile

    archive = zipfile.ZipFile(stream)  # open until the storages are written
    names = archive.NameToInfo
    if any(name.endswith("/constants.pkl") for name in names):
        raise Refused(
            "it is a TorchScript program, not a checkpoint; save its state_dict with torch.save"
        )
    check_members(archive, size)
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused(
            "it is a zip file without one data.pkl, so not of torch.save; give the checkpoint "
            "itself"
        )
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}byteorder" in names and archive.read(f"{prefix}byteorder") != b"little":
        raise Refused("it was written on a big-endian machine; save it again on a usual one")

    def load(key: str) -> bytes:
        name = f"{prefix}data/{key}"
        if name not in names:
            raise Refused(DAMAGED.format(f"its member {name[:60]!a} is missing"))
        return archive.read(name)

    content = io.BytesIO(archive.read(pickles[0]))
    root = Unpickler(content, depth, Storages(load)).load()
    check_end(content)
    return root


def read_nested(raw: bytes, depth: int) -> Any:
    """An archive within a pickle, which is how tensors outside of torch.save are pickled."""
    if depth > DEEPEST:
        raise Refused(
            f"it has archives within archives, more than {DEEPEST} deep; no data needs this"
        )
    if raw[:4] == ZIP:
        return read_zip(io.BytesIO(raw), len(raw), depth)
    return read_stream(io.BytesIO(raw), depth)


def read_file(stream: BinaryIO, size: int, kind: str) -> Any:
    head = stream.read(4)
    stream.seek(0)
    if head == ZIP:
        return read_zip(stream, size, 0)
    if kind == "torch":
        return read_stream(stream, 0)
    if head in NOT_PICKLES or head[:2] in NOT_PICKLES:
        raise Refused(NOT_PICKLES.get(head) or NOT_PICKLES[head[:2]])
    root = Unpickler(stream, 0).load()
    if type(root) is int and root == MAGIC:
        stream.seek(0)
        return read_stream(stream, 0)
    check_end(stream)
    return root


# -- what the parent gets -------------------------------------------------------------------------
def is_record(value: Any) -> bool:
    """Whether a value has a record of its own; the others stand within the records of others."""
    if isinstance(value, str):
        return len(value) > INLINE or not value.isascii()
    return value is not None and not isinstance(value, (bool, int, float))


def parts_of(value: Any) -> Iterator[Any]:
    """The values that a value refers to."""
    if isinstance(value, dict):
        return itertools.chain.from_iterable(value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return iter(value)
    if isinstance(value, StandIn):
        return iter((value.args, value.kwargs, value.state, value.items))
    if isinstance(value, Storage) and value.base is not None:
        return iter((value.base,))
    return iter(())


class Writer:
    """Writes a tree of values as records, each value once, children first."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.numbers: dict[int, int] = {}  # id of a value -> number of its record

    def write_tree(self, root: Any) -> None:
        top = [root]
        # Meeting one of them again is a cycle.
        within = {id(top)}  # containers that are being written
        path = [(top, parts_of(top))]  # a stack, as recursion would limit the depth
        while path:
            value, parts = path[-1]
            inner = next((part for part in parts if self.is_new(part)), None)
            if inner is None:
                path.pop()
                within.discard(id(value))
                self.write_record("root" if value is top else "", value)
                self.numbers[id(value)] = len(self.numbers)
            elif id(inner) in within:
                raise Refused("its objects contain themselves; save plain data without cycles")
            else:
                within.add(id(inner))
                path.append((inner, parts_of(inner)))

    def is_new(self, value: Any) -> bool:
        return is_record(value) and id(value) not in self.numbers

    def refer(self, value: Any) -> Any:
        """A value within a record: itself, or the number of its record in a list."""
        if is_record(value):
            return [self.numbers[id(value)]]
        return value

    def write_record(self, kind: str, value: Any) -> None:
        raw: bytes | bytearray = b""
        fields: list[Any]
        if isinstance(value, (bytes, bytearray)):
            raw = value
            fields = [type(value).__name__]
        elif isinstance(value, str):
            # Lone surrogates are no UTF-8; they come back by the same rule.
            raw = value.encode("utf-8", "surrogatepass")
            fields = ["text"]
        elif isinstance(value, complex):
            fields = ["complex", value.real, value.imag]
        elif isinstance(value, Storage) and value.base is not None:
            fields = ["view", self.refer(value.base), value.first, value.numel]
        elif isinstance(value, Storage):
            raw = value.load()
            fields = ["storage", value.kind, value.numel]
            if len(raw) != value.numel * value.width:
                raise Refused(
                    DAMAGED.format(
                        f"a storage has {len(raw):,} bytes, {value.numel * value.width:,} declared"
                    )
                )
        elif isinstance(value, StandIn):
            fields = ["opaque", value.name, *map(self.refer, parts_of(value))]
        elif isinstance(value, Builder) or (isinstance(value, type) and hasattr(value, "name")):
            fields = ["global", value.name]
        else:
            base = dict if isinstance(value, dict) else type(value)
            fields = [kind or base.__name__, list(map(self.refer, parts_of(value)))]
        self.out.write(json.dumps([len(raw), *fields]).encode() + b"\n")
        self.out.write(raw)


# -- the process ----------------------------------------------------------------------------------
def limit(memory: int, seconds: int) -> None:
    """Bound this process: `memory` bytes beyond now, `seconds` of processor time, no core dump."""
    try:
        import resource
    except ImportError:  # Windows; the parent still bounds the time
        return

    def lower(which: int, most: int) -> None:
        hard = resource.getrlimit(which)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(which, (most, hard))

    if os.path.exists("/proc/self/statm"):  # Linux; elsewhere memory is not bounded
        with open("/proc/self/statm", encoding="utf-8") as statm:
            # The address space of the interpreter as it stands does not count.
            pages = int(statm.read().split()[0])
        lower(resource.RLIMIT_AS, pages * resource.getpagesize() + memory)
    lower(resource.RLIMIT_FSIZE, memory)
    lower(resource.RLIMIT_CPU, seconds)
    lower(resource.RLIMIT_CORE, 0)


def main(path: str, kind: str, memory: str, seconds: str) -> None:
    limit(int(memory), int(seconds))
    try:
        with open(path, "rb") as stream:
            root = read_file(stream, os.path.getsize(path), kind)
            Writer(sys.stdout.buffer).write_tree(root)
        sys.stdout.buffer.flush()
    except Refused as error:
        stop(str(error))
    except MemoryError:
        stop(TOO_LARGE.format(int(memory)))
    except EOFError:
        stop(DAMAGED.format("it ends in the middle"))
    except pickle.UnpicklingError as error:
        stop("it is not a pickle, or " + DAMAGED.format(f"{str(error)[:120]!a}"))
    except OSError as error:
        if error.errno == errno.EFBIG:  # beyond RLIMIT_FSIZE
            stop(TOO_LARGE.format(int(memory)))
        stop(
            f"cannot be read ({error.strerror or error}); check the path, its permissions and the "
            "space in the folder for temporary files"
        )
    except Exception as error:  # whatever bytes can make the unpickler do is the fault of the file
        stop(DAMAGED.format(f"{type(error).__name__}: {str(error)[:120]!a}"))
    os._exit(0)  # a deep result takes long to free


def stop(message: str) -> None:
    os.write(2, message.encode("utf-8", "replace"))
    os._exit(REFUSED)


if __name__ == "__main__":
    main(*sys.argv[1:])
