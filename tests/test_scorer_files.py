"""Classifiers in files and functions: equal to the eager network, declared outputs by hand, hostile and unfit files."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import logging
import os
import sys
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.batches import Batches, is_out_of_memory
from editbench.base.errors import BadFile, EditbenchError, NonFinite, UnknownName, Unsupported
from editbench.base.files import file_sha256
from editbench.cli import main
from editbench.networks.digests import describe, source_of
from editbench.networks.exported import SIZE, known_operator, read_exported, rebuild
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.callable import CallableScorer
from editbench.networks.scorers.exported import FileScorer
from editbench.networks.scorers.module import ModuleScorer
from tests.scripted import save

DECLARED: dict[str, Any] = {
    "attributes": [
        {"name": "smile", "classes": ["neutral", "smiling"]},
        {"name": "age", "classes": ["young", "old"], "positive_is_low": True},
        {"name": "hair", "classes": ["black", "blond", "brown"]},
    ],
    "input_size": (12, 12),
    "input_range": (0, 1),
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
}


class Classifier(nn.Module):
    """(N, 3, 12, 12) -> 7 outputs, of which a declaration may choose."""

    def __init__(self, outputs: int = 5) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.silu(self.conv(images)).mean((2, 3)))


def export(
    network: nn.Module, path: Path, batch: int = 2, fixed: bool = False, size: int = 12
) -> Path:
    if int(torch.__version__.split(".")[1]) < 8:
        pytest.skip("archives of torch.export are read from torch 2.8 on")
    shapes = None if fixed else ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(
        network, (torch.rand(batch, 3, size, size),), dynamic_shapes=shapes
    )
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorers")
    save(Classifier(), folder / "net.pt")
    export(Classifier().eval(), folder / "net.pt2")
    export(Classifier().eval(), folder / "fixed.pt2", fixed=True)
    return folder


def noise(n: int = 5, size: int = 20) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def function(images: Tensor) -> Tensor:
    return Classifier()(images)


def in_numpy(images: Tensor) -> np.ndarray:
    flat = images.detach().numpy().mean((2, 3))
    return np.concatenate([flat, flat[:, :2]], 1).astype(np.float32)


def in_bytes(images: Tensor) -> np.ndarray:
    levels = (images.numpy() * 127.5 + 128).clip(0, 255).astype(np.uint8)
    return np.resize(levels.mean((1, 2, 3)), (5, len(levels))).T.astype(np.float32)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_a_picture_that_is_not_finite_has_no_logits() -> None:
    scorer = CallableScorer("tests.test_scorer_files.in_bytes", **DECLARED)
    images = noise(3)
    images[1, 0, 2, 2] = torch.nan
    images[2, 1] = torch.inf
    logits = scorer(images)
    assert torch.equal(logits[:1], scorer(images[:1])) and bool(logits[0].isfinite().all())
    assert bool(logits[1:].isnan().all())


# -- one network, four ways ------------------------------------------------------------------------------------------
def by_hand() -> Tensor:
    """Range, normalisation and signs written out, on images resized beforehand."""
    small = F.interpolate(noise(), (12, 12), mode="bilinear", align_corners=False).double()
    x = ((small + 1) / 2 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor(
        [0.2, 0.3, 0.4]
    )[:, None, None]
    out = Classifier().double()(x).detach()
    out[:, 1] = -out[:, 1]
    return out


def test_script_export_module_and_function_give_the_same_logits(files: Path) -> None:
    eager = ModuleScorer(Classifier(), **DECLARED)
    scorers = [
        eager,
        FileScorer(files / "net.pt", **DECLARED),
        FileScorer(files / "net.pt2", **DECLARED),
        CallableScorer("tests.test_scorer_files.function", **DECLARED),
    ]
    for scorer in scorers:
        assert torch.allclose(scorer(noise()).double(), by_hand(), atol=1e-5), type(scorer)
        assert torch.allclose(scorer(noise()[2:3]), scorer(noise())[2:3], atol=1e-5)
    assert len({scorer.digest for scorer in scorers}) == 4


@pytest.mark.parametrize(
    "wrapped", [lambda program: program, lambda program: [nn.Identity(), program.module()]]
)
def test_a_program_that_ones_own_code_loads_is_a_network(files: Path, wrapped: Callable) -> None:
    scorer = ModuleScorer(wrapped(torch.export.load(files / "net.pt2")), **DECLARED)
    scorer.to("cpu").train().eval().requires_grad_(False)  # as a run loads it
    assert torch.allclose(scorer(noise()).double(), by_hand(), atol=1e-5)


class Own(Scorer):
    """A scorer of one's own around such a program."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.inner = program.module()

    def forward(self, decoded: Tensor) -> Tensor:
        return self.inner(decoded)


