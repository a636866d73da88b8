"""One job: a generator, a method, an attribute and a seed become a record.

Running the same job again finds the record.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from editbench.bank.agreement import imported_agreement
from editbench.bank.bank import Bank
from editbench.bank.spec import BankSpec
from editbench.bank.starts import Starts, draw_targets, set_target
from editbench.base import identity
from editbench.base.devices import forget_peak
from editbench.base.errors import EditbenchError, Unsupported, at_line, frames_of, reason_of
from editbench.base.files import (
    atomic_folder,
    explain_disk_errors,
    lock,
    sweep_partials,
    write_atomic,
    write_json,
)
from editbench.base.user_code import is_users_file
from editbench.inversion.store import Inversion
from editbench.inversion.walks import (
    WalkInputs,
    check_walk,
    draw_inverted,
    prepare_walk,
    write_originals,
)
from editbench.networks.generator import Generator
from editbench.networks.registry import require_files
from editbench.networks.roles import Networks
from editbench.run import record as records
from editbench.run.batch import engine_batch
from editbench.run.fits import Fitted, fit_editor, fitted_editor, scored
from editbench.run.inversions import inversion_id, load_inversion
from editbench.run.loading import (
    bank_folder,
    bank_key,
    load_bank,
    load_editor,
    load_metrics,
    load_networks,
    load_observations,
)
from editbench.run.measure import (
    MetricFailed,
    check_observed,
    compute_metrics,
    is_outdated,
    refresh_metrics,
)
from editbench.run.outcome import Outcome
from editbench.run.protocol import check_protocol, target_class, with_named_target
from editbench.run.provenance import costs_to_crossing, not_finite_walks, provenance
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.editor import Editor
from editbench.walk.engine import WalkResult, walk_starts
from editbench.walk.observation import (
    ObservationContext,
    WalkObserver,
    check_observations,
    observe_after_walk,
)
from editbench.walk.spec import EngineSpec
from editbench.walk.trajectory import Trajectories
from editbench.worlds.bars import card_verdict


@dataclass(frozen=True)
class Job:
    """What a job works with.

    Args:
        settings: of the job.
        networks: generator, teacher and judge; the scorers know the evaluated attributes alone.
        bank: of samples, with the logits of these.
    """

    settings: Settings
    networks: Networks
    bank: Bank

    def check(self, editor: Editor) -> None:
        """Unsupported where the editor cannot serve this generator and attribute."""
        attributes = self.networks.judge.attributes
        editor.check(self.networks.generator, attributes, self.settings.attribute)

    @property
    def target(self) -> int | None:
        """Class that every start is walked to, or None."""
        return target_class(self.settings, self.networks.judge.attributes)


def find_job(settings: Settings) -> Outcome | None:
    """The outcome of a job whose record is there; None where it has to run. No bank is opened.

    Args:
        settings: of the job.
    """
    try:
        require_files(settings.plain)
        folder = settings.out / identify(settings).run_id
        if not Record.is_record(folder):
            return None
        # Not `_found`: it waits for whoever works on the record, and computes metrics anew. Such a
        # record is left to the job.
        found = _finished(settings, folder)
        if found is None or is_outdated(found, settings):
            return None
    except Exception:  # of a user's code as well: the job meets the same error and reports it
        return None
    return Outcome(found.status["status"], found.status["reason"], folder.name, True)


class Identified(NamedTuple):
    """What a job is called, before its bank is built.

    Attributes:
        networks: that the names follow from, with all attributes of the judge.
        evaluated: names of the evaluated attributes.
        bank_id: identity of its bank.
        bank_folder: where that lies or will lie.
        bank_spec: what it holds or will hold.
        run_id: of its record.
    """

    networks: Networks
    evaluated: list[str]
    bank_id: str
    bank_folder: Path
    bank_spec: BankSpec
    run_id: str


def identify(settings: Settings) -> Identified:
    """The names of a job.

    Args:
        settings: of the job; its device does not matter, which may be another machine's.

    Raises:
        EditbenchError: a job of these settings cannot be made.
    """
    here = settings.with_values(device="cpu")
    networks = load_networks(here)
    evaluated = check_protocol(here, networks.judge.attributes)
    here = with_named_target(here, networks.judge.attributes)
    if here.bank.path is None:
        folder, bank_id = bank_folder(here)
        spec = here.bank.spec
    else:
        bank = load_bank(here)
        folder = bank.folder
        bank_id = bank.id
        spec = bank.spec
    run_id = make_run_id(here, bank_id, evaluated)
    return Identified(networks, evaluated, bank_id, folder, spec, run_id)


def _finished(settings: Settings, folder: Path) -> Record | None:
    """The record of a job where it is a result and keeps all that is asked for."""
    found = Record.open(folder)
    # A failure is kept for reading and never taken for a result: it runs again. Where a metric alone
    # failed, the metrics do.
    if found is None or not (found.final or found.walked):
        return None
    # Neither changes a number, so neither is in the name of the record.
    if found.status["status"] != "skipped":
        kept = found.config()
        pictures = (kept.get("engine") or {}).get("pictures", EngineSpec.pictures)
        if pictures < settings.engine.pictures:
            return None
        if settings.save_codes and not kept.get("save_codes", True):
            return None
    return found


def _found(settings: Settings, folder: Path) -> Outcome | None:
    """The outcome of a record that is a result, with metrics of today; its lock is held."""
    found = _finished(settings, folder)
    if found is None:
        return None
    found, removed = refresh_metrics(found, settings)
    status = found.status
    return Outcome(status["status"], status["reason"], folder.name, True, tuple(removed))


def run_job(settings: Settings) -> Outcome:
    """Run one job, or find its record.

    Errors of the job become a failed record; Ctrl-C passes.

    Raises:
        UnknownName: no such attribute or class.
        EditbenchError: the job cannot begin, so that there is no record to keep the reason in; the
            folder of the records cannot be written; or a metric failed on the walks that a record
            keeps.
    """
    root = settings.out
    # First of all: with offline=true a missing file is named before any time is spent.
    require_files(settings.plain)
    networks = load_networks(settings)
    # Now that the device is known to be there; the networks themselves stay counted.
    forget_peak(settings.device)
    # Before the bank is built: editor, observations and metrics see these attributes alone.
    names = check_protocol(settings, networks.judge.attributes)
    settings = with_named_target(settings, networks.judge.attributes)
    networks = networks.select(names)
    for metric in load_metrics(settings).values():
        metric.check(networks.judge.attributes, settings.attribute)
    inversion_id(settings)  # pictures that are not there are told before the bank is built
    bank = load_bank(settings).select(names)
    run_id = make_run_id(settings, bank.id, names)
    folder = root / run_id
    # Two sweeps may hold the same job: the second waits here and then finds the record.
    with explain_disk_errors(root), lock(folder):
        found = _found(settings, folder)
        if found is not None:
            return found
        sweep_partials(folder)
        return _run(Job(settings, networks, bank), folder)


def make_run_id(settings: Settings, bank_id: str, names: list[str]) -> str:
    """Name of the record of a job, see `editbench.base.identity.run_id`."""
    key = bank_key(settings, bank_id)
    return identity.run_id(settings.plain, key, names, inversion_id(settings))


def _run(job: Job, folder: Path) -> Outcome:
    """Walk, measure and leave the record; whatever happens, it has a status.

    Raises:
        KeyboardInterrupt: Ctrl-C. The record is there where its walks had ended.
    """
    began = time.time()
    status = "done"
    reason = ""
    walked = False
    interrupted = False
    about = _about(job, folder.name)
    # The folder gets its name when it is whole, so a killed job leaves no half of a record.
    with atomic_folder(folder, {}) as partial:
        records.write_config(partial, job.settings.plain)
        try:
            with explain_disk_errors(folder):
                trajectories = _walk_and_observe(job, partial)
                walked = True
                compute_metrics(partial, trajectories, job.settings).write(partial)
        except Unsupported as error:
            status = "skipped"
            reason = str(error)
        except KeyboardInterrupt:
            if not walked:
                raise
            interrupted = True
            status = "failed"
            reason = "stopped while its metrics were computed: the same command computes them"
        except (Exception, SystemExit) as error:
            # Any defect of a method is a result of that method, not the end of the sweep.
            status = "failed"
            reason = reason_of(error)
            # Of a message of ours the traceback says no more, but for a metric's own error.
            if isinstance(error, MetricFailed) or not isinstance(error, EditbenchError):
                own = frames_of(error, is_users_file)
                # The message of a metric's error has the line.
                place = at_line(own[-1]) if own and not isinstance(error, MetricFailed) else ""
                reason = f"{reason}{place} (see {folder / Record.LOG})"
                write_atomic(partial / Record.LOG, traceback.format_exc())
        if walked and status == "failed":
            about[Record.WALKED] = True
        seconds = round(time.time() - began, 3)
        records.write_status(partial, status, reason, seconds=seconds, **about)
    if interrupted:
        raise KeyboardInterrupt
    return Outcome(status, reason, folder.name, False)


def _about(job: Job, run_id: str) -> dict[str, Any]:
    """What status.json says of a job beside its status."""
    settings = job.settings
    about: dict[str, Any] = {
        "run_id": run_id,
        "method": settings.method.name,
        "floor": bool(settings.plain["method"].get("floor")),
        "attribute": settings.attribute,
        "seed": settings.seed,
        "generator": settings.generator.name,
        "experiment": settings.name,
        # The judge's answers may be the teacher's: one network is both, or an imported bank says so.
        "leaking": job.networks.leaking or bool(job.bank.meta.get("leaking")),
        "judged_in": job.networks.generator.output,
        "classes": list(job.networks.judge.attributes[settings.attribute].classes),
    }
    return about


def _walk_and_observe(job: Job, folder: Path) -> Trajectories:
    """Fit the editor, walk from the starts, and leave all of a record but its metric rows.

    Returns:
        What the metrics are computed from.
    """
    settings = job.settings
    networks = job.networks
    editor = load_editor(settings)
    editor.bind(networks.generator)
    job.check(editor)
    # Before the fit, whose time a wrong option would waste.
    observations = load_observations(settings)
    real = load_inversion(settings)  # None: walks start from the bank's own samples
    if real is not None:
        check_walk(editor, real)
    for observation in observations.values():
        observation.prepare(networks, settings.device)
    context = _context(job, editor, batch=1)
    refused = check_observations(observations, context)
    able = {name: one for name, one in observations.items() if name not in refused}
    check_observed(settings, able, context)
    starts = _draw_starts(job, real)
    fitted = fit_editor(editor, settings, job.bank, networks, settings.attribute)
    job.check(editor)  # the fit may have found no control

    inputs = _prepare_walk(job, editor, real, starts, folder)
    batch = engine_batch(settings, networks)
    before = networks.generator.decoded
    with scored(networks.teacher) as labelled:
        result = _walk(job, inputs, starts, WalkObserver(observations), folder, batch)
    walk_calls = networks.generator.decoded - before
    if not networks.leaking:  # where the judge is the teacher, its own answers are among these
        fitted = replace(fitted, labels=fitted.labels + sum(labelled))

    attributes = networks.judge.attributes
    sigma = job.bank.sigma["judge"]
    trajectories = Trajectories(result.table, attributes, settings.attribute, sigma)
    trajectories.save(folder / Record.TRAJECTORY)
    records.write_pictures(folder, result.pictures, trajectories)
    made = _provenance(job, fitted, starts, result, walk_calls)
    # In batches of the walk, which the memory is known to hold; the memory is noted above.
    key = bank_key(settings, job.bank.id)
    made["imported_agreement"] = imported_agreement(
        job.bank, networks, key, settings.device, batch, settings.cache
    )
    if real is not None:
        made["inversion"] = _about_inversion(real)
    # The costs above are counted: what an observation decodes from here is none of the method's.
    context = _context(job, editor, batch)
    observed = observe_after_walk(folder, observations, context, refused)
    if observed:
        made["observations"] = observed
    write_json(folder / Record.PROVENANCE, made)
    return trajectories


def _draw_starts(job: Job, real: Inversion | None) -> Starts:
    """The starts of the job's attribute. All attributes are drawn, so that they share the draw."""
    spec = job.settings.starts
    drawn = draw_targets(spec, job.bank) if real is None else draw_inverted(spec, real, job.bank)
    attribute = job.settings.attribute
    starts = set_target(drawn[attribute], job.target)
    # A small draw over many attributes may leave one without any.
    if not len(starts):
        raise EditbenchError(f"no start was drawn for {attribute}: raise starts.n={spec.n}")
    return starts


