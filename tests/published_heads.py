"""Published GradCtrl heads as plain modules, W codes in their range, and heads of random weights."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import nn

from editbench.base.attributes import Attributes
from editbench.methods.gradctrl.latent_classifier import LatentClassifier, load_heads
from tests.toy import DATA

FFHQ = ("gender", "smile", "eyeglasses", "age", "pose")
HEADS = {"ffhq": FFHQ, "cat": ("colour",)}


def ffhq_codes(n: int, seed: int = 0) -> torch.Tensor:
    pca = load_file(DATA / "ffhq-latents" / "w_pca.safetensors")
    parts = {tuple(t.shape): t for t in pca.values()}
    noise = torch.randn(n, 80, generator=torch.Generator().manual_seed(seed))
    return parts[(1, 512)] + (noise * parts[(80,)]) @ parts[(80, 512)]


def published(name: str) -> list[nn.Sequential]:
    """The heads as plain modules."""
    tensors = load_file(DATA / "gradctrl-heads" / f"{name}.safetensors")
    modules = []
    for i in range(len(HEADS[name])):
        own = {
            k.removeprefix(f"classifiers.{i}.classifier."): v
            for k, v in tensors.items()
            if k.startswith(f"classifiers.{i}.")
        }
        module = nn.Sequential(
            nn.Linear(512, 16), nn.LeakyReLU(0.1), nn.Linear(16, len(own["2.bias"]))
        )
        module.load_state_dict(own)
        modules.append(module.double())
    return modules


def heads(name: str) -> LatentClassifier:
    return load_heads(DATA / "gradctrl-heads" / f"{name}.safetensors", HEADS[name])


def random_classifier(attributes: Attributes, dim: int = 32, seed: int = 0) -> LatentClassifier:
    rng = torch.Generator().manual_seed(seed)
    return LatentClassifier(
        {
            item.name: [
                torch.randn(*shape, generator=rng)
                for shape in ((16, dim), (16,), (item.width, 16), (item.width,))
            ]
            for item in attributes
        }
    )
