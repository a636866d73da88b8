"""CelebA-HQ classifiers: parity with the goldens and with a slow network, one command, one scorer."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from editbench import cli
from editbench.base.errors import BadFile, EditbenchError
from editbench.networks.celebahq.network import average_blocks
from editbench.networks.celebahq.read import is_classifier, read_classifier
from editbench.networks.celebahq.store import attribute_of
from editbench.networks.checkpoints import read_content
from editbench.networks.scorers.celebahq import CelebAHQScorer
from editbench.networks.scorers.config_file import read_scorers
from tests.celebahq_files import (
    Network,
    tensorflow_classifier,
    torch_classifier,
    variables,
    write_network,
)
from tests.data_folder import DATA, needs_data

CLASSIFIERS = DATA / "celebahq-classifiers"
SMILE = {"name": "smile", "classes": ["not", "smiling"]}


def convert(*words: object) -> int:
    return cli.main(["convert", *map(str, words)])


def network_of(path: Path) -> torch.nn.Module:
    content = read_content(path)
    assert is_classifier(content)
    return read_classifier(path, content).network


@needs_data
@pytest.mark.parametrize(
    ("file", "golden"),
    [
        ("tf_fused.pkl", "fused_logits"),
        ("tf_plain.pkl", "plain_logits"),
        ("torch_net_best.pth", "torch_logits"),
    ],
)
def test_parity_with_golden(file: str, golden: str) -> None:
    numbers = np.load(CLASSIFIERS / "golden.npz")
    images = torch.from_numpy(numbers["images"])
    network = network_of(CLASSIFIERS / file)
    expected = numbers[golden]
    spread = np.ptp(expected)
    assert np.abs(network(images).numpy() - expected).max() < 1e-5 * spread
    # An image alone: the same, as no statistic of a batch is taken.
    alone = network(images[:1]).numpy()
    assert np.abs(alone - expected[:1]).max() < 1e-5 * spread


def slow_logit(weights: dict[str, np.ndarray], fused: bool, image: torch.Tensor) -> float:
    """One image through the network as TensorFlow's code writes it, in double precision."""
    tensors = {name: torch.from_numpy(np.array(value)).double() for name, value in weights.items()}

    def weight(layer: str, gain: float = math.sqrt(2)) -> torch.Tensor:
        value = tensors[f"{layer}/weight"]
        return value * gain / math.sqrt(value[..., 0].numel())

    def conv(x: torch.Tensor, layer: str) -> torch.Tensor:
        kernel = weight(layer).permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)

    def act(x: torch.Tensor, layer: str) -> torch.Tensor:
        bias = tensors[f"{layer}/bias"].view(1, -1, *[1] * (x.dim() - 2))
        return torch.where(x + bias > 0, x + bias, 0.2 * (x + bias))

    size = image.shape[-1]
    x = act(conv(image[None].double(), "FromRGB_lod0"), "FromRGB_lod0")
    while size > 4:
        x = act(conv(x, f"{size}x{size}/Conv0"), f"{size}x{size}/Conv0")
        if fused:
            # The mean of 2 x 2 before bias and activation is what the fused kernel computes.
            layer = f"{size}x{size}/Conv1_down"
            x = act(F.avg_pool2d(conv(x, layer), 2), layer)
        else:
            x = F.avg_pool2d(act(conv(x, f"{size}x{size}/Conv1"), f"{size}x{size}/Conv1"), 2)
        size //= 2
    if len(tensors["4x4/Conv/weight"][0, 0]) > x.shape[1]:
        deviation = (x - x.mean(0)).square().mean(0).add(1e-8).sqrt().mean()
        x = torch.cat([x, deviation.expand(1, 1, 4, 4)], 1)
    x = act(conv(x, "4x4/Conv"), "4x4/Conv").reshape(1, -1)
    x = act(x @ weight("4x4/Dense0"), "4x4/Dense0")
    return float(x @ weight("4x4/Dense1", 1.0) + tensors["4x4/Dense1/bias"])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("statistic", [True, False])
def test_the_slow_network_gives_the_same(tmp_path: Path, fused: bool, statistic: bool) -> None:
    path = tensorflow_classifier(tmp_path / "net.pkl", fused, statistic)
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    weights = variables(fused, statistic, 16, 0)
    expected = torch.tensor([slow_logit(weights, fused, image) for image in images])
    network = network_of(path).double()
    got = network(images.double())[:, 0]
    assert torch.allclose(got, expected.double(), rtol=1e-6)


def test_both_formats_are_one_network(tmp_path: Path) -> None:
    first = network_of(tensorflow_classifier(tmp_path / "a.pkl", True, False))
    wrapped = torch_classifier(tmp_path / "net_best.pth", wrapper="module._orig_mod.")
    second = network_of(wrapped)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(first(images), second(images))


