"""Two edits one after the other, in both orders (Khrulkov et al. 2021, section 5.2.1 and Fig. 7).

Each walk stops where the judge first sees its target class; the second walk starts where the first
stopped. The commutator is measured separately: both edits with fixed lengths, namely their numbers
of steps in the first order, once in each order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from editbench.bank.starts import Starts, draw_classes
from editbench.base import seeding
from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.base.images import to_host_bytes
from editbench.base.spaces import Codes, Space
from editbench.walk.editor import Editor, Walk
from editbench.walk.engine import WalkInputs, walk_starts
from editbench.walk.observation import AfterWalk, ObservationContext, Observed
from editbench.walk.spec import EngineSpec
from editbench.walk.trajectory import LOGIT
from editbench.walk.walker import walk_own_lengths

if TYPE_CHECKING:
    from editbench.networks.roles import Networks

# Suffixes of array names: the job's attribute first, and the second attribute first.
FORWARD = ""
REVERSED = "_reversed"
PROBED = 4  # number of starts whose codes are used to check an editor
NOT_WHOLE = (
    "a second edit starts from the end of the first: it needs an editor whose codes are one vector "
    "of W or Z a sample, without a layer range"
)
PANELS = ("start", "one edit", "both", "the other edit", "both, reversed")


class CompositionObservation(AfterWalk):
    """End points of two edits in both orders, and the distance between the end points.

    Starts are drawn from the whole test split; each lacks both target classes. The job's `target`,
    if it is set, applies to the job's attribute.

    Arrays, with one value per start. Without a suffix the job's attribute comes first, with the
    suffix '_reversed' the second attribute:

    - start: bank index.
    - crossed, crossed_reversed: whether the first edit alone crossed.
    - both, both_reversed: whether both targets hold at the end.
    - others, others_reversed: number of other attributes whose label changed.
    - distance, travelled: for the commutator, distances between the two end points and from the
      start, in codes; NaN unless both targets hold at the end in the first order and each edit made
      a step.
    - pixels: for the commutator, root mean square difference of the two images; NaN likewise.
    - pictures: (k, 5, C, H, W) uint8, of a few starts with a commutator; columns PANELS. Missing
      if there is no such start.
    """

    citation = (
        "Khrulkov, Mirvakhabova, Oseledets & Babenko: Latent Transformations via NeuralODEs, "
        "ICCV 2021, Fig. 7"
    )

    def __init__(self, then: str, n: int = 100, max_steps: int = 50, pictures: int = 4) -> None:
        """Check the options.

        Args:
            then: the second attribute.
            n: number of starts.
            max_steps: step limit of each walk.
            pictures: number of starts whose images are kept.

        Raises:
            EditbenchError: a count is too small.
        """
        if n < 1 or max_steps < 1 or pictures < 0:
            raise EditbenchError(
                "observation.composition: n and max_steps must be at least 1 and pictures at least "
                f"0, got n={n}, max_steps={max_steps}, pictures={pictures}"
            )
        self.then = str(then)
        self.n = int(n)
        self.max_steps = int(max_steps)
        self.pictures = int(pictures)

    def prepare(self, networks: Networks, device: str) -> None:
        """Check that the second attribute exists, before the job's walk.

        Raises:
            UnknownName: it is not an evaluated attribute.
        """
        known = networks.judge.attributes.names
        if self.then not in known:
            raise UnknownName("attribute in observation.composition.then", self.then, known)

    def check(self, context: ObservationContext) -> None:
        """Reject a pair of equal attributes, and editors of other spaces.

        Raises:
            Unsupported: the second attribute is the job's own, or the editor does not walk in W or
                Z.
        """
        if self.then == context.attribute:
            raise Unsupported(
                f"observation.composition.then is the job's own attribute {self.then}: name "
                "another one"
            )
        if context.editor.space not in (Space.W, Space.Z):
            raise Unsupported(NOT_WHOLE)

    def look(self, context: ObservationContext) -> Observed:
        """Walk both orders, then the commutator.

        Raises:
            Unsupported: the editor's codes are not one vector of W or Z per sample.
        """
        names = (context.attribute, self.then)
        drawn = self._draw_starts(context, names)
        check_whole(context, context.editor, context.attribute, drawn)
        assert context.editor_for is not None
        # Observations run without gradients, but a fit that is not in the cache needs them.
        with torch.enable_grad():
            then_editor = context.editor_for(self.then)
        check_whole(context, then_editor, self.then, drawn)
        editors = {context.attribute: context.editor, self.then: then_editor}
        forward = self._walk_order(context, editors, names, drawn)
        backward = self._walk_order(context, editors, names[::-1], drawn)
        arrays: dict[str, np.ndarray] = {"start": drawn.index}
        arrays |= _order_arrays(context, names, drawn, forward, FORWARD)
        arrays |= _order_arrays(context, names, drawn, backward, REVERSED)
        # A walk of zero steps (its sample already had the class) has nothing to commute.
        moved = (forward[0].steps > 0) & (forward[1].steps > 0)
        kept = np.flatnonzero(arrays["both"] & moved)
        arrays |= self._commutator(context, editors, names, drawn, forward, kept)
        few = kept[: self.pictures]
        # Many networks reject an empty batch.
        if len(few) and context.generator.output == "image":
            stages = [drawn.codes, *(stage.codes for stage in (*forward, *backward))]
            shown = [to_host_bytes(_decode(context, stage[few])) for stage in stages]
            arrays["pictures"] = torch.stack(shown, 1).numpy()
        return Observed(arrays, {"first": names[0], "then": names[1], "panels": list(PANELS)})

    def _draw_starts(self, context: ObservationContext, names: tuple[str, str]) -> _Drawn:
        """Draw starts and, for each attribute, their target classes."""
        attributes = context.judge.attributes
        first, last = context.bank.spec.split("test")
        # The names are sorted, so that the jobs (a then b) and (b then a) draw the same starts.
        rng = seeding.rng(0, "composition", context.bank.samples_key, self.n, *sorted(names))
        size = min(self.n, last - first)
        index = first + np.sort(rng.choice(last - first, size=size, replace=False))
        own = context.generator.start_space(context.editor.space).value
        codes = np.array(context.bank.array(own).take(index))
        logits = np.array(context.bank.array("judge").take(index))
        labels = attributes.labels(torch.from_numpy(logits)).numpy()
        # Each attribute has its own draw; the order does not depend on the job's attribute.
        targets = {}
        for name in sorted(names):
            item = attributes[name]
            targets[name] = draw_classes(
                labels[:, attributes.index(name)],
                rng.random(len(index)),
                len(item.classes),
                item.ordered,
            )
        lacking = np.ones(len(index), bool)
        if context.target is not None:
            # All starts have the same target; those that already have the class are left out.
            targets[context.attribute][:] = context.target
            lacking = labels[:, attributes.index(context.attribute)] != context.target
        targets = {name: target[lacking] for name, target in targets.items()}
        return _Drawn(index[lacking], codes[lacking], logits[lacking], targets)

    def _walk_order(
        self,
        context: ObservationContext,
        editors: dict[str, Editor],
        order: tuple[str, ...],
        drawn: _Drawn,
    ) -> tuple[_Stage, _Stage]:
        """Walk two edits one after the other, and return where each ended."""
        first, second = order
        one = self._walk(context, editors[first], first, drawn, drawn.codes, drawn.logits)
        both = self._walk(context, editors[second], second, drawn, one.codes, one.logits)
        return one, both

    def _walk(
        self,
        context: ObservationContext,
        editor: Editor,
        name: str,
        drawn: _Drawn,
        codes: np.ndarray,
        logits: np.ndarray,
    ) -> _Stage:
        """Walk every start to its first crossing; starts with the target class do not move."""
        attributes = context.judge.attributes
        target = drawn.targets[name]
        source = attributes.labels(torch.from_numpy(logits), name).numpy()
        # Copies, since the next edit starts from the arrays of this one.
        end = _Stage(codes.copy(), logits.copy(), source, source == target)
        going = (source != target) & end.sound & np.isfinite(codes).all(1)
        go = np.flatnonzero(going)
        if not len(go):
            return end
        # No threshold, since these starts were not drawn by their distance from the boundary.
        starts = Starts(drawn.index[go], source[go], target[go], float("nan"))
        inputs = WalkInputs(
            editor,
            context.generator,
            name,
            starts,
            torch.from_numpy(codes[go]).to(context.device),
            torch.from_numpy(logits[go]).to(context.device),
        )
        # No sweep beyond the crossing and no pictures: only the end points are needed.
        spec = EngineSpec(self.max_steps, 0, context.batch, 0)
        walked = walk_starts(inputs, context.judge, context.bank.sigma["judge"], spec)
        # Table and starts are sorted by start, so the last rows are in the order of the starts.
        last = walked.table.groupby("start").tail(1)
        columns = [f"{LOGIT}{column}" for column in attributes.columns()]
        end.codes[go] = walked.codes.float().cpu().numpy()
        end.logits[go] = last[columns].to_numpy(np.float32)
        end.arrived[go] = last["stopped"].to_numpy(bool)
        end.steps[go] = last["step"].to_numpy(np.int64)
        end.sound[go] = last["finite"].to_numpy(bool)
        return end

    def _commutator(
        self,
        context: ObservationContext,
        editors: dict[str, Editor],
        names: tuple[str, str],
        drawn: _Drawn,
        walks: tuple[_Stage, _Stage],
        kept: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Both edits in each order, with the source classes and lengths of `walks`.

        Args:
            context: editors, networks and bank of the job.
            editors: by attribute.
            names: the two attributes.
            drawn: the starts.
            walks: of the first order; their lengths are repeated.
            kept: positions of the starts that have a commutator; the others are NaN.
        """
        out = {}
        for array in ("distance", "travelled", "pixels"):
            out[array] = np.full(len(drawn.index), np.nan)
        if not len(kept):
            return out
        begin = drawn.codes[kept]
        ends = []
        # Both orders use the lengths of the first order, so only the order differs.
        for order in ((0, 1), (1, 0)):
            at = begin
            for k in order:
                at = advance(
                    editors[names[k]],
                    names[k],
                    drawn.index[kept],
                    at,
                    walks[k].source[kept],
                    drawn.targets[names[k]][kept],
                    walks[k].steps[kept],
                    context.device,
                )
            ends.append(at)
        a, b = ends
        out["distance"][kept] = np.linalg.norm(a - b, axis=1)
        # The mean distance covered in both orders, by which the distance of the ends is divided.
        out["travelled"][kept] = (
            np.linalg.norm(a - begin, axis=1) + np.linalg.norm(b - begin, axis=1)
        ) / 2
        if context.generator.output == "image":
            for first in range(0, len(kept), context.batch):
                part = slice(first, first + context.batch)
                # Clamped as pictures are shown; root mean square over channels and pixels.
                images = [_decode(context, end[part]).clamp(-1, 1) for end in ends]
                gap = (images[0] - images[1]).flatten(1).square().mean(1).sqrt()
                out["pixels"][kept[part]] = gap.cpu().numpy()
        return out


