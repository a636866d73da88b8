"""A multi-layer perceptron, as used by small GANs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from editbench.base.errors import EditbenchError, UnknownName

# Activations of networks in papers on editing.
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def mlp(sizes: Sequence[int], activation: str = "relu", output: str = "identity") -> nn.Sequential:
    """Linear layers sizes[0] -> ... -> sizes[-1], with activations.

    Linear layer i is module 2 i, so its tensors are '0.weight', '0.bias', '2.weight', ...

    Args:
        sizes: numbers of features, two or more.
        activation: between the layers, a name in ACTIVATIONS.
        output: after the last layer, a name in ACTIVATIONS.

    Raises:
        EditbenchError: there are fewer than two sizes.
        UnknownName: there is no such activation.
    """
    if len(sizes) < 2:
        raise EditbenchError(f"an mlp needs two sizes or more, got {list(sizes)}")
    for name in (activation, output):
        if name not in ACTIVATIONS:
            raise UnknownName("activation", name, ACTIVATIONS)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
    # The loop has added an activation after the last layer too.
    layers[-1] = ACTIVATIONS[output]()
    return nn.Sequential(*layers)
