"""A network that was traced at one batch size says so, and names the remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from editbench.base.errors import EditbenchError
from editbench.networks.external import fixed_batch
from editbench.networks.module_generator import PROBES, ModuleGenerator
from editbench.networks.scorers.exported import FileScorer
from editbench.networks.scorers.module import ModuleScorer
from tests.data_folder import REPORTS, needs_reports

REPORT = REPORTS / "22-traced-at-one-batch"
ATTRIBUTES = [{"name": "a", "classes": ["x", "y"]}]


class Reshaped(nn.Module):
    """Writes the size of its batch into a reshape, which a trace makes a constant."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.head = nn.Linear(inside, out)

    def forward(self, x: Tensor) -> Tensor:
        # int(), as a trace would follow x.shape[0] itself.
        return self.head(x.reshape(int(x.shape[0]), -1))


def traced(batch: int, shape: tuple[int, ...], out: int) -> torch.jit.ScriptModule:
    inside = int(torch.tensor(shape).prod())
    with torch.no_grad():
        return torch.jit.trace(
            Reshaped(inside, out).eval(), torch.rand(batch, *shape), check_trace=False
        )


@needs_reports
def test_the_file_of_the_report() -> None:
    declared = yaml.safe_load((REPORT / "traced1.yaml").read_text())["teacher"]
    options = {key: value for key, value in declared.items() if key not in ("_target_", "path")}
    with pytest.raises(EditbenchError, match=r"takes exactly 1 images.*torch\.jit\.script"):
        FileScorer(REPORT / "traced1.pt", **options)


@pytest.mark.parametrize("batch", [1, 2, 4, 16])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_the_size_is_named(batch: int, tmp_path: Path) -> None:
    network = traced(batch, (3, 8, 8), 1)
    assert fixed_batch(network, (3, 8, 8)) == batch
    network.save(tmp_path / "net.pt")
    with pytest.raises(EditbenchError, match=rf"net\.pt: takes exactly {batch} images") as error:
        FileScorer(tmp_path / "net.pt", ATTRIBUTES, (8, 8))
    assert re.search(r"x\.flatten\(1\)", str(error.value))
    # Another picture size is another fault, with another remedy.
    with pytest.raises(EditbenchError, match="input_size or channels"):
        FileScorer(tmp_path / "net.pt", ATTRIBUTES, (9, 9))


class OneByOne(nn.Module):
    """Takes one sample; gives one row whatever it is given, or fails."""

    def __init__(self, inner: nn.Module, fails: bool) -> None:
        super().__init__()
        self.inner = inner
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        if self.fails and len(x) != 1:
            raise ValueError("one at a time")
        return self.inner(x[:1])


@pytest.mark.parametrize("fails", [True, False])
def test_modules_and_generators(fails: bool) -> None:
    judge = OneByOne(Reshaped(192, 1), fails)
    with pytest.raises(EditbenchError, match="takes exactly 1 images"):
        ModuleScorer(judge, ATTRIBUTES, (8, 8))
    with pytest.raises(EditbenchError, match="takes exactly 1 z"):
        ModuleGenerator(OneByOne(Reshaped(5, 12), fails), 5, (3, 2, 2), check_range=False)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_module_that_was_traced_at_two() -> None:
    with pytest.raises(EditbenchError, match="takes exactly 2 images"):
        ModuleScorer(traced(2, (3, 8, 8), 1), ATTRIBUTES, (8, 8))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_generator_that_takes_as_many_as_it_is_tried_on() -> None:
    with pytest.raises(EditbenchError, match=f"takes exactly {PROBES} z"):
        ModuleGenerator(traced(PROBES, (5,), 12), 5, (3, 2, 2), check_range=False)


def test_any_batch_is_no_fault() -> None:
    assert fixed_batch(Reshaped(12, 1), (3, 2, 2)) is None
    assert fixed_batch(Reshaped(13, 1), (3, 2, 2)) is None
