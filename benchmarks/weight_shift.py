"""Per-sample weight shifts, against per-sample kernels from a tiled basis.

The straightforward way repeats all directions for every sample, contracts them with the samples'
coefficients, adds the weight, modulates and demodulates each kernel and runs one convolution with
a group a sample. Both ways decode the same layer; rounds alternate and the medians are printed,
with gradients for the directions (as in training) and without. Ours costs at least two layers,
one for the weight and one for the directions, whatever their number; with gradients also a weight
gradient for each direction in the batch and one array as large as all of them, which every way
must fill. Times are CPU seconds of one thread, which other work on the machine does not lengthen.

    python benchmarks/weight_shift.py [--rounds 5] [--directions 64] [--sizes 128x16x16 512x16x4]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.memory import keep_freed_memory
from editbench.base.spaces import WeightShift
from editbench.networks.stylegan2.layers import ACTIVATION_GAIN, DEMODULATION_EPS, StyledConv


def tiled(layer: StyledConv, x: Tensor, style: Tensor, shift: WeightShift) -> Tensor:
    """One kernel a sample, out of a basis that is copied for every sample."""
    n = len(x)
    directions = len(shift.kernels)
    coefficients = F.one_hot(shift.index, directions) * shift.magnitude[:, None]
    basis = shift.kernels.unsqueeze(0).repeat(n, 1, 1, 1, 1, 1)
    kernels = layer.weight + (basis * coefficients[:, :, None, None, None, None]).sum(1)
    return grouped(layer, x, style, kernels)


def contracted(layer: StyledConv, x: Tensor, style: Tensor, shift: WeightShift) -> Tensor:
    """One kernel a sample, out of one matrix product with the basis."""
    coefficients = F.one_hot(shift.index, len(shift.kernels)) * shift.magnitude[:, None]
    kernels = layer.weight + (coefficients @ shift.kernels.flatten(1)).view(
        len(x), *layer.weight.shape
    )
    return grouped(layer, x, style, kernels)


def grouped(layer: StyledConv, x: Tensor, style: Tensor, kernels: Tensor) -> Tensor:
    """Modulate, demodulate and convolve: kernels (N, n_out, n_in, 3, 3)."""
    n, n_out, n_in = kernels.shape[:3]
    kernels = kernels * style[:, None, :, None, None]
    kernels = kernels * torch.rsqrt(
        kernels.square().sum((2, 3, 4), keepdim=True) + DEMODULATION_EPS
    )
    x = F.conv2d(x.reshape(1, n * n_in, *x.shape[2:]), kernels.flatten(0, 1), padding=1, groups=n)
    x = (
        x.view(n, n_out, *x.shape[2:])
        + layer.bias[:, None, None]
        + layer.noise * layer.noise_strength
    )
    return F.leaky_relu(x, 0.2) * ACTIVATION_GAIN


def seconds(function: Callable[[], object]) -> float:
    began = time.process_time()
    function()
    return time.process_time() - began


def compare(width: int, batch: int, size: int, directions: int, rounds: int) -> None:
    torch.manual_seed(0)
    layer = StyledConv(width, width, 8, size, up=False).requires_grad_(False)
    x = torch.randn(batch, width, size, size).contiguous(memory_format=torch.channels_last)
    style = 1 + 0.3 * torch.randn(batch, width)
    kernels = torch.randn(directions, width, width, 3, 3) / (3 * width)
    index = torch.randint(directions, (batch,))
    magnitude = torch.randn(batch) * 20
    ways: dict[str, Callable[[WeightShift], Tensor]] = {
        "tiled": lambda shift: tiled(layer, x, style, shift),
        "contracted": lambda shift: contracted(layer, x, style, shift),
        "ours": lambda shift: layer(x, style, True, shift),
    }
    shift = WeightShift("conv", kernels, index, magnitude)
    # All ways decode the same: they differ by rounding.
    expected = ways["tiled"](shift)
    gap = 0.0
    for way in ways.values():
        gap = max(gap, ((way(shift) - expected).abs().max() / expected.abs().max()).item())
    still = statistics.median(seconds(lambda: layer(x, style)) for _ in range(rounds))
    print(
        f"\n{width}x{width}x3x3 at {size}x{size}, batch {batch}, {len(index.unique())} of "
        f"{directions} directions in the batch; largest relative difference {gap:.1e}; "
        f"the layer without a shift {still * 1e3:.1f} ms"
    )
    # Forward as in a walk; with gradients for the directions as in training.
    for gradients in (False, True):
        learned = kernels.clone().requires_grad_(gradients)

        def once(way: Callable[[WeightShift], Tensor], learned: Tensor = learned) -> None:
            out = way(WeightShift("conv", learned, index, magnitude))
            if learned.requires_grad:
                torch.autograd.grad(out.square().mean(), learned)

        times: dict[str, list[float]] = {name: [] for name in ways}
        # In turn, so that all ways see the machine in the same state.
        for _ in range(rounds):
            for name, way in ways.items():
                times[name].append(seconds(lambda way=way: once(way)))  # type: ignore[misc]
        medians = {name: statistics.median(values) for name, values in times.items()}
        text = f"  {'forward, backward' if gradients else 'forward':18s}"
        for name, value in medians.items():
            text += f"{name} {value * 1e3:9.1f} ms ({value / medians['ours']:5.1f}x)   "
        print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directions", type=int, default=64)
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["64x16x8", "128x16x16", "128x32x16", "256x8x16"],
        help="WIDTHxBATCHxPIXELS",
    )
    args = parser.parse_args()
    # As the command does.
    keep_freed_memory()
    # One thread: the numbers then compare between machines of any size.
    torch.set_num_threads(1)
    for text in args.sizes:
        width, batch, size = map(int, text.split("x"))
        compare(width, batch, size, args.directions, args.rounds)


if __name__ == "__main__":
    main()
