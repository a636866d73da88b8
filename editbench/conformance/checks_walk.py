"""Checks of the walk: what a step may depend on, and what it must give."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes
from editbench.conformance.checks_state import need_storable, restored
from editbench.conformance.compare import altered, close, snapshot, spelled_out
from editbench.conformance.subject import Served, Subject
from editbench.conformance.testbeds import clone_walk
from editbench.conformance.verdicts import Failed, Skipped, Warned, must_not_raise
from editbench.walk.editor import Walk

STEPS = 10  # of the walk that shows whether an editor steers
STEPS_OF_BATCH = 2  # the second starts where the first has led
# Share of samples that must agree between dtypes: a rank or a mask may turn over for a few.
AGREE = 0.8
CUDA = "cuda"
MANY = ("kind", "angle")  # attributes of many classes, the second of them ordered


def identity(subject: Subject) -> str:
    """Decode the codes of step 0, and compare them with the start's own."""
    for served in subject.need_served():
        walk = served.walk()
        generator = served.fit.data.generator
        latent = generator.start_space(served.editor.space)
        assert walk.latent is not None
        with must_not_raise(
            "decoding `codes` at step 0",
            "Codes of a space of the generator, one for each sample",
            "give Codes(space, values), or leave `codes` as the base class has it",
            served.editor,
        ):
            codes = subject.codes(served.editor, walk)
            if not isinstance(codes, Codes):
                raise TypeError(f"codes returned {type(codes).__name__}, not Codes")
            with torch.no_grad():
                seen = generator.decode(codes)
                own = generator.decode(Codes(latent, walk.latent))
        # Exactly 0, not nearly: the same codes in the same batch decode to the same bits.
        gap = (seen - own).abs().max().item() if seen.shape == own.shape else float("inf")
        if gap > 0 or not seen.isfinite().all():
            raise Failed(
                "at step 0 `codes` decodes to something other than the start (by up to "
                f"{gap:.2g}, towards {served.name})",
                "the exact start: the engine compares it with the bank and stops",
                "where walk.codes equals walk.origin, return exactly the start's codes: origin + "
                "(change), with a change that is 0 before the first step",
            )
    return "exact on " + ", ".join(s.name for s in subject.served)


def moves(subject: Subject) -> str:
    """Report steps that went wrong, and look for samples that stand still."""
    if subject.crashed:
        _report_crash(subject)
    still = 0.0
    for served in subject.need_served():
        walk = served.walk()
        after = subject.step(served.editor, walk)
        if not after.isfinite().all():
            raise Failed(
                f"a step towards {served.name} gives NaN or infinity",
                "finite codes",
                "guard divisions (torch.nn.functional.normalize does) and missing examples in `fit`",
            )
        # Of many classes `multi_class` looks at every pair.
        if served.classes == 2:
            start = subject.outcome(served.editor, walk, 0)
            moved = subject.outcome(served.editor, walk, 1)
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


def _report_crash(subject: Subject) -> None:
    """Raise Failed for the first step that went wrong."""
    where, how = next(iter(subject.crashed.items()))
    fix = (
        "return new codes like walk.codes: same shape, dtype and device; raise "
        'Unsupported("why") for what cannot be served'
    )
    # The message of torch where a derivative is taken without a graph.
    if "grad" in how and "RuntimeError" in how:
        fix = (
            "the engine walks under torch.no_grad(): wrap what needs a gradient in `with "
            "torch.enable_grad():` and return .detach()ed codes"
        )
    raise Failed(
        f"towards {where}, {how}",
        "the next codes of every sample, or Unsupported with a reason",
        fix,
    )


def multi_class(subject: Subject) -> str:
    """Walk from one class of many to two others, and compare the ends."""
    refused = {name: why for name, why in subject.refused.items() if name in MANY}
    try:
        chosen = subject.need_served(binary=False)
    except Skipped:
        if not refused:
            raise
        reasons = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise Skipped(f"raises Unsupported: {reasons}") from None
    same = []
    for served in chosen:
        first, second = _walk_to_two_classes(subject, served)
        if torch.equal(first[1], second[1]):
            same.append(f"{first[0]} and {second[0]} of {served.name}")
    if same and _heeds_target(subject):
        raise Failed(
            f"steps towards {same[0]} are the same",
            "different targets give different edits, or Unsupported with a reason",
            "use walk.target as the class index, not as a sign, or raise "
            'Unsupported("why") in `check` for attributes with more than two classes',
        )
    if same:
        # A random direction is such an editor, and a sound one.
        raise Warned(
            "steps ignore the target, for attributes of two classes as well: towards "
            f"{same[0]} they are the same",
            "different targets give different edits",
            "use walk.target, unless this is a control without knowledge",
        )
    remarks = "".join(f"; {name}: {why}" for name, why in refused.items())
    return "serves " + ", ".join(s.name for s in chosen) + remarks


