"""Classifiers in files and functions: equal to the eager network, declared outputs by hand, and unfit files."""

from __future__ import annotations

import json
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from editbench.base.batches import Batches, is_out_of_memory
from editbench.base.errors import BadFile, EditbenchError, NonFinite, UnknownName, Unsupported
from editbench.cli import main
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.callable import CallableScorer
from editbench.networks.scorers.exported import FileScorer
from editbench.networks.scorers.module import ModuleScorer
from tests.declared_scorer import DECLARED, Classifier, by_hand, export, noise
from tests.scripted import save


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorers")
    save(Classifier(), folder / "net.pt")
    export(Classifier().eval(), folder / "net.pt2")
    export(Classifier().eval(), folder / "fixed.pt2", fixed=True)
    return folder


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


def test_script_export_module_and_function_give_the_same_logits(files: Path) -> None:
    eager = ModuleScorer(Classifier(), **DECLARED)
    scorers = [
        eager,
        FileScorer(files / "net.pt", **DECLARED),
        FileScorer(files / "net.pt2", **DECLARED),
        CallableScorer("tests.declared_scorer.function", **DECLARED),
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
        CallableScorer("tests.declared_scorer.function", **DECLARED),
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


# -- which outputs, and what they are --------------------------------------------------------------
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


# -- files that are something else -----------------------------------------------------------------
@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
@pytest.mark.parametrize("length", [0.0, 0.3, 0.99])
def test_a_file_that_was_cut_off(files: Path, tmp_path: Path, name: str, length: float) -> None:
    content = (files / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * length)])
    with pytest.raises(BadFile, match=name):
        FileScorer(tmp_path / name, **DECLARED)


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


# -- functions -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.declared_scorer.functoin", "Did you mean 'function'"),
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
        CallableScorer("tests.declared_scorer.DECLARED", **DECLARED)
    with pytest.raises(EditbenchError, match=r"gives list"):
        CallableScorer(lambda images: [1, 2], **DECLARED)


# -- in a run --------------------------------------------------------------------------------------
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
    words = shlex.split(
        f"run --config-dir {tmp_path}/conf scorer=mine attribute=bright "
        f"method={method} budget=demo bank.n=128 bank.shard=128 starts.n=4 "
        "starts.pool=0.33 engine.max_steps=2 engine.sweep_steps=1 "
        f"out={tmp_path}/runs cache={tmp_path}/cache"
    )
    assert main(words) == 0
    folders = [path for path in (tmp_path / "runs").iterdir() if (path / "status.json").exists()]
    found = json.loads((folders[0] / "status.json").read_text())
    assert found["status"] == status
    assert ("no gradients" in found["reason"]) == (status == "skipped")
