"""Probabilities and hard labels are recognised wherever logits enter."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from editbench.bank import build as building
from editbench.bank.bank import Bank
from editbench.bank.build import build_bank
from editbench.bank.spec import BankSpec
from editbench.bank.values import log_odds, recognise
from editbench.base.errors import BadFile, EditbenchError
from editbench.cli import main
from editbench.networks.roles import Networks
from editbench.networks.scorers.module import ModuleScorer
from editbench.networks.selected import select_attributes
from tests.data_folder import REPORTS, needs_reports
from tests.toy_world import ToyGenerator

REPORT = REPORTS / "30-probabilities-as-logits"
RNG = np.random.default_rng(0)
P = RNG.uniform(0.02, 0.98, (60, 3)).astype(np.float32)
COLOUR = P[:, 1:] / P[:, 1:].sum(1, keepdims=True)
LAYOUT = "- {name: smile, classes: [a, b]}\n- {name: colour, classes: [c, d, e]}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "w.npy", RNG.standard_normal((60, 4)).astype(np.float32))
    (tmp_path / "one.yaml").write_text("- {name: smile, classes: [a, b]}\n")
    np.save(tmp_path / "p.npy", P[:, :1])
    np.save(tmp_path / "logits.npy", log_odds(P[:, :1].astype(np.float64)).astype(np.float32))
    np.save(tmp_path / "labels.npy", (P[:, :1] > 0.5).astype(np.int64))
    return tmp_path


def imported(folder: Path, *words: str) -> tuple[int, Path]:
    """Exit code of `bank import` in a folder, and the bank's folder."""
    out = folder / f"bank{len(list(folder.iterdir()))}"
    common = ["--attributes", str(folder / "one.yaml"), "--out", str(out)]
    return main(
        ["bank", "import", *common, *(word.replace("@", f"{folder}/") for word in words)]
    ), out


def rows(bank: Path, role: str) -> np.ndarray:
    return Bank(bank).array(role).range(0, 60)


