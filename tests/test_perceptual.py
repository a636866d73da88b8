"""Perceptual distances against slow formulas; LPIPS with random weights, since its own are not in the repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from editbench.base.errors import BadFile
from editbench.networks.perceptual import LPIPS, FeatureDistance, PixelDistance, per_position
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.convnet import ConvScorer
from tests.toy import BINARY, LinearScorer, normals_for

CONVOLUTIONS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
    17: (256, 512),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
POOLS, TAPS = (4, 9, 16, 23), (3, 8, 15, 22, 29)  # of torchvision's vgg16.features
WIDTHS = (64, 128, 256, 512, 512)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """Random weights under the published names."""
    rng = torch.Generator().manual_seed(0)
    out = {}
    for k, (n_in, n_out) in CONVOLUTIONS.items():
        out[f"features.{k}.weight"] = (
            torch.randn(n_out, n_in, 3, 3, generator=rng) * (2 / (9 * n_in)) ** 0.5
        )
        out[f"features.{k}.bias"] = 0.1 * torch.randn(n_out, generator=rng)
    return out | {
        f"lin{k}.model.1.weight": torch.rand(1, width, 1, 1, generator=rng)
        for k, width in enumerate(WIDTHS)
    }


@pytest.fixture(scope="module")
def folder(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two published files, vgg16.pth and vgg.pth."""
    path = tmp_path_factory.mktemp("lpips")
    torch.save(
        {name: value for name, value in tensors.items() if name.startswith("features")},
        path / "vgg16.pth",
    )
    torch.save(
        {name: value for name, value in tensors.items() if name.startswith("lin")}, path / "vgg.pth"
    )
    return path


def images(n: int = 2, size: int = 24, channels: int = 3) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    a = torch.rand(n, channels, size, size, generator=rng) * 2 - 1
    return a, (a + 0.3 * torch.randn(a.shape, generator=rng)).clamp(-1, 1)


def slow_lpips(tensors: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """LPIPS as its paper writes it (eq. 1), layer by layer by torchvision's numbers."""
    features = []
    for x in (a, b):
        rows = torch.arange(64) * x.shape[2] // 64  # the nearest pixel
        x = x[:, :, rows][:, :, :, rows]
        x = (x - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor(
            [0.458, 0.448, 0.450]
        )[:, None, None]
        found = []
        for k in range(30):
            if k in CONVOLUTIONS:
                x = F.conv2d(
                    x, tensors[f"features.{k}.weight"], tensors[f"features.{k}.bias"], padding=1
                )
            else:
                x = F.max_pool2d(x, 2, 2) if k in POOLS else x.clamp_min(0)
            if k in TAPS:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        features.append(found)
    total = torch.zeros(len(a))
    for k, (p, q) in enumerate(zip(*features, strict=True)):
        total += F.conv2d((p - q) ** 2, tensors[f"lin{k}.model.1.weight"]).mean((1, 2, 3))
    return total


# -- LPIPS -----------------------------------------------------------------------------------------
def test_lpips_equals_its_definition(tensors: dict[str, Tensor], folder: Path) -> None:
    lpips = LPIPS([folder / "vgg16.pth", folder / "vgg.pth"])
    a, b = images()
    torch.testing.assert_close(lpips(a, b), slow_lpips(tensors, a, b), rtol=1e-4, atol=1e-6)
    assert torch.equal(lpips(a, a), torch.zeros(2))
    assert not any(p.requires_grad for p in lpips.parameters())
    grey, other = images(1, 64, 1)
    torch.testing.assert_close(
        lpips(grey, other), lpips(grey.repeat(1, 3, 1, 1), other.repeat(1, 3, 1, 1))
    )


def test_lpips_from_one_safetensors_file_with_the_names_of_a_saved_network(
    tensors: dict[str, Tensor], folder: Path
) -> None:
    slices = {0: 1, 2: 1, 5: 2, 7: 2, 10: 3, 12: 3, 14: 3, 17: 4, 19: 4, 21: 4, 24: 5, 26: 5, 28: 5}
    renamed = {name: value for name, value in tensors.items() if name.startswith("lin")}
    for k, number in slices.items():
        renamed |= {
            f"net.slice{number}.{k}.{part}": tensors[f"features.{k}.{part}"]
            for part in ("weight", "bias")
        }
    save_file(renamed, folder / "lpips.safetensors")
    a, b = images(1)
    both = [
        LPIPS(files, size=None)(a, b)
        for files in (str(folder / "lpips.safetensors"), [folder / "vgg16.pth", folder / "vgg.pth"])
    ]
    assert torch.equal(*both)
    assert not torch.allclose(both[0], LPIPS(folder / "lpips.safetensors")(a, b), rtol=1e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("features.28.bias"), "no tensor 'features.28.bias'"),
        (
            lambda t: t.update({"lin2.model.1.weight": torch.ones(1, 64, 1, 1)}),
            "'lin2.model.1.weight' has shape",
        ),
        (lambda t: t["lin4.model.1.weight"].neg_(), "negative"),
        (lambda t: t["features.0.weight"].fill_(torch.nan), "NaN"),
    ],
)
def test_wrong_weights_are_named(
    tensors: dict[str, Tensor], tmp_path: Path, change: Callable[[dict], object], message: str
) -> None:
    wrong = {name: value.clone() for name, value in tensors.items()}
    change(wrong)
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(BadFile, match=message) as error:
        LPIPS(tmp_path / "wrong.pth")
    assert "wrong.pth" in str(error.value) and "vgg16-397923af.pth" in str(error.value)


