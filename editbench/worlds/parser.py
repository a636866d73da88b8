"""A face parser: a small segmentation network that labels each pixel with a region of the face.

StyleSpace localises its channels with a face parser (a BiSeNet for photographs). This one is trained
on renders of random factors, for which the renderer gives exact masks, and is used on generated
faces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.devices import to_device
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.seeding import stream_key
from editbench.networks.weights import load_strict, load_tensors, save_tensors
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.regions import REGIONS, regions
from editbench.worlds.faces.renderer import render

KIND = "parser"
# Without a margin, so that half-grown beards occur, for which regions have boundaries too.
LAW = FactorLaw(correlations={})


class RegionParser(nn.Module):
    """A network from pictures to region labels, at any resolution that is a multiple of 4.

    It has three scales with skip connections.

    Args:
        names: the regions, in the order of the labels.
        widths: channels at full, half and quarter resolution.
    """

    def __init__(
        self, names: Sequence[str] = REGIONS, widths: Sequence[int] = (24, 32, 48)
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.widths = tuple(widths)
        a, b, c = self.widths
        self.fine = nn.Sequential(
            nn.Conv2d(3, a, 3, padding=1), nn.ReLU(), nn.Conv2d(a, a, 3, padding=1), nn.ReLU()
        )
        self.mid = nn.Sequential(
            nn.Conv2d(a, b, 4, 2, 1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU()
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(b, c, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(c, c, 3, padding=1),
            nn.ReLU(),
            # Dilated, so that a pixel sees most of the head.
            nn.Conv2d(c, c, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(c, b, 1),
        )
        self.merge = nn.Sequential(nn.ReLU(), nn.Conv2d(b, a, 3, padding=1))
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, len(self.names), 1)
        )

    def logits(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, regions, H, W).

        Raises:
            EditbenchError: the pictures have another shape.
        """
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] % 4 or images.shape[3] % 4:
            raise EditbenchError(
                "a parser takes pictures (N, 3, H, W) with sides that are multiples of 4, got "
                f"{tuple(images.shape)}"
            )
        fine = self.fine(images)
        mid = self.mid(fine)
        mid = mid + F.interpolate(self.coarse(mid), scale_factor=2.0, mode="nearest")
        return self.head(fine + F.interpolate(self.merge(mid), scale_factor=2.0, mode="nearest"))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, H, W) int64, an index into `names`."""
        return self.logits(images).argmax(1)

    # -- files ----------------------------------------------------------------
    def save(self, path: Path | str) -> None:
        config = {"names": list(self.names), "widths": list(self.widths)}
        save_tensors(path, self.state_dict(), KIND, config)

    @classmethod
    def from_file(cls, path: Path | str, device: torch.device | str = "cpu") -> RegionParser:
        """Read a parser written by `save`.

        Args:
            path: of the file.
            device: of the parser.

        Raises:
            BadFile: the file is damaged, or of another version.
        """
        config, tensors = load_tensors(path, KIND, "train one with `editbench world train-parser`")
        try:
            parser = cls(**config)
        # Another version of the project may have written it.
        except (TypeError, ValueError) as error:
            raise BadFile(
                f"{path}: its configuration is not that of a {cls.__name__} ({error}); train it again"
            ) from error
        load_strict(parser, tensors, path)
        return parser.to(device).eval().requires_grad_(False)


# -- training -----------------------------------------------------------------
@dataclass(frozen=True)
class ParserTraining:
    """Hyperparameters of the parser.

    Args:
        seed: of faces, weights and augmentation.
        faces: number of different renders, drawn without correlations.
        passes: how often each render is shown, with another augmentation each time.
        batch: pictures per step.
        lr: highest learning rate.
        rarity: a region has the weight (share of the pixels)^-rarity in the loss; a nose is 3
            pixels in 1000.
        resolution: height and width.
    """

    seed: int = 303
    faces: int = 12_288
    passes: int = 16
    batch: int = 64
    lr: float = 3e-3
    rarity: float = 0.25
    resolution: int = 32


def photometric(images: Tensor, random: torch.Generator) -> Tensor:
    """Imitate the faults of a generator that do not displace pixels: softness, tint, grain.

    Args:
        images: (N, 3, R, R) in [-1, 1].
        random: the stream.

    Returns:
        The same shape.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(images), *shape, generator=random)

    # A negative share of the blurred picture sharpens.
    soft = F.avg_pool2d(F.pad(images, (1,) * 4, mode="replicate"), 3, stride=1)
    x = images + uniform(-0.4, 0.5, 1, 1, 1) * (soft - images)
    x = x * uniform(0.92, 1.08, 3, 1, 1) + uniform(-0.06, 0.06, 3, 1, 1)
    # Grain in five pictures of eight.
    grain = uniform(-0.03, 0.05, 1, 1, 1).clamp(min=0)
    return (x + grain * torch.randn(x.shape, generator=random)).clamp_(-1, 1)


