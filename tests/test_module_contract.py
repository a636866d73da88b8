"""A module generator's pictures depend on z alone: chance and neighbours are refused at load, fixed labels are fine."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes, Space
from editbench.networks.module_generator import ModuleGenerator


class Noisy(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z + 0.3 * torch.randn_like(z))


class Mixing(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z - z.mean(0))


class OfClass(nn.Module):
    """A conditional network with its label fixed, as the documentation shows."""

    def __init__(self, label: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.label = nn.Embedding(3, 12), label

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z + self.table(torch.full((len(z),), self.label, device=z.device)))


@pytest.mark.parametrize("network", [Noisy(), Mixing()], ids=["noise", "neighbours"])
def test_pictures_that_depend_on_more_than_z_are_refused(network: nn.Module) -> None:
    with pytest.raises(EditbenchError, match="another image for the same z"):
        ModuleGenerator(network, 12, (3, 2, 2))


def test_a_fixed_label_makes_another_generator() -> None:
    first, second = (ModuleGenerator(OfClass(label), 12, (3, 2, 2)) for label in (0, 2))
    z = torch.randn(4, 12)
    expected = torch.tanh(z + second.network.table.weight[2]).reshape(4, 3, 2, 2)
    torch.testing.assert_close(second.decode(Codes(Space.Z, z)), expected)
    assert (
        not torch.equal(first.decode(Codes(Space.Z, z)), expected) and first.digest != second.digest
    )
