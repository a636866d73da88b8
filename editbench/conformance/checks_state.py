"""Checks of what is restored from a stored fit, and of what an editor says where it cannot serve."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from editbench.base.errors import Unsupported
from editbench.base.spaces import Space
from editbench.conformance.subject import Fit, Subject
from editbench.conformance.verdicts import Failed, Warned, explain
from editbench.conformance.worlds import bare_generator, copied
from editbench.walk.editor import Editor, Walk


def state(subject: Subject) -> str:
    count = 0
    for served in subject.need_served():
        with subject.watch.running(0):
            tensors = served.editor.state()
        _storable(tensors)
        fresh = restored(subject, served.fit, tensors)
        walk = served.walk()
        for steps in (1, 2, 0):
            here, there = (
                subject.outcome(served.editor, walk, steps),
                _guarded(subject, fresh, walk, steps, tensors),
            )
            if here.shape != there.shape or not torch.equal(here.nan_to_num(), there.nan_to_num()):
                raise Failed(
                    f"an editor restored by load_state steps otherwise towards {served.name}",
                    "the very same steps and codes, without a fit: fits are cached, and later jobs only load "
                    "them",
                    "put everything that `step`, `codes` and `check` read into `state` and take it "
                    "back in `load_state`, numbers as float64 tensors",
                )
        if subject.answer(fresh, served.fit.world, served.attribute):
            raise Failed(
                f"an editor restored by load_state refuses {served.name}: "
                f"{subject.answer(fresh, served.fit.world, served.attribute)}",
                "the same answer from `check`",
                "restore in `load_state` what `check` reads",
            )
        count = max(count, len(tensors))
    for name in subject.refused:
        for fitted in {id(s.fit): s.fit for s in subject.served}.values():
            if name in fitted.data.attributes.names and subject.answer(
                fitted.editor, fitted.world, name
            ):
                _same_answer(
                    subject, fitted, name, subject.answer(fitted.editor, fitted.world, name)
                )
    return f"{count} tensors"


def _guarded(
    subject: Subject, fresh: Editor, walk: Walk, steps: int, tensors: dict[str, Tensor]
) -> Tensor:
    try:
        return subject.outcome(fresh, walk, steps)
    except Exception as error:
        raise Failed(
            f"an editor restored by load_state cannot step: {explain(error, fresh)} (state has "
            f"{', '.join(tensors) or 'nothing'})",
            "an editor that walks without a fit",
            "put everything that `step` reads into `state` and take it back in `load_state`",
        ) from None


def _storable(tensors: object) -> None:
    fix = "return {name: tensor} with one contiguous tensor of its own for each thing to keep: .contiguous(), .clone()"
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise Failed(
            "state() gave something else than a flat dict of named tensors",
            "a flat dict from str to Tensor",
            fix + "; wrap numbers with torch.tensor(x, dtype=torch.float64)",
        )
    try:
        save({name: tensor.detach() for name, tensor in tensors.items()})
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise Failed(
            f"safetensors cannot store state(): {' '.join(str(error).split())[:160]}",
            "contiguous tensors without shared memory: fits are cached as safetensors",
            fix,
        ) from None


def restored(subject: Subject, fitted: Fit, tensors: dict[str, Tensor]) -> Editor:
    """A new editor that was loaded from stored state and never fitted."""
    fresh = subject.make()
    fresh.num_ws = fitted.world.generator.num_ws
    stored = load(
        save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    )
    try:
        with subject.watch.running(0):
            fresh.load_state(stored)
    except Exception as error:
        raise Failed(
            f"load_state(state()) raised {explain(error, fresh)}",
            "an editor restored from its own state",
            "read in `load_state` exactly the names that `state` writes",
        ) from None
    return fresh


def _same_answer(subject: Subject, fitted: Fit, attribute: str, reason: str) -> None:
    with subject.watch.running(0):
        tensors = fitted.editor.state()
    now = subject.answer(restored(subject, fitted, tensors), fitted.world, attribute)
    if bool(now) != bool(reason):
        raise Failed(
            f"`check` says of '{attribute}' after the fit: {reason or 'served'}; after load_state: "
            f"{now or 'served'}",
            "the same answer",
            "let `check` read only what `state` keeps, and restore it in `load_state`",
        )


def skip(subject: Subject) -> str:
    found = subject.served  # this asks for all, and fills `refused`
    for name, reason in subject.refused.items():
        if reason == "(no reason)":
            raise Failed(
                f"Unsupported without a reason for '{name}'",
                "a reason: it is the record of the job",
                'raise Unsupported("why")',
            )
    if subject.refused and not found:
        return "; ".join(f"{name}: {reason}" for name, reason in subject.refused.items())
    subject.need_served()
    said = [_without_a_class(subject), _without_the_space(subject)]
    return "; ".join(said)


def _without_a_class(subject: Subject) -> str:
    """The last class of an attribute has no example in the fit split."""
    served = next((s for s in subject.need_served() if s.classes > 2), subject.need_served()[0])
    world, name, missing = served.fit.world, served.attribute, served.classes - 1
    data = world.data()
    labels = data.attributes.labels(data.fit.logits, name)
    data.fit = copied(data.fit, (labels != missing).nonzero()[:, 0])
    what = f"with no example of {name}: {data.attributes[name].classes[missing]} in the fit split"
    fitted = subject.fit(world, data)
    owed = "an edit that works, or Unsupported with a reason"
    fix = (
        'raise Unsupported("the fit split holds no example of ...") in `check` for that attribute, and go on '
        "without it in `fit`"
    )
    try:
        if fitted.error is not None:
            raise fitted.error
        editor = subject.tune(fitted, name)
        reason = subject.answer(editor, world, name)
        if reason == "(no reason)":
            raise Failed(f"{what}, Unsupported without a reason", owed, fix)
        _same_answer(subject, fitted, name, reason)
        if reason:
            return f'{what}: says "{reason}"'
        walk = served.walk()
        after = subject.step(editor, walk)
    except Failed:
        raise
    except Unsupported as error:
        if str(error):
            return f'{what}: says "{error}"'
        raise Failed(f"{what}, Unsupported without a reason", owed, fix) from None
    except Exception as error:
        raise Failed(f"{what}, {explain(error, fitted.editor)}", owed, fix) from None
    finite = after.isfinite().flatten(1).all(1)
    if not finite.all():
        raise Warned(
            f"{what}, {int((~finite).sum())} of {len(finite)} samples step to NaN or infinity; the engine "
            "counts them as failed walks",
            owed,
            fix,
        )
    return f"{what}: still serves it"


def _without_the_space(subject: Subject) -> str:
    """A generator that lacks the space the editor walks in."""
    served = subject.need_served()[0]
    world, data = served.fit.world, served.fit.world.data()
    space = served.editor.space
    has = Space.W if space == Space.Z else Space.Z
    data.generator = bare_generator(world.family, [has])
    if has == Space.Z:
        data.fit.w = data.tune.w = None
    editor, what = subject.make(), f"on a generator that has only {has.name}"
    editor.num_ws = 0 if has == Space.Z else data.generator.num_ws
    owed, fix = (
        f"Unsupported: the editor walks in {space.name}",
        "call super().check(...) first in `check`, which says so, or leave `check` as it is",
    )
    try:
        with subject.watch.running(0):
            editor.check(data.generator, data.attributes, served.attribute)
            editor.fit(data)
    except Unsupported as error:
        if str(error):
            return f'{what}: says "{error}"'
        raise Failed(f"{what}, Unsupported without a reason", owed, fix) from None
    except Exception as error:
        raise Failed(f"{what}, {explain(error, editor)}", owed, fix) from None
    raise Failed(f"{what}, `check` and `fit` accept", owed, fix)
