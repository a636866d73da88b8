"""The engine: runs an editor from every start until the judge sees the target class.

All samples move in lockstep. The codes come from the step loop (editbench.walk.walker). The engine
decodes them, lets the judge score the images, records one row per sample and step, and ends the
walks that have crossed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from editbench.bank.starts import Starts
from editbench.base.attributes import Attributes
from editbench.base.batches import Batches
from editbench.base.devices import to_device, to_host
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.images import to_bytes
from editbench.base.precision import COARSER
from editbench.base.progress import progress
from editbench.base.spaces import Codes
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.walk.editor import Editor, Walk
from editbench.walk.observation import WalkObserver
from editbench.walk.spec import EngineSpec
from editbench.walk.trajectory import LOGIT
from editbench.walk.walker import StridedWalker, Walker, codes_to_decode

# Largest accepted difference between a start's logits and those in the bank, in sigmas of each
# logit. A different batch size changes float32 logits by less, a different image by more.
IDENTITY_TOLERANCE = 1e-3


class Pictures:
    """Images of the first starts at every step."""

    def __init__(self, starts: np.ndarray) -> None:
        """Start without images.

        Args:
            starts: (k,) bank indices of the starts whose images are kept.
        """
        self.starts = starts
        self.images: list[Tensor] = []  # uint8 (C, H, W) each
        self.start: list[int] = []  # bank index of each image
        self.step: list[int] = []  # step of each image
        self._waiting: list[Tensor] = []  # uint8 (n, C, H, W) of this step, still on the device

    def chosen(self, place: np.ndarray, decoded: Tensor) -> Tensor:
        """The images of a batch that are to be kept, as uint8 on their device.

        Args:
            place: (n,) positions of the batch's samples among the starts, ascending.
            decoded: (n, C, H, W) images in [-1, 1].
        """
        return to_bytes(decoded[: int((place < len(self.starts)).sum())])

    def add(self, place: np.ndarray, step: int, chosen: Tensor) -> None:
        """Queue what `chosen` returned for a batch at a step, until `take` stores the images.

        Args:
            place: (n,) positions of the batch's samples among the starts, ascending.
            step: of the walk, from 0.
            chosen: uint8 (k, C, H, W) images of the first k samples of the batch, on their device.
        """
        count = len(chosen)
        if count:
            self._waiting.append(chosen)
            # `place` is ascending, so the images are those of the first samples.
            self.start.extend(self.starts[place[:count]].tolist())
            self.step.extend([step] * count)

    def waiting(self, like: Tensor) -> Tensor:
        """Return the queued images of this step for the copy to the host, and clear the queue.

        Args:
            like: gives the device of an empty result.
        """
        parts = self._waiting
        self._waiting = []
        return torch.cat(parts) if parts else like.new_empty(0, dtype=torch.uint8)

    def take(self, images: Tensor) -> None:
        """Store the images (n, C, H, W) that `waiting` returned, after their copy to the host."""
        self.images.extend(images.contiguous())


@dataclass
class WalkResult:
    """The result of walking n starts."""

    table: pd.DataFrame  # the columns of editbench.walk.trajectory, sorted by start and step
    codes: Tensor  # (n, ...) last codes of each start, in the editor's space
    pictures: Pictures
    seconds: float  # duration of the walk, without the time of its observations
    decoded: int  # samples that the engine and its observations decoded


@dataclass(frozen=True)
class WalkInputs:
    """What a walk begins with.

    Args:
        editor: fitted for the attribute.
        generator: decodes the codes of every step.
        attribute: the target attribute.
        starts: n starts with their source and target classes.
        codes: (n, ...) the starts' own z for an editor of Z, otherwise their w (z if the generator
            has no W). The walk begins at these codes, lifted to the editor's space.
        logits: (n, width) the judge's logits of the starts, from the bank.
    """

    editor: Editor
    generator: Generator
    attribute: str
    starts: Starts
    codes: Tensor
    logits: Tensor


@torch.no_grad()
def walk_starts(
    inputs: WalkInputs,
    judge: Scorer,
    sigma: np.ndarray,
    spec: EngineSpec,
    codes_file: Path | None = None,
    observer: WalkObserver | None = None,
    stride: float | None = None,
) -> WalkResult:
    """Walk every start until the judge sees its target class, and at least `sweep_steps` steps.

    With `spec.refine`, the row of the first crossing describes a point between the last two steps,
    just past the decision boundary. The walk itself continues from the whole step.

    Args:
        inputs: the n starts, and the editor that moves them.
        judge: scores every step; a start has crossed when the judge sees its target class.
        sigma: (width,) standard deviation of each of the judge's log-odds.
        spec: step limits and batch size.
        codes_file: parquet file (start, step, codes) for the codes of every step, written during
            the walk; None writes no file.
        observer: measures further columns of every decoded sample.
        stride: number of the editor's own steps in one step of the walk; None means one, without
            interpolation.

    Raises:
        EditbenchError: the editor breaks its contract.
        BadFile: the starts do not decode to the bank's images.
    """
    began = time.perf_counter()
    observer = observer or WalkObserver()
    editor = inputs.editor
    generator = inputs.generator
    starts = inputs.starts
    device = inputs.codes.device
    batches = Batches(int(spec.batch), f"walk of {inputs.attribute}", generator)
    decoder = _Decoder(editor, generator, judge, batches, observer)
    walk = begin_walk(editor, generator, inputs.attribute, starts, inputs.codes)
    pictures = Pictures(starts.index[: spec.pictures])
    _check_start(walk, decoder, inputs.logits, sigma, pictures)
    observer.start(walk, codes_to_decode(editor, walk), generator, batches)
    # These samples were decoded, but their cost is not charged to the method.
    decoder.decoded += observer.decoded

    ends = walk.codes.clone()  # one row per start
    underway = _Underway(walk)
    # No start counts as crossed at step 0: its source is not its target.
    never = torch.zeros_like(underway.crossed)
    rows = _Rows(judge.attributes)
    unedited = _Judged(walk, inputs.logits, observer.take_columns())
    rows.add(unedited, underway.path, underway.crossed, never, ~never)
    walker = Walker(editor, walk) if stride is None else StridedWalker(editor, walk, stride)
    with (
        _CodesFile(codes_file) as store,
        progress(f"{inputs.attribute}: steps", spec.max_steps) as advance,
    ):
        store.add(starts.index, 0, *to_host(*store.wanted(walk)))
        before = walk
        for walk in walker.steps(spec.max_steps):
            judged, path, stopped, finite = _judge_step(
                before, walk, underway, decoder, pictures, spec.refine
            )
            rows.add(judged, path, underway.crossed, stopped, finite)
            # A walk that has crossed goes on up to `sweep_steps`; one that is not finite ends now.
            going = finite & (~underway.crossed | (walk.steps < spec.sweep_steps))
            # One transfer for all that the host needs of a step, so that the device waits once.
            shown = pictures.waiting(inputs.codes)
            going_here, shown, *kept = to_host(going, shown, *store.wanted(judged.walk))
            pictures.take(shown)
            store.add(starts.index[underway.place], walk.steps, *kept)
            on = to_device(going_here.nonzero()[:, 0], device)
            ends[to_device(torch.from_numpy(underway.place), device)] = judged.walk.codes
            walker.keep(on)
            underway.keep(going_here, on)
            before = walker.walk
            advance()
    table = rows.frame().sort_values(["start", "step"], ignore_index=True)
    seconds = time.perf_counter() - began - observer.seconds
    return WalkResult(table, ends, pictures, seconds, decoder.decoded)


def begin_walk(
    editor: Editor, generator: Generator, attribute: str, starts: Starts, codes: Tensor
) -> Walk:
    """All starts at step 0, in the editor's space.

    Args:
        editor: whose space it is.
        generator: of the codes.
        attribute: the target attribute.
        starts: n starts with their source and target classes.
        codes: (n, ...) as of `WalkInputs`.
    """
    device = codes.device
    # The same tensor is origin and codes: steps return new codes and change none in place.
    lifted = generator.lift(codes, editor.space)
    return Walk(
        attribute,
        torch.from_numpy(starts.index).to(device),
        lifted,
        lifted,
        torch.from_numpy(starts.source).to(device),
        torch.from_numpy(starts.target).to(device),
        latent=codes,
    )


@dataclass(frozen=True)
class _Judged:
    """What n samples of a step are judged by."""

    walk: Walk  # where they were decoded
    logits: Tensor  # (n, width) of the judge
    observed: dict[str, Tensor]  # (n,) columns of the observations


class _Underway:
    """The samples that still walk, n of the starts, and how far they have come.

    Attributes:
        place: (n,) their positions among the starts, ascending; on the host.
        crossed: (n,) bool.
        path: (n,) length walked so far.
    """

    def __init__(self, walk: Walk) -> None:
        self.place = np.arange(len(walk))
        self.crossed = torch.zeros(len(walk), dtype=torch.bool, device=walk.codes.device)
        self.path = torch.zeros(len(walk), device=walk.codes.device)

    def keep(self, going: Tensor, rows: Tensor) -> None:
        """Continue with some of the samples and drop the others.

        Args:
            going: (n,) bool, on the host.
            rows: (k,) indices of the same samples, on the device.
        """
        self.place = self.place[going.numpy()]
        self.crossed = self.crossed[rows]
        self.path = self.path[rows]


def _judge_step(
    before: Walk,
    walk: Walk,
    underway: _Underway,
    decoder: _Decoder,
    pictures: Pictures,
    halvings: int,
) -> tuple[_Judged, Tensor, Tensor, Tensor]:
    """Judge a step of n samples, and update how far they have come.

    Args:
        before: the samples before the step.
        walk: the same samples after it.
        underway: their paths and crossings before the step; updated.
        decoder: decodes and judges them.
        pictures: keeps the images of the first starts.
        halvings: of the step in which a sample crosses, to locate the boundary; 0 judges it after
            the whole step.

    Returns:
        judged: the samples where they are judged.
        path: (n,) lengths walked to there; `underway.path` is to the end of the step.
        stopped: (n,) bool, whether a sample crosses for the first time.
        finite: (n,) bool, whether codes and logits are finite.
    """
    judged = decoder(walk, underway.place, pictures)
    finite = judged.logits.isfinite().all(1) & walk.codes.isfinite().flatten(1).all(1)
    labels = decoder.judge.attributes.labels(judged.logits, walk.attribute)
    arrived = finite & (labels == walk.target)
    stopped = arrived & ~underway.crossed
    underway.crossed = underway.crossed | arrived
    path_before = underway.path
    underway.path = path_before + _length(before, walk)
    path = underway.path
    if halvings and bool(stopped.any()):
        first = stopped.nonzero()[:, 0]
        judged = decoder.refine(before, judged, first, underway.place, pictures, halvings)
        path = path_before + _length(before, judged.walk)
    return judged, path, stopped, finite


class _Decoder:
    """Decodes and judges the samples of a walk, in batches; no image outlives its batch."""

    def __init__(
        self,
        editor: Editor,
        generator: Generator,
        judge: Scorer,
        batches: Batches,
        observer: WalkObserver,
    ) -> None:
        self.editor = editor
        self.generator = generator
        self.judge = judge
        self.batches = batches
        self.observer = observer
        self.pictured = generator.output == "image"
        self.decoded = 0

    def __call__(self, walk: Walk, place: np.ndarray, pictures: Pictures) -> _Judged:
        """Decode, score, picture and observe n samples.

        Args:
            walk: n samples.
            place: (n,) their positions among the starts.
            pictures: keeps the images of the first starts.
        """
        codes = codes_to_decode(self.editor, walk)

        def work(rows: slice) -> Tensor:
            decoded = self.generator.decode(codes[rows])
            # Thresholds and files are float32, whatever precision the judge computes in.
            scored = self.judge(decoded).float()
            # A batch that runs out of memory is repeated in parts, so results are stored last.
            shown = pictures.chosen(place[rows], decoded) if self.pictured else None
            self.observer.measure(walk[rows], codes[rows], decoded)
            if shown is not None:
                pictures.add(place[rows], walk.steps, shown)
            return scored

        logits = self._run(codes, work)
        return _Judged(walk, logits, self.observer.take_columns())

    def refine(
        self,
        before: Walk,
        judged: _Judged,
        first: Tensor,
        place: np.ndarray,
        pictures: Pictures,
        halvings: int,
    ) -> _Judged:
        """Judge the samples that cross at the boundary instead of after the whole step.

        Args:
            before: all n samples before the step.
            judged: the same samples after the step.
            first: (k,) rows of the samples that cross in this step.
            place: (n,) their positions among the starts.
            pictures: keeps the images of the first starts.
            halvings: number of halvings of the step.
        """
        walk = judged.walk
        near, near_logits = self._boundary(
            before[first], walk[first], judged.logits[first], halvings
        )
        at = place[first.cpu().numpy()]
        # Decoded once more only for observations, and for the starts whose images are kept.
        count = len(at) if judged.observed else int((at < len(pictures.starts)).sum())
        observed = {}
        if count:
            shown = self(near[:count], at[:count], pictures)
            for name, values in judged.observed.items():
                observed[name] = values.index_copy(0, first, shown.observed[name])
        return _Judged(
            replace(walk, codes=walk.codes.index_copy(0, first, near.codes)),
            judged.logits.index_copy(0, first, near_logits),
            observed,
        )

    def _boundary(
        self, before: Walk, after: Walk, logits: Tensor, halvings: int
    ) -> tuple[Walk, Tensor]:
        """Locate the crossing by bisection on the straight line of the step that crosses.

        Each halving keeps the half whose end, but not whose beginning, the judge assigns to the
        target class.

        Args:
            before: n samples before the step.
            after: the same samples after the step, in the target class.
            logits: (n, width) the judge's logits of `after`.
            halvings: number of halvings.

        Returns:
            The samples just past the boundary, and their logits (n, width).
        """
        attributes = self.judge.attributes
        for _ in range(halvings):
            middle = replace(after, codes=(before.codes + after.codes) / 2)
            found = self._score(middle)
            labels = attributes.labels(found, after.attribute)
            arrived = found.isfinite().all(1) & (labels == after.target)
            # torch.where chooses each sample's half on the device, so the host need not wait.
            behind = arrived.view(-1, *[1] * (after.codes.ndim - 1))
            before = replace(before, codes=torch.where(behind, before.codes, middle.codes))
            after = replace(after, codes=torch.where(behind, middle.codes, after.codes))
            logits = torch.where(arrived[:, None], found, logits)
        return after, logits

    def _score(self, walk: Walk) -> Tensor:
        """The judge's logits (n, width) of samples, without pictures or observations."""
        codes = codes_to_decode(self.editor, walk)

        def work(rows: slice) -> Tensor:
            return self.judge(self.generator.decode(codes[rows])).float()

        return self._run(codes, work)

    def _run(self, codes: Codes, work: Callable[[slice], Tensor]) -> Tensor:
        self.decoded += len(codes)
        return torch.cat(self.batches.run(len(codes), work))


