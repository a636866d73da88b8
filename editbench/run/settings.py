"""The settings of a job: validated once, before any work, from the composed configuration.

OmegaConf is not used after this step. Everything that runs a job takes `Settings` or a part of it,
so a wrong value is found before a network is loaded or a bank is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from editbench.bank.spec import BankSpec, StartsSpec
from editbench.base.compute_options import (
    PRECISIONS,
    check_batch,
    check_device_name,
    check_precision,
)
from editbench.base.conf import LABELS, known_keys
from editbench.base.errors import EditbenchError, UnknownName, first_line
from editbench.base.files import usable_folder
from editbench.base.validation import check_at_least, check_choice, check_kind, in_yaml
from editbench.inversion.spec import ProjectionSpec, Schedule
from editbench.run.component import Component
from editbench.run.record import MOVED_STARTS, moved_attributes
from editbench.walk.spec import EngineSpec

# Groups whose options set top-level keys and have no keys under their own names.
GLOBAL_GROUPS = ("budget", "experiment", "preset")
NO_INVERSION = "none"  # option of the group `inversion`: walks start from the bank's own samples


def check_file_name(key: str, name: str, remedy: str) -> None:
    """Check that a name can be part of the name of a record's folder.

    Args:
        key: that gives the name.
        name: of a method or an attribute.
        remedy: the end of the message.
    """
    # A folder whose name begins with a dot counts as one that is still being written.
    if "/" in name or name.startswith("."):
        raise EditbenchError(
            f"{key}={name} is used in the names of files, and must not contain a / or begin with a "
            f"dot: {remedy}"
        )


@dataclass(frozen=True)
class ScorerSettings:
    """The two scorers of a job.

    Args:
        name: of the option.
        teacher: what editors may learn from.
        judge: scorer that the benchmark measures with; if it equals the teacher, one network is
            both.
    """

    name: str
    teacher: Component
    judge: Component


@dataclass(frozen=True)
class BankSettings:
    """The bank of a job.

    Args:
        spec: what it holds.
        path: a bank to open instead of the one that `spec` describes; None builds that one.
        workers: processes that build it.
        batch: samples computed together; 'auto' for as many as fit into memory; None for one block.
    """

    spec: BankSpec
    path: Path | None
    workers: int
    batch: int | str | None = None


@dataclass(frozen=True)
class InversionSettings:
    """Real images as starts.

    Args:
        name: of the option; 'none' is no inversion.
        images: folder of pictures, or 'faces:N'; None where `path` is set.
        path: folder of a finished inversion; None makes one.
        perceptual: 'teacher', 'pixels', or a mapping with `_target_`.
        block: images that are optimised together.
        projection: how they are inverted.
    """

    name: str
    images: str | None
    path: str | None
    perceptual: str | dict[str, Any]
    block: int
    projection: ProjectionSpec

    @property
    def is_none(self) -> bool:
        """Whether walks start from the bank's own samples."""
        return self.name == NO_INVERSION


