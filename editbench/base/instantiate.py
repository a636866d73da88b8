"""The only place where Hydra's `_target_` is instantiated."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from editbench.base.errors import EditbenchError

# Keys of a group's YAML that are no options of the class: for people, and for the report.
LABELS = ("name", "about", "demo", "figure")


def plain(config: DictConfig) -> dict:
    """A group's resolved configuration without the labels."""
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in config.items()
        if key not in LABELS
    }


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
        raise EditbenchError(
            f"could not make '{config.get('name', config.get('_target_'))}': "
            f"{error.__cause__ or error}"
        ) from error
