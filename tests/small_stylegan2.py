"""Small networks of StyleGAN2 with random weights."""

from __future__ import annotations

import torch

from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config


def random_stylegan2(config: StyleGAN2Config) -> StyleGAN2:
    """Random weights with the noise and the biases, which begin at 0, switched on."""
    torch.manual_seed(0)
    network = StyleGAN2(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network
