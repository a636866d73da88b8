"""From configuration to networks: the only place where Hydra's `_target_` is instantiated."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from editbench.bank import Bank, BankSpec, bank_id
from editbench.bank_build import Models, build_bank
from editbench.checkpoint import tensors_digest
from editbench.editor import Editor
from editbench.errors import BadFile, EditbenchError, UnknownName, Unsupported
from editbench.files import digest, file_sha256
from editbench.gauge import Gauge, Gauges
from editbench.generators.base import Generator
from editbench.metric import Metric
from editbench.precision import use_precision
from editbench.probe import Blind, Probe
from editbench.scorers.base import Scorer

LABELS = ("name", "about", "demo")  # keys of a group's YAML that are for people
# Modules of editbench that decide no result.
BESIDE = tuple(f"editbench.{name}" for name in ("commands", "errors", "files", "progress", "report"))


def plain(config: DictConfig) -> dict:
    """A group's resolved configuration without the labels."""
    return {key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in config.items() if key not in LABELS}


@dataclass(frozen=True)
class World:
    """The networks of a job on their device."""

    generator: Generator
    teacher: Scorer
    judge: Scorer

    @property
    def leaking(self) -> bool:
        return self.teacher.digest == self.judge.digest


def build(config: DictConfig) -> Any:
    """Instantiate a group's configuration; errors that carry their own message pass through as they are."""
    try:
        return instantiate(plain(config), _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, EditbenchError):
                raise cause from None
            cause = cause.__cause__
        raise EditbenchError(f"could not make '{config.get('name', config.get('_target_'))}': "
                             f"{error.__cause__ or error}") from error


@lru_cache(maxsize=4)
def _load_world(text: str, device: str) -> World:
    cfg = OmegaConf.create(text)
    generator: Generator = build(cfg.generator).to(device).eval().requires_grad_(False)
    teacher: Scorer = build(cfg.scorer.teacher).to(device).eval().requires_grad_(False)
    same = cfg.scorer.judge == cfg.scorer.teacher
    judge: Scorer = teacher if same else build(cfg.scorer.judge).to(device).eval().requires_grad_(False)
    for role, scorer in (("teacher", teacher), ("judge", judge)):
        if scorer.input != generator.output:
            raise EditbenchError(f"the {role} scores '{scorer.input}' but generator '{cfg.generator.name}' gives "
                                 f"'{generator.output}': choose a scorer that fits, scorer=NAME")
    if teacher.attributes != judge.attributes:
        raise EditbenchError("teacher and judge must have the same attributes in the same order: "
                             f"{teacher.attributes.names} and {judge.attributes.names}")
    if cfg.precision != "fp32":
        networks: list[Generator | Scorer] = [generator, teacher, *([] if same else [judge])]
        for network in networks:
            network.precision, network.digest = cfg.precision, f"{network.digest}-{cfg.precision}"
    return World(generator, teacher, judge)


def check_device(name: str) -> None:
    """Raise EditbenchError for a device that torch does not know or this machine has not."""
    try:
        torch.device(name)
    except RuntimeError as error:
        raise EditbenchError(f"device={name} is no device: use cpu, cuda or cuda:0") from error
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EditbenchError(f"device={name}, but torch sees no CUDA device: use device=cpu "
                             "(`editbench doctor` says what this machine has)")


def load_world(cfg: DictConfig) -> World:
    """Generator, teacher and judge of a configuration; loaded once a process."""
    check_device(cfg.device)
    part = OmegaConf.masked_copy(cfg, ["generator", "scorer", "data"])
    part.precision = cfg.get("precision") or "fp32"
    use_precision(part.precision, cfg.device)
    return _load_world(OmegaConf.to_yaml(part, resolve=True), cfg.device)


def _models(cfg: DictConfig) -> Models:
    world = load_world(cfg)
    return world.generator, world.teacher, world.judge


_BANKS: dict[Path, Bank] = {}


def bank_spec(cfg: DictConfig) -> BankSpec:
    return BankSpec(**{key: value for key, value in plain(cfg.bank).items() if key not in ("path", "workers")})


def bank_folder(cfg: DictConfig) -> tuple[Path, str]:
    """Where the bank of a configuration lies, and its identity."""
    world = load_world(cfg)
    identity = bank_id(bank_spec(cfg), world.generator.digest, world.teacher.digest, world.judge.digest)
    return Path(cfg.cache) / "banks" / identity, identity


