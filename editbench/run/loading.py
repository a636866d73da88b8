"""Building what a job works with from its settings: networks, bank, metrics and observations."""

from __future__ import annotations

import json
import os
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from editbench.bank.bank import IMPORTED, Bank, read_spec
from editbench.bank.build import build_bank
from editbench.bank.spec import BankSpec
from editbench.base import identity
from editbench.base.attributes import Attributes
from editbench.base.compute_options import check_device_name, is_gpu, without_tf32
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.files import (
    OF_CACHE,
    digest,
    explain_disk_errors,
    file_sha256,
    file_state,
    named_files,
)
from editbench.base.instantiate import build
from editbench.base.precision import AMPERE, use_precision
from editbench.base.spaces import Space
from editbench.base.user_code import is_ours
from editbench.networks.features import FeatureNetwork
from editbench.networks.generator import Generator
from editbench.networks.own_networks import (
    check_own_generator,
    check_own_scorer,
    probe_samples,
)
from editbench.networks.roles import Networks
from editbench.networks.scorer import Scorer
from editbench.run.batch import bank_batch
from editbench.run.component import Component
from editbench.run.launch import gpu_generations
from editbench.run.settings import Settings
from editbench.walk.editor import Editor
from editbench.walk.observation import Observation, Unavailable

# torchmetrics is imported with the first metric of a job, after its other settings were checked.
if TYPE_CHECKING:
    from editbench.walk.metric import Metric


# -- networks ------------------------------------------------------------------------------------
def load_networks(settings: Settings) -> Networks:
    """Generator, teacher and judge, on their device and in their precision.

    Raises:
        EditbenchError: the machine lacks the device or the precision, the scorers do not fit the
            generator, or a network cannot be built.
    """
    check_device(settings.device)
    # TF32 is a mode of the process, so it is set for every job, cached networks or not.
    use_precision(settings.precision, settings.device)
    parts = _network_parts(settings)
    # As text, since a mapping cannot be the key of a cache.
    return _build_networks(
        json.dumps(parts),
        settings.precision,
        settings.device,
        _file_stamps(parts),
        networks_code(settings),
    )


def check_device(name: str, key: str = "device=") -> None:
    """Check that a name is a device, and that this machine has the GPU.

    Args:
        name: of the device.
        key: what a user writes before the name: 'device=', or '--device ' for an option.

    Raises:
        EditbenchError: it is no device, or this machine lacks it.
    """
    # Commands without settings, such as `world`, take any text.
    check_device_name(name, key)
    if not is_gpu(name):
        return
    if not torch.cuda.is_available():
        raise EditbenchError(
            f"{key}{name}, but torch sees no CUDA device: use {key}cpu "
            "(`editbench doctor` shows what this machine has)"
        )
    count = torch.cuda.device_count()
    if (torch.device(name).index or 0) >= count:
        raise EditbenchError(
            f"{key}{name}, but torch sees {count} CUDA devices: use one of {key}cuda:0 to "
            f"{key}cuda:{count - 1}, or {key}cpu"
        )


def is_device_missing(name: str) -> bool:
    """Whether this machine lacks a GPU of this name.

    The GPUs are counted without starting CUDA: the process that starts a sweep may not use them,
    and their order must not be fixed before a worker chooses it.
    """
    return is_gpu(name) and (torch.device(name).index or 0) >= torch.cuda.device_count()


def device_problem(settings: Settings) -> EditbenchError | None:
    """Why this machine cannot run a job on its device; None if it can, or if that is unknown.

    CUDA is not started, as in `is_device_missing`.

    Args:
        settings: of the job.

    Returns:
        The error that the job would raise: its GPU is missing, or every GPU that this process sees
        is too old for precision=tf32. If only some are, it depends on the GPU that a job is given.
    """
    if is_device_missing(settings.device):
        try:
            check_device(settings.device)
        except EditbenchError as error:
            return error
    if settings.precision == "tf32" and is_gpu(settings.device):
        generations = gpu_generations(os.environ)
        if generations and max(generations) < AMPERE:
            return without_tf32(settings.device)
    return None


def networks_code(settings: Settings) -> str:
    """Hash of the source behind generator, teacher and judge, and of the options of a user's own.

    The digest of a user's class may not depend on all of its options. They are not part of the
    digests, which seed the draw of starts.
    """
    parts = _network_parts(settings)
    code = identity.code_of(parts)
    options = [
        _options_content(json.dumps(parts[role]), _file_stamps(parts[role]))
        for role in ("generator", "teacher", "judge")
        if not is_ours(parts[role]["_target_"])
    ]
    return digest([code, options]) if options else code


