"""The architecture of a StyleGAN3, and the design of each layer that follows from it.

Karras et al. 2021, "Alias-Free Generative Adversarial Networks", section 3.2 and appendix C:
cut-off and stop-band frequencies grow geometrically over the layers, and sampling rates, sizes and
filters follow from them. Frequencies are in cycles per image, rates in samples per image.
"""

from __future__ import annotations

import dataclasses
import math

from editbench.networks.stylegan import StyleConfig


@dataclasses.dataclass(frozen=True)
class LayerDesign:
    """Sizes, rates and filters of one layer.

    Args:
        name: in `layer_names`.
        published: its name in the published networks, where ToRGB has a number too.
        n_in: channels of its input.
        n_out: channels of its output.
        kernel: side of the convolution's kernel in pixels.
        in_size: side of its input in pixels.
        out_size: side of its output in pixels.
        rate: sampling rate of its activation.
        up: factor from the rate of its input to `rate`.
        down: factor from `rate` to the rate of its output.
        up_taps: number of taps of the filter before the activation.
        down_taps: number of taps of the filter after it.
        in_cutoff, in_half_width: of the filter before the activation, see `filters.low_pass`.
        out_cutoff, out_half_width: of the filter after it.
        radial: whether the filter after it is symmetric under rotation.
    """

    name: str
    published: str
    n_in: int
    n_out: int
    kernel: int
    in_size: int
    out_size: int
    rate: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    in_cutoff: float
    in_half_width: float
    out_cutoff: float
    out_half_width: float
    radial: bool

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros before and after each axis of the convolution's output, at `rate`."""
        # The filter after the activation reads `needed` samples, and the filter before it shortens
        # its input by its length.
        needed = (self.out_size - 1) * self.down + self.down_taps
        spread = (self.in_size + self.kernel - 1) * self.up
        total = needed - spread + self.up_taps - 1
        # A pixel and the zeros inserted after it should be centred at the pixel's position. The
        # zeros count as padding, of which the part before is rounded up.
        before = (total + self.up) // 2
        return before, total - before