@dataclass(frozen=True)
class _Drawn:
    """The starts of all walks."""

    index: np.ndarray  # (n,) bank indices, ascending
    codes: np.ndarray  # (n, d) their own latents
    logits: np.ndarray  # (n, width) of the judge
    targets: dict[str, np.ndarray]  # attribute -> (n,) classes


class _Stage:
    """Where the walks of one edit ended, and their source classes."""

    def __init__(
        self, codes: np.ndarray, logits: np.ndarray, source: np.ndarray, arrived: np.ndarray
    ) -> None:
        self.codes = codes  # (n, d)
        self.logits = logits  # (n, width)
        self.source = source  # (n,) classes
        self.arrived = arrived  # (n,) bool
        self.sound = np.isfinite(logits).all(1)  # (n,) bool
        self.steps = np.zeros(len(codes), np.int64)


def check_whole(context: ObservationContext, editor: Editor, name: str, drawn: _Drawn) -> None:
    """Reject an editor that moves only some rows of W+, by its options or by its search.

    Its images are made from other codes than those that the next edit would start from.

    Args:
        context: what is edited.
        editor: fitted for the attribute.
        name: the attribute.
        drawn: the starts.

    Raises:
        Unsupported: its codes are of another space than its walk.
    """
    count = min(PROBED, len(drawn.index))
    origin = torch.from_numpy(drawn.codes[:count]).to(context.device)
    labels = context.judge.attributes.labels(torch.from_numpy(drawn.logits[:count]), name)
    for target in range(len(context.judge.attributes[name].classes)):
        # Codes that have moved: at step 0 an editor of rows may give the plain ones.
        walk = Walk(
            name,
            torch.from_numpy(drawn.index[:count]).to(context.device),
            origin,
            origin + 1,
            labels.to(context.device),
            torch.full_like(labels, target).to(context.device),
            latent=origin,
        )
        if editor.codes(walk).space != editor.space:
            raise Unsupported(NOT_WHOLE)


