"""Measures a convolution whose weight is shifted differently for each sample, against other ways.

NaviGAN adds to the weight of a layer one of several directions, times a magnitude of the sample.
The layer then modulates and demodulates the weight and convolves. Three implementations do this:

    tiled        (straightforward) repeats all directions for every sample, contracts them with the
                 sample's coefficients, and runs a grouped convolution with a kernel per sample
    contracted   computes the shifts with one matrix product with the directions, and runs the same
                 grouped convolution
    ours         StyledConv of editbench. If the batch has more than half as many directions as
                 samples, as with the default options, it gathers a kernel per sample and also runs
                 a grouped convolution, but scales the features instead of the kernels. Otherwise
                 it runs dense convolutions, one for the weight and one for each direction.

They run forward, as in a walk, and forward and backward with gradients for the directions, as in
training. With gradients, every implementation has to fill an array as large as all directions.

The output has a table per size. The lines above it give the size of the layer, the number of
directions in the batch, and the largest relative difference between the outputs of the
implementations. The columns are CPU milliseconds per call in one thread, the median over
alternating rounds, and this time divided by that of ours. The row `no shift` is the layer without a
shift. The line below the table divides the time of tiled by that of `no shift`. This is the largest
ratio that an implementation with this layer can reach.

    python benchmarks/weight_shift.py    # about 20 CPU seconds
    python benchmarks/weight_shift.py --rounds 1 --directions 4 --sizes 16x4x8     # short

docs/methods.md reports the result. It guards editbench/networks/stylegan2/layers.py.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.allocator import keep_freed_memory
from editbench.base.spaces import WeightShift
from editbench.networks.stylegan2.layers import ACTIVATION_GAIN, DEMODULATION_EPS, StyledConv

W_DIM = 8  # of the layer; it has no effect, because the styles are drawn at random
MAGNITUDE = 20  # standard deviation of the shifts


def coefficients_of(shift: WeightShift) -> Tensor:
    """Coefficients (n, directions) of each sample: its magnitude at its direction, otherwise 0."""
    return F.one_hot(shift.index, len(shift.kernels)) * shift.magnitude[:, None]


def tiled(layer: StyledConv, x: Tensor, style: Tensor, shift: WeightShift) -> Tensor:
    """Compute a kernel per sample from directions that are copied for every sample.

    Args:
        layer: with the weight.
        x: (n, n_in, h, h) feature maps.
        style: (n, n_in) scales of the input channels.
        shift: the directions, and index and magnitude of each sample.

    Returns:
        (n, n_out, h, h) feature maps.
    """
    coefficients = coefficients_of(shift)
    basis = shift.kernels.unsqueeze(0).repeat(len(x), 1, 1, 1, 1, 1)
    kernels = layer.weight + (basis * coefficients[:, :, None, None, None, None]).sum(1)
    return grouped(layer, x, style, kernels)


def contracted(layer: StyledConv, x: Tensor, style: Tensor, shift: WeightShift) -> Tensor:
    """Compute a kernel per sample with one matrix product. The arguments are those of `tiled`."""
    shifts = coefficients_of(shift) @ shift.kernels.flatten(1)
    kernels = layer.weight + shifts.view(len(x), *layer.weight.shape)
    return grouped(layer, x, style, kernels)


def grouped(layer: StyledConv, x: Tensor, style: Tensor, kernels: Tensor) -> Tensor:
    """Modulate, demodulate and convolve with a kernel per sample.

    Args:
        layer: with the bias and the noise.
        x: (n, n_in, h, h) feature maps.
        style: (n, n_in) scales of the input channels.
        kernels: (n, n_out, n_in, 3, 3) shifted weights.

    Returns:
        (n, n_out, h, h) feature maps.
    """
    n, n_out, n_in = kernels.shape[:3]
    kernels = kernels * style[:, None, :, None, None]
    norms = kernels.square().sum((2, 3, 4), keepdim=True)
    kernels = kernels * torch.rsqrt(norms + DEMODULATION_EPS)
    # The samples become groups of channels of one image.
    x = x.reshape(1, n * n_in, *x.shape[2:])
    x = F.conv2d(x, kernels.flatten(0, 1), padding=1, groups=n)
    x = x.view(n, n_out, *x.shape[2:]) + layer.bias[:, None, None]
    x = x + layer.noise * layer.noise_strength
    return F.leaky_relu(x, 0.2) * ACTIVATION_GAIN


def cpu_seconds(function: Callable[[], object]) -> float:
    """Measure the CPU time of one call, seconds."""
    began = time.process_time()
    function()
    return time.process_time() - began


def compare(width: int, batch: int, size: int, directions: int, rounds: int) -> None:
    """Compare the implementations on a layer, and print the table.

    Args:
        width: input and output channels of the layer.
        batch: samples.
        size: width and height of the feature maps, pixels.
        directions: number of directions that the samples choose from.
        rounds: measurements of each implementation.
    """
    torch.manual_seed(0)
    layer = StyledConv(width, width, W_DIM, size, up=False).requires_grad_(False)
    # The memory layout of the generator's feature maps.
    x = torch.randn(batch, width, size, size).contiguous(memory_format=torch.channels_last)
    style = 1 + 0.3 * torch.randn(batch, width)
    # Directions of about unit length.
    kernels = torch.randn(directions, width, width, 3, 3) / (3 * width)
    index = torch.randint(directions, (batch,))
    magnitude = torch.randn(batch) * MAGNITUDE
    implementations: dict[str, Callable[[WeightShift], Tensor]] = {
        "tiled": lambda shift: tiled(layer, x, style, shift),
        "contracted": lambda shift: contracted(layer, x, style, shift),
        "ours": lambda shift: layer(x, style, True, shift),
    }
    shift = WeightShift("conv", kernels, index, magnitude)
    # The outputs differ only by rounding.
    expected = implementations["tiled"](shift)
    gap = 0.0
    for apply in implementations.values():
        difference = (apply(shift) - expected).abs().max() / expected.abs().max()
        gap = max(gap, difference.item())
    print(f"\n{width} channels at {size}x{size}, batch {batch}")
    print(
        f"{len(index.unique())} of {directions} directions in the batch; largest relative "
        f"difference {gap:.1e}"
    )
    print(f"{'passes':18} {'implementation':14} {'CPU ms':>10} {'/ ours':>7}")
    bound = 0.0
    for gradients in (False, True):
        learned = kernels.clone().requires_grad_(gradients)

        def run(apply: Callable[[WeightShift], Tensor], learned: Tensor = learned) -> None:
            out = apply(WeightShift("conv", learned, index, magnitude))
            # The loss is arbitrary; only the cost of its gradient counts.
            if learned.requires_grad:
                torch.autograd.grad(out.square().mean(), learned)

        calls: dict[str, Callable[[], object]] = {
            name: partial(run, apply) for name, apply in implementations.items()
        }
        # Without a shift there is no gradient for directions.
        if not gradients:
            calls["no shift"] = lambda: layer(x, style)
        times: dict[str, list[float]] = {name: [] for name in calls}
        # The implementations alternate, so that changes of the machine's speed affect all.
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(cpu_seconds(call))
        medians = {name: statistics.median(values) for name, values in times.items()}
        if not gradients:
            bound = medians["tiled"] / medians["no shift"]
        passes = "forward, backward" if gradients else "forward"
        for name, value in medians.items():
            ratio = value / medians["ours"]
            print(f"{passes:18} {name:14} {value * 1e3:10.1f} {ratio:7.1f}", flush=True)
    print(f"forward, tiled / no shift: {bound:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="measurements of each implementation (default: %(default)s)",
    )
    parser.add_argument(
        "--directions",
        type=int,
        default=64,
        help="weight directions that the samples choose from (default: %(default)s)",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["64x16x8", "128x16x16", "128x32x16", "256x8x16"],
        metavar="CHANNELSxBATCHxPIXELS",
        help="sizes of the layer (default: 64x16x8 128x16x16 128x32x16 256x8x16)",
    )
    args = parser.parse_args()
    # The command sets its memory options in the same way.
    keep_freed_memory()
    # One thread, so that the results of machines with different numbers of cores compare.
    torch.set_num_threads(1)
    for text in args.sizes:
        width, batch, size = map(int, text.split("x"))
        compare(width, batch, size, args.directions, args.rounds)


if __name__ == "__main__":
    main()
