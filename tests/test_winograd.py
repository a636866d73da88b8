"""Winograd's convolution against float64, and against the textbook's matrices."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.precision import casting
from editbench.networks import winograd
from editbench.networks.stylegan2.layers import StyledConv
from editbench.networks.winograd import Conv3x3

SHAPES = [
    # samples, channels of input and output, height, width
    (1, 128, 128, 16, 16),
    (3, 256, 128, 20, 32),
    (2, 130, 200, 64, 16),
    # A row of tiles of this batch exceeds a chunk.
    (12, 128, 128, 16, 128),
]
EMPTY = (0, 128, 128, 16, 16)


def inputs(shape: tuple[int, int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Random features, channels last, and a kernel that keeps their variance."""
    n, n_in, n_out, height, width = shape
    random = torch.Generator().manual_seed(0)
    x = torch.randn(n, n_in, height, width, generator=random)
    kernel = torch.randn(n_out, n_in, 3, 3, generator=random) / math.sqrt(9 * n_in)
    return x.contiguous(memory_format=torch.channels_last), kernel


def exact(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(x.double(), kernel.double(), padding=1)


def error(found: Tensor, expected: Tensor) -> float:
    """Root mean square difference, as a share of the standard deviation of what is expected."""
    return float((found - expected).square().mean().sqrt() / expected.std())


def textbook(x: Tensor, kernel: Tensor, near: float, far: float) -> Tensor:
    """F(4x4, 3x3) with the three matrices of Lavin & Gray 2016, section 4.1, tile by tile.

    The matrices follow from the points by products of polynomials.
    """
    points = [0.0, near, -near, far, -far]
    evaluate = np.zeros((6, 6))  # B^T
    spread = np.zeros((6, 3))  # G
    gather = np.zeros((4, 6))  # A^T
    for row, point in enumerate(points):
        others = [other for other in points if other != point]
        coefficients = np.poly(others)[::-1]
        evaluate[row, :5] = coefficients
        scale = np.prod([point - other for other in others])
        spread[row] = [point**power / scale for power in range(3)]
        gather[:, row] = [point**power for power in range(4)]
    evaluate[5] = np.poly(points)[::-1]
    spread[5, 2] = 1
    gather[3, 5] = 1
    b, g, a = (torch.tensor(matrix) for matrix in (evaluate, spread, gather))
    at_points = (g @ kernel.double() @ g.T).float()
    tiles = F.pad(x, (1, 1, 1, 1)).unfold(2, 6, 4).unfold(3, 6, 4)
    values = b.float() @ tiles @ b.float().T
    products = torch.einsum("ncxyij,ocij->noxyij", values, at_points)
    out = a.float() @ products @ a.float().T
    return out.permute(0, 1, 2, 4, 3, 5).reshape(len(x), len(kernel), *x.shape[2:])


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_convolution_to_the_accuracy_of_float32(shape):
    x, kernel = inputs(shape)
    found = winograd.convolve(x, winograd.transform_kernel(kernel))
    expected = exact(x, kernel)
    assert found.is_contiguous(memory_format=torch.channels_last)
    # The rounding of float32 is 6e-8; a sum of a thousand products loses some bits more.
    assert error(found, expected) < 3e-6
    assert float((found - expected).abs().max() / expected.std()) < 3e-5


def test_an_empty_batch_stays_empty():
    x, kernel = inputs(EMPTY)
    found = winograd.convolve(x, winograd.transform_kernel(kernel))
    assert found.shape == F.conv2d(x, kernel, padding=1).shape


def test_the_points_lose_less_than_half_of_what_the_published_ones_lose():
    x, kernel = inputs((1, 128, 128, 16, 16))
    expected = exact(x, kernel)
    found = winograd.convolve(x, winograd.transform_kernel(kernel))
    same_points = textbook(x, kernel, winograd.NEAR, winograd.FAR)
    published = textbook(x, kernel, 1, 2)
    torch.testing.assert_close(found, same_points, rtol=0, atol=3e-5)
    assert error(found, expected) < 0.5 * error(published, expected)


def test_function_transforms_pass_through_it():
    x, kernel = inputs((2, 8, 8, 16, 16))
    transformed = winograd.transform_kernel(kernel)

    def convolved(sample: Tensor) -> Tensor:
        return winograd.convolve(sample[None], transformed)[0]

    torch.testing.assert_close(
        torch.func.vmap(convolved)(x), winograd.convolve(x, transformed), rtol=0, atol=1e-5
    )
    # It is linear, so its derivative along x is its value.
    _, slope = torch.func.jvp(convolved, (x[0],), (x[1],))
    torch.testing.assert_close(slope, convolved(x[1]), rtol=0, atol=1e-5)


def test_where_something_is_differentiated_or_edited_pytorch_convolves():
    x, kernel = inputs((1, 128, 128, 16, 16))
    frozen = torch.nn.Parameter(kernel, requires_grad=False)
    assert winograd.is_faster(x, frozen)
    assert not winograd.is_faster(x, torch.nn.Parameter(kernel))
    assert not winograd.is_faster(x, kernel)
    assert not winograd.is_faster(x.double(), frozen)
    assert not winograd.is_faster(x, torch.nn.Parameter(kernel.half(), requires_grad=False))
    assert not winograd.is_faster(x[:, :, :, :15], frozen)
    assert not winograd.is_faster(x[:, :, :8, :8], frozen)
    assert not winograd.is_faster(x.to("meta"), frozen)
    with casting("bf16", x.device):
        assert not winograd.is_faster(x, frozen)
    with torch.no_grad():
        assert winograd.is_faster(x.requires_grad_(), frozen)
    assert not winograd.is_faster(x, frozen)


def test_a_styled_layer_follows_its_weights_and_has_gradients():
    torch.manual_seed(0)
    layer = StyledConv(128, 128, w_dim=8, resolution=16, up=False)
    trainable = copy.deepcopy(layer)
    layer.requires_grad_(False)
    x, _ = inputs((2, 128, 128, 16, 16))
    style = 1 + 0.1 * torch.randn(2, 128)

    def expected() -> Tensor:
        # Weights that are trained are convolved by PyTorch.
        trainable.load_state_dict(layer.state_dict())
        return trainable(x, style).detach()

    torch.testing.assert_close(layer(x, style), expected(), rtol=0, atol=3e-5)
    before = layer(x, style)
    layer.weight.mul_(torch.linspace(0.5, 1.5, 128)[:, None, None, None])
    layer.weight[:, :5] = 0
    torch.testing.assert_close(layer(x, style), expected(), rtol=0, atol=3e-5)
    assert not torch.allclose(layer(x, style), before, atol=0.1)
    # With a gradient, PyTorch's convolution is used; the value stays the same.
    differentiable = style.clone().requires_grad_()
    out = layer(x, differentiable)
    torch.testing.assert_close(out.detach(), layer(x, style), rtol=0, atol=3e-5)
    (slope,) = torch.autograd.grad(out.sum(), differentiable)
    assert slope.abs().max() > 0


def wide_layer(n_out: int, side: int = 16) -> tuple[Conv3x3, Tensor]:
    """A frozen layer of 128 input channels, and features for it."""
    torch.manual_seed(0)
    layer = Conv3x3(128, n_out).requires_grad_(False)
    return layer, torch.randn(2, 128, side, side)


@pytest.mark.parametrize("side", [16, 18, 8])
def test_a_convolution_with_bias_has_the_values_of_pytorch(side):
    layer, x = wide_layer(130, side)
    expected = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
    assert error(layer(x), expected) < 3e-6


def test_a_kept_kernel_is_not_that_of_other_values_in_the_same_memory():
    layer, x = wide_layer(128)
    # Freed memory is often used again for the next tensor of its size.
    for _ in range(5):
        layer(x)
        layer.half().float()
        layer.weight.data = torch.randn(128, 128, 3, 3)
        expected = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
        assert error(layer(x), expected) < 3e-6


def test_an_exported_layer_convolves_with_its_weights():
    layer, x = wide_layer(128)
    exported = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(exported(x), layer(x), rtol=0, atol=3e-5)