def _length(before: Walk, after: Walk) -> Tensor:
    """How far each sample moved (n,), in units of the editor's space."""
    return (after.codes - before.codes).flatten(1).norm(dim=1)


def _check_start(
    walk: Walk, decoder: _Decoder, logits: Tensor, sigma: np.ndarray, pictures: Pictures
) -> None:
    """Check that step 0 is the identity: its codes are the starts', and its logits are the bank's.

    A few images are enough for the logits, since a wrong generator or judge changes all of them.
    """
    codes = codes_to_decode(decoder.editor, walk)
    assert walk.latent is not None
    own = decoder.generator.lift(walk.latent, codes.space)
    same = codes.values.shape == own.shape and torch.allclose(
        codes.values, own, rtol=1e-5, atol=1e-5
    )
    if codes.shift is not None and bool((codes.shift.magnitude != 0).any()):
        same = False
    if not same:
        raise EditbenchError(
            f"{type(decoder.editor).__name__}.codes changes the starts at step 0: return exactly "
            "the start's codes where walk.codes equals walk.origin"
        )
    count = min(len(walk), max(len(pictures.starts), 1))
    found = decoder(walk[:count], np.arange(count), pictures).logits
    pictures.take(*to_host(pictures.waiting(found)))
    gap = (found - logits[:count]).abs() / torch.from_numpy(sigma).to(logits)
    # Written so that a NaN fails the check too.
    if not bool((gap < IDENTITY_TOLERANCE * COARSER[decoder.generator.precision]).all()):
        raise BadFile(
            f"the judge's logits of the starts differ from the bank's by {gap.max():.2g} sigma: "
            "the bank was built with another generator or judge; use those, or build a bank with "
            "the current ones"
        )


