"""From configuration to networks: the only place where Hydra's `_target_` is instantiated."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from editbench.bank.bank import Bank, BankSpec
from editbench.bank.build import Models, build_bank
from editbench.base import identity
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.instantiate import build, plain
from editbench.base.precision import use_precision
from editbench.networks.generator import Generator
from editbench.networks.roles import Networks
from editbench.networks.scorer import Scorer
from editbench.walk.editor import Editor
from editbench.walk.metric import Metric
from editbench.walk.observation import Observation, Unavailable


@lru_cache(maxsize=4)
def _load_networks(text: str, device: str) -> Networks:
    cfg = OmegaConf.create(text)
    generator: Generator = build(cfg.generator).to(device).eval().requires_grad_(False)
    teacher: Scorer = build(cfg.scorer.teacher).to(device).eval().requires_grad_(False)
    same = cfg.scorer.judge == cfg.scorer.teacher
    judge: Scorer = (
        teacher if same else build(cfg.scorer.judge).to(device).eval().requires_grad_(False)
    )
    for role, scorer in (("teacher", teacher), ("judge", judge)):
        if scorer.input != generator.output:
            raise EditbenchError(
                f"the {role} scores '{scorer.input}' but generator '{cfg.generator.name}' gives "
                f"'{generator.output}': choose a scorer that fits, scorer=NAME"
            )
    if teacher.attributes != judge.attributes:
        raise EditbenchError(
            "teacher and judge must have the same attributes in the same order: "
            f"{teacher.attributes.names} and {judge.attributes.names}"
        )
    if cfg.precision != "fp32":
        networks: list[Generator | Scorer] = [generator, teacher, *([] if same else [judge])]
        for network in networks:
            network.precision, network.digest = cfg.precision, f"{network.digest}-{cfg.precision}"
    return Networks(generator, teacher, judge)


def check_device(name: str) -> None:
    """Raise EditbenchError for a device that torch does not know or this machine has not."""
    try:
        torch.device(name)
    except RuntimeError as error:
        raise EditbenchError(f"device={name} is no device: use cpu, cuda or cuda:0") from error
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EditbenchError(
            f"device={name}, but torch sees no CUDA device: use device=cpu "
            "(`editbench doctor` says what this machine has)"
        )


def load_networks(cfg: DictConfig) -> Networks:
    """Generator, teacher and judge of a configuration; loaded once a process."""
    check_device(cfg.device)
    part = OmegaConf.masked_copy(cfg, ["generator", "scorer", "data"])
    part.precision = cfg.get("precision") or "fp32"
    use_precision(part.precision, cfg.device)
    return _load_networks(OmegaConf.to_yaml(part, resolve=True), cfg.device)


def _models(cfg: DictConfig) -> Models:
    networks = load_networks(cfg)
    return networks.generator, networks.teacher, networks.judge


_BANKS: dict[Path, Bank] = {}


def bank_spec(cfg: DictConfig) -> BankSpec:
    return BankSpec(
        **{key: value for key, value in plain(cfg.bank).items() if key not in ("path", "workers")}
    )


def networks_code(cfg: DictConfig) -> str:
    """Hash of the source behind generator, teacher and judge."""
    parts = OmegaConf.masked_copy(cfg, ["generator", "scorer", "data"])
    return identity.code_of(OmegaConf.to_container(parts, resolve=True))


def bank_folder(cfg: DictConfig) -> tuple[Path, str]:
    """Where the bank of a configuration lies, and its identity."""
    networks = load_networks(cfg)
    digests = {role: network.digest for role, network in vars(networks).items()}
    name = identity.bank_id(vars(bank_spec(cfg)), digests, networks_code(cfg))
    return Path(cfg.cache) / "banks" / name, name


def load_bank(cfg: DictConfig) -> Bank:
    """Open the bank of a configuration, building it first if need be; verified once a process."""
    if cfg.bank.path:
        folder = Path(cfg.bank.path)
        if folder not in _BANKS:
            _BANKS[folder] = Bank(folder)
        return check_bank(_BANKS[folder], load_networks(cfg))
    folder, identity = bank_folder(cfg)
    if folder not in _BANKS:
        models: Callable[[], Models] = partial(_models, cfg)
        _BANKS[folder] = build_bank(
            folder, identity, bank_spec(cfg), models, cfg.device, cfg.bank.workers
        )
    return _BANKS[folder]


def check_bank(bank: Bank, networks: Networks) -> Bank:
    """A bank given by path must have been made by these very networks."""
    parts = (
        ("generator", networks.generator),
        ("teacher", networks.teacher),
        ("judge", networks.judge),
    )
    for role, network in parts:
        if bank.meta[role] not in (network.digest, "imported"):
            raise BadFile(
                f"bank {bank.folder} was built with another {role} ({bank.meta[role]}) than this run's "
                f"({network.digest}): unset bank.path to use or build the right one"
            )
    if bank.judge_attributes != networks.judge.attributes:
        raise BadFile(
            f"bank {bank.folder} has the attributes {', '.join(bank.judge_attributes.names)}, but the judge "
            f"has {', '.join(networks.judge.attributes.names)}"
        )
    return bank


def load_editor(cfg: DictConfig) -> Editor:
    return build(cfg.method)


def load_metrics(cfg: DictConfig) -> dict[str, Metric]:
    return {name: build(part) for name, part in cfg.metric.items()}


def load_observations(cfg: DictConfig) -> dict[str, Observation]:
    """The observations of a configuration; one that cannot serve here stands as `Unavailable`."""
    observations: dict[str, Observation] = {}
    for name, part in (cfg.get("observation") or {}).items():
        try:
            observations[name] = build(part)
        except Unsupported as error:
            observations[name] = Unavailable(str(error))
    return observations
