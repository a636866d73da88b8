"""Third-party generators and classifiers: real MNIST and FFHQ-latent rigs, signs, and errors a user can act on."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from editbench.bank.bank import Split
from editbench.base.conf import CONF, read_yaml
from editbench.base.errors import BadFile, EditbenchError, NonFinite, SpaceMismatch, UnknownName
from editbench.base.instantiate import build
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.networks.latent_only import LatentOnly, PCALatents
from editbench.networks.lenet import LeNet
from editbench.networks.mlp import mlp
from editbench.networks.module_generator import ModuleGenerator
from editbench.networks.scorers.latent_heads import LatentHeads
from editbench.networks.scorers.module import ModuleScorer
from editbench.run.compose import compose_config
from editbench.walk.editor import FitData, Walk
from tests.data_folder import DATA, needs_data

GAN, LENET = DATA / "mnist/mlp_gan.safetensors", DATA / "mnist/lenet.safetensors"
PCA, HEADS = DATA / "ffhq-latents/w_pca.safetensors", DATA / "gradctrl-heads/ffhq.safetensors"
DIGITS = [{"name": "digit", "classes": [str(k) for k in range(10)]}]
BINARY = [{"name": "a", "classes": ["no", "yes"]}]


def from_config(group: str, name: str, part: str = ""):
    """What a shipped YAML builds, with `data` at the test data."""
    cfg = compose_config([f"{group}={name}", f"data={DATA}"])[group]
    return build(cfg[part] if part else cfg)


def read_idx(path: Path) -> np.ndarray:
    """An array of unsigned bytes from a gzipped idx file: 0, 0, type 8, rank, big-endian sizes, the bytes."""
    raw = gzip.decompress(path.read_bytes())
    assert raw[:3] == bytes([0, 0, 8]), f"{path} is not an idx file of unsigned bytes"
    shape = np.frombuffer(raw, ">u4", raw[3], 4).astype(int)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def draw(n: int, width: int) -> Tensor:
    return torch.from_numpy(normals(0, "test", 0, n, width)).float()


# -- MNIST: an image GAN and an image classifier ---------------------------------------------------
@needs_data
def test_mnist_generator_matches_its_network():
    generator = from_config("generator", "mnist_mlp")
    z = draw(16, 64)
    images = generator.decode(Codes(Space.Z, z))
    network = nn.Sequential(
        nn.Linear(64, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 784),
        nn.Tanh(),
    )
    network.load_state_dict(load_file(GAN))
    assert torch.equal(images, network(z).view(16, 1, 28, 28)), (
        "a [-1, 1] network is passed through unchanged"
    )
    assert images.min() >= -1 and images.max() <= 1 and images.dtype == torch.float32
    assert generator.spaces == (Space.Z, Space.THETA) and generator.decoded == 16
    with pytest.raises(SpaceMismatch, match="decodes Z, THETA codes but was given W"):
        generator.decode(Codes(Space.W, z))


@needs_data
def test_mnist_generator_is_differentiable_in_z():
    generator = from_config("generator", "mnist_mlp")
    z = draw(2, 64).requires_grad_()
    generator.decode(Codes(Space.Z, z)).sum().backward()
    assert z.grad is not None and bool((z.grad != 0).any(1).all())


@needs_data
def test_lenet_accuracy_on_mnist_test_images():
    scorer = from_config("scorer", "mnist_lenet", "teacher")
    images = read_idx(DATA / "mnist/t10k-images-idx3-ubyte.gz")
    labels = torch.from_numpy(read_idx(DATA / "mnist/t10k-labels-idx1-ubyte.gz").astype(np.int64))
    pictures = torch.from_numpy(images.astype(np.float32)).unsqueeze(1) / 127.5 - 1
    with torch.inference_mode():
        logits = torch.cat([scorer(part) for part in pictures.split(1000)])
    accuracy = (scorer.attributes.labels(logits, "digit") == labels).double().mean().item()
    assert accuracy == pytest.approx(0.991, abs=5e-4)


@needs_data
def test_generated_digits_spread_over_classes():
    generator, scorer = (
        from_config("generator", "mnist_mlp"),
        from_config("scorer", "mnist_lenet", "teacher"),
    )
    with torch.inference_mode():
        logits = scorer(generator.decode(Codes(Space.Z, draw(2000, 64))))
    shares = torch.bincount(scorer.attributes.labels(logits, "digit"), minlength=10) / 2000
    assert shares.min() > 0.01 and shares.max() < 0.4, shares  # this GAN favours 1 and is poor in 2


@needs_data
def test_teacher_and_judge_of_the_rigs_are_one():
    for name in ("mnist_lenet", "ffhq_heads"):
        assert (
            from_config("scorer", name, "teacher").digest
            == from_config("scorer", name, "judge").digest
            != ""
        )


# -- FFHQ: W codes and heads on W ------------------------------------------------------------------
@needs_data
def test_heads_equal_a_loop_over_networks():
    tensors, names = load_file(HEADS), ["gender", "smile", "eyeglasses", "age", "pose"]
    scorer = LatentHeads(HEADS, [{"name": name, "classes": ["0", "1"]} for name in names])
    w = PCALatents(PCA).map(draw(256, 80))
    columns = []
    for head in range(5):
        network = nn.Sequential(nn.Linear(512, 16), nn.LeakyReLU(0.1), nn.Linear(16, 1)).double()
        prefix = f"classifiers.{head}.classifier."
        network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        columns.append(network(w.double()))
    exact = torch.cat(columns, 1)
    assert (scorer(w) - exact).abs().max() < 1e-5, "float32 sums of 512 products"
    assert (scorer.double()(w.double()) - exact).abs().max() < 1e-6
    assert scorer(w.double()).dtype == torch.float32


def test_a_binary_head_of_two_outputs_is_their_difference(tmp_path):
    rng = torch.Generator().manual_seed(1)
    parts = {
        "0.weight": torch.randn(4, 6, generator=rng),
        "0.bias": torch.randn(4, generator=rng),
        "2.weight": torch.randn(2, 4, generator=rng),
        "2.bias": torch.randn(2, generator=rng),
    }
    save_file({f"classifiers.0.classifier.{k}": v for k, v in parts.items()}, tmp_path / "h.st")
    w = torch.randn(5, 6, generator=rng)
    hidden = torch.nn.functional.leaky_relu(w @ parts["0.weight"].T + parts["0.bias"], 0.1)
    outputs = hidden @ parts["2.weight"].T + parts["2.bias"]
    found = LatentHeads(tmp_path / "h.st", BINARY)(w)
    assert torch.allclose(found.sigmoid(), outputs.softmax(1)[:, 1:], atol=1e-6)


@needs_data
def test_published_signs():
    """Logits against directions published by others. Pearson correlation over 20,000 draws, and the change of the mean
    logit along the direction itself, both in the sign that the class names claim."""
    generator, scorer = (
        from_config("generator", "ffhq_latents"),
        from_config("scorer", "ffhq_heads", "teacher"),
    )
    w = generator.map(draw(20000, 80))
    logits = scorer(w)
    folder, claims = (
        DATA / "ffhq-latents",
        {
            "stylegan2_ffhq_smile_w_boundary": ("smile", 0.6),
            "direction_smile_e4e": ("smile", 0.6),
            "stylegan2_ffhq_gender_w_boundary": ("gender", 0.8),
            "stylegan2_ffhq_glasses_w_boundary": ("eyeglasses", 0.6),
            "direction_age_e4e": ("age", 0.6),
            "stylegan2_ffhq_yaw_w_boundary": ("pose", 0.8),
        },
    )
    for file, (name, least) in claims.items():
        direction = torch.from_numpy(np.load(folder / f"{file}.npy", allow_pickle=False)).float()
        column = scorer.attributes.logits(logits, name)[:, 0]
        correlation = torch.corrcoef(torch.stack([(w @ direction.T)[:, 0], column]))[0, 1]
        moved = (
            scorer.attributes.logits(scorer(w[:2000] + 3 * direction), name)[:, 0] - column[:2000]
        )
        assert correlation > least, (file, correlation)
        assert moved.mean() > 0.5 * column.std(), (file, moved.mean())


@needs_data
def test_sign_trap_the_published_age_logit_is_positive_for_the_young():
    w = PCALatents(PCA).map(draw(500, 80))
    entry = {"name": "age", "classes": ["young", "old"], "head": 3}
    published, turned = (
        LatentHeads(HEADS, [entry]),
        LatentHeads(HEADS, [entry | {"positive_is_low": True}]),
    )
    older = torch.from_numpy(
        np.load(DATA / "ffhq-latents/direction_age_e4e.npy", allow_pickle=False)
    ).float()
    assert (
        (published(w + 3 * older) - published(w)).mean()
        < 0
        < (turned(w + 3 * older) - turned(w)).mean()
    )
    assert torch.equal(published(w), -turned(w)) and published.digest != turned.digest


@needs_data
def test_men_are_the_positive_side_of_gender():
    """No direction here says which end of its own is male; FFHQ does: men there wear more glasses, smile less and are
    older than women, and each correlation must agree with the class names."""
    generator, scorer = (
        from_config("generator", "ffhq_latents"),
        from_config("scorer", "ffhq_heads", "teacher"),
    )
    table = torch.corrcoef(scorer(generator.map(draw(20000, 80))).T)
    index = scorer.attributes.index
    row = table[index("gender")]
    assert row[index("eyeglasses")] > 0.3 and row[index("age")] > 0.3 and row[index("smile")] < -0.3


@needs_data
def test_many_classes_in_one_head():
    scorer = LatentHeads(
        DATA / "gradctrl-heads/cat.safetensors", [{"name": "color", "classes": list("abcdefgh")}]
    )
    assert scorer(torch.zeros(3, 512)).shape == (3, 8)
    with pytest.raises(BadFile, match="8 outputs"):
        LatentHeads(DATA / "gradctrl-heads/cat.safetensors", BINARY)


@needs_data
def test_pca_latents_have_the_moments_of_their_file():
    generator, n = PCALatents(PCA), 20000
    tensors = load_file(PCA)
    w = generator.map(draw(n, 80)).double()
    mean, comp, std = (tensors[name].double() for name in ("mean", "comp", "std"))
    # In component coordinates the draws are independent normals: the errors of n draws are known.
    scores = ((w - mean) @ comp.T) / std
    assert scores.mean(0).abs().max() < 5 / n**0.5
    assert (torch.cov(scores.T) - torch.eye(80)).abs().max() < 5 * (2 / n) ** 0.5
    rest = (w - mean) - ((w - mean) @ comp.T) @ comp
    assert rest.norm(dim=1).max() < 1e-3, "no variance outside the components"
    assert torch.allclose(generator.map(torch.zeros(1, 80)), tensors["mean"])
    unit = generator.map(torch.eye(80)).double() - mean
    assert torch.allclose(unit, std[:, None] * comp, atol=1e-5)
    half = PCALatents(PCA, truncation_psi=0.5)
    assert torch.allclose(half.map(draw(3, 80)).double() - mean, (w[:3] - mean) / 2, atol=1e-5)
    assert half.digest != generator.digest
    for wrong in (0, -1, 1.5, float("nan"), True, "a"):
        with pytest.raises(EditbenchError, match=r"generator\.truncation_psi="):
            PCALatents(PCA, truncation_psi=wrong)


def test_latent_only_decodes_to_itself():
    generator = LatentOnly(w_dim=8)
    w = draw(3, 8)
    assert generator.decode(Codes(Space.W, w)) is w and generator.output == "w"
    with pytest.raises(SpaceMismatch, match="decodes W codes but was given W_PLUS"):
        generator.decode(Codes(Space.W_PLUS, w[:, None]))
    with pytest.raises(EditbenchError, match="bank import"):
        generator.map(w)
    with pytest.raises(EditbenchError, match=r"\(N, 8\)"):
        generator.decode(Codes(Space.W, draw(3, 7)))


# -- declarations, on networks made here -----------------------------------------------------------
def test_mlp_has_the_tensor_names_of_a_plain_sequential():
    assert list(mlp([2, 3, 4], output="tanh").state_dict()) == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]
    with pytest.raises(UnknownName, match="Did you mean 'relu'"):
        mlp([2, 3], "rellu")


@pytest.mark.parametrize("low, high, output", [(-1, 1, "tanh"), (0, 1, "sigmoid")])
def test_declared_range_is_mapped(low: float, high: float, output: str):
    torch.manual_seed(0)
    network = mlp([4, 64, 48], output=output)
    generator = ModuleGenerator(network, 4, (3, 4, 4), (low, high), check_range=False)
    z = draw(5, 4)
    expected = (network(z).view(5, 3, 4, 4) - low) / (high - low) * 2 - 1
    assert torch.allclose(generator.decode(Codes(Space.Z, z)), expected, atol=1e-6)


def test_layer_list_and_dotted_names_in_a_config(tmp_path: Path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Unflatten(1, (3, 2, 2)))
    save_file(network.state_dict(), tmp_path / "g.safetensors")
    layers = [
        {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 12},
        {"_target_": "torch.nn.Tanh"},
        {"_target_": "torch.nn.Unflatten", "dim": 1, "unflattened_size": [3, 2, 2]},
    ]
    generator = build(
        {
            "name": "mine",
            "_target_": "editbench.networks.module_generator.ModuleGenerator",
            "network": layers,
            "z_dim": 4,
            "image_shape": [3, 2, 2],
            "weights": str(tmp_path / "g.safetensors"),
        }
    )
    assert torch.equal(generator.decode(Codes(Space.Z, draw(2, 4))), network(draw(2, 4)))


class Pixel(nn.Module):
    """Logits that are the mean of each channel: what the network is given can be read off."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_scorer_converts_range_channels_size_and_sign():
    three = [
        {"name": name, "classes": ["n", "y"], "positive_is_low": name == "b"} for name in "rgb"
    ]
    scorer = ModuleScorer(Pixel(), three, (6, 6), (0, 255), mean=[1, 2, 3], std=[2, 2, 2])
    grey = torch.full((2, 1, 9, 9), 0.5)
    want = (torch.tensor([191.25] * 3) - torch.tensor([1.0, 2, 3])) / 2 * torch.tensor([1.0, 1, -1])
    assert torch.allclose(scorer(grey), want.expand(2, 3), atol=1e-4)
    luma = ModuleScorer(Pixel(), BINARY, None, channels=1)
    red = torch.tensor([1.0, -1, -1]).view(1, 3, 1, 1).expand(1, 3, 5, 5)
    assert luma(red).item() == pytest.approx(2 * 0.299 - 1, abs=1e-6)
    stripes = torch.tensor([-1.0, 1.0]).repeat(16).expand(1, 1, 32, 32)
    plain, smooth = (
        ModuleScorer(Pixel(), BINARY, (8, 8), channels=1, antialias=flag) for flag in (False, True)
    )
    assert plain.prepare(stripes).shape == smooth.prepare(stripes).shape == (1, 1, 8, 8)
    assert smooth.prepare(stripes)[..., 2:-2].abs().max() < 0.2, (
        "stripes finer than a pixel average out"
    )
    assert plain.digest != smooth.digest


