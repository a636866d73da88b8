"""Metric networks: what the stand-ins are given and give, computed by hand; files of another kind; the registry."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from editbench.base.conf import group_options
from editbench.base.errors import BadFile, EditbenchError, UnknownName, Unsupported
from editbench.base.instantiate import build
from editbench.networks import registry
from editbench.networks.features import (
    FeatureNetwork,
    InceptionFeatures,
    ScorerFeatures,
    VGG16Features,
)
from editbench.networks.fetch import locate_file
from editbench.networks.perceptual import ScriptedLPIPS
from editbench.networks.registry import Published
from editbench.networks.scorers.convnet import ConvScorer
from editbench.networks.scorers.exported import FileScorer
from editbench.networks.scorers.module import ModuleScorer
from editbench.networks.torchscript import kind_of, read_torchscript
from editbench.run.compose import compose_config
from editbench.run.settings import resolve
from tests.scripted import DIM, WIDTHS, SmallInception, SmallVGG16, published, save
from tests.toy import BINARY, LinearScorer, normals_for

pytestmark = pytest.mark.usefixtures("networks")

ATTRIBUTES = [{"name": "a", "classes": ["no", "yes"]}, {"name": "b", "classes": ["no", "yes"]}]


class Inception(InceptionFeatures):
    dim = DIM


class VGG16(VGG16Features):
    dim = WIDTHS[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    save(SmallInception(), folder / "inception-2015-12-05.pt")
    save(SmallVGG16(), folder / "vgg16.pt")
    return folder


def noise(n: int = 4, size: int = 12, channels: int = 3) -> Tensor:
    return (
        torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(5)) * 2.4 - 1.2
    )


# -- features --------------------------------------------------------------------------------------
def test_inception_is_given_bytes_and_asked_for_features(files: Path) -> None:
    path = files / "inception-2015-12-05.pt"
    network = Inception(published(path), path)
    images = noise()
    levels = torch.floor(images.double() * 127.5 + 128).clamp(
        0, 255
    )  # as the StyleGAN2-ADA code makes bytes
    patches = ((levels - 128) / 128).unfold(2, 6, 6).unfold(3, 6, 6).mean((4, 5)).flatten(1)
    expected = patches @ SmallInception().weight.double().t()
    assert torch.allclose(network(images).double(), expected, atol=1e-5)
    assert network(images).dtype == torch.float32
    assert (network.dim, network.name) == (
        DIM,
        "inception-2015-12-05",
    )
    grey = noise(channels=1)
    assert torch.equal(network(grey), network(grey.expand(-1, 3, -1, -1).contiguous()))


def test_a_picture_that_is_not_finite_has_no_features(files: Path) -> None:
    path = files / "inception-2015-12-05.pt"
    network = Inception(published(path), path)
    images = noise()
    images[1, 2, 3, 4] = torch.nan
    images[3] = torch.inf
    features = network(images)
    assert torch.equal(features[[0, 2]], network(images[[0, 2]]))
    assert bool(features[[1, 3]].isnan().all())


def test_a_byte_that_was_read_as_a_float_is_itself_again(files: Path) -> None:
    path = files / "inception-2015-12-05.pt"
    levels = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, -1, -1)
    assert torch.equal(Inception(published(path), path).prepare(levels / 127.5 - 1), levels.byte())


def test_vgg_gives_the_features_of_precision_and_recall(files: Path) -> None:
    path = files / "vgg16.pt"
    network = VGG16(published(path), path)
    levels = (noise() * 127.5 + 128).clamp(0, 255).byte()
    assert torch.allclose(network(noise()), SmallVGG16()(levels, return_features=True), atol=1e-6)
    assert (
        network.digest
        != Inception(
            published(files / "inception-2015-12-05.pt"), files / "inception-2015-12-05.pt"
        ).digest
    )


def test_features_of_the_judge_are_its_embedding() -> None:
    torch.manual_seed(0)
    scorer = ConvScorer(BINARY, 16, (4, 4, 4), 7).seal()
    network = ScorerFeatures(scorer)
    images = noise(size=16).clamp(-1, 1)
    assert isinstance(network, FeatureNetwork)
    assert (network.dim, network.resize, network.name) == (
        7,
        "none",
        "judge",
    )
    assert torch.allclose(scorer.head(network(images)), scorer(images), atol=1e-6)
    assert network.digest != ScorerFeatures(scorer, "trunk.0").digest


def test_features_of_any_module_are_what_its_last_linear_layer_takes() -> None:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, 6),
        nn.Tanh(),
        nn.Linear(6, 2),
    ]
    scorer = ModuleScorer(layers, ATTRIBUTES, input_size=(16, 16))
    images = noise(size=16)
    eager = nn.Sequential(*layers)
    assert torch.allclose(ScorerFeatures(scorer)(images), eager[:6](images))
    assert ScorerFeatures(scorer).dim == 6
    assert torch.allclose(
        ScorerFeatures(scorer, "network.1")(images), eager[:2](images).mean((2, 3)), atol=1e-6
    )
    assert not scorer.network[6]._forward_pre_hooks and not scorer.network[1]._forward_hooks
    with pytest.raises(UnknownName, match=r"network\.1"):
        ScorerFeatures(scorer, "network.l")


def test_scorers_without_features_of_images_say_so(files: Path) -> None:
    latent = LinearScorer(BINARY, normals_for(BINARY, 6))
    latent.input = "w"
    with pytest.raises(Unsupported, match="scores 'w'"):
        ScorerFeatures(latent)
    save(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), files / "linear.pt")
    scripted = FileScorer(files / "linear.pt", ATTRIBUTES, input_size=(4, 4))
    with pytest.raises(Unsupported, match="cannot be listened to"):
        ScorerFeatures(scripted)
    with pytest.raises(EditbenchError, match="no linear layer"):
        ScorerFeatures(ModuleScorer([nn.Conv2d(3, 2, 4), nn.Flatten()], ATTRIBUTES, (4, 4)))


# -- LPIPS -----------------------------------------------------------------------------------------
def slow_lpips(a: Tensor, b: Tensor) -> Tensor:
    """Equation (1) of the paper, position by position, for the two layers of the stand-in."""
    network, total = SmallVGG16(), torch.zeros(len(a))
    found = []
    for x in (a, b):
        one = torch.conv2d(x, network.first, padding=1).relu()
        found.append([one, torch.conv2d(one, network.second, stride=2, padding=1).relu()])
    for layer, weight in enumerate((network.lpips0, network.lpips1)):
        y, z = found[0][layer], found[1][layer]
        for n in range(len(a)):
            for row in range(y.shape[2]):
                for column in range(y.shape[3]):
                    u, v = y[n, :, row, column], z[n, :, row, column]
                    gap = u / (u.norm() + 1e-10) - v / (v.norm() + 1e-10)
                    total[n] += (weight * gap.square()).sum() / (y.shape[2] * y.shape[3])
    return total.detach()


def test_lpips_of_the_scripted_network_is_its_formula(files: Path) -> None:
    distance = ScriptedLPIPS(published(files / "vgg16.pt"), files / "vgg16.pt")
    a, b = noise(2, 6).clamp(-1, 1), noise(4, 6)[2:].clamp(-1, 1)
    assert torch.allclose(distance(a, b), slow_lpips(a, b), atol=1e-6)
    assert torch.equal(distance(a, a), torch.zeros(2))
    small = ScriptedLPIPS(published(files / "vgg16.pt"), files / "vgg16.pt", size=3)
    assert torch.allclose(small(a, b), slow_lpips(a[:, :, ::2, ::2], b[:, :, ::2, ::2]), atol=1e-6)
    assert small.digest != distance.digest
    assert "3x3" in small.about
    assert "full size" in distance.about


def test_lpips_has_gradients_and_takes_grey(files: Path) -> None:
    distance = ScriptedLPIPS(published(files / "vgg16.pt"), files / "vgg16.pt")
    a, b = noise(2, 6).clamp(-1, 1).requires_grad_(), noise(4, 6)[2:].clamp(-1, 1)
    distance(a, b).sum().backward()
    step = torch.zeros_like(b)
    step[0, 1, 2, 3] = 1e-3
    with torch.no_grad():
        slope = (distance(a + step, b) - distance(a - step, b))[0] / 2e-3
    assert a.grad is not None and float(a.grad[0, 1, 2, 3]) == pytest.approx(float(slope), rel=2e-2)
    grey = noise(2, 6, 1)
    assert torch.equal(distance.residual(grey), distance.residual(grey.expand(-1, 3, -1, -1)))


# -- files that are something else -----------------------------------------------------------------
def spoil(path: Path, out: Path, length: float) -> Path:
    content = path.read_bytes()
    out.write_bytes(content[: int(len(content) * length)])
    return out


def test_a_network_of_another_interface_or_width_is_named(files: Path, tmp_path: Path) -> None:
    other = save(nn.Sequential(nn.Flatten()), tmp_path / "other.pt")
    with pytest.raises(BadFile, match=r"other\.pt.*return_features"):
        InceptionFeatures(published(other), other)
    path = files / "inception-2015-12-05.pt"
    with pytest.raises(BadFile, match="returns 8 features, expected 2048"):
        InceptionFeatures(published(path), path)
    with pytest.raises(BadFile, match="return_lpips"):
        ScriptedLPIPS(published(path), path)


@pytest.mark.parametrize("length", [0.0, 0.02, 0.5, 0.97])
def test_a_file_that_was_cut_off_is_no_network(files: Path, tmp_path: Path, length: float) -> None:
    cut = spoil(files / "vgg16.pt", tmp_path / "cut.pt", length)
    with pytest.raises(BadFile, match=r"cut\.pt"):
        read_torchscript(cut)


def test_every_byte_flipped_is_read_or_refused(files: Path, tmp_path: Path) -> None:
    content = bytearray((files / "vgg16.pt").read_bytes())
    refused = 0
    for place in range(0, len(content), max(1, len(content) // 60)):
        spoiled = bytearray(content)
        spoiled[place] ^= 0xFF
        (tmp_path / "flip.pt").write_bytes(spoiled)
        try:
            read_torchscript(tmp_path / "flip.pt")
        except BadFile:
            refused += 1
    assert refused > 10


def test_a_state_dict_a_pickle_and_weights_alone_are_told_apart(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "state.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "text.pt").write_text("<html>404</html>")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("a/readme", "nothing")
    for name, kind in (
        ("state.pt", "state dict or pickled module"),
        ("old.pt", "state dict or pickled module"),
        ("text.pt", "unknown"),
        ("other.zip", "unknown"),
    ):
        assert kind_of(tmp_path / name) == kind
        with pytest.raises(BadFile, match=name):
            read_torchscript(tmp_path / name)
    with pytest.raises(BadFile, match=r"state dict.*torch\.jit\.script"):
        read_torchscript(tmp_path / "state.pt")
    with pytest.raises(BadFile, match="no such file"):
        kind_of(tmp_path / "none.pt")


class Writes(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.path)
        return x


class Reads(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_file("/etc/hostname", False, 4, dtype=torch.uint8).float().sum() + x


@pytest.mark.parametrize("module", [Writes, Reads])
def test_operators_that_touch_the_disk_are_refused_before_loading(
    module: type, tmp_path: Path
) -> None:
    network = module(str(tmp_path / "written")) if module is Writes else module()
    path = save(network, tmp_path / "disk.pt")
    with pytest.raises(BadFile, match="reaches the disk"):
        read_torchscript(path)
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    "call",
    [
        "torch.\\\n  save(x, 'F')",
        "(torch. # a note\n  save)(x, 'F')",
        "t = torch\n    t.save(x, 'F')",
        "getattr(torch, \"save\")(x, 'F')",
        'getattr(torch, "sa" "ve")(x, \'F\')',
        "CASE torch.save(x, 'F')",
        "TWICE torch.save(x, 'F')",
    ],
)
def test_they_are_found_however_they_are_written(call: str, tmp_path: Path) -> None:
    plain = save(nn.Sequential(nn.Flatten()), tmp_path / "plain.pt")
    how, call = call.split(" ", 1) if call[:4] in ("CASE", "TWIC") else ("", call)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "bad.pt", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if (
                name.endswith(".py") and b"getattr(self" in data
            ):  # as torch writes it, and no reason to refuse
                code = data.decode().replace(
                    "    return", f"    x = input\n    {call}\n    return", 1
                )
                assert call in code
                target.writestr(name.replace(".py", ".PY") if how == "CASE" else name, code)
                data = data if how == "TWICE" else b""
            if data:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of the name that is there twice
                    target.writestr(name, data)
    assert read_torchscript(plain)(noise()).shape == (4, 432)
    with pytest.raises(BadFile, match=r"reaches the disk|a duplicate name"):
        read_torchscript(tmp_path / "bad.pt")


# -- the registry ----------------------------------------------------------------------------------
def test_the_published_networks_are_pinned_and_described() -> None:
    known = registry.published()
    assert set(known) == {"inception", "vgg16"}
    for file in known.values():
        assert file.sha256
        assert file.size
        assert file.url.startswith("https://nvlabs-fi-cdn.nvidia.com/")
        assert file.licence
        assert file.url.endswith(file.name)
    for name, config in group_options("network").items():
        assert config["name"] and config["about"] and config["_target_"], name


def test_a_network_is_an_option_of_the_configuration(
    files: Path, networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InceptionFeatures, "dim", DIM)
    monkeypatch.setattr(VGG16Features, "dim", WIDTHS[1])
    cfg = compose_config([])
    judge = build(cfg.network)
    assert isinstance(judge, ScorerFeatures)
    assert judge.dim == 128
    assert judge.scorer.digest == build(cfg.scorer.judge).digest
    for option, kind in (
        ("inception", InceptionFeatures),
        ("vgg16", VGG16Features),
        ("lpips", ScriptedLPIPS),
    ):
        file = published(files / compose_config([f"network={option}"]).network.file.name)
        cfg = compose_config(
            [
                f"network={option}",
                f"network.path={files / file.name}",
                f"network.file.sha256={file.sha256}",
            ]
        )
        assert isinstance(build(cfg.network), kind)


def test_a_file_lies_at_its_path_or_in_the_folder_and_is_checked(
    files: Path, networks: Path
) -> None:
    path = files / "vgg16.pt"
    file = published(path)
    assert registry.find_file(file) is None
    networks.mkdir()
    (networks / "vgg16.pt").write_bytes(path.read_bytes())
    found = locate_file(file)
    assert found.path == networks / "vgg16.pt" and found.sha256 == file.sha256
    (networks / "vgg16.pt").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
        BadFile, match=rf"{path.stat().st_size - 9} bytes of {path.stat().st_size}.*fetch vgg16"
    ):
        locate_file(file)
    with pytest.raises(BadFile, match=r"no such file \(network\.path\)"):
        locate_file(file, files / "none.pt")


def test_offline_names_all_that_is_missing_before_anything_is_built(networks: Path) -> None:
    words = [
        "offline=true",
        "+metric.one.network=${network}",
        "+metric.one._target_=x",
        "network=inception",
    ]
    cfg = compose_config(words)
    OmegaConf.update(
        cfg,
        "metric.two",
        {"_target_": "y", "network": group_options("network")["vgg16"]},
        force_add=True,
    )
    with pytest.raises(EditbenchError) as error:
        registry.require_files(resolve(cfg))
    for part in (
        "inception-2015-12-05.pt",
        "vgg16.pt",
        str(networks),
        "nvlabs-fi-cdn",
        "editbench fetch",
    ):
        assert part in str(error.value)
    with pytest.raises(EditbenchError, match="offline=true"):
        locate_file(registry.published()["vgg16"])
    registry.require_files(
        resolve(compose_config([]))
    )  # a run that names no such network needs none
    assert not registry.is_offline()


def test_the_environment_can_say_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.OFFLINE, "1")
    with pytest.raises(EditbenchError, match=r"missing.*\n.*inception-2015"):
        locate_file(registry.published()["inception"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "../x.pt", "url": "u"}, "without folders"),
        ({"name": "x.pt", "url": "u", "sha256": "12"}, "64"),
        ({"name": "x.pt"}, "needs 'url'"),
        ({"name": "x.pt", "url": "u", "sha265": "0"}, "Did you mean 'sha256'"),
    ],
)
def test_a_file_that_is_described_wrongly(config: dict, message: str) -> None:
    with pytest.raises(EditbenchError, match=message):
        Published.from_config(config)


def test_a_pin_of_the_first_fetch_counts(files: Path, networks: Path) -> None:
    file = published(files / "vgg16.pt", sha256=None)
    networks.mkdir()
    (networks / "vgg16.pt").write_bytes((files / "vgg16.pt").read_bytes())
    locate_file(file)  # put there by hand: nothing to compare with
    (networks / registry.LOCK).write_text(json.dumps({"vgg16.pt": "0" * 64}))
    with pytest.raises(BadFile, match="expected 0000"):
        locate_file(file)
