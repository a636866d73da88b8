"""What StyleGAN2 and StyleGAN3 have in common: the mapping, truncation, and layers with styles.

z (N, z_dim) -> w (N, w_dim) -> w_plus (N, num_ws, w_dim) -> styles, a list of (N, channels), one
per affine map -> image (N, C, R, R) in about [-1, 1].
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.identity import tensors_digest
from editbench.base.precision import exact
from editbench.base.spaces import WeightShift
from editbench.base.validation import near_powers_of_two
from editbench.networks.stylegan2.layers import EqualLinear
from editbench.networks.stylegan2.ops import scaled_leaky_relu
from editbench.networks.weights import load_strict, load_tensors

# Key of the checksum of all content, in the header of converted files.
CHECKSUM = "sha256"
ORIGIN = "origin"
# Endings of other projects' files, which `editbench convert` reads.
FOREIGN = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin")
# Features (N, C, h, w), and the image so far or the other branch of a resnet block.
State = tuple[Tensor, Tensor | None]


@dataclasses.dataclass(frozen=True)
class StyleConfig(abc.ABC):
    """The common part of the architectures.

    Args:
        resolution: of the image, a power of two.
        channels: the widths.
        z_dim: size of z.
        w_dim: size of w.
        mapping_layers: number of layers of the mapping.
        mapping_lr: learning-rate multiplier of the mapping.
        img_channels: of the image.
        c_dim: size of the label; 0 for an unconditional network.

    Raises:
        ValueError: a size is impossible.
    """

    # Options that `as_dict` includes even if they have their defaults.
    stated: ClassVar[tuple[str, ...]] = ()

    resolution: int
    channels: tuple[int, ...]
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 8
    mapping_lr: float = 0.01
    img_channels: int = 3
    c_dim: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if self.resolution < 4 or self.resolution & (self.resolution - 1):
            raise ValueError(
                f"resolution must be a power of two (4, 8, 16, ...), got {self.resolution}; near it: "
                f"{near_powers_of_two(self.resolution, 4)}"
            )
        sizes = (*self.channels, self.z_dim, self.w_dim, self.mapping_layers)
        # These are 0 if the network lacks the part, or has its usual size.
        optional = (self.c_dim, self.embed_dim, self.mapping_width)
        if min(*sizes, self.img_channels) < 1 or min(optional) < 0:
            raise ValueError(f"sizes and the number of layers must be at least 1: {self}")
        if not (math.isfinite(self.mapping_lr) and self.mapping_lr > 0):
            raise ValueError(f"mapping_lr must be positive, got {self.mapping_lr}")
        if self.conv_clamp is not None and not self.conv_clamp > 0:
            raise ValueError(f"conv_clamp must be positive or None, got {self.conv_clamp}")

    # Fields of the subclasses. They are not fields here, since their order in files and digests
    # differs between the subclasses.
    @property
    @abc.abstractmethod
    def embed_dim(self) -> int:
        """Size of the embedded label; 0 for w_dim."""

    @property
    @abc.abstractmethod
    def mapping_width(self) -> int:
        """Width of the hidden layers of the mapping; 0 for w_dim."""

    @property
    @abc.abstractmethod
    def conv_clamp(self) -> float | None:
        """Bound of the outputs of layers; None for none."""

    @property
    @abc.abstractmethod
    def num_ws(self) -> int:
        """Rows of w_plus."""

    @property
    @abc.abstractmethod
    def summary(self) -> str:
        """A short description of the architecture."""

    @abc.abstractmethod
    def facts(self) -> dict[str, str]:
        """Further facts about the architecture, for listings."""

    def as_dict(self) -> dict[str, Any]:
        """The content of files and digests: sizes, and options that differ from their defaults."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name in self.stated or value != defaults[name]
        }


