"""Waiting threads of a command give up their cores, unless the user has decided."""

import os
import subprocess
import sys

import pytest

from editbench.base.threads import FEW_TURNS, POLICY, TURNS

# What the library of OpenMP reads when it is loaded, which `editbench --version` does not do.
PROGRAM = f"""
import os, sys
from editbench.cli import main
sys.argv = ["editbench", "--version"]
main()
print(os.environ.get("{TURNS}"))
"""


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, FEW_TURNS), ({TURNS: "7"}, "7"), ({POLICY: "active"}, "None")],
)
def test_a_command_waits_briefly_unless_the_user_has_decided(given, found) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in (TURNS, POLICY)}
    started = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=inherited | given,
        check=True,
        capture_output=True,
        text=True,
    )
    assert started.stdout.splitlines()[-1] == found
