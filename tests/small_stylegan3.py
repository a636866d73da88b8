"""Small networks of StyleGAN3 with random weights."""

from __future__ import annotations

import dataclasses

import torch

from editbench.networks.stylegan3.config import StyleGAN3Config
from editbench.networks.stylegan3.network import StyleGAN3

SMALL = StyleGAN3Config(16, (8, 8, 7, 6), 12, 10, num_critical=1, margin=2)


TURNING = dataclasses.replace(SMALL, kernel=1, radial=True)


def network(config: StyleGAN3Config = SMALL, seed: int = 0) -> StyleGAN3:
    """Random weights of a trained network's sizes, the input's motion among them."""
    torch.manual_seed(seed)
    made = StyleGAN3(config).requires_grad_(False)
    made.mapping.w_avg.normal_(std=0.3)
    for name, layer in made.synthesis.layers.items():
        if name == "input":
            layer.affine.weight.normal_(std=0.3)
        else:
            layer.bias.normal_(std=0.2)
            layer.magnitude_ema.fill_(0.5 + torch.rand(()).item())
    return made


# -- the slow network ------------------------------------------------------------------------------
ODD = StyleGAN3Config(
    8,
    (5, 4, 3),
    6,
    7,
    mapping_layers=3,
    img_channels=1,
    c_dim=2,
    embed_dim=3,
    mapping_width=9,
    num_critical=1,
    first_cutoff=1.0,
    first_stopband=1.5,
    margin=3,
    filter_size=5,
    oversampling=2,
    conv_clamp=0.7,
    output_scale=0.5,
)
