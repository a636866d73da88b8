"""Files of weights: round trips, and a message with the file and the remedy for every way to be broken."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from editbench.base.errors import BadFile
from editbench.base.identity import tensors_digest
from editbench.networks import weights as checkpoint
from editbench.networks.weights import (
    load_strict,
    load_tensors,
    save_tensors,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_tensors(
        tmp_path / "net.safetensors", nn.Linear(3, 2).state_dict(), "linear", {"sizes": [3, 2]}
    )
    return tmp_path / "net.safetensors"


def test_round_trip_keeps_every_bit_and_the_layout_does_not_matter(tmp_path: Path) -> None:
    net = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_tensors(tmp_path / "a", net.state_dict(), "conv", {"width": 6})
    config, tensors = load_tensors(tmp_path / "a", "conv")
    assert config == {"width": 6}
    assert tensors.keys() == net.state_dict().keys()
    assert all(torch.equal(tensors[name], value) for name, value in net.state_dict().items())
    assert tensors_digest(tensors) == tensors_digest(net.state_dict())
    save_tensors(tmp_path / "b", dict(reversed(tensors.items())), "conv", {"width": 6})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_digest_sees_names_types_shapes_values_and_extras() -> None:
    x = torch.arange(6.0)
    digests = [
        tensors_digest({"x": x}),
        tensors_digest({"y": x}),
        tensors_digest({"x": x.double()}),
        tensors_digest({"x": x.view(2, 3)}),
        tensors_digest({"x": x + 1}),
        tensors_digest({"x": x}, 0.5),
    ]
    assert len(set(digests)) == len(digests)
    assert digests[0] == tensors_digest({"x": x.clone()})


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_truncated(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadFile, match=r"net\.safetensors: not a complete safetensors file"):
        load_tensors(path, "linear")


def test_missing_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"gone\.safetensors: no such linear file; run this"):
        load_tensors(tmp_path / "gone.safetensors", "linear", "run this")


def test_foreign_files(path: Path) -> None:
    with pytest.raises(BadFile, match="contains a 'linear', expected a 'conv'"):
        load_tensors(path, "conv")
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(BadFile, match="not written by editbench"):
        load_tensors(path, "linear")
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, metadata={"editbench": "[1"})
    with pytest.raises(BadFile, match="header is damaged"):
        load_tensors(path, "linear")
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(BadFile, match="not a complete safetensors file"):
        load_tensors(path, "linear")


def test_strict_loading_lists_all_differences(path: Path) -> None:
    _, tensors = load_tensors(path, "linear")
    tensors["extra"] = tensors.pop("bias")
    with pytest.raises(BadFile) as caught:
        load_strict(nn.Linear(4, 2), tensors, path)
    message = str(caught.value)
    assert str(path) in message and "missing: bias" in message and "unexpected: extra" in message
    assert "weight (2, 3) (needs (2, 4))" in message


def test_a_long_list_of_differences_is_cut() -> None:
    with pytest.raises(BadFile, match="and 14 more"):
        load_strict(nn.Sequential(*(nn.Linear(1, 1) for _ in range(10))), {}, "file")


def test_a_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise OSError("the power went out")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="power"):
        save_tensors(path, nn.Linear(3, 2).state_dict(), "linear", {})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert checkpoint.load_tensors(path, "linear")[0] == {"sizes": [3, 2]}
