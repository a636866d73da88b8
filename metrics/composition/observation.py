"""Two edits one after the other, in both orders (Khrulkov et al. 2021, section 5.2.1 and Fig. 7).

Each walk stops where the judge first sees its target class; the second starts from where the first stopped. Beside it
the commutator: both edits at fixed lengths, the steps that they took in the first order, once in either order.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from editbench.bank.starts import Starts, draw_classes
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.images import to_uint8
from editbench.base.seeding import generator as random
from editbench.base.spaces import Codes, Space
from editbench.walk.editor import Editor, Walk
from editbench.walk.engine import EngineSpec, walk_starts
from editbench.walk.probe import Probe, ProbeData, Scene

ORDERS = ("", "_reversed")  # the job's attribute first; `then` first
PANELS = ("start", "one edit", "both", "the other edit", "both, reversed")


class Composition(Probe):
    """Arrays, a value a start: start; for each order crossed{} (the first edit alone arrived), both{} (both targets at
    the end), others{} (other attributes whose label changed); of the commutator distance and travelled (of the codes)
    and pixels (root mean square difference of the two pictures), where both arrived in the first order and neither came
    for nothing, NaN elsewhere. pictures (k, 5, C, H, W) uint8 of a few of these, columns PANELS.

    Starts are drawn from the whole test split; each lacks both target classes. The job's `target`, where there is one,
    is that of its attribute.

    Args:
        then: the second attribute.
        n: starts. max_steps: cap of each walk. pictures: starts whose pictures are kept.
    """

    citation = "Khrulkov, Mirvakhabova, Oseledets & Babenko: Latent Transformations via NeuralODEs, ICCV 2021, Fig. 7"

    def __init__(self, then: str, n: int = 100, max_steps: int = 50, pictures: int = 4) -> None:
        if n < 1 or max_steps < 1 or pictures < 0:
            raise EditbenchError(
                "probe.composition: n and max_steps are at least 1 and pictures is not negative, got "
                f"n={n}, max_steps={max_steps}, pictures={pictures}"
            )
        self.then, self.n, self.max_steps, self.pictures = (
            str(then),
            int(n),
            int(max_steps),
            int(pictures),
        )

    def look(self, scene: Scene) -> ProbeData:
        names = (scene.attribute, self.then)
        scene.judge.attributes[self.then]
        if self.then == scene.attribute:
            raise Unsupported(
                f"probe.composition.then is the job's own attribute {self.then}: name another one"
            )
        if scene.editor.space not in (Space.W, Space.Z) or any(
            scene.editor.rows(name) for name in names
        ):
            raise Unsupported(
                "a second edit starts from the end of the first: it needs an editor whose codes are one "
                "vector of W or Z a sample, without a layer range"
            )
        assert scene.editor_for is not None
        with torch.enable_grad():  # a fit, unless it is in the cache
            editors = {scene.attribute: scene.editor, self.then: scene.editor_for(self.then)}
        index, codes, logits, targets = self._draw(scene, names)
        arrays: dict[str, np.ndarray] = {"start": index}
        place = [scene.judge.attributes.index(name) for name in names]
        before = scene.judge.attributes.labels(torch.from_numpy(logits)).numpy()
        others = np.delete(np.arange(before.shape[1]), place)
        walks = {}
        for order, suffix in zip((names, names[::-1]), ORDERS):
            first = self._walk(
                scene, editors[order[0]], order[0], index, codes, logits, targets[order[0]]
            )
            second = self._walk(
                scene,
                editors[order[1]],
                order[1],
                index,
                first.codes,
                first.logits,
                targets[order[1]],
            )
            labels = scene.judge.attributes.labels(torch.from_numpy(second.logits)).numpy()
            arrays[f"crossed{suffix}"] = first.arrived
            arrays[f"both{suffix}"] = (
                first.arrived
                & second.sound
                & np.all([labels[:, k] == targets[name] for k, name in zip(place, names)], 0)
            )
            arrays[f"others{suffix}"] = (labels != before)[:, others].sum(1)
            walks[suffix] = first, second
        kept = np.flatnonzero(arrays["both"] & (walks[""][0].steps > 0) & (walks[""][1].steps > 0))
        arrays |= self._commutator(scene, editors, names, index, codes, targets, walks[""], kept)
        if self.pictures and scene.generator.output == "image":
            few = kept[: self.pictures]
            stages = (codes, *(walk.codes for suffix in ORDERS for walk in walks[suffix]))
            shown = [to_uint8(self._decode(scene, stage[few])) for stage in stages]
            arrays["pictures"] = torch.stack(shown, 1).numpy()
        return ProbeData(arrays, {"first": names[0], "then": names[1], "panels": list(PANELS)})

    def _draw(
        self, scene: Scene, names: tuple[str, str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
        """Bank indices, their codes and judge logits, and the target class of each attribute."""
        first, last = scene.bank.spec.split("test")
        rng = random(0, "composition", scene.bank.samples_key, self.n, *sorted(names))
        index = first + np.sort(
            rng.choice(last - first, size=min(self.n, last - first), replace=False)
        )
        own = "z" if scene.editor.space == Space.Z or Space.W not in scene.generator.spaces else "w"
        codes, logits = (scene.bank.array(name).take(index) for name in (own, "judge"))
        labels = scene.judge.attributes.labels(torch.from_numpy(np.array(logits))).numpy()
        targets = {}
        for name in sorted(names):  # the same draw whichever attribute is the job's
            item = scene.judge.attributes[name]
            targets[name] = draw_classes(
                labels[:, scene.judge.attributes.index(name)],
                rng.random(len(index)),
                len(item.classes),
                item.ordered,
            )
        lacking = np.ones(len(index), bool)
        if (
            scene.target is not None
        ):  # of the job's attribute: starts that have it already are left out
            targets[scene.attribute][:] = scene.target
            lacking = labels[:, scene.judge.attributes.index(scene.attribute)] != scene.target
        return (
            index[lacking],
            np.array(codes)[lacking],
            np.array(logits)[lacking],
            {name: target[lacking] for name, target in targets.items()},
        )

    def _walk(
        self,
        scene: Scene,
        editor: Editor,
        name: str,
        index: np.ndarray,
        codes: np.ndarray,
        logits: np.ndarray,
        target: np.ndarray,
    ) -> _Stage:
        """Walk every start to its first crossing; those that have the target class already stand still."""
        attributes = scene.judge.attributes
        source = attributes.labels(torch.from_numpy(logits), name).numpy()
        end = _Stage(codes.copy(), logits.copy(), source, source == target)
        go = np.flatnonzero((source != target) & end.sound & np.isfinite(codes).all(1))
        if not len(go):
            return end
        starts = Starts(index[go], source[go], target[go], float("nan"))
        spec = EngineSpec(self.max_steps, 0, scene.batch, 0)
        device = torch.device(scene.device)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "codes.parquet"
            walked = walk_starts(
                editor,
                scene.generator,
                scene.judge,
                name,
                starts,
                torch.from_numpy(codes[go]).to(device),
                torch.from_numpy(logits[go]).to(device),
                scene.bank.sigma["judge"],
                spec,
                file,
            )
            stored = pq.read_table(file)
        place = dict(zip(index[go].tolist(), go.tolist()))
        last = walked.table.groupby("start").tail(1)  # the crossing, or the cap
        rows = np.array([place[start] for start in last["start"]])
        values = stored["codes"].combine_chunks().flatten().to_numpy().reshape(len(stored), -1)
        found = {
            pair: row
            for row, pair in enumerate(zip(stored["start"].to_pylist(), stored["step"].to_pylist()))
        }
        end.codes[rows] = values[[found[pair] for pair in zip(last["start"], last["step"])]]
        end.logits[rows] = last[[f"logit:{c}" for c in attributes.columns()]].to_numpy(np.float32)
        end.arrived[rows], end.steps[rows] = (
            last["stopped"].to_numpy(bool),
            last["step"].to_numpy(np.int64),
        )
        end.sound[rows] = last["finite"].to_numpy(bool)
        return end

    def _commutator(
        self,
        scene: Scene,
        editors: dict[str, Editor],
        names: tuple[str, str],
        index: np.ndarray,
        codes: np.ndarray,
        targets: dict,
        walks: tuple[_Stage, _Stage],
        kept: np.ndarray,
    ) -> dict:
        """Both edits as in `walks`, from the same classes and at the same lengths, in either order."""
        out = {name: np.full(len(index), np.nan) for name in ("distance", "travelled", "pixels")}
        if not len(kept):
            return out
        ends = []
        for order in ((0, 1), (1, 0)):
            at = codes[kept]
            for k in order:
                at = advance(
                    editors[names[k]],
                    names[k],
                    index[kept],
                    at,
                    walks[k].source[kept],
                    targets[names[k]][kept],
                    walks[k].steps[kept],
                    scene.device,
                )
            ends.append(at)
        a, b = ends
        out["distance"][kept] = np.linalg.norm(a - b, axis=1)
        out["travelled"][kept] = (
            np.linalg.norm(a - codes[kept], axis=1) + np.linalg.norm(b - codes[kept], axis=1)
        ) / 2
        if scene.generator.output == "image":
            for first in range(0, len(kept), scene.batch):
                part = slice(first, first + scene.batch)
                images = [self._decode(scene, end[part]).clamp(-1, 1) for end in ends]
                gap = (images[0] - images[1]).flatten(1).square().mean(1).sqrt()
                out["pixels"][kept[part]] = gap.cpu().numpy()
        return out

    def _decode(self, scene: Scene, codes: np.ndarray) -> Tensor:
        return scene.generator.decode(
            Codes(scene.editor.space, torch.from_numpy(codes).to(scene.device))
        )


class _Stage:
    """Where the walks of one edit ended: codes (n, d), logits (n, width), arrived, sound (n,) bool, steps (n,); and the
    class source (n,) that they left."""

    def __init__(
        self, codes: np.ndarray, logits: np.ndarray, source: np.ndarray, arrived: np.ndarray
    ) -> None:
        self.codes, self.logits, self.source, self.arrived = codes, logits, source, arrived
        self.sound, self.steps = np.isfinite(logits).all(1), np.zeros(len(codes), np.int64)


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
    """Codes (n, d) after each sample's own number of steps (n,) from class source (n,) to target (n,); nothing is
    decoded."""
    starts, left, aims, count = (
        torch.from_numpy(part).to(device) for part in (index, source, target, steps[:, None])
    )
    at = torch.from_numpy(codes).to(device)
    walk = Walk(name, starts, at, at, left, aims, latent=at)
    for step in range(int(steps.max(initial=0))):
        walk.codes, walk.steps = torch.where(count > step, editor.step(walk), walk.codes), step + 1
    return walk.codes.cpu().numpy()