def test_files_that_are_missing_cut_or_of_another_kind_are_named(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadFile, match=r"absent\.pth: no such file"):
        LPIPS(tmp_path / "absent.pth")
    with pytest.raises(BadFile, match=r"absent\.safetensors: no such file"):
        LPIPS(tmp_path / "absent.safetensors")
    (tmp_path / "cut.pth").write_bytes((folder / "vgg.pth").read_bytes()[:2000])
    with pytest.raises(BadFile, match=r"cut\.pth: not a complete file"):
        LPIPS(tmp_path / "cut.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(BadFile, match=r"empty\.pth: not a complete file"):
        LPIPS(tmp_path / "empty.pth")
    torch.save({"state": [1, 2]}, tmp_path / "other.pth")
    with pytest.raises(BadFile, match=r"other\.pth: contains something other"):
        LPIPS(tmp_path / "other.pth")


# -- the features of a scorer ----------------------------------------------------------------------
def test_features_of_a_conv_scorer_are_compared_at_each_depth() -> None:
    torch.manual_seed(2)
    scorer = ConvScorer(BINARY, 16, (4, 6, 8), 5).seal()
    a, b = images(3, 16)
    total = torch.zeros(3)
    for depth in (3, 6, 9):  # after the activation that ends each resolution
        p, q = scorer.trunk[:depth](a), scorer.trunk[:depth](b)
        for n in range(3):
            for y in range(p.shape[2]):
                for x in range(p.shape[3]):
                    u, v = p[n, :, y, x], q[n, :, y, x]  # either may be all zero
                    gap = u / u.norm().clamp_min(1e-10) - v / v.norm().clamp_min(1e-10)
                    total[n] += gap.square().sum() / p[n, 0].numel()
    distance = FeatureDistance(scorer)
    torch.testing.assert_close(distance(a, b), total, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(distance.residual(a[1:2])[0], distance.residual(a)[1])
    assert distance.about == "trunk features of ConvScorer"


def test_scorers_without_positions_give_features_or_logits() -> None:
    class Logits(Scorer):
        def forward(self, decoded: Tensor) -> Tensor:
            return decoded[:, :2] * 3

    a, b = torch.randn(4, 6), torch.randn(4, 6)
    linear = FeatureDistance(LinearScorer(BINARY, normals_for(BINARY, 6)))
    torch.testing.assert_close(linear(a, b), (a - b).square().mean(1))
    assert linear.about == "features of LinearScorer"
    logits = FeatureDistance(Logits())
    torch.testing.assert_close(logits(a, b), 9 * (a - b)[:, :2].square().mean(1))
    assert logits.about == "logits of Logits"


def test_pixels() -> None:
    a, b = images()
    torch.testing.assert_close(PixelDistance()(a, b), (a - b).square().sum((1, 2, 3)))


def test_positions_without_any_feature_have_a_finite_derivative() -> None:
    x = nn.Parameter(torch.zeros(1, 3, 2, 2))
    unit = per_position(x.relu())
    (gradient,) = torch.autograd.grad(unit.sum(), x)
    assert torch.equal(unit, torch.zeros(1, 12)) and torch.isfinite(gradient).all()