def _network_parts(settings: Settings) -> dict[str, Any]:
    return {
        "generator": settings.generator.config,
        "teacher": settings.scorer.teacher.config,
        "judge": settings.scorer.judge.config,
        "name": settings.generator.name,
    }


def _file_stamps(config: object) -> tuple[tuple[str, int, int, int], ...]:
    """Name and `file_state` of every file that a configuration names."""
    stamps = []
    for name in named_files(config):
        files = [Path(name)]
        # Of a folder the files, as a user may put another network there.
        if os.path.isdir(name):
            files = sorted(Path(name).glob("*"))
        for file in files:
            state = file_state(file)
            if state is not None:
                stamps.append((str(file), *state))
    return tuple(stamps)


# A job asks for it several times, and weights may have hundreds of megabytes.
@lru_cache(maxsize=16)
def _options_content(description: str, stamps: tuple[tuple[str, int, int, int], ...]) -> object:
    """`identity.content` of a network's configuration (JSON), for files of these `_file_stamps`."""
    return identity.content(json.loads(description))


# Jobs of one process share their networks, since loading takes as long as a short job. The key has
# everything that determines the networks, files and code included, so results do not depend on it.
@lru_cache(maxsize=4)
def _build_networks(
    description: str,
    precision: str,
    device: str,
    stamps: tuple[tuple[str, int, int, int], ...],
    code: str,
) -> Networks:
    parts = json.loads(description)
    generator: Generator = load_network("generator", parts["generator"], device)
    teacher: Scorer = load_network("teacher", parts["teacher"], device)
    scorers = {"teacher": teacher}
    # Equal configurations are one network: it is kept in memory once, and runs count as leaking.
    if parts["judge"] != parts["teacher"]:
        scorers["judge"] = load_network("judge", parts["judge"], device)
    judge = scorers.get("judge", teacher)
    for role, scorer in scorers.items():
        if scorer.input != generator.output:
            raise EditbenchError(
                f"the {role} scores '{scorer.input}', but generator '{parts['name']}' returns "
                f"'{generator.output}': choose a matching scorer, scorer=NAME"
            )
    for role, scorer in scorers.items():
        target = parts[role]["_target_"]
        if not is_ours(target):
            check_own_scorer(scorer, f"scorer.{role}._target_={target}", probe_samples(generator))
    if teacher.attributes != judge.attributes:
        raise EditbenchError(
            "teacher and judge must have the same attributes in the same order: "
            f"{_difference(teacher.attributes, judge.attributes)}"
        )
    if precision != "fp32":
        networks: list[Generator | Scorer] = [generator, *scorers.values()]
        for network in networks:
            network.precision = precision
            # Other logits make another bank. fp32 is what identities without a mark stand for.
            network.digest = f"{network.digest}-{precision}"
    return Networks(generator, teacher, judge)


def _difference(one: Attributes, other: Attributes) -> str:
    """How two sets of attributes differ: by their names, or else by the classes of one of them."""
    if one.names != other.names:
        return f"{', '.join(one.names)} and {', '.join(other.names)}"
    # The names alone would be twice the same, as where the classes are in another order.
    first, second = next((a, b) for a, b in zip(one, other) if a != b)
    orders = [" (ordered)" if item.ordered else "" for item in (first, second)]
    return (
        f"'{first.name}' with the classes {', '.join(first.classes)}{orders[0]} and "
        f"{', '.join(second.classes)}{orders[1]}"
    )


def _check_base(key: str, target: object, made: object, base: type) -> None:
    """Check that what a `_target_` gives has the base class of its role.

    Args:
        key: in the configuration, for the message.
        target: the value of `_target_`.
        made: what it gave.
        base: class of the contract.

    Raises:
        EditbenchError: it does not derive from the class.
    """
    if not isinstance(made, base):
        raise EditbenchError(
            f"{key}._target_={target} gives a {type(made).__name__}, but a subclass of "
            f"{base.__module__}.{base.__name__} is needed"
        )


