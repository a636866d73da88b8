"""3x3 convolutions of wide layers on a CPU, with a quarter of the multiplications.

Winograd's minimal filtering F(4x4, 3x3), see Lavin & Gray 2016, "Fast Algorithms for Convolutional
Neural Networks", section 4.3. The 4 x 4 outputs of a tile depend on 6 x 6 inputs. A convolution is
a product of polynomials: both factors are evaluated at five points and at infinity on each axis,
the 36 values are multiplied (as matrices, over the channels), and the product is interpolated. This
takes 36 products where the sum of the definition takes 144.

Lavin & Gray evaluate at 0, +-1 and +-2. With 0, +-1/sqrt(2) and +-sqrt(2) the root mean square of
the rounding error is half of theirs (tests/test_winograd.py), and its largest value a quarter.
Both are at most twice those of PyTorch's own convolution of features in the layout channels last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from editbench.base.precision import lowered
from editbench.networks.frozen import FromFrozen, is_frozen

TILE = 4  # outputs on a side
WINDOW = 6  # inputs on a side, and points of evaluation on an axis
# The points are 0, +-NEAR, +-FAR and infinity. NEAR * FAR = 1 saves a multiplication.
NEAR = math.sqrt(0.5)
FAR = math.sqrt(2)
# Below these sizes the additions of the transforms cost more than they save.
MIN_CHANNELS = 128
MIN_SIDE = 16
# Transformed inputs that are held at once: they fit into a cache, and matrix products are large.
CHUNK_BYTES = 8 << 20


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with zeros around the image, by Winograd's algorithm where that is faster.

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, 3, padding=1)
        self._transformed = FromFrozen(transform_kernel)

    def forward(self, x: Tensor) -> Tensor:
        if not is_faster(x, self.weight):
            return super().forward(x)
        assert self.bias is not None
        x = convolve(x, self._transformed.of(self.weight))
        return x.add_(self.bias[:, None, None])


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether `convolve` is faster than PyTorch's convolution, where nothing is differentiated.

    No time is measured, so that a machine always computes the same bits.

    Args:
        x: (N, n_in, H, W).
        weight: (n_out, n_in, 3, 3).
    """
    if x.device.type != "cpu" or lowered(x.device):
        return False
    if x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if min(weight.shape[:2]) < MIN_CHANNELS or min(x.shape[2:]) < MIN_SIDE:
        return False
    if x.shape[2] % TILE or x.shape[3] % TILE or not is_frozen(weight):
        return False
    if torch.is_grad_enabled() and x.requires_grad:
        return False
    return forward_ad.unpack_dual(x).tangent is None


def transform_kernel(weight: Tensor) -> Tensor:
    """The kernel's values at the 6 x 6 points, for `convolve`.

    Args:
        weight: (n_out, n_in, 3, 3).

    Returns:
        (36, n_in, n_out): four times the memory of the weight.
    """
    points = (0.0, NEAR, -NEAR, FAR, -FAR)
    rows = []
    for point in points:
        # Lagrange's denominators are applied here, where they cost nothing per image.
        scale = math.prod(point - other for other in points if other != point)
        rows.append([point**power / scale for power in range(3)])
    # The value at infinity is the highest coefficient.
    rows.append([0.0, 0.0, 1.0])
    values = torch.tensor(rows, dtype=torch.float64, device=weight.device)
    at_points = torch.einsum("ia,jb,ocab->ijco", values, values, weight.double())
    return at_points.flatten(0, 1).to(weight.dtype).contiguous()


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """The 3x3 convolution of x, with zeros around the image.

    Args:
        x: (N, n_in, H, W); H and W are multiples of 4. Channels last is the fastest layout.
        kernel: (36, n_in, n_out), see `transform_kernel`.

    Returns:
        (N, n_out, H, W), channels last.
    """
    height, width = x.shape[2:]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (N, H + 2, W + 2, n_in)
    # The bytes of a row of tiles of the whole batch, which may be empty.
    channels = max(kernel.shape[1:])
    row = max(1, len(x)) * (width // TILE) * WINDOW**2 * channels * x.element_size()
    step = TILE * max(1, CHUNK_BYTES // row)
    chunks = []
    for top in range(0, height, step):
        bottom = min(top + step, height)
        chunks.append(_convolve_rows(padded[:, top : bottom + 2], kernel))
    return torch.cat(chunks, 1).permute(0, 3, 1, 2)


def _convolve_rows(x: Tensor, kernel: Tensor) -> Tensor:
    """The convolution of rows: x (N, h + 2, W + 2, n_in) -> (N, h, W, n_out)."""
    at_points = []
    for row in _evaluate(_windows(x, 1)):
        at_points += _evaluate(_windows(row, 2))
    values = torch.stack(at_points)  # (36, N, h / 4, W / 4, n_in)
    products = torch.bmm(values.flatten(1, 3), kernel)
    products = products.unflatten(1, values.shape[1:4]).unflatten(0, (WINDOW, WINDOW))
    rows = []
    for row in _interpolate(products.unbind(0)):
        rows.append(torch.stack(_interpolate(row.unbind(0)), 3))
    tiles = torch.stack(rows, 2)  # (N, h / 4, 4, W / 4, 4, n_out)
    return tiles.flatten(3, 4).flatten(1, 2)


def _windows(x: Tensor, axis: int) -> list[Tensor]:
    """The six inputs of each tile along an axis: every fourth one, from the first to the sixth."""
    n = (x.shape[axis] - 2) // TILE
    ends = TILE * (n - 1) + 1
    indices = (slice(start, start + ends, TILE) for start in range(WINDOW))
    before = (slice(None),) * axis
    return [x[(*before, index)] for index in indices]


def _evaluate(windows: Sequence[Tensor]) -> list[Tensor]:
    """Six inputs as coefficients -> their values at 0, NEAR, -NEAR, FAR, -FAR and infinity.

    This is the transpose of the interpolation, as a convolution is the transpose of a product.
    """
    a, b, c, d, e, f = windows
    both = NEAR**2 + FAR**2
    near_even = torch.sub(e, c, alpha=FAR**2)
    near_odd = torch.sub(d, b, alpha=FAR**2).mul_(NEAR)
    far_even = torch.sub(e, c, alpha=NEAR**2)
    far_odd = torch.sub(d, b, alpha=NEAR**2).mul_(FAR)
    return [
        torch.sub(a, c, alpha=both).add_(e),
        near_even + near_odd,
        near_even - near_odd,
        far_even + far_odd,
        far_even - far_odd,
        torch.sub(b, d, alpha=both).add_(f),
    ]


def _interpolate(products: Sequence[Tensor]) -> list[Tensor]:
    """Products at the six points -> the four outputs: sums over the points times their powers."""
    zero, near, minus_near, far, minus_far, infinity = products
    near_even = near + minus_near
    near_odd = near - minus_near
    far_even = far + minus_far
    far_odd = far - minus_far
    return [
        (zero + near_even).add_(far_even),
        (near_odd * NEAR).add_(far_odd, alpha=FAR),
        (near_even * NEAR**2).add_(far_even, alpha=FAR**2),
        torch.add(infinity, near_odd, alpha=NEAR**3).add_(far_odd, alpha=FAR**3),
    ]
