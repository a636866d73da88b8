"""One job: a generator, a method, an attribute and a seed become a record.

Running the same job again finds the record.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from editbench.bank.agreement import imported_agreement
from editbench.bank.bank import Bank
from editbench.bank.spec import BankSpec
from editbench.bank.starts import Starts, draw_targets, set_target
from editbench.base import identity
from editbench.base.devices import forget_peak
from editbench.base.errors import EditbenchError, Unsupported, at_line, frames_of, one_line
from editbench.base.files import (
    atomic_folder,
    explain_disk_errors,
    lock,
    read_json,
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
from editbench.run.provenance import (
    about_fit,
    costs_to_crossing,
    not_finite_walks,
    provenance,
)
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.editor import Editor
from editbench.walk.engine import WalkResult, walk_starts
from editbench.walk.observation import (
    Observation,
    ObservationContext,
    WalkObserver,
    check_observations,
    observe_after_walk,
)
from editbench.walk.spec import EngineSpec
from editbench.walk.strength import Reach
from editbench.walk.stride import find_stride
from editbench.walk.trajectory import Trajectories
from editbench.worlds.bars import card_verdict

METRICS_MISSING = "its metrics are missing: the same command computes them"


@dataclass(frozen=True)
class Job:
    """Settings, networks and bank of a job.

    Args:
        settings: of the job.
        networks: generator, teacher and judge; the scorers have only the evaluated attributes.
        bank: with the logits of the evaluated attributes only.
    """

    settings: Settings
    networks: Networks
    bank: Bank

    def check(self, editor: Editor) -> None:
        """Raise Unsupported if the editor does not support this generator and attribute."""
        attributes = self.networks.judge.attributes
        editor.check(self.networks.generator, attributes, self.settings.attribute)

    @property
    def target(self) -> int | None:
        """Target class of every start; None if each start has its own."""
        return target_class(self.settings, self.networks.judge.attributes)


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
    return Outcome(found.status["status"], found.status["reason"], folder.name, True)


class Identified(NamedTuple):
    """The names of a job, known before its bank is built.

    Attributes:
        networks: from which the names are computed, with all attributes of the judge.
        evaluated: names of the evaluated attributes.
        bank_id: identity of the bank.
        bank_folder: folder of the bank, which need not exist yet.
        bank_spec: of the bank.
        run_id: of the record.
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
        settings: of the job. The device does not matter; it may belong to another machine.

    Raises:
        EditbenchError: there can be no job with these settings.
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
    return Outcome(status["status"], status["reason"], folder.name, True, tuple(removed))


def run_job(settings: Settings) -> Outcome:
    """Run one job, or find its record.

    An error during the job leads to a record with the status 'failed'. Ctrl-C is not caught.

    Raises:
        UnknownName: there is no such attribute or class.
        EditbenchError: the job cannot begin, so there is no record that could hold the reason; the
            folder of the records cannot be written; or an observation or a metric failed on the
            walks of an existing record.
    """
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
    inversion_id(settings)  # pictures that are not there are told before the bank is built
    bank = load_bank(settings).select(names)
    run_id = make_run_id(settings, bank.id, names)
    folder = root / run_id
    # Two sweeps may contain the same job: the second one waits here and then finds the record.
    with explain_disk_errors(root), lock(folder):
        job = Job(settings, networks, bank)
        found = _found(job, folder)
        if found is not None:
            return found
        sweep_partials(folder)
        return _run(job, folder)


def make_run_id(settings: Settings, bank_id: str, names: list[str]) -> str:
    """Name of the record of a job, see `editbench.base.identity.run_id`."""
    key = bank_key(settings, bank_id)
    return identity.run_id(settings.plain, key, names, inversion_id(settings))


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
            with explain_disk_errors(folder):
                observing, trajectories = _fit_and_walk(job, partial)
                stage = "observations"
                _observe(job, observing, read_json(partial / Record.PROVENANCE), partial)
                stage = "metrics"
                compute_metrics(partial, trajectories, job.settings).write(partial)
        except Unsupported as error:
            status = "skipped"
            reason = str(error)
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
                reason = f"{reason} (see {folder / Record.LOG})"
                write_atomic(partial / Record.LOG, traceback.format_exc())
        if stage and status == "failed":
            about[Record.WALKED] = True
            about[Record.UNOBSERVED] = stage == "observations"
        seconds = round(time.time() - began, 3)
        records.write_status(partial, status, reason, seconds=seconds, **about)
    if interrupted:
        raise KeyboardInterrupt
    return Outcome(status, reason, folder.name, False)


