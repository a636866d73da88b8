"""Freed memory stays with a process of the command."""

import os
import subprocess
import sys

import pytest

from editbench.base.allocator import VARIABLES

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


def pages(**environment: str) -> int:
    # `VARIABLES` would reach the process from a command that runs the tests.
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    started = subprocess.run(
        [sys.executable, "-c", BLOCKS],
        env=inherited | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(started.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
def test_a_block_that_was_freed_costs_no_pages_again_unless_the_system_decides():
    page = os.sysconf("SC_PAGE_SIZE")
    assert pages() < 1000
    assert pages(EDITBENCH_ALLOCATOR="system") >= 2 * (1 << 26) // page


@pytest.mark.skipif(sys.platform != "linux", reason="set on Linux alone")
def test_arrow_has_no_memory_of_its_own_in_a_command() -> None:
    program = (
        "from editbench.base.allocator import keep_freed_memory; keep_freed_memory(); "
        "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    )
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    started = subprocess.run(
        [sys.executable, "-c", program], env=inherited, check=True, capture_output=True, text=True
    )
    assert started.stdout.strip() == "system"


@pytest.mark.parametrize(("words", "frozen"), [("", True), ("['--version']", False)])
def test_only_a_process_that_ends_with_the_command_stops_searching_for_cycles(words, frozen):
    program = (
        "import gc, sys; from editbench.cli import main; sys.argv = ['editbench', '--version']; "
        f"main({words}); print(gc.get_freeze_count() > 0)"
    )
    started = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert started.stdout.splitlines()[-1] == str(frozen)