def _prepare_walk(
    job: Job, editor: Editor, real: Inversion | None, starts: Starts, folder: Path
) -> WalkInputs:
    """Codes and logits at step 0, and the editor and generator that walk from them."""
    generator = job.networks.generator
    device = job.settings.device
    if real is None:
        codes, logits = start_codes(editor, generator, job.bank, starts, device)
        return WalkInputs(editor, generator, codes, logits)
    # Inverted images have codes of their own space and, with noise maps, their own decoding.
    attributes = job.networks.judge.attributes
    inputs = prepare_walk(editor, generator, attributes, real, starts, device)
    write_originals(folder / Record.ORIGINALS, real, starts)
    return inputs


def _walk(
    job: Job,
    inputs: WalkInputs,
    starts: Starts,
    observer: WalkObserver,
    folder: Path,
    batch: int,
) -> WalkResult:
    settings = job.settings
    codes_file = folder / Record.CODES if settings.save_codes else None
    return walk_starts(
        inputs.editor,
        inputs.generator,
        job.networks.judge,
        settings.attribute,
        starts,
        inputs.codes,
        inputs.logits,
        job.bank.sigma["judge"],
        replace(settings.engine, batch=batch),
        codes_file,
        observer,
    )


def _provenance(
    job: Job, fitted: Fitted, starts: Starts, result: WalkResult, walk_calls: int
) -> dict[str, Any]:
    """walk_calls: samples that the generator decoded during the walk, the editor's own included."""
    settings = job.settings
    target = settings.method.target
    made = provenance(
        target, settings.device, job.networks, job.bank, fitted, starts, settings.starts.near
    )
    # How well what the method learnt orders the teacher's labels; null where it says nothing.
    made["learned"] = fitted.learned.get(settings.attribute)
    card = settings.plain["generator"].get("card")
    networks = job.networks
    # What the world itself is worth, beside what the editors did in it.
    made["world_card"] = card_verdict(networks.generator.digest, networks.judge.digest, card)
    made["resolution"] = getattr(job.networks.generator, "resolution", None)
    made["walk_seconds"] = result.seconds
    made["walk_generator_calls"] = walk_calls
    made["walks_not_finite"] = not_finite_walks(result)
    # The engine counts what it decodes itself; the rest was decoded inside the editor's steps.
    in_steps = walk_calls - result.decoded
    return made | costs_to_crossing(result, fitted, len(starts), in_steps)


