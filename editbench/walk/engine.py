"""One walk: starts -> editor -> decode -> judge -> stop, all active samples in lock-step, every code decoded once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from editbench.bank.starts import Starts
from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.images import to_uint8
from editbench.base.precision import COARSER
from editbench.base.progress import progress
from editbench.base.validation import check_at_least, check_fields
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.walk.editor import Editor, Walk
from editbench.walk.gauge import Gauges

IDENTITY_TOLERANCE = 1e-3  # of a logit's sigma: the start's image must be the bank's image


@dataclass(frozen=True)
class EngineSpec:
    """max_steps: a start not crossed by then is a failure. sweep_steps: every start walks at least so far, also past
    its crossing, which gives dependency its range of effects. batch: samples decoded together. pictures: starts whose
    images are kept."""

    max_steps: int = 50
    sweep_steps: int = 0
    batch: int = 64
    pictures: int = 6

    def __post_init__(self) -> None:
        check_fields("engine", self)
        check_at_least("engine.max_steps", self.max_steps, 1)
        check_at_least("engine.batch", self.batch, 1)
        check_at_least("engine.sweep_steps", self.sweep_steps, 0)
        check_at_least("engine.pictures", self.pictures, 0)


@dataclass
class Pictures:
    """Images of a few starts at every step: lists that grow with the walk."""

    starts: Tensor
    images: list[Tensor] = field(default_factory=list)  # uint8 (C, H, W)
    start: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)

    def add(self, start: Tensor, step: int, decoded: Tensor) -> None:
        rows = torch.isin(start, self.starts).nonzero()[:, 0]
        for row in rows.tolist():
            self.images.append(to_uint8(decoded[row]))
            self.start.append(int(start[row]))
            self.step.append(step)


@dataclass
class WalkResult:
    """table: the columns of editbench.trajectory; pictures; seconds of the walk, less its gauges'; decoded samples."""

    table: pd.DataFrame
    pictures: Pictures
    seconds: float
    decoded: int


@torch.no_grad()
def walk_starts(
    editor: Editor,
    generator: Generator,
    judge: Scorer,
    attribute: str,
    starts: Starts,
    codes: Tensor,
    logits: Tensor,
    sigma: np.ndarray,
    spec: EngineSpec,
    codes_file: Path | None = None,
    gauges: Gauges | None = None,
) -> WalkResult:
    """Walk every start until the judge sees the target class, then on to `sweep_steps`.

    Args:
        codes: (n, z_dim or w_dim) the starts' own z for an editor of Z, otherwise their w (z where there is no W); the
            walk begins at these codes as the editor's space has them. logits: (n, width) the judge's logits of them.
        sigma: (width,) of the judge's log-odds.
        codes_file: where the codes of every step go (parquet: start, step, codes), written as the walk goes.
        gauges: what else is measured of every decoded sample: a column each.
    """
    attributes, device = judge.attributes, codes.device
    began = time.perf_counter()
    gauges = gauges or Gauges()
    decoder = _Decoder(editor, generator, judge, spec.batch, gauges)
    index = torch.from_numpy(starts.index).to(device)
    lifted = generator.lift(codes, editor.space)
    walk = Walk(
        attribute,
        index,
        lifted,
        lifted,
        torch.from_numpy(starts.source).to(device),
        torch.from_numpy(starts.target).to(device),
        latent=codes,
    )
    pictures = Pictures(index[: spec.pictures])
    _check_start(walk, decoder, logits, sigma, pictures)
    gauges.start(walk, editor.codes(walk), generator, spec.batch)
    decoder.decoded += gauges.decoded

    crossed = torch.zeros(len(walk), dtype=torch.bool, device=device)
    path = torch.zeros(len(walk), device=device)
    never = torch.zeros_like(crossed)
    frames = [_frame(walk, path, crossed, never, ~never, logits, attributes, gauges)]
    with (
        _CodesFile(codes_file) as store,
        progress(f"{attribute}: steps", spec.max_steps) as advance,
    ):
        store.add(walk)
        while len(walk) and walk.steps < spec.max_steps:
            moved = editor.step(walk)
            if moved.shape != walk.codes.shape:
                raise EditbenchError(
                    f"{type(editor).__name__}.step returned codes of shape {tuple(moved.shape)}, "
                    f"expected {tuple(walk.codes.shape)}"
                )
            path = path + (moved - walk.codes).flatten(1).norm(dim=1)
            walk.codes, walk.steps = moved, walk.steps + 1
            logits = decoder(walk, pictures)
            finite = torch.isfinite(logits).all(1) & torch.isfinite(moved).flatten(1).all(1)
            arrived = finite & (attributes.labels(logits, attribute) == walk.target)
            stopped = arrived & ~crossed
            crossed = crossed | arrived
            frames.append(_frame(walk, path, crossed, stopped, finite, logits, attributes, gauges))
            store.add(walk)
            keep = finite & (~crossed | (walk.steps < spec.sweep_steps))
            walk, path, crossed = walk[keep], path[keep], crossed[keep]
            advance()
    table = pd.concat(frames, ignore_index=True).sort_values(["start", "step"], ignore_index=True)
    return WalkResult(
        table, pictures, time.perf_counter() - began - gauges.seconds, decoder.decoded
    )


