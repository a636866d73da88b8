"""Fitting editors, with a cache: a fit with the same settings, bank and code is not repeated."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from editbench.bank.bank import Bank
from editbench.base import identity
from editbench.base.changes import change_counts
from editbench.base.errors import BadFile, EditbenchError, Unsupported, first_line
from editbench.base.files import digest, find_or_make, read_checked, write_checked
from editbench.base.progress import status
from editbench.networks.roles import Networks
from editbench.networks.scorer import Scorer
from editbench.run.batch import fit_batch
from editbench.run.loading import bank_key, load_bound_editor
from editbench.run.settings import Settings
from editbench.stats.ordering import mean_auc
from editbench.walk.editor import Editor, FitData, FitReport

# Tune samples on which the AUC is computed. Its standard error is about 0.01 for a class with a
# share of 10 %, and the styles of more samples would not fit into memory.
JUDGED = 5000


@dataclass(frozen=True)
class Fitted:
    """What a fit cost and found; the costs are the same if the fit was loaded from the cache."""

    seconds: float
    # Samples that the generator decoded for the fit.
    decoded: int
    # Samples whose teacher logits the fit read or had computed.
    labels: int
    notes: dict
    cached: bool
    # Attribute -> AUC of the learned scores for the teacher's labels on the tune split.
    learned: dict[str, float] = field(default_factory=dict)

    def with_tuning(self, tuned: Fitted) -> Fitted:
        """The fit and a tuning together: a job is charged for both, even if they were cached."""
        return Fitted(
            seconds=self.seconds + tuned.seconds,
            decoded=self.decoded + tuned.decoded,
            labels=self.labels + tuned.labels,
            notes=self.notes | tuned.notes,
            cached=self.cached and tuned.cached,
            learned=self.learned | tuned.learned,
        )


class UnsupportedByFit(Unsupported):
    """The fit or the tuning of an editor raised Unsupported, such as for too few examples.

    Args:
        error: that it raised.
        fitted: what was spent until then. Such a fit gives no report, so its labels are only those
            that the teacher scored, and it has no notes.
    """

    def __init__(self, error: Unsupported, fitted: Fitted) -> None:
        super().__init__(str(error))
        self.error = error
        self.fitted = fitted


@dataclass(frozen=True)
class _Work:
    """A fit or a tuning.

    Args:
        title: in messages.
        names: of the attributes whose AUC is measured afterwards.
        learner: makes the editor that learns.
        learn: fits or tunes that editor.
    """

    title: str
    names: Sequence[str]
    learner: Callable[[], Editor]
    learn: Callable[[Editor], FitReport]


def fit_editor(
    editor: Editor, settings: Settings, bank: Bank, networks: Networks, attribute: str
) -> Fitted:
    """Fit an editor for all attributes, then tune it for one; both use the cache.

    Another editor of the same options does the work, and this one loads what was stored. A job
    therefore walks with the same editor whether it makes the fit or finds it in the cache: what an
    editor forgets in `state` is missing in both.

    Args:
        editor: bound and not fitted; afterwards it has the fit.
        settings: of the job.
        bank: with the samples.
        networks: of the job.
        attribute: to tune for.

    Raises:
        UnsupportedByFit: the fit or the tuning finds that the method cannot do this.
    """
    data = fit_data(settings, bank, networks)
    # `more` is empty unless the method has a `tune` of its own.
    path, *more = fit_files(settings, bank.id, networks, attribute, type(editor))
    kind = settings.method.name

    def learner(*stored: Path) -> Editor:
        """Another editor of the job, which has loaded what earlier work stored."""
        made = load_bound_editor(settings, networks)
        for file in stored:
            if _load(file, made) is None:
                raise EditbenchError(f"{file} was removed while a job used it: start the job again")
        return made

    fitting = _Work(f"fitting {kind}", data.attributes.names, learner, lambda one: one.fit(data))
    fitted = _cached(path, editor, bank, data, fitting)
    if not more:
        return fitted
    # All attributes share the fit; the tuning for each attribute has its own file.
    tuning = _Work(
        f"tuning {kind} for {attribute}",
        (attribute,),
        partial(learner, path),
        lambda one: one.tune(data, attribute),
    )
    try:
        tuned = _cached(more[0], editor, bank, data, tuning)
    except UnsupportedByFit as error:
        raise UnsupportedByFit(error.error, fitted.with_tuning(error.fitted)) from error
    return fitted.with_tuning(tuned)


def _unchanged(bank: Bank, data: FitData, title: str, work: Callable[[], FitReport]) -> FitReport:
    """Run a fit or a tuning and check that it did not change the samples, which all editors share.

    Args:
        bank: of the samples, which are read again if they were changed.
        data: with the samples.
        title: of the work, in messages.
        work: the fit or the tuning.

    Returns:
        The report of the work.

    Raises:
        EditbenchError: a tensor of the samples was changed in place.
    """
    parts = (data.fit, data.tune)
    tensors = [x for part in parts for x in (part.index, part.z, part.w, part.logits)]
    before = change_counts(tensors)
    try:
        return work()
    finally:
        if change_counts(tensors) != before:
            bank.forget_splits()
            raise EditbenchError(
                f"{title} changes its samples in place, but other methods share them: work on "
                "copies, `data.fit.codes(space) * 2` or `.clone()` instead of `*=` or `.mul_(2)`"
            )


def fit_data(settings: Settings, bank: Bank, networks: Networks) -> FitData:
    """What an editor of a job may learn from, with the samples on the job's device.

    Args:
        settings: of the job.
        bank: gives its splits 'fit' and 'tune', with the logits of the evaluated attributes only.
        networks: of the job; the judge is not handed on.
    """
    return FitData(
        networks.generator,
        networks.teacher,
        bank.split("fit", settings.device),
        bank.split("tune", settings.device),
        bank_sigma(bank, settings.device),
        settings.seed,
        fit_batch(settings, networks),
    )


def fitted_editor(settings: Settings, bank: Bank, networks: Networks, attribute: str) -> Editor:
    """The configured method, fitted for an attribute.

    Args:
        settings: of the job; their own attribute is not used.
        bank: with the samples of the fit.
        networks: of the job.
        attribute: to edit, one of the evaluated attributes.

    Raises:
        Unsupported: the method does not support the attribute, or finds no control for it.
    """
    editor = load_bound_editor(settings, networks)
    editor.check(networks.generator, networks.judge.attributes, attribute)
    fit_editor(editor, settings, bank, networks, attribute)
    # Only the fit shows whether there is a control for the attribute.
    editor.check(networks.generator, networks.judge.attributes, attribute)
    return editor


def fit_files(
    settings: Settings, bank_id: str, networks: Networks, attribute: str, editor: type[Editor]
) -> list[Path]:
    """Cache file of a job's fit and, if the method tunes for an attribute, of its tuning.

    Args:
        settings: of the job.
        bank_id: identity of its bank.
        networks: of the job; generator and teacher are part of the name, the judge is not.
        attribute: of the tuning. All attributes share the fit.
        editor: class of the method, which shows whether it tunes.

    Returns:
        One or two files, which need not exist.

    Raises:
        BadFile: bank.path names no bank.
    """
    digests = {"generator": networks.generator.digest, "teacher": networks.teacher.digest}
    attributes = networks.teacher.attributes.names
    bank = bank_key(settings, bank_id)
    key = identity.fit_key(settings.plain, bank, digests, attributes)
    # A method that does not override `tune` has no state that belongs to one attribute.
    keys = [key] if editor.tune is Editor.tune else [key, key | {"attribute": attribute}]
    return [settings.cache / "fits" / f"{digest(each)}.safetensors" for each in keys]


def bank_sigma(bank: Bank, device: str) -> torch.Tensor:
    """Standard deviation of each of the teacher's log-odds: (width,) float32 on the device."""
    return torch.from_numpy(bank.sigma["teacher"]).float().to(device)