def test_many_files_are_one_scorer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        tensorflow_classifier(tmp_path / "celebahq-classifier-01-smiling.pkl", True, True),
        tensorflow_classifier(tmp_path / "celebahq-classifier-04-young.pkl", False, False, seed=1),
        torch_classifier(tmp_path / "net_best.pth", seed=2),
    ]
    out = tmp_path / "faces.safetensors"
    assert convert(*files, "--attributes", "smiling,young,male", "--out", out) == 0
    assert "of one sample" in capsys.readouterr().out
    scorers = read_scorers(tmp_path / "faces.yaml", {})
    teacher = scorers["teacher"]
    assert scorers["judge"] is teacher
    assert teacher.attributes.names == ("smiling", "young", "male")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    small = images.unflatten(2, (16, 2)).unflatten(4, (16, 2)).mean((3, 5))
    # NVIDIA's low logit is the attribute, as StyleGAN's metric takes it.
    expected = [sign * network_of(file)(small) for sign, file in zip((-1, -1, 1), files)]
    assert torch.allclose(teacher(images), torch.cat(expected, 1), atol=1e-5)
    # Signs that somebody looked up stay.
    edited = (tmp_path / "faces.yaml").read_text().replace("true", "false")
    (tmp_path / "faces.yaml").write_text(edited)
    assert convert(*files, "--attributes", "smiling,young,male", "--out", out) == 0
    assert (tmp_path / "faces.yaml").read_text() == edited
    # A classifier that no attribute reads is not run.
    one = CelebAHQScorer(out, [SMILE], columns=[2])
    assert len(one.network.networks) == 1
    assert torch.allclose(one(images), expected[2], atol=1e-5)


def test_names_of_attributes() -> None:
    assert attribute_of(Path("celebahq-classifier-01-smiling.pkl")) == "smiling"
    assert attribute_of(Path("celebahq-classifier-36-wearing-lipstick.pkl")) == "wearing_lipstick"
    assert attribute_of(Path("net_best.pth")) == "net_best"


def test_yaml_states_each_sign(tmp_path: Path) -> None:
    out = tmp_path / "one.safetensors"
    path = tensorflow_classifier(tmp_path / "celebahq-classifier-00-male.pkl")
    assert convert(path, "--out", out) == 0
    (entry,) = yaml.safe_load((tmp_path / "one.yaml").read_text())["teacher"]["attributes"]
    assert entry == {"name": "male", "classes": ["not male", "male"], "positive_is_low": True}


def test_a_picture_without_whole_blocks_is_refused() -> None:
    images = torch.rand(1, 3, 48, 48)
    assert torch.equal(average_blocks(images, 48), images)
    with pytest.raises(EditbenchError, match=r"take a generator of 32, 64, 128"):
        average_blocks(images, 32)
    with pytest.raises(EditbenchError, match="16 x 16 has none"):
        average_blocks(images[..., :16, :16], 32)


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    good = tensorflow_classifier(tmp_path / "a.pkl")
    same = torch_classifier(tmp_path / "net_best.pth")
    for files, options, text in (
        ((good, same), ("--attributes", "smile"), "2 different names are needed"),
        ((good, good), (), "2 different names are needed"),
        ((good, tensorflow_classifier(tmp_path / "b.pkl", resolution=32)), (), "16 and 32 pixels"),
        # StyleGAN's discriminator has the same names, and blurs.
        ((tensorflow_classifier(tmp_path / "d.pkl", function="D_basic"),), (), "discriminator"),
        ((good, tensorflow_classifier(tmp_path / "e.pkl", function="D_basic")), (), "leave it out"),
        ((good,), ("--golden", "x.npz"), "--golden"),
        ((good,), ("--name", "G"), "--name"),
    ):
        assert convert(*files, *options, "--out", out) != 0
        assert text in capsys.readouterr().err
        assert not out.exists() and not out.with_suffix(".yaml").exists()
    broken = {
        "4x4/Dense1/weight": np.ones((9, 2), np.float32),
        "16x16/Conv0/bias": np.full(6, np.nan, np.float32),
        "8x8/Conv0/weight": np.ones((3, 3, 5, 4), np.float32),
        "4x4/Extra/weight": np.ones((3, 3, 1, 1), np.float32),
        "FromRGB_lod0/weight": np.ones((1, 1, 1, 6), np.float32),
        "4x4/Other/weight": np.ones((), np.float32),
        "4x4/Empty/weight": np.ones((0, 3), np.float32),
    }
    for name, value in broken.items():
        path = tensorflow_classifier(tmp_path / "f.pkl", change={name: value})
        with pytest.raises(BadFile, match=re.escape(str(path))):
            read_classifier(path, read_content(path))


def test_a_damaged_network_is_refused_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states: list[dict[str, object]] = [{}, {"variables": [([1], 2)]}, {"variables": 3}]
    for k, state in enumerate(states):
        path = tmp_path / f"{k}.pkl"
        network = Network({})
        network.__dict__.clear()
        network.__dict__ |= state
        write_network(path, network)
        assert convert(path, "--out", tmp_path / "out.safetensors") == 1
        assert capsys.readouterr().err.startswith(f"error: {path}: ")


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    source = torch_classifier(tmp_path / "net_best.pth")
    out = tmp_path / "out.safetensors"
    assert convert(source, "--out", out) == 0
    with pytest.raises(BadFile, match="editbench convert"):
        CelebAHQScorer(source, [SMILE])
    with pytest.raises(EditbenchError, match="names classifier 3, but the file has 0 net_best"):
        CelebAHQScorer(out, [SMILE], columns=[3])
    data = bytearray(out.read_bytes())
    data[-1] ^= 1
    out.write_bytes(data)
    with pytest.raises(BadFile, match="changed since it was converted"):
        CelebAHQScorer(out, [SMILE])
