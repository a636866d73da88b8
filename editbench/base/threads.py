"""How the threads of a process of the command wait for one another.

torch computes each operation on several threads, and each waits until the last has ended. By
default, the GNU library of OpenMP lets them wait in a loop for milliseconds, which occupies their
cores. If other programs need these cores, the thread that everyone waits for may get none, and a
job takes longer, sometimes several times as long (benchmarks/busy_machine.py).
"""

from __future__ import annotations

import os

# Variable of the GNU library: turns of the loop before a thread gives up its core. The library
# estimates 100,000 turns as a millisecond; its own number is 300,000.
TURNS = "GOMP_SPINCOUNT"
FEW_TURNS = "5000"
# Variable of every OpenMP library, by which a user may have decided.
POLICY = "OMP_WAIT_POLICY"


def wait_briefly() -> None:
    """Let threads that wait give up their cores soon. Call this before importing torch.

    It changes no number. Variables that the user has set are kept.
    """
    if POLICY not in os.environ:
        os.environ.setdefault(TURNS, FEW_TURNS)
