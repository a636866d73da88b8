"""The alias-free activation of StyleGAN3: up-sampling, leaky ReLU, down-sampling.

Karras et al. 2021, section 3.2 and appendix D. At the higher rate, features need several times the
memory of input and output. They are therefore computed for some channels and a band of rows at a
time, and recomputed for the gradient instead of stored. No compiled extensions are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SLOPE = 0.2  # of the leaky ReLU below zero
# Bytes of a band at the higher rate. On a CPU, allocation costs more than the arithmetic, and bands
# of this size reuse the same memory. A GPU needs larger bands to be kept busy.
BAND = 1 << 24
BAND_ON_GPU = 1 << 28
# A band of at least this many rows gets more channels rather than more rows. Low bands are
# inefficient, since the filters also read rows of neighbouring bands.
TALL = 256
FEWEST_ROWS = 8  # least number of output rows in a band
CHANNELS = 16  # least number of channels filtered together, as many as fit in a CPU's registers


class Resampling(NamedTuple):
    """The sizes of an activation.

    Args:
        up: up-sampling factor before the leaky ReLU.
        down: down-sampling factor after it.
        lead: number of taps of the first filter before the first sample of its output.
        side: of the output, in pixels.
        clamp: bound of the leaky ReLU's output; None for none.
    """

    up: int
    down: int
    lead: int
    side: int
    clamp: float | None


def filtered_leaky_relu(x: Tensor, up_taps: Tensor, down_taps: Tensor, how: Resampling) -> Tensor:
    """Up-sample, leaky ReLU and clamp, down-sample; twice differentiable in x.

    Args:
        x: (N, C, h, h) input; the channels-last layout is faster.
        up_taps: filter (T,) for both axes, or (T, T), including the gain that compensates for the
            inserted zeros.
        down_taps: filter after the leaky ReLU, in the same form, flipped.
        how: the sizes.

    Returns:
        (N, C, side, side).
    """
    width = _width(down_taps, how)
    # The number of channels and samples that fit in a band of TALL rows.
    planes = _most_bytes(x) // (width * min(width, TALL) * x.element_size())
    channels = max(CHANNELS, planes // CHANNELS * CHANNELS)
    samples = max(1, planes // min(channels, x.shape[1]))
    if samples >= len(x) and channels >= x.shape[1]:
        return _FilteredLeakyReLU.apply(x, up_taps, down_taps, how)
    parts = []
    for some in x.split(samples):
        done = []
        for group in some.split(channels, 1):
            # A copy with channels last.
            dense = group.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
            done.append(_FilteredLeakyReLU.apply(dense, up_taps, down_taps, how))
        parts.append(torch.cat(done, 1))
    return torch.cat(parts)


class _FilteredLeakyReLU(torch.autograd.Function):
    """Saves only x, from which the slopes of the piecewise linear map are computed again."""

    # It consists of operations that torch.func can transform.
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, up_taps: Tensor, down_taps: Tensor, how: Resampling) -> Tensor:
        def activated(rows: tuple[int, int]) -> Tensor:
            y = F.leaky_relu(_up(x, up_taps, how, down_taps, rows), SLOPE, inplace=True)
            if how.clamp is None:
                return y
            return y.clamp_(-how.clamp, how.clamp)

        return _down(activated, x, down_taps, how)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.how = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        x, up_taps, down_taps = ctx.saved_tensors
        how = ctx.how
        width = _width(down_taps, how)
        bands = []
        # The adjoint of each filter, in reverse order.
        for first, last in _bands(x.shape[2], how.up * width, x):
            rows = gathered_rows(first, last, len(up_taps), how.up, how.lead)
            inside = (max(rows[0], 0), min(rows[1], width))
            y = spread(gradient, down_taps, how.down, 0, inside, width)
            y = y * _slopes(_up(x, up_taps, how, down_taps, inside), how.clamp)
            # Rows outside the image have no gradient.
            y = F.pad(y, (0, 0, inside[0] - rows[0], rows[1] - inside[1]))
            bands.append(gather(y, up_taps, how.up, how.lead, x.shape[3]))
        return torch.cat(bands, 2), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *others: Any) -> Tensor:
        x, up_taps, down_taps = ctx.saved_tensors
        how = ctx.how

        def moved(rows: tuple[int, int]) -> Tensor:
            slopes = _slopes(_up(x, up_taps, how, down_taps, rows), how.clamp)
            return _up(tangent, up_taps, how, down_taps, rows) * slopes

        return _down(moved, x, down_taps, how)


def _up(
    x: Tensor, up_taps: Tensor, how: Resampling, down_taps: Tensor, rows: tuple[int, int]
) -> Tensor:
    """Rows [first, last) of the up-sampled features."""
    return spread(x, up_taps, how.up, how.lead, rows, _width(down_taps, how))


def _down(
    activated: Callable[[tuple[int, int]], Tensor], x: Tensor, down_taps: Tensor, how: Resampling
) -> Tensor:
    """Down-sample the output of `activated`, a function of rows at the higher rate."""
    bands = []
    for first, last in _bands(how.side, how.down * _width(down_taps, how), x):
        y = activated(gathered_rows(first, last, len(down_taps), how.down, 0))
        bands.append(gather(y, down_taps, how.down, 0, how.side))
    return torch.cat(bands, 2)


def _width(down_taps: Tensor, how: Resampling) -> int:
    """Side in pixels at the higher rate: as many as the second filter reads."""
    return (how.side - 1) * how.down + len(down_taps)


def _slopes(y: Tensor, clamp: float | None) -> Tensor:
    """Derivative of leaky ReLU and clamp at y."""
    slopes = SLOPE + (1 - SLOPE) * (y > 0).to(y.dtype)
    if clamp is None:
        return slopes
    return slopes * ((y <= clamp) & (y >= -clamp / SLOPE))


def _bands(rows: int, pixels: int, like: Tensor) -> Iterator[tuple[int, int]]:
    """Bands [first, last) of rows, where a row has `pixels` pixels at the higher rate."""
    bytes_of_row = like.shape[0] * like.shape[1] * pixels * like.element_size()
    height = max(FEWEST_ROWS, _most_bytes(like) // max(bytes_of_row, 1))
    # All bands have about the same height, since a last band of few rows would be inefficient.
    count = -(-rows // height)
    for k in range(count):
        yield k * rows // count, (k + 1) * rows // count


def _most_bytes(like: Tensor) -> int:
    return BAND if like.device.type == "cpu" else BAND_ON_GPU


# -- the two filters, adjoint to each other --------------------------------------------------------
def spread(
    x: Tensor, taps: Tensor, factor: int, lead: int, rows: tuple[int, int], width: int
) -> Tensor:
    """out[t] = sum over i of x[i] taps[t + lead - factor i], along both axes.

    Args:
        x: (N, C, h, w).
        taps: (T,) or (T, T).
        factor: output samples per input sample.
        lead: number of taps before the first sample of the output.
        rows: [first, last) of the output.
        width: number of columns of the output.
    """
    size = len(taps)
    first, last = rows
    # Rows of x that contribute to the output.
    begin = max(0, -((size - 1 - first - lead) // factor))
    end = min(x.shape[2], (last - 1 + lead) // factor + 1)
    part = x[:, :, begin:end]
    # torch removes the same number of columns at both ends, which is sufficient here.
    surplus = (x.shape[3] - 1) * factor + size - lead - width
    cut = max(0, min(lead, surplus))
    if taps.dim() == 1:
        part = _spread(part, taps[None, :], (1, factor), cut)
        part = _spread(part, taps[:, None], (factor, 1), 0)
    else:
        part = _spread(part, taps, (factor, factor), cut)
    above = first + lead - begin * factor
    part = part[:, :, above : above + last - first, lead - cut : lead - cut + width]
    # The output is zero beyond the last tap of the last sample.
    below = last - first - part.shape[2]
    behind = width - part.shape[3]
    if below or behind:
        part = F.pad(part, (0, behind, 0, below))
    return part


def _spread(x: Tensor, kernel: Tensor, stride: tuple[int, int], cut: int) -> Tensor:
    # Each channel is a separate group.
    weight = kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
    return F.conv_transpose2d(x, weight, stride=stride, padding=(0, cut), groups=x.shape[1])


def gathered_rows(first: int, last: int, size: int, factor: int, lead: int) -> tuple[int, int]:
    """Rows [begin, end) that `gather` reads for the rows [first, last) of its output.

    Args:
        first: row of the output.
        last: row of the output + 1.
        size: number of taps.
        factor: input samples per output sample.
        lead: number of taps of the first output sample before the first row.
    """
    return first * factor - lead, (last - 1) * factor - lead + size


def gather(y: Tensor, taps: Tensor, factor: int, lead: int, width: int) -> Tensor:
    """out[i] = sum over t of y[t] taps[t + lead - factor i], along both axes.

    Args:
        y: (N, C, H, W), exactly the rows that are read, see `gathered_rows`.
        taps: (T,) or (T, T).
        factor: input samples per output sample.
        lead: number of taps of the first output sample before the first column.
        width: number of columns of the output.
    """
    size = len(taps)
    behind = (width - 1) * factor - lead + size - y.shape[3]
    if lead or behind:
        # A negative margin crops.
        y = F.pad(y, (lead, behind, 0, 0))
    if taps.dim() == 2:
        return _gather(y, taps, (factor, factor))
    # Rows first, since they are contiguous; the second pass is over a smaller tensor either way.
    y = _gather(y, taps[:, None], (factor, 1))
    return _gather(y, taps[None, :], (1, factor))


def _gather(y: Tensor, kernel: Tensor, stride: tuple[int, int]) -> Tensor:
    weight = kernel.to(y.dtype).expand(y.shape[1], 1, *kernel.shape)
    return F.conv2d(y, weight, stride=stride, groups=y.shape[1])
