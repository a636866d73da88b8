"""Tries to read a file, under limits of memory and time. Run as a script by reader.py:

    python -I -S child.py KIND MEMORY SECONDS < FILE      KIND: pickle or torch

What it reads is thrown away. The exit code is 0, or REFUSED with the reason on the standard error.
It sees no site-packages and imports neither NumPy nor torch, so it starts in some 30 ms.
"""

import gc
import os
import resource
import sys

# -I leaves the folder of the script out; importing the package would import NumPy and torch.
sys.path.append(os.path.dirname(__file__))

import unpickle

STACK = 1 << 20  # bytes; a thread of the caller can have less than the main thread's usual 8 MiB


def limit(memory: int, seconds: int) -> None:
    """Bound this process: `memory` bytes beyond now, `seconds` of processor time, no files."""
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_STACK: STACK,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    if os.path.exists("/proc/self/statm"):  # Linux; elsewhere memory is not bounded
        with open("/proc/self/statm", encoding="utf-8") as statm:
            # The address space of the interpreter as it stands does not count.
            pages = int(statm.read().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for which, most in limits.items():
        soft, hard = resource.getrlimit(which)
        if soft != resource.RLIM_INFINITY:
            most = min(most, soft)  # the caller is bounded by it too
        resource.setrlimit(which, (most, hard))


def main(kind: str, memory: str, seconds: str) -> None:
    gc.disable()  # looking for cycles would take most of the time; all of it is thrown away soon
    limit(int(memory), int(seconds))
    try:
        unpickle.read_file(sys.stdin.buffer, os.fstat(0).st_size, kind)
    except Exception as error:
        os.write(2, unpickle.reason(error).encode("utf-8", "replace"))
        os._exit(unpickle.REFUSED)
    os._exit(0)  # a deep result takes long to free


if __name__ == "__main__":
    main(*sys.argv[1:])
