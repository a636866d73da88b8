"""From a job's configuration to the inversion that its walks start from."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from editbench.base.instantiate import plain
from editbench.inversion.build import Task
from editbench.inversion.load import InversionRequest
from editbench.inversion.store import Inversion
from editbench.run.loading import load_networks, networks_code


def starts_are_inverted(cfg: DictConfig) -> bool:
    """Whether walks start from inverted images, and not from the bank's samples."""
    options = cfg.get("inversion")
    return bool(options) and options.name != "none"


def request_inversion(cfg: DictConfig) -> InversionRequest:
    """The inversion of a configuration, before it is made or opened."""
    return InversionRequest(
        options=plain(cfg.inversion),
        networks=load_networks(cfg),
        code=networks_code(cfg),
        device=cfg.device,
        cache=Path(cfg.cache),
    )


def load_inversion(cfg: DictConfig) -> Inversion | None:
    """The inversion, made first if need be; None where the starts are the bank's samples."""
    if not starts_are_inverted(cfg):
        return None
    return request_inversion(cfg).load()


def inversion_id(cfg: DictConfig) -> str:
    """Identity of the inversion; '' where the starts are the bank's samples."""
    if not starts_are_inverted(cfg):
        return ""
    return request_inversion(cfg).id()


def inversion_task(cfg: DictConfig) -> Task:
    """What is to be inverted, and how."""
    return request_inversion(cfg).task()
