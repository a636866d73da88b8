"""Perceptual distances: squared Euclidean distances of a residual, |r(a) - r(b)|^2.

LPIPS (Zhang, Isola, Efros, Shechtman & Wang, CVPR 2018) has this form: features of several depths
at unit length at every position, weighted by channel, averaged over positions. Being quadratic in
the residual, its second derivative where both images agree is 2 J^T J, whatever the network.
"""

from __future__ import annotations

import abc
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.errors import BadFile, no_such
from editbench.base.files import digest
from editbench.networks.external import read_tensors
from editbench.networks.fetch import locate_file
from editbench.networks.registry import Published
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.convnet import ConvScorer
from editbench.networks.torchscript import read_torchscript, takes

# Simonyan & Zisserman 2015, table 1, configuration D.
VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width and convolutions of each stage
# Of the package torchmetrics.
LINEAR_FILE = "torchmetrics/functional/image/lpips_models/vgg.pth"
VGG16_FILE = "vgg16-397923af.pth"
LPIPS_REMEDY = (
    f"LPIPS needs torchvision's vgg16 weights ({VGG16_FILE}) and the linear weights of lpips "
    "v0.1 (vgg.pth, which torchmetrics has); give the paths, or choose another distance"
)
UNIT_EPS = 1e-10  # of LPIPS, in the length of a feature vector


class Perceptual(nn.Module, abc.ABC):
    """Base of all distances. `about` says what is compared, for the record."""

    about: str = ""

    @abc.abstractmethod
    def residual(self, images: Tensor) -> Tensor:
        """Decoded samples (N, ...) -> (N, M), differentiable; a row depends on its sample alone."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of a and b, sample by sample: (N,)."""
        return (self.residual(a) - self.residual(b)).square().sum(1)


class PixelDistance(Perceptual):
    """Sum over pixels of the squared difference; of a latent-only generator, over coordinates."""

    about = "pixels"

    def residual(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class FeatureDistance(Perceptual):
    """LPIPS with the features of a scorer, every channel of weight one.

    Of a ConvScorer: its trunk at each resolution, at unit length per position. Of others: the root
    mean square difference, squared, of their `features`, or of their logits where they have none.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        scorer = scorer.whole  # its layers count here, whatever is evaluated
        self.scorer = scorer
        self.about = (
            "trunk features"
            if isinstance(scorer, ConvScorer)
            else "features"
            if hasattr(scorer, "features")
            else "logits"
        ) + f" of {type(scorer).__name__}"

    def residual(self, images: Tensor) -> Tensor:
        if not isinstance(self.scorer, ConvScorer):
            vector: Callable[[Tensor], Tensor] = getattr(self.scorer, "features", self.scorer)
            x = vector(images).flatten(1)
            # The mean over columns, so that networks of other widths give distances of one size.
            return x * x.shape[1] ** -0.5
        x = images
        parts = []
        for layer in self.scorer.trunk:
            x = layer(x)
            # LPIPS compares after the activation of each stage.
            if isinstance(layer, nn.ReLU):
                parts.append(per_position(x))
        return torch.cat(parts, 1)


class LPIPS(Perceptual):
    """LPIPS v0.1 with VGG16, as NaviGAN uses it: pictures at 64x64 (nearest neighbour), output not
    squared again.

    Args:
        weights: one file or several (safetensors, or .pth as published) that together hold
            torchvision's VGG16 (`features.0.weight`, ...; or, as in a saved LPIPS network,
            `net.slice1.0.weight`, ...) and the linear weights of lpips v0.1 (`lin0.model.1.weight`,
            ..., `lin4.model.1.weight`).
        size: pictures are resized to size x size; None leaves them.

    Raises:
        BadFile: a file is missing or unreadable, or the tensors are not these.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: Path | str | Sequence[Path | str], size: int | None = 64) -> None:
        super().__init__()
        files = [weights] if isinstance(weights, (Path, str)) else list(weights)
        tensors = {_vgg_name(name): value for file in files for name, value in _read(file).items()}
        source = ", ".join(map(str, files))
        self.size = size
        self.about = f"LPIPS v0.1, VGG16 at {size or 'full size'}"
        self.stages = nn.ModuleList()
        # Colours of the input; `place` counts layers as torchvision numbers them.
        width = 3
        place = 0
        for channels, depth in VGG16:
            stage = nn.Sequential() if width == 3 else nn.Sequential(nn.MaxPool2d(2))
            place += len(stage)
            for _ in range(depth):
                layer = nn.Conv2d(width, channels, 3, padding=1)
                parts = {
                    part: _tensor(tensors, f"features.{place}.{part}", value.shape, source)
                    for part, value in layer.state_dict().items()
                }
                layer.load_state_dict(parts)
                stage += nn.Sequential(layer, nn.ReLU())
                width = channels
                place = place + 2
            name = f"lin{len(self.stages)}.model.1.weight"
            linear = _tensor(tensors, name, torch.Size((1, width, 1, 1)), source).flatten()
            # Trained with that constraint; a square root of them is taken below.
            if bool((linear < 0).any()):
                raise BadFile(
                    f"{source}: '{name}' has negative weights, but those of LPIPS are not "
                    f"negative; {LPIPS_REMEDY}"
                )
            self.register_buffer(f"linear{len(self.stages)}", linear)
            self.stages.append(stage)
        # Of lpips.ScalingLayer: mean and standard deviation of ImageNet, for pictures in [-1, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))
        self.eval().requires_grad_(False)

    def residual(self, images: Tensor) -> Tensor:
        # images (N, 1 or 3, H, W) in [-1, 1]
        x = images
        if self.size is not None:
            x = F.interpolate(images, size=(self.size, self.size), mode="nearest")
        x = (x - self.shift) / self.scale
        parts = []
        for k, stage in enumerate(self.stages):
            x = stage(x)
            parts.append(per_position(x, self.get_buffer(f"linear{k}")))
        return torch.cat(parts, 1)


