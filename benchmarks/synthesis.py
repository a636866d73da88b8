"""Throughput of StyleGAN2 synthesis against a kernel a sample, as published code computes it, in the same run.

The layouts are config-f at 256x256 and 1024x1024 with random weights. The straightforward way modulates and
demodulates the kernels of every sample, runs one grouped convolution with a group a sample, filters after an
up-convolution, adds noise and bias and applies the activation, each a pass over the picture; ours scales activations
instead, shares one dense convolution over the batch and folds the gains, bias and noise into one pass. Rounds
alternate and the medians are printed, in CPU seconds, which other work on the machine does not lengthen. A second line
has ours in bfloat16, as precision=bf16 runs it, against the straightforward way in float32.

The floor: multiply-adds of the layout's convolutions at the rate of a large matrix product in the same run, and beside
it the bytes of weights and activations, each written and read once, at the rate of a large copy. A Winograd or FFT
convolution may lie below the first.

    python benchmarks/synthesis.py [--rounds 3] [--threads 1] [--layouts 256x4 256x8 1024x2] [--device cpu]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.precision import casting
from editbench.networks.stylegan2.layers import DEMODULATION_EPS, StyledConv, ToRGB
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.networks.stylegan2.ops import ACTIVATION_GAIN, fir_upsample


def grouped_conv(layer: StyledConv, x: Tensor, style: Tensor) -> Tensor:
    """One kernel a sample: modulate, demodulate, convolve with a group a sample."""
    n, n_out, n_in = len(x), *layer.weight.shape[:2]
    kernels = layer.weight * style[:, None, :, None, None]
    kernels = kernels * torch.rsqrt(
        kernels.square().sum((2, 3, 4), keepdim=True) + DEMODULATION_EPS
    )
    x = x.reshape(1, n * n_in, *x.shape[2:])
    if layer.up:
        x = F.conv_transpose2d(
            x, kernels.transpose(1, 2).reshape(n * n_in, n_out, 3, 3), stride=2, groups=n
        )
        x = F.conv2d(
            x, layer.fir.expand(x.shape[1], 1, *layer.fir.shape), padding=1, groups=x.shape[1]
        )
    else:
        x = F.conv2d(x, kernels.reshape(n * n_out, n_in, 3, 3), padding=1, groups=n)
    x = x.view(n, n_out, *x.shape[2:]) + layer.noise * layer.noise_strength
    return F.leaky_relu(x + layer.bias[:, None, None], 0.2) * ACTIVATION_GAIN


def grouped_rgb(layer: ToRGB, x: Tensor, style: Tensor) -> Tensor:
    n, channels, n_in = len(x), *layer.weight.shape[:2]
    kernels = (layer.weight * layer.gain * style[:, None, :, None, None]).reshape(
        n * channels, n_in, 1, 1
    )
    x = F.conv2d(x.reshape(1, n * n_in, *x.shape[2:]), kernels, groups=n)
    return x.view(n, channels, *x.shape[2:]) + layer.bias[:, None, None]


def straightforward(network: StyleGAN2, w: Tensor) -> Tensor:
    synthesis = network.synthesis
    styles = synthesis.styles(w.unsqueeze(1).expand(-1, network.config.num_ws, -1))
    x, image = synthesis.const.repeat(len(w), 1, 1, 1), None
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
    return network.synthesis(
        network.synthesis.styles(w.unsqueeze(1).expand(-1, network.config.num_ws, -1))
    )


def lowered(network: StyleGAN2, w: Tensor) -> Tensor:
    with casting("bf16", w.device):
        return ours(network, w)


def work(config: StyleGAN2Config) -> tuple[float, float]:
    """(multiply-adds, bytes of activations written and read once) of one picture's convolutions."""
    operations, numbers, before = 0.0, 0.0, config.channels[0]
    for k, width in enumerate(config.channels):
        size = 4 << k
        if k:  # a transposed convolution does 9 multiply-adds for each pixel that it reads; then the filter
            operations += 9 * before * width * (size // 2) ** 2 + 16 * width * size**2
            numbers += width * (size + 1) ** 2 + width * size**2
        operations += 9 * width * width * size**2 + config.img_channels * width * size**2
        numbers += width * size**2 + 2 * config.img_channels * size**2
        before = width
    return operations, 8 * numbers


def seconds(function: Callable[[], object], device: str) -> float:
    """CPU seconds of one call, or the wall clock's on a GPU."""
    if device == "cpu":
        began = time.process_time()
        function()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def peaks(device: str, rounds: int) -> tuple[float, float]:
    """(multiply-adds a second of a matrix product, bytes a second of a copy, reads and writes counted)."""
    n = 1536 if device == "cpu" else 8192
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    source = torch.randn((64 if device == "cpu" else 512) << 18, device=device)
    target = torch.empty_like(source)
    a @ b
    target.copy_(source)
    product = min(seconds(lambda: a @ b, device) for _ in range(rounds + 2))
    copy = min(seconds(lambda: target.copy_(source), device) for _ in range(rounds + 2))
    return n**3 / product, 2 * source.nbytes / copy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--layouts", nargs="+", default=["256x4", "256x8", "1024x2"], help="RESOLUTIONxBATCH"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    if args.device != "cpu":  # float32 as it says, in both ways and in the floor
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    rate, bandwidth = peaks(args.device, args.rounds)
    print(
        f"{args.device}, {args.threads} thread(s), torch {torch.__version__}, float32: matrix product "
        f"{rate / 1e9:.1f} G multiply-adds/s, copy {bandwidth / 1e9:.1f} GB/s"
    )
    print(
        f"{'layout':>10} {'batch':>6} {'grouped':>12} {'ours':>12} {'ratio':>6} {'floor':>22} "
        f"{'difference / std':>17}"
    )
    for text in args.layouts:
        resolution, batch = map(int, text.split("x"))
        torch.manual_seed(0)
        network = StyleGAN2(StyleGAN2Config.config_f(resolution)).to(args.device).eval()
        for layer in network.synthesis.layers.values():
            torch.nn.init.normal_(layer.bias, std=0.1)
            if isinstance(layer, StyledConv):
                torch.nn.init.constant_(layer.noise_strength, 0.1)
        w = torch.randn(batch, 512, device=args.device)
        ways = {"grouped": straightforward, "ours": ours, "bf16": lowered}
        expected, *others = (way(network, w) for way in ways.values())  # and warms all up
        gap, low = (((got - expected).abs().max() / expected.std()).item() for got in others)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, way in ways.items():
                times[name].append(seconds(partial(way, network, w), args.device))
        slow, fast, half = (batch / statistics.median(times[name]) for name in ways)
        operations, moved = work(network.config)
        weights = sum(p.nbytes for p in network.synthesis.parameters()) / batch
        floors = rate / operations, bandwidth / (moved + weights)
        name = "operations" if floors[0] < floors[1] else "bytes"
        print(
            f"{resolution:>5}x{resolution:<4} {batch:>6} {slow:>8.3f} /s {fast:>10.3f} /s {fast / slow:>5.2f}x "
            f"{min(floors):>7.2f} /s {name:<11} {gap:>14.1e}   {operations / 1e9:.1f} G multiply-adds an image; "
            f"{fast / min(floors) if math.isfinite(min(floors)) else math.nan:.0%} of the floor"
        )
        print(
            f"{'in bf16':>10} {'':>20} {half:>10.3f} /s {half / slow:>5.2f}x {low:>38.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
