"""Perceptual distances as squared Euclidean distances of residuals, |r(a) - r(b)|^2.

LPIPS (Zhang, Isola, Efros, Shechtman & Wang, CVPR 2018) has this form: features of several layers,
normalised to unit length at every position, weighted by channel, averaged over positions. Since the
distance is quadratic in the residual, its second derivative at equal images is 2 J^T J for any
network.
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
from editbench.networks.winograd import Conv3x3

# Simonyan & Zisserman 2015, table 1, configuration D.
VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width and convolutions of each stage
# In the package torchmetrics.
LINEAR_FILE = "torchmetrics/functional/image/lpips_models/vgg.pth"
VGG16_FILE = "vgg16-397923af.pth"
LPIPS_REMEDY = (
    f"LPIPS needs torchvision's vgg16 weights ({VGG16_FILE}) and the linear weights of lpips "
    "v0.1 (vgg.pth, which torchmetrics has); give their paths (method.spectrum.vgg and "
    "method.spectrum.linear, or inversion.perceptual.weights), or choose another distance"
)
UNIT_EPS = 1e-10  # LPIPS's epsilon in the length of a feature vector


class Perceptual(nn.Module, abc.ABC):
    """Base of all distances. `about` describes what is compared, for the record."""

    about: str = ""

    @abc.abstractmethod
    def residual(self, images: Tensor) -> Tensor:
        """Decoded samples (N, ...) -> (N, M), differentiable; a row depends only on its sample."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of two samples, for each pair of a batch.

        Args:
            a: (N, ...) decoded samples, such as images (N, C, H, W) in [-1, 1].
            b: (N, ...) the samples that they are compared with.

        Returns:
            (N,) squared Euclidean distances of the residuals.
        """
        return (self.residual(a) - self.residual(b)).square().sum(1)


class PixelDistance(Perceptual):
    """Sum of squared differences over pixels, or over coordinates for a latent-only generator."""

    about = "pixels"

    def residual(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class FeatureDistance(Perceptual):
    """LPIPS with the features of a scorer, and weight 1 for every channel.

    For a ConvScorer, these are its trunk's features at each resolution, normalised to unit length
    per position. For other scorers, it is the mean squared difference of their `features`, or of
    their logits if they have none.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        scorer = scorer.whole  # only its layers matter, not the evaluated attributes
        self.scorer = scorer
        compared = "logits"
        if isinstance(scorer, ConvScorer):
            compared = "trunk features"
        elif hasattr(scorer, "features"):
            compared = "features"
        self.about = f"{compared} of {type(scorer).__name__}"

    def residual(self, images: Tensor) -> Tensor:
        if not isinstance(self.scorer, ConvScorer):
            vector: Callable[[Tensor], Tensor] = getattr(self.scorer, "features", self.scorer)
            x = vector(images).flatten(1)
            # Normalised by the number of columns, so that the width of a network does not matter.
            return x * x.shape[1] ** -0.5
        x = images
        parts = []
        for layer in self.scorer.trunk:
            x = layer(x)
            # LPIPS uses the features after the activation of each stage.
            if isinstance(layer, nn.ReLU):
                parts.append(per_position(x))
        return torch.cat(parts, 1)