def lpips_files(vgg: str = "", linear: str = "") -> list[Path]:
    """The two files of LPIPS v0.1 with VGG16.

    Args:
        vgg: torchvision's VGG16; '' is where torchvision downloads it to, in torch's hub folder.
        linear: the linear weights; '' is the copy that comes with torchmetrics.

    Raises:
        BadFile: no VGG16 there.
    """
    path = Path(vgg) if vgg else Path(torch.hub.get_dir()) / "checkpoints" / VGG16_FILE
    if not path.is_file():
        raise BadFile(f"{path}: {no_such('file', path)}; {LPIPS_REMEDY}")
    if linear:
        return [path, Path(linear)]
    # Found without importing torchmetrics, which takes more than a second.
    found = distribution("torchmetrics").locate_file(LINEAR_FILE)
    return [path, Path(str(found))]


class ScriptedLPIPS(Perceptual):
    """LPIPS v0.1 with VGG16 from the TorchScript file published with StyleGAN2-ADA (vgg16.pt).

    Its network takes pictures of 0..255 and, with return_lpips, gives features whose squared
    distance is LPIPS.

    Args:
        file: the published file, see editbench.networks.registry.Published.
        path: a copy of it; None looks in the folder of networks, then fetches it unless offline.
        size: pictures are first resized to size x size (nearest neighbour, as LPIPS above); None
            leaves them.
        name: for tables.
        about: one line for listings.

    Raises:
        BadFile: the file has another content than the pinned one, or is no such network.
    """

    def __init__(
        self,
        file: Mapping[str, Any] | Published,
        path: Path | str | None = None,
        size: int | None = None,
        name: str = "",
        about: str = "",
    ) -> None:
        super().__init__()
        found = locate_file(file, path)
        self.network = read_torchscript(found.path)
        self.size = size
        if not takes(self.network, "resize_images", "return_lpips"):
            raise BadFile(
                f"{found.path}: a TorchScript network without the arguments resize_images and "
                f"return_lpips, so not the published {found.file.name}; {found.file.remedy()}"
            )
        self.digest = digest([type(self).__name__, found.sha256, size])
        self.about = (
            f"LPIPS v0.1, VGG16 (TorchScript) at {f'{size}x{size}' if size else 'full size'}"
        )

    def residual(self, images: Tensor) -> Tensor:
        # images (N, 1 or 3, H, W) in [-1, 1]
        x = images
        if self.size is not None:
            x = F.interpolate(images, size=(self.size, self.size), mode="nearest")
        # The network takes 0..255 and does its own normalisation.
        x = (x.expand(-1, 3, -1, -1) + 1) * 127.5
        return self.network(x, resize_images=False, return_lpips=True).flatten(1).float()


def per_position(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Features at unit length per position, times the square root of the weights.

    A sum of squares over the result is then a mean over positions. The derivative has no NaN where
    all features are zero.

    Args:
        x: features (N, C, h, w).
        weight: of each channel (C,); None for ones.

    Returns:
        (N, C h w).
    """
    # rsqrt of a sum with epsilon inside has a derivative at 0, unlike the norm of the original.
    unit = x * torch.rsqrt(x.square().sum(1, keepdim=True) + UNIT_EPS**2)
    if weight is not None:
        unit = unit * weight.sqrt()[:, None, None]
    return unit.flatten(1) * (x.shape[2] * x.shape[3]) ** -0.5


def _read(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a safetensors or .pth file; of the latter nothing but tensors is unpickled."""
    if Path(path).suffix not in (".pth", ".pt"):
        return read_tensors(path)
    if not Path(path).is_file():
        raise BadFile(f"{path}: {no_such('file', Path(path))}; {LPIPS_REMEDY}")
    try:
        # weights_only refuses any other object than tensors and plain containers.
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise BadFile(
            f"{path}: not a complete file of tensors ({type(error).__name__}); {LPIPS_REMEDY}"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(value, Tensor) for value in tensors.values()
    ):
        raise BadFile(f"{path}: contains something other than named tensors; {LPIPS_REMEDY}")
    return tensors


def _vgg_name(name: str) -> str:
    # A saved LPIPS network has VGG16 cut into slices, with the numbers of torchvision kept.
    return re.sub(r"^net\.slice\d\.", "features.", name)


def _tensor(tensors: Mapping[str, Tensor], name: str, shape: torch.Size, source: str) -> Tensor:
    if name not in tensors:
        raise BadFile(f"{source}: no tensor '{name}'; {LPIPS_REMEDY}")
    if tensors[name].shape != shape:
        raise BadFile(
            f"{source}: '{name}' has shape {tuple(tensors[name].shape)}, expected "
            f"{tuple(shape)}; {LPIPS_REMEDY}"
        )
    if not bool(torch.isfinite(tensors[name]).all()):
        raise BadFile(f"{source}: '{name}' holds NaN or infinity; {LPIPS_REMEDY}")
    return tensors[name].float()