def unit_moment(x: Tensor) -> Tensor:
    """Scale each sample of x (N, d) to a second moment of 1."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class Mapping(nn.Module):
    """z -> w: normalisation to unit second moment, and fully connected layers.

    A label is embedded linearly, normalised and appended to z (Karras et al. 2020, "Training
    Generative Adversarial Networks with Limited Data").
    """

    # Running mean of w over training, the centre of truncation.
    w_avg: Tensor

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        # 0 means the usual width, w_dim.
        embed_dim = config.embed_dim or config.w_dim
        self.embed = None
        if config.c_dim:
            self.embed = EqualLinear(config.c_dim, embed_dim)
        first = config.z_dim + (embed_dim if config.c_dim else 0)
        widths = [
            first,
            *[config.mapping_width or config.w_dim] * (config.mapping_layers - 1),
            config.w_dim,
        ]
        self.layers = nn.ModuleList(
            EqualLinear(a, b, config.mapping_lr) for a, b in pairwise(widths)
        )
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        # z (N, z_dim), label (N, c_dim) -> (N, w_dim)
        # Always in float32, since small errors of w cause large errors of the image.
        with exact(z.device):
            return self._forward(z, label)

    def _forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        # As in StyleGAN, z is projected to a sphere.
        x = unit_moment(z)
        if self.embed is not None:
            if label is None:
                raise EditbenchError("this network is conditional: give a label")
            x = torch.cat([x, unit_moment(self.embed(label))], 1)
        for layer in self.layers:
            x = scaled_leaky_relu(layer(x))
        return x


class StyleSynthesis(nn.Module, abc.ABC):
    """w_plus -> styles -> image.

    `layers` has the layers with styles, in the order of the space S, and `rows` the row of w_plus
    that determines the style of each.
    """

    layers: nn.ModuleDict
    rows: list[int]

    def styles(self, w_plus: Tensor) -> list[Tensor]:
        """Affine maps: w_plus (N, num_ws, w_dim) -> list of (N, channels)."""
        with exact(w_plus.device):
            return [affine(w_plus[:, row]) for affine, row in zip(self.affines(), self.rows)]

    def affines(self) -> list[EqualLinear]:
        """The affine maps from w to styles, in the order of the space S."""
        return [cast(EqualLinear, layer.affine) for layer in self.layers.values()]

    def forward(
        self, styles: Sequence[Tensor], noise: bool = True, shift: WeightShift | None = None
    ) -> Tensor:
        """Run all layers; returns the images (N, C, R, R).

        Args:
            styles: (N, channels) of each layer, in the order of `layers`.
            noise: see `run`.
            shift: see `run`.
        """
        _, image = self.run(self.begin(len(styles[0])), styles, noise, shift)
        assert image is not None
        return image

    def run(
        self,
        state: State,
        styles: Sequence[Tensor],
        noise: bool = True,
        shift: WeightShift | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> State:
        """Run layers [first, last), so that layers before an edited one can be computed only once.

        Args:
            state: before the layer `first`.
            styles: of all layers.
            noise: whether to add the network's constant noise, if it has any.
            shift: shifts the weight of its layer, if that is run.
            first: the first layer to run.
            last: the first layer that is not run; None to run all that follow.
        """
        names = list(self.layers)
        for name, style in zip(names[first:last], styles[first:last]):
            # The shift applies to only one layer.
            own = None
            if shift is not None and shift.layer == name:
                own = shift
            state = self.step(name, state, style, noise, own)
        return state

    @abc.abstractmethod
    def begin(self, n: int) -> State:
        """The state of n samples before the first layer."""

    @abc.abstractmethod
    def step(
        self, name: str, state: State, style: Tensor, noise: bool, shift: WeightShift | None
    ) -> State:
        """The state after one layer.

        Args:
            name: of the layer.
            state: before it.
            style: (N, channels) of this layer.
            noise: see `run`.
            shift: of this layer's weight.
        """


class StyleNetwork(nn.Module):
    """The network; `editbench.networks.style_generator` wraps it as a Generator."""

    kind: ClassVar[str]  # of its files, and its generator's name in the configuration
    config_type: ClassVar[type[StyleConfig]]
    makers: ClassVar[str] = "make one with `editbench convert`"  # how to make a file, for messages

    config: StyleConfig
    mapping: Mapping
    synthesis: StyleSynthesis

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)

    def truncate(self, w: Tensor, truncation_psi: float) -> Tensor:
        """Move w towards the running mean: mean + psi (w - mean).

        Karras et al. 2019, "A Style-Based Generator Architecture", appendix B.

        Args:
            w: (..., w_dim).
            truncation_psi: 1 leaves w unchanged, 0 gives the mean.
        """
        # lerp with 1 could round, but psi 1 must not change any bit.
        if truncation_psi == 1:
            return w
        return torch.lerp(self.mapping.w_avg, w, truncation_psi)

    def forward(
        self, z: Tensor, truncation_psi: float = 1.0, label: Tensor | None = None
    ) -> Tensor:
        """Decode z to images (N, C, R, R).

        Args:
            z: (N, z_dim).
            truncation_psi: see `truncate`; it applies to all rows of W+.
            label: (N, c_dim), for a conditional network.
        """
        w = self.truncate(self.mapping(z, label), truncation_psi)
        w_plus = w.unsqueeze(1).expand(-1, self.config.num_ws, -1)
        return self.synthesis(self.synthesis.styles(w_plus))

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """Read a network from a file of its kind.

        Raises:
            BadFile: the file is missing, truncated, altered or of another kind, has NaN, or its
                tensors do not fit its architecture.
        """
        if Path(path).suffix in FOREIGN:
            raise BadFile(
                f"{path}: checkpoints of other projects are converted once, then read without "
                f"running any code: `editbench convert {path} --out {Path(path).stem}.safetensors`,"
                f" then generator.weights={Path(path).stem}.safetensors"
            )
        config, tensors = load_tensors(path, cls.kind, cls.makers)
        # Neither is part of the architecture.
        checksum = config.pop(CHECKSUM, None)
        _ = config.pop(ORIGIN, None)
        try:
            architecture = cls.config_type(**config)
        except (TypeError, ValueError) as error:
            raise BadFile(
                f"{path}: its configuration is not that of a {cls.__name__} ({error})"
            ) from error
        # Files of earlier versions have no checksum.
        if checksum is not None and checksum != tensors_digest(tensors, architecture.as_dict()):
            raise BadFile(
                f"{path}: its content has changed since it was written; copy or convert the file "
                "again"
            )
        network = cls(architecture)
        load_strict(network, tensors, path)
        return network
