"""How a process of the command takes memory from the system.

Decoding makes and frees blocks of several megabytes all the time. The C library gives each of them
back to the system at once and takes it anew, page by page.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Set to "system" to leave memory to the system's defaults.
ALLOCATOR = "EDITBENCH_ALLOCATOR"
# Of mallopt(3): blocks that are mapped on their own, at most; bytes at the end of the heap that are
# kept when they are free.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
LARGEST = 2**31 - 1
# What glibc and torch read when a process starts: for workers, which this process starts.
VARIABLES = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(LARGEST),
    # Torch then asks for huge pages for blocks of 2 MiB and more.
    "THP_MEM_ALLOC_ENABLE": "1",
}


def keep_freed_memory() -> None:
    """Keep freed memory for the next blocks, and ask for huge pages; before torch is imported.

    It changes no number. A process then holds what it needed at its peak until it ends. Does
    nothing where EDITBENCH_ALLOCATOR=system or where the C library is not glibc; a variable that
    the user has set stays.
    """
    if os.environ.get(ALLOCATOR) == "system" or sys.platform != "linux":
        return
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    # glibc read its variables when this process started.
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_MAX, int(os.environ["MALLOC_MMAP_MAX_"]))
        library.mallopt(M_TRIM_THRESHOLD, int(os.environ["MALLOC_TRIM_THRESHOLD_"]))
