"""The stages of a job: fit the editor, walk from the starts, observe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from editbench.bank.agreement import imported_agreement
from editbench.bank.bank import Bank
from editbench.bank.starts import Starts, draw_targets, set_target
from editbench.base.errors import EditbenchError
from editbench.base.files import write_json
from editbench.base.user_code import is_ours
from editbench.inversion.load import InversionRequest
from editbench.inversion.store import Inversion
from editbench.inversion.walks import (
    check_walk,
    draw_inverted,
    prepare_walk,
    write_originals,
)
from editbench.networks.generator import Generator
from editbench.networks.roles import Networks
from editbench.run import record as records
from editbench.run.batch import engine_batch
from editbench.run.fits import Fitted, UnsupportedByFit, fit_editor, fitted_editor, scored
from editbench.run.loading import bank_key, load_bound_editor, load_observations
from editbench.run.measure import check_observed
from editbench.run.protocol import target_class
from editbench.run.provenance import about_fit, provenance
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.editor import Editor
from editbench.walk.engine import WalkInputs, WalkResult, begin_walk, walk_starts
from editbench.walk.observation import (
    DuringWalk,
    Observation,
    ObservationContext,
    WalkObserver,
    check_observations,
    observe_after_walk,
)
from editbench.walk.observation_trial import try_observations
from editbench.walk.spec import EngineSpec
from editbench.walk.stride import Stride, find_stride
from editbench.walk.trajectory import Trajectories
from editbench.walk.walker import refuse_mixing


@dataclass(frozen=True)
class Job:
    """Settings, networks, bank and inversion of a job.

    Args:
        settings: of the job.
        networks: generator, teacher and judge; the scorers have only the evaluated attributes.
        bank: with the logits of the evaluated attributes only.
        inversion: that walks start from; None if they start from the bank.
    """

    settings: Settings
    networks: Networks
    bank: Bank
    inversion: InversionRequest | None

    def check(self, editor: Editor) -> None:
        """Raise Unsupported if the editor does not support this generator and attribute."""
        attributes = self.networks.judge.attributes
        editor.check(self.networks.generator, attributes, self.settings.attribute)

    @property
    def target(self) -> int | None:
        """Target class of every start; None if each start has its own."""
        return target_class(self.settings, self.networks.judge.attributes)


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
    context = _context(job, editor)
    refused = check_observations(observations, context)
    able = {name: one for name, one in observations.items() if name not in refused}
    check_observed(job.settings, able, context)
    return Observing(observations, refused, context)


def fit_and_walk(job: Job, folder: Path) -> tuple[Observing, Trajectories]:
    """Fit the editor, walk from the starts, and write what the record keeps of them.

    Args:
        job: to run.
        folder: of the record, which is not complete yet. Trajectories, pictures and provenance are
            written there.

    Returns:
        What observes the fitted editor from here on, and the trajectories.

    Raises:
        Unsupported: the method cannot do this job; some methods know it only after the fit.
    """
    settings = job.settings
    networks = job.networks
    editor = load_bound_editor(job.settings, job.networks)
    job.check(editor)
    real = None
    if job.inversion is not None:
        real = job.inversion.load()
        check_walk(editor, real)
    observing = _prepare_observations(job, editor)
    starts = _draw_starts(job, real)
    fitted = _fit(job, editor, folder)
    job.check(editor)  # the fit may have found no control

    inputs = _prepare_walk(job, editor, real, starts, folder)
    batch = engine_batch(settings, networks)
    # Batches of the walk are known to fit into memory.
    observing = observing.in_batches(batch)
    agreement = _imported_agreement(job, observing)
    _check_sides(job, agreement)
    stride = _find_stride(observing.context, settings.engine)
    _try_own_code(job, inputs, observing.observations)
    # The generator's counter has the samples of the fit too.
    before = networks.generator.decoded
    with scored(networks.teacher) as labelled:
        observer = WalkObserver(observing.observations)
        result = _walk(job, inputs, observer, folder, batch, stride)
    walk_calls = networks.generator.decoded - before
    if not networks.leaking:  # otherwise the judge's logits would be among these
        fitted = replace(fitted, labels=fitted.labels + sum(labelled))

    attributes = networks.judge.attributes
    sigma = job.bank.sigma["judge"]
    trajectories = Trajectories(result.table, attributes, settings.attribute, sigma)
    trajectories.save(folder / Record.TRAJECTORY)
    records.write_pictures(folder, result.pictures, trajectories)
    made = provenance(settings, networks, job.bank, fitted, starts, result, walk_calls)
    made["imported_agreement"] = agreement
    if stride is not None:
        # Not reached: the method moves the target too little, and its own steps are walked.
        made["stride"] = asdict(stride)
    if real is not None:
        made["inversion"] = _about_inversion(real)
    write_json(folder / Record.PROVENANCE, made)
    return observing, trajectories


def _try_own_code(job: Job, inputs: WalkInputs, observations: Mapping[str, Observation]) -> None:
    """Try a user's own method and observations on a few starts. The project's are checked by tests.

    Args:
        job: of the walk.
        inputs: of the walk.
        observations: of the job, by name.

    Raises:
        EditbenchError: one of them breaks its contract.
    """
    settings = job.settings
    own = {
        name: observation
        for name, observation in observations.items()
        if isinstance(observation, DuringWalk) and not is_ours(settings.observations[name].target)
    }
    own_method = not is_ours(settings.method.target)
    if not own and not own_method:
        return
    walk = begin_walk(
        inputs.editor, inputs.generator, inputs.attribute, inputs.starts, inputs.codes
    )
    if own_method:
        refuse_mixing(inputs.editor, walk)
    try_observations(own, inputs.editor, walk, inputs.generator)


def observe(observing: Observing, made: dict[str, Any], folder: Path) -> None:
    """Measure what is measured after the walk, and write it.

    The method's costs and the peak memory are in the provenance already: what is decoded from here
    on is not a cost of the method.

    Args:
        observing: of a job whose walks have ended, with the fitted editor.
        made: provenance so far.
        folder: for the files of the observations and the complete provenance.
    """
    observed = observe_after_walk(
        folder, observing.observations, observing.context, observing.refused
    )
    if observed:
        made["observations"] = observed
    write_json(folder / Record.PROVENANCE, made)


def _imported_agreement(job: Job, observing: Observing) -> dict[str, dict[str, float]]:
    """How well an imported bank agrees with the job's scorers; empty for other banks."""
    key = bank_key(job.settings, job.bank.id)
    context = observing.context
    return imported_agreement(
        job.bank, job.networks, key, context.device, context.batch, context.cache
    )