class _Decoder:
    """Codes of a walk -> judge logits, in batches; images live no longer than their batch."""

    def __init__(
        self, editor: Editor, generator: Generator, judge: Scorer, batch: int, gauges: Gauges
    ) -> None:
        self.editor, self.generator, self.judge, self.batch = editor, generator, judge, batch
        self.gauges = gauges
        self.decoded = 0

    def __call__(self, walk: Walk, pictures: Pictures) -> Tensor:
        codes = self.editor.codes(walk)
        parts = []
        for first in range(0, len(codes), self.batch):
            rows = slice(first, first + self.batch)
            decoded = self.generator.decode(codes[rows])
            parts.append(self.judge(decoded).float())
            self.gauges.measure(walk[rows], codes[rows], decoded)
            if self.generator.output == "image":
                pictures.add(walk.start[rows], walk.steps, decoded)
        self.decoded += len(codes)
        return torch.cat(parts)


def _check_start(
    walk: Walk, decoder: _Decoder, logits: Tensor, sigma: np.ndarray, pictures: Pictures
) -> None:
    """Step 0 is the exact identity: the editor's codes are the starts', and a few decode to the bank's image."""
    codes = decoder.editor.codes(walk)
    assert walk.latent is not None
    own = decoder.generator.lift(walk.latent, codes.space)
    if (
        codes.values.shape != own.shape
        or not torch.allclose(codes.values, own, rtol=1e-5, atol=1e-5)
        or (codes.shift is not None and bool((codes.shift.magnitude != 0).any()))
    ):
        raise EditbenchError(
            f"{type(decoder.editor).__name__}.codes changes the starts at step 0: give exactly the "
            "start's codes where walk.codes equals walk.origin"
        )
    few = torch.arange(min(len(walk), max(len(pictures.starts), 1)), device=walk.codes.device)
    gap = (decoder(walk[few], pictures) - logits[few]).abs() / torch.from_numpy(sigma).to(logits)
    if not bool((gap < IDENTITY_TOLERANCE * COARSER[decoder.generator.precision]).all()):
        raise BadFile(
            f"the starts decode to other images than the bank's (judge logits differ by {gap.max():.2g} "
            "sigma): the editor changes codes at step 0, or the bank belongs to another generator or judge"
        )


def _frame(
    walk: Walk,
    path: Tensor,
    crossed: Tensor,
    stopped: Tensor,
    finite: Tensor,
    logits: Tensor,
    attributes: Attributes,
    gauges: Gauges,
) -> pd.DataFrame:
    columns = {
        "start": walk.start,
        "source": walk.source,
        "target": walk.target,
        "step": torch.full_like(walk.start, walk.steps),
        "path": path,
        "crossed": crossed,
        "stopped": stopped,
        "finite": finite,
    } | gauges.take()
    frame = pd.DataFrame({name: value.cpu().numpy() for name, value in columns.items()})
    values = logits.float().cpu().numpy()
    return frame.assign(
        **{f"logit:{name}": values[:, k] for k, name in enumerate(attributes.columns())}
    )


class _CodesFile:
    """A growing parquet file of what was decoded: start, step, and the walk's codes."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _CodesFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def add(self, walk: Walk) -> None:
        if self.path is None or not len(walk):
            return
        flat = walk.codes.flatten(1).float().cpu().numpy()
        values = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
        table = pa.table(
            {
                "start": walk.start.cpu().numpy(),
                "step": np.full(len(walk), walk.steps, np.int32),
                "codes": values,
            }
        )
        if self.writer is None:
            self.writer = pq.ParquetWriter(
                self.path, table.schema, compression="zstd", use_dictionary=["start"]
            )
        self.writer.write_table(table)
