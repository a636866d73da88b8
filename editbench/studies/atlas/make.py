"""An atlas: every direction of a method at every strength, on the same samples.

The editor is not fitted to an attribute; only its directions are determined. The directions and the
measurements of each are cached, so that an interrupted atlas can be resumed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from editbench.bank.bank import Bank
from editbench.base import identity
from editbench.base.attributes import Attributes
from editbench.base.conf import group_options
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.files import digest, find_or_make, read_checked, write_checked
from editbench.base.progress import progress, status
from editbench.base.spaces import Space
from editbench.networks.roles import Networks
from editbench.run.batch import engine_batch
from editbench.run.fits import fit_data
from editbench.run.loading import bank_key, load_bank, load_editor, load_networks
from editbench.run.protocol import evaluated_names
from editbench.run.settings import Settings
from editbench.studies.atlas.bench import Bench, Measured
from editbench.walk.editor import DirectionSet, Editor

# Scorer of the pictures -> the split whose samples are edited. Editors may use the teacher's logits
# of the tune split anyway, so a direction that is chosen by them is independent of the test split.
SPLITS = {"teacher": "tune", "judge": "test"}
CODE = ("editbench.studies.atlas.bench",)  # determines the measurements, with its imports


@dataclass(frozen=True)
class AtlasDesign:
    """The design of an atlas.

    Args:
        directions: number of directions, in the method's order; None for all.
        samples: number of samples that effects are averaged over.
        shown: number of samples whose pictures are kept.
        strengths: positive, in the method's unit; each is used in both directions. None for those
            of the method.
        scorer: 'teacher' or 'judge'.

    Raises:
        EditbenchError: an option is out of its range.
    """

    directions: int | None = None
    samples: int = 64
    shown: int = 4
    strengths: tuple[float, ...] | None = None
    scorer: str = "teacher"

    def __post_init__(self) -> None:
        if self.directions is not None and self.directions < 1:
            raise EditbenchError(f"directions={self.directions} must be at least 1")
        if self.samples < 2:
            raise EditbenchError(f"samples={self.samples} must be at least 2")
        if not 1 <= self.shown <= self.samples:
            raise EditbenchError(
                f"shown={self.shown} must be at least 1 and at most samples={self.samples}"
            )
        if self.scorer not in SPLITS:
            raise EditbenchError(f"scorer={self.scorer} must be one of {', '.join(SPLITS)}")
        sizes = self.strengths
        if sizes is None:
            return
        if not sizes or not all(0 < size < math.inf for size in sizes):
            raise EditbenchError(
                f"strengths={list(sizes)} must be one number or more, each positive: it is tried "
                "both ways"
            )


@dataclass(frozen=True)
class Atlas:
    """The effects of all directions of a method.

    Args:
        method: its name.
        names: (K,) of the directions.
        strengths: (T,) signed, ascending, without 0.
        unit: of the strengths.
        attributes: of the scorer.
        index: (shown,) positions in the bank of the samples that are shown.
        unedited: (shown, C, H, W) uint8.
        measured: all directions, with a leading dimension K.
        about: title -> text about how the atlas was made.
    """

    method: str
    names: tuple[str, ...]
    strengths: tuple[float, ...]
    unit: str
    attributes: Attributes
    index: tuple[int, ...]
    unedited: Tensor
    measured: Measured
    about: dict[str, str]


def make_atlas(settings: Settings, design: AtlasDesign) -> Atlas:
    """Find the directions of a method, and measure each of them.

    Args:
        settings: of a job; method, networks, bank, seed, device and batch size are used.
        design: of the atlas.

    Raises:
        Unsupported: the method has no fixed set of directions, or the generator has no pictures.
        EditbenchError: the split has fewer samples than the design needs.
    """
    editor = load_editor(settings)
    if not editor.has_directions():
        raise Unsupported(
            f"method={settings.method.name} has no fixed set of directions: its edit depends on "
            f"the sample, or is learned for one attribute. Methods that have one: "
            f"{', '.join(methods_with_directions())}"
        )
    networks = load_networks(settings)
    names = evaluated_names(settings, networks.judge.attributes)
    networks = networks.select(names)
    if networks.generator.output != "image":
        raise Unsupported(
            f"generator={settings.generator.name} produces no images, which an atlas shows: choose "
            "another with generator=NAME"
        )
    editor.bind(networks.generator, networks.teacher)
    editor.check(networks.generator, networks.judge.attributes, settings.attribute)
    bank = load_bank(settings).select(names)
    check_samples(bank, design)
    digests = {"generator": networks.generator.digest, "teacher": networks.teacher.digest}
    key = identity.fit_key(settings.plain, bank_key(settings, bank.id), digests, names)
    found = find_directions(editor, settings, bank, networks, key)
    kept = found.first(design.directions)
    strengths = both_ways(design.strengths or found.strengths)
    bench = make_bench(settings, design, bank, networks, kept.space)
    measured = join(list(measure_each(bench, editor, kept, strengths, settings, design, key)))
    first, _ = bank.spec.split(SPLITS[design.scorer])
    return Atlas(
        settings.method.name,
        kept.names,
        strengths,
        kept.unit,
        bench.scorer.attributes,
        tuple(range(first, first + design.shown)),
        bench.pictures(),
        measured,
        _about(settings, design, bank, kept, len(found)),
    )


def methods_with_directions() -> list[str]:
    """Names of the configured methods whose editors have a fixed set of directions."""
    options = group_options("method")
    names = []
    for name, config in options.items():
        # An option without a class extends another option of the group.
        while "_target_" not in config:
            config = options[_built_on(config, options)]
        editor: type[Editor] = get_class(config["_target_"])
        if editor.has_directions():
            names.append(name)
    return names


def _built_on(config: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The option that another option extends, from its defaults."""
    return next(str(entry) for entry in config["defaults"] if str(entry) in options)