def learned_auc(editor: Editor, data: FitData, names: Sequence[str]) -> dict[str, float]:
    """How well what an editor learned predicts the teacher's labels on codes it was not fitted on.

    Args:
        editor: fitted.
        data: the first JUDGED samples of its tune split are scored.
        names: of the attributes.

    Returns:
        Attribute -> AUC; for several classes the mean of each class against the rest. Attributes
        are left out if the editor gives no scores for them, or if the samples have only one class.

    Raises:
        EditbenchError: the scores do not fit the classes.
    """
    tune = data.tune.first(JUDGED)
    # The labels are hidden, so that scores cannot be computed from them.
    hidden = replace(tune, logits=torch.full_like(tune.logits, torch.nan))
    part = replace(data, tune=hidden)
    found = {}
    for name in names:
        try:
            with torch.no_grad():
                scores = editor.class_scores(part, name)
        except Unsupported:
            continue  # not an error, since the job may edit another attribute
        if scores is None:
            continue
        shape = (len(tune), len(data.attributes[name].classes))
        is_tensor = isinstance(scores, torch.Tensor)
        found_shape = tuple(scores.shape) if is_tensor else type(scores).__name__
        if found_shape != shape:
            raise EditbenchError(
                f"{type(editor).__name__}.class_scores returned {found_shape} for '{name}': return "
                f"a tensor {shape}, one row per tune sample and one column per class, or None"
            )
        labels = data.attributes.labels(tune.logits, name)
        value = mean_auc(scores.double().cpu().numpy(), labels.cpu().numpy())
        if math.isfinite(value):
            found[name] = value
    return found