@dataclass(frozen=True)
class Settings:
    """Everything that determines one job.

    Args:
        name: of the experiment, for the report.
        attribute: name of the target attribute.
        evaluated: names of the evaluated attributes: they are judged, protected by masks and
            conditions, used to choose starts and used in tuning; None means all of the scorer's.
        target: target class of every start, by name or index; None draws one for each start.
        seed: of the method's own random draws.
        device: of the networks: 'cpu', 'cuda', 'cuda:1'.
        precision: of decoding and scoring: 'fp32', 'tf32', 'bf16', 'fp16'.
        out: folder of the records.
        cache: folder of banks and fits.
        offline: whether no network's file may be fetched.
        save_codes: whether the codes of every decoded step are kept.
        generator: a component.
        scorer: teacher and judge.
        bank: of the job.
        starts: how they are drawn.
        engine: how far they walk.
        method: a component.
        metrics: components by their names.
        observations: components by their names.
        inversion: real images as starts.
        plain: the resolved configuration that everything was read from. Records keep it, and
            identities are computed from it.
    """

    name: str
    attribute: str
    evaluated: tuple[str, ...] | None
    target: str | int | None
    seed: int
    device: str
    precision: str
    out: Path
    cache: Path
    offline: bool
    save_codes: bool
    generator: Component
    scorer: ScorerSettings
    bank: BankSettings
    starts: StartsSpec
    engine: EngineSpec
    method: Component
    metrics: dict[str, Component]
    observations: dict[str, Component]
    inversion: InversionSettings
    plain: dict[str, Any] = field(repr=False)

    @classmethod
    def from_config(cls, config: DictConfig | Mapping[Any, Any]) -> Settings:
        """Read and check a composed configuration. No network is loaded and no bank is opened.

        Raises:
            UnknownName: a key or an option does not exist; the message gives the nearest one.
            EditbenchError: a value is wrong; the message has key, value and remedy in one line.
        """
        plain = resolve(config)
        # From an experiment, budget or preset, whose keys are at the top level. Only `list` reads
        # it.
        plain.pop("about", None)
        # `+key=value` adds any key to a Hydra configuration, even one that nothing reads.
        known = known_keys()
        for key in plain:
            if key not in known:
                raise UnknownName("option", key, known)
        for group in GLOBAL_GROUPS:
            if isinstance(plain.get(group), dict) and plain[group]:
                raise UnknownName(f"option of '{group}'", str(next(iter(plain[group]))), [])
        values = _Values(plain)
        device = _one_device(plain.get("device"))
        precision = values.choice("precision", PRECISIONS, "fp32")
        check_precision(precision, device)
        # Values are checked in this order. Components come last, and metrics after the method:
        # their classes import torch, and those of metrics torchmetrics, and a wrong plain value
        # should be reported before these slow imports.
        settings = cls(
            name=values.text("name", "run"),
            attribute=_one_attribute(plain.get("attribute")),
            evaluated=_evaluated(plain.get("evaluated")),
            target=_one_target(plain.get("target")),
            seed=_one_seed(plain.get("seed")),
            device=device,
            precision=precision,
            out=usable_folder(Path(values.text("out", "runs"))),
            cache=usable_folder(Path(values.text("cache", "runs/cache"))),
            offline=values.flag("offline", False),
            save_codes=values.flag("save_codes", True),
            bank=_bank(plain.get("bank")),
            starts=_starts(plain.get("starts")),
            engine=_engine(plain.get("engine")),
            inversion=_inversion(plain.get("inversion")),
            method=_method(plain.get("method")),
            generator=Component.from_config("generator", plain.get("generator")),
            scorer=_scorer(plain.get("scorer")),
            metrics=_metrics(plain.get("metric")),
            observations=_components("observation", plain.get("observation")),
            plain=plain,
        )
        # A network is built by the metric that refers to it, if there is one.
        if plain.get("network") is not None:
            Component.from_config("network", plain["network"])
        return settings

    @property
    def title(self) -> str:
        """The beginning of a line about the job."""
        return f"{self.method.name} x {self.attribute}, seed {self.seed}"

    def with_values(self, **values: Any) -> Settings:
        """The same job with other plain values at the top, such as target=1; they are not checked."""
        # Identities are computed from `plain`, so it must be changed too.
        return replace(self, plain={**self.plain, **values}, **values)


def resolve(config: DictConfig | Mapping[Any, Any]) -> dict[str, Any]:
    """A configuration as plain values with every interpolation resolved, without Hydra's own node.

    Raises:
        EditbenchError: an interpolation refers to nothing, or a value is not set.
    """
    try:
        if OmegaConf.is_config(config):
            # Hydra's node has folders and times of this start, which are not part of a job.
            config = OmegaConf.masked_copy(
                cast(DictConfig, config), [str(key) for key in config if key != "hydra"]
            )
            return cast(
                dict[str, Any],
                OmegaConf.to_container(config, resolve=True, throw_on_missing=True),
            )
    except OmegaConfBaseException as error:
        # OmegaConf puts the full key and the type of the node on further lines.
        raise EditbenchError(f"the configuration is incomplete: {first_line(error)}") from error
    return {str(key): value for key, value in config.items()}


