"""Measures the rate of StyleGAN2's synthesis network, against one modulated kernel per sample.

The networks are StyleGAN2 config-f with random weights, for example at 256x256 and 1024x1024
pixels. Three implementations decode the same w:

    grouped    (straightforward, as published code) modulates and demodulates the kernels of each
               sample, and runs a grouped convolution with one group per sample. Filter, noise, bias
               and activation are separate passes over the feature maps. float32.
    ours       scales the activations instead of the kernels, runs one dense convolution for the
               whole batch (on a CPU by Winograd's algorithm where the layers are wide), and fuses
               gains, bias and noise into one pass. float32.
    ours bf16  the same with precision=bf16

The rounds alternate between them. A fourth row, "bound", is not an implementation. It estimates the
largest possible rate in float32 from two rates that are measured in the same run: multiply-adds of
the convolutions at the rate of a large matrix product, and bytes of weights and activations, each
written and read once, at the rate of a large copy. The smaller of the two is printed, with its
name. Winograd's convolutions need fewer multiply-adds, so they may exceed the first one.

The columns are: images per second, the median over the rounds (of CPU time on the CPU, of wall time
on a GPU); the rate divided by that of grouped; the rate divided by the bound; and the largest
difference of a pixel to grouped, in standard deviations of the pixels.

    python benchmarks/synthesis.py
    python benchmarks/synthesis.py --rounds 1 --layouts 256x1      # the smallest run
    python benchmarks/synthesis.py --device cuda --layouts 1024x16

docs/checkpoints.md reports the result. It guards editbench/networks/stylegan2/layers.py and
editbench/networks/winograd.py.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.precision import casting
from editbench.networks.stylegan2.layers import DEMODULATION_EPS, StyledConv, ToRGB
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.networks.stylegan2.ops import ACTIVATION_GAIN, fir_upsample

W_DIM = 512  # of config-f
FLOAT = 4  # bytes


def grouped_conv(layer: StyledConv, x: Tensor, style: Tensor) -> Tensor:
    """Apply a styled convolution with one modulated and demodulated kernel per sample.

    Args:
        layer: with the weight, the bias and the noise.
        x: (n, n_in, h, h) feature maps.
        style: (n, n_in) scales of the input channels.

    Returns:
        (n, n_out, h, h) feature maps, or (n, n_out, 2 h, 2 h) if the layer upsamples.
    """
    n = len(x)
    n_out, n_in = layer.weight.shape[:2]
    kernels = layer.weight * style[:, None, :, None, None]
    norms = kernels.square().sum((2, 3, 4), keepdim=True)
    kernels = kernels * torch.rsqrt(norms + DEMODULATION_EPS)
    # The samples become groups of channels of one image.
    x = x.reshape(1, n * n_in, *x.shape[2:])
    if layer.up:
        transposed = kernels.transpose(1, 2).reshape(n * n_in, n_out, 3, 3)
        x = F.conv_transpose2d(x, transposed, stride=2, groups=n)
        fir = layer.fir.expand(x.shape[1], 1, *layer.fir.shape)
        x = F.conv2d(x, fir, padding=1, groups=x.shape[1])
    else:
        x = F.conv2d(x, kernels.reshape(n * n_out, n_in, 3, 3), padding=1, groups=n)
    x = x.view(n, n_out, *x.shape[2:]) + layer.noise * layer.noise_strength
    return F.leaky_relu(x + layer.bias[:, None, None], 0.2) * ACTIVATION_GAIN


def grouped_rgb(layer: ToRGB, x: Tensor, style: Tensor) -> Tensor:
    """Convert feature maps to an image with one modulated kernel per sample.

    Args:
        layer: with the weight, the gain and the bias.
        x: (n, n_in, h, h) feature maps.
        style: (n, n_in) scales of the input channels.

    Returns:
        (n, channels, h, h) images.
    """
    n = len(x)
    channels, n_in = layer.weight.shape[:2]
    kernels = layer.weight * layer.gain * style[:, None, :, None, None]
    kernels = kernels.reshape(n * channels, n_in, 1, 1)
    x = F.conv2d(x.reshape(1, n * n_in, *x.shape[2:]), kernels, groups=n)
    return x.view(n, channels, *x.shape[2:]) + layer.bias[:, None, None]


def grouped(network: StyleGAN2, w: Tensor) -> Tensor:
    """Decode w (n, 512) with one kernel per sample, as published code does."""
    synthesis = network.synthesis
    styles = synthesis.styles(w.unsqueeze(1).expand(-1, network.config.num_ws, -1))
    x = synthesis.const.repeat(len(w), 1, 1, 1)
    image = None
    for layer, style in zip(synthesis.layers.values(), styles):
        if isinstance(layer, StyledConv):
            x = grouped_conv(layer, x, style)
        else:
            assert isinstance(layer, ToRGB)
            rgb = grouped_rgb(layer, x, style)
            image = rgb if image is None else fir_upsample(image, synthesis.fir) + rgb
    assert image is not None
    return image


def ours(network: StyleGAN2, w: Tensor) -> Tensor:
    """Decode w (n, 512) as editbench does, in float32."""
    w_plus = w.unsqueeze(1).expand(-1, network.config.num_ws, -1)
    return network.synthesis(network.synthesis.styles(w_plus))


def ours_in_bf16(network: StyleGAN2, w: Tensor) -> Tensor:
    """Decode w (n, 512) as editbench does with precision=bf16."""
    with casting("bf16", w.device):
        return ours(network, w)


# Name of the row -> implementation. The first one is the reference.
IMPLEMENTATIONS: dict[str, Callable[[StyleGAN2, Tensor], Tensor]] = {
    "grouped": grouped,
    "ours": ours,
    "ours bf16": ours_in_bf16,
}


class Cost(NamedTuple):
    """What the convolutions of an image cost at least.

    Attributes:
        operations: multiply-adds.
        bytes: of activations in float32, each written and read once.
    """

    operations: float
    bytes: float


def image_cost(config: StyleGAN2Config) -> Cost:
    """Count the multiply-adds and the activations of the convolutions of one image."""
    operations = 0.0
    activations = 0.0
    before = config.channels[0]
    for k, width in enumerate(config.channels):
        size = 4 << k
        if k:
            # A transposed convolution does 9 multiply-adds per pixel that it reads. Then comes a
            # filter of 4 x 4.
            operations += 9 * before * width * (size // 2) ** 2 + 16 * width * size**2
            activations += width * (size + 1) ** 2 + width * size**2
        # The second convolution of the resolution, and the conversion to RGB.
        operations += 9 * width * width * size**2 + config.img_channels * width * size**2
        activations += width * size**2 + 2 * config.img_channels * size**2
        before = width
    # Every number is written once and read once.
    return Cost(operations, 2 * FLOAT * activations)


def measure(function: Callable[[], object], device: str) -> float:
    """Measure one call: CPU seconds on the CPU, seconds of wall time on a GPU."""
    if device == "cpu":
        began = time.process_time()
        function()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - began


class Peaks(NamedTuple):
    """The rates that the device reaches with simple operations.

    Attributes:
        operations: multiply-adds per second of a large matrix product.
        bytes: per second of a large copy, reading and writing counted.
    """

    operations: float
    bytes: float


def measure_peaks(device: str, rounds: int) -> Peaks:
    """Measure the rates of a large matrix product and of a large copy, in float32.

    Args:
        device: 'cpu' or a GPU.
        rounds: two more than this many measurements are made; the fastest counts.
    """
    # A GPU needs larger arrays to be busy.
    side = 1536 if device == "cpu" else 8192
    mebibytes = 64 if device == "cpu" else 512
    a = torch.randn(side, side, device=device)
    b = torch.randn(side, side, device=device)
    source = torch.randn(mebibytes << 18, device=device)
    target = torch.empty_like(source)
    # The first calls are slower. They are not measured.
    a @ b
    target.copy_(source)
    product = min(measure(lambda: a @ b, device) for _ in range(rounds + 2))
    copy = min(measure(lambda: target.copy_(source), device) for _ in range(rounds + 2))
    return Peaks(side**3 / product, 2 * source.nbytes / copy)


def make_network(resolution: int, device: str) -> StyleGAN2:
    """Make a StyleGAN2 config-f with random weights, and noise and biases that are not zero."""
    torch.manual_seed(0)
    network = StyleGAN2(StyleGAN2Config.config_f(resolution)).to(device).eval()
    # As loaded networks are: what is computed from frozen weights is kept.
    network.requires_grad_(False)
    for layer in network.synthesis.layers.values():
        assert isinstance(layer, StyledConv | ToRGB)
        torch.nn.init.normal_(layer.bias, std=0.1)
        if isinstance(layer, StyledConv):
            torch.nn.init.constant_(layer.noise_strength, 0.1)
    return network


def compare(resolution: int, batch: int, device: str, rounds: int, peaks: Peaks) -> None:
    """Compare the implementations at one resolution and batch size, and print their rows.

    Args:
        resolution: of the images, pixels.
        batch: images that are decoded together.
        device: 'cpu' or a GPU.
        rounds: measurements of each implementation.
        peaks: rates of the device.
    """
    network = make_network(resolution, device)
    w = torch.randn(batch, W_DIM, device=device)
    # These calls also warm up.
    images = {name: decode(network, w) for name, decode in IMPLEMENTATIONS.items()}
    expected = images["grouped"]
    times: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
    # The implementations alternate, so that changes of the machine's speed affect all.
    for _ in range(rounds):
        for name, decode in IMPLEMENTATIONS.items():
            times[name].append(measure(partial(decode, network, w), device))
    rates = {name: batch / statistics.median(seconds) for name, seconds in times.items()}
    cost = image_cost(network.config)
    # A batch reads the weights once.
    weights = sum(p.nbytes for p in network.synthesis.parameters()) / batch
    bounds = {
        "operations": peaks.operations / cost.operations,
        "bytes": peaks.bytes / (cost.bytes + weights),
    }
    limit = min(bounds, key=lambda name: bounds[name])
    bound = bounds[limit]
    layout = f"{resolution}x{resolution}"
    for name, rate in rates.items():
        gap = ((images[name] - expected).abs().max() / expected.std()).item()
        print(
            f"{layout:>10} {batch:>6}  {name:<18} {rate:>9.3f} {rate / rates['grouped']:>10.2f} "
            f"{rate / bound:>8.0%} {gap:>17.1e}"
        )
    print(
        f"{layout:>10} {batch:>6}  {f'bound: {limit}':<18} {bound:>9.3f} "
        f"{bound / rates['grouped']:>10.2f} {1:>8.0%}",
        flush=True,
    )
    print(f"{'':>19}({cost.operations / 1e9:.1f} G multiply-adds per image)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="measurements of each implementation (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--layouts",
        nargs="+",
        default=["256x4", "256x8", "1024x2"],
        metavar="RESOLUTIONxBATCH",
        help="resolutions in pixels with batch sizes (default: 256x4 256x8 1024x2)",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    if args.device != "cpu":
        # The rows say float32, so TF32 must not be used, neither by them nor for the bound.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    peaks = measure_peaks(args.device, args.rounds)
    print(f"{args.device}, {args.threads} thread(s), torch {torch.__version__}, float32")
    print(
        f"matrix product {peaks.operations / 1e9:.1f} G multiply-adds/s, "
        f"copy {peaks.bytes / 1e9:.1f} GB/s"
    )
    print(
        f"{'layout':>10} {'batch':>6}  {'implementation':<18} {'images/s':>9} {'/ grouped':>10} "
        f"{'/ bound':>8} {'difference / std':>17}"
    )
    for text in args.layouts:
        resolution, batch = map(int, text.split("x"))
        compare(resolution, batch, args.device, args.rounds, peaks)


if __name__ == "__main__":
    main()