def load_network(role: str, config: dict[str, Any], device: str) -> Any:
    """One network, in evaluation mode and without gradients of its weights.

    Args:
        role: 'generator', 'teacher' or 'judge'.
        config: of the network, with `_target_`.
        device: that this machine has, see `check_device`.

    Raises:
        EditbenchError: it cannot be built, or breaks the contract of its role. Scorers of a user's
            own class are tried by `load_networks`, on samples of a generator.
    """
    network = build(config)
    is_generator = role == "generator"
    key = role if is_generator else f"scorer.{role}"
    _check_base(key, config["_target_"], network, Generator if is_generator else Scorer)
    # Banks of two networks without a digest would have one name.
    if not network.digest:
        raise EditbenchError(
            f"{key}._target_={config['_target_']} has no digest: set self.digest in its constructor "
            "to a text that differs whenever the output would, such as the checksum of its weights"
        )
    _refuse_random_weights(role, network, config)
    network = network.to(device).eval().requires_grad_(False)
    if is_generator and not is_ours(config["_target_"]):
        check_own_generator(network, f"generator._target_={config['_target_']}")
    _identify_by_files(network, config)
    return network


def _refuse_random_weights(role: str, network: Generator | Scorer, config: dict[str, Any]) -> None:
    """Reject a module whose weights differ each time it is built, because `weights` was forgotten.

    Every process would have a network of its own, with its own bank and records.
    """
    # `network` is a mapping with the `_target_` of the module, or a list of its layers.
    if config.get("weights") is not None or not isinstance(config.get("network"), dict | list):
        return
    if build(config).digest != network.digest:
        raise EditbenchError(
            f"the {role}'s network has different weights each time it is built: give them with "
            "weights: FILE, a safetensors file, or load them in the constructor of its class"
        )


def _identify_by_files(
    network: Generator | Scorer | FeatureNetwork, *configs: dict[str, Any]
) -> None:
    """Add the files that a network's own code does not hash to its identity."""
    files = [file for config in configs for file in _own_files(config)]
    # Without such files the identity is the network's own.
    if files:
        network.digest = f"{network.digest}-{digest(files, 12)}"


def _own_files(config: dict[str, Any]) -> list[str]:
    """Hashes of the files that a network's parts, or a class of a user's own, are read from, in the
    order of the configuration.

    A network of editbench hashes what it reads itself. Of a module that it is given, such as one
    from a TorchScript file, it sees the parameters alone, and not the code of a traced or exported
    graph.
    """
    parts: list[object] = [config]
    if is_ours(config.get("_target_")):
        parts = [value for value in config.values() if isinstance(value, dict | list)]
    names = [name for name in named_files(parts) if file_state(name) is not None]
    return [file_sha256(Path(name)) for name in names]


# -- banks ---------------------------------------------------------------------------------------
# Opening a bank verifies the checksums of its shards, gigabytes at full size, so it is done once
# per process. The key has the time of bank.json, so a bank that was rebuilt is opened again.
_OPEN_BANKS: dict[tuple[Path, int], Bank] = {}


class BankPlace(NamedTuple):
    """The bank of a job, which need not exist yet.

    Attributes:
        folder: of the bank.
        id: its identity.
        spec: what it holds.
    """

    folder: Path
    id: str
    spec: BankSpec

    @property
    def is_built(self) -> bool:
        """Whether the bank was completed before."""
        return (self.folder / "bank.json").exists()


def locate_bank(settings: Settings) -> BankPlace:
    """Where the bank of a job is. It is opened only if bank.path names it.

    Raises:
        BadFile: bank.path names no bank, a damaged one, or one of other networks.
    """
    if settings.bank.path is not None:
        bank = load_bank(settings)
        return BankPlace(bank.folder, bank.id, bank.spec)
    spec = settings.bank.spec
    name = _own_bank_id(settings, spec)
    return BankPlace(settings.cache / "banks" / name, name, spec)


def bank_key(settings: Settings, bank_id: str) -> str:
    """What the results of a job depend on beside its method: the samples, and the networks.

    Args:
        settings: of the job.
        bank_id: identity of its bank. An imported bank has that of its files alone, and one that is
            given by its path may be of an earlier source of the networks.

    Raises:
        BadFile: bank.path names no bank.
    """
    if settings.bank.path is None:
        return bank_id
    if bank_id == _own_bank_id(settings, read_spec(settings.bank.path)):
        return bank_id
    return digest([bank_id, _digests(settings), networks_code(settings)])


def _own_bank_id(settings: Settings, spec: BankSpec) -> str:
    """The identity of the bank that the networks of a job make."""
    return identity.bank_id(vars(spec), _digests(settings), networks_code(settings))


def _digests(settings: Settings) -> dict[str, str]:
    """Role -> hash of the network's weights."""
    return {role: network.digest for role, network in vars(load_networks(settings)).items()}


