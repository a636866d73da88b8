"""Arrays of other people's .npy files, read without pickle and without trusting the header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib.format import MAGIC_PREFIX

from editbench.base.errors import BadFile, no_such
from editbench.base.files import cannot_read

ZIP = b"PK"  # of an .npz


def read_npy(path: Path | str, remedy: str = "save it with numpy.save") -> np.ndarray:
    """Open the array of a .npy file, memory-mapped and read-only.

    Args:
        path: of the file.
        remedy: what to do if the file is of another kind; the end of the message.

    Raises:
        BadFile: the file is missing, unreadable, damaged, an .npz, or holds pickled objects.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFile(f"{path}: {no_such('file', path)}; check the path")
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(MAGIC_PREFIX))
    except OSError as error:
        raise cannot_read(path, error) from error
    # For any other content NumPy says that it is a pickle, and how to load it unsafely.
    if begin and not begin.startswith((MAGIC_PREFIX, ZIP)):
        raise BadFile(
            f"{path} is not an .npy file, whatever its name: it lacks the header of one; {remedy}"
        )
    try:
        # A header may declare more values than the file holds. The map then fails, where an
        # ordinary read would first allocate them.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    # NumPy parses the header with Python's tokeniser, which raises errors of many kinds.
    except Exception as error:
        raise BadFile(
            f"{path} is not a readable .npy array ({str(error)[:200] or type(error).__name__}); "
            f"{remedy}"
        ) from error
    # numpy.load looks at the content: it opens an .npz too, and returns another type.
    if not isinstance(found, np.ndarray):
        found.close()
        raise BadFile(
            f"{path} is an .npz of several arrays, but a single .npy array is needed; {remedy}"
        )
    return found