def _about_inversion(real: Inversion) -> dict[str, Any]:
    return {
        "id": real.id,
        "folder": str(real.folder),
        "images": real.meta["images"],
        "n": len(real),
        "space": real.space.value,
    }


def _context(job: Job, editor: Editor, batch: int) -> ObservationContext:
    """What observations may look at after the walk.

    Args:
        job: whose walk it is.
        editor: of the job.
        batch: samples decoded together.
    """
    settings = job.settings
    networks = job.networks

    def editor_for(attribute: str) -> Editor:
        return fitted_editor(settings, job.bank, networks, attribute)

    return ObservationContext(
        editor,
        networks.generator,
        networks.teacher,
        networks.judge,
        job.bank,
        settings.attribute,
        job.target,
        settings.seed,
        settings.device,
        batch,
        settings.cache,
        editor_for,
    )


def start_codes(
    editor: Editor, generator: Generator, bank: Bank, starts: Starts, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and logits of the starts, from the bank.

    Returns:
        Codes (n, d): z for an editor of Z or a generator without W, else w. The judge's logits
        (n, width).
    """
    field = generator.start_space(editor.space).value
    # A bank is a memory map over shards; torch needs rows that lie together and may be written.
    codes = np.ascontiguousarray(bank.array(field).take(starts.index))
    logits = np.ascontiguousarray(bank.array("judge").take(starts.index))
    return torch.from_numpy(codes).to(device), torch.from_numpy(logits).to(device)
