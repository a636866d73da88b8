"""What an observation wrote to a record. Reading it does not import torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from editbench.base.errors import BadFile, EditbenchError, first_line
from editbench.base.files import write_atomic


@dataclass(frozen=True)
class Observed:
    """What an observation kept after a walk."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict = field(default_factory=dict)  # facts, as JSON can hold them
    reason: str = ""  # why the observation could not be made; there are no arrays then

    def save(self, path: Path) -> None:
        """Write arrays and facts into one safetensors file.

        Raises:
            EditbenchError: JSON cannot hold the facts.
        """
        try:
            meta = json.dumps(self.meta)
        except (TypeError, ValueError) as error:
            raise EditbenchError(
                f"{path.name}: JSON cannot hold the meta of the observation ({first_line(error)}): "
                "use strings as keys of Observed(arrays, meta), and Python numbers, strings, lists "
                "and mappings as values"
            ) from error
        # safetensors stores the raw memory of an array and ignores its strides.
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        write_atomic(path, save(arrays, {"meta": meta, "reason": self.reason}))

    @classmethod
    def load(cls, path: Path) -> Observed:
        """Read what `save` wrote.

        Raises:
            BadFile: the file is absent or damaged.
        """
        try:
            with safe_open(path, "np") as file:
                about = file.metadata() or {}
                names = file.keys()
                arrays = {name: file.get_tensor(name) for name in names}
            return cls(arrays, json.loads(about["meta"]), about["reason"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise BadFile(
                f"{path} is not a readable observation ({error}); delete its folder and run the "
                "job again"
            ) from error


def observation_file(folder: Path, name: str) -> Path:
    """Where a record keeps the arrays of an observation.

    Args:
        folder: of the record.
        name: of the observation.
    """
    return folder / f"observation-{name}.safetensors"


def read_observed(folder: Path, name: str) -> Observed:
    """Read what an observation kept in a record.

    If the record lacks the observation or its file is damaged, the result holds only the reason.
    The metric turns it into a row without a number, and the rest of the report stays complete.

    Args:
        folder: of the record.
        name: of the observation.
    """
    path = observation_file(folder, name)
    if not path.exists():
        return Observed(reason=f"no observation: run the job with observation=[{name}]")
    try:
        return Observed.load(path)
    except EditbenchError as error:
        return Observed(reason=str(error))
