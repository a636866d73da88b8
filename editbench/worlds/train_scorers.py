"""Training of a world's teacher, judge and witness, three classifiers with only the renderer in common.

The teacher labels codes for the editors, the judge labels the edited images. The witness is used in
the training of the generator (`steering`, `linearity`), so that a generator is optimised against
neither of the two.

- Factors are drawn WITHOUT correlations. A classifier trained on the correlated world may take
  glasses for age; a judge that does so would report an entanglement of its own.
- Half of the faces are drawn from the world's law, in which most faces are near the thresholds. The
  decision boundaries are then at the thresholds, for both classifiers. The other half keep a margin
  from the thresholds, so that clear faces are as frequent.
- Labels are those of simulated annotators, who are uncertain near a threshold (`annotate`).
- Augmentation imitates the faults of generators: wobble, fading, tints, grain, parts of another face
  or pose.

The faces and the augmentation of step t depend only on (seed, role, t).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.devices import to_device
from editbench.base.seeding import stream_key
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.convnet import ConvScorer, classification_loss
from editbench.worlds.faces import RESOLUTION, attributes
from editbench.worlds.faces.factors import YAW_STEP, FactorLaw, Factors, sample_factors
from editbench.worlds.faces.renderer import render

UNCORRELATED = FactorLaw(correlations={})
CLEAR = FactorLaw(correlations={}, margin=0.5)
# Standard deviation of what an annotator sees, as a share of the half-width of a class.
ANNOTATION_ERROR = 1 / 3
HELD_OUT_SEED = 9_001  # of the renders that accuracy is measured on


@dataclass(frozen=True)
class ScorerTraining:
    """Hyperparameters of one role.

    Args:
        role: 'teacher', 'judge' or 'witness'; together with the seed, it names the random streams.
        seed: of weights and data.
        widths: channels of the network, from the finest scale.
        hidden: width of the features.
        images: length of the training, in images.
        bfloat16: compute in bfloat16.
        reuse: steps that show the same faces, augmented anew.
        batch: pictures per step.
        lr: highest learning rate.
        weight_decay: of AdamW.
        resolution: height and width.
    """

    role: str
    seed: int
    widths: tuple[int, ...]
    hidden: int
    images: int = 200_000
    bfloat16: bool = True
    reuse: int = 2  # saves renders; the augmentation differs
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.02
    resolution: int = 32


# Different seeds and widths, so that teacher and judge have only the world in common.
ROLES = {
    "teacher": ScorerTraining("teacher", seed=101, widths=(32, 48, 64), hidden=96),
    "judge": ScorerTraining("judge", seed=202, widths=(32, 64, 96), hidden=128),
    "witness": ScorerTraining("witness", seed=404, widths=(32, 56, 72), hidden=96),
}


def augment(images: Tensor, random: torch.Generator, clean: float = 0.15) -> Tensor:
    """Imitate the faults of a generator.

    Features are displaced, fade, or are overlaid by those of another face, each by less than half,
    so that the label is still that of the larger part. Two classifiers that are trained in this way
    weigh all cues, and agree on faulty images.

    Args:
        images: (N, 3, R, R) in [-1, 1].
        random: the stream, on the host, so that every device gets the same numbers.
        clean: share of the pictures that remain unchanged.

    Returns:
        The same shape.
    """
    n, _, size, _ = images.shape
    device = images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * to_device(torch.rand(n, *shape, generator=random), device)

    def smooth_noise(channels: int, cells: int) -> Tensor:
        coarse = to_device(torch.randn(n, channels, cells, cells, generator=random), device)
        return F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)

    def blur(x: Tensor, reach: int) -> Tensor:
        return F.avg_pool2d(F.pad(x, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)

    # Wobble and shift by about a pixel.
    still = to_device(torch.eye(2, 3), device).expand(n, 2, 3)
    grid = F.affine_grid(still, [n, 3, size, size], align_corners=False)
    pixels = uniform(-0.6, 0.6, 2, 1, 1) + uniform(0, 1.1, 1, 1, 1) * smooth_noise(2, 6)
    grid = grid + (2 / size) * pixels.permute(0, 2, 3, 1)
    x = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    # Parts of another face, and faded parts.
    # The clamp leaves about half of the pictures without either.
    share = uniform(-0.4, 0.42, 1, 1, 1).clamp(min=0) * torch.sigmoid(3 * smooth_noise(1, 4))
    x = x + share * (x.roll(1, 0) - x)
    faded = blur(blur(x, 3), 3)
    share = uniform(-0.5, 0.8, 1, 1, 1).clamp(min=0) * torch.sigmoid(3 * smooth_noise(1, 4))
    x = x + share * (faded - x)
    # Softer or harsher.
    x = x + uniform(-0.6, 0.8, 1, 1, 1) * (blur(x, 1) - x)
    # Tint and grain, fine and coarse.
    x = x * uniform(0.95, 1.05, 3, 1, 1) + uniform(-0.04, 0.04, 3, 1, 1)
    grain = to_device(torch.randn(x.shape, generator=random), device)
    x = x + uniform(0, 0.06, 1, 1, 1) * grain
    x = x + uniform(0, 0.08, 1, 1, 1) * smooth_noise(3, 8)
    keep = uniform(0, 1, 1, 1, 1) < clean
    return torch.where(keep, images, x).clamp_(-1, 1)


@lru_cache(maxsize=1)
def _faces(options: ScorerTraining, index: int, device: str) -> tuple[Tensor, Tensor]:
    """The index-th batch of plain renders and labels, half of each law."""
    half = options.batch // 2
    parts = []
    for law in (UNCORRELATED, CLEAR):
        stream = f"scorer/{options.role}/{law.margin}"
        parts.append(sample_factors(law, options.seed, index * half, (index + 1) * half, stream))
    joined = {}
    for name in vars(parts[0]):
        joined[name] = torch.cat([vars(part)[name] for part in parts])
    factors = Factors(**joined)
    random = torch.Generator().manual_seed(
        stream_key(options.seed, f"patchwork/{options.role}/{index}") >> 65
    )
    labels = to_device(annotate(factors, random), torch.device(device))
    factors = factors.to(device)
    return _patchwork(render(factors, options.resolution), factors, random), labels


def annotate(factors: Factors, random: torch.Generator) -> Tensor:
    """Labels of simulated annotators, who err more often the closer a face is to a threshold.

    An annotator sees the factors with a normal error. Log-odds that are learnt from such labels grow
    in proportion to the amount of a trait; those learnt from true labels jump at the threshold.

    Args:
        factors: of N faces, on the host.
        random: the stream.

    Returns:
        (N, 7) int64 classes.
    """

    def error(like: Tensor, half_width: float) -> Tensor:
        return ANNOTATION_ERROR * half_width * torch.randn(like.shape, generator=random)

    # The class of a colour depends on the difference of two shares, hence the factor sqrt(2).
    shares = factors.hair + error(factors.hair, 0.5 / math.sqrt(2))
    amounts = factors.amounts + error(factors.amounts, 0.5)
    yaw = factors.yaw + error(factors.yaw, YAW_STEP / 2)
    return replace(factors, amounts=amounts, hair=shares, yaw=yaw).labels()


def _patchwork(images: Tensor, factors: Factors, random: torch.Generator) -> Tensor:
    """Replace less than half of the middle of every third render by another pose, in place.

    Generators early in training put eyes and mouth of different poses on one head. The label is
    still that of the larger part.
    """
    rows = torch.arange(0, len(images), 3, device=images.device)
    size = images.shape[-1]
    twin = Factors(**{name: value[rows] for name, value in vars(factors).items()})
    # Any pose in [-40, 40] degrees, as far as the outermost bins reach.
    twin.yaw = to_device(80 * torch.rand(len(rows), generator=random) - 40, images.device)
    coarse = to_device(torch.randn(len(rows), 1, 4, 4, generator=random), images.device)
    noise = F.interpolate(coarse, size=(size, size), mode="bicubic")
    # The noise is below this level in at most 40 % of the middle half.
    inner = noise[:, :, size // 4 : size - size // 4, size // 4 : size - size // 4]
    middle = inner.flatten(1).sort(1).values
    share = to_device(torch.rand(len(rows), 1, generator=random), images.device)
    rank = 0.4 * share * middle.shape[1]
    level = middle.gather(1, rank.long())[:, :, None, None]
    images[rows] = images[rows].lerp(render(twin, size), torch.sigmoid(10 * (level - noise)))
    return images


def batch(options: ScorerTraining, device: str, step: int) -> tuple[Tensor, Tensor]:
    """Make the batch of one step from renders of the faces.

    Args:
        options: hyperparameters.
        device: of the result.
        step: from 0; a batch depends only on the options and on this number.

    Returns:
        Augmented pictures (batch, 3, R, R) and labels (batch, A).
    """
    images, labels = _faces(options, step // options.reuse, device)
    # torch's seeds have 63 bits, the keys of streams 128.
    key = stream_key(options.seed, f"augment/{options.role}/{step}")
    random = torch.Generator().manual_seed(key >> 65)
    # `augment` mixes neighbours, which differ between the `reuse` steps with the same faces.
    order = to_device(torch.randperm(len(images), generator=random), images.device)
    return augment(images[order], random), labels[order]


def train_scorer(
    options: ScorerTraining,
    log: Callable[[str], None] = print,
    log_every: int = 100,
    batches: Callable[[int], tuple[Tensor, Tensor]] | None = None,
    scored: Attributes | None = None,
    device: str = "cpu",
) -> ConvScorer:
    """Train one role to the end, which takes minutes on one core.

    Args:
        options: hyperparameters.
        log: called with a JSON line every `log_every` steps.
        log_every: steps between two lines.
        batches: step -> pictures (n, 3, R, R) and labels (n, A); None: renders of the faces.
        scored: attributes of the labels; None: those of the faces.
        device: where to train.
    """
    batches = batches or partial(batch, options, device)
    # torch's modules draw their initial weights from the global generator, which is restored.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        scorer = ConvScorer(
            scored or attributes(), options.resolution, options.widths, options.hidden
        )
    scorer.to(device)
    scorer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # The length is given in images, so that it does not depend on the batch size.
    steps = max(1, options.images // options.batch)
    optimiser = torch.optim.AdamW(
        scorer.parameters(), options.lr, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.lr, total_steps=steps + 1, pct_start=0.15
    )
    started = time.time()
    # Summed on the device, so that the host does not wait in every step.
    total = torch.zeros((), dtype=torch.float64, device=device)
    for step in range(steps):
        images, labels = (to_device(part, total.device) for part in batches(step))
        kind = scorer.head.weight.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=options.bfloat16):
            logits = scorer(images)
        loss = classification_loss(logits, labels, scorer.attributes)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        # A batch of badly augmented pictures must not undo many steps.
        torch.nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        total += loss.detach()
        if (step + 1) % log_every == 0 or step + 1 == steps:
            done = step % log_every + 1
            speed = (step + 1) * options.batch / (time.time() - started)
            line = {
                "role": options.role,
                "images": (step + 1) * options.batch,
                "loss": round(total.item() / done, 4),
                "img_per_s": round(speed, 1),
            }
            log(json.dumps(line))
            total.zero_()
    return scorer.seal()


@torch.inference_mode()
def accuracy(scorer: Scorer, law: FactorLaw, n: int) -> dict[str, float]:
    """Share of right labels of each attribute on n held-out renders of a law.

    The package's judge must reach 0.97 on faces that keep a margin from the thresholds. Under the
    world's own law, the label of a face at a threshold is a matter of chance.

    Args:
        scorer: of the faces' attributes.
        law: of the renders.
        n: renders.
    """
    right = torch.zeros(len(scorer.attributes), dtype=torch.float64)
    # In parts, to limit the memory of the renders.
    for start in range(0, n, 250):
        # Another random stream than those of the training.
        factors = sample_factors(law, HELD_OUT_SEED, start, min(start + 250, n), "held-out")
        labels = scorer.attributes.labels(scorer(render(factors, RESOLUTION)))
        right += (labels == factors.labels()).double().sum(0)
    return dict(zip(scorer.attributes.names, (right / n).tolist()))


def agreement(a: Tensor, b: Tensor, attributes: Attributes) -> dict[str, float]:
    """Share of equal labels of each attribute between two scorers of the same N pictures.

    Args:
        a: (N, width) logits of one.
        b: (N, width) logits of the other.
        attributes: of both.
    """
    equal = (attributes.labels(a) == attributes.labels(b)).double().mean(0)
    return dict(zip(attributes.names, equal.tolist()))
