"""Settings (groups of runs that can be compared in one table) and variants of methods.

The runs of a setting have the same generator, scorer, bank, starts and walk limits, and the same
seed if seeds are not pooled. Within a setting, different configurations of one method are variants,
which are labelled by the keys in which they differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from editbench.base.conf import LABELS, WORDING
from editbench.base.identity import COMPARABLE, WITHOUT_EFFECT

OBSERVATION = "observation"
# Keys of a method's YAML for people, the report and the demo, such as its number of seeds.
METHOD_LABELS = tuple(f"method.{label}" for label in LABELS if label != "name")
STATUS_FIELDS = ("generator", "seed", "judged_in", "leaking")


def add_settings(
    runs: pd.DataFrame, configs: dict[str, dict], by_seed: bool = True
) -> pd.DataFrame:
    """Add the columns `setting` ('' if there is only one) and `label` (name of method and variant).

    Args:
        runs: one row per run.
        configs: run_id -> operative configuration.
        by_seed: whether different seeds are different settings; otherwise the seed is ignored.
    """
    if runs.empty:
        return runs.assign(setting=pd.Series(dtype="str"), label=pd.Series(dtype="str"))
    runs = runs.copy()
    # Names with dots, as on the command line, since settings are named by their options.
    flat = {run: flatten(configs.get(run, {})) for run in runs["run_id"]}
    if not by_seed:
        for options in flat.values():
            options.pop("seed", None)
    keys = [protocol(run, flat[run["run_id"]]) for run in runs.to_dict("records")]
    if not by_seed:
        for key in keys:
            del key["seed"]
    runs["setting"] = _names(keys)
    runs["label"] = runs["method"]
    for _, group in runs.groupby(["setting", "method"]):
        # Otherwise there are no variants, and the label is the method's name.
        if group.duplicated(["attribute", "seed"]).any() or _differ(group, flat):
            variants = _variants(group, flat)
            runs.loc[group.index, "label"] = [variants[run] for run in group["run_id"]]
    return runs.sort_values(["setting", "attribute", "label", "run_id"], ignore_index=True)


def _names(keys: list[dict[str, Any]]) -> list[str]:
    """The names of settings: the world, if there are several, and the options that differ."""
    worlds: dict[str, list[dict[str, Any]]] = {}
    for key in keys:
        worlds.setdefault(str(key["generator"]), []).append(key)
    # Only options that differ within a world; the world's name stands for all others.
    differing = {world: _differing(part) for world, part in worlds.items()}
    found = []
    for key in keys:
        world = str(key["generator"])
        parts = [world] if len(worlds) > 1 else []
        parts += [f"{name} {_text(key[name])}" for name in differing[world] if name in key]
        found.append(", ".join(parts))
    return found


def _differing(keys: list[dict[str, Any]]) -> list[str]:
    """The keys whose values differ; none within one sweep, whose setting then has an empty name."""
    names = sorted(set().union(*keys))
    differing = [
        name for name in names if len({_text(key[name]) for key in keys if name in key}) > 1
    ]
    # An option is left out if the name of its group's option already determines its value.
    return [
        name
        for name in differing
        if name in STATUS_FIELDS
        or f"{name.split('.')[0]}.name" not in differing
        or name.endswith(".name")
        or not _told(name, keys)
    ]


def _told(name: str, keys: list[dict[str, Any]]) -> bool:
    """Whether the name of the group's option determines the value of a key."""
    group = f"{name.split('.')[0]}.name"
    # It does if there are as many (name, value) pairs as names.
    pairs = {(_text(key.get(group)), _text(key[name])) for key in keys if name in key}
    return len(pairs) == len({first for first, _ in pairs})