def _order_arrays(
    context: ObservationContext,
    names: tuple[str, str],
    drawn: _Drawn,
    walks: tuple[_Stage, _Stage],
    suffix: str,
) -> dict[str, np.ndarray]:
    """Success of one order: of its first edit alone, of both, and what else changed."""
    attributes: Attributes = context.judge.attributes
    one, both = walks
    before = attributes.labels(torch.from_numpy(drawn.logits)).numpy()
    labels = attributes.labels(torch.from_numpy(both.logits)).numpy()
    place = [attributes.index(name) for name in names]
    # The first edit must have arrived, and its class must still hold after the second.
    holds = one.arrived & both.sound
    for k, name in zip(place, names):
        holds = holds & (labels[:, k] == drawn.targets[name])
    others = np.delete(np.arange(before.shape[1]), place)
    return {
        f"crossed{suffix}": one.arrived,
        f"both{suffix}": holds,
        f"others{suffix}": (labels != before)[:, others].sum(1),
    }


def _decode(context: ObservationContext, codes: np.ndarray) -> Tensor:
    values = torch.from_numpy(codes).to(context.device)
    return context.generator.decode(Codes(context.editor.space, values))


def advance(
    editor: Editor,
    name: str,
    index: np.ndarray,
    codes: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    steps: np.ndarray,
    device: str,
) -> np.ndarray:
    """Walk each sample for its own number of steps; nothing is decoded.

    Args:
        editor: gives the steps.
        name: the attribute.
        index: (n,) bank indices.
        codes: (n, d) where the samples are.
        source: (n,) classes that they leave.
        target: (n,) classes that they are sent to.
        steps: (n,) how many to make.
        device: where to walk.

    Returns:
        (n, d) codes.
    """
    at = torch.from_numpy(codes).to(device)
    walk = Walk(
        name,
        torch.from_numpy(index).to(device),
        at,
        at,
        torch.from_numpy(source).to(device),
        torch.from_numpy(target).to(device),
        latent=at,
    )
    lengths = torch.from_numpy(steps).to(device)
    return walk_own_lengths(editor, walk, lengths).cpu().numpy()
