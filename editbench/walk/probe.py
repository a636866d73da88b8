"""Probes: what a job measures on pictures that its walk does not keep, left behind as small arrays.

A metric never imports a generator. One that needs pictures (a Fréchet distance, a heatmap) has a probe do the looking,
after the walk, and computes from what the probe left in `probe-NAME.safetensors`; so it is recomputed without a
generator, as every other metric is. A probe is an option of the Hydra group `probe`, placed at `probe.NAME`.
"""

from __future__ import annotations

import abc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.files import write_atomic

if TYPE_CHECKING:  # metrics read probes, and must not load a generator for it
    from editbench.bank.bank import Bank
    from editbench.networks.generator import Generator
    from editbench.networks.scorer import Scorer
    from editbench.walk.editor import Editor


@dataclass(frozen=True)
class Scene:
    """What a probe may look at, after the walk.

    editor: fitted. target: the class that every start is asked for, or None. batch: samples decoded together. cache:
    folder for what jobs share, such as statistics of real pictures (take a lock there). editor_for: the same method,
    fitted for another attribute.
    """

    editor: Editor
    generator: Generator
    teacher: Scorer
    judge: Scorer
    bank: Bank
    attribute: str
    target: int | None
    seed: int
    device: str
    batch: int
    cache: Path
    editor_for: Callable[[str], Editor] | None = None


@dataclass(frozen=True)
class ProbeData:
    """What a probe left: named arrays and JSON-like facts. reason: why it could not look ('' where it could); there
    are no arrays then."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict = field(default_factory=dict)
    reason: str = ""

    def save(self, path: Path) -> None:
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        write_atomic(path, save(arrays, {"meta": json.dumps(self.meta), "reason": self.reason}))

    @classmethod
    def load(cls, path: Path) -> ProbeData:
        try:
            with safe_open(path, "np") as file:
                about = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return cls(arrays, json.loads(about["meta"]), about["reason"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise BadFile(
                f"{path} is not a readable probe ({error}); delete its folder and run the job again"
            ) from error


class Probe(abc.ABC):
    """Base of all probes. Any batch size leaves the same arrays, to float tolerance."""

    citation: str = ""

    @abc.abstractmethod
    def look(self, scene: Scene) -> ProbeData:
        """Decode, measure, and keep small arrays; statistics that add up in float64. Gradients are off.

        Raises Unsupported where this editor or world has nothing to look at: the reason is kept, the job goes on.
        """


class Blind(Probe):
    """Stands for a probe that this world cannot have."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def look(self, scene: Scene) -> ProbeData:
        raise Unsupported(self.reason)


def probe_file(folder: Path, name: str) -> Path:
    return folder / f"probe-{name}.safetensors"


def run_probes(folder: Path, probes: Mapping[str, Probe], scene: Scene) -> dict[str, dict]:
    """Run every probe and write its file; name -> seconds, generator calls and reason, for the provenance."""
    costs = {}
    for name, probe in probes.items():
        began, before = time.perf_counter(), scene.generator.decoded
        try:
            with torch.no_grad():
                found = probe.look(scene)
        except Unsupported as error:
            found = ProbeData(reason=str(error))
        found.save(probe_file(folder, name))
        costs[name] = {
            "seconds": time.perf_counter() - began,
            "generator_calls": scene.generator.decoded - before,
            "reason": found.reason,
        }
    return costs


def read_probe(folder: Path, name: str) -> ProbeData:
    """What a probe left in a record; one that says why where the record has no such probe or only a broken one."""
    path = probe_file(folder, name)
    if not path.exists():
        return ProbeData(reason=f"no probe: run the job with probe=[{name}]")
    try:
        return ProbeData.load(path)
    except EditbenchError as error:
        return ProbeData(reason=str(error))
