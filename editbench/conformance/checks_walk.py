"""Checks of the walk: what a step may depend on, and what it owes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes, Space
from editbench.conformance.compare import altered, close, snapshot, spelled_out
from editbench.conformance.subject import Served, Subject
from editbench.conformance.verdicts import Failed, Skipped, Warned, explain
from editbench.conformance.worlds import clone_walk
from editbench.walk.editor import Walk

STEPS = 10  # of the walk that says whether an editor steers
STEPS_OF_BATCH = 2  # the second starts where the first has led
AGREE = 0.8  # share of samples that must agree between dtypes: a rank or a mask may fall otherwise for a few


def identity(subject: Subject) -> str:
    gap = 0.0
    for served in subject.need_served():
        walk, generator = served.walk(), served.fit.data.generator
        latent = (
            Space.Z
            if served.editor.space == Space.Z or Space.W not in generator.spaces
            else Space.W
        )
        assert walk.latent is not None
        try:
            codes = subject.codes(served.editor, walk)
            if not isinstance(codes, Codes):
                raise TypeError(f"codes gave {type(codes).__name__}, not Codes")
            with torch.no_grad():
                seen, own = generator.decode(codes), generator.decode(Codes(latent, walk.latent))
        except Exception as error:
            raise Failed(
                f"decoding `codes` at step 0 raised {explain(error, served.editor)}",
                "Codes of a space of the generator, one for each sample",
                "give Codes(space, values), or leave `codes` as the base class has it",
            ) from None
        gap = (seen - own).abs().max().item() if seen.shape == own.shape else float("inf")
        if gap > 0 or not seen.isfinite().all():
            raise Failed(
                f"at step 0 `codes` decodes to something else than the start (by up to {gap:.2g}, towards "
                f"{served.name})",
                "the exact start: the engine compares it with the bank and stops",
                "where walk.codes equals walk.origin, give exactly the start's codes: origin + (change), with "
                "a change that is 0 before the first step",
            )
    return "exact on " + ", ".join(s.name for s in subject.served)


def moves(subject: Subject) -> str:
    if subject.crashed:
        where, how = next(iter(subject.crashed.items()))
        fix = (
            'return new codes like walk.codes: same shape, dtype and device; raise Unsupported("why") for what '
            "cannot be served"
        )
        if "grad" in how and "RuntimeError" in how:
            fix = (
                "the engine walks under torch.no_grad(): wrap what needs a gradient in `with torch.enable_grad():` "
                "and return .detach()ed codes"
            )
        raise Failed(
            f"towards {where}, {how}",
            "the next codes of every sample, or Unsupported with a reason",
            fix,
        )
    still = 0.0
    for served in subject.need_served():
        walk = served.walk()
        after = subject.step(served.editor, walk)
        if not after.isfinite().all():
            raise Failed(
                f"a step towards {served.name} gives NaN or infinity",
                "finite codes",
                "guard divisions (editbench.walk.editor.unit_rows) and missing examples in `fit`",
            )
        if served.classes == 2:
            start, moved = (subject.outcome(served.editor, walk, steps) for steps in (0, 1))
            share = (moved == start).all(1).float().mean().item()
            if share == 1:
                raise Failed(
                    f"a step towards {served.name} leaves every sample where it is",
                    "a step that moves, or Unsupported: a zero edit would be measured as an edit",
                    'raise Unsupported("why") in `check` (and `step`) where there is no direction',
                )
            still = max(still, share)
    if still > 0:
        raise Warned(
            f"{100 * still:.0f} % of the samples do not move",
            "a step for every sample",
            "nothing, if this is meant; those walks will count as failures",
        )
    return "every sample moves"


def multi_class(subject: Subject) -> str:
    many = ("kind", "angle")
    refused = {name: reason for name, reason in subject.refused.items() if name in many}
    try:
        chosen = subject.need_served(binary=False)
    except Skipped:
        if refused:
            raise Skipped(
                "says Unsupported: " + "; ".join(f"{k}: {v}" for k, v in refused.items())
            ) from None
        raise
    blind = []
    for served in chosen:
        source, first, second = (
            (1, 0, 2) if served.fit.data.attributes[served.attribute].ordered else (0, 1, 2)
        )
        walks = [served.walk(source, target) for target in (first, second)]
        starts, ends = (
            [subject.outcome(served.editor, walk, steps) for walk in walks] for steps in (0, 1)
        )
        classes = served.fit.data.attributes[served.attribute].classes
        for start, end, target in zip(starts, ends, (first, second)):
            if torch.equal(start, end):
                raise Failed(
                    f"no sample moves from {classes[source]} to {classes[target]} of {served.name}, which "
                    "`check` accepts",
                    "an edit, or Unsupported with a reason: a zero edit would be measured "
                    "as an edit",
                    "use walk.source and walk.target as class indices, or raise "
                    'Unsupported("why") in `check` for attributes with more than two classes',
                )
        if torch.equal(ends[0], ends[1]):
            blind.append(f"{classes[first]} and {classes[second]} of {served.name}")
    if blind and _heeds_target(subject):
        raise Failed(
            f"steps towards {blind[0]} are the same",
            "different targets go different ways, or Unsupported with a reason",
            "use walk.target as the class index, not as a sign, or raise "
            'Unsupported("why") in `check` for attributes with more than two classes',
        )
    if blind:
        raise Warned(
            f"steps ignore the target, for attributes of two classes as well: towards {blind[0]} they are "
            "the same",
            "different targets go different ways",
            "use walk.target, unless this is a control without knowledge",
        )
    return (
        "serves "
        + ", ".join(s.name for s in chosen)
        + "".join(f"; {name}: {reason}" for name, reason in refused.items())
    )


def _heeds_target(subject: Subject) -> bool:
    """Whether the steps towards the two classes of a binary attribute differ."""
    for served in (s for s in subject.served if s.classes == 2):
        first, second = (
            subject.outcome(
                served.editor, replace(walk, target=torch.full_like(walk.target, target))
            )
            for walk in [served.walk()]
            for target in (0, 1)
        )
        return not torch.equal(first, second)
    return True


def batch(subject: Subject) -> str:
    for served in subject.need_served():
        walk = served.walk()
        start, whole = (
            subject.outcome(served.editor, walk, steps) for steps in (0, STEPS_OF_BATCH)
        )
        order = torch.randperm(len(walk), generator=torch.Generator().manual_seed(3))
        for what, rows in (
            ("a subset of the samples", order[:5]),
            ("the samples in another order", order),
            ("one sample alone", order[:1]),
            ("another sample alone", order[1:2]),
        ):
            _same_rows(
                served,
                what,
                subject.outcome(served.editor, walk[rows], STEPS_OF_BATCH),
                whole[rows],
                start[rows],
            )
        sick = clone_walk(walk)
        sick.codes[3] = torch.nan
        others = torch.arange(len(walk)) != 3
        _same_rows(
            served,
            "a batch with a NaN in another row",
            subject.outcome(served.editor, sick, STEPS_OF_BATCH)[others],
            whole[others],
            start[others],
        )
    return "subsets, other orders, single rows and a NaN beside it change no row"


def _same_rows(served: Served, what: str, seen: Tensor, owed: Tensor, start: Tensor) -> None:
    if seen.shape != owed.shape or not close(seen, owed, start).all():
        raise Failed(
            f"{what} steps differently towards {served.name} than in the whole batch",
            "row n of a step depends on row n of the walk alone: samples leave the batch as they cross",
            "reduce over the last dimension (dim=1), never over the samples (dim=0) or the whole tensor; take "
            "statistics in `fit`; key what is remembered by walk.start",
        )


def pure(subject: Subject) -> str:
    fix = "work on new tensors: `walk.codes + step`, not `walk.codes += step`; .clone() before writing"
    for served in subject.need_served():
        if served.fit.altered:
            raise Failed(
                f"altered: {', '.join(served.fit.altered[:4])}",
                "splits and networks as they were given: other editors share them",
                fix + "; edit a copy of the weights, or Codes with a WeightShift",
            )
        walk, given, before = served.walk(), served.walk(), snapshot(served.fit.data)
        walk.origin, given.origin = walk.origin.clone(), given.origin.clone()
        results, seen = [], []
        for _ in range(2):
            with torch.no_grad(), subject.watch.running(0):
                results.append(served.editor.step(walk).clone())
                seen.append(spelled_out(served.editor.codes(walk)).clone())
        names = ("start", "origin", "codes", "source", "target", "latent")
        changed = [
            f"walk.{name}"
            for name in names
            if not torch.equal(getattr(walk, name), getattr(given, name))
        ]
        changed += altered(served.fit.data, before)
        if changed:
            raise Failed(
                f"a step towards {served.name} alters {', '.join(changed[:4])} in place",
                "codes of its own: the engine measures the path from walk.codes to them",
                fix,
            )
        if not torch.equal(results[0], results[1]) or not torch.equal(seen[0], seen[1]):
            raise Failed(
                f"two steps from the same walk towards {served.name} differ",
                "the same codes from the same walk",
                "keep no state in `step` that changes what it gives; walk.steps counts the steps",
            )
    return "a step twice is the same step, and nothing that was given is altered"


def dtype_device(subject: Subject) -> str:
    for served in subject.need_served():
        walk = served.walk()
        single, double = subject.step(served.editor, walk), clone_walk(walk, torch.float64)
        try:
            moved = subject.step(served.editor, double)
        except Exception as error:
            raise Failed(
                f"a step of float64 codes raised {explain(error, served.editor)}",
                "float64 codes",
                "compute in a dtype of your own and end with .to(walk.codes)",
            ) from None
        if moved.dtype != torch.float64:
            raise Failed(
                f"a step of float64 codes gives {moved.dtype}",
                "float64 codes",
                "end with .to(walk.codes), so that dtype and device are those of the walk",
            )
        gap = (moved - single.double()).abs().flatten(1).amax(1)
        size = (single - walk.codes).abs().flatten(1).amax(1).clamp_min(1e-6)
        share = (gap <= 1e-3 * size + 1e-5).float().mean().item()
        if share < AGREE:
            raise Failed(
                f"float32 and float64 steps towards {served.name} agree for {100 * share:.0f} % of the "
                "samples",
                "the same step up to rounding",
                "do not round the codes or cast them to integers or half precision",
            )
    if not torch.cuda.is_available():
        return "float64 agrees with float32; devices: not checked, this machine has no CUDA"
    for served in subject.need_served():
        _on_cuda(subject, served, served.walk())
    return "float64 agrees with float32, CUDA with the CPU"


def _on_cuda(subject: Subject, served: Served, walk: Walk) -> None:
    """A step on CUDA of the editor as it was fitted on the CPU, which is what a cached fit looks like."""
    try:
        moved = subject.step(served.editor, clone_walk(walk, device="cuda"))
    except Exception as error:
        raise Failed(
            f"a step of codes on CUDA raised {explain(error, served.editor)}",
            "codes on CUDA",
            "load_state gives CPU tensors: bring them to the walk with .to(walk.codes)",
        ) from None
    here = subject.step(served.editor, walk)
    size = (here - walk.codes).abs().amax()
    if (
        moved.device.type != "cuda"
        or (moved.cpu() - here).abs().amax(-1).flatten().median() > 1e-2 * size
    ):
        raise Failed(
            f"a step of codes on CUDA gives codes on {moved.device} that differ from the CPU's",
            "the same step on the walk's device",
            "bring what was fitted to the walk with .to(walk.codes)",
        )


def steers(subject: Subject) -> str:
    lines, weak = [], []
    for served in subject.need_served():
        try:
            own, floor = (_grew(subject, served, blind) for blind in (False, True))
        except EditbenchError as error:
            raise Skipped(f"the walk towards {served.name} ends with: {error}") from None
        lines.append(f"{served.attribute} {own:.2f} (random {floor:.2f})")
        if own <= max(floor, 0.5):
            weak.append(served.attribute)
    text = f"share of starts whose target grew in {STEPS} steps: " + ", ".join(dict.fromkeys(lines))
    if weak:
        raise Warned(
            text,
            "more than random",
            "look at the sign of the direction for class 0 and class 1 "
            f"(walk.target), first for {weak[0]}",
        )
    return text


def _grew(subject: Subject, served: Served, blind: bool) -> float:
    """Share of the starts whose teacher log-odds of the target grew; `blind` takes a random direction as long."""
    walk, data, columns = served.walk(), served.fit.data, torch.arange(len(served.walk()))
    moved = subject.path(served.editor, walk, STEPS)
    if blind:
        move = (moved.codes - walk.codes).flatten(1)
        other = torch.randn(move.shape, generator=torch.Generator().manual_seed(9))
        other = other * (
            move.norm(dim=1, keepdim=True) / other.norm(dim=1, keepdim=True).clamp_min(1e-12)
        )
        moved.codes = walk.codes + other.reshape(walk.codes.shape)
    column, sign = data.attributes.column(walk.attribute, walk.target)
    odds = [
        sign
        * data.attributes.log_odds(data.score(subject.codes(served.editor, w)))[columns, column]
        for w in (walk, moved)
    ]
    return (odds[1] > odds[0]).float().mean().item()