def test_a_scorer_of_ones_own_holds_such_a_program(files: Path) -> None:
    scorer = Own(torch.export.load(files / "net.pt2"))
    scorer.to("cpu").eval().requires_grad_(False)  # as a run loads it
    expected = Classifier().double()(noise(size=12).double()).detach()
    assert torch.allclose(scorer(noise(size=12)).double(), expected, atol=1e-5)


class Hungry(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        # Of more than three pictures no memory has room for what it asks for.
        if images.shape[0] > 3:
            images = images + torch.zeros([1 << 46]).sum()
        means = images.mean((2, 3))
        return torch.cat([means, means[:, :2]], 1)


def test_a_file_that_finds_no_memory_gets_smaller_batches(tmp_path: Path) -> None:
    scorer = FileScorer(save(Hungry(), tmp_path / "hungry.pt"), **DECLARED)
    with torch.no_grad():
        parts = Batches(5, "pictures").run(5, lambda rows: scorer(noise()[rows]))
    assert list(map(len, parts)) == [2, 2, 1]
    # What its interpreter says of a GPU: no error of torch's own type.
    said = "The following operation failed in the TorchScript interpreter.\nCUDA out of memory."
    assert is_out_of_memory(RuntimeError(said))


def test_gradients_with_respect_to_the_image_are_the_eager_ones(files: Path) -> None:
    found = []
    for scorer in (
        ModuleScorer(Classifier(), **DECLARED),
        FileScorer(files / "net.pt", **DECLARED),
        FileScorer(files / "net.pt2", **DECLARED),
        CallableScorer("tests.test_scorer_files.function", **DECLARED),
    ):
        scorer.to("cpu").eval().requires_grad_(False)  # as a run loads it
        images = noise().requires_grad_()
        found.append(torch.autograd.grad(scorer(images)[:, 2].sum(), images)[0])
    for slope in found[1:]:
        assert torch.allclose(slope, found[0], atol=1e-7) and float(slope.abs().max()) > 0


def test_a_scorer_without_gradients_is_a_reason_to_skip(tmp_path: Path) -> None:
    scorer = CallableScorer("tests.test_scorer_files.in_numpy", **DECLARED)
    assert scorer(noise()).shape == (5, 5)
    with pytest.raises(Unsupported, match=r"in_numpy gives no gradients"):
        scorer(noise().requires_grad_())
    with torch.no_grad():
        assert scorer(noise().requires_grad_()).shape == (5, 5)


def test_a_digest_is_of_the_file_and_of_what_was_declared(files: Path, tmp_path: Path) -> None:
    first = FileScorer(files / "net.pt", **DECLARED).digest
    copy = tmp_path / "elsewhere.pt"
    copy.write_bytes((files / "net.pt").read_bytes())
    assert FileScorer(copy, **DECLARED).digest == first
    assert file_sha256(copy) == file_sha256(files / "net.pt")
    assert FileScorer(copy, **DECLARED | {"input_range": (-1, 1)}).digest != first
    changed = Classifier()
    with torch.no_grad():
        changed.head.bias[0] += 1
    assert FileScorer(save(changed, tmp_path / "other.pt"), **DECLARED).digest != first
    named = {
        version: CallableScorer(
            "tests.test_scorer_files.function", **DECLARED, version=version
        ).digest
        for version in ("1", "2")
    }
    assert named["1"] != named["2"]


class Scaled:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, images: Tensor) -> Tensor:
        return self.scale * function(images)


