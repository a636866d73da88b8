"""Arrays of an .npz read as a stream: header first, then rows in order.

Nothing is unpickled. The header is checked against the archive's directory: the declared size of a
member must be exactly that of its shape and dtype, so that memory and disk are bounded before
anything is unpacked. zipfile compares the checksum when the last row is read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from editbench.base.errors import BadFile, no_such

CHUNK = 1 << 20


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    # What zipfile, zlib and NumPy raise on damaged bytes.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        OSError,
        MemoryError,
    ) as error:
        raise BadFile(
            f"{path}: not a complete .npz of plain arrays ({error}); "
            "copy it again from where it came"
        ) from error


def members(path: Path) -> list[str]:
    """Names of the arrays of an .npz, without their ending."""
    if not path.is_file():
        raise BadFile(f"{path}: {no_such('.npz file', path)}")
    with _explained(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


class Member:
    """One array of an .npz: `shape`, `dtype`, and its rows in order.

    Args:
        path: the .npz.
        key: name of the array.
        found: what `members` gave.

    Raises:
        BadFile: no such array; a header that does not fit the archive.
    """

    def __init__(self, path: Path, key: str, found: list[str]) -> None:
        self.path = path
        self.key = key
        self.row = 0
        if key not in found:
            raise BadFile(f"{path}: has no array '{key}'; it holds {', '.join(found) or 'none'}")
        self._stream: IO[bytes] | None = None
        with _explained(path), self._open() as stream:
            self.shape, self.dtype = self._header(stream)
            header = stream.tell()
        with _explained(path), zipfile.ZipFile(path) as archive:
            declared = archive.getinfo(f"{key}.npy").file_size
        self.row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        # Shape and directory must agree, so that a small file cannot declare a large array.
        needed = header + self.shape[0] * self.row_bytes
        if declared != needed:
            raise BadFile(
                f"{path}: '{key}' is declared as {declared} bytes unpacked, its shape {self.shape} "
                f"of {self.dtype} makes {needed}; the file is damaged"
            )

    def _open(self) -> IO[bytes]:
        return zipfile.ZipFile(self.path).open(f"{self.key}.npy")

    def _header(self, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
        version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"array format {version}")
        # NumPy bounds the length of the header, and evaluates it as a literal.
        read = np.lib.format.read_array_header_1_0
        if version == (2, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)  # type: ignore[arg-type]
        # Objects are pickles, which are never read.
        if dtype.hasobject or dtype.itemsize == 0:
            raise ValueError(f"'{self.key}' holds {dtype}, which is not supported")
        if not shape or (fortran and len(shape) > 1):
            raise ValueError(
                f"'{self.key}' is one number or in Fortran order; save it as a C-ordered array"
            )
        return shape, dtype

    def skip_to(self, row: int) -> None:
        """Move to a row. If it is before the current one, the stream is opened again."""
        # Skipped rows are read too, so that the checksum at the end covers them.
        with _explained(self.path):
            if self._stream is None or row < self.row:
                if self._stream is not None:
                    self._stream.close()
                self._stream = self._open()
                self.row = 0
                self._header(self._stream)
            # A compressed stream has no random access.
            left = (row - self.row) * self.row_bytes
            while left:
                passed = len(self._stream.read(min(left, CHUNK)))
                if not passed:
                    raise EOFError(f"ends before row {row}")
                left -= passed
            self.row = row

    def take(self, rows: int) -> np.ndarray:
        """The next `rows` rows: (rows, *shape[1:])."""
        self.skip_to(self.row)
        assert self._stream is not None
        out = np.empty((rows, *self.shape[1:]), self.dtype)
        # The stream may return fewer bytes than requested, so they are collected in place.
        view = memoryview(out.reshape(-1).view(np.uint8).data)
        done = 0
        with _explained(self.path):
            while done < len(view):
                part = self._stream.read(min(len(view) - done, CHUNK))
                if not part:
                    raise EOFError(f"ends in row {self.row + done // self.row_bytes}")
                view[done : done + len(part)] = part
                done += len(part)
        self.row += rows
        return out