class LPIPS(Perceptual):
    """LPIPS v0.1 with VGG16, as in NaviGAN: images at 64x64 (nearest neighbour), not squared again.

    Args:
        weights: one or several files (safetensors, or .pth as published) that together contain
            torchvision's VGG16 (`features.0.weight`, ...; or, as in a saved LPIPS network,
            `net.slice1.0.weight`, ...) and the linear weights of lpips v0.1 (`lin0.model.1.weight`,
            ..., `lin4.model.1.weight`).
        size: images are resized to size x size; None for no resizing.

    Raises:
        BadFile: a file is missing or unreadable, or has other tensors.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: Path | str | Sequence[Path | str], size: int | None = 64) -> None:
        super().__init__()
        files = [weights] if isinstance(weights, (Path, str)) else list(weights)
        tensors = {
            _vgg_name(name): value
            for file in files
            for name, value in _read_published(file).items()
        }
        source = ", ".join(map(str, files))
        self.size = size
        self.about = f"LPIPS v0.1, VGG16 at {size or 'full size'}"
        self.stages = nn.ModuleList()
        # 3 colour channels of the input; `place` is torchvision's number of a layer.
        width = 3
        place = 0
        for channels, depth in VGG16:
            stage = nn.Sequential() if width == 3 else nn.Sequential(nn.MaxPool2d(2))
            place += len(stage)
            for _ in range(depth):
                layer = Conv3x3(width, channels)
                parts = {
                    part: _find_tensor(tensors, f"features.{place}.{part}", value.shape, source)
                    for part, value in layer.state_dict().items()
                }
                layer.load_state_dict(parts)
                stage += nn.Sequential(layer, nn.ReLU())
                width = channels
                place = place + 2
            name = f"lin{len(self.stages)}.model.1.weight"
            linear = _find_tensor(tensors, name, torch.Size((1, width, 1, 1)), source).flatten()
            # The published weights are non-negative; their square root is used below.
            if bool((linear < 0).any()):
                raise BadFile(
                    f"{source}: '{name}' has negative weights, but those of LPIPS are not "
                    f"negative; {LPIPS_REMEDY}"
                )
            self.register_buffer(f"linear{len(self.stages)}", linear)
            self.stages.append(stage)
        # From lpips.ScalingLayer: ImageNet's mean and standard deviation for images in [-1, 1].
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
        vgg: torchvision's VGG16; '' for the file that torchvision downloads to torch's hub folder.
        linear: the linear weights; '' for the copy in torchmetrics.

    Raises:
        BadFile: one of them is not there.
    """
    # Located without importing torchmetrics, which takes more than a second.
    linear = linear or str(distribution("torchmetrics").locate_file(LINEAR_FILE))
    vgg = vgg or str(Path(torch.hub.get_dir()) / "checkpoints" / VGG16_FILE)
    files = [Path(vgg), Path(linear)]
    for path in files:
        if not path.is_file():
            raise BadFile(f"{path}: {no_such('file', path)}; {LPIPS_REMEDY}")
    return files


class ScriptedLPIPS(Perceptual):
    """LPIPS v0.1 with VGG16 from the TorchScript file published with StyleGAN2-ADA (vgg16.pt).

    Its network takes images in 0..255 and, with return_lpips, returns features whose squared
    distance is LPIPS.

    Args:
        file: the published file, see editbench.networks.registry.Published.
        path: a copy of it; None for the folder of networks, to which it is fetched unless offline.
        size: images are first resized to size x size (nearest neighbour, as in LPIPS above); None
            for no resizing.
        name: not used, like `about`.
        about: not used; the key of the option's YAML, for listings.

    Raises:
        BadFile: the file does not have the pinned content, or is not such a network.
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
        # The network takes 0..255 and normalises it.
        x = (x.expand(-1, 3, -1, -1) + 1) * 127.5
        return self.network(x, resize_images=False, return_lpips=True).flatten(1).float()


def per_position(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Normalise features to unit length per position, times the square root of the weights.

    They are scaled so that a sum of squares over the result is a mean over positions. If all
    features are zero, the derivative is not NaN.

    Args:
        x: features (N, C, h, w).
        weight: (C,) weights of channels; None for ones.

    Returns:
        (N, C h w).
    """
    # rsqrt with epsilon inside has a derivative at 0, unlike the norm in the original code.
    unit = x * torch.rsqrt(x.square().sum(1, keepdim=True) + UNIT_EPS**2)
    if weight is not None:
        unit = unit * weight.sqrt()[:, None, None]
    return unit.flatten(1) * (x.shape[2] * x.shape[3]) ** -0.5


def _read_published(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a safetensors or .pth file."""
    if Path(path).suffix not in (".pth", ".pt"):
        return read_tensors(path)
    if not Path(path).is_file():
        raise BadFile(f"{path}: {no_such('file', Path(path))}; {LPIPS_REMEDY}")
    try:
        # weights_only rejects all objects except tensors and plain containers.
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
    """torchvision's name of a tensor of VGG16; any other name is unchanged."""
    # A saved LPIPS network has VGG16 in slices, but with torchvision's numbers.
    return re.sub(r"^net\.slice\d\.", "features.", name)


def _find_tensor(
    tensors: Mapping[str, Tensor], name: str, shape: torch.Size, source: str
) -> Tensor:
    """A tensor of the files as float32, after checks of its shape and its numbers."""
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