def check_samples(bank: Bank, design: AtlasDesign) -> None:
    """Check that the split has as many samples as the design needs.

    Args:
        bank: of the samples.
        design: names the scorer, whose split is used, and the number of samples.

    Raises:
        EditbenchError: the split has fewer samples.
    """
    split = SPLITS[design.scorer]
    first, last = bank.spec.split(split)
    if design.samples > last - first:
        raise EditbenchError(
            f"samples={design.samples}, but the {split} split of bank.n={len(bank)} has "
            f"{last - first}: raise bank.n, or lower samples"
        )


def both_ways(sizes: tuple[float, ...]) -> tuple[float, ...]:
    """Signed strengths of positive sizes, in ascending order."""
    rising = sorted(set(sizes))
    return (*(-size for size in reversed(rising)), *rising)


def make_bench(
    settings: Settings, design: AtlasDesign, bank: Bank, networks: Networks, space: Space
) -> Bench:
    """Load the first samples of the scorer's split.

    Args:
        settings: give the device and the batch.
        design: names the scorer, and the number of samples.
        bank: of the samples.
        networks: the generator and the scorers.
        space: that edits start from.
    """
    # Codes of W+ and S are not stored, but computed from the latents by the bench.
    field = networks.generator.start_space(space).value
    first, _ = bank.spec.split(SPLITS[design.scorer])
    stored = np.ascontiguousarray(bank.array(field).range(first, first + design.samples))
    return Bench(
        networks.generator,
        getattr(networks, design.scorer),
        torch.from_numpy(stored).to(settings.device),
        space,
        torch.from_numpy(bank.sigma[design.scorer]).to(settings.device),
        design.shown,
        engine_batch(settings, networks),
    )


def measure_each(
    bench: Bench,
    editor: Editor,
    found: DirectionSet,
    strengths: tuple[float, ...],
    settings: Settings,
    design: AtlasDesign,
    key: Mapping[str, object],
) -> Iterator[Measured]:
    """Measure each direction, or read it from the cache if it was measured before.

    Args:
        bench: the samples that are edited.
        editor: of the directions.
        found: K directions.
        strengths: (T,) signed, ascending, without 0.
        settings: of the job, with the folder of the cache.
        design: of the atlas.
        key: of the directions; with the design and the code, it determines the cache folder.

    Yields:
        K results, in the order of the directions.
    """
    # Everything that a measurement depends on.
    whole = {
        "directions": key,
        "strengths": strengths,
        "samples": design.samples,
        "shown": design.shown,
        "scorer": [design.scorer, bench.scorer.digest],
        "code": identity.modules_digest(CODE),
    }
    folder = settings.cache / "atlas" / digest(whole)
    with progress(f"directions of {settings.method.name}", len(found)) as advance:
        for place in range(len(found)):
            path = folder / f"{place:05d}.safetensors"
            part = _read_measured(path)
            if part is None:
                part = bench.measure(editor, found, place, strengths)
                # Stored at once, so that an interrupted atlas can be resumed.
                write_checked(path, save(_on_host(vars(part))))
            yield part
            advance()


def join(parts: list[Measured]) -> Measured:
    """Stack the measurements of K directions, with a leading dimension K, on the CPU."""
    stacked = {}
    for part in fields(Measured):
        stacked[part.name] = torch.stack([getattr(one, part.name).cpu() for one in parts])
    return Measured(**stacked)


def _about(
    settings: Settings, design: AtlasDesign, bank: Bank, kept: DirectionSet, available: int
) -> dict[str, str]:
    return {
        "method": str(settings.plain["method"].get("about", settings.method.name)),
        "generator": settings.generator.name,
        "directions": f"{len(kept)} of {available}",
        "unit of strength": kept.unit,
        "samples": f"the first {design.samples} of the {SPLITS[design.scorer]} split of bank "
        f"{bank.id}",
        "scored by": f"the {design.scorer}",
        "seed": str(settings.seed),
    }


# -- the cache -------------------------------------------------------------------------------------
def find_directions(
    editor: Editor,
    settings: Settings,
    bank: Bank,
    networks: Networks,
    key: Mapping[str, object],
) -> DirectionSet:
    """Determine the directions of a method, or read them from the cache.

    Args:
        editor: of the settings, not fitted.
        settings: of the job.
        bank: of the job.
        networks: of the job.
        key: everything that the directions depend on.
    """
    path = settings.cache / "atlas" / f"{digest(key)}.safetensors"

    def make() -> DirectionSet:
        with status(f"finding the directions of {settings.method.name}"):
            found = editor.fixed_directions(fit_data(settings, bank, networks))
        about = {
            "names": list(found.names),
            "strengths": list(found.strengths),
            "unit": found.unit,
            "space": found.space.value,
            "details": found.details,
        }
        write_checked(path, save(_on_host(found.tensors), {"about": json.dumps(about)}))
        return found

    return find_or_make(path, lambda: _read_directions(path), make)


def _read_directions(path: Path) -> DirectionSet | None:
    """Directions from the cache; None if the file is absent or unreadable."""
    try:
        tensors = load(read_checked(path))
        # `load` returns only the tensors.
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
    except (BadFile, OSError, SafetensorError, KeyError, ValueError):
        return None
    return DirectionSet(
        tuple(about["names"]),
        tuple(about["strengths"]),
        about["unit"],
        Space(about["space"]),
        tensors,
        about["details"],
    )


def _read_measured(path: Path) -> Measured | None:
    """Measurements from the cache; None if the file is absent or unreadable."""
    try:
        return Measured(**load(read_checked(path)))
    except (BadFile, SafetensorError, TypeError):
        return None


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors needs them: on the CPU and contiguous."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
