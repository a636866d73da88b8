"""Check of the fixed set of directions, which an editor may have."""

from __future__ import annotations

import torch

from editbench.base.errors import Unsupported
from editbench.base.spaces import Codes
from editbench.conformance.compare import close, spelled_out
from editbench.conformance.subject import Fit, Subject
from editbench.conformance.verdicts import Failed, Skipped, describe_error, must_not_raise
from editbench.walk.editor import DirectionSet, Editor

SAMPLES = 6


def directions(subject: Subject) -> str:
    """Find the directions twice, and apply each to a few samples."""
    if not subject.make().has_directions():
        return "has no fixed set of directions"
    fit = subject.need_served()[0].fit
    found = _find(subject, fit, 0)
    again = _find(subject, fit, 1)
    generator = fit.data.generator
    codes = generator.lift(fit.data.latents(fit.data.tune)[:SAMPLES], found.space)
    # Editors that have not found the directions themselves, as after a stop: one for each set.
    editor = _unfitted(subject, fit)
    other_editor = _unfitted(subject, fit)
    with torch.no_grad():
        plain = generator.decode(Codes(found.space, codes))
    for place, name in enumerate(found.names):
        start = _apply(subject, editor, found, place, 0.0, codes)
        with torch.no_grad():
            seen = generator.decode(start)
        if not torch.allclose(seen, plain, rtol=0, atol=1e-5):
            raise Failed(
                f"direction '{name}' at strength 0 decodes to something other than the sample (by "
                f"up to {(seen - plain).abs().max().item():.2g})",
                "the sample itself: an atlas compares all strengths with it",
                "in `apply_direction` return codes + (change), with a change that is 0 at strength "
                "0",
            )
        size = found.strengths[-1]
        one = spelled_out(_apply(subject, editor, found, place, size, codes))
        other = spelled_out(_apply(subject, other_editor, again, place, size, codes))
        if not close(one, other, spelled_out(start)).all():
            raise Failed(
                f"direction '{name}' changes when it is found again under another global "
                "random state",
                "directions that depend on the data and data.seed alone",
                'draw from editbench.base.seeding.rng(data.seed, "name")',
            )
    return f"{len(found)} directions"


def _unfitted(subject: Subject, fit: Fit) -> Editor:
    """A new editor, which knows its generator and nothing else."""
    editor = subject.make()
    editor.bind(fit.data.generator, fit.data.teacher)
    return editor


def _find(subject: Subject, fit: Fit, seed: int) -> DirectionSet:
    """The directions of a new editor, which is not fitted."""
    editor = _unfitted(subject, fit)
    try:
        with subject.watch.running(seed):
            found = editor.fixed_directions(fit.data)
    except Unsupported as error:
        raise Skipped(f"has no directions here: {error}") from None
    except Exception as error:
        raise Failed(
            f"fixed_directions raised {describe_error(error, editor)}",
            "a DirectionSet, from an editor that is not fitted",
            "find the directions from `data` alone, as `fit` does",
        ) from None
    lengths = {name: len(tensor) for name, tensor in found.tensors.items()}
    if not len(found) or set(lengths.values()) - {len(found)} or not found.strengths:
        raise Failed(
            f"a set of {len(found)} names, {len(found.strengths)} strengths, tensors of {lengths}",
            "one name and one row of every tensor for each direction, and strengths to look at",
            "return DirectionSet(names, strengths, unit, space, tensors) with tensors of (K, ...)",
        )
    return found


def _apply(
    subject: Subject,
    editor: Editor,
    found: DirectionSet,
    place: int,
    strength: float,
    codes: torch.Tensor,
) -> Codes:
    """Codes of one direction at one strength."""
    guard = must_not_raise(
        "apply_direction",
        "Codes of a space of the generator, one for each sample, from `found` alone",
        "put all that the edit needs into the tensors and details of the DirectionSet",
        editor,
    )
    with guard, torch.no_grad(), subject.watch.running(0):
        return editor.apply_direction(found, place, strength, codes.clone())
