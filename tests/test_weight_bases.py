"""Bases of weight directions against NumPy's SVD, einsum and the definition of an orthonormal set."""

import math

import numpy as np
import pytest
import torch

from editbench.base.errors import UnknownName
from editbench.methods.navigan.weight_bases import (
    SVDBasis,
    VectorBasis,
    flat_kernel,
    layer_name,
    paper_scale,
)
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from tests.toy import ToyGenerator

# Tall, wide and thin once they are flat.
SHAPES = [(5, 4, 3, 3), (40, 4, 3, 3), (3, 6, 1, 1)]


def weight(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def test_layout_is_kernel_positions_and_inputs_by_outputs():
    w = weight((5, 4, 3, 2))
    flat = flat_kernel(w)
    assert flat.shape == (3 * 2 * 4, 5)
    for kx, ky, i, o in [(0, 0, 0, 0), (2, 1, 3, 4), (1, 0, 2, 3)]:
        assert flat[(kx * 2 + ky) * 4 + i, o] == w[o, i, kx, ky]


@pytest.mark.parametrize("shape", [*SHAPES, (6, 5)], ids=str)  # the last is a linear layer
def test_singular_directions_rebuild_the_weight_and_are_those_of_numpy(shape):
    w = weight(shape)
    basis = SVDBasis(w)
    u, s, v = np.linalg.svd(flat_kernel(w).double().numpy(), full_matrices=False)
    assert basis.size == len(s) == min(np.prod(shape[1:]), shape[0])
    np.testing.assert_allclose(basis.s, s, rtol=1e-5)
    torch.testing.assert_close(sum(s * basis.direction(k) for k, s in enumerate(basis.s)), w)
    torch.testing.assert_close(basis.combine(basis.s[None])[0], w)
    for k in (0, basis.size - 1):
        np.testing.assert_allclose(
            flat_kernel(basis.direction(k)), np.outer(u[:, k], v[k]), atol=1e-5
        )


def test_a_transposed_convolution_has_the_directions_of_inputs_by_outputs():
    w = weight((5, 4, 3, 3))
    basis = SVDBasis(w.transpose(0, 1).contiguous(), transposed=True)
    plain = SVDBasis(w)
    assert basis.size == plain.size == 5
    d = weight((2, 5))
    for made, expected in (
        (basis.direction(3), plain.direction(3).transpose(0, 1)),
        (basis.combine(d), plain.combine(d).transpose(1, 2)),
    ):
        torch.testing.assert_close(made, expected)
        assert made.is_contiguous()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_direction_has_unit_norm_and_the_basis_is_orthonormal(shape):
    basis = SVDBasis(weight(shape))
    rows = torch.stack([basis.direction(k) for k in range(basis.size)])
    assert rows.shape == (basis.size, *shape) and all(row.is_contiguous() for row in rows)
    torch.testing.assert_close(
        rows.flatten(1) @ rows.flatten(1).T, torch.eye(basis.size), atol=1e-5, rtol=0
    )
    d = weight((7, basis.size))
    torch.testing.assert_close(
        basis.combine(d), torch.einsum("bk,koihw->boihw", d, rows), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(basis.unit(d).flatten(1).norm(dim=1), torch.ones(7))
    given = VectorBasis(rows)
    torch.testing.assert_close(given.combine(d), basis.combine(d), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(given.unit(3 * d), basis.unit(d), atol=1e-5, rtol=1e-5)
    assert torch.equal(given.direction(2), rows[2])


def test_normalising_coefficients_is_normalising_in_weight_space():
    basis, d = SVDBasis(weight((6, 3, 3, 3))), weight((4, 6)).requires_grad_()
    weights = basis.combine(d)
    normalised = weights / weights.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1, 1)
    torch.testing.assert_close(basis.unit(d), normalised)
    probe = weight(tuple(normalised.shape))
    (ours,) = torch.autograd.grad((basis.unit(d) * probe).sum(), d, retain_graph=True)
    (theirs,) = torch.autograd.grad((normalised * probe).sum(), d)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_layers_by_name_and_by_the_published_number():
    generator = StyleGAN2Generator(
        StyleGAN2(StyleGAN2Config(16, (4, 4, 3), z_dim=5, w_dim=5, mapping_layers=1))
    )
    assert [layer_name(generator, i) for i in range(4)] == [
        "conv8_up",
        "conv8",
        "conv16_up",
        "conv16",
    ]
    assert layer_name(generator, "conv4") == "conv4" and layer_name(generator, "rgb8") == "rgb8"
    with pytest.raises(UnknownName, match=r"Did you mean 'conv8_up'.*conv16_up, conv4"):
        layer_name(generator, "conv8up")
    for number in (4, -1):
        with pytest.raises(UnknownName, match=r"unknown method\.layer"):
            layer_name(generator, number)
    with pytest.raises(UnknownName, match=r"unknown method\.layer '0'"):
        layer_name(ToyGenerator(5), 0)


def test_a_shift_of_the_papers_layers_keeps_its_share_of_the_weight():
    assert paper_scale(torch.randn(512, 512, 3, 3)) == pytest.approx(1.0, rel=2e-3)
    w = weight((6, 4, 3, 3))
    t = 3500 * paper_scale(w)
    assert t / w.norm().item() == pytest.approx(3500 / math.sqrt(512 * 512 * 9))