def _check_report(editor: Editor, report: object, title: str) -> None:
    """Check that a report is a FitReport with a count of labels, which tables show as a cost."""
    name = type(editor).__name__
    if not isinstance(report, FitReport):
        raise EditbenchError(
            f"{name} returned {type(report).__name__} after {title}: end `fit` and `tune` with "
            "`return FitReport(labels=...)`"
        )
    if not report.has_count():
        raise EditbenchError(
            f"{name} returned FitReport(labels={report.labels!r}) after {title}: labels must be the "
            "number of samples whose logits were read, a whole number"
        )
    try:
        json.dumps(report.notes, default=str)
    except (TypeError, ValueError) as error:
        raise EditbenchError(
            f"{name} returned notes after {title} that JSON cannot hold ({first_line(error)}): use "
            "strings as keys of FitReport(notes=...), and numbers, strings, lists, mappings as "
            "values"
        ) from error


def _checked_state(editor: Editor) -> dict[str, torch.Tensor]:
    """The state of a fitted editor, checked."""
    state = editor.state()
    if not isinstance(state, Mapping):
        raise EditbenchError(
            f"{type(editor).__name__}.state() is {type(state).__name__}: return a mapping of tensors "
            "by name, {} if there are none"
        )
    state = dict(state)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise EditbenchError(
                f"{type(editor).__name__}.state()[{name!r}] is {type(value).__name__}: return "
                "tensors by name, as in torch.as_tensor(value), or **network.state_dict()"
            )
    return state


def storable(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of an editor as the file of a fit holds it.

    Every tensor is contiguous and has memory of its own, which safetensors requires. It lies on the
    CPU, because the device is not part of the file's name and a job on another one may load it.

    Args:
        state: of `Editor.state`.
    """
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }


def _cached(path: Path, editor: Editor, bank: Bank, data: FitData, work: _Work) -> Fitted:
    """Load a fit or a tuning, which is done first if no other job has done it.

    Args:
        path: its file in the cache.
        editor: loads it.
        bank: of the samples.
        data: to learn from.
        work: the fit or the tuning.
    """

    def make() -> Fitted:
        learner = work.learner()
        fitted = _measured_fit(learner, bank, data, work)
        # Measured by the harness, so not a cost of the method.
        fitted = replace(fitted, learned=learned_auc(learner, data, work.names))
        # The file holds the costs too, since a job that loads the fit reports them.
        meta = {"fitted": json.dumps(vars(fitted), default=str)}
        stored = save(storable(_checked_state(learner)), meta)
        write_checked(path, stored)
        editor.load_state(load(stored))
        return fitted

    return find_or_make(path, lambda: _load(path, editor), make)


def _measured_fit(learner: Editor, bank: Bank, data: FitData, work: _Work) -> Fitted:
    """Run a fit or a tuning and measure its costs.

    Raises:
        UnsupportedByFit: the work raised Unsupported.
        EditbenchError: the work changed the samples, or its report is wrong.
    """
    began = time.perf_counter()
    before = data.generator.decoded

    def spent(report: FitReport) -> Fitted:
        return Fitted(
            seconds=time.perf_counter() - began,
            decoded=data.generator.decoded - before,
            labels=report.labels + sum(asked),
            notes=report.notes,
            cached=False,
        )

    with status(work.title), scored(data.teacher) as asked:
        try:
            report = _unchanged(bank, data, work.title, lambda: work.learn(learner))
        except Unsupported as error:
            raise UnsupportedByFit(error, spent(FitReport())) from error
    _check_report(learner, report, work.title)
    return spent(report)


@contextmanager
def scored(teacher: Scorer) -> Iterator[list[int]]:
    """Record how many samples the teacher scores inside the context; each counts as a label.

    Yields:
        A list that grows by the size of every scored batch.
    """
    counts: list[int] = []
    # Counted by a hook, so that an editor need not report these samples.
    # On the whole network, which a teacher restricted to some attributes calls too.
    hook = teacher.whole.register_forward_hook(
        lambda _module, _inputs, logits: counts.append(len(logits))
    )
    try:
        yield counts
    finally:
        hook.remove()


def _load(path: Path, editor: Editor) -> Fitted | None:
    """Load a cached fit; None if the file is absent or unreadable."""
    try:
        read_checked(path)
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {})["fitted"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        # A file of another format has other fields; the fit is then repeated.
        fitted = Fitted(**{**meta, "learned": dict(meta["learned"]), "cached": True})
    except (BadFile, OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    # Outside the try: a ValueError of the editor must not be mistaken for a damaged file.
    editor.load_state(state)
    return fitted