def protocol(run: dict[Any, Any], flat: dict[str, Any]) -> dict[str, Any]:
    """Everything that a result depends on, except the method and the attribute.

    Args:
        run: `STATUS_FIELDS` of its record.
        flat: its configuration, see `flatten`.

    Returns:
        Key -> value; records with equal mappings can be compared.
    """
    key = {name: run[name] for name in STATUS_FIELDS}
    # Without an inversion, its options have no effect.
    if flat.get("inversion.name") == "none":
        flat = {
            name: value
            for name, value in flat.items()
            if not name.startswith("inversion.") or name == "inversion.name"
        }
    return key | {
        name: value
        for name, value in flat.items()
        if any(name == part or name.startswith(f"{part}.") for part in COMPARABLE)
        # The status already has the generator's name.
        and name != "generator.name"
    }


def effective(run: Mapping[str, Any], config: dict) -> str:
    """A text that identifies a job: records with the same text differ only in code or weights.

    Args:
        run: `method`, `attribute`, `seed` and the other STATUS_FIELDS of its record.
        config: operative configuration.
    """
    flat = flatten(config)
    flat.pop("method.name", None)  # already among the fields
    fields = {name: run[name] for name in ("method", "attribute", *STATUS_FIELDS)}
    return json.dumps([fields, flat], sort_keys=True, default=str)


def flatten(config: object, prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}, without keys that do not change a result.

    Options of the generator are not flattened, so that a mapping and null are different values:
    they are different worlds.

    Args:
        config: operative configuration, or a part of it.
        prefix: key of the part in the whole configuration; '' for the whole.
    """
    # With paths, workers and similar options, every run would be a separate setting.
    if prefix in WITHOUT_EFFECT or prefix in METHOD_LABELS:
        return {}
    if prefix.rpartition(".")[2] in WORDING:
        return {}
    if not isinstance(config, dict) or not config or prefix.startswith("generator."):
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _differ(group: pd.DataFrame, flat: dict[str, dict[str, Any]]) -> bool:
    """Whether runs of a method on an attribute differ in the method's options."""
    for _, same in group.groupby("attribute"):
        own = [_text(_of_method(flat[run])) for run in same["run_id"]]
        if len(set(own)) > 1:
            return True
    return False


def _of_method(flat: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flat.items() if key.startswith("method.")}


def _variants(group: pd.DataFrame, flat: dict[str, dict[str, Any]]) -> dict[str, str]:
    """run_id -> label, from the keys that differ between runs on the same attribute."""
    flat = {run: flat[run] | {OBSERVATION: _observed(flat[run])} for run in group["run_id"]}
    keys: set[str] = set()
    for _, same in group.groupby("attribute"):
        keys |= _varying([flat[run] for run in same["run_id"]])
    # Other keys than the method's are used only if the method's do not differ.
    shown = sorted({key for key in keys if key.startswith("method.")} or keys)
    labels = {}
    for run, method in zip(group["run_id"], group["method"]):
        parts = [
            f"{key.removeprefix('method.')}={_text(flat[run][key])}"
            for key in shown
            if key in flat[run]
        ]
        labels[run] = f"{method} ({', '.join(parts)})" if parts else method
    # Two runs may agree in all options that are shown.
    named = group.assign(label=[labels[run] for run in group["run_id"]])
    again = named.duplicated(["attribute", "label", "seed"], keep=False)
    for run in named.loc[again, "run_id"]:
        labels[run] += f" [{run[-8:]}]"  # they differ in something else, such as metrics or code
    return labels


def _observed(flat: dict[str, Any]) -> str:
    """The names of a run's observations."""
    names = {key.split(".")[1] for key in flat if key.startswith(f"{OBSERVATION}.")}
    return "+".join(sorted(names)) or "none"


def _varying(own: list[dict[str, Any]]) -> set[str]:
    """The keys in which these runs differ."""
    found = set()
    for key in set().union(*own):
        having = own
        # If a run lacks an observation, the observation's name shows it, not all its options.
        if key.startswith(f"{OBSERVATION}."):
            having = [one for one in own if key in one]
        if len({_text(one.get(key)) for one in having}) > 1:
            found.add(key)
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
