"""Text from elsewhere: file names that are no text, and the encodings of files that people write."""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import Path, PurePosixPath

from editbench.base.errors import BadFile

# Python reads the bytes 0x80 to 0xff of a name that is not UTF-8 as U+DC80 to U+DCFF (PEP 383).
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# The longer marks first: that of UTF-16 is the beginning of that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SAVE = "save it as UTF-8"


def printable(text: str) -> str:
    """Text that every UTF-8 file and every JSON reader takes.

    Args:
        text: a file name, or text with one in it.

    Returns:
        The text; a byte that is not UTF-8 is shown as \\xNN, another lone surrogate as \\uNNNN.
    """
    shown = _UNDECODABLE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", shown)


def path_key(name: str) -> str:
    """What two writings of one path below a folder have in common.

    `./a.png` is `a.png`, blanks around it do not count, and a letter with an accent is one letter
    however it is composed: macOS writes NFD, most others NFC (Unicode Standard Annex 15).

    Args:
        name: a posix path, as a folder or a list has it.

    Returns:
        The key; equal for paths that a person would call the same.
    """
    return unicodedata.normalize("NFC", printable(PurePosixPath(name.strip()).as_posix()))


def read_text(path: Path) -> str:
    """The text of a file that a person or another program wrote: UTF-8, with or without a mark.

    Args:
        path: of the file.

    Returns:
        The text, its line ends as they are.

    Raises:
        BadFile: it cannot be read, or is in another encoding; the message names it.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path} cannot be read ({error.strerror})") from error
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            raise BadFile(f"{path} is in {encoding}; {_SAVE}")
    try:
        # utf-8-sig: spreadsheets put a byte-order mark before the first letter.
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
