"""The names of the jobs of a sweep: of their records, banks and fits. Nothing is built or fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.utils import get_class

from editbench.base.errors import EditbenchError
from editbench.run.compose import check_overrides, sweep_settings
from editbench.run.fits import fit_files
from editbench.run.job import make_run_id
from editbench.run.job_names import JobNames
from editbench.run.launch import check_launcher
from editbench.run.loading import bank_folder, load_bank, load_networks
from editbench.run.protocol import check_protocol
from editbench.run.settings import Settings


def name_jobs(
    overrides: Sequence[str], more: Sequence[Path] = ()
) -> Iterator[tuple[Settings, JobNames]]:
    """The settings and the names of every job of a sweep, in its order.

    Args:
        overrides: words of the command line.
        more: a user's own configuration folders.

    Raises:
        UnknownName: a word names an option or a key that does not exist.
        EditbenchError: the settings of a job are wrong. A job whose attribute or files are not
            there has a reason instead.
    """
    check_launcher(overrides, more)
    check_overrides(overrides, more)
    for words, settings in sweep_settings(overrides, more):
        yield settings, name_job(settings, words)


def name_job(settings: Settings, words: list[str]) -> JobNames:
    """The names of one job, as `run_job` finds them.

    Args:
        settings: of the job.
        words: its overrides.
    """
    method = settings.method.name
    attribute = settings.attribute
    seed = settings.seed
    try:
        networks = load_networks(settings)
        names = check_protocol(settings, networks.judge.attributes)
        folder, bank, n, shard = _bank(settings)
        run_id = make_run_id(settings, bank, names)
        # The class alone says whether there is a tuning for the attribute beside the fit.
        editor = get_class(settings.method.target)
        files = fit_files(settings, bank, networks.select(names), attribute, editor)
    except EditbenchError as error:
        return JobNames(method, attribute, seed, words, str(error))
    return JobNames(
        method,
        attribute,
        seed,
        words,
        "",
        run_id,
        str(settings.out),
        bank,
        str(folder),
        n,
        shard,
        [str(file) for file in files],
    )


def _bank(settings: Settings) -> tuple[Path, str, int, int]:
    """Folder, identity, samples, and samples a shard of a job's bank. The identity follows from its
    networks and options, so it is known before the bank is built."""
    if settings.bank.path:
        bank = load_bank(settings)
        return bank.folder, bank.id, len(bank), bank.spec.shard
    folder, identity = bank_folder(settings)
    return folder, identity, settings.bank.spec.n, settings.bank.spec.shard