def _check_sides(job: Job, agreement: dict[str, dict[str, float]]) -> None:
    """Reject an imported bank if the judge sees the other class in most samples of it.

    The walk would find that the logits differ, but could not say of which attribute, nor why.

    Args:
        job: whose bank it is.
        agreement: role -> attribute -> share of samples with equal classes.

    Raises:
        EditbenchError: an attribute has mostly other classes.
    """
    judged = agreement.get("judge", {})
    other = [f"{name} ({share:.0%} equal)" for name, share in judged.items() if share < 0.5]
    if other:
        raise EditbenchError(
            f"bank.path={job.settings.bank.path}: most samples have another class in the bank than "
            f"by the judge: {', '.join(other)}. Check the sign (positive_is_low) and the order of "
            "the bank's attributes, or use the scorer that its logits come from"
        )


def fit_again(job: Job) -> Observing:
    """What observes walks that are kept: the editor of the job is fitted as for these walks."""
    editor = load_bound_editor(job.settings, job.networks)
    observing = _prepare_observations(job, editor)
    fit_editor(editor, job.settings, job.bank, job.networks, job.settings.attribute)
    return observing.in_batches(engine_batch(job.settings, job.networks))


def _fit(job: Job, editor: Editor, folder: Path) -> Fitted:
    """Fit the editor, and write what is kept of a job that ends before its walks do."""
    attribute = job.settings.attribute
    file = folder / Record.PROVENANCE
    try:
        fitted = fit_editor(editor, job.settings, job.bank, job.networks, attribute)
    except UnsupportedByFit as error:
        write_json(file, about_fit(error.fitted, attribute))
        # The method's own error, which says whether its search found no control.
        raise error.error from None
    write_json(file, about_fit(fitted, attribute))
    return fitted


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
    attribute = job.settings.attribute
    device = job.settings.device
    if real is None:
        codes, logits = start_codes(editor, generator, job.bank, starts, device)
        return WalkInputs(editor, generator, attribute, starts, codes, logits)
    # Inverted images may have codes in another space and, with noise maps, their own decoding.
    attributes = job.networks.judge.attributes
    inputs = prepare_walk(editor, generator, attributes, attribute, real, starts, device)
    write_originals(folder / Record.ORIGINALS, real, starts)
    return inputs


def _walk(
    job: Job,
    inputs: WalkInputs,
    observer: WalkObserver,
    folder: Path,
    batch: int,
    stride: Stride | None,
) -> WalkResult:
    settings = job.settings
    codes_file = folder / Record.CODES if settings.save_codes else None
    return walk_starts(
        inputs,
        job.networks.judge,
        sigma=job.bank.sigma["judge"],
        spec=replace(settings.engine, batch=batch),
        codes_file=codes_file,
        observer=observer,
        stride=stride.steps if stride and stride.reached else None,
    )


def _find_stride(context: ObservationContext, engine: EngineSpec) -> Stride | None:
    """The editor's own steps in a step of the walk; None if it walks in its own steps.

    Finding it is a cost of the protocol, not of the method.

    Args:
        context: with the fitted editor.
        engine: of the job.
    """
    if engine.step_effect is None:
        return None
    return find_stride(context, engine.step_effect, engine.max_steps)


def _about_inversion(real: Inversion) -> dict[str, Any]:
    return {
        "id": real.id,
        "folder": str(real.folder),
        "images": real.meta["images"],
        "n": len(real),
        "space": real.space.value,
    }


def _context(job: Job, editor: Editor) -> ObservationContext:
    """What observations may use; before the batch of the walk is known, one sample at a time.

    Args:
        job: to which the walk belongs.
        editor: of the job.
    """
    settings = job.settings
    networks = job.networks

    def editor_for(attribute: str) -> Editor:
        return fitted_editor(settings, job.bank, networks, attribute)

    return ObservationContext(
        editor=editor,
        generator=networks.generator,
        teacher=networks.teacher,
        judge=networks.judge,
        bank=job.bank,
        attribute=settings.attribute,
        target=job.target,
        seed=settings.seed,
        device=settings.device,
        batch=1,
        cache=settings.cache,
        editor_for=editor_for,
    )


def start_codes(
    editor: Editor, generator: Generator, bank: Bank, starts: Starts, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and logits of the starts, from the bank.

    Args:
        editor: its space decides which latents.
        generator: of the job.
        bank: that the starts were drawn from.
        starts: n starts.
        device: of the returned tensors.

    Returns:
        Codes (n, d): z for an editor of Z or a generator without W, otherwise w; and the judge's
        logits (n, width).
    """
    field = generator.start_space(editor.space).value
    # The bank is a memory map over shards; torch needs contiguous, writable rows.
    codes = np.ascontiguousarray(bank.array(field).take(starts.index))
    logits = np.ascontiguousarray(bank.array("judge").take(starts.index))
    return torch.from_numpy(codes).to(device), torch.from_numpy(logits).to(device)
