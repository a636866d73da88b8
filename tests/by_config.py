"""The functions of a run, for tests that compose a configuration and change it before they run it.

Each takes the configuration where the product's function takes `Settings`.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from omegaconf import DictConfig

from editbench.base.errors import EditbenchError
from editbench.run import inversions, job, loading, workers
from editbench.run.outcome import Outcome
from editbench.run.record import Record
from editbench.run.settings import Settings


def _by_config(function):
    @functools.wraps(function)
    def with_settings(config, *args, **kwargs):
        settings = config if isinstance(config, Settings) else Settings.from_config(config)
        return function(settings, *args, **kwargs)

    return with_settings


run_job = _by_config(job.run_job)
load_networks = _by_config(loading.load_networks)
load_bank = _by_config(loading.load_bank)
locate_bank = _by_config(loading.locate_bank)
networks_code = _by_config(loading.networks_code)
request_inversion = _by_config(inversions.request_inversion)


@_by_config
def make_run_id(settings, bank_id, names):
    """`job.make_run_id` with the inversion of the settings."""
    return job.make_run_id(settings, bank_id, names, inversions.request_inversion(settings))


def run_jobs(configs, count):
    """`workers.run_jobs` of the settings of each configuration."""
    return workers.run_jobs([Settings.from_config(config) for config in configs], count)


def folder_of(config: DictConfig, outcome: Outcome) -> Path:
    """Folder of the record of a job."""
    return Path(config.out) / outcome.run_id


def record_of(config: DictConfig) -> Record:
    """Record of a job, which is run unless it is there."""
    return Record.read(folder_of(config, run_job(config)))


def refusal(config: DictConfig) -> str:
    """Why a job cannot begin."""
    with pytest.raises(EditbenchError) as caught:
        run_job(config)
    return str(caught.value)
