"""Settings of the C library's memory allocator for processes of the command.

Decoding allocates and frees many blocks of several megabytes. By default, the C library returns
each of them to the system at once and later requests it again, page by page.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Set this variable to "system" to keep the system's defaults.
ALLOCATOR = "EDITBENCH_ALLOCATOR"
# Parameters of mallopt(3): the number of free bytes to keep at the end of the heap, and the number
# of blocks that may be mapped separately.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
LARGEST = 2**31 - 1
# Environment variables that glibc, torch and Arrow read when a process starts, for worker processes.
VARIABLES = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(LARGEST),
    # torch then requests huge pages for blocks of 2 MiB or more.
    "THP_MEM_ALLOC_ENABLE": "1",
    # Arrow would keep the memory of the tables that it has read in a pool of its own, beside the C
    # library's: 40 MiB more for a report on a thousand records.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


def keep_freed_memory() -> None:
    """Keep freed memory for later blocks, and request huge pages.

    Call this before importing torch and pyarrow.

    It changes no number. The process then keeps its peak memory until it ends. Nothing is changed
    if EDITBENCH_ALLOCATOR=system or the C library is not glibc, and variables that the user has set
    are kept.
    """
    if os.environ.get(ALLOCATOR) == "system" or sys.platform != "linux":
        return
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    # For this process, glibc has already read its variables.
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_MAX, int(os.environ["MALLOC_MMAP_MAX_"]))
        library.mallopt(M_TRIM_THRESHOLD, int(os.environ["MALLOC_TRIM_THRESHOLD_"]))
