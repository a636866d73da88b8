"""Checks of what is restored from a stored fit, and of what an editor answers in hard cases."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from editbench.base.errors import Unsupported
from editbench.base.spaces import Space
from editbench.conformance.subject import NO_REASON, Fit, Subject
from editbench.conformance.testbeds import bare_generator, copied
from editbench.conformance.verdicts import Failed, Skipped, Warned, describe_error, must_not_raise
from editbench.run.fits import storable
from editbench.walk.editor import Editor, Walk


def state(subject: Subject) -> str:
    """Store every served editor, restore it, and compare answers, steps and codes."""
    count = 0
    for served in subject.need_served():
        with subject.watch.running(0):
            tensors = served.editor.state()
        _check_storable(tensors)
        fresh = restored(subject, served.fit, tensors)
        walk = served.walk()
        subject.need_repeatable(served.editor, walk, 1)
        # 0 last: codes of the start must not depend on a step that was made before.
        for steps in (1, 2, 0):
            here = subject.outcome(served.editor, walk, steps)
            there = _outcome_of_restored(subject, fresh, walk, steps, tensors)
            if here.shape != there.shape or not torch.equal(here.nan_to_num(), there.nan_to_num()):
                raise Failed(
                    f"an editor restored by load_state steps differently towards {served.name}",
                    "the very same steps and codes, without a fit: fits are cached, and later jobs "
                    "only load them",
                    "put everything that `step`, `codes` and `check` read into `state` and take it "
                    "back in `load_state`, numbers as float64 tensors",
                )
        answer = subject.answer(fresh, served.fit.testbed, served.attribute)
        if answer:
            raise Failed(
                f"an editor restored by load_state refuses {served.name}: {answer}",
                "the same answer from `check`",
                "restore in `load_state` what `check` reads",
            )
        count = max(count, len(tensors))
    _check_tuning(subject)
    _check_refusals(subject)
    return f"{count} tensors"


def _check_tuning(subject: Subject) -> None:
    """A job whose fit is in the cache tunes an editor that was restored, and never fitted."""
    served = subject.need_served()[0]
    fitted = served.fit.editor
    if type(fitted).tune is Editor.tune:
        return
    required = "the tuning of the editor that was fitted: jobs for other attributes load the fit"
    fix = "put everything that `tune` reads into `state` and take it back in `load_state`"
    with subject.watch.running(0):
        tensors = fitted.state()
    fresh = restored(subject, served.fit, tensors)
    try:
        with subject.watch.running(0):
            fresh.tune(served.fit.data, served.attribute)
    except Exception as error:
        raise Failed(
            f"an editor restored by load_state cannot be tuned: {describe_error(error, fresh)}",
            required,
            fix,
        ) from None
    walk = served.walk()
    here = subject.outcome(served.editor, walk)
    there = _outcome_of_restored(subject, fresh, walk, 1, tensors)
    if not torch.equal(here.nan_to_num(), there.nan_to_num()):
        raise Failed(
            f"an editor restored by load_state is tuned differently towards {served.name}",
            required,
            fix,
        )


def _check_refusals(subject: Subject) -> None:
    """What the fitted editor refuses, the restored one must refuse too."""
    fits = {id(s.fit): s.fit for s in subject.served}.values()
    for name in subject.refused:
        for fitted in fits:
            if name not in fitted.data.attributes.names:
                continue
            answer = subject.answer(fitted.editor, fitted.testbed, name)
            if answer:
                _check_same_answer(subject, fitted, name, answer)


def _outcome_of_restored(
    subject: Subject, fresh: Editor, walk: Walk, steps: int, tensors: dict[str, Tensor]
) -> Tensor:
    try:
        return subject.outcome(fresh, walk, steps)
    except Exception as error:
        raise Failed(
            f"an editor restored by load_state cannot step: {describe_error(error, fresh)} (state has "
            f"{', '.join(tensors) or 'nothing'})",
            "an editor that walks without a fit",
            "put everything that `step` reads into `state` and take it back in `load_state`",
        ) from None


def _check_storable(tensors: object) -> None:
    fix = (
        "return {name: tensor} with one contiguous tensor of its own for each thing to keep: "
        ".contiguous(), .clone()"
    )
    named = isinstance(tensors, dict) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    )
    if not isinstance(tensors, dict) or not named:
        raise Failed(
            "state() returned something other than a flat dict of named tensors",
            "a flat dict from str to Tensor",
            fix + "; wrap numbers with torch.tensor(x, dtype=torch.float64)",
        )
    try:
        save(storable(tensors))
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        # Its message may have many lines; the first words say which tensor is meant.
        raise Failed(
            f"safetensors cannot store state(): {' '.join(str(error).split())[:160]}",
            "contiguous tensors without shared memory: fits are cached as safetensors",
            fix,
        ) from None


def need_storable(subject: Subject, editor: Editor) -> None:
    """Skip a check that would fail for one reason alone, that a fit cannot be stored.

    Args:
        subject: watches.
        editor: fitted.

    Raises:
        Skipped: its state is nothing that the cache of fits can hold.
    """
    with subject.watch.running(0):
        tensors = editor.state()
    try:
        _check_storable(tensors)
    except Failed:
        raise Skipped("a fit cannot be stored; see `state`") from None


def restored(subject: Subject, fitted: Fit, tensors: dict[str, Tensor]) -> Editor:
    """A new editor that was loaded from stored state and never fitted.

    Args:
        subject: makes the editor.
        fitted: whose testbed it is for.
        tensors: of `Editor.state`.

    Raises:
        Failed: `load_state` raised.
    """
    fresh = subject.make()
    fresh.bind(fitted.testbed.generator, fitted.testbed.teacher)
    # Through the bytes of a file, as the cache of fits does it.
    stored = load(save(storable(tensors)))
    guard = must_not_raise(
        "load_state(state())",
        "an editor restored from its own state",
        "read in `load_state` exactly the names that `state` writes",
        fresh,
    )
    with guard, subject.watch.running(0):
        fresh.load_state(stored)
    return fresh


def _check_same_answer(subject: Subject, fitted: Fit, attribute: str, reason: str) -> None:
    with subject.watch.running(0):
        tensors = fitted.editor.state()
    now = subject.answer(restored(subject, fitted, tensors), fitted.testbed, attribute)
    # Reasons may be worded otherwise; whether the attribute is served may not change.
    if bool(now) != bool(reason):
        raise Failed(
            f"the answer of `check` for '{attribute}' is after the fit: {reason or 'served'}; "
            f"after load_state: {now or 'served'}",
            "the same answer",
            "let `check` read only what `state` keeps, and restore it in `load_state`",
        )


def skip(subject: Subject) -> str:
    """Try what no editor can serve: a class without examples, a space that is not there."""
    # An editor that serves nothing may still be sound: every reason is then a record.
    found = subject.served  # it tries all attributes, and fills `refused`
    for name, reason in subject.refused.items():
        if reason == NO_REASON:
            raise Failed(
                f"Unsupported without a reason for '{name}'",
                "a reason: it is the record of the job",
                'raise Unsupported("why")',
            )
    if subject.refused and not found:
        return "; ".join(f"{name}: {reason}" for name, reason in subject.refused.items())
    need_storable(subject, subject.need_served()[0].editor)
    without_class = _without_a_class(subject)
    return f"{without_class}; {_without_the_space(subject)}"


def _without_a_class(subject: Subject) -> str:
    """The last class of an attribute has no example in the fit split."""
    # Of many classes if there is such an attribute: one missing class is easier to overlook there.
    served = subject.need_served()[0]
    for candidate in subject.need_served():
        if candidate.classes > 2:
            served = candidate
            break
    testbed = served.fit.testbed
    name = served.attribute
    missing = served.classes - 1
    data = testbed.data()
    labels = data.attributes.labels(data.fit.logits, name)
    data.fit = copied(data.fit, (labels != missing).nonzero()[:, 0])
    what = f"with no example of {name}: {data.attributes[name].classes[missing]} in the fit split"
    fitted = subject.fit(testbed, data)
    required = "an edit that works, or Unsupported with a reason"
    fix = (
        'raise Unsupported("the fit split holds no example of ...") in `check` for that '
        "attribute, and go on without it in `fit`"
    )
    try:
        if fitted.error is not None:
            raise fitted.error
        editor = subject.tune(fitted, name)
        reason = subject.answer(editor, testbed, name)
        if reason == NO_REASON:
            raise Failed(f"{what}, Unsupported without a reason", required, fix)
        _check_same_answer(subject, fitted, name, reason)
        if reason:
            return f'{what}: answers "{reason}"'
        walk = served.walk()
        after = subject.step(editor, walk)
    except Failed:
        raise
    except Unsupported as error:
        if str(error):
            return f'{what}: answers "{error}"'
        raise Failed(f"{what}, Unsupported without a reason", required, fix) from None
    except Exception as error:
        raise Failed(f"{what}, {describe_error(error, fitted.editor)}", required, fix) from None
    finite = after.isfinite().flatten(1).all(1)
    if not finite.all():
        # A mean over no examples is NaN; the walks fail, and the failure is in the numbers.
        raise Warned(
            f"{what}, {int((~finite).sum())} of {len(finite)} samples step to NaN or infinity; the "
            "engine counts them as failed walks",
            required,
            fix,
        )
    return f"{what}: still serves it"


def _without_the_space(subject: Subject) -> str:
    """A generator that lacks the space the editor walks in."""
    served = subject.need_served()[0]
    testbed = served.fit.testbed
    data = testbed.data()
    space = served.editor.space
    has = Space.W if space == Space.Z else Space.Z
    data.generator = bare_generator(testbed.family, [has])
    if has == Space.Z:
        # A bank of a generator without W has no w.
        data.fit.w = None
        data.tune.w = None
    editor = subject.make()
    what = f"on a generator that has only {has.name}"
    editor.bind(data.generator, data.teacher)
    required = f"Unsupported: the editor walks in {space.name}"
    fix = "call super().check(...) first in `check`, which refuses this, or leave `check` as it is"
    try:
        with subject.watch.running(0):
            editor.check(data.generator, data.attributes, served.attribute)
            editor.fit(data)
    except Unsupported as error:
        if str(error):
            return f'{what}: answers "{error}"'
        raise Failed(f"{what}, Unsupported without a reason", required, fix) from None
    except Exception as error:
        raise Failed(f"{what}, {describe_error(error, editor)}", required, fix) from None
    raise Failed(f"{what}, `check` and `fit` accept it", required, fix)
