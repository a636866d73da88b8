"""A user's folder: a small random generator and four classifiers in the official formats, balanced on its pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from editbench.networks.celebahq.network import average_blocks
from editbench.networks.celebahq.read import read_classifier
from editbench.networks.checkpoints import assemble, read_content
from tests.celebahq_files import tensorflow_classifier, torch_classifier
from tests.checkpoint_files import nvlabs_pickle, nvlabs_state, read_source

NVIDIA = {
    "male": "celebahq-classifier-00-male.pkl",
    "smiling": "celebahq-classifier-01-smiling.pkl",
    "young": "celebahq-classifier-04-young.pkl",
    "eyeglasses": "celebahq-classifier-19-eyeglasses.pkl",
}


def make_folder(folder: Path, resolution: int = 16) -> Path:
    """Write the files; the boundary of each classifier runs through the middle of the pictures."""
    folder.mkdir(exist_ok=True)
    network = assemble(
        read_source(nvlabs_pickle(folder / "stylegan2-ffhq-config-f.pkl", nvlabs_state(resolution)))
    )
    z = torch.randn(
        200 if resolution < 64 else 50,
        network.config.z_dim,
        generator=torch.Generator().manual_seed(1),
    )
    images = average_blocks(network(z), 16)  # the classifiers' size
    for seed, name in enumerate(NVIDIA.values()):
        options = {"fused": bool(seed % 2), "statistic": bool(seed // 2), "seed": seed}
        path = tensorflow_classifier(folder / name, **options)
        logits = read_classifier(path, read_content(path)).network(images)
        bias = np.array([-float(logits.median())], np.float32)
        # The file's own bias is in the logits already.
        own = dict(read_content(path).state["variables"])["4x4/Dense1/bias"]
        tensorflow_classifier(path, change={"4x4/Dense1/bias": own + bias}, **options)
    return folder


def retrained(folder: Path, word: str) -> Path:
    """Put a classifier that was trained again in place of NVIDIA's."""
    (folder / NVIDIA[word]).unlink()
    (folder / word).mkdir()
    return torch_classifier(folder / word / "net_best.pth")