def _faces_and_masks(
    law: FactorLaw, seed: int, n: int, resolution: int, stream: str
) -> tuple[Tensor, Tensor]:
    """Renders (n, 3, R, R) in [-1, 1] of a random stream and their regions (n, R, R) uint8."""
    images = []
    masks = []
    # In blocks, since the regions are drawn larger than the result.
    for start in range(0, n, 64):
        factors = sample_factors(law, seed, start, min(start + 64, n), stream)
        images.append(render(factors, resolution))
        masks.append(regions(factors, resolution).to(torch.uint8))
    return torch.cat(images), torch.cat(masks)


def train_parser(
    options: ParserTraining,
    log: Callable[[str], None] = print,
    log_every: int = 100,
    device: str = "cpu",
) -> RegionParser:
    """Train to the end (minutes on one core); deterministic in the options.

    Args:
        options: hyperparameters.
        log: called with a JSON line every `log_every` steps.
        log_every: steps between two lines.
        device: where to train.
    """
    images, masks = _faces_and_masks(
        LAW, options.seed, options.faces, options.resolution, "parser/train"
    )
    random = torch.Generator().manual_seed(stream_key(options.seed, "parser/augment") >> 65)
    # torch's modules draw their initial weights from the global generator, which is restored.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        parser = RegionParser()
    # channels_last is the layout that CPU convolutions prefer.
    parser.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    shares = torch.bincount(masks.flatten().long(), minlength=len(REGIONS)) / masks.numel()
    weights = (shares.clamp_min(1e-6) ** -options.rarity).to(device)
    # At least one batch, even if there are fewer faces.
    steps = options.passes * max(1, options.faces // options.batch)
    optimiser = torch.optim.AdamW(parser.parameters(), options.lr)
    # One more step than is taken, since the schedule must not be stepped past its end.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.lr, total_steps=steps + 1, pct_start=0.1
    )
    # Summed on the device, so that the host does not wait in every step.
    total = torch.zeros((), dtype=torch.float64, device=device)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < options.batch:
            order = torch.randperm(options.faces, generator=random)
        rows = order[: options.batch]
        order = order[options.batch :]
        shown = photometric(images[rows], random)
        wanted = masks[rows].long()
        # Every second batch is mirrored, since faces are symmetric except for their pose.
        if step % 2:
            shown = shown.flip(3)
            wanted = wanted.flip(2)
        shown = to_device(shown, total.device)
        wanted = to_device(wanted, total.device)
        logits = parser.logits(shown.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, wanted, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parser.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        total += loss.detach()
        if (step + 1) % log_every == 0 or step + 1 == steps:
            mean = total.item() / (step % log_every + 1)
            log(json.dumps({"step": step + 1, "of": steps, "loss": round(mean, 4)}))
            total.zero_()
    parser.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return parser.eval().requires_grad_(False)


@torch.inference_mode()
def parser_quality(
    parser: RegionParser, n: int = 2000, seed: int = 9_003
) -> dict[str, dict[str, float]]:
    """Measure a parser on held-out renders of the world's own law.

    Args:
        parser: to measure.
        n: number of renders.
        seed: of the renders.

    Returns:
        Region -> `found`, the share of its pixels that are labelled correctly, and `iou`. The entry
        `all` has the share of correct pixels and the mean IoU over regions.
    """
    images, masks = _faces_and_masks(
        FactorLaw(), seed, n, ParserTraining.resolution, "parser/held-out"
    )
    # In parts, to limit the memory of the activations.
    found = torch.cat([parser(part) for part in images.split(250)])
    k = len(parser.names)
    # Confusion matrix: true region in the rows, found region in the columns.
    pairs = (masks.long() * k + found).flatten()
    counts = torch.bincount(pairs, minlength=k * k).reshape(k, k).double()
    hit = counts.diag()
    true = counts.sum(1)
    labelled = counts.sum(0)
    share = hit / true.clamp_min(1)
    iou = hit / (true + labelled - hit).clamp_min(1)
    out = {}
    for i, name in enumerate(parser.names):
        out[name] = {"found": share[i].item(), "iou": iou[i].item()}
    return out | {"all": {"found": (hit.sum() / counts.sum()).item(), "iou": iou.mean().item()}}
