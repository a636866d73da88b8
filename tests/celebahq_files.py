"""Small random CelebA-HQ classifiers in the two formats in which they circulate."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.checkpoint_files import Network, modules

WIDTHS = {32: 4, 16: 6, 8: 5, 4: 7}


def variables(fused: bool, statistic: bool, resolution: int, seed: int) -> dict[str, np.ndarray]:
    """The variables of a TensorFlow classifier, growing's left-overs among them."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    found = {"lod": np.float32(0), "FromRGB_lod1/weight": numbers(1, 1, 3, 6)}
    shapes = {"FromRGB_lod0": (1, 1, 3, WIDTHS[resolution])}
    size = resolution
    while size > 4:
        before, after = WIDTHS[size], WIDTHS[size // 2]
        shapes[f"{size}x{size}/Conv0"] = (3, 3, before, before)
        shapes[f"{size}x{size}/Conv1{'_down' if fused else ''}"] = (3, 3, before, after)
        size //= 2
    shapes["4x4/Conv"] = (3, 3, WIDTHS[4] + statistic, WIDTHS[4])
    shapes["4x4/Dense0"] = (WIDTHS[4] * 16, 9)
    shapes["4x4/Dense1"] = (9, 1)
    for name, shape in shapes.items():
        found |= {f"{name}/weight": numbers(*shape), f"{name}/bias": numbers(shape[-1]) * 0.1}
    return found


def tensorflow_classifier(
    path: Path,
    fused: bool = True,
    statistic: bool = True,
    resolution: int = 16,
    seed: int = 0,
    function: str = "D_paper",
    change: dict[str, Any] | None = None,
) -> Path:
    """Write a pickle of dnnlib.tflib.network.Network."""
    network = Network(variables(fused, statistic, resolution, seed) | (change or {}))
    network.__dict__ |= {"build_module_src": "raise SystemExit", "build_func_name": function}
    return write_network(path, network)


def write_network(path: Path, network: Network) -> Path:
    """Write a pickle of a network, whatever its state is."""
    with modules(dnnlib={}, dnnlib__tflib={}, dnnlib__tflib__network={"Network": Network}):
        path.write_bytes(pickle.dumps(network))
    return path


def torch_classifier(path: Path, resolution: int = 16, seed: int = 0, wrapper: str = "") -> Path:
    """Write a net_best.pth."""
    state = {}
    for name, value in variables(True, False, resolution, seed).items():
        layer, _, part = name.rpartition("/")
        if not layer:
            continue
        tensor = torch.from_numpy(np.array(value))
        if part == "weight":
            tensor = tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor.t()
        inner = "linear" if "Dense" in layer else "conv"
        layer = layer.replace("FromRGB_lod", "fromrgb_lod").replace("/", ".").replace("_down", "")
        layer = layer.replace("Conv", "conv").replace("Dense", "dense")
        layer += ".conv" if layer.startswith("fromrgb") else ""
        kind = f"{inner}.weight" if part == "weight" else "wscale.b"
        state[f"{wrapper}{layer}.{kind}"] = tensor.contiguous()
    torch.save({"epoch": 3, "valacc": 0.9, "state_dict": state}, path)
    return path
