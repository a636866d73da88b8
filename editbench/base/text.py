"""File names that are not valid text, the encodings of files that people write, and lists in a text."""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import Path, PurePosixPath

from editbench.base.errors import BadFile

# Python represents the bytes 0x80 to 0xff of a name that is not UTF-8 by U+DC80 to U+DCFF (PEP
# 383).
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# UTF-32 comes first, since its byte-order mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SAVE = "save it as UTF-8"


def printable(text: str) -> str:
    """Convert text to valid Unicode, which UTF-8 files and JSON readers accept.

    Args:
        text: a file name, or text that contains one.

    Returns:
        The text; a byte that is not UTF-8 becomes \\xNN, any other lone surrogate \\uNNNN.
    """
    shown = _UNDECODABLE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", shown)


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """The parts of a text between the separators that are outside of all brackets.

    Args:
        text: such as 'a,b (x,y)'.
        separator: one character, such as ','.
    """
    parts = [""]
    depth = 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == separator and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def path_key(name: str) -> str:
    """Normalise a relative path, so that different spellings of it can be compared.

    `./a.png` becomes `a.png`, surrounding blanks are removed, and accented letters are composed:
    macOS writes NFD, most other systems NFC (Unicode Standard Annex 15).

    Args:
        name: a POSIX path, from a folder or a list.

    Returns:
        The normalised path.
    """
    return unicodedata.normalize("NFC", printable(PurePosixPath(name.strip()).as_posix()))


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte-order mark, by a person or another program.

    Args:
        path: of the file.

    Returns:
        The text; line ends are not converted.

    Raises:
        BadFile: the file cannot be read or has another encoding, which the message names.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path} cannot be read ({error.strerror})") from error
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            raise BadFile(f"{path} is in {encoding}; {_SAVE}")
    try:
        # utf-8-sig, since spreadsheet programs write a byte-order mark.
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadFile(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8; is the file in "
            f"Latin-1 or Windows-1252? {_SAVE}"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise BadFile(f"{path}, line {line}: a zero byte, as in UTF-16; {_SAVE}")
    return text