@needs_reports
def test_the_files_of_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"smile={REPORT / 'p0.npy'}", f"hat={REPORT / 'p1.npy'}"]
    words = ["--w", str(REPORT / "w_n_512.npy"), "--attributes", str(REPORT / "attributes.yaml")]
    out = tmp_path / "bank"
    assert main(["bank", "import", *words, "--scores", *files, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "smile: its values lie in [0, 1] and were read as probabilities" in shown
    p = np.concatenate([np.load(REPORT / f"p{k}.npy") for k in (0, 1)], 1).astype(np.float64)
    got = Bank(out).array("teacher").range(0, 40)
    assert np.allclose(got, np.log(p / (1 - p)), atol=1e-5)
    # Each side of one half is a class: not all samples are on one.
    assert 0 < (got > 0).mean() < 1


def test_what_values_look_like() -> None:
    assert recognise(P) == "probabilities"
    assert recognise(np.round(P)) == "labels"
    assert recognise(np.array([[True], [False]])) == "labels"
    assert recognise(P - 0.5) == recognise(P + 0.5) == "logits"


@pytest.mark.parametrize("file", ["p", "labels"])
@pytest.mark.parametrize("door", ["logits", "judge"])
def test_a_file_of_logits_is_asked_what_it_is(
    folder: Path, file: str, door: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--w", "@w.npy", "--logits", f"@{file}.npy"]
    if door == "judge":
        words = ["--w", "@w.npy", "--logits", "@logits.npy", "--judge-logits", f"@{file}.npy"]
    code, out = imported(folder, *words)
    assert code == 1 and not out.exists()
    message = capsys.readouterr().err
    for text in (f"{file}.npy", "'smile'", "--values probabilities", "--values logits"):
        assert text in message
    role = "judge" if door == "judge" else "teacher"
    kind = "probabilities" if file == "p" else "labels"
    code, out = imported(folder, *words, "--values", kind)
    assert code == 0
    expected = np.load(folder / "logits.npy")
    if file == "labels":
        expected = np.sign(expected)
    assert np.allclose(rows(out, role), expected, atol=1e-5)
    # Another reading of the same files is another bank.
    code, other = imported(folder, *words, "--values", "logits")
    assert code == 0 and Bank(other).id != Bank(out).id
    assert np.allclose(rows(other, role), np.load(folder / f"{file}.npy"))


def test_an_option_that_is_wrong_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(folder, "--w", "@w.npy", "--logits", "@logits.npy", "--values", "labels")[0]
    assert "they are logits" in capsys.readouterr().err
    assert imported(folder, "--w", "@w.npy", "--logits", "@p.npy", "--values", "labels")[0]
    assert "--values probabilities" in capsys.readouterr().err


def test_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = imported(folder, "--w", "@w.npy", "--scores", "smile=@p.npy")
    assert code == 0 and np.allclose(rows(out, "judge"), np.load(folder / "logits.npy"), atol=1e-5)
    # The mark of a row without a score is no score.
    marked = P[:, :1].copy()
    marked[5] = -1
    np.save(folder / "marked.npy", marked)
    words = ["--w", "@w.npy", "--scores", "smile=@marked.npy"]
    # Without the option all of them would pass for logits.
    assert imported(folder, *words)[0] == 1
    assert "1 of 60 scores are -1" in (err := capsys.readouterr().err) and "--invalid=-1" in err
    code, out = imported(folder, *words, "--invalid=-1")
    kept = Bank(out).array("judge").range(0, 59)
    assert code == 0
    assert np.allclose(kept, np.delete(np.load(folder / "logits.npy"), 5, 0), atol=1e-5)
    assert imported(folder, "--w", "@w.npy", "--scores", "smile=@labels.npy")[0] == 1
    err = capsys.readouterr().err
    assert "--values labels" in err and "labels.npy: the values of 'smile'" in err
    words = ["--w", "@w.npy", "--scores", "smile=@labels.npy", "--values", "labels"]
    assert imported(folder, *words)[0] == 0


def test_gradctrl(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "one.yaml").write_text(LAYOUT)
    (folder / "data" / "logits").mkdir(parents=True)
    for name, values in (
        ("latents", np.load(folder / "w.npy")),
        ("logits/logits_smile", np.load(folder / "logits.npy")),
        ("logits/logits_colour", np.concatenate([P[:, :1], COLOUR], 1)),
    ):
        (folder / "data" / f"{name}.pkl").write_bytes(pickle.dumps(values))
    assert imported(folder, "--gradctrl", "@data")[0] == 1
    assert "'colour'" in capsys.readouterr().err
    code, out = imported(folder, "--gradctrl", "@data", "--values", "probabilities")
    assert code == 0
    expected = np.concatenate([np.load(folder / "logits.npy"), np.log(P[:, :1]), np.log(COLOUR)], 1)
    assert np.allclose(rows(out, "teacher"), expected, atol=1e-5)


# -- scorers ---------------------------------------------------------------------------------------
class Head(nn.Module):
    """Column sums of the toy world's pictures, and a function of them."""

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.end = end

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.end(images.flatten(1)[:, :2])


class Step(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x > 0).float()


def scorer(end: nn.Module, **options: object) -> ModuleScorer:
    attributes = [
        {"name": "a", "classes": ["x", "y"]},
        {"name": "b", "classes": ["x", "y"], "positive_is_low": True},
    ]
    return ModuleScorer(Head(end), attributes, None, channels=1, **options)


class Pictures(ToyGenerator):
    """The toy world's generator; its codes are the pixels of grey pictures."""

    def _decode(self, codes):
        return codes.values.reshape(-1, 1, 2, 4)


@pytest.mark.parametrize("end", [nn.Sigmoid(), Step()])
def test_a_scorer_that_gives_no_logits_is_refused_with_its_bank(
    end: nn.Module, tmp_path: Path
) -> None:
    spec = BankSpec(200, block=100, shard=200)
    for given in (scorer(end), select_attributes(scorer(end), ["b"])):
        models = Networks(Pictures(), given, scorer(nn.Identity()))
        with pytest.raises(
            BadFile, match=r"teacher returns only values in .* output: probabilities"
        ):
            build_bank(tmp_path / "bank", "id", spec, lambda models=models: models)
    models = Networks(Pictures(), scorer(nn.Identity()), scorer(end, output="logits"))
    build_bank(tmp_path / "stated", "id", spec, lambda: models)
    if isinstance(end, nn.Sigmoid):
        models = Networks(Pictures(), scorer(nn.Identity()), scorer(end, output="probabilities"))
        bank = build_bank(tmp_path / "turned", "id", spec, lambda: models)
        teacher = bank.array("teacher").range(0, 200)
        assert np.allclose(bank.array("judge").range(0, 200), teacher, atol=1e-3)


def test_a_pair_of_probabilities_is_refused_at_load() -> None:
    attributes = [{"name": "a", "classes": ["x", "y"]}]
    network = Head(nn.Softmax(1))
    options = {"channels": 1, "columns": [[0, 1]]}
    with pytest.raises(EditbenchError, match="output: probabilities"):
        ModuleScorer(network, attributes, None, **options)
    ModuleScorer(network, attributes, None, output="probabilities", **options)


def test_a_scorer_that_says_what_it_gives_is_not_asked() -> None:
    block = {"teacher": P[:, :1], "judge": P[:, :1]}
    silent = scorer(nn.Identity())
    with pytest.raises(BadFile, match="teacher returns only values in"):
        building.refuse_probabilities(block, Networks(Pictures(), silent, silent))
    stated = scorer(nn.Identity(), output="logits")
    building.refuse_probabilities(block, Networks(Pictures(), stated, stated))


@pytest.mark.parametrize("block", [1, 12, 16, 100])
def test_small_blocks_are_looked_at_together(block: int, tmp_path: Path) -> None:
    models = Networks(Pictures(), scorer(nn.Sigmoid()), scorer(nn.Identity()))
    spec = BankSpec(200, block=block, shard=100 // block * block)
    with pytest.raises(BadFile, match="teacher returns only values in"):
        build_bank(tmp_path / "bank", "id", spec, lambda: models)


@pytest.mark.parametrize("n", [101, 201, 401])
def test_a_last_shard_of_one_sample_is_no_reason(n: int, tmp_path: Path) -> None:
    models = Networks(Pictures(), scorer(nn.Identity()), scorer(nn.Identity()))
    spec = BankSpec(n, block=100, shard=100)
    assert len(build_bank(tmp_path / "bank", "id", spec, lambda: models)) == n