def scaled(images: Tensor, scale: float = 1.0) -> Tensor:
    return scale * function(images)


def maker(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda images: scaled(images, scale)


@torch.no_grad()
def without_gradients(images: Tensor) -> Tensor:
    return function(images)


class Tempered(nn.Module):
    """A classifier whose setting is in neither its weights nor its repr."""

    def __init__(self, setting: object) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.setting = setting

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.mean((2, 3)))


class Steps(nn.Module):
    """A classifier with a buffer that its state dict leaves out."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.register_buffer("step", torch.full((5,), step), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3), keepdim=True).flatten(1) * self.step


class Options:
    def __init__(self, temperature: float) -> None:
        self.temperature = temperature


@dataclass(slots=True)
class Slotted:
    temperature: float


# Values in the settings of a network or a function: how they are made from a number.
VALUES: list[Callable[[float], object]] = [
    Slotted,
    np.float32,
    lambda value: range(int(value)),
    lambda value: deque([value]),
    lambda value: np.array([Options(value)], object),
    lambda value: {Options(value): None},
    lambda value: torch.eye(2).mul(value).to_sparse(),
    maker,
]


def test_a_module_is_known_by_its_settings_too() -> None:
    makers: list[Callable[[float], nn.Module]] = [
        Steps,
        Tempered,
        lambda value: Tempered({"temperature": value}),
        lambda value: Tempered([None, Options(value), {"b", "a"}]),
        lambda value: Tempered(torch.full((2,), value)),
        lambda value: Tempered(np.full(2, value)),
        lambda value: Tempered(partial(scaled, scale=value)),
        lambda value: Tempered(torch.tanh if value == 1 else torch.sigmoid),
        # In a list, a layer is not part of the state dict.
        lambda value: Tempered([Tempered(value)]),
    ]
    for make in makers:
        # Both exist at once, so that objects of `again` have other addresses than those of `first`.
        first, again, other = (ModuleScorer(make(value), **DECLARED) for value in (1.0, 1.0, 2.0))
        assert first.digest == again.digest != other.digest
    # The place of the weights is no setting, be it text or a path.
    places = [str(Path(__file__)), str(Path(__file__).parent)]
    for of in (str, Path):
        assert len({ModuleScorer(Tempered(of(place)), **DECLARED).digest for place in places}) == 1
    whole = Tempered(None)
    whole.setting = [whole]
    assert ModuleScorer(whole, **DECLARED).digest


@pytest.mark.parametrize("make", VALUES)
def test_values_of_any_kind_count(make: Callable[[float], object]) -> None:
    for network in (Tempered, lambda value: partial(scaled, scale=1.0, unused=value)):
        first, again, other = (
            str(describe(network(make(value)), with_source=True)) for value in (1.0, 1.0, 2.0)
        )
        assert first == again != other


@pytest.mark.parametrize("tool", [torch.nn.functional, logging.getLogger(), str.upper])
def test_tools_that_a_network_holds_are_known_by_name(tool: object) -> None:
    # Not by their content, which depends on what else was imported.
    assert len(str(describe(tool))) < 80


def test_a_callable_is_known_by_what_it_holds() -> None:
    kinds: list[Callable[[float], Any]] = [
        Scaled,
        maker,
        lambda scale: partial(scaled, scale=scale),
        lambda scale: Scaled(scale).__call__,
    ]
    for kind in kinds:
        first, again, other = (
            CallableScorer(kind(scale), **DECLARED).digest for scale in (1.0, 1.0, 2.0)
        )
        assert first == again != other
    assert (
        len(
            {
                CallableScorer(called, **DECLARED).digest
                for called in (function, scaled, Scaled(1.0))
            }
        )
        == 3
    )
    own = source_of(inspect.unwrap(without_gradients))
    assert isinstance(own, dict) and own[__name__] == file_sha256(Path(__file__))
    # Also the source of what a container holds.
    for holder in (without_gradients, {without_gradients}, deque([without_gradients])):
        assert file_sha256(Path(__file__)) in str(describe(holder, with_source=True))
    loop: list = [torch.ones(2), np.ones(3), {"a": nn.Linear(1, 1)}]
    loop.append(loop)
    text = str(describe(loop, with_source=True))
    assert "itself" in text and " at 0x" not in text


@pytest.mark.parametrize("kind", ["function", "Network()"])
@pytest.mark.parametrize("file, old, new", [("helped", "gain", "2 * gain"), ("helper", "1", "2")])
def test_a_callable_is_known_by_what_its_file_imports(
    kind: str, file: str, old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit makes the logits other ones, and so the bank that holds them."""
    (tmp_path / "helper.py").write_text("GAIN = 1.0\n")
    (tmp_path / "helped.py").write_text(
        "from torch import nn\nfrom helper import GAIN as gain\n\n\n"
        "def function(images):\n    return gain * images.mean((2, 3))[:, [0, 1, 2, 0, 1]]\n\n\n"
        "class Network(nn.Module):\n    def forward(self, images):\n        return function(images)\n"
        f"\n\nscore = {kind}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def known_by() -> str:
        for name in ("helped", "helper"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return CallableScorer("helped.score", **DECLARED).digest

    before = known_by()
    assert known_by() == before
    path = tmp_path / f"{file}.py"
    # The last place is the one in the code, after the import.
    head, _, tail = path.read_text().rpartition(old)
    path.write_text(head + new + tail)
    assert known_by() != before


# -- which outputs, and what they are --------------------------------------------------------------------------------
class Gives(nn.Module):
    """The same outputs for every image."""

    def __init__(self, row: list[float]) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.tensor(row))

    def forward(self, images: Tensor) -> Tensor:
        return self.row.expand(images.shape[0], -1) + 0 * images.sum((1, 2, 3))[:, None]


BOTH = [{"name": "a", "classes": ["no", "yes"]}, {"name": "b", "classes": ["x", "y", "z"]}]


@pytest.mark.parametrize(
    ("row", "columns", "output", "expected"),
    [
        ([0.0, 1, 2, 3, 4, 5, 6], [6, 1, 2, 4], "logits", [6, 1, 2, 4]),
        ([0.5, 3.0, 1, 2, 7], [[0, 1], 2, 3, 4], "logits", [2.5, 1, 2, 7]),
        (
            [0.8, 0.5, 0.25, 0.25],
            None,
            "probabilities",
            [np.log(4), np.log(0.5), np.log(0.25), np.log(0.25)],
        ),
        (
            [0.8, 0.2, 0.5, 0.25, 0.25],
            [[0, 1], 2, 3, 4],
            "probabilities",
            [-np.log(4), np.log(0.5), np.log(0.25), np.log(0.25)],
        ),
        ([1.0, 1.0, 0.0, 0.0], None, "probabilities", [np.log(1e6), 0, np.log(1e-6), np.log(1e-6)]),
    ],
)
def test_chosen_outputs_become_logits(
    row: list, columns: list | None, output: str, expected: list, tmp_path: Path
) -> None:
    path = save(Gives(row), tmp_path / "gives.pt")
    scorer = FileScorer(path, BOTH, (4, 4), columns=columns, output=output)
    assert scorer(noise(2))[1].tolist() == pytest.approx(expected, abs=2e-2 if 1.0 in row else 1e-5)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([0, 1, 2], "3 entries, but the attributes have 4 columns: a, b:x, b:y, b:z"),
        ([0, 1, 2, 9], "names output 9"),
        ("0123", "must be a list of outputs"),
        ([0, True, 2, 3], "is not an output"),
        ([0, [1, 2], 3, 4], r"b:x is one of several classes"),
        ([[0, 1, 2], 1, 2, 3], r"is not an output"),
        ([-1, 0, 1, 2], "is not an output"),
    ],
)
def test_columns_that_do_not_fit_are_named(columns: list, message: str, tmp_path: Path) -> None:
    path = save(Gives([0.0, 1, 2, 3, 4]), tmp_path / "gives.pt")
    with pytest.raises(EditbenchError, match=message):
        FileScorer(path, BOTH, (4, 4), columns=columns)


