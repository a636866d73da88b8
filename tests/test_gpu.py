"""What a device must give: the numbers of the CPU, the same ones twice, and few waits. `make gpu` runs them on a GPU.

EDITBENCH_TEST_DEVICE names the device; without a GPU and without a name they are skipped.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from editbench.bank.build import compute_block
from editbench.base.precision import use_precision
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.conformance.testbeds import make_networks
from editbench.networks.roles import Networks

DEVICE = os.environ.get("EDITBENCH_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU: torch sees none"
    ),
]


@pytest.fixture(scope="module")
def both():
    """The same networks on the CPU and on the device."""
    use_precision("fp32", DEVICE)
    here = make_networks("pictures", "mixed")
    there = make_networks("pictures", "mixed")
    return here, tuple(network.to(DEVICE) for network in there)


@torch.no_grad()
@pytest.mark.parametrize("space", [Space.Z, Space.W, Space.W_PLUS, Space.S])
def test_a_picture_is_that_of_the_cpu(both, space):
    here, there = both
    z = torch.randn(9, here[0].z_dim, generator=torch.Generator().manual_seed(0))
    codes = z if space == Space.Z else here[0].lift(here[0].map(z), space)
    expected = here[0].decode(Codes(space, codes))
    found = there[0].decode(Codes(space, codes.to(DEVICE))).cpu()
    assert (found - expected).abs().max() < 1e-4 * expected.std()


@torch.no_grad()
def test_a_shifted_weight_gives_the_picture_of_the_cpu(both):
    here, there = both
    z = torch.randn(6, here[0].z_dim, generator=torch.Generator().manual_seed(0))
    kernels = torch.randn(3, *here[0].kernels()["conv8"].shape)
    index = torch.tensor([0, 2, 1, 2, 0, 1])
    pictures = []
    for networks, device in ((here, "cpu"), (there, DEVICE)):
        shift = WeightShift("conv8", kernels.to(device), index.to(device), z[:, 0].to(device))
        pictures.append(networks[0].decode(Codes(Space.Z, z.to(device), shift)).cpu())
    assert (pictures[1] - pictures[0]).abs().max() < 1e-4 * pictures[0].std()


def test_a_block_of_a_bank_is_that_of_the_cpu_and_the_same_twice(both):
    here, there = both
    expected = compute_block(0, 5, 37, Networks(*here), "cpu")
    found = compute_block(0, 5, 37, Networks(*there), DEVICE)
    again = compute_block(0, 5, 37, Networks(*there), DEVICE)
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() < 1e-4 * max(values.std(), 1e-6), name
        assert np.array_equal(found[name], again[name]), name


def test_gradients_are_the_same_twice_and_those_of_the_cpu(both):
    here, there = both
    z = torch.randn(5, here[0].z_dim, generator=torch.Generator().manual_seed(0))
    slopes = []
    for networks, device in ((here, "cpu"), (there, DEVICE), (there, DEVICE)):
        leaf = z.to(device).requires_grad_()
        logits = networks[1](networks[0].decode(Codes(Space.Z, leaf)))
        slopes.append(torch.autograd.grad(logits.square().sum(), leaf)[0].cpu())
    assert torch.equal(slopes[1], slopes[2])
    assert (slopes[1] - slopes[0]).abs().max() < 1e-3 * slopes[0].std()
