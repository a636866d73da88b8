"""Building the components of a configuration. Only this module calls Hydra's instantiate.

A `_target_` is the dotted name of a class or function, and building it runs that code. Use
configurations only from people whose code you would run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from editbench.base.conf import LABELS
from editbench.base.errors import EditbenchError, one_line


def plain(config: Mapping[str, Any] | DictConfig) -> dict[str, Any]:
    """The resolved options of a component as plain values, without the labels."""
    options: dict[str, Any] = {}
    for key, value in config.items():
        if key in LABELS:
            continue
        # Interpolations such as ${data} can be resolved only while the value has its parent.
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
        options[str(key)] = value
    return options


def build(config: Mapping[str, Any] | DictConfig) -> Any:
    """Build a component from its configuration.

    Args:
        config: `_target_` and the keyword arguments; nested components are built first.

    Raises:
        EditbenchError: the component cannot be built. If it raised an EditbenchError itself, that
            error is raised unchanged.
    """
    # Imported here, since a report imports this module but builds nothing.
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(plain(config), _convert_="all")
    except InstantiationException as error:
        # Hydra wraps a constructor's error once for each level of nesting.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, EditbenchError):
                raise cause from None
            cause = cause.__cause__
        _refuse_unknown(plain(config))
        name = config.get("name", config.get("_target_"))
        reason = error.__cause__ or error
        # The message of a KeyError is only the key, and others may be empty.
        told = str(reason)
        if isinstance(reason, LookupError) or not told:
            told = one_line(reason)
        raise EditbenchError(f"could not create '{name}': {told}") from error


def _refuse_unknown(options: Any, key: str = "") -> None:
    """Raise EditbenchError for the first `_target_` that cannot be imported, at any depth.

    Its message is shorter than Hydra's, which has three lines.
    """
    # Imported here, since it is not needed to read configurations.
    from editbench.base.validation import load_target

    if isinstance(options, Mapping):
        if isinstance(options.get("_target_"), str):
            load_target(f"{key}._target_".removeprefix("."), options["_target_"])
        for name, value in options.items():
            _refuse_unknown(value, f"{key}.{name}" if key else str(name))
    elif isinstance(options, list):
        for position, value in enumerate(options):
            _refuse_unknown(value, f"{key}[{position}]")
