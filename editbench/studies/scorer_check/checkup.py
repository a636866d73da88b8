"""Examination of a scorer on pictures: shares of classes, quantiles, correlations, and problems.

Logits alone do not show whether an input range is right, but they show whether the outputs would
carry more information under another range. The information is I = H(mean of p) - mean of H(p), in
nats, of the class probabilities p over the pictures, averaged over attributes. It is near 0 for a
head whose output is constant or always uncertain. Larger inputs make logits larger and p more
certain, also under a wrong range. A range is therefore preferred only if its logits are also more
informative when those of all ranges are scaled to the same median size, and never if they are very
large (a median above SATURATED).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError
from editbench.base.progress import progress
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.module import ModuleScorer
from editbench.studies.scorer_check.sources import PictureSource

RARE = 0.05  # classes with a smaller share are reported
CONSTANT = 1e-3  # a head is constant if its 1st and 99th percentiles are closer than this
SATURATED = 25.0  # median size of a log-odds; a sigmoid is 1 to 1e-11 there
COMMON_SIZE = 4.0  # median size of a log-odds at which ranges are compared: p is 0.98
SAME = 0.95  # two log-odds with a higher correlation are reported
GAIN = 0.1  # nats of information that another range must add
SCALED_GAIN = 0.01  # nats that it must add to the scaled logits
TRIED = 256  # pictures for which other ranges, and values cut off, are tried
CUT = 0.05  # share of pictures whose class may change when values beyond black and white are cut
QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
# torchvision.transforms: mean and standard deviation of ImageNet, by channel.
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
# Usual inputs of classifiers: (range, mean, std).
RANGES: dict[str, tuple[tuple[float, float], list[float] | None, list[float] | None]] = {
    "[-1, 1]": ((-1, 1), None, None),
    "[0, 1]": ((0, 1), None, None),
    "[0, 255]": ((0, 255), None, None),
    "[0, 1] with ImageNet's mean and std": ((0, 1), *IMAGENET),
}
# Levels of findings, worst first.
ORDER = ("error", "warning", "note")


@dataclass(frozen=True)
class ScorerFinding:
    """Something to report about a scorer.

    Attributes:
        level: 'error', 'warning' or 'note'.
        where: an attribute, or '' for the scorer as a whole.
        text: what was found.
    """

    level: str
    where: str
    text: str


@dataclass(frozen=True)
class RangeTrial:
    """The outputs under one input range.

    Attributes:
        name: of the range.
        information: in nats.
        size: median absolute value of the log-odds.
        scaled: information of the logits scaled to the size COMMON_SIZE.
    """

    name: str
    information: float
    size: float
    scaled: float


@dataclass(frozen=True)
class InputTrial:
    """Logits of the same n pictures as a scorer might receive them, on the CPU.

    Attributes:
        ranges: name of an input range -> (n, width); the declared range comes first.
        cut: (n, width) as declared, of the pictures without values beyond black and white.
        beyond: (n,) share of such values in each picture.
    """

    ranges: dict[str, Tensor]
    cut: Tensor
    beyond: Tensor


@dataclass
class Checkup:
    """The results of examining one scorer.

    Args:
        role: of the scorer, for tables.
        attributes: of the scorer.
        logits: (n, width).
        shares: columns attribute, class, share.
        quantiles: of the log-odds, one row per column of the logits.
        correlation: of the log-odds, (width, width).
        ranges: the input ranges that were tried; empty for a scorer without a declared range.
        findings: worst first.
    """

    role: str
    attributes: Attributes
    logits: Tensor
    shares: pd.DataFrame
    quantiles: pd.DataFrame
    correlation: pd.DataFrame
    ranges: list[RangeTrial] = field(default_factory=list)
    findings: list[ScorerFinding] = field(default_factory=list)

    @property
    def worst(self) -> str:
        """The worst level of the findings; '' if there are none."""
        return next(
            (level for level in ORDER if any(item.level == level for item in self.findings)), ""
        )


@torch.no_grad()
def examine(scorer: Scorer, role: str, pictures: PictureSource, batch: int = 64) -> Checkup:
    """Score all pictures in batches, and examine the logits.

    Args:
        scorer: of any class; other ranges are tried only for a ModuleScorer.
        role: of the scorer, for tables.
        pictures: to score.
        batch: number of pictures that are in memory and scored at once.

    Raises:
        EditbenchError: no picture has finite logits.
    """
    logits = []
    tried = []
    low = math.inf
    high = -math.inf
    with progress(f"{role}: pictures", len(pictures)) as advance:
        # In batches, which limits the memory and does not affect the logits.
        for start in range(0, len(pictures), batch):
            numbers = range(start, min(start + batch, len(pictures)))
            images = pictures(numbers)
            if isinstance(scorer, ModuleScorer):
                # Only the raw outputs show whether they are probabilities or logits.
                out = scorer.outputs(images)
                known = out[torch.isfinite(out)]
                if len(known):
                    low = min(low, float(known.min()))
                    high = max(high, float(known.max()))
                logits.append((scorer.columns(out) * scorer.sign).cpu())
                if start < TRIED:
                    tried.append(try_inputs(scorer, images[: TRIED - start]))
            else:
                logits.append(scorer(images).float().cpu())
            advance(len(numbers))
    found = examine_logits(torch.cat(logits), scorer.attributes, role)
    if isinstance(scorer, ModuleScorer):
        trial = join_trials(tried)
        found.ranges = [
            measure_range(name, values, scorer.attributes) for name, values in trial.ranges.items()
        ]
        found.findings += _find_probabilities(scorer, low, high)
        found.findings += find_better_range(found.ranges, scorer)
        found.findings += find_overshoot(trial, scorer.attributes)
    # The sort is stable, so findings of a level keep the order of the attributes.
    found.findings.sort(key=lambda item: ORDER.index(item.level))
    return found


def examine_logits(logits: Tensor, attributes: Attributes, role: str = "scorer") -> Checkup:
    """Make the tables and findings of logits.

    Args:
        logits: (n, width); rows with NaN or infinity are reported and left out.
        attributes: of the logits.
        role: of the scorer, for tables.

    Raises:
        EditbenchError: no row is finite.
    """
    finite = torch.isfinite(logits).all(1)
    findings = []
    if not bool(finite.all()):
        columns = [
            name
            for name, bad in zip(attributes.columns(), (~torch.isfinite(logits)).any(0).tolist())
            if bad
        ]
        findings.append(
            ScorerFinding(
                "error",
                "",
                f"NaN or infinity in the logits of {int((~finite).sum())} of "
                f"{len(logits)} pictures ({', '.join(columns)}): check its weights",
            )
        )
    kept = logits[finite]
    if not len(kept):
        raise EditbenchError(
            f"{role}: no finite logit on any picture: check its weights, mean and std"
        )
    odds = attributes.log_odds(kept)
    shares = []
    for item in attributes:
        counts = torch.bincount(
            attributes.labels(kept, item.name), minlength=len(item.classes)
        ).double() / len(kept)
        for name, share in zip(item.classes, counts):
            shares.append({"attribute": item.name, "class": name, "share": float(share)})
        findings += _find_faults(
            item.name, item.classes, counts.tolist(), attributes.logits(odds, item.name)
        )
    names = attributes.columns()
    quantiles = torch.quantile(odds.double(), torch.tensor(QUANTILES, dtype=torch.float64), 0)
    matrix = correlations(odds)
    findings += _find_duplicates(matrix, names)
    return Checkup(
        role,
        attributes,
        logits,
        pd.DataFrame(shares),
        pd.DataFrame(
            quantiles.T.numpy(),
            pd.Index(names, name="column"),
            [f"{q:.0%}" for q in QUANTILES],
        ),
        pd.DataFrame(matrix, names, names),
        findings=findings,
    )


def _find_duplicates(matrix: np.ndarray, names: list[str]) -> list[ScorerFinding]:
    """Findings about attributes whose log-odds are almost the same."""
    found = []
    # Only above the diagonal, so that each pair is reported once.
    for i, j in zip(*np.where(np.triu(np.abs(matrix), 1) > SAME)):
        if names[i].split(":")[0] != names[j].split(":")[0]:
            text = (
                f"moves with {names[j]} (r = {matrix[i, j]:.2f}): no editor can part them, or both "
                "read the same output"
            )
            found.append(ScorerFinding("warning", names[i], text))
    return found


def correlations(values: Tensor) -> np.ndarray:
    """Pearson correlations of columns: (n, k) -> (k, k); 0 with a constant column."""
    x = values.double().numpy()
    x = x - x.mean(0)
    # A constant column has no correlation; division by infinity gives 0.
    size = np.sqrt((x**2).sum(0))
    scale = np.where(size > 1e-9 * len(x), size, np.inf)
    return (x / scale).T @ (x / scale)


def _find_faults(
    name: str, classes: tuple[str, ...], shares: list[float], odds: Tensor
) -> list[ScorerFinding]:
    """Findings about one attribute: a constant head, rare classes, very large log-odds."""
    # Quantiles, since a single unusual picture could hide that a head is constant.
    spread = torch.quantile(odds.double(), 0.99, 0) - torch.quantile(odds.double(), 0.01, 0)
    if float(spread.max()) < CONSTANT:
        return [
            ScorerFinding(
                "error",
                name,
                f"answers the same for every picture (log-odds {float(odds.median()):.3g}): the "
                "wrong output column, a wrong range, or a head that was never trained",
            )
        ]
    found = [
        ScorerFinding(
            "warning",
            name,
            f"'{label}' is {share:.1%} of the pictures: a wrong range or sign, or the "
            "generator hardly makes it; starts and statistics will be few",
        )
        for label, share in zip(classes, shares)
        if share < RARE
    ]
    size = float(odds.abs().median())
    if size > SATURATED:
        found.append(
            ScorerFinding(
                "warning",
                name,
                f"log-odds are very large (median size {size:.0f}): input_range is too "
                "wide, or a std too small",
            )
        )
    return found


def information(logits: Tensor, attributes: Attributes) -> float:
    """Information of the outputs: H(mean of p) - mean of H(p), averaged over attributes.

    Args:
        logits: (n, width), finite.
        attributes: of the logits.

    Returns:
        Nats.
    """
    found = []
    for item in attributes:
        part = attributes.logits(logits.double(), item.name)
        # For two classes, the softmax is over (0, logit).
        both = part
        if item.binary:
            both = torch.cat([torch.zeros_like(part), part], 1)
        p = both.softmax(1)
        found.append(float(_entropy(p.mean(0)) - _entropy(p).mean()))
    return float(np.mean(found))


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p).sum(-1)


@torch.no_grad()
def try_inputs(scorer: ModuleScorer, images: Tensor) -> InputTrial:
    """Score the same pictures as declared, under RANGES, and with values cut off.

    Args:
        scorer: its range, mean and std are changed for each range, and restored at the end.
        images: (n, C, H, W), about [-1, 1].
    """
    declared_range = scorer.input_range
    declared_mean = scorer.mean
    declared_std = scorer.std
    as_declared = scorer(images).float().cpu()
    cut = scorer(images.clamp(-1, 1)).float().cpu()
    beyond = (images.abs() > 1).flatten(1).float().mean(1).cpu()
    first = "as declared"
    others = {}
    try:
        for name, (limits, mean, std) in RANGES.items():
            # ImageNet's mean and std are for three channels.
            if mean is not None and scorer.channels != 3:
                continue
            scorer.input_range = limits
            scorer.mean = _by_channel(mean or [0.0] * scorer.channels, declared_mean)
            scorer.std = _by_channel(std or [1.0] * scorer.channels, declared_mean)
            if (
                limits == declared_range
                and torch.allclose(scorer.mean, declared_mean)
                and torch.allclose(scorer.std, declared_std)
            ):
                # The declared range is one of RANGES: it gets its name and is not scored again.
                first = f"{name}, as declared"
            else:
                others[name] = scorer(images).float().cpu()
    finally:
        scorer.input_range = declared_range
        scorer.mean = declared_mean
        scorer.std = declared_std
    return InputTrial({first: as_declared} | others, cut, beyond)


def join_trials(parts: list[InputTrial]) -> InputTrial:
    """The trial of all pictures, from those of batches with the same scorer."""
    ranges = {}
    for name in parts[0].ranges:
        ranges[name] = torch.cat([part.ranges[name] for part in parts])
    cut = torch.cat([part.cut for part in parts])
    beyond = torch.cat([part.beyond for part in parts])
    return InputTrial(ranges, cut, beyond)


def _by_channel(values: list[float], like: Tensor) -> Tensor:
    """One number per channel as (C, 1, 1), in the dtype and on the device of `like`."""
    return torch.tensor(values).to(like).view(-1, 1, 1)


def measure_range(name: str, logits: Tensor, attributes: Attributes) -> RangeTrial:
    """How informative the outputs under an input range are.

    Args:
        name: of the range.
        logits: (n, width) under this range; rows with NaN or infinity are left out.
        attributes: of the logits.
    """
    logits = logits[torch.isfinite(logits).all(1)]
    if not len(logits):
        return RangeTrial(name, 0.0, math.inf, 0.0)
    size = float(attributes.log_odds(logits).abs().median())
    scaled = logits * (COMMON_SIZE / size) if size > 0 else logits
    return RangeTrial(
        name,
        information(logits, attributes),
        size,
        information(scaled, attributes),
    )


def find_better_range(ranges: list[RangeTrial], scorer: ModuleScorer) -> list[ScorerFinding]:
    """At most one finding: that another range carries more information than the declared one.

    Args:
        ranges: of `measure_range`, the declared one first.
        scorer: whose declared range is named in the text.
    """
    declared = ranges[0]
    if declared.size > SATURATED:
        # Huge logits look informative under any range.
        declared = replace(declared, information=0.0, scaled=0.0)
    least = declared.scaled + SCALED_GAIN
    sane = [item for item in ranges[1:] if item.size <= SATURATED and item.scaled > least]
    if not sane:
        return []
    # The first of equal ones, in the order of RANGES.
    best = max(sane, key=lambda item: item.information)
    if best.information - declared.information <= GAIN:
        return []
    return [
        ScorerFinding(
            "warning",
            "",
            f"input_range {list(scorer.input_range)} may be wrong: with it, the outputs carry "
            f"{ranges[0].information:.2f} nats (median size {declared.size:.1f}); with {best.name} "
            f"they carry {best.information:.2f} nats (median size {best.size:.1f}). Look up how "
            "the network was trained",
        )
    ]


def find_overshoot(trial: InputTrial, attributes: Attributes) -> list[ScorerFinding]:
    """Findings about attributes that depend on values beyond black and white.

    A generator's images leave [-1, 1], and scorers receive them as they are. Image files, on which
    most classifiers are trained, have no such values.

    Args:
        trial: of all pictures.
        attributes: of the scorer.
    """
    as_declared = next(iter(trial.ranges.values()))
    classes = attributes.labels(as_declared)
    cut = attributes.labels(trial.cut)
    changed = (classes != cut).float().mean(0).tolist()
    beyond = float(trial.beyond.mean())
    return [
        ScorerFinding(
            "warning",
            item.name,
            f"{share:.1%} of the pictures get another class if values beyond black and white "
            f"({beyond:.1%} of all) are cut off, as in an image file: if the network was trained "
            "on image files, clamp its input",
        )
        for item, share in zip(attributes, changed)
        if share > CUT
    ]


def _find_probabilities(scorer: ModuleScorer, low: float, high: float) -> list[ScorerFinding]:
    """At most one finding: that outputs without a declared kind look like probabilities.

    Args:
        scorer: to examine.
        low: its smallest output.
        high: its largest output.
    """
    if not scorer.says_output and 0 <= low <= high <= 1:
        return [
            ScorerFinding(
                "error",
                "",
                f"every output lies in [{low:.3g}, {high:.3g}]: these look like "
                "probabilities or hard labels, not logits; write output: probabilities, or remove "
                "the final sigmoid; if they are logits, write output: logits",
            )
        ]
    return []