def _walk_to_two_classes(subject: Subject, served: Served) -> list[tuple[str, Tensor]]:
    """Step from one class to two others: (class, what is decoded then) of both.

    Raises:
        Failed: the editor accepts the attribute, and no sample moves.
    """
    item = served.fit.data.attributes[served.attribute]
    # An ordered attribute has targets beside the source, one on either side.
    source, targets = (1, (0, 2)) if item.ordered else (0, (1, 2))
    ends = []
    for target in targets:
        walk = served.walk(source, target)
        start = subject.outcome(served.editor, walk, 0)
        end = subject.outcome(served.editor, walk, 1)
        ends.append((item.classes[target], start, end))
    for name, start, end in ends:
        if torch.equal(start, end):
            raise Failed(
                f"no sample moves from {item.classes[source]} to {name} of {served.name}, which "
                "`check` accepts",
                "an edit, or Unsupported with a reason: a zero edit would be measured as an edit",
                "use walk.source and walk.target as class indices, or raise "
                'Unsupported("why") in `check` for attributes with more than two classes',
            )
    return [(name, end) for name, _, end in ends]


def _heeds_target(subject: Subject) -> bool:
    """Whether the steps towards the two classes of a binary attribute differ."""
    for served in subject.served:
        if served.classes != 2:
            continue
        walk = served.walk()
        ends = []
        for target in (0, 1):
            aimed = replace(walk, target=torch.full_like(walk.target, target))
            ends.append(subject.outcome(served.editor, aimed))
        return not torch.equal(ends[0], ends[1])
    return True


def batch(subject: Subject) -> str:
    """Step the same samples in other batches; no row may change."""
    for served in subject.need_served():
        walk = served.walk()
        subject.need_repeatable(served.editor, walk, STEPS_OF_BATCH)
        start = subject.outcome(served.editor, walk, 0)
        whole = subject.outcome(served.editor, walk, STEPS_OF_BATCH)
        order = torch.randperm(len(walk), generator=torch.Generator().manual_seed(3))
        batches = (
            ("a subset of the samples", order[:5]),
            ("the samples in another order", order),
            ("one sample alone", order[:1]),
            ("another sample alone", order[1:2]),
        )
        for what, rows in batches:
            seen = subject.outcome(served.editor, walk[rows], STEPS_OF_BATCH)
            _check_same_rows(served, what, seen, whole[rows], start[rows])
        # One broken sample must not spoil the others, as a mean over the batch would.
        sick = clone_walk(walk)
        sick.codes[3] = torch.nan
        others = torch.arange(len(walk)) != 3
        seen = subject.outcome(served.editor, sick, STEPS_OF_BATCH)[others]
        what = "a batch with a NaN in another row"
        _check_same_rows(served, what, seen, whole[others], start[others])
    return "subsets, other orders, single rows and a NaN beside it change no row"


def _check_same_rows(
    served: Served, what: str, seen: Tensor, expected: Tensor, start: Tensor
) -> None:
    if seen.shape != expected.shape or not close(seen, expected, start).all():
        raise Failed(
            f"{what} steps differently towards {served.name} than in the whole batch",
            "row n of a step depends on row n of the walk alone: samples leave the batch as they "
            "cross",
            "reduce over the last dimension (dim=1), never over the samples (dim=0) or the whole "
            "tensor; take statistics in `fit`; key what is drawn for a sample by walk.start",
        )


def pure(subject: Subject) -> str:
    """Step twice from the same walk, and compare everything with how it was."""
    fix = (
        "work on new tensors: `walk.codes + step`, not `walk.codes += step`; .clone() before "
        "writing"
    )
    for served in subject.need_served():
        if served.fit.altered:
            raise Failed(
                f"altered: {', '.join(served.fit.altered[:4])}",
                "splits and networks as they were given: other editors share them",
                fix + "; edit a copy of the weights, or Codes with a WeightShift",
            )
        walk = served.walk()
        given = served.walk()
        before = snapshot(served.fit.data)
        # A new walk has one tensor for origin and codes; apart, each is seen to change alone.
        walk.origin = walk.origin.clone()
        given.origin = given.origin.clone()
        results = []
        seen = []
        for _ in range(2):
            with torch.no_grad(), subject.watch.running(0):
                results.append(served.editor.step(walk).clone())
                seen.append(spelled_out(served.editor.codes(walk)).clone())
        changed = []
        for name in ("start", "origin", "codes", "source", "target", "latent"):
            if not torch.equal(getattr(walk, name), getattr(given, name)):
                changed.append(f"walk.{name}")
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
                "keep nothing from one step for the next: walk.steps counts the steps, and "
                "walk.codes - walk.origin is the way so far",
            )
    return "the same step twice gives the same codes, and nothing that was given is altered"


