"""Which runs may stand in one table, and what each is called there.

Runs are comparable when generator, scorer, bank, starts and walk limits agree: a setting. The seed
is part of it where seeds are kept apart. Two runs of one method on one attribute within a setting are variants, told apart by the config keys in
which they differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from editbench.base.conf import LABELS, WORDING
from editbench.base.identity import COMPARABLE, WITHOUT_EFFECT

OBSERVATION = "observation"
# What a method's YAML says to people, to the report and to the demo, such as its number of seeds.
METHOD_LABELS = tuple(f"method.{label}" for label in LABELS if label != "name")
STATUS_FIELDS = ("generator", "seed", "judged_in", "leaking")


def add_settings(
    runs: pd.DataFrame, configs: dict[str, dict], by_seed: bool = True
) -> pd.DataFrame:
    """Add the columns `setting` ('' when there is only one) and `label` (the method's name, or name
    and variant).

    Args:
        runs: one row a run.
        configs: run_id -> operative configuration.
        by_seed: whether runs of other seeds are another setting; else they are no variants either.
    """
    if runs.empty:
        return runs.assign(setting=pd.Series(dtype="str"), label=pd.Series(dtype="str"))
    runs = runs.copy()
    # Names with dots, as on the command line, so that a setting can be read as its options.
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
        # Otherwise there is nothing to tell apart, and the plain name is best.
        if group.duplicated(["attribute", "seed"]).any() or _differ(group, flat):
            variants = _variants(group, flat)
            runs.loc[group.index, "label"] = [variants[run] for run in group["run_id"]]
    return runs.sort_values(["setting", "attribute", "label", "run_id"], ignore_index=True)


def _names(keys: list[dict[str, Any]]) -> list[str]:
    """What each setting is called: its world, where there are several, and what differs in it."""
    worlds: dict[str, list[dict[str, Any]]] = {}
    for key in keys:
        worlds.setdefault(str(key["generator"]), []).append(key)
    # Two worlds differ in all options of their networks, banks and starts: the name says it.
    differing = {world: _differing(part) for world, part in worlds.items()}
    found = []
    for key in keys:
        world = str(key["generator"])
        parts = [world] if len(worlds) > 1 else []
        parts += [f"{name} {_text(key[name])}" for name in differing[world] if name in key]
        found.append(", ".join(parts))
    return found


def _differing(keys: list[dict[str, Any]]) -> list[str]:
    """The names whose values differ, so that all runs of one sweep have a setting without a name."""
    names = sorted(set().union(*keys))
    differing = [
        name for name in names if len({_text(key[name]) for key in keys if name in key}) > 1
    ]
    # Where a group has another name its options differ too; the name says it already, unless two
    # runs of the same name differ in the option.
    return [
        name
        for name in differing
        if name in STATUS_FIELDS
        or f"{name.split('.')[0]}.name" not in differing
        or name.endswith(".name")
        or not _told(name, keys)
    ]


def _told(name: str, keys: list[dict[str, Any]]) -> bool:
    """Whether the name of a key's group says its value: runs that share the one share the other."""
    group = f"{name.split('.')[0]}.name"
    # A function from name to value: as many pairs as names.
    pairs = {(_text(key.get(group)), _text(key[name])) for key in keys if name in key}
    return len(pairs) == len({first for first, _ in pairs})


def protocol(run: dict[Any, Any], flat: dict[str, Any]) -> dict[str, Any]:
    """Everything but the method and the attribute that a result depends on."""
    key = {name: run[name] for name in STATUS_FIELDS}
    if (
        flat.get("inversion.name") == "none"
    ):  # the bank's samples: options of an inversion say nothing
        flat = {
            name: value
            for name, value in flat.items()
            if not name.startswith("inversion.") or name == "inversion.name"
        }
    return key | {
        name: value
        for name, value in flat.items()
        if any(name == part or name.startswith(f"{part}.") for part in COMPARABLE)
        # The status has the generator's name already.
        and name != "generator.name"
    }


def effective(run: Mapping[str, Any], config: dict) -> str:
    """What a job is: two records that agree in it differ in code or weights alone.

    Args:
        run: `method`, `attribute`, `seed` and the other STATUS_FIELDS of its record.
        config: operative configuration.
    """
    flat = flatten(config)
    flat.pop("method.name", None)  # it is among the fields
    fields = {name: run[name] for name in ("method", "attribute", *STATUS_FIELDS)}
    return json.dumps([fields, flat], sort_keys=True, default=str)


def flatten(config: object, prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}, without what does not determine a result.

    An option of the generator stays whole, so that a mapping differs from null: they are two
    worlds.
    """
    # Paths, workers and the like would make every run a setting of its own.
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
    """Whether seeds of one method differ in its options: they are then variants, and no seeds of
    one."""
    for _, same in group.groupby("attribute"):
        own = [_text(_of_method(flat[run])) for run in same["run_id"]]
        if len(set(own)) > 1:
            return True
    return False


def _of_method(flat: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flat.items() if key.startswith("method.")}


def _variants(group: pd.DataFrame, flat: dict[str, dict[str, Any]]) -> dict[str, str]:
    """run_id -> label, from the config keys that differ between runs of the same attribute."""
    flat = {run: flat[run] | {OBSERVATION: _observed(flat[run])} for run in group["run_id"]}
    keys: set[str] = set()
    for _, same in group.groupby("attribute"):
        keys |= _varying([flat[run] for run in same["run_id"]])
    # Within a setting variants differ in the method; other keys only where nothing else differs.
    shown = sorted({key for key in keys if key.startswith("method.")} or keys)
    labels = {}
    for run, method in zip(group["run_id"], group["method"]):
        parts = [
            f"{key.removeprefix('method.')}={_text(flat[run][key])}"
            for key in shown
            if key in flat[run]
        ]
        labels[run] = f"{method} ({', '.join(parts)})" if parts else method
    # Two runs may agree in every option that is shown.
    named = group.assign(label=[labels[run] for run in group["run_id"]])
    again = named.duplicated(["attribute", "label", "seed"], keep=False)
    for run in named.loc[again, "run_id"]:
        labels[run] += f" [{run[-8:]}]"  # they differ in what is not shown: metrics, or code
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
        # An observation that a run lacks is told by its name, and not by every option of it.
        if key.startswith(f"{OBSERVATION}."):
            having = [one for one in own if key in one]
        if len({_text(one.get(key)) for one in having}) > 1:
            found.add(key)
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
