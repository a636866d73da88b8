"""Composing the Hydra configuration of a job, or of every job of a sweep."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from editbench.base.conf import MAIN, groups
from editbench.base.errors import EditbenchError
from editbench.run.option_files import name_files
from editbench.run.overrides import check_keys, check_overrides, check_single, hydra_application
from editbench.run.settings import TOP_VALUES, Settings

# Keys that can change what is evaluated; if the list is null, the scorer decides.
SAY_THE_LIST = ("evaluated", "experiment", "budget", "scorer")
# Hydra keeps its state in one object of the process, so threads compose one after the other.
_ONE_AT_A_TIME = threading.RLock()


# -- one job -------------------------------------------------------------------------------------
def compose_settings(overrides: Sequence[str], more: Sequence[Path] = ()) -> Settings:
    """The checked settings of one job.

    Args:
        overrides: as for `compose_config`.
        more: as for `compose_config`.

    Raises:
        UnknownName: a group option or key does not exist.
        EditbenchError: Hydra cannot compose the configuration, or a value is wrong.
    """
    return Settings.from_config(compose_config(overrides, more))


def compose_config(overrides: Sequence[str], more: Sequence[Path] = ()) -> DictConfig:
    """The configuration of one job.

    Args:
        overrides: words such as 'method=gradctrl' or 'method=mine.yaml', as on the command line.
        more: a user's own configuration folders.

    Raises:
        UnknownName: a group option or key does not exist.
        EditbenchError: Hydra cannot compose the configuration.
    """
    overrides, more = name_files(overrides, more)
    check_overrides(overrides, more)
    check_single(overrides, "this command takes one job, and only `editbench run -m` a sweep")
    with _ONE_AT_A_TIME, hydra_application(more, overrides):
        return compose(MAIN, overrides=list(overrides))


# -- the jobs of a sweep -------------------------------------------------------------------------
def sweep_jobs(master: DictConfig, loader: ConfigLoader) -> list[list[str]]:
    """The overrides of every job of a sweep, in the order of Hydra's basic sweeper.

    An experiment's hydra.sweeper.params come first, so that the command line overrides them.

    Args:
        master: configuration that was composed for a multirun, with Hydra's own node.
        loader: of Hydra; `glob` needs it to list the options of a group.
    """
    # Hydra's own sweeper does the same in a private module; tests compare the two.
    params = master.hydra.sweeper.params or {}
    words = [f"{key}={value}" for key, value in params.items()]
    words += master.hydra.overrides.task
    parser = OverridesParser.create(config_loader=loader)
    # A repeated key replaces its earlier values: the last word wins, as in Hydra.
    choices: dict[str, list[str]] = {}  # key -> one word for each of its values
    for override in parser.parse_overrides(words):
        key = override.get_key_element()
        if not override.is_sweep_override():
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            try:
                choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            except ValueError as error:  # such as a range with a step of 0
                raise EditbenchError(f"{override.input_line}: {error}") from error
            # For example a glob that matches nothing. A sweep without jobs would look successful.
            if not choices[key]:
                raise EditbenchError(f"{override.input_line}: has no value, so there is no job")
        else:
            raise EditbenchError(
                f"{override.input_line}: a sweep cannot cover an interval; list the values"
            )
    return [list(job) for job in itertools.product(*choices.values())]


def compose_master(
    loader: ConfigLoader, overrides: Sequence[str]
) -> tuple[DictConfig, list[list[str]]]:
    """The configuration of a sweep as a whole, with Hydra's own node, and the words of its jobs.

    Args:
        loader: of Hydra, from within `hydra_application`.
        overrides: words of the command line, those of Hydra's own keys among them.

    Returns:
        The configuration, and the overrides of each job, see `sweep_jobs`.

    Raises:
        EditbenchError: another sweeper than Hydra's basic one, such as one that chooses further
            jobs by the results of earlier ones; or swept values that cannot be listed.
    """
    # Hydra composes it with the default options of swept groups, which may lack keys of the swept
    # options. Values of options are part of the jobs' own words and are checked there.
    shared = [word for word in overrides if not _is_of_group(word)]
    master = loader.load_configuration(MAIN, shared, RunMode.MULTIRUN)
    of_hydra = set(master.hydra.overrides.hydra)
    master.hydra.overrides.task = [word for word in overrides if word not in of_hydra]
    sweeper = str(master.hydra.sweeper["_target_"])
    if not sweeper.endswith(".BasicSweeper"):
        raise EditbenchError(
            f"hydra.sweeper={sweeper} is not supported: a sweep runs all combinations of the given "
            "values; leave the sweeper out"
        )
    return master, sweep_jobs(master, loader)


def _is_of_group(word: str) -> bool:
    """Whether a word sets a key inside a group, such as method.delta=0.3."""
    group, dot, _ = word.partition("=")[0].partition(".")
    return bool(dot) and group in groups()


@dataclass
class JobComposer:
    """Composes the jobs of a sweep as Hydra does.

    Composing takes a fifth of a second. Jobs that differ only in attribute, target and seed are
    composed once: these are plain values, and the rest of the configuration does not depend on them
    unless an interpolation refers to them.

    Args:
        loader: of Hydra.
        master: configuration of the sweep as a whole, with Hydra's own node.
        more: a user's own configuration folders.
    """

    loader: ConfigLoader
    master: DictConfig
    more: Sequence[Path] = ()
    # The other words of a job -> its settings; None if something refers to one of TOP_VALUES.
    _composed: dict[tuple[str, ...], Settings | None] = field(default_factory=dict)

    def settings(self, words: Sequence[str]) -> Settings:
        """The settings of a job.

        Args:
            words: its overrides.

        Raises:
            UnknownName: the options of this job lack a key.
            EditbenchError: a value is wrong.
        """
        values: dict[str, Any] = {}
        others: list[str] = []
        for word in words:
            key = word.partition("=")[0]
            if key in TOP_VALUES:
                values[key] = TOP_VALUES[key](_parsed(word))
                others.append(key)  # a job without the word has the default and is a different job
            else:
                others.append(word)
        known = self._composed.get(tuple(others))
        if known is not None:
            return known.with_values(**values)
        # As Hydra does for each job, since a swept experiment may bring its own defaults.
        try:
            config = self.loader.load_sweep_config(self.master, list(words))
        except HydraException:
            # Hydra's message does not say which job has the wrong key.
            check_keys(words, self.more, of_sweep=True)
            raise
        # Hydra makes the configuration a closed struct, from which no key can be deleted.
        with open_dict(config):
            del config["hydra"]
        settings = Settings.from_config(config)
        if not _refers_to_values(config):
            self._composed[tuple(others)] = settings
        return settings


def _parsed(word: str) -> Any:
    return OverridesParser.create().parse_override(word).value()


def _refers_to_values(config: DictConfig) -> bool:
    """Whether an interpolation in a configuration refers to its attribute, target or seed."""
    text = json.dumps(OmegaConf.to_container(config, resolve=False), default=str)
    # A resolver such as ${oc.select:seed} refers to them too, so every name in braces counts.
    inside = " ".join(re.findall(r"\$\{([^}]*)", text))
    return any(key in re.findall(r"\w+", inside) for key in TOP_VALUES)


def sweep_settings(
    overrides: Sequence[str], more: Sequence[Path] = ()
) -> Iterator[tuple[list[str], Settings]]:
    """The words and the settings of every job of a sweep, as Hydra composes them for a multirun.

    Args:
        overrides: words of the command line, which `check_overrides` has seen.
        more: a user's own configuration folders.

    Yields:
        The overrides of a job and its settings, composed when they are asked for.

    Raises:
        UnknownName: the options of a job lack a key.
        EditbenchError: a value is wrong.
    """
    with _ONE_AT_A_TIME, hydra_application(more, overrides) as hydra:
        master, jobs = compose_master(hydra.config_loader, overrides)
        composer = JobComposer(hydra.config_loader, master, more)
        for words in jobs:
            yield words, composer.settings(words)


def check_sweep(composer: JobComposer, jobs: list[list[str]]) -> list[Settings]:
    """Check the settings of a sweep before its first job.

    Composing a job takes a fifth of a second, so only enough jobs are composed to cover every swept
    value once. The many values of attribute, target and seed are checked without composing.

    Args:
        composer: of the jobs.
        jobs: the overrides of every job, see `sweep_jobs`.

    Returns:
        The settings of the jobs that were composed, and of the first job with each further
        attribute.

    Raises:
        UnknownName: the options of a job lack a key.
        EditbenchError: a value is wrong.
    """
    seen: set[str] = set()
    composed: list[Settings] = []
    further: list[Settings] = []
    shared = not _sweeps_the_list(jobs)
    for words in jobs:
        needs_composition = not seen  # the first job covers the words that all share
        for word in set(words) - seen:
            key = word.partition("=")[0]
            if key in TOP_VALUES:
                value = TOP_VALUES[key](_parsed(word))
                if key == "attribute" and composed and shared:
                    further.append(composed[0].with_values(attribute=str(value)))
            else:
                needs_composition = True
        seen |= set(words)
        if needs_composition:
            composed.append(composer.settings(words))
    return composed + further


def _sweeps_the_list(jobs: list[list[str]]) -> bool:
    """Whether jobs of a sweep may differ in their evaluated attributes."""
    chosen: dict[str, set[str]] = {}
    for words in jobs:
        for word in words:
            chosen.setdefault(word.partition("=")[0], set()).add(word)
    return any(len(chosen.get(key, ())) > 1 for key in SAY_THE_LIST)
