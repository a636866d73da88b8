"""Layers of the StyleGAN2 generator.

Styles are the raw outputs of the layers' affine maps, so there is only one space S.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from editbench.base.devices import to_device
from editbench.base.precision import exact, lowered
from editbench.base.spaces import WeightShift
from editbench.networks import winograd
from editbench.networks.frozen import FromFrozen
from editbench.networks.stylegan2.ops import (
    ACTIVATION_GAIN,
    FIR,
    fir_filter,
    fir_kernel,
    fir_upsample,
)

# Karras et al. 2020, eq. 3: avoids a division by zero for a kernel of zeros.
DEMODULATION_EPS = 1e-8


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate: weights of unit variance, scaled at run time."""

    def __init__(
        self, n_in: int, n_out: int, lr_multiplier: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((n_out,), bias / lr_multiplier))
        # Karras et al. 2018, "Progressive Growing of GANs", section 4.1: the scale of He's
        # initialisation is applied at run time.
        self.weight_gain = lr_multiplier / math.sqrt(n_in)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


class ModulatedConv(nn.Module):
    """A convolution with a kernel that is scaled by a style and demodulated to unit norm."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Computing it at each call would take a tenth of the time of decoding a batch of 1.
        self._energy = FromFrozen(_kernel_energy)

    def demodulation(
        self, style: Tensor, shift: WeightShift | None = None, kernels: Tensor | None = None
    ) -> Tensor:
        """Reciprocal norm of each modulated output kernel (Karras et al. 2020, eq. 3).

        For a shifted kernel W + t X, the squared norm is sum_i s_i^2 (|W_oi|^2 + 2 t <W_oi, X_oi> +
        t^2 |X_oi|^2).

        Args:
            style: (N, n_in) scales s of the input channels.
            shift: of this layer's kernel; None for the stored kernel.
            kernels: (N, n_out, n_in, 3, 3), if each sample has its own, see `own_kernels`. They
                replace the stored kernel and the shift.

        Returns:
            (N, n_out).
        """
        square = style.square()
        if kernels is not None:
            energies = kernels.square().sum((3, 4))  # (N, n_out, n_in)
            energy = (energies @ square.unsqueeze(2)).squeeze(2)
            return torch.rsqrt(energy + DEMODULATION_EPS)
        # The norm depends only on the squares of style and kernel, so no kernel per sample is
        # needed.
        energy = F.linear(square, self.kernel_energy())
        if shift is not None:

            def more(kernel: Tensor, square: Tensor, t: Tensor) -> Tensor:
                cross = (self.weight * kernel).sum((2, 3))
                own = kernel.square().sum((2, 3))
                return t * (2 * F.linear(square, cross) + t * F.linear(square, own))

            energy = energy + by_direction(shift, more, square, shift.magnitude.unsqueeze(1))
        return torch.rsqrt(energy + DEMODULATION_EPS)

    def kernel_energy(self) -> Tensor:
        """Squared norm of the kernel between each pair of channels, (n_out, n_in)."""
        return self._energy.of(self.weight)


def _kernel_energy(weight: Tensor) -> Tensor:
    return weight.square().sum((2, 3))


class StyledConv(ModulatedConv):
    """Modulated, demodulated 3x3 convolution with up-sampling, noise, bias and activation.

    See Karras et al. 2020, eq. 1 to 3. The style multiplies the input and the demodulation the
    output. This is equal to modulating the kernel of each sample, but needs only one dense
    convolution for the batch. Only if the samples are shifted along many different directions, each
    gets its own kernel. `clamp` bounds the output, as in networks trained in half precision.
    """

    noise: Tensor
    fir: Tensor

    def __init__(
        self,
        n_in: int,
        n_out: int,
        w_dim: int,
        resolution: int,
        up: bool,
        fir: Sequence[float] = FIR,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up = up
        self.clamp = clamp
        # Padding of the low-pass filter: the transposed convolution has 2 h + 1 rows of output, of
        # which 2 h are needed.
        self.pad = ((len(fir) - 1) // 2, len(fir) // 2 - 1)
        self.gain = 1 / math.sqrt(9 * n_in)  # keeps products in the range of half precision
        # With a bias of 1, styles are initially 1 on average.
        self.affine = EqualLinear(w_dim, n_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(resolution, resolution))
        self.register_buffer("fir", fir_kernel(4.0, fir), persistent=False)
        self._transformed = FromFrozen(winograd.transform_kernel)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.up:
            return F.conv_transpose2d(x, weight.transpose(0, 1).to(x.dtype), stride=2)
        if winograd.is_faster(x, weight):
            return winograd.convolve(x, self._transformed.of(weight))
        return F.conv2d(x, weight.to(x.dtype), padding=1)

    def convolve_each(self, x: Tensor, kernels: Tensor) -> Tensor:
        """The convolution of each sample with its own kernel.

        Args:
            x: (N, n_in, h, w).
            kernels: (N, n_out, n_in, 3, 3).

        Returns:
            (N, n_out, H, W), channels last.
        """
        n = len(x)
        # The samples become groups of channels of one image.
        image = x.reshape(1, -1, *x.shape[2:])
        if self.up:
            weight = kernels.transpose(1, 2).flatten(0, 1)
            out = F.conv_transpose2d(image, weight, stride=2, groups=n)
        else:
            out = F.conv2d(image, kernels.flatten(0, 1), padding=1, groups=n)
        out = out.view(n, -1, *out.shape[2:])
        # Channels last like the other features, since mixing layouts is many times slower.
        # torch.func.vmap does not support `memory_format`.
        return out.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)

    def forward(
        self, x: Tensor, style: Tensor, noise: bool = True, shift: WeightShift | None = None
    ) -> Tensor:
        # x (N, n_in, h, w), style (N, n_in) -> (N, n_out, H, W), H = 2 h if the layer up-samples
        kernels = None
        if shift is not None and own_kernels_are_faster(x, shift):
            kernels = own_kernels(self.weight, shift)
        elif shift is not None:
            shift = picked(shift)
        # The gain of the activation commutes with a leaky ReLU, and applying it to small factors is
        # cheaper than to the features.
        with exact(x.device):
            demodulation = self.demodulation(style, shift, kernels)[:, :, None, None]
            demodulation = demodulation * ACTIVATION_GAIN
        if lowered(x.device):
            style = style * self.gain
            demodulation = demodulation / self.gain
        x = x * style[:, :, None, None].to(x.dtype)
        if kernels is None:
            x = shifted(self.convolve, x, self.weight, shift)
        else:
            x = self.convolve_each(x, kernels)
        if self.up:
            x = fir_filter(x, self.fir, self.pad)
        bias = self.bias * ACTIVATION_GAIN
        offset = bias[:, None, None]
        if noise:
            maps = self.noise * (self.noise_strength * ACTIVATION_GAIN)
            # One map for all samples, (H, W), or one for each, (N, 1, H, W). The sum has its
            # channels last, like x: adding tensors of different layouts is many times slower.
            maps = maps.unsqueeze(2) if maps.dim() == 2 else maps.movedim(1, 3)
            offset = (bias + maps).movedim(-1, -3)
        offset = offset.to(x.dtype)
        demodulation = demodulation.to(x.dtype)
        return self.activate(x, demodulation, offset)

    def activate(self, x: Tensor, demodulation: Tensor, offset: Tensor) -> Tensor:
        """Demodulation, noise and bias, activation and clamp; in place if possible.

        Args:
            x: (N, n_out, H, W) output of the convolution; it may be overwritten.
            demodulation: (N, n_out, 1, 1), including the gain of the activation.
            offset: noise and bias, broadcastable to x, including the gain of the activation.
        """
        # The gradient of the demodulation needs x unchanged, and in-place operations on tangents
        # would copy at each step. Otherwise in-place is faster, since allocation costs more than
        # the arithmetic. All three ways give the same bits.
        factors = (x, demodulation, offset)
        if forward_ad.unpack_dual(x).tangent is not None:
            x = F.leaky_relu(x * demodulation + offset, 0.2)
        elif torch.is_grad_enabled() and any(factor.requires_grad for factor in factors):
            x = F.leaky_relu((x * demodulation).add_(offset), 0.2, inplace=True)
        else:
            x = F.leaky_relu(x.mul_(demodulation).add_(offset), 0.2, inplace=True)
        if self.clamp is None:
            return x
        return x.clamp(-self.clamp, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to the image's channels, without demodulation or noise."""

    def __init__(
        self, n_in: int, w_dim: int, channels: int = 3, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, n_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.gain = 1 / math.sqrt(n_in)
        self.clamp = clamp

    def forward(self, x: Tensor, style: Tensor, shift: WeightShift | None = None) -> Tensor:
        modulation = style * self.gain
        # Here a kernel per sample is small, and it saves a pass over the features.
        weight = (modulation.unsqueeze(1) * self.weight.flatten(1)).to(x.dtype)  # (N, C, n_in)
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, H W, n_in), a view if x is channels-last
        out = (rows @ weight.transpose(1, 2)).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        if shift is not None:
            modulated = x * modulation[:, :, None, None].to(x.dtype)
            out = out + contribution(_pointwise, modulated, shift)
        out = out + self.bias[:, None, None].to(x.dtype)
        if self.clamp is None:
            return out
        return out.clamp(-self.clamp, self.clamp)