def _located_reason(error: BaseException) -> str:
    """Text about an error; for one that is not ours, with the last line of the user's own code."""
    if isinstance(error, EditbenchError):
        return str(error)
    own = frames_of(error, is_users_file)
    return one_line(error) + (at_line(own[-1]) if own else "")


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


@dataclass(frozen=True)
class Observing:
    """The observations of a job, checked.

    Args:
        observations: by name.
        refused: what `check_observations` returned.
        context: what they may use.
    """

    observations: dict[str, Observation]
    refused: dict[str, str]
    context: ObservationContext

    def in_batches(self, size: int) -> Observing:
        """The same, for samples that are decoded in batches of another size."""
        return replace(self, context=replace(self.context, batch=size))


def _bound_editor(job: Job) -> Editor:
    editor = load_editor(job.settings)
    editor.bind(job.networks.generator)
    return editor


def _prepare_observations(job: Job, editor: Editor) -> Observing:
    """Build and check the observations; before the fit, so that a wrong option does not waste its
    time.

    Args:
        job: to which they belong.
        editor: of the job, bound and not fitted.
    """
    observations = load_observations(job.settings)
    for observation in observations.values():
        observation.prepare(job.networks, job.settings.device)
    context = _context(job, editor, batch=1)
    refused = check_observations(observations, context)
    able = {name: one for name, one in observations.items() if name not in refused}
    check_observed(job.settings, able, context)
    return Observing(observations, refused, context)


def _fit_and_walk(job: Job, folder: Path) -> tuple[Observing, Trajectories]:
    """Fit the editor, walk from the starts, and write what the record keeps of them.

    Returns:
        What observes the fitted editor from here on, and the trajectories.
    """
    settings = job.settings
    networks = job.networks
    editor = _bound_editor(job)
    job.check(editor)
    real = load_inversion(settings)  # None: walks start from samples of the bank
    if real is not None:
        check_walk(editor, real)
    observing = _prepare_observations(job, editor)
    starts = _draw_starts(job, real)
    fitted = fit_editor(editor, settings, job.bank, networks, settings.attribute)
    # Of a job that ends before its walks do, this is kept.
    write_json(folder / Record.PROVENANCE, about_fit(fitted))
    job.check(editor)  # the fit may have found no control

    inputs = _prepare_walk(job, editor, real, starts, folder)
    batch = engine_batch(settings, networks)
    stride = _find_stride(job, editor, batch)
    before = networks.generator.decoded
    with scored(networks.teacher) as labelled:
        observer = WalkObserver(observing.observations)
        result = _walk(job, inputs, starts, observer, folder, batch, stride)
    walk_calls = networks.generator.decoded - before
    if not networks.leaking:  # otherwise the judge's logits would be among these
        fitted = replace(fitted, labels=fitted.labels + sum(labelled))

    attributes = networks.judge.attributes
    sigma = job.bank.sigma["judge"]
    trajectories = Trajectories(result.table, attributes, settings.attribute, sigma)
    trajectories.save(folder / Record.TRAJECTORY)
    records.write_pictures(folder, result.pictures, trajectories)
    made = _provenance(job, fitted, starts, result, walk_calls)
    if stride is not None:
        # Not reached: the method moves the target too little, and its own steps are walked.
        made["stride"] = asdict(stride)
    if real is not None:
        made["inversion"] = _about_inversion(real)
    write_json(folder / Record.PROVENANCE, made)
    # Batches of the walk are known to fit into memory.
    return observing.in_batches(batch), trajectories


