"""A module generator's pictures depend on z alone: chance and neighbours are refused at load, fixed labels are fine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from editbench.base.errors import EditbenchError, WrongType
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.module_generator import ModuleGenerator
from editbench.networks.scorers.module import ModuleScorer
from editbench.run.compose import compose_config
from tests.by_config import load_networks


class Noisy(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z + 0.3 * torch.randn_like(z))


class Mixing(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z - z.mean(0))


class Returning(nn.Module):
    """Images in [0, 255] of 2 x 3 pixels, in a form of one's own."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, z: Tensor) -> Tensor:
        images = z.sigmoid().mul(255).view(-1, 1, 2, 3)
        return images.byte() if self.form == "bytes" else images.permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    "form, told",
    [
        ("bytes", r"gives torch\.uint8, .* let it return floats"),
        ("channels last", r"its channels are last: .*\.permute\(0, 3, 1, 2\)"),
    ],
)
def test_a_form_that_images_may_not_have_is_named(form: str, told: str) -> None:
    with pytest.raises(EditbenchError, match=told):
        ModuleGenerator(Returning(form), 6, (1, 2, 3), (0, 255))


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
    with pytest.raises(EditbenchError, match="a different image for the same z"):
        ModuleGenerator(network, 12, (3, 2, 2))


def test_a_fixed_label_makes_another_generator() -> None:
    first, second = (ModuleGenerator(OfClass(label), 12, (3, 2, 2)) for label in (0, 2))
    z = torch.randn(4, 12)
    expected = torch.tanh(z + second.network.table.weight[2]).reshape(4, 3, 2, 2)
    torch.testing.assert_close(second.decode(Codes(Space.Z, z)), expected)
    assert not torch.equal(first.decode(Codes(Space.Z, z)), expected)
    assert first.digest != second.digest


class Painted(nn.Module):
    """The gain is no tensor of the module: a trace has it in its code alone."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(12, 3 * 32 * 32)
        self.gain = gain

    def forward(self, z: Tensor) -> Tensor:
        return self.gain * torch.tanh(self.layer(z))


class Hidden(nn.Module):
    """Keeps what it read where `nn.Module` sees no parameters."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.inner = [torch.jit.load(path)]

    def forward(self, z: Tensor) -> Tensor:
        return self.inner[0](z)


@pytest.mark.parametrize(
    "target", ["editbench.networks.torchscript.read_torchscript", f"{__name__}.Hidden"]
)
def test_another_file_makes_another_generator(target: str, tmp_path: Path) -> None:
    traces = {}
    for gain in (0.9, 0.5):
        torch.jit.trace(Painted(gain), torch.randn(2, 12)).save(str(tmp_path / "gan.pt"))
        traces[gain] = (tmp_path / "gan.pt").read_bytes()

    def loaded(gain: float) -> Generator:
        (tmp_path / "gan.pt").write_bytes(traces[gain])
        declared = {
            "name": "painted",
            "_target_": "editbench.networks.module_generator.ModuleGenerator",
            "network": {"_target_": target, "path": str(tmp_path / "gan.pt")},
            "z_dim": 12,
            "image_shape": [3, 32, 32],
        }
        (tmp_path / "painted.yaml").write_text(yaml.safe_dump(declared))
        return load_networks(compose_config([f"generator={tmp_path / 'painted.yaml'}"])).generator

    first = loaded(0.9)
    second = loaded(0.5)
    z = Codes(Space.Z, torch.randn(4, 12))
    torch.testing.assert_close(first.decode(z) * 5 / 9, second.decode(z))
    assert first.digest != second.digest
    assert loaded(0.9).digest == first.digest


def test_a_module_whose_weights_were_forgotten_is_refused(tmp_path: Path) -> None:
    layers = [
        {"_target_": "torch.nn.Linear", "in_features": 12, "out_features": 3072},
        {"_target_": "torch.nn.Tanh"},
        {"_target_": "torch.nn.Unflatten", "dim": 1, "unflattened_size": [3, 32, 32]},
    ]
    declared = {
        "name": "forgetful",
        "_target_": "editbench.networks.module_generator.ModuleGenerator",
        "network": layers,
        "z_dim": 12,
        "image_shape": [3, 32, 32],
    }
    file = tmp_path / "forgetful.yaml"
    file.write_text(yaml.safe_dump(declared))
    with pytest.raises(
        EditbenchError, match="the generator's network has different weights each time"
    ):
        load_networks(compose_config([f"generator={file}"]))
    weights = {"0.weight": torch.ones(3072, 12), "0.bias": torch.zeros(3072)}
    save_file(weights, tmp_path / "weights.safetensors")
    file.write_text(yaml.safe_dump(declared | {"weights": str(tmp_path / "weights.safetensors")}))
    assert load_networks(compose_config([f"generator={file}"])).generator.z_dim == 12


class NormalisedInPlace(nn.Module):
    """Projects z to a sphere, and writes the result over the z that it was given."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(z.div_(z.norm(dim=1, keepdim=True)))


class Conditional(nn.Module):
    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return torch.tanh(z + label)


def test_a_network_that_writes_over_its_codes_is_refused() -> None:
    with pytest.raises(EditbenchError, match=r"changes its input z in place.*not `z /= norm`"):
        ModuleGenerator(NormalisedInPlace(), 12, (3, 2, 2))


def test_a_network_that_needs_a_label_is_told_to_fix_it() -> None:
    with pytest.raises(EditbenchError, match=r"label.*whose forward takes z alone"):
        ModuleGenerator(Conditional(), 12, (3, 2, 2))


# -- classifiers -----------------------------------------------------------------------------------
class Means(nn.Module):
    """Two logits of an image: the means of its first two channels, changed by `change`."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(images.mean((2, 3))[:, :2] * 9)


class PutsItselfIntoTraining(nn.Module):
    """Batch normalisation that `forward` switches to the statistics of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        self.train()
        return self.norm(images).mean((2, 3))[:, :2] * 9


BOTH = [{"name": "a", "classes": ["no", "yes"]}, {"name": "b", "classes": ["no", "yes"]}]


@pytest.mark.parametrize(
    "network",
    [
        Means(lambda logits: nn.functional.dropout(logits, 0.5, training=True)),
        Means(lambda logits: logits - logits.mean(0)),
        PutsItselfIntoTraining(),
    ],
    ids=["dropout", "neighbours", "training mode"],
)
def test_logits_that_depend_on_more_than_the_image_are_refused(network: nn.Module) -> None:
    with pytest.raises(EditbenchError, match=r"the logits of an image change by .* call to call"):
        ModuleScorer(network, BOTH, (8, 8))


def test_logits_of_the_image_alone_are_accepted() -> None:
    scorer = ModuleScorer(Means(lambda logits: logits), BOTH, (8, 8))
    images = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(scorer(images), images.mean((2, 3))[:, :2] * 9)


def test_a_lazy_layer_is_named() -> None:
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(EditbenchError, match=r"layer '1' of Sequential is an nn\.LazyLinear"):
        ModuleScorer(network, [{"name": "smile", "classes": ["no", "yes"]}], (8, 8))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_codes_of_another_dtype_are_refused_in_words(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    generator = ModuleGenerator(network, 6, (1, 2, 3))
    values = torch.zeros(2, 6, dtype=dtype)
    with pytest.raises(WrongType, match=rf"codes of torch.float32, not of {dtype}"):
        generator.decode(Codes(Space.Z, values))
    # A network in float64, as for a check of its derivatives, takes such codes.
    if dtype == torch.float64:
        assert generator.double().decode(Codes(Space.Z, values)).shape == (2, 1, 2, 3)
