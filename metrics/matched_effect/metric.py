"""Several metrics at matched effect: the side effects of an edit that moves the target by x sigma.

Methods have different units and speeds, so they cannot be compared at the same step. Here each walk
is evaluated where it first passes an achieved effect x* = 0.5, 1, 1.5, 2 sigma, by linear
interpolation between the two decoded steps around it (editbench.stats.first_crossing). All
quantities are interpolated first; magnitudes and labels are then computed from the interpolated
logits. Different starts reach an effect with different methods: `matched_reached` gives their
share, and differences between methods are paired over the starts that reach it with both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from editbench.base.errors import EditbenchError
from editbench.base.validation import check_at_least, check_positive
from editbench.metrics.identity.observation import PIXEL_DISTANCE, SIMILARITY
from editbench.stats.first_crossing import at_effect
from editbench.stats.intervals import bootstrap_mean, wilson
from editbench.walk.metric import (
    NAN,
    Metric,
    MetricResult,
    ResultBuilder,
    mean_of,
    share,
    start_rows,
)
from editbench.walk.trajectory import Trajectories

KINDS = ("ad", "ad_max", "flips", "path")  # available for every walk; observations add others


class MatchedEffect(Metric):
    """Dependency, flips, path and similarity at each of a few effects.

    Rows, x: effect in sigmas; means over the starts that reach it, bootstrap intervals:
        matched_ad, matched_ad_max: mean and largest change of the others, in sigmas.
        matched_flips: share of the other attributes with another class than at step 0.
        matched_path: length walked, in units of the editor's space.
        matched_similarity: to the original, with its network; only where it was observed.
        matched_pixel_distance: to the original; only where it was observed.
        matched_reached: share of all starts that reach x, Wilson.
    Samples: all of them, one value per start.

    States:
        start: (n,) start ids.
        reached: (n, effects) 0 or 1.
        ad: (n, effects), NaN if the walk never reaches the effect.
        ad_max: (n, effects), NaN likewise.
        flips: (n, effects), NaN likewise.
        path: (n, effects), NaN likewise.
        observed: (n, effects, kinds) values of the observations' columns.
        kinds: names of these columns.

    Args:
        effects: x*, in sigmas.
        min_starts: if fewer starts reach an effect, its rows get a note.
        draws: bootstrap draws.
    """

    name = "matched_effect"
    version = 1
    citation = (
        "Wu, Lischinski & Shechtman: StyleSpace Analysis, CVPR 2021 (comparison at equal effect)"
    )
    higher_is_better = False
    produces = {
        "matched_ad": False,
        "matched_ad_max": False,
        "matched_flips": False,
        "matched_path": None,
        "matched_similarity": True,
        "matched_pixel_distance": False,
        "matched_reached": True,
    }

    def __init__(
        self,
        effects: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
        min_starts: int = 30,
        draws: int = 2000,
    ) -> None:
        for effect in effects:
            check_positive("effects", effect)
        if not effects or len(set(effects)) < len(effects):
            raise EditbenchError(
                f"effects={list(effects)} must be one number or more, all different"
            )
        check_at_least("draws", draws, 1)
        super().__init__()
        self.effects = sorted(float(effect) for effect in effects)
        self.min_starts = int(min_starts)
        self.draws = int(draws)
        self.add_columns("start", "reached", "observed", *KINDS)
        self.add_facts("kinds")

    def update(self, trajectories: Trajectories) -> None:
        table = trajectories.table
        x = trajectories.effect
        begins, owner = start_rows(trajectories)
        signed = trajectories.dependency(signed=True)
        logits = trajectories.logits
        sound = table["finite"].to_numpy(bool) & np.isfinite(x) & np.isfinite(logits).all(1)
        kinds = [PIXEL_DISTANCE] if PIXEL_DISTANCE in table else []
        kinds += [name for name in map(str, table) if name.startswith(SIMILARITY)]

        # All quantities are interpolated as one array: changes, logits, path, observed columns.
        extra = [table[name].to_numpy(np.float64)[:, None] for name in ("path", *kinds)]
        stacked = np.concatenate([signed, logits, *extra], 1)
        found = np.stack(
            [at_effect(x, stacked, owner, sound, effect, len(begins)) for effect in self.effects],
            1,
        )
        width = signed.shape[1]
        end = width + logits.shape[1]
        reached = np.isfinite(found[:, :, width])
        change = np.abs(found[:, :, :width])
        flips = self._flips(trajectories, found[:, :, width:end], begins)
        nothing = np.full(reached.shape, NAN)
        self.append(
            start=table["start"].to_numpy(np.int64)[begins],
            reached=reached.astype(np.float64),
            ad=change.mean(2) if width else nothing,
            ad_max=change.max(2) if width else nothing,
            flips=np.where(reached, flips, NAN) if width else nothing,
            path=found[:, :, end],
            observed=found[:, :, end + 1 :],
        )
        self.keep_fact("kinds", kinds)

    def _flips(
        self, trajectories: Trajectories, logits: np.ndarray, begins: np.ndarray
    ) -> np.ndarray:
        """Share of the other attributes whose class differs from that at step 0.

        Args:
            logits: (n, effects, width), interpolated.
            begins: (n,) rows of step 0.

        Returns:
            (n, effects); meaningless if the logits are NaN.
        """
        names = np.array(trajectories.attributes.names)
        others = names != trajectories.attribute
        before = trajectories.labels[begins]
        flips = np.zeros(logits.shape[:2])
        for place in range(logits.shape[1]):
            after = trajectories.attributes.labels(torch.tensor(logits[:, place])).numpy()
            if others.any():
                flips[:, place] = (after != before)[:, others].mean(1)
        return flips

    def compute(self) -> MetricResult:
        found = self.sorted_columns("reached", "observed", *KINDS)
        kinds = self.fact("kinds")
        out = ResultBuilder()
        for place, effect in enumerate(self.effects):
            reached = found["reached"][:, place]
            n = len(reached)
            count = int(reached.sum())
            note = "" if n else "no starts"
            interval = wilson(count, n)
            out.add("matched_reached", share(count, n), n, interval, note, x=effect)
            few = self._few(count, effect)
            for kind in KINDS:
                values = found[kind][:, place]
                self._add(out, f"matched_{kind}", found["start"], values, few, x=effect)
            for column, kind in enumerate(kinds):
                values = found["observed"][:, place, column]
                # A column is empty if the observation measured nothing near this effect.
                if not np.isfinite(values).any():
                    continue
                network = ""
                metric = f"matched_{kind}"
                if kind.startswith(SIMILARITY):
                    network = kind.removeprefix(SIMILARITY)
                    metric = "matched_similarity"
                start = found["start"]
                self._add(out, metric, start, values, few, x=effect, network=network)
            out.add_samples("matched_reached", found["start"], reached, x=effect)
        return out.result()

    def _few(self, count: int, effect: float) -> str:
        """Why a number at this effect should not be relied on, or ''."""
        if not count:
            return f"no start reaches x = {effect:g}"
        if count < self.min_starts:
            return f"hidden: {count} starts are fewer than {self.min_starts}"
        return ""

    def _add(
        self,
        out: ResultBuilder,
        metric: str,
        start: np.ndarray,
        values: np.ndarray,
        few: str,
        **key: Any,
    ) -> None:
        """Add the mean over the starts that have a value, and their values."""
        kept = np.isfinite(values)
        note = few
        if not few and not kept.any():
            note = "one attribute only: there is no other to change"
        interval = bootstrap_mean(values, draws=self.draws)
        out.add(metric, mean_of(values[kept]), int(kept.sum()), interval, note, **key)
        out.add_samples(metric, start, values, **key)
