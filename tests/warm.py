"""What nearly every process of the tests imports and reads, for the server that they are forks of.

A command brings in its libraries when it needs them, which costs two seconds of CPU: the server
pays them once. Nothing is computed here, since threads of torch would not survive a fork.
"""

import gc
from pathlib import Path

import editbench.cli
import editbench.run.sweep  # noqa: F401
import tests.read_once  # noqa: F401
from editbench.run.job import make_run_id
from editbench.run.settings import Settings
from tests.toy_world import toy_config

# Composing reads the YAML, the settings import the metrics, a name reads the sources.
make_run_id(Settings.from_config(toy_config(Path())), "", [], None)
# No fork looks through it for garbage, nor copies it for that.
gc.freeze()
