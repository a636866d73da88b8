"""Features of images for metrics (FID, KID, precision and recall): one interface for all networks.

A number computed from features depends on the network, its preprocessing and its weights. `digest`
covers all three and should be part of the metric's name.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from editbench.base.errors import BadFile, EditbenchError, NonFinite, UnknownName, Unsupported
from editbench.base.files import digest as hash_of
from editbench.networks.fetch import locate_file
from editbench.networks.registry import Published
from editbench.networks.scorer import Scorer
from editbench.networks.torchscript import read_torchscript, takes, telling_line

PROBE = 2  # number of images to test a network with


class FeatureNetwork(nn.Module, abc.ABC):
    """Base of all: images (N, 3, H, W) in [-1, 1] -> features (N, dim) float32.

    A row depends only on its image.

    Attributes:
        name: for tables, such as "judge" or "inception-2015-12-05".
        dim: number of columns.
        resize: how images are resized.
        digest: hash of weights, architecture and preprocessing.
    """

    name: str
    dim: int
    resize: str
    digest: str

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [-1, 1] -> (N, dim) float32."""


class ScorerFeatures(FeatureNetwork):
    """Features of an image scorer: the input of its last linear layer, or the output of `layer`.

    Args:
        scorer: a scorer of images. If it has a method `features` (ConvScorer), this is used; for
            any other nn.Module, the input of its last nn.Linear.
        layer: dotted name of a layer of the scorer; outputs (N, C, h, w) are averaged over
            positions.
        name: for tables.
        about: not used; the key of the option's YAML, for listings.

    Raises:
        Unsupported: the scorer scores W codes, or hooks on its layers are not called (TorchScript,
            torch.export).
        UnknownName: there is no such layer.
        EditbenchError: there is no linear layer.
    """

    def __init__(
        self, scorer: Scorer, layer: str | None = None, name: str = "judge", about: str = ""
    ) -> None:
        super().__init__()
        scorer = scorer.whole  # only its layers matter, not the evaluated attributes
        if scorer.input != "image":
            raise Unsupported(
                f"features of images need a scorer of images; this one scores '{scorer.input}'"
            )
        self.scorer = scorer
        self.layer = layer
        self.name = name
        # By default, the scorer's own method gives the features.
        self._tap = None if layer is None and hasattr(scorer, "features") else self._find(layer)
        side = getattr(scorer, "input_size", None) or [getattr(scorer, "resolution", 64)] * 2
        self.resize = "none"
        if getattr(scorer, "input_size", None):
            self.resize = f"{side[0]}x{side[1]} bilinear, as the scorer does"
        # A scorer without parameters, such as a function, runs on any device.
        device = next(scorer.parameters(), torch.zeros(())).device
        size = (int(side[0]), int(side[1]))
        self.dim = _probe(self, size, type(scorer).__name__, device).shape[1]
        self.digest = hash_of(["scorer features", scorer.digest, layer])

    def _find(self, layer: str | None) -> nn.Module:
        # Compiled networks have modules, but do not call hooks on them.
        known = dict(self.scorer.named_modules())
        if any(
            isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule)
            for module in known.values()
        ):
            raise Unsupported(
                "the layers of a TorchScript or torch.export network cannot be listened to: give "
                "metrics another network, e.g. network=inception, or export one that returns "
                "features"
            )
        if layer is not None:
            if layer not in known or not layer:
                raise UnknownName("layer of the scorer", layer, [name for name in known if name])
            return known[layer]
        # FID uses the input of a classifier's last linear layer too.
        linear = [module for module in known.values() if isinstance(module, nn.Linear)]
        if not linear:
            raise EditbenchError(
                f"{type(self.scorer).__name__} has no linear layer: choose the layer whose output "
                f"is used as features, one of {', '.join(name for name in known if name)}"
            )
        return linear[-1]

    def forward(self, images: Tensor) -> Tensor:
        if self._tap is None:
            return self.scorer.features(images).float()  # type: ignore[operator]
        kept: list[Tensor] = []
        # The input of the last linear layer, or the output of the chosen one.
        if self.layer is None:
            hook = self._tap.register_forward_pre_hook(
                lambda _module, inputs: kept.append(inputs[0])
            )
        else:
            hook = self._tap.register_forward_hook(
                lambda _module, _inputs, output: kept.append(output)
            )
        try:
            self.scorer(images)
        finally:
            hook.remove()
        if not kept or not isinstance(kept[-1], Tensor):
            raise EditbenchError(
                f"layer '{self.layer}' is not used in scoring, or returns no tensor: choose another"
            )
        x = kept[-1]
        return (x.mean(tuple(range(2, x.dim()))) if x.dim() > 2 else x).float()


