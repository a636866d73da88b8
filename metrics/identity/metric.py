"""Identity preservation at matched effect: how similar an edited image is to the original.

The number is the cosine between the embeddings of the two images (observation
`feature_similarity`). Methods are compared at the same achieved effect x on the target, never at
the same step. The cosine is interpolated between the two decoded steps around the point where a
walk first passes x*; for the curve, around the points where it passes the centres of bins as wide
as those of attribute dependency. With a face recognition network this is the papers' identity
preservation. Without one the embedding is the judge's features, and the metric is named after them:
they represent what distinguishes the judge's attributes, not who a person is.

The share of verified images is reported too: those whose cosine is at least the verification
threshold recorded by the observation (the cosine that 1 % of the pairs of different images exceed,
or one published with the network).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from editbench.base.validation import check_at_least, check_positive
from editbench.metrics.identity.observation import JUDGE, SIMILARITY, THRESHOLD
from editbench.stats.first_crossing import at_effect
from editbench.stats.intervals import bootstrap_mean, bootstrap_ratios, wilson
from editbench.walk.metric import (
    NAN,
    Metric,
    MetricResult,
    ResultBuilder,
    count_bins,
    mean_of,
    share,
    start_rows,
)
from editbench.walk.trajectory import Trajectories

VERIFIED = "verified"
KINDS = ("similarity", VERIFIED)
MISSING = "no similarity was measured: run the job with observation=[feature_similarity]"


class Identity(Metric):
    """Similarity to the original over the achieved effect, and where each walk first passes x*.

    Rows, with the name of the network in their column `network`:
        judge_feature_similarity, judge_feature_verified: curves; x is the centre of a bin in
            sigmas, count the number of starts that pass it. Intervals are a bootstrap over starts
            for the similarity, and Wilson's for the share of verified images.
        judge_feature_similarity_at, judge_feature_verified_at: at x = x*; count is the number of
            starts; intervals likewise.
        identity_similarity and so on: the same for every other network.
    Samples: those whose names end in `_at`.

    States:
        start: (n,) start ids.
        similarity: (n, networks, bins), NaN if the walk does not reach the centre of a bin.
        verified: (n, networks, bins), NaN likewise.
        similarity_at: (n, networks), NaN if the walk does not reach x*.
        verified_at: (n, networks), NaN likewise.
        networks: their names.

    Args:
        at: matched effect x*, in sigmas.
        stop: bins cover [0, stop), in sigmas; a multiple of width.
        width: of a bin, in sigmas.
        min_points: bins with fewer starts get a note that hides them.
        draws: bootstrap draws.
    """

    name = "identity"
    version = 2
    citation = (
        "Khrulkov et al.: Latent Transformations via NeuralODEs, ICCV 2021, A.4 (FaceNet "
        "embeddings); Schroff, Kalenichenko & Philbin: FaceNet, CVPR 2015 (verification)"
    )
    higher_is_better = True
    produces = {
        "judge_feature_similarity": True,
        "judge_feature_similarity_at": True,
        "judge_feature_verified": True,
        "judge_feature_verified_at": True,
        "identity_similarity": True,
        "identity_similarity_at": True,
        "identity_verified": True,
        "identity_verified_at": True,
    }

    def __init__(
        self,
        at: float = 1.0,
        stop: float = 3.0,
        width: float = 0.25,
        min_points: int = 30,
        draws: int = 2000,
    ) -> None:
        check_positive("at", at)
        check_at_least("draws", draws, 1)
        super().__init__()
        self.x_star = float(at)
        self.width = float(width)
        self.bins = count_bins(stop, width)
        self.min_points = int(min_points)
        self.draws = int(draws)
        self.centres = (np.arange(self.bins) + 0.5) * self.width
        self.add_columns("start", "similarity", "verified", "similarity_at", "verified_at")
        self.add_facts("networks")

    def update(self, trajectories: Trajectories) -> None:
        table = trajectories.table
        begins, _ = start_rows(trajectories)
        n = len(begins)
        # The columns show which networks' observations were made.
        networks = []
        for column in map(str, table):
            if column.startswith(SIMILARITY):
                networks.append(column.removeprefix(SIMILARITY))
        # The centres of the bins, and x* behind them.
        levels = [*self.centres, self.x_star]
        found = np.zeros((len(KINDS), n, len(networks), len(levels)))
        for place, network in enumerate(networks):
            found[:, :, place] = self._passed(trajectories, network, levels)
        self.append(
            start=table["start"].to_numpy(np.int64)[begins],
            similarity=found[0, ..., :-1],
            verified=found[1, ..., :-1],
            similarity_at=found[0, ..., -1],
            verified_at=found[1, ..., -1],
        )
        self.keep_fact("networks", networks)

    def _passed(
        self, trajectories: Trajectories, network: str, levels: Sequence[float]
    ) -> np.ndarray:
        """One network's values where walks first pass some effects.

        The points are those of attribute dependency, so that both are evaluated at the same image.

        Returns:
            (2, n, levels) cosine and verification; NaN if a walk does not reach the effect.
        """
        table = trajectories.table
        x = trajectories.effect
        begins, owner = start_rows(trajectories)
        cosine = table[SIMILARITY + network].to_numpy(np.float64)
        threshold = table[THRESHOLD + network].to_numpy(np.float64)[begins, None]
        sound = table["finite"].to_numpy(bool) & np.isfinite(x) & np.isfinite(cosine)
        passed = []
        for level in levels:
            passed.append(at_effect(x, cosine[:, None], owner, sound, level, len(begins)))
        found = np.concatenate(passed, 1)
        return np.stack([found, np.where(np.isfinite(found), found >= threshold, NAN)])

    def compute(self) -> MetricResult:
        found = self.sorted_columns("similarity", "verified", "similarity_at", "verified_at")
        networks = self.fact("networks")
        out = ResultBuilder()
        for place, network in enumerate(networks):
            for kind in KINDS:
                self._add_curve(out, network, kind, found, place)
                self._add_at(out, network, kind, found, place)
        if not networks:
            note = MISSING if len(found["start"]) else "no starts"
            out.add("judge_feature_similarity", NAN, 0, note=note, network=JUDGE)
        return out.result()

    def _add_curve(
        self,
        out: ResultBuilder,
        network: str,
        kind: str,
        found: dict[str, np.ndarray],
        place: int,
    ) -> None:
        """Add one row per bin."""
        # Column-major, since the bootstrap reads the array by columns.
        values = np.asfortranarray(found[kind][:, place])
        counts = np.isfinite(values).astype(np.float64)
        sums = np.nan_to_num(values)
        n = counts.sum(0).astype(int)
        # A bootstrap of equal values has no width, although a share of 1 is not certain.
        if kind == VERIFIED:
            ends = [wilson(hits, passed) for hits, passed in zip(sums.sum(0), n)]
            low, high = np.array(ends).T
        else:
            low, high = bootstrap_ratios(sums, counts, draws=self.draws)
        for b, centre in enumerate(self.centres):
            few = ""
            if n[b] < self.min_points:
                few = f"hidden: {n[b]} starts are fewer than {self.min_points}"
            out.add(
                row_name(network, kind),
                share(sums[:, b].sum(), n[b]),
                int(n[b]),
                (low[b], high[b]),
                few,
                network=network,
                x=float(centre),
            )

    def _add_at(
        self,
        out: ResultBuilder,
        network: str,
        kind: str,
        found: dict[str, np.ndarray],
        place: int,
    ) -> None:
        """Add the mean over the starts that reach x*, and their values."""
        metric = row_name(network, f"{kind}_at")
        values = found[f"{kind}_at"][:, place]
        kept = np.isfinite(values)
        n = int(kept.sum())
        note = "" if n else f"no start reaches x = {self.x_star:g}"
        if kind == VERIFIED:
            interval = wilson(values[kept].sum(), n)
        else:
            interval = bootstrap_mean(values, draws=self.draws)
        key = {"network": network, "x": self.x_star}
        out.add(metric, mean_of(values[kept]), n, interval, note, **key)
        out.add_samples(metric, found["start"], values, **key)


def row_name(network: str, kind: str) -> str:
    """The name of a row; embeddings that do not measure identity get another name.

    Args:
        network: name of the embedding, JUDGE for the judge's features.
        kind: what the row holds, such as similarity or verified_at.
    """
    if network == JUDGE:
        return f"judge_feature_{kind}"
    return f"identity_{kind}"
