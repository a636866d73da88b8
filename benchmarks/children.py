"""What a started command uses, with all that it starts in turn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Runs a command and prints what it and all that it started used: children of children that nobody
# waited for are handed to this process, which waits for them.
COUNTED = """
import ctypes, json, os, resource, subprocess, sys, time
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
wall = time.perf_counter() - began
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
used = resource.getrusage(resource.RUSAGE_CHILDREN)
said = done.stderr.decode(errors="replace").strip().splitlines()
print(json.dumps([used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024, said[-1:]]))
sys.exit(done.returncode)
"""


class Used(NamedTuple):
    """What a command used.

    Attributes:
        cpu: seconds of all its processes.
        wall: seconds.
        mib: peak memory of the largest of its processes.
        said: the last line on its standard error; '' where there is none.
    """

    cpu: float
    wall: float
    mib: float
    said: str


def counted(words: Sequence[str], environ: Mapping[str, str] | None = None) -> Used:
    """Run a Python process with these arguments; its output is dropped.

    Raises:
        SystemExit: it failed, with what it said last.
    """
    command = [sys.executable, "-c", COUNTED, sys.executable, *words]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, env=None if environ is None else dict(environ)
    )
    cpu, wall, mib, said = json.loads(done.stdout)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {' '.join(said)}")
    return Used(cpu, wall, mib, "".join(said))
