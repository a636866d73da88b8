"""The Hydra configuration: where it lies, what its groups hold, and errors for names that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from editbench.base.conf import CONF, group_options, groups
from editbench.base.errors import EditbenchError, UnknownName


def compose_config(overrides: Sequence[str], more: Sequence[Path] = ()) -> DictConfig:
    """The configuration of one job, without Hydra's launcher; `more`: a user's own configuration folders."""
    check_overrides(overrides, more)
    return _compose(overrides, more)


def _compose(overrides: Sequence[str], more: Sequence[Path]) -> DictConfig:
    GlobalHydra.instance().clear()
    paths = ",".join(f"file://{path.absolute()}" for path in more)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("run", overrides=[*overrides, f"hydra.searchpath=[{paths}]"])
    except (HydraException, OmegaConfBaseException) as error:
        raise EditbenchError(f"could not compose the configuration: {error}") from error


def check_overrides(overrides: Sequence[str], more: Sequence[Path] = ()) -> None:
    """Raise UnknownName, with the nearest match, for a group option or a key that does not exist.

    `more` are the folders given with --config-dir, where a user keeps options of their own.
    """
    known = groups()
    chosen: list[str] = []
    plain: list[str] = []
    for override in overrides:
        key, has_value, value = override.partition("=")
        bare = key.lstrip("+~").split("@")[0]
        if bare in known and has_value:
            options = group_options(bare, more)
            # a list of options, as metric and observation take; Hydra itself reads a sweep over such lists
            several = value.startswith("[") and value.endswith("]") and value.count("[") == 1
            values = (
                []
                if value[:1] in "{$" or "(" in value or (value[:1] == "[" and not several)
                else [
                    part.strip()
                    for part in value.strip("[]").split(",")
                    if part.strip() or not several
                ]
            )
            for option in values:
                if option not in options and option != "null":
                    raise UnknownName(bare, option, options)
            chosen += [override if several else f"{key}={values[0]}"] if values else []
        elif has_value and not key.startswith(("+", "~", "hydra")):
            plain.append(bare)
        elif not has_value and not key.startswith(("~", "-")):
            raise EditbenchError(
                f"'{override}' is not an override: write key=value (see `editbench run --help`)"
            )
    if plain:
        _check_keys(_compose(chosen, more), plain)


def _check_keys(cfg: DictConfig, keys: Sequence[str]) -> None:
    for key in keys:
        node: object = cfg
        path: list[str] = []
        for part in key.split("."):
            if not OmegaConf.is_dict(node):
                break  # a list index or a value: Hydra's own message is precise there
            names = [str(name) for name in node]  # type: ignore[attr-defined]
            if part not in names:
                where = f"option of '{'.'.join(path)}'" if path else "option"
                raise UnknownName(where, part, [*names, *(groups() if not path else [])])
            path.append(part)
            node = OmegaConf.select(cfg, ".".join(path), throw_on_missing=False)