class _PublishedFeatures(FeatureNetwork):
    """A published TorchScript detector: (images, return_features=True) -> (N, dim).

    Args:
        file: the published file, see editbench.networks.registry.Published.
        path: a copy of it; None for the folder of networks, to which it is fetched unless offline.
        name: for tables; '' for the published name.
        about: not used; the key of the option's YAML, for listings.

    Raises:
        BadFile: the file does not have the pinned content, or is not such a network.
    """

    def __init__(
        self,
        file: Mapping[str, Any] | Published,
        path: Path | str | None = None,
        name: str = "",
        about: str = "",
    ) -> None:
        super().__init__()
        found = locate_file(file, path)
        self.network = read_torchscript(found.path)
        self.name = name or self.name
        if not takes(self.network, "return_features"):
            raise BadFile(
                f"{found.path}: a TorchScript network without the argument return_features, so not "
                f"the published {self.name}; {found.file.remedy()}"
            )
        self.digest = hash_of([type(self).__name__, found.sha256, self.resize])
        width = _probe(self, (64, 64), str(found.path)).shape[1]
        # A different network under the same file name is detected by its number of features.
        if width != self.dim:
            raise BadFile(
                f"{found.path}: returns {width} features, expected {self.dim}; {found.file.remedy()}"
            )

    def forward(self, images: Tensor) -> Tensor:
        # Greyscale images are repeated for the three colours.
        x = images
        if images.shape[1] == 1:
            x = images.expand(-1, 3, -1, -1)
        features = self.network(self.prepare(x), return_features=True).flatten(1).float()
        # As a byte, NaN becomes black, so the features would be those of a different image.
        broken = ~torch.isfinite(images).flatten(1).all(1)
        return features.masked_fill(broken.unsqueeze(1), torch.nan)

    def prepare(self, images: Tensor) -> Tensor:
        """[-1, 1] -> 0..255 as uint8, the input of the published files."""
        return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


class InceptionFeatures(_PublishedFeatures):
    """The Inception network of FID (Heusel et al. 2017), as TorchScript by NVIDIA.

    This is TensorFlow's inception-2015-12-05. It takes 0..255, resizes to 299 x 299 as TensorFlow 1
    did (bilinear, without a low-pass filter) and returns the 2048 features of its last pooling.
    Images are first converted to uint8, floor(127.5 x + 128), as in the code of StyleGAN2-ADA, so
    that generated images and files can be compared: an image read from a file as v / 127.5 - 1
    becomes v again. Not differentiable.
    """

    name = "inception-2015-12-05"
    dim = 2048
    resize = "299 bilinear inside the network (TF 1.x style)"


class VGG16Features(_PublishedFeatures):
    """The 4096 features of VGG16's second linear layer, for precision and recall.

    As in Kynkaanniemi et al. 2019. The published TorchScript (the file of LPIPS, see
    editbench.networks.perceptual.ScriptedLPIPS) takes 0..255 and resizes to 224 x 224. Images are
    converted to uint8 as in InceptionFeatures.
    """

    name = "vgg16"
    dim = 4096
    resize = "224 inside the network"


@torch.no_grad()
def _probe(
    network: FeatureNetwork, size: tuple[int, int], source: str, device: torch.device | str = "cpu"
) -> Tensor:
    """Features (2, dim) of two noise images of a size (height, width) in pixels.

    Raises EditbenchError, which begins with the source, if the network does not accept images or
    returns something else; NonFinite if the features have NaN or infinity.
    """
    # Noise with a fixed seed exercises all layers, and the outcome is always the same.
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(PROBE, 3, *size, generator=rng).mul(2).sub(1).to(device)
    try:
        out = network(images)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise EditbenchError(
            f"{source}: returns no features for images {tuple(images.shape)} "
            f"({telling_line(error)})"
        ) from error
    if out.dim() != 2 or len(out) != PROBE:
        raise EditbenchError(
            f"{source}: features of {PROBE} images are {tuple(out.shape)}, expected ({PROBE}, dim)"
        )
    if not torch.isfinite(out).all():
        raise NonFinite(f"{source}: NaN or infinity in its features; check its weights")
    return out
