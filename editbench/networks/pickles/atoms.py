"""The opcodes of pickle that carry a value: numbers, text and bytes. Each reads its argument and nothing else."""

from __future__ import annotations

import codecs
import pickle
import re
import struct
from collections.abc import Callable
from typing import Any

from editbench.networks.pickles.limits import Budget, Refused

DAMAGED = "it is damaged or incomplete ({}); copy it again from where it came"
LONGEST_INT = 512  # bytes; arithmetic on longer ones is slow, and no data need them
LONGEST_FLOAT = 400
HEADER = 48  # bytes of text or bytes objects beyond what every value costs
NUMBER = re.compile(rb"[+-]?[0-9]{1,600}L?")


class Cursor:
    """A position in bytes; every read is checked against what is left."""

    def __init__(self, data: bytes, budget: Budget, at: int = 0) -> None:
        self.data, self.at, self.budget = data, at, budget

    def take(self, number: int) -> bytes:
        left = len(self.data) - self.at
        if not 0 <= number <= left:
            raise Refused(
                DAMAGED.format(
                    f"{number:,} bytes declared at position {self.at:,}, {max(left, 0):,} left"
                )
            )
        self.budget.take(number)
        self.at += number
        return self.data[self.at - number : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise Refused(DAMAGED.format("a line has no end"))
        self.budget.take(HEADER)
        text = self.take(end - self.at)
        self.at += 1
        return text

    def sized(self, form: str) -> bytes:
        self.budget.take(HEADER)
        return self.take(self.number(form))

    def text(self, form: str) -> str:
        raw = self.sized(form)
        self.budget.take(4 * len(raw))
        return raw.decode("utf-8", "surrogatepass")


def _integer(text: bytes) -> int:
    if not NUMBER.fullmatch(text):
        raise Refused(DAMAGED.format("a number has letters in it or is too long"))
    return int(text.rstrip(b"L"))


def _int(cursor: Cursor) -> int | bool:
    text = cursor.line()
    return text == b"01" if text in (b"00", b"01") else _integer(text)


def _long(form: str) -> Callable[[Cursor], int]:
    def read(cursor: Cursor) -> int:
        size = cursor.number(form)
        if not 0 <= size <= LONGEST_INT:
            raise Refused(DAMAGED.format(f"an integer of {size:,} bytes"))
        return int.from_bytes(cursor.take(size), "little", signed=True)

    return read


def _float(cursor: Cursor) -> float:
    text = cursor.line()
    if len(text) > LONGEST_FLOAT:
        raise Refused(DAMAGED.format("a number is too long"))
    return float(text)


def _string(cursor: Cursor) -> str:
    text = cursor.line().strip()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in b"'\"":
        raise Refused(DAMAGED.format("a string is not quoted"))
    return codecs.escape_decode(text[1:-1])[0].decode("latin-1")  # type: ignore[attr-defined]


def _unicode(cursor: Cursor) -> str:
    raw = cursor.line()
    cursor.budget.take(4 * len(raw))
    return raw.decode("raw-unicode-escape")


def _bytearray(cursor: Cursor) -> bytearray:
    raw = cursor.sized("<Q")
    cursor.budget.take(len(raw))
    return bytearray(raw)


ATOMS: dict[int, Callable[[Cursor], Any]] = {
    code[0]: read
    for code, read in {
        pickle.NONE: lambda cursor: None,
        pickle.NEWTRUE: lambda cursor: True,
        pickle.NEWFALSE: lambda cursor: False,
        pickle.INT: _int,
        pickle.BININT: lambda cursor: cursor.number("<i"),
        pickle.BININT1: lambda cursor: cursor.number("<B"),
        pickle.BININT2: lambda cursor: cursor.number("<H"),
        pickle.LONG: lambda cursor: _integer(cursor.line()),
        pickle.LONG1: _long("<B"),
        pickle.LONG4: _long("<i"),
        pickle.FLOAT: _float,
        pickle.BINFLOAT: lambda cursor: cursor.number(">d"),
        pickle.STRING: _string,  # Python 2's byte strings become text, byte for byte
        pickle.BINSTRING: lambda cursor: cursor.sized("<i").decode("latin-1"),
        pickle.SHORT_BINSTRING: lambda cursor: cursor.sized("<B").decode("latin-1"),
        pickle.BINBYTES: lambda cursor: cursor.sized("<I"),
        pickle.SHORT_BINBYTES: lambda cursor: cursor.sized("<B"),
        pickle.BINBYTES8: lambda cursor: cursor.sized("<Q"),
        pickle.BYTEARRAY8: _bytearray,
        pickle.UNICODE: _unicode,
        pickle.BINUNICODE: lambda cursor: cursor.text("<I"),
        pickle.SHORT_BINUNICODE: lambda cursor: cursor.text("<B"),
        pickle.BINUNICODE8: lambda cursor: cursor.text("<Q"),
    }.items()
}
SINGLETONS = (
    pickle.NONE[0],
    pickle.NEWTRUE[0],
    pickle.NEWFALSE[0],
)  # cost a place on the stack alone