def _pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution."""
    return F.conv2d(x, weight.to(x.dtype))


class Skip(nn.Module):
    """The residual branch of the resnet architecture: a 1x1 convolution and up-sampling."""

    fir: Tensor

    def __init__(self, n_in: int, n_out: int, fir: Sequence[float] = FIR) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 1, 1))
        self.gain = math.sqrt(0.5 / n_in)
        self.register_buffer("fir", fir_kernel(4.0, fir), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return fir_upsample(F.conv2d(x, (self.weight * self.gain).to(x.dtype)), self.fir)


# -- a kernel for each sample ----------------------------------------------------------------------
def own_kernels_are_faster(x: Tensor, shift: WeightShift) -> bool:
    """Whether a kernel per sample is faster than a pass over the batch for each direction.

    It is if a batch has more than half as many directions as samples. The kernels then need less
    than twice the memory of these directions, and temporary copies of them four times. No time is
    measured, so that a machine always computes the same bits. Only the speed on a CPU is known.

    Args:
        x: (N, n_in, h, w).
        shift: of the N samples.
    """
    if x.device.type != "cpu" or lowered(x.device):
        return False
    used = len(shift.index.unique())
    # A batch of one sample is computed like any other batch with a single direction.
    if used == 1 or 2 * used <= len(shift):
        return False
    # A sample with a step of 0, such as the start of a walk, must keep the bits that it has without
    # a shift. Another convolution rounds differently.
    try:
        return bool((shift.magnitude != 0).all())
    except RuntimeError:
        # Under torch.func.vmap over the magnitudes, their values cannot be read.
        return False


def own_kernels(weight: Tensor, shift: WeightShift) -> Tensor:
    """The shifted weight of each sample, (N, *weight.shape)."""
    # Gathering the directions also makes their gradient a single sum over the samples.
    kernels = shift.kernels.index_select(0, shift.index).to(weight.dtype)
    magnitude = shift.magnitude.to(weight.dtype).reshape(-1, *[1] * weight.dim())
    return torch.addcmul(weight, magnitude, kernels)


# -- per-sample weights without per-sample kernels -------------------------------------------------
def picked(shift: WeightShift) -> WeightShift:
    """The same shift. If directions require gradients, only those that the batch uses are kept.

    Otherwise each use of a direction would create a gradient of the size of all directions.
    """
    if not shift.kernels.requires_grad or not len(shift):
        return shift
    # `place` is the position of a sample's direction among those that are used.
    used, place = shift.index.unique(return_inverse=True)
    return WeightShift(shift.layer, shift.kernels[used], place, shift.magnitude)


def by_direction(shift: WeightShift, function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """Apply a function to the samples of each direction, and return the results in original order.

    Args:
        shift: kernels of the directions, and the direction of each of N samples.
        function: (kernel, rows of each batch) -> (n, ...), row by row.
        batches: (N, ...) tensors, of which the function gets the rows of a direction.

    Returns:
        (N, ...).
    """
    kernels = shift.kernels.unbind(0)
    # On the host, since reading values from a GPU would wait for it each time.
    index = shift.index.cpu() if shift.known is None else shift.known
    # If all samples have the same direction, the batch is not copied. Values are compared one by
    # one, since some versions of torch cannot convert a tensor to a list under torch.func.
    first = int(index[0]) if len(index) else 0
    if bool((index == first).all()):
        return function(kernels[first], *batches)
    used = index.unique().tolist()
    groups = [to_device((index == k).nonzero()[:, 0], shift.index.device) for k in used]
    parts = [
        function(kernels[k], *(batch[rows] for batch in batches)) for k, rows in zip(used, groups)
    ]
    # The results are in the order of the directions; this is back to that of the samples.
    return torch.cat(parts)[torch.cat(groups).argsort()]


def contribution(
    linear: Callable[[Tensor, Tensor], Tensor], x: Tensor, shift: WeightShift
) -> Tensor:
    """linear(x_n, t_n kernel_n) for every sample n, in one pass over the batch, by direction.

    Args:
        linear: (x (n, ...), weight) -> (n, ...), linear in the weight.
        x: (N, ...).
        shift: the kernels and magnitudes t.
    """
    t = shift.magnitude.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
    return by_direction(shift, lambda kernel, rows: linear(rows, kernel), x * t)


def shifted(
    linear: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, shift: WeightShift | None
) -> Tensor:
    """linear(x_n, weight + t_n kernel_n) for every sample n.

    It is exact, since the map is linear in the weight. There is one pass for the common weight and
    one for the directions, and no kernel per sample.

    Args:
        linear: (x (n, ...), weight) -> (n, ...), linear in the weight.
        x: (N, ...).
        weight: common to all samples.
        shift: the kernels and magnitudes t of the samples; None for no shift.
    """
    out = linear(x, weight)
    if shift is None:
        return out
    return out + contribution(linear, x, shift)
