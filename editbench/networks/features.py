"""Features of images for metrics (FID, KID, precision and recall): one interface for all networks.

A number made from features is of its network, its preprocessing and its weights: `digest` covers
all three, and belongs into the name of the metric.
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

PROBE = 2  # images that a new network is tried on


class FeatureNetwork(nn.Module, abc.ABC):
    """Base of all: images (N, 3, H, W) in [-1, 1] -> features (N, dim) float32; a row depends on
    its image alone.

    Attributes:
        name: for tables, e.g. "judge" or "inception-2015-12-05".
        dim: columns.
        resize: what happens to the size of an image on its way in.
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
    """What an image scorer computes before its last linear layer, or the output of a layer named by
    `layer`.

    Args:
        scorer: a scorer of images. One with a method `features` (ConvScorer) gives these; of any
            other nn.Module the input of its last nn.Linear is taken.
        layer: a layer of the scorer by its dotted name; outputs (N, C, h, w) are averaged over
            positions.
        name: for tables.
        about: one line for listings.

    Raises:
        Unsupported: a scorer of W codes, or one whose layers cannot be listened to (TorchScript,
            torch.export).
        UnknownName: no such layer.
        EditbenchError: no linear layer to stop at.
    """

    def __init__(
        self, scorer: Scorer, layer: str | None = None, name: str = "judge", about: str = ""
    ) -> None:
        super().__init__()
        scorer = scorer.whole  # its layers count here, whatever is evaluated
        if scorer.input != "image":
            raise Unsupported(
                f"features of images need a scorer of images; this one scores '{scorer.input}'"
            )
        self.scorer = scorer
        self.layer = layer
        self.name = name
        # Without a layer to stop at, the scorer's own method gives the features.
        self._tap = None if layer is None and hasattr(scorer, "features") else self._find(layer)
        side = getattr(scorer, "input_size", None) or [getattr(scorer, "resolution", 64)] * 2
        self.resize = "none"
        if getattr(scorer, "input_size", None):
            self.resize = f"{side[0]}x{side[1]} bilinear, as the scorer does"
        # A scorer without parameters, such as a function, runs anywhere.
        device = next(scorer.parameters(), torch.zeros(())).device
        self.dim = probe(self, (int(side[0]), int(side[1])), type(scorer).__name__, device).shape[1]
        self.digest = hash_of(["scorer features", scorer.digest, layer])

    def _find(self, layer: str | None) -> nn.Module:
        # Compiled networks have modules, but hooks on them are not called.
        known = dict(self.scorer.named_modules())
        if any(
            isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule)
            for module in known.values()
        ):
            raise Unsupported(
                "the layers of a TorchScript or torch.export network cannot be listened to: give "
                "metrics "
                "another network, e.g. network=inception, or export one that returns features"
            )
        if layer is not None:
            if layer not in known or not layer:
                raise UnknownName("layer of the scorer", layer, [name for name in known if name])
            return known[layer]
        # The input of the last linear layer is what FID calls the features of a classifier.
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
        hook = (
            self._tap.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0]))
            if self.layer is None
            else self._tap.register_forward_hook(
                lambda _module, _inputs, output: kept.append(output)
            )
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
    """A published TorchScript detector: (images, return_features=True) -> (N, dim)."""

    def __init__(
        self, file: Mapping[str, Any] | Published, path: Path | str | None, dim: int, name: str
    ) -> None:
        super().__init__()
        found = locate_file(file, path)
        self.network = read_torchscript(found.path)
        self.name = name
        self.dim = dim
        if not takes(self.network, "return_features"):
            raise BadFile(
                f"{found.path}: a TorchScript network without the argument return_features, so not "
                f"the published {name}; {found.file.remedy()}"
            )
        self.digest = hash_of([type(self).__name__, found.sha256, self.resize])
        width = probe(self, (64, 64), str(found.path)).shape[1]
        # Another network under the right name gives other numbers of features.
        if width != dim:
            raise BadFile(
                f"{found.path}: returns {width} features, expected {dim}; {found.file.remedy()}"
            )

    def forward(self, images: Tensor) -> Tensor:
        # Grey pictures as three equal colours.
        x = images
        if images.shape[1] == 1:
            x = images.expand(-1, 3, -1, -1)
        features = self.network(self.prepare(x), return_features=True).flatten(1).float()
        # Of a NaN a byte is black, and the features would be those of another picture.
        broken = ~torch.isfinite(images).flatten(1).all(1)
        return features.masked_fill(broken.unsqueeze(1), torch.nan)

    def prepare(self, images: Tensor) -> Tensor:
        """[-1, 1] -> 0..255 as uint8, which the published files take."""
        return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


class InceptionFeatures(_PublishedFeatures):
    """The Inception network of FID (Heusel et al. 2017; TensorFlow's inception-2015-12-05), as
    TorchScript by NVIDIA.

    It takes 0..255, resizes to 299 x 299 inside as TensorFlow 1 did (bilinear, no low-pass) and
    gives the 2048 features of its last pooling. Images are made uint8 first, floor(127.5 x + 128)
    as the StyleGAN2-ADA code does, so that generated ones and files compare: an image read from a
    file as v / 127.5 - 1 is v again. Not differentiable.

    Args:
        file: the published file, see editbench.networks.registry.Published.
        path: a copy of it; None looks in the folder of networks, then fetches it unless offline.
        name: for tables.
        about: one line for listings.
    """

    resize = "299 bilinear inside the network (TF 1.x style)"

    def __init__(
        self,
        file: Mapping[str, Any] | Published,
        path: Path | str | None = None,
        dim: int = 2048,
        name: str = "inception-2015-12-05",
        about: str = "",
    ) -> None:
        super().__init__(file, path, dim, name)


class VGG16Features(_PublishedFeatures):
    """The 4096 features of VGG16's second linear layer, as precision and recall take them
    (Kynkaanniemi et al. 2019).

    The published TorchScript (the file of LPIPS, see editbench.networks.perceptual.ScriptedLPIPS)
    takes 0..255 and resizes to 224 x 224 inside. Made uint8 as InceptionFeatures does.
    """

    resize = "224 inside the network"

    def __init__(
        self,
        file: Mapping[str, Any] | Published,
        path: Path | str | None = None,
        dim: int = 4096,
        name: str = "vgg16",
        about: str = "",
    ) -> None:
        super().__init__(file, path, dim, name)


@torch.no_grad()
def probe(
    network: FeatureNetwork, size: tuple[int, int], source: str, device: torch.device | str = "cpu"
) -> Tensor:
    """Features of two noise images of `size`, checked: (2, dim), finite.

    Raises:
        EditbenchError, NonFinite: the network does not take images, or gives something else.
    """
    # Noise exercises all layers, and its seed makes the outcome the same each time.
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
