"""One job: a generator, a method, an attribute and a seed become a record.

Running the same job again finds the record.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from editbench.base import identity
from editbench.base.devices import forget_peak
from editbench.base.errors import (
    EditbenchError,
    NoControl,
    Unsupported,
    at_line,
    frames_of,
    one_line,
)
from editbench.base.files import (
    atomic_folder,
    create_folder,
    explain_disk_errors,
    lock,
    read_json,
    sweep_partials,
    write_atomic,
)
from editbench.base.user_code import is_users_file
from editbench.inversion.load import InversionRequest
from editbench.networks.registry import require_files
from editbench.networks.roles import Networks
from editbench.run import record as records
from editbench.run.inversions import request_inversion
from editbench.run.loading import (
    BankPlace,
    bank_key,
    device_problem,
    load_bank,
    load_editor,
    load_metrics,
    load_networks,
    locate_bank,
)
from editbench.run.measure import MetricFailed, compute_metrics, is_outdated, refresh_metrics
from editbench.run.outcome import Outcome
from editbench.run.protocol import check_protocol, with_named_target
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.run.stages import Job, fit_again, fit_and_walk, observe
from editbench.walk.spec import EngineSpec

# What chooses the folder of the records; the demo has an option for it.
OF_RECORDS = "out=DIR (demo: --out DIR)"
METRICS_MISSING = "its metrics are missing: the same command computes them"
# The threads of a process share its networks, which count what a job decodes and scores: the costs
# of two jobs at a time would be mixed up.
_ONE_AT_A_TIME = threading.RLock()


def find_job(settings: Settings) -> Outcome | None:
    """The outcome of a job whose record exists; None if the job has to run. Opens no bank.

    Args:
        settings: of the job.
    """
    try:
        require_files(settings.plain)
        folder = settings.out / identify(settings).run_id
        if not Record.is_record(folder):
            return None
        # Not `_found`, which waits for another process that works on the record and recomputes
        # metrics. Such a record is left to the job.
        found = _finished(settings, folder)
        if found is None or is_outdated(found, settings):
            return None
    except Exception:  # also of a user's code; the job will raise and report the same error
        return None
    status = found.status
    return Outcome(status["status"], status["reason"], folder.name, reused=True)


def check_devices(jobs: Iterable[Settings]) -> None:
    """Check, once for many jobs, that this machine has the devices of those that have to run.

    Args:
        jobs: settings of each. A job whose record exists needs no device.

    Raises:
        EditbenchError: a device is missing, or lacks the precision.
    """
    problems: dict[tuple[str, str], EditbenchError | None] = {}
    for settings in jobs:
        key = settings.device, settings.precision
        if key not in problems:
            problems[key] = device_problem(settings)
        problem = problems[key]
        if problem is not None and find_job(settings) is None:
            raise problem


class Identified(NamedTuple):
    """The names of a job, known before its bank is built.

    Attributes:
        networks: from which the names are computed, with all attributes of the judge.
        evaluated: names of the evaluated attributes.
        bank: where it is, and its identity.
        run_id: of the record.
    """

    networks: Networks
    evaluated: list[str]
    bank: BankPlace
    run_id: str


def identify(settings: Settings) -> Identified:
    """The names of a job.

    Args:
        settings: of the job. The device does not matter; it may belong to another machine.

    Raises:
        EditbenchError: there can be no job with these settings.
    """
    here = settings.with_values(device="cpu")
    networks = load_networks(here)
    evaluated = check_protocol(here, networks.judge.attributes)
    here = with_named_target(here, networks.judge.attributes)
    bank = locate_bank(here)
    run_id = make_run_id(here, bank.id, evaluated, request_inversion(here))
    return Identified(networks, evaluated, bank, run_id)


def _finished(settings: Settings, folder: Path) -> Record | None:
    """The record of a job if it is a result and keeps everything that the settings require."""
    found = Record.open(folder)
    # The record of a failure is kept for reading but is not a result, so the job runs again. If it
    # failed after its walks, only what is missing is computed.
    if found is None or not (found.final or found.walked):
        return None
    # These options change no number, so they are not part of the record's name.
    if found.status["status"] != "skipped":
        kept = found.config()
        pictures = (kept.get("engine") or {}).get("pictures", EngineSpec.pictures)
        if pictures < settings.engine.pictures:
            return None
        if settings.save_codes and not kept.get("save_codes", True):
            return None
    return found


def _found(job: Job, folder: Path) -> Outcome | None:
    """The outcome of a record that is a result, with its metrics up to date; the lock is held."""
    found = _finished(job.settings, folder)
    if found is None:
        return None
    if found.unobserved:
        found = _observe_kept(job, found)
    found, removed = refresh_metrics(found, job.settings)
    status = found.status
    return Outcome(
        status["status"], status["reason"], folder.name, reused=True, removed=tuple(removed)
    )


def run_job(settings: Settings) -> Outcome:
    """Run one job, or find its record. Of the threads of a process, one runs its job at a time.

    An error during the job leads to a record with the status 'failed'. Ctrl-C is not caught.

    Raises:
        UnknownName: there is no such attribute or class.
        EditbenchError: the job cannot begin, so there is no record that could hold the reason; the
            folder of the records cannot be written; or an observation or a metric failed on the
            walks of an existing record.
    """
    with _ONE_AT_A_TIME:
        return _run_or_find(settings)


def _run_or_find(settings: Settings) -> Outcome:
    """`run_job`, in one thread at a time."""
    root = settings.out
    # Checked first: with offline=true a missing file is reported before any time is spent.
    require_files(settings.plain)
    networks = load_networks(settings)
    # Only now is the device known to exist; the memory of the networks still counts.
    forget_peak(settings.device)
    # Before the bank is built: editor, observations and metrics see only these attributes.
    names = check_protocol(settings, networks.judge.attributes)
    settings = with_named_target(settings, networks.judge.attributes)
    networks = networks.select(names)
    for metric in load_metrics(settings).values():
        metric.check(networks.judge.attributes, settings.attribute)
    # Images that are not there are reported before the bank is built: `make_run_id` reads them.
    inversion = request_inversion(settings)
    run_id = make_run_id(settings, locate_bank(settings).id, names, inversion)
    folder = root / run_id
    # So are files of the method, unless there is a record, which may not need them, and a folder of
    # records that cannot be made.
    if not Record.is_record(folder):
        create_folder(root, OF_RECORDS)
        # Unsupported is left to the fit, which leaves a record with the reason.
        with suppress(Unsupported):
            load_editor(settings)
    bank = load_bank(settings).select(names)
    # Two sweeps may contain the same job: the second one waits here and then finds the record.
    with explain_disk_errors(root, OF_RECORDS), lock(folder):
        job = Job(settings, networks, bank, inversion)
        found = _found(job, folder)
        if found is not None:
            return found
        sweep_partials(folder)
        return _run(job, folder)


def make_run_id(
    settings: Settings, bank_id: str, names: list[str], inversion: InversionRequest | None
) -> str:
    """Name of the record of a job, see `editbench.base.identity.run_id`.

    Args:
        settings: of the job.
        bank_id: identity of its bank.
        names: the evaluated attributes, in the scorer's order.
        inversion: that walks start from; None if they start from the bank.

    Raises:
        BadFile: bank.path names no bank.
        EditbenchError: the images of the inversion cannot be opened.
    """
    key = bank_key(settings, bank_id)
    inversion_id = inversion.id if inversion is not None else ""
    return identity.run_id(settings.plain, key, names, inversion_id)


def _run(job: Job, folder: Path) -> Outcome:
    """Walk, measure and write the record, which always gets a status.

    Raises:
        KeyboardInterrupt: Ctrl-C. The record is written if its walks had ended.
    """
    began = time.time()
    status = "done"
    reason = ""
    stage = ""  # what is computed after the walks have ended
    interrupted = False
    about = _about(job, folder.name)
    # The folder is renamed when it is complete, so a killed job leaves no incomplete record.
    with atomic_folder(folder, {}) as partial:
        records.write_config(partial, job.settings.plain)
        try:
            with explain_disk_errors(folder, OF_RECORDS):
                observing, trajectories = fit_and_walk(job, partial)
                stage = "observations"
                observe(observing, read_json(partial / Record.PROVENANCE), partial)
                stage = "metrics"
                compute_metrics(partial, trajectories, job.settings).write(partial)
        except Unsupported as error:
            status = "skipped"
            reason = str(error)
            about[Record.NO_CONTROL] = isinstance(error, NoControl)
        except KeyboardInterrupt:
            if not stage:
                raise
            interrupted = True
            status = "failed"
            reason = f"stopped while its {stage} were computed: the same command computes them"
        except (Exception, SystemExit) as error:
            # An error of a method is recorded as its result and must not end the sweep.
            status = "failed"
            reason = _located_reason(error)
            # Our own messages need no traceback, except for the error of a metric.
            if isinstance(error, MetricFailed) or not isinstance(error, EditbenchError):
                hint = (
                    "; `editbench conform` checks the method" if _is_of_method(error, job) else ""
                )
                reason = f"{reason} (see {folder / Record.LOG}{hint})"
                write_atomic(partial / Record.LOG, traceback.format_exc())
        if stage and status == "failed":
            about[Record.WALKED] = True
            about[Record.UNOBSERVED] = stage == "observations"
        seconds = round(time.time() - began, 3)
        records.write_status(partial, status, reason, seconds=seconds, **about)
    if interrupted:
        raise KeyboardInterrupt
    return Outcome(status, reason, folder.name, seconds=seconds)


def _observe_kept(job: Job, record: Record) -> Record:
    """Run the observations of a record whose walks are kept; then only its metrics are missing.

    Raises:
        EditbenchError: an observation failed; the record stays as it was.
    """
    folder = record.folder
    about = {**record.status, "reason": METRICS_MISSING, Record.UNOBSERVED: False}
    with record.updating() as place:
        try:
            with explain_disk_errors(folder, OF_RECORDS):
                observe(fit_again(job), record.provenance(), place)
        except (Exception, SystemExit) as error:
            raise EditbenchError(_located_reason(error)) from error
        records.write_status(place, **about)
    return Record.read(folder)


def _located_reason(error: BaseException) -> str:
    """Text about an error; for one that is not ours, with the last line of the user's own code."""
    if isinstance(error, EditbenchError):
        return str(error)
    own = frames_of(error, is_users_file)
    return one_line(error) + (at_line(own[-1]) if own else "")


def _is_of_method(error: BaseException, job: Job) -> bool:
    """Whether an error passed through the user's own method, whose contract can be checked."""
    module = sys.modules.get(str(job.settings.plain["method"]["_target_"]).rpartition(".")[0])
    file = getattr(module, "__file__", None)
    return any(frame.filename == file for frame in frames_of(error, is_users_file))


def _about(job: Job, run_id: str) -> dict[str, Any]:
    """The content of status.json besides the status."""
    settings = job.settings
    about: dict[str, Any] = {
        "run_id": run_id,
        "method": settings.method.name,
        "floor": bool(settings.plain["method"].get("floor")),
        "attribute": settings.attribute,
        "seed": settings.seed,
        "generator": settings.generator.name,
        "experiment": settings.name,
        # Judge and teacher may be one network, or share the logits of an imported bank.
        "leaking": job.networks.leaking or bool(job.bank.meta.get("leaking")),
        "judged_in": job.networks.generator.output,
        "classes": list(job.networks.judge.attributes[settings.attribute].classes),
    }
    return about