def test_a_wrong_number_of_outputs_names_file_and_key(tmp_path: Path) -> None:
    path = save(Gives([0.0] * 40), tmp_path / "celeba.pt")
    with pytest.raises(
        EditbenchError,
        match=r"celeba\.pt: the network gives \(2, 40\).*choose outputs with columns",
    ):
        FileScorer(path, BOTH, (4, 4))
    with pytest.raises(UnknownName, match="Did you mean 'logits'"):
        FileScorer(path, BOTH, (4, 4), output="logit")
    with pytest.raises(EditbenchError, match="write output: probabilities"):
        FileScorer(save(Gives([0.1, 0.5, 0.25, 0.25]), path), BOTH, (4, 4))
    with pytest.raises(EditbenchError, match="write output: logits"):
        FileScorer(save(Gives([3.0, 0.5, 0.25, 0.25]), path), BOTH, (4, 4), output="probabilities")
    with pytest.raises(NonFinite, match="NaN"):
        FileScorer(save(Gives([float("nan"), 1, 1, 1]), path), BOTH, (4, 4))


# -- files that are something else -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
@pytest.mark.parametrize("length", [0.0, 0.3, 0.99])
def test_a_file_that_was_cut_off(files: Path, tmp_path: Path, name: str, length: float) -> None:
    content = (files / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * length)])
    with pytest.raises(BadFile, match=name):
        FileScorer(tmp_path / name, **DECLARED)