def load_bank(settings: Settings) -> Bank:
    """The bank of a job, built first if necessary.

    Raises:
        BadFile: bank.path names no bank, a damaged one, or one of other networks.
    """
    if settings.bank.path is not None:
        bank = _opened(settings.bank.path) or _keep(Bank(settings.bank.path))
        return check_bank(bank, load_networks(settings))
    place = locate_bank(settings)
    found = _opened(place.folder)
    if found is not None:
        return found
    batch = bank_batch(settings, load_networks(settings))
    with explain_disk_errors(place.folder, OF_CACHE):
        bank = build_bank(
            place.folder,
            place.id,
            place.spec,
            partial(load_networks, settings),  # picklable, for the processes that build it
            settings.device,
            settings.bank.workers,
            batch,
        )
    return _keep(bank)


def check_bank(bank: Bank, networks: Networks) -> Bank:
    """Reject a bank given by its path if it was made by other networks.

    Args:
        bank: to check; it is returned.
        networks: of the job, with all attributes of their scorers.

    Raises:
        BadFile: generator, teacher or judge has another digest, or the judge other attributes. The
            networks of an imported bank are unknown, and only its attributes are compared.
    """
    for role, network in vars(networks).items():
        # An imported bank has no network to compare with; see imported_agreement.
        if bank.meta[role] not in (network.digest, IMPORTED):
            raise BadFile(
                f"bank {bank.folder} was built with another {role} ({bank.meta[role]}) than this "
                f"run's ({network.digest}): unset bank.path to use or build the right one"
            )
    if bank.judge_attributes != networks.judge.attributes:
        raise BadFile(
            f"bank {bank.folder} and the judge have different attributes: "
            f"{_difference(bank.judge_attributes, networks.judge.attributes)}"
        )
    return bank


def _opened(folder: Path) -> Bank | None:
    return _OPEN_BANKS.get(_stamped(folder))


def _keep(bank: Bank) -> Bank:
    _OPEN_BANKS[_stamped(bank.folder)] = bank
    return bank


def _stamped(folder: Path) -> tuple[Path, int]:
    """A key of _OPEN_BANKS."""
    file = folder / "bank.json"
    return folder, file.stat().st_mtime_ns if file.exists() else 0


# -- editor, metrics, observations ---------------------------------------------------------------
def load_editor(settings: Settings) -> Editor:
    """The method, not fitted.

    Raises:
        EditbenchError: it cannot be built, is not an editor, or its space is none.
    """
    editor: Editor = _built(settings.method, Editor)
    if not isinstance(editor.space, Space):
        raise EditbenchError(
            f"method._target_={settings.method.target} has space={editor.space!r}: set it to a "
            "member of editbench.base.spaces.Space, such as space = Space.W"
        )
    return editor


def load_bound_editor(settings: Settings, networks: Networks) -> Editor:
    """The method, not fitted, with the generator and the teacher of a job."""
    editor = load_editor(settings)
    editor.bind(networks.generator, networks.teacher)
    return editor


def load_metrics(settings: Settings) -> dict[str, Metric]:
    """Metrics by their names.

    Raises:
        EditbenchError: one cannot be built, or is not a metric.
    """
    # Imported here for the reason at the top of this module.
    from editbench.walk.metric import Metric

    return {name: _built(part, Metric) for name, part in settings.metrics.items()}


def load_observations(settings: Settings) -> dict[str, Observation]:
    """The observations of a job. One that does not support these networks is an `Unavailable`."""
    observations: dict[str, Observation] = {}
    for name, part in settings.observations.items():
        try:
            observations[name] = _observation(part)
        except Unsupported as error:
            observations[name] = Unavailable(str(error))
    return observations


def _built(part: Component, base: type) -> Any:
    """A component, checked by `_check_base`."""
    made = part.build()
    _check_base(part.key, part.target, made, base)
    return made


def _observation(part: Component) -> Observation:
    """An observation, whose network of features is identified by its files too."""
    made: Observation = _built(part, Observation)
    network = getattr(made, "network", None)
    config = part.options.get("network")
    if isinstance(network, FeatureNetwork) and isinstance(config, dict):
        # Of features of a scorer, the scorer is a network as the judge is.
        scorer = config.get("scorer")
        parts = [config]
        if isinstance(scorer, dict):
            parts = [{key: value for key, value in config.items() if key != "scorer"}, scorer]
        _identify_by_files(network, *parts)
    return made