def load_bank(cfg: DictConfig) -> Bank:
    """Open the bank of a configuration, building it first if need be; verified once a process."""
    if cfg.bank.path:
        folder = Path(cfg.bank.path)
        if folder not in _BANKS:
            _BANKS[folder] = Bank(folder)
        return check_bank(_BANKS[folder], load_world(cfg))
    folder, identity = bank_folder(cfg)
    if folder not in _BANKS:
        models: Callable[[], Models] = partial(_models, cfg)
        _BANKS[folder] = build_bank(folder, identity, bank_spec(cfg), models, cfg.device, cfg.bank.workers)
    return _BANKS[folder]


def check_bank(bank: Bank, world: World) -> Bank:
    """A bank given by path must have been made by these very networks."""
    parts = (("generator", world.generator), ("teacher", world.teacher), ("judge", world.judge))
    for role, network in parts:
        if bank.meta[role] not in (network.digest, "imported"):
            raise BadFile(f"bank {bank.folder} was built with another {role} ({bank.meta[role]}) than this run's "
                          f"({network.digest}): unset bank.path to use or build the right one")
    if bank.judge_attributes != world.judge.attributes:
        raise BadFile(f"bank {bank.folder} has the attributes {', '.join(bank.judge_attributes.names)}, but the judge "
                      f"has {', '.join(world.judge.attributes.names)}")
    return bank


def load_editor(cfg: DictConfig) -> Editor:
    return build(cfg.method)


def load_metrics(cfg: DictConfig) -> dict[str, Metric]:
    return {name: build(part) for name, part in cfg.metric.items()}


def load_gauges(cfg: DictConfig, world: World) -> Gauges:
    """The gauges of a configuration, ready for a walk in this world."""
    gauges: dict[str, Gauge] = {name: build(part) for name, part in (cfg.get("gauge") or {}).items()}
    for gauge in gauges.values():
        gauge.prepare(world, cfg.device)
    return Gauges(gauges)


def load_probes(cfg: DictConfig) -> dict[str, Probe]:
    """The probes of a configuration; one that has no use in this world keeps the reason."""
    probes: dict[str, Probe] = {}
    for name, part in (cfg.get("probe") or {}).items():
        try:
            probes[name] = build(part)
        except Unsupported as error:
            probes[name] = Blind(str(error))
    return probes


def content(config: object, nested: bool = False) -> object:
    """A configuration with the names of existing files replaced by what the files hold, a `path` that is a folder by
    the list of its files, and what its parts name by `_target_` told by the weights it comes with."""
    if isinstance(config, dict):
        out = {key: _listing(value) if key == "path" and isinstance(value, str) and Path(value).is_dir()
               else content(value, True) for key, value in config.items()}
        return out | {"network": _weights_digest(OmegaConf.to_yaml(config))} if nested and "_target_" in config else out
    if isinstance(config, list):
        return [content(value, True) for value in config]
    if isinstance(config, str) and "." in config and Path(config).is_file():
        return f"sha256:{file_sha256(Path(config))}"
    return config


def _listing(folder: str) -> str:
    """Hash of the names, sizes and times of all files below a folder."""
    files = [(str(file.relative_to(folder)), file.stat()) for file in sorted(Path(folder).rglob("*")) if file.is_file()]
    return f"folder:{digest([[name, about.st_size, about.st_mtime_ns] for name, about in files])}"


@lru_cache(maxsize=16)
def _weights_digest(text: str) -> str:
    try:
        part = build(cast(DictConfig, OmegaConf.create(text)))
    except EditbenchError:
        return ""  # the job will say so
    return tensors_digest(part.state_dict()) if isinstance(part, torch.nn.Module) else ""


def source_digest(target: str) -> str:
    """Hash of the file that defines a class and of the files of its package and of editbench that it imports from,
    directly or not; as this process first saw them, for that is the code that runs."""
    try:
        first = sys.modules[get_class(target).__module__]
    except (ImportError, ValueError, KeyError) as error:
        raise UnknownName("class", target, []) from error
    roots = ((first.__package__ or first.__name__) + ".", "editbench.")
    found, waiting = {first.__name__}, [first]
    while waiting:
        values = vars(waiting.pop()).values()
        names = {value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "") for value in values}
        new = {name for name in names if isinstance(name, str) and name.startswith(roots) and name in sys.modules
               and not name.startswith(BESIDE)} - found
        waiting += [sys.modules[name] for name in new]
        found |= new
    files = {module.__file__: module for module in map(sys.modules.__getitem__, found)}
    return " ".join(sorted(_source_hash(module) for file, module in files.items() if file))


@cache
def _source_hash(module: ModuleType) -> str:
    return file_sha256(Path(str(module.__file__)))[:16]
