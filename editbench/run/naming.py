"""The names of the records, banks and fits of a sweep's jobs. Nothing is built or fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.utils import get_class

from editbench.base.errors import EditbenchError
from editbench.run.compose import sweep_settings
from editbench.run.fits import fit_files
from editbench.run.job import identify
from editbench.run.job_names import JobNames
from editbench.run.launch import check_launcher
from editbench.run.overrides import check_overrides
from editbench.run.settings import Settings


def name_jobs(
    overrides: Sequence[str], more: Sequence[Path] = ()
) -> Iterator[tuple[Settings, JobNames]]:
    """The settings and names of all jobs of a sweep, in order.

    Args:
        overrides: from the command line.
        more: a user's own configuration folders.

    Raises:
        UnknownName: an override has an option or key that does not exist.
        EditbenchError: the settings of a job are wrong. If only its attribute or its files do not
            exist, its names have a reason instead.
    """
    check_launcher(overrides, more)
    check_overrides(overrides, more)
    for words, settings in sweep_settings(overrides, more):
        yield settings, name_job(settings, words)


def name_job(settings: Settings, words: list[str]) -> JobNames:
    """The names of one job, the same as in `run_job`.

    Args:
        settings: of the job.
        words: its overrides.
    """
    method = settings.method.name
    attribute = settings.attribute
    seed = settings.seed
    try:
        found = identify(settings)
        # The class is enough to know whether the method also has a tuning for the attribute.
        editor = get_class(settings.method.target)
        networks = found.networks.select(found.evaluated)
        files = fit_files(settings, found.bank.id, networks, attribute, editor)
    except EditbenchError as error:
        return JobNames(method, attribute, seed, words, reason=str(error))
    return JobNames(
        method,
        attribute,
        seed,
        words,
        run_id=found.run_id,
        out=str(settings.out),
        bank=found.bank.id,
        bank_folder=str(found.bank.folder),
        n=found.bank.spec.n,
        shard=found.bank.spec.shard,
        fits=[str(file) for file in files],
    )
