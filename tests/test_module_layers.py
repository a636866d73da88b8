"""A layer of a module generator has one name everywhere; truncation; what a Z-only network tells a W-default method."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from editbench.bank.bank import Split
from editbench.base.attributes import Attribute, Attributes
from editbench.base.conf import group_options
from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.cli import main
from editbench.methods.ganspace import GANSpace
from editbench.methods.navigan import NaviGAN
from editbench.methods.sefa import first_weight
from editbench.networks.module_generator import ModuleGenerator
from editbench.run.compose import compose_settings
from editbench.run.loading import load_editor
from editbench.walk.editor import FitData
from tests.data_folder import DATA, needs_data

LAYERS = ["body", "body.0", "body.1", "body.2"]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 12))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.body(z))


def small(**options: object) -> ModuleGenerator:
    return ModuleGenerator(Small(), 5, (3, 2, 2), check_range=False, **options)


def test_names_are_the_same_everywhere() -> None:
    generator = small()
    codes = Codes(Space.Z, torch.randn(3, 5))
    assert generator.layers() == LAYERS
    assert list(generator.kernels()) == ["body.0", "body.2"]
    for name, weight in generator.kernels().items():
        assert generator.inner(name).weight is weight
        assert f"{name}.weight" in generator.network.state_dict()
    inside = generator.network.body[0](codes.values)
    assert torch.equal(generator.activation(codes, "body.0"), inside)
    shift = WeightShift("body.2", torch.randn(1, 12, 6), torch.zeros(3).long(), torch.ones(3))
    assert generator.decode(Codes(Space.Z, codes.values, shift)).shape == (3, 3, 2, 2)
    # method.layer of GANSpace is one of these names, and no other.
    attributes = Attributes([Attribute("a", ("no", "yes"))])
    GANSpace(layer="body.0", space="z").check(generator, attributes, "a")
    for wrong in ("network.body.0", "network", ""):
        with pytest.raises(UnknownName, match=r"body\.0, body\.1"):
            GANSpace(layer=wrong, space="z").check(generator, attributes, "a")


def test_sefa_reads_the_first_layer_by_its_name() -> None:
    generator = small()
    for precision in ("fp32", "bf16"):
        generator.precision = precision
        weight = first_weight(generator, torch.zeros(1, 5))
        assert torch.allclose(torch.from_numpy(weight).T.float(), generator.kernels()["body.0"])
        assert generator.precision == precision


def test_navigan_knows_how_a_transposed_convolution_is_stored() -> None:
    torch.manual_seed(0)
    layers = [nn.Unflatten(1, (5, 1, 1)), nn.ConvTranspose2d(5, 3, 2, bias=False), nn.Tanh()]
    generator = ModuleGenerator(layers, 5, (3, 2, 2), check_range=False)
    z = torch.zeros(4, 5)
    split = Split(torch.arange(4), z, None, torch.zeros(4, 1))
    data = FitData(generator, nn.Identity(), split, split, torch.ones(1), 0)
    found = NaviGAN(layer="1", count=3).fixed_directions(data)
    # A single singular value, of input positions against outputs, has rank one.
    for kernel in found.tensors["kernels"]:
        flat = kernel.permute(2, 3, 0, 1).reshape(-1, 3)  # stored: (inputs, outputs, h, w)
        sizes = torch.linalg.svdvals(flat)
        assert sizes[1] < 1e-5 * sizes[0]


def test_a_network_that_is_one_layer_has_a_name() -> None:
    generator = ModuleGenerator(nn.Linear(5, 12), 5, (3, 2, 2), check_range=False)
    assert generator.layers() == list(generator.kernels()) == ["network"]
    z = torch.randn(2, 5)
    assert torch.equal(generator.activation(Codes(Space.Z, z), "network"), generator.network(z))


@needs_data
def test_list_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "layers", "--generator", "mnist_mlp", "--data", str(DATA)]) == 0
    settings = compose_settings(["generator=mnist_mlp", f"data={DATA}"])
    shown = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in shown if "weight" in line]
    assert settings.generator.name == "mnist_mlp"


def test_truncation() -> None:
    z = torch.randn(4, 5)
    whole, cut = small(), small(truncation_psi=0.5)
    expected = whole.decode(Codes(Space.Z, 0.5 * z))
    assert torch.equal(cut.decode(Codes(Space.Z, z)), expected)
    assert torch.equal(
        cut.activation(Codes(Space.Z, z), "body.0"),
        whole.activation(Codes(Space.Z, z / 2), "body.0"),
    )
    assert whole.digest != cut.digest and whole.digest == small(truncation_psi=1).digest
    for wrong in (0, -1, 1.5, "a"):
        with pytest.raises(EditbenchError, match="truncation_psi"):
            small(truncation_psi=wrong)


@pytest.mark.parametrize(
    "method", ["interfacegan", "gradctrl", "neural_ode", "random", "ganspace", "linear_regression"]
)
def test_a_method_of_w_says_that_z_would_serve(method: str) -> None:
    assert "space" in group_options("method")[method]
    editor = load_editor(compose_settings([f"method={method}"]))
    with pytest.raises(Unsupported, match=r"has Z, THETA; method\.space=z"):
        editor.check(small(), Attributes([Attribute("a", ("no", "yes"))]), "a")
