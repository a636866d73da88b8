"""Reads a file on trial, with limits of memory and time. reader.py runs it as a script:

    python -I -S child.py KIND MEMORY SECONDS < FILE      KIND: pickle or torch

The content is discarded. The exit code is 0, or REFUSED with the reason on standard error. The
script has no site-packages and imports neither NumPy nor torch, so it starts in about 30 ms.
"""

import gc
import os
import resource
import sys

# -I excludes the script's folder; importing the package would import NumPy and torch.
sys.path.append(os.path.dirname(__file__))

import unpickle

STACK = 1 << 20  # bytes; a thread of the caller may have less than the main thread's usual 8 MiB


def limit(memory: int, seconds: int) -> None:
    """Limit this process: `memory` bytes more than now, `seconds` of CPU time, no written files."""
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_STACK: STACK,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    if os.path.exists("/proc/self/statm"):  # Linux; memory is not limited on other systems
        with open("/proc/self/statm", encoding="utf-8") as statm:
            # The current address space of the interpreter does not count.
            pages = int(statm.read().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for which, most in limits.items():
        soft, hard = resource.getrlimit(which)
        if soft != resource.RLIM_INFINITY:
            most = min(most, soft)  # an existing limit of the caller applies too
        resource.setrlimit(which, (most, hard))


def main(kind: str, memory: str, seconds: str) -> None:
    gc.disable()  # the search for cycles would take most of the time, and the process ends soon
    limit(int(memory), int(seconds))
    try:
        unpickle.read_file(sys.stdin.buffer, os.fstat(0).st_size, kind)
    except Exception as error:
        os.write(2, unpickle.reason(error).encode("utf-8", "replace"))
        os._exit(unpickle.REFUSED)
    os._exit(0)  # freeing a deeply nested result would take long


if __name__ == "__main__":
    main(*sys.argv[1:])