def dtype_device(subject: Subject) -> str:
    """Step float64 codes, and codes on CUDA where there is one."""
    for served in subject.need_served():
        walk = served.walk()
        subject.need_repeatable(served.editor, walk, 1)
        single = subject.step(served.editor, walk)
        double = clone_walk(walk, torch.float64)
        fix = "compute in a dtype of your own and end with .to(walk.codes)"
        with must_not_raise("a step of float64 codes", "float64 codes", fix, served.editor):
            moved = subject.step(served.editor, double)
        if moved.dtype != torch.float64:
            raise Failed(
                f"a step of float64 codes gives {moved.dtype}",
                "float64 codes",
                "end with .to(walk.codes), so that dtype and device are those of the walk",
            )
        gap = (moved - single.double()).abs().flatten(1).amax(1)
        size = (single - walk.codes).abs().flatten(1).amax(1).clamp_min(1e-6)
        # Relative to the step; the second term is the rounding of float32 codes of size 1 to 100.
        share = (gap <= 1e-3 * size + 1e-5).float().mean().item()
        if share < AGREE:
            raise Failed(
                f"float32 and float64 steps towards {served.name} agree for {100 * share:.0f} % of "
                "the samples",
                "the same step up to rounding",
                "do not round the codes or cast them to integers or half precision",
            )
    if not torch.cuda.is_available():
        return "float64 agrees with float32; devices: not checked, this machine has no CUDA"
    for served in subject.need_served():
        _check_on_cuda(subject, served, served.walk())
    return "float64 agrees with float32, CUDA with the CPU"


def _check_on_cuda(subject: Subject, served: Served, walk: Walk) -> None:
    """A step on CUDA of an editor that was fitted on the CPU and stored, as a cached fit is used."""
    need_storable(subject, served.editor)
    testbed = served.fit.testbed
    # In a job on CUDA the networks are there too. Copies, since other checks run on the CPU.
    there = replace(
        testbed,
        generator=copy.deepcopy(testbed.generator).to(CUDA),
        teacher=copy.deepcopy(testbed.teacher).to(CUDA),
    )
    with subject.watch.running(0):
        tensors = served.editor.state()
    try:
        here = subject.step(restored(subject, served.fit, tensors), walk)
    except Exception:
        raise Skipped("a stored fit cannot step; see `state`") from None
    editor = restored(subject, replace(served.fit, testbed=there), tensors)
    fix = "load_state gives CPU tensors: bring them to the walk with .to(walk.codes)"
    with must_not_raise("a step of codes on CUDA", "codes on CUDA", fix, editor):
        moved = subject.step(editor, clone_walk(walk, device=CUDA))
    size = (here - walk.codes).abs().amax()
    away = moved.device.type != torch.device(CUDA).type
    # The median: a mask or a rank may turn over for a few samples.
    if away or (moved.cpu() - here).abs().amax(-1).flatten().median() > 1e-2 * size:
        raise Failed(
            f"a step of codes on CUDA gives codes on {moved.device} that differ from the CPU's",
            "the same step on the walk's device",
            "bring what was fitted to the walk with .to(walk.codes)",
        )


def steers(subject: Subject) -> str:
    """Compare the editor with a random direction of the same length; it warns at most."""
    lines = []
    weak = []
    for served in subject.need_served():
        try:
            own = _share_that_grew(subject, served, False)
            floor = _share_that_grew(subject, served, True)
        except EditbenchError as error:
            raise Skipped(f"the walk towards {served.name} ends with: {error}") from None
        lines.append(f"{served.attribute} {own:.2f} (random {floor:.2f})")
        if own <= max(floor, 0.5):
            weak.append(served.attribute)
    # 'a' is served on both kinds of testbed, and may have the same numbers.
    text = f"share of starts whose target grew in {STEPS} steps: " + ", ".join(dict.fromkeys(lines))
    if weak:
        raise Warned(
            text,
            "more than random",
            "look at the sign of the direction for class 0 and class 1 (walk.target), first for "
            f"{weak[0]}",
        )
    return text


def _share_that_grew(subject: Subject, served: Served, blind: bool) -> float:
    """Share of the starts whose teacher log-odds of the target grew.

    Args:
        subject: walks.
        served: the attribute.
        blind: replace each sample's move by a random direction of the same length.
    """
    walk = served.walk()
    data = served.fit.data
    moved = subject.path(served.editor, walk, STEPS)
    if blind:
        move = (moved.codes - walk.codes).flatten(1)
        other = torch.randn(move.shape, generator=torch.Generator().manual_seed(9))
        length = move.norm(dim=1, keepdim=True)
        other = other * (length / other.norm(dim=1, keepdim=True).clamp_min(1e-12))
        moved.codes = walk.codes + other.reshape(walk.codes.shape)
    column, sign = data.attributes.column(walk.attribute, walk.target)
    rows = torch.arange(len(walk))
    odds = []
    for stage in (walk, moved):
        logits = data.score(subject.codes(served.editor, stage))
        odds.append(sign * data.attributes.log_odds(logits)[rows, column])
    return (odds[1] > odds[0]).float().mean().item()
