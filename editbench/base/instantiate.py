"""Building what a configuration names by `_target_`: the only place that calls Hydra's instantiate.

A `_target_` is the dotted name of a class or function, and building it runs that code. Take
configuration only from people whose code you would run.
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
        # Interpolations such as ${data} are resolved here, while the whole is still in reach.
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
        options[str(key)] = value
    return options


def build(config: Mapping[str, Any] | DictConfig) -> Any:
    """Build a component of its configuration.

    Args:
        config: `_target_` and the keyword arguments; nested components are built first.

    Raises:
        EditbenchError: the component refuses its options. An error of ours passes as it is, so that
            its own message is read.
    """
    # Imported here: a report derives names from configurations and builds nothing.
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(plain(config), _convert_="all")
    except InstantiationException as error:
        # Hydra wraps what a constructor raises, once for every level of nesting.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, EditbenchError):
                raise cause from None
            cause = cause.__cause__
        _refuse_unknown(plain(config))
        name = config.get("name", config.get("_target_"))
        reason = error.__cause__ or error
        # The message of a KeyError is a bare word, that of others may be empty.
        told = str(reason)
        if isinstance(reason, LookupError) or not told:
            told = one_line(reason)
        raise EditbenchError(f"could not create '{name}': {told}") from error


def _refuse_unknown(options: Any, key: str = "") -> None:
    """Raise EditbenchError for the first `_target_` that cannot be imported, at any depth. Hydra's
    own message has three lines."""
    # Imported here: what reads configurations alone need not load it.
    from editbench.base.validation import load_target

    if isinstance(options, Mapping):
        if isinstance(options.get("_target_"), str):
            load_target(key, options["_target_"])
        for name, value in options.items():
            _refuse_unknown(value, f"{key}.{name}" if key else str(name))
    elif isinstance(options, list):
        for position, value in enumerate(options):
            _refuse_unknown(value, f"{key}[{position}]")
