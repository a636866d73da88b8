"""The functions of a run, for tests that compose a configuration and change it before they run it.

Each takes the configuration where the product's function takes `Settings`.
"""

from __future__ import annotations

import functools

from editbench.run import inversions, job, loading, workers
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
