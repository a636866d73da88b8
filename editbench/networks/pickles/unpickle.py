"""A restricted unpickler: a pickle becomes a tree of inert values.

Python's unpickler calls `find_class` for every name. It imports nothing here: a name becomes a
class whose objects only store what the unpickler passes to them. child.py runs it with limits of
memory and time, and without site-packages.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, BinaryIO

from refused import Refused

DICTS = {
    "builtins.dict",
    "__builtin__.dict",
    "collections.OrderedDict",
    "collections.Counter",
    "munch.Munch",
}


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


def as_bytes(value: Any = b"", encoding: Any = "latin1") -> bytes:
    """Bytes; protocols 0 to 2 store them as text with the same code points.

    Args:
        value: text of `_codecs.encode`, or bytes.
        encoding: of the text; only Latin-1 gives code points as bytes.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, str) and encoding in ("latin1", "latin-1"):
        return value.encode("latin-1")
    if not isinstance(value, (bytes, bytearray)):
        raise ValueError("bytes are made from something else")
    return bytes(value)


def new_object(cls: Any, base: Any, content: Any) -> Any:
    """copyreg._reconstructor, by which protocols 0 and 1 create objects.

    Args:
        cls: stand-in of the object's class.
        base: its base class; not used.
        content: of the base class, such as a list or a number, and None for `object`. It becomes
            the argument, as text and numbers do with newer protocols.
    """
    return cls() if content is None else cls(content)


# The only functions that are called.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": as_bytes,
    "collections.defaultdict": lambda factory=None, *pairs: dict(*pairs),
    "torch.Size": tuple,
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
    """

    def __init__(self, stream: BinaryIO) -> None:
        # Byte strings of Python 2 become text with the same code points.
        super().__init__(stream, encoding="latin1")
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
        raise Refused(
            "it has persistent ids, which only torch.save files may have; it is damaged or not a "
            "pickle of data"
        )