def test_every_flipped_byte_is_refused_or_harmless(files: Path, tmp_path: Path) -> None:
    content, refused = (files / "net.pt2").read_bytes(), 0
    for place in range(0, len(content), max(1, len(content) // 40)):
        spoiled = bytearray(content)
        spoiled[place] ^= 0x5A
        (tmp_path / "flip.pt2").write_bytes(spoiled)
        try:
            read_exported(tmp_path / "flip.pt2")
        except BadFile:
            refused += 1
    assert refused > 20


def test_weights_without_a_network_are_told_apart(tmp_path: Path) -> None:
    torch.save(Classifier().state_dict(), tmp_path / "state.pt")
    with pytest.raises(BadFile, match=r"state\.pt.*state dict"):
        FileScorer(tmp_path / "state.pt", **DECLARED)
    from safetensors.torch import save_file

    save_file(Classifier().state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(BadFile, match=r"use ModuleScorer with network: and weights:"):
        FileScorer(tmp_path / "net.safetensors", **DECLARED)
    with pytest.raises(BadFile, match=r"state\.pt.*pickle of torch\.save.*save_file\("):
        ModuleScorer(Classifier(), **DECLARED, weights=tmp_path / "state.pt")


def test_an_export_of_an_older_torch_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        # The members of torch 2.6 and 2.7.
        for member in ("exported_program.json", "state_dict.pt", "constants.pt"):
            archive.writestr(f"serialized_{member}", b"{}")
        archive.writestr("version", "8.3")
    with pytest.raises(BadFile, match=r"old\.pt2: .*a torch before 2\.8.*torch\.jit\.script"):
        FileScorer(path, **DECLARED)


def test_an_export_for_one_batch_size_is_named_with_the_way_out(files: Path) -> None:
    with pytest.raises(
        EditbenchError, match=r"fixed\.pt2: .*batches of exactly 2 images.*Dim\.DYNAMIC"
    ):
        FileScorer(files / "fixed.pt2", **{**DECLARED, "input_size": (12, 12)})


def test_a_wrong_size_is_named(files: Path) -> None:
    with pytest.raises(EditbenchError, match=r"does not take images.*input_size"):
        FileScorer(files / "net.pt2", **DECLARED | {"input_size": (16, 16)})


def test_a_network_that_was_saved_while_training_is_noticed(tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(432), nn.Linear(432, 5)).train()
    with pytest.raises(EditbenchError, match=r"change by .* training mode"):
        FileScorer(export(layers, tmp_path / "train.pt2"), **DECLARED)
    script = torch.jit.script(layers)
    script.save(str(tmp_path / "train.pt"))
    FileScorer(
        tmp_path / "train.pt", **DECLARED
    )  # TorchScript has modes, and is put into evaluation


# -- archives that would run code in torch's own reader --------------------------------------------------------------
def alter(path: Path, out: Path, member: str, change: Any) -> Path:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(member):
                data = change(json.loads(data)) if member.endswith(".json") else change(data)
                data = data if isinstance(data, bytes) else json.dumps(data).encode()
            target.writestr(name, data)
    return out


MARKER = Path(tempfile.gettempdir()) / "editbench-was-here"


class Payload:
    def __reduce__(self) -> tuple:
        return os.system, (f"touch {MARKER}",)


def set_target(graph: dict) -> dict:
    graph["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"
    return graph


def set_size(graph: dict) -> dict:
    text = json.dumps(graph).replace('"expr_str": "', '"expr_str": "__import__(\'os\').getpid() + ')
    assert "getpid" in text
    return json.loads(text)


def set_layout(graph: dict) -> dict:
    call = graph["graph_module"]["module_call_graph"][0]["signature"]
    call["in_spec"] = call["in_spec"].replace("builtins.dict", "collections.defaultdict")
    return graph


def set_pickle(config: dict) -> dict:
    next(iter(config["config"].values()))["use_pickle"] = True
    return config


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("models/model.json", set_target, r"calls 'torch\.os\.system'"),
        ("models/model.json", set_size, "not arithmetic"),
        ("models/model.json", set_layout, "defaultdict"),
        ("model_weights_config.json", set_pickle, "stored as a pickle"),
    ],
)
def test_what_torch_would_run_or_import_is_refused(
    files: Path, tmp_path: Path, member: str, change: Any, message: str
) -> None:
    with pytest.raises(BadFile, match=message):
        read_exported(alter(files / "net.pt2", tmp_path / "bad.pt2", member, change))


def test_pickled_inputs_and_guards_are_left_unread(files: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Payload(), buffer)
    MARKER.unlink(missing_ok=True)
    hostile = alter(
        files / "net.pt2", tmp_path / "a.pt2", "sample_inputs/model.pt", lambda _: buffer.getvalue()
    )
    hostile = alter(
        hostile,
        tmp_path / "b.pt2",
        "models/model.json",
        lambda graph: graph | {"guards_code": [f"open({str(MARKER)!r}, 'w') is not None"]},
    )
    scorer = FileScorer(hostile, **DECLARED)
    assert torch.allclose(scorer(noise()).double(), by_hand(), atol=1e-5) and not MARKER.exists()
    with zipfile.ZipFile(rebuild(hostile)) as clean:
        assert json.loads(clean.read("network/models/model.json"))["guards_code"] == []
        assert clean.read("network/data/sample_inputs/model.pt") == b""


def test_operators_are_the_registered_ones() -> None:
    for name in (
        "torch.ops.aten.conv2d.default",
        "torch.ops.aten.add.Tensor",
        "_operator.mul",
        "torch.sym_int",
    ):
        assert known_operator(name)
    for name in (
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.conv2d.__class__",
        "torch.load",
        "os.system",
        "_operator.attrgetter",
        "torch.ops.aten.nothing.default",
        "builtins.eval",
        "math.__loader__",
    ):
        assert not known_operator(name)


def test_a_size_is_told_in_steps_linear_in_its_length() -> None:
    assert SIZE.fullmatch("1" * 5000 + "@") is None  # this would take for ever otherwise
    assert SIZE.fullmatch("Mul(Integer(128), Symbol('s0', positive=True, integer=True))")
    assert not SIZE.fullmatch("__import__('os')")


def test_an_archive_that_unpacks_to_far_more_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/code/a.py", bytes(80_000_000))
    with pytest.raises(BadFile, match="unpack to 80000000"):
        FileScorer(tmp_path / "bomb.pt", **DECLARED)


# -- functions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.test_scorer_files.functoin", "Did you mean 'function'"),
        ("no_such_module_here.f", "no_such_module_here"),
        ("tests.broken_import.f", "tests"),
        ("plain", "plain"),
    ],
)
def test_a_function_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(EditbenchError, match=message):
        CallableScorer(name, **DECLARED)


