"""YAML that no test changes, parsed once a process: `OmegaConf.load` is replaced on import.

A composition loads two dozen files, in a third of its time, and the suite has a thousand
compositions.
"""

import pickle
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from editbench.base.conf import CONF

# The project's, Hydra's own and the toy worlds'.
CONSTANT = (str(CONF), str(Path(hydra.__file__).parent), str(Path(__file__).parent / "conf"))
_load = OmegaConf.load
_loaded: dict[str, bytes] = {}


def load_once(file: Any) -> Any:
    """`OmegaConf.load`, which parses a constant file once."""
    path = str(getattr(file, "name", file))
    if not path.startswith(CONSTANT):
        return _load(file)
    if path not in _loaded:
        _loaded[path] = pickle.dumps(_load(file))
    # Each caller gets one of its own, which it may change.
    return pickle.loads(_loaded[path])


OmegaConf.load = staticmethod(load_once)  # type: ignore[method-assign]