# -- errors: each names the file or the key --------------------------------------------------------
class Gives(nn.Module):
    """A fixed output, whatever goes in."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> object:
        return self.value


BLACK_AND_WHITE = torch.linspace(0, 1, 12).expand(8, 12)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_shape": 64}, r"generator\.image_shape needs a list of 3"),
        ({"image_shape": (3, 2)}, r"generator\.image_shape needs a list of 3"),
        (
            {"image_shape": (3, 2.5, 2)},
            r"generator\.image_shape must be \[channels, height, width\]",
        ),
        ({"image_shape": (3, 0, 2)}, r"generator\.image_shape must be \[channels, height, width\]"),
        ({"image_range": 255}, r"generator\.image_range needs a list of 2"),
        ({"image_range": ("0", "1")}, r"generator\.image_range needs a list of 2"),
        ({"image_range": (False, True)}, r"generator\.image_range needs a list of 2"),
        ({"image_range": ("0", "white")}, r"generator\.image_range needs a list of 2"),
        ({"image_range": (1, 0)}, r"generator\.image_range must be \[black, white\]"),
    ],
)
def test_shape_and_range_of_a_generator_are_named(options: dict, message: str):
    with pytest.raises(EditbenchError, match=message):
        ModuleGenerator(Gives(BLACK_AND_WHITE), 4, **{"image_shape": (3, 2, 2), **options})


def test_the_shape_of_a_generator_has_whole_numbers():
    network = nn.Sequential(nn.Linear(4, 12), nn.Tanh())
    made = ModuleGenerator(network, 4, (3.0, 2.0, 2.0), check_range=False)
    assert repr(made.image_shape) == "(3, 2, 2)"


@pytest.mark.parametrize(
    "value, image_range, message",
    [
        (BLACK_AND_WHITE, (-1, 1), "image_range"),  # [0, 1] declared as [-1, 1]
        (2 * BLACK_AND_WHITE - 1, (0, 1), "image_range"),  # the reverse
        (2 * BLACK_AND_WHITE - 1, (0, 255), "image_range"),
        (255 * BLACK_AND_WHITE, (-1, 1), "image_range"),
        (BLACK_AND_WHITE[:, :11], (0, 1), "image_shape"),
        (BLACK_AND_WHITE[:7], (0, 1), "image_shape"),
        ([BLACK_AND_WHITE], (0, 1), "list"),
    ],
)
def test_generator_says_which_declaration_is_wrong(value: object, image_range: tuple, message: str):
    with pytest.raises(EditbenchError, match=message):
        ModuleGenerator(Gives(value), 4, (3, 2, 2), image_range)


def test_non_finite_outputs_are_refused_at_load():
    with pytest.raises(NonFinite, match="NaN"):
        ModuleGenerator(Gives(BLACK_AND_WHITE / 0), 4, (3, 2, 2))
    with pytest.raises(NonFinite, match="NaN"):
        ModuleScorer(Gives(torch.full((2, 1), torch.nan)), BINARY, (8, 8))


def test_files_and_declarations_are_named(tmp_path: Path):
    good, cut, lacking = (tmp_path / f"{name}.safetensors" for name in ("good", "cut", "lacking"))
    state = mlp([4, 8, 12], output="tanh").state_dict()
    save_file(state, good)
    cut.write_bytes(good.read_bytes()[:-9])
    save_file({k: v for k, v in state.items() if k != "2.bias"}, lacking)

    def load(path: Path, z_dim: int = 4, sizes: tuple = (4, 8, 12)) -> ModuleGenerator:
        return ModuleGenerator(
            mlp(sizes, output="tanh"), z_dim, (3, 2, 2), weights=path, check_range=False
        )

    load(good)
    for path, text in (
        (tmp_path / "absent", "no such file"),
        (cut, "cut.safetensors: not a complete"),
        (lacking, r"missing: 2\.bias"),
    ):
        with pytest.raises(BadFile, match=text):
            load(path)
    with pytest.raises(BadFile, match=r"0\.weight \(8, 4\) \(needs \(9, 4\)\)"):
        load(good, sizes=(4, 9, 12))
    with pytest.raises(EditbenchError, match=r"change generator\.z_dim"):
        load(good, z_dim=5)
    save_file({**state, "0.bias": torch.full((8,), torch.inf)}, cut)
    with pytest.raises(BadFile, match=r"'0\.bias' holds NaN or infinity"):
        load(cut)
    with pytest.raises(BadFile, match="lacks mean, comp, std"):
        PCALatents(good)
    with pytest.raises(BadFile, match="holds the heads none"):
        LatentHeads(good, BINARY)


def test_heads_of_other_shapes_and_no_number_are_refused(tmp_path):
    path = tmp_path / "heads.safetensors"
    sizes = {"0.weight": (5, 4), "0.bias": (5,), "2.weight": (1, 5), "2.bias": (1,)}
    parts = {f"classifiers.0.classifier.{name}": torch.ones(size) for name, size in sizes.items()}
    save_file(parts, path)
    entry = {"name": "a", "classes": ["x", "y"]}
    assert LatentHeads(path, [entry | {"head": 0}])(torch.ones(2, 4)).shape == (2, 1)
    with pytest.raises(EditbenchError, match=r"scorer\.attributes\.a\.head=first must be a whole"):
        LatentHeads(path, [entry | {"head": "first"}])
    # A vector in place of the matrix fits the bias, but no code.
    save_file({**parts, "classifiers.0.classifier.0.weight": torch.ones(5)}, path)
    with pytest.raises(BadFile, match="the shapes of head 0 do not fit"):
        LatentHeads(path, [entry])


@pytest.mark.parametrize(
    "attributes, error, message",
    [
        ([], EditbenchError, "one attribute or more"),
        (3, EditbenchError, "one attribute or more"),
        ([{"name": "a"}], EditbenchError, "'name' and 'classes'"),
        ([{"name": "a", "classes": ["x"]}], EditbenchError, "two classes"),
        (
            [{"name": "a", "classes": ["x", "y"], "positive_is_lo": True}],
            UnknownName,
            "positive_is_low",
        ),
        (
            [{"name": "a", "classes": ["x", "y", "z"], "positive_is_low": True}],
            EditbenchError,
            "is only for two",
        ),
        ([{"name": "a", "classes": ["x", "y", "z"]}], EditbenchError, "a:x, a:y, a:z"),
    ],
)
def test_scorer_declarations_are_checked(attributes: list, error: type, message: str):
    with pytest.raises(error, match=message):
        ModuleScorer(Gives(torch.zeros(2, 1)), attributes, (8, 8))


def test_probabilities_are_not_logits():
    soft = nn.Sequential(Pixel(), nn.Softmax(-1))
    with pytest.raises(EditbenchError, match="softmax"):
        ModuleScorer(soft, [{"name": "a", "classes": ["x", "y", "z"]}], (8, 8))


def test_lenet_input_errors():
    with pytest.raises(EditbenchError, match="input_size"):
        ModuleScorer(LeNet(), DIGITS, (16, 16), (0, 1), channels=1)


# -- the shipped experiments -----------------------------------------------------------------------
@pytest.mark.parametrize("name", ["ffhq_latents", "mnist_digits"])
def test_experiment_composes_and_sweeps_over_what_exists(name: str):
    sweep = read_yaml(CONF / f"experiment/{name}.yaml")["hydra"]["sweeper"]["params"]
    asked = sweep["attribute"].split(",")
    for method in sweep["method"].split(","):
        cfg = compose_config([f"experiment={name}", f"method={method}", f"attribute={asked[0]}"])
        assert cfg.generator.name == name.replace("digits", "mlp") and cfg.attribute == asked[0]
        assert cfg.method.get("space", "w") == ("z" if name == "mnist_digits" else "w")
        known = [item["name"] for item in cfg.scorer.teacher.attributes]
        assert asked == known and cfg.scorer.judge == cfg.scorer.teacher
        assert (
            list(cfg.method.get("head_attributes") or known)
            == list(cfg.method.get("paths") or known)
            == known
        )


@needs_data
def test_published_directions_point_to_the_class_that_the_run_asks_for():
    """One step of each given direction towards class 1 raises that attribute's logit for the average start."""
    editor, generator = (
        from_config("method", "direction_ffhq"),
        from_config("generator", "ffhq_latents"),
    )
    scorer = from_config("scorer", "ffhq_heads", "teacher")
    w = generator.map(draw(1000, 80))
    logits = scorer(w)
    index = torch.arange(len(w))
    split = Split(index, torch.empty(len(w), 0), w, logits)
    editor.fit(FitData(generator, scorer, split, split, logits.std(0), 0))
    for name in scorer.attributes.names:
        editor.check(generator, scorer.attributes, name)
        walk = Walk(name, index, w, w, torch.zeros_like(index), torch.ones_like(index))
        gain = scorer.attributes.logits(scorer(editor.step(walk)) - logits, name)
        assert gain.mean() > 0, name