@dataclasses.dataclass(frozen=True)
class StyleGAN3Config(StyleConfig):
    """The architecture; `channels` are the widths of all layers except ToRGB.

    The first width is also that of the input. The first eight arguments are those of `StyleConfig`.

    Args:
        embed_dim: size of the embedded label; 0 for w_dim.
        mapping_width: width of the hidden layers of the mapping; 0 for w_dim.
        num_critical: number of last layers before ToRGB that are critically sampled.
        first_cutoff: cut-off frequency of the first layer.
        first_stopband: stop-band frequency of the first layer.
        last_stopband_ratio: stop-band frequency of the last layer, as a multiple of its cut-off
            frequency.
        margin: pixels that the layers compute around the image.
        kernel: side of the convolutions' kernels in pixels; 1 in configuration r.
        radial: whether filters are symmetric under rotation, as in configuration r.
        filter_size: number of taps of a filter, per unit of its factor.
        oversampling: of the activations, relative to the larger rate of input and output.
        conv_clamp: bound of the outputs of activations; None for none.
        output_scale: of ToRGB's output.
    """

    mapping_layers: int = 2
    embed_dim: int = 0
    mapping_width: int = 0
    num_critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband_ratio: float = 2**0.3
    margin: int = 10
    kernel: int = 3
    radial: bool = False
    filter_size: int = 6
    oversampling: int = 2
    conv_clamp: float | None = 256.0
    output_scale: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.num_critical < len(self.channels):
            raise ValueError(
                f"num_critical={self.num_critical} of {len(self.channels)} layers must be between "
                "0 and their number"
            )
        positive = (
            self.first_cutoff,
            self.first_stopband - self.first_cutoff,
            self.last_stopband_ratio - 1,
            self.resolution / 2 - self.first_cutoff,
            self.output_scale,
        )
        if not all(math.isfinite(value) and value > 0 for value in positive):
            raise ValueError(
                "output_scale and frequencies must be positive, a stop band above its "
                f"cut-off, and first_cutoff below half of the resolution: {self}"
            )
        if min(self.kernel, self.filter_size, self.oversampling) < 1 or self.margin < 0:
            raise ValueError(f"kernel, filter_size, oversampling and margin must be counts: {self}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, since it has a middle pixel, got {self.kernel}")

    @property
    def num_ws(self) -> int:
        # One row each for the input, the layers and ToRGB.
        return len(self.channels) + 2

    @property
    def summary(self) -> str:
        return f"configuration {'r' if self.radial else 't'}"

    def facts(self) -> dict[str, str]:
        """Facts for listings: the layers with their sizes and widths, and the filters."""
        return {
            "layers": " ".join(design.name for design in self.layers()),
            "convolutions": f"{self.kernel} x {self.kernel}",
            "filters": f"{self.filter_size} taps a step, cut-off from {self.first_cutoff:g} to "
            f"{self.resolution / 2:g} cycles a picture, {self.num_critical} critical layers",
        }

    @property
    def rates(self) -> list[int]:
        """Sampling rates of the outputs of all layers and of ToRGB."""
        return [
            round(2 ** math.ceil(math.log2(min(2 * stopband, self.resolution))))
            for _, stopband in self._bands()
        ]

    @property
    def sizes(self) -> list[int]:
        """Sides in pixels of the outputs of all layers and of ToRGB."""
        sizes = [rate + 2 * self.margin for rate in self.rates]
        # The last layer and ToRGB compute the image without a margin.
        sizes[-2:] = [self.resolution, self.resolution]
        return sizes

    def _bands(self) -> list[tuple[float, float]]:
        """(cut-off, stop-band) frequencies of the outputs of all layers and of ToRGB."""
        last = self.resolution / 2
        last_stopband = last * self.last_stopband_ratio
        bands = []
        for k in range(len(self.channels) + 1):
            # The critically sampled layers at the end all have the last frequencies.
            share = min(k / (len(self.channels) - self.num_critical), 1)
            bands.append(
                (
                    self.first_cutoff * (last / self.first_cutoff) ** share,
                    self.first_stopband * (last_stopband / self.first_stopband) ** share,
                )
            )
        return bands

    def layers(self) -> list[LayerDesign]:
        """The layers in order, with ToRGB at the end."""
        rates = self.rates
        sizes = self.sizes
        widths = (*self.channels, self.img_channels)
        # A transition band ends at the stop band, or at half the rate if that is higher.
        bands = [
            (cutoff, max(stopband, rate / 2) - cutoff)
            for (cutoff, stopband), rate in zip(self._bands(), rates)
        ]
        designs = []
        for k, width in enumerate(widths):
            before = max(k - 1, 0)
            is_rgb = k == len(self.channels)
            # ToRGB is linear, so it needs no oversampling and no filters.
            rate = max(rates[before], rates[k]) * (1 if is_rgb else self.oversampling)
            up = rate // rates[before]
            down = rate // rates[k]
            published = f"L{k}_{sizes[k]}_{width}"
            designs.append(
                LayerDesign(
                    name=f"rgb{sizes[k]}" if is_rgb else published,
                    published=published,
                    n_in=widths[before],
                    n_out=width,
                    kernel=1 if is_rgb else self.kernel,
                    in_size=sizes[before],
                    out_size=sizes[k],
                    rate=rate,
                    up=up,
                    down=down,
                    up_taps=self.filter_size * up if up > 1 and not is_rgb else 1,
                    down_taps=self.filter_size * down if down > 1 and not is_rgb else 1,
                    in_cutoff=bands[before][0],
                    in_half_width=bands[before][1],
                    out_cutoff=bands[k][0],
                    out_half_width=bands[k][1],
                    radial=self.radial and k < len(self.channels) - self.num_critical,
                )
            )
        return designs

    @classmethod
    def published(cls, resolution: int, configuration: str = "t") -> StyleGAN3Config:
        """The published layouts, for a resolution.

        Args:
            resolution: side of the images in pixels.
            configuration: 't', equivariant to translation, or 'r', also to rotation.

        Raises:
            ValueError: there is no such configuration.
        """
        if configuration not in ("t", "r"):
            raise ValueError(f"the configuration must be 't' or 'r', got {configuration!r}")
        is_r = configuration == "r"
        base, most = (32768, 1024) if is_r else (16384, 512)
        # The cut-offs depend on the number of layers, but not on the channels.
        plain = cls(resolution, (1,) * 14)
        channels = tuple(round(min(base / cutoff, most)) for cutoff, _ in plain._bands()[:-1])
        if is_r:
            return cls(resolution, channels, kernel=1, radial=True)
        return cls(resolution, channels)