# -- values at the top ---------------------------------------------------------------------------
@dataclass(frozen=True)
class _Values:
    """Plain values at the top level of a configuration. Absent keys have their defaults, since
    records of earlier versions lack some keys."""

    plain: dict[str, Any]

    def text(self, key: str, default: str) -> str:
        value = self.plain.get(key, default)
        # As the name of a folder, an empty text would mean the working folder.
        check_kind(key, value or None, "str", default)
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.plain.get(key, default)
        check_kind(key, value, "bool", default)
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.plain.get(key) or default
        check_choice(key, value, choices)
        return value


def _refuse_list(key: str, value: object, what: str) -> None:
    """Reject a list for a key with a single value, which Hydra's own message suggests."""
    if not isinstance(value, list | dict):
        return
    items = value if isinstance(value, list) else list(value)
    words = ",".join(str(item) for item in items)
    raise EditbenchError(f"{key}=[{words}]: a job takes one {what}; sweep with -m {key}={words}")


def _one_attribute(value: object) -> str:
    _refuse_list("attribute", value, "attribute")
    check_kind("attribute", value, "str", "smile")
    return cast(str, value)


def _one_target(value: object) -> str | int | None:
    _refuse_list("target", value, "class")
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):  # a bool is an int in Python
        raise EditbenchError(
            f"target={in_yaml(value)} must be the name of a class or its index, a whole number"
        )
    return value


def _one_seed(value: object) -> int:
    _refuse_list("seed", value, "seed")
    check_kind("seed", value, "int", 0)
    seed = cast(int, value)
    # Fits keep their seed in a tensor of int64.
    if not -(2**63) <= seed < 2**63:
        raise EditbenchError(f"seed={seed} must lie between -2^63 and 2^63 - 1")
    return seed


def _one_device(value: object) -> str:
    """The name of a device. Whether this machine has it is checked when networks are loaded, since
    a sweep may be started on one machine for the GPUs of another."""
    _refuse_list("device", value, "device")
    # YAML reads device=0 as a number; torch would take it for a GPU.
    check_kind("device", value, "str", "cpu")
    check_device_name(cast(str, value))
    return cast(str, value)


def _evaluated(value: object) -> tuple[str, ...] | None:
    """The evaluated attributes; None means all of the scorer's."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise EditbenchError(
            f"evaluated={in_yaml(value)} must be null or a list of names, as in evaluated=[smile,age]"
        )
    words = ",".join(value)
    twice = sorted({name for name in value if value.count(name) > 1})
    if twice:
        raise EditbenchError(f"evaluated=[{words}] lists {twice[0]} twice: list it once")
    if len(value) < 2:
        raise EditbenchError(
            f"evaluated=[{words}] leaves no attribute that an edit could disturb: list two or "
            "more, or set evaluated=null for all of the scorer's"
        )
    return tuple(value)


# What sweeps vary most, checked without composing a job for every value.
TOP_VALUES = {"attribute": _one_attribute, "target": _one_target, "seed": _one_seed}


# -- groups --------------------------------------------------------------------------------------
def _mapping(group: str, value: object) -> dict[str, Any]:
    """The options of a group, without the keys of its YAML that are for people."""
    return _named(group, value)[1]


def _named(group: str, value: object) -> tuple[str, dict[str, Any]]:
    """The name of the chosen option ('' if it has none) and its options."""
    if not isinstance(value, dict):
        raise EditbenchError(
            f"{group}={in_yaml(value)} must be a mapping of options: choose them with budget=NAME or "
            f"{group}.KEY=VALUE"
        )
    options = {key: item for key, item in value.items() if key not in LABELS}
    return str(value.get("name", "")), options


def _spec(group: str, kind: type, options: dict[str, Any]) -> Any:
    """Build a dataclass from a group's options; an unknown option raises an error."""
    known = [item.name for item in fields(kind)]
    for key in options:
        if key not in known:
            raise UnknownName(f"option of '{group}'", key, known)
    try:
        return kind(**options)
    except TypeError as error:  # a field without a default is missing
        raise EditbenchError(f"{group}: {error}") from error


def _engine(value: object) -> EngineSpec:
    return _spec("engine", EngineSpec, _mapping("engine", value))