def test_what_is_no_function_of_images(tmp_path: Path) -> None:
    with pytest.raises(EditbenchError, match="not a function"):
        CallableScorer("tests.test_scorer_files.DECLARED", **DECLARED)
    with pytest.raises(EditbenchError, match=r"gives list"):
        CallableScorer(lambda images: [1, 2], **DECLARED)


# -- in a run --------------------------------------------------------------------------------------------------------
YAML = """
name: mine
about: a test
teacher:
  _target_: editbench.networks.scorers.{target}
  {given}
  input_size: [16, 16]
  attributes: [{{name: bright, classes: [dark, light]}}]
judge:
  _target_: editbench.networks.scorers.exported.FileScorer
  path: {judge}
  input_size: [16, 16]
  attributes: [{{name: bright, classes: [dark, light]}}]
"""


class Bright(nn.Module):
    """Positive where the picture is lighter than its generator's usual."""

    def forward(self, images: Tensor) -> Tensor:
        return 6 * images.mean((1, 2, 3))[:, None] + 0.3


def bright_in_numpy(images: Tensor) -> np.ndarray:
    return 6 * images.detach().numpy().mean((1, 2, 3))[:, None] + 0.31


@pytest.mark.parametrize(
    ("target", "status"), [("exported.FileScorer", "done"), ("callable.CallableScorer", "skipped")]
)
def test_a_run_scores_with_files_and_skips_where_gradients_are_missing(
    target: str, status: str, tmp_path: Path
) -> None:
    folder = tmp_path / "conf" / "scorer"
    folder.mkdir(parents=True)
    export(Bright(), tmp_path / "teacher.pt2", size=16)
    save(Bright(), tmp_path / "judge.pt")
    given = (
        f"path: {tmp_path}/teacher.pt2"
        if status == "done"
        else "function: tests.test_scorer_files.bright_in_numpy"
    )
    method = "random" if status == "done" else "neural_ode_linear"
    (folder / "mine.yaml").write_text(
        YAML.format(target=target, given=given, judge=tmp_path / "judge.pt")
    )
    words = [
        "run",
        "--config-dir",
        str(tmp_path / "conf"),
        "scorer=mine",
        "attribute=bright",
        f"method={method}",
        "budget=demo",
        "bank.n=128",
        "bank.shard=128",
        "starts.n=4",
        "starts.pool=0.33",
        "engine.max_steps=2",
        "engine.sweep_steps=1",
        f"out={tmp_path}/runs",
        f"cache={tmp_path}/cache",
    ]
    assert main(words) == 0
    folders = [path for path in (tmp_path / "runs").iterdir() if (path / "status.json").exists()]
    found = json.loads((folders[0] / "status.json").read_text())
    assert found["status"] == status
    assert ("no gradients" in found["reason"]) == (status == "skipped")