def _observe(job: Job, observing: Observing, made: dict[str, Any], folder: Path) -> None:
    """Measure what is measured after the walk, and write it.

    The method's costs and the peak memory are in the provenance already: what is decoded from here
    on is not a cost of the method.

    Args:
        job: whose walks have ended.
        observing: with the fitted editor.
        made: provenance so far.
        folder: for the files of the observations and the complete provenance.
    """
    key = bank_key(job.settings, job.bank.id)
    context = observing.context
    made["imported_agreement"] = imported_agreement(
        job.bank, job.networks, key, context.device, context.batch, context.cache
    )
    observed = observe_after_walk(folder, observing.observations, context, observing.refused)
    if observed:
        made["observations"] = observed
    write_json(folder / Record.PROVENANCE, made)


def _observe_kept(job: Job, record: Record) -> Record:
    """Run the observations of a record whose walks are kept; then only its metrics are missing.

    Raises:
        EditbenchError: an observation failed; the record stays as it was.
    """
    folder = record.folder
    about = {**record.status, "reason": METRICS_MISSING, Record.UNOBSERVED: False}
    sweep_partials(folder)
    # Observed elsewhere, since an interruption while a record is updated loses it.
    with TemporaryDirectory(prefix=f".partial-{folder.name}-", dir=folder.parent) as place:
        try:
            with explain_disk_errors(folder):
                editor = _bound_editor(job)
                observing = _prepare_observations(job, editor)
                fit_editor(editor, job.settings, job.bank, job.networks, job.settings.attribute)
                observing = observing.in_batches(engine_batch(job.settings, job.networks))
                _observe(job, observing, record.provenance(), Path(place))
        except (Exception, SystemExit) as error:
            raise EditbenchError(_located_reason(error)) from error
        with record.updating():
            for file in Path(place).iterdir():
                write_atomic(folder / file.name, file.read_bytes())
            records.write_status(folder, **about)
    return Record.read(folder)


def _draw_starts(job: Job, real: Inversion | None) -> Starts:
    """The starts of the job's attribute, from the common draw for all evaluated attributes."""
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
    """Codes and logits at step 0, and the editor and generator for the walk from there."""
    generator = job.networks.generator
    device = job.settings.device
    if real is None:
        codes, logits = start_codes(editor, generator, job.bank, starts, device)
        return WalkInputs(editor, generator, codes, logits)
    # Inverted images may have codes in another space and, with noise maps, their own decoding.
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
    stride: Reach | None,
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
        stride.strength if stride and stride.reached else None,
    )


def _find_stride(job: Job, editor: Editor, batch: int) -> Reach | None:
    """The editor's own steps in a step of the walk; None if it walks in its own steps.

    Finding it is a cost of the protocol, not of the method.
    """
    engine = job.settings.engine
    if engine.step_effect is None:
        return None
    return find_stride(_context(job, editor, batch), engine.step_effect, engine.max_steps)


def _provenance(
    job: Job, fitted: Fitted, starts: Starts, result: WalkResult, walk_calls: int
) -> dict[str, Any]:
    """The provenance of a record.

    `walk_calls` is the number of samples that the generator decoded during the walk, including
    those that the editor decoded itself.
    """
    settings = job.settings
    target = settings.method.target
    made = provenance(
        target, settings.device, job.networks, job.bank, fitted, starts, settings.starts.near
    )
    # AUC of what the method learned for the teacher's labels; null if it gives no scores.
    made["learned"] = fitted.learned.get(settings.attribute)
    card = settings.plain["generator"].get("card")
    networks = job.networks
    # The verdict of the world's card: the quality of the world, independent of the editors.
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
    """What observations may use after the walk.

    Args:
        job: to which the walk belongs.
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
        Codes (n, d): z for an editor of Z or a generator without W, otherwise w; and the judge's
        logits (n, width).
    """
    field = generator.start_space(editor.space).value
    # The bank is a memory map over shards; torch needs contiguous, writable rows.
    codes = np.ascontiguousarray(bank.array(field).take(starts.index))
    logits = np.ascontiguousarray(bank.array("judge").take(starts.index))
    return torch.from_numpy(codes).to(device), torch.from_numpy(logits).to(device)