def _bank(value: object) -> BankSettings:
    options = _mapping("bank", value)
    # What is left describes the samples and is part of the bank's identity.
    path = options.pop("path", None)
    workers = options.pop("workers", 1)
    batch = options.pop("batch", None)
    if path is not None:
        check_kind("bank.path", path, "str", "runs/my_bank")
    check_kind("bank.workers", workers, "int", 1)
    check_at_least("bank.workers", workers, 1)
    if batch is not None:
        check_batch("bank.batch", batch)
    spec = _spec("bank", BankSpec, options)
    return BankSettings(spec, Path(path) if path else None, workers, batch)


def _starts(value: object) -> StartsSpec:
    options = _mapping("starts", value)
    if MOVED_STARTS in options:
        raise EditbenchError(moved_attributes(options[MOVED_STARTS]))
    return _spec("starts", StartsSpec, options)


def _scorer(value: object) -> ScorerSettings:
    name, options = _named("scorer", value)
    roles = ("teacher", "judge")
    for key in options:
        if key not in roles:
            raise UnknownName("option of 'scorer'", key, roles)
    # `judge: ${scorer.teacher}` is resolved by now: one network is then both, and runs are marked.
    teacher = Component.from_config("scorer.teacher", options.get("teacher"), "teacher")
    judge = Component.from_config("scorer.judge", options.get("judge"), "judge")
    return ScorerSettings(name, teacher, judge)


def _components(group: str, value: object) -> dict[str, Component]:
    """The options of a group of which a job takes any number; an empty list or null means none."""
    if not value:
        return {}
    if not isinstance(value, dict):
        raise EditbenchError(
            f"{group}={in_yaml(value)} must name options, as in {group}=[NAME,NAME]"
        )
    found: dict[str, Component] = {}
    for name, part in value.items():
        # An experiment may have options for a metric that the command line leaves out.
        if isinstance(part, dict) and "_target_" not in part:
            raise EditbenchError(
                f"{group}.{name} has options but no class: choose it in {group}=[NAME,...], or add "
                "_target_: my_package.my_module.MyClass to its YAML"
            )
        found[name] = Component.from_config(f"{group}.{name}", part, name)
    return found


def _method(value: object) -> Component:
    """The method, with checked values and a name that is valid in the name of a folder."""
    method = Component.from_config("method", value)
    # Without a name, the component would be called by its key, and all records the same.
    if not cast(dict, value).get("name"):
        raise EditbenchError("method.name is missing: add `name: NAME` to the method's YAML")
    check_file_name("method.name", method.name, "change `name` in its YAML")
    return method.checked()


def _metrics(value: object) -> dict[str, Component]:
    """The metrics, with checked values, since metrics are otherwise built only after the walk."""
    found = _components("metric", value)
    if not found:
        raise EditbenchError("metric=[] leaves nothing to measure: set metric=[NAME,...]")
    return {name: component.checked() for name, component in found.items()}


def _inversion(value: object) -> InversionSettings:
    if value is None:  # the configuration of an old record: there was no such group
        value = {"name": NO_INVERSION}
    name, options = _named("inversion", value)
    images = options.pop("images", None)
    path = options.pop("path", None)
    perceptual = options.pop("perceptual", "teacher")
    block = options.pop("block", 64)
    for key, text in (("images", images), ("path", path)):
        if text is not None:
            check_kind(f"inversion.{key}", text, "str")
    if name != NO_INVERSION and not images and not path:
        raise EditbenchError(
            "inversion.images is not set: give a folder of images or faces:N, or a finished "
            "inversion as inversion.path=FOLDER"
        )
    check_kind("inversion.block", block, "int", 64)
    check_at_least("inversion.block", block, 1)
    # One flat group in the YAML, two dataclasses in the code: the rates over time are Schedule's.
    times = {item.name for item in fields(Schedule)}
    schedule = _spec("inversion", Schedule, {k: v for k, v in options.items() if k in times})
    others = {key: item for key, item in options.items() if key not in times}
    projection = _spec("inversion", ProjectionSpec, {**others, "schedule": schedule})
    return InversionSettings(name, images, path, perceptual, block, projection)