class _Rows:
    """Collects the rows of the trajectories: one per sample that still walks and step.

    The columns stay on the device until the walk has ended, about a hundred bytes per row.
    """

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self.steps: list[dict[str, Tensor]] = []
        self.logits: list[Tensor] = []

    def add(
        self,
        judged: _Judged,
        path: Tensor,
        crossed: Tensor,
        stopped: Tensor,
        finite: Tensor,
    ) -> None:
        """Add one step of n samples.

        Args:
            judged: the samples after the step.
            path: (n,) length walked so far.
            crossed: (n,) bool, at or before this step.
            stopped: (n,) bool, at this step for the first time.
            finite: (n,) bool, whether codes and logits are finite.
        """
        walk = judged.walk
        columns = {
            "start": walk.start,
            "source": walk.source,
            "target": walk.target,
            "step": torch.full_like(walk.start, walk.steps),
            "path": path,
            "crossed": crossed,
            "stopped": stopped,
            "finite": finite,
        }
        self.steps.append(columns | judged.observed)
        self.logits.append(judged.logits.float())

    def frame(self) -> pd.DataFrame:
        """The table, with rows in the order in which they were added."""
        names = list(self.steps[0])
        whole = [torch.cat([step[name] for step in self.steps]) for name in names]
        logits, *columns = to_host(torch.cat(self.logits), *whole)
        frame = pd.DataFrame({name: value.numpy() for name, value in zip(names, columns)})
        values = logits.numpy()
        # One `assign` for all columns; pandas would copy the frame for each column set by itself.
        return frame.assign(
            **{f"{LOGIT}{name}": values[:, k] for k, name in enumerate(self.attributes.columns())}
        )


class _CodesFile:
    """Parquet file that grows by the codes of every step; its columns are start, step and codes.

    The writer is opened at the first step, since the width of the codes decides the schema.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _CodesFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def wanted(self, walk: Walk) -> list[Tensor]:
        """The tensors that `add` needs from the device: the codes as float32; none without a
        file."""
        if self.path is None or not len(walk):
            return []
        return [walk.codes.flatten(1).float()]

    def add(self, start: np.ndarray, step: int, *codes: Tensor) -> None:
        """Write the codes of all samples under way.

        Args:
            start: (n,) bank indices.
            step: number of the step.
            codes: (n, d) what `wanted` returned, on the host.
        """
        for values in codes:
            self._write(start, step, values.numpy())

    def _write(self, start: np.ndarray, step: int, codes: np.ndarray) -> None:
        values = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codes.shape[1])
        table = pa.table(
            {
                "start": start,
                "step": np.full(len(start), step, np.int32),
                "codes": values,
            }
        )
        if self.writer is None:
            # Dictionary encoding only for the starts, which repeat at every step, unlike codes.
            self.writer = pq.ParquetWriter(
                self.path, table.schema, compression="zstd", use_dictionary=["start"]
            )
        self.writer.write_table(table)
