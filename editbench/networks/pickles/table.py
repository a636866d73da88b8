"""The closed table of names that this reader rebuilds, each by a pure function of its own; all others stay Opaque."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from editbench.networks.pickles import arrays, tensors
from editbench.networks.pickles.keys import as_key
from editbench.networks.pickles.limits import Budget, Refused
from editbench.networks.pickles.machine import EASY_DICT
from editbench.networks.pickles.opaque import SIZE, Global, Opaque

DICTS = ("collections.OrderedDict", EASY_DICT, "munch.Munch", "builtins.dict", "__builtin__.dict")


def as_items(budget: Budget, value: Any) -> list:
    """The elements of a plain container, paid for."""
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise Refused(f"a container is made from a {type(value).__name__}; the file is damaged")
    budget.take(200 * len(value))
    return list(value)


def plain_dict(budget: Budget, *args: Any) -> dict:
    """A dict of nothing, of a dict, or of pairs."""
    if not args:
        return {}
    pairs = list(args[0].items()) if isinstance(args[0], dict) else as_items(budget, args[0])
    budget.take(200 * len(pairs))
    found: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise Refused("a dict is made from what is not pairs; the file is damaged")
        found[as_key(budget, pair[0], len(found))] = pair[1]
    return found


def default_dict(budget: Budget, *args: Any) -> dict:
    return plain_dict(budget, *args[1:])


def plain_list(budget: Budget, *args: Any) -> list:
    return as_items(budget, args[0]) if args else []


def plain_tuple(budget: Budget, *args: Any) -> tuple:
    return tuple(plain_list(budget, *args))


def plain_set(budget: Budget, *args: Any) -> set:
    return {as_key(budget, value, k) for k, value in enumerate(plain_list(budget, *args))}


def plain_frozenset(budget: Budget, *args: Any) -> frozenset:
    return frozenset(plain_set(budget, *args))


def encode(budget: Budget, text: Any = "", encoding: Any = "latin1") -> bytes:
    """Bytes as Python 3 writes them in protocols 0 to 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused("bytes are not encoded as latin1; the file is damaged")
    budget.take(len(text))
    return text.encode("latin-1")


def plain_bytes(budget: Budget, *args: Any) -> bytes:
    if args and not isinstance(args[0], (bytes, bytearray)):
        raise Refused("bytes are made from something else; the file is damaged")
    budget.take(len(args[0]) if args else 0)
    return bytes(args[0]) if args else b""


def byte_array(budget: Budget, *args: Any) -> bytearray:
    if len(args) == 2 and isinstance(args[0], str):
        return bytearray(encode(budget, *args))
    return bytearray(plain_bytes(budget, *args))


def plain_complex(budget: Budget, *args: Any) -> complex:
    if len(args) > 2 or not all(isinstance(part, float) for part in args):
        raise Refused("a complex number is not made from two numbers; the file is damaged")
    return complex(*args)


def new_object(
    budget: Budget, cls: Any = None, base: Any = None, state: Any = None, *others: Any
) -> Any:
    """copyreg._reconstructor, how protocols 0 and 1 make an object: the Opaque of its class."""
    if not isinstance(cls, Global):
        raise Refused("an object's class is not a name; the file is damaged")
    budget.take(SIZE)
    if cls.name in DICTS:
        return plain_dict(budget, *([] if state is None else [state]))
    made = Opaque(cls.name)
    budget.take(96 * len(state) if isinstance(state, (dict, list, tuple, set)) else 0)
    if isinstance(state, dict):
        made.items.extend(state.items())
    elif isinstance(state, (list, tuple, set)):
        made.items.extend(state)
    return made


def by_new(budget: Budget, cls: Any = None, *args: Any) -> Any:
    """copyreg.__newobj__: as the opcode of that purpose."""
    if not isinstance(cls, Global):
        raise Refused("an object's class is not a name; the file is damaged")
    if cls.name in TABLE:
        return TABLE[cls.name](budget, *args)
    budget.take(SIZE)
    return Opaque(cls.name, args)


PLAIN: dict[str, Callable[..., Any]] = {
    "list": plain_list,
    "tuple": plain_tuple,
    "set": plain_set,
    "frozenset": plain_frozenset,
    "bytes": plain_bytes,
    "bytearray": byte_array,
    "complex": plain_complex,
}
TABLE: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(DICTS, plain_dict),
    "collections.defaultdict": default_dict,
    "collections.Counter": plain_dict,
    **{f"builtins.{name}": PLAIN[name] for name in PLAIN},
    **{f"__builtin__.{name}": PLAIN[name] for name in PLAIN},
    "_codecs.encode": encode,
    "copyreg._reconstructor": new_object,
    "copy_reg._reconstructor": new_object,
    "copyreg.__newobj__": by_new,
    "copy_reg.__newobj__": by_new,
    **{f"numpy.{core}.multiarray._reconstruct": arrays.reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": arrays.scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": arrays.from_buffer for core in ("core", "_core")},
    **tensors.REBUILT,
    "torch._tensor._rebuild_from_type_v2": tensors.of_type,
    "torch.Size": plain_tuple,
}
