"""Measures CPU time, wall time and memory of a command with all the processes that it starts.

This is a module of helpers, not a benchmark: found_jobs.py, joblib_workers.py, report_records.py
and startup.py import it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# A program that runs the command in its arguments, and prints what the command and all processes
# below it used. The kernel counts only processes that somebody waited for. This program therefore
# becomes the parent of orphaned processes (on Linux), and waits for them.
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
        cpu: CPU seconds, summed over all its processes.
        wall: seconds of wall time.
        mib: peak memory of its largest process, MiB.
        said: the last line on its standard error; '' if there is none.
    """

    cpu: float
    wall: float
    mib: float
    said: str


def counted(words: Sequence[str], environ: Mapping[str, str] | None = None) -> Used:
    """Run a Python process and measure it. Its standard output is discarded.

    Args:
        words: arguments of the interpreter, such as ['-m', 'editbench', 'list'].
        environ: environment variables; None means those of this process.

    Returns:
        What the process, and all processes that it started, used.

    Raises:
        SystemExit: the process failed. The message has the last line of its standard error.
    """
    # A process of its own, since this process may have other children, whose time would count too.
    command = [sys.executable, "-c", COUNTED, sys.executable, *words]
    variables = None if environ is None else dict(environ)
    done = subprocess.run(command, stdout=subprocess.PIPE, env=variables)
    cpu, wall, mib, said = json.loads(done.stdout)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {' '.join(said)}")
    return Used(cpu, wall, mib, "".join(said))
