"""Digests of scorers: files, functions and modules are known by their content, settings and imports."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from editbench.base.files import file_sha256
from editbench.networks.digests import describe, source_of
from editbench.networks.scorers.callable import CallableScorer
from editbench.networks.scorers.exported import FileScorer
from editbench.networks.scorers.module import ModuleScorer
from tests.declared_scorer import DECLARED, Classifier, function
from tests.scripted import save


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorers")
    save(Classifier(), folder / "net.pt")
    return folder


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
            "tests.declared_scorer.function", **DECLARED, version=version
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
