"""The conformance suite's 16x16 StyleGAN2 of random weights as options of a job, and every method small enough for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from editbench.base import instantiate
from editbench.conformance.testbeds import make_networks
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.run.compose import compose_config

DIM = 16  # of z and w
SIZES = {
    "iterations": 2,
    "epochs": 4,
    "count": 3,
    "candidates": 2,
    "components": 3,
    "batch": 4,
    "samples": 8,
    "search_samples": 4,
    "fresh": 8,
    "size": 4,
    "latents": 4,
    "minibatch": 2,
    "block": 32,
    "resolution": 16,
    "images": 3,
    "n_per_class": 6,
    "pool": 60,
    "min_positives": 12,
    "min_per_side": 12,
    "semantics": 2,
}  # at most, wherever a method has such a key
FIRST = {"ranges": 2, "strengths": 1, "channels": 2}  # of a list, so many
SET = {
    "min_effect": 0.0,
    "max_off_target": None,
    "max_distance": None,
    "exclude": 3,
    "reconstructor": "small",
}  # where a method has such a key at all; a walk is to come out of every one


def generator() -> Generator:
    return make_networks("pictures", "mixed")[0]


def scorer(role: str) -> Scorer:
    return make_networks("pictures", "mixed")[1 if role == "teacher" else 2]


class Thirds(nn.Module):
    """A parser by brightness: it says dark, middle or bright of every pixel."""

    names = ("dark", "middle", "bright")

    def forward(self, images: Tensor) -> Tensor:
        grey = images.mean(1)
        return (grey > -0.3).long() + (grey > 0.3)


def shrink(
    config: dict,
    most: Mapping[str, int],
    fixed: Mapping[str, object],
    first: Mapping[str, int] | None = None,
) -> None:
    """Make a method small.

    Args:
        config: its options, which are changed at any depth.
        most: option -> its largest whole number.
        fixed: option -> its value, unless it is null.
        first: option -> how many entries of its list are kept.
    """
    first = first or {}
    for key, value in config.items():
        if isinstance(value, dict):
            shrink(value, most, fixed, first)
        elif key in first and value is not None:
            config[key] = value[: first[key]]
        elif key in most and isinstance(value, int):
            config[key] = min(value, most[key])
        elif key in fixed and value is not None:
            config[key] = fixed[key]


def save_random_heads(file: Path, count: int, dim: int) -> None:
    """A file as GradCtrl's authors publish it, of as many binary heads of random weights on codes of a width."""
    rng = torch.Generator().manual_seed(0)
    heads = {}
    for k in range(count):
        for layer, shape in ((0, (16, dim)), (2, (1, 16))):
            name = f"classifiers.{k}.classifier.{layer}"
            heads[f"{name}.weight"] = torch.randn(*shape, generator=rng)
            heads[f"{name}.bias"] = torch.zeros(shape[0])
    save_file(heads, file)


def add_files(config: dict, folder: Path) -> None:
    """Files and networks for the methods that want some."""
    if "paths" in config:
        rng = torch.Generator().manual_seed(0)
        np.save(folder / "a.npy", torch.randn(DIM, generator=rng).numpy())
        config["paths"] = {"a": str(folder / "a.npy")}
    if "regions" in config:
        config["parser"] = {"_target_": "tests.tiny_pictures.Thirds"}
        config["regions"] = {"a": ["dark", "bright"]}
    if config.get("heads"):
        save_random_heads(folder / "heads.safetensors", 1, DIM)
        config |= {"heads": str(folder / "heads.safetensors"), "exclude": 0, "layers": None}
        config |= {"head_attributes": ["a"], "head_signs": [1]}


def tiny_config(folder: Path, method: str, *overrides: str) -> DictConfig:
    """A job of a method of the project on this world.

    Args:
        folder: of its records, its caches and its files.
        method: option of the group.
        overrides: as on the command line.
    """
    words = ["generator=tiny", "scorer=tiny", "budget=tiny", "attribute=a", f"method={method}"]
    config = compose_config([*words, *overrides], [Path(__file__).parent / "conf"])
    OmegaConf.set_struct(config, False)
    options = instantiate.plain(config.method)
    shrink(options, SIZES, SET, FIRST)
    add_files(options, folder)
    config.method = options | {"name": method}
    config.out = str(folder / "runs")
    config.cache = str(folder / "cache")
    return config
