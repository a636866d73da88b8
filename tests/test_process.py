"""Settings of a process of the command: its memory, its waiting threads, and its end."""

import os
import subprocess
import sys

import pytest

from editbench.base.allocator import VARIABLES
from editbench.base.threads import FEW_TURNS, POLICY, TURNS

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
# Writes to blocks of 64 MiB, which are freed at once, and prints how many pages the system gave for
# all but the first.
BLOCKS = """
import ctypes, resource
from editbench.base.allocator import keep_freed_memory
keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
faults = []
for _ in range(3):
    block = library.malloc(1 << 26)
    ctypes.memset(block, 1, 1 << 26)
    library.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[0])
"""
# The command with the words of the process, or with those of a caller.
COMMAND = """
import gc, os, sys
from editbench.cli import main
sys.argv = ["editbench", "--version"]
main({words})
print({answer})
"""


def printed(program: str, **environment: str) -> str:
    """The last line that a program prints in a process that no command has started."""
    # A command that runs the tests hands its variables on.
    own = (*VARIABLES, TURNS, POLICY)
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    started = subprocess.run(
        [sys.executable, "-c", program],
        env=inherited | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return started.stdout.splitlines()[-1]


@ON_LINUX
def test_a_block_that_was_freed_costs_no_pages_again_unless_the_system_decides():
    page = os.sysconf("SC_PAGE_SIZE")
    assert int(printed(BLOCKS)) < 1000
    assert int(printed(BLOCKS, EDITBENCH_ALLOCATOR="system")) >= 2 * (1 << 26) // page


@ON_LINUX
def test_arrow_has_no_memory_of_its_own_in_a_command() -> None:
    answer = "__import__('pyarrow').default_memory_pool().backend_name"
    assert printed(COMMAND.format(words="", answer=answer)) == "system"


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, FEW_TURNS), ({TURNS: "7"}, "7"), ({POLICY: "active"}, "None")],
)
def test_threads_wait_briefly_unless_the_user_has_decided(given, found) -> None:
    program = COMMAND.format(words="", answer=f"os.environ.get('{TURNS}')")
    assert printed(program, **given) == found


@pytest.mark.parametrize(("words", "frozen"), [("", "True"), ("['--version']", "False")])
def test_only_a_process_that_ends_with_the_command_stops_searching_for_cycles(words, frozen):
    assert printed(COMMAND.format(words=words, answer="gc.get_freeze_count() > 0")) == frozen
