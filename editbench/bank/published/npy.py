"""Arrays of other people's .npy files, read without pickle and without trusting the header."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from editbench.base.errors import BadFile


def read_npy(path: Path | str, remedy: str = "save it with numpy.save") -> np.ndarray:
    """The array of a .npy file, memory-mapped read-only, so a header that declares more than the file holds is refused.

    Raises:
        BadFile: the file is missing, damaged, an .npz, or holds pickled objects.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFile(f"{path} does not exist")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header with Python's tokeniser, which raises errors of many kinds
        raise BadFile(
            f"{path} is not a readable .npy array ({str(error)[:200] or type(error).__name__}); "
            f"{remedy}"
        ) from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise BadFile(
            f"{path} is an .npz of several arrays, where one .npy array is read; {remedy}"
        )
    return found
