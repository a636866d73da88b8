"""`editbench doctor`: what it finds is what is there, and a planted problem is a problem."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from editbench.cli import main
from editbench.commands import doctor
from editbench.networks import registry
from editbench.run import machine
from tests.scripted import SmallInception, published, save


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of networks; small products; the self-test is run in test_cli."""
    monkeypatch.setenv(registry.FOLDER, str(tmp_path / "networks"))
    monkeypatch.setattr(
        doctor,
        "measure_precisions",
        lambda device: machine.measure_precisions(device, side=64, repeats=1),
    )
    monkeypatch.setattr(
        doctor, "self_test", lambda *given: {"passed": True, "samples_per_second": 1.0}
    )
    return tmp_path / "networks"


def report(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict]:
    code = main(["doctor", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_it_says_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = report(capsys, "--out", str(tmp_path))
    assert code == 0 and found["problems"] == [] and found["out"]["writable"]
    assert found["devices"][0]["name"] == "cpu"
    assert len(found["devices"]) == 1 + torch.cuda.device_count()
    assert 0 < found["devices"][0]["free"] <= found["devices"][0]["memory"]
    # Some wheels leave the build, such as +cu130, out of their version.
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["networks"]["inception"] == {
        "state": "not installed: editbench fetch inception",
        "path": None,
    }
    assert [kind["name"] for kind in found["precision"]["kinds"]] == [
        "fp32",
        "tf32",
        "bf16",
        "fp16",
    ]


def test_the_text_has_a_line_for_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for word in (
        "python",
        "cpu",
        "fp32 on cpu",
        "bf16 on cpu",
        "launchers",
        "inception",
        "vgg16",
        "self-test",
    ):
        assert any(line.strip().startswith(word) for line in text.splitlines()), word


def test_a_network_with_another_content_is_a_problem(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick.mkdir()
    good = published(save(SmallInception(), quick / "inception.pt"))
    monkeypatch.setattr(doctor, "published", lambda: {"inception": good})
    code, found = report(capsys, "--out", str(tmp_path))
    assert code == 0
    assert found["networks"]["inception"] == {
        "state": "installed, checksum correct",
        "path": str(quick / "inception.pt"),
    }
    (quick / "inception.pt").write_bytes(b"cut")
    code, found = report(capsys, "--out", str(tmp_path))
    assert code == 1 and "sha256" in found["problems"][0]
    assert found["networks"]["inception"]["state"] == "wrong checksum"


def test_a_folder_that_cannot_hold_runs_and_a_failed_test_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    code, found = report(capsys, "--out", str(tmp_path / "file" / "runs"))
    assert code == 1 and "set out=DIR" in found["problems"][0]
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "measure_precisions", lambda device: [])
    code, found = report(capsys, "--out", str(tmp_path), "--device", "nodevice")
    assert code == 1 and "is not a device" in found["self_test"]["reason"]


def test_a_gpu_that_is_not_there_or_breaks_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("Invalid device id")

    monkeypatch.undo()
    monkeypatch.setattr(doctor, "devices", lambda: [{"name": "cpu"}, {"name": "cuda:0"}])
    monkeypatch.setattr(doctor, "measure_precisions", broken)
    monkeypatch.setattr(doctor, "load_networks", broken)
    code, found = report(capsys, "--out", str(tmp_path), "--device", "cuda:7")
    assert code == 1
    assert found["precision"]["kinds"] == []
    assert "Invalid device id" in found["self_test"]["reason"]


def test_the_error_of_a_product_is_that_of_its_number_of_bits() -> None:
    assert machine.product_error("cpu", torch.float64) < 1e-15
    assert machine.product_error("cpu", torch.float32) < 1e-6
    exact = (
        2.0**-9 / 3**0.5
    )  # a rounding to 8 bits, of each of two factors and the result: about sqrt(3) of one
    assert 0.3 * exact < machine.product_error("cpu", torch.bfloat16) < 3 * exact


def test_a_kind_that_does_not_run_or_is_wrong_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: str, dtype: torch.dtype, side: int = 128) -> float:
        if dtype == torch.float16:
            raise RuntimeError("\"addmm\" not implemented for 'Half'\nmore")
        return 0.5

    monkeypatch.setattr(machine, "product_error", broken)
    kinds = {kind.name: kind for kind in machine.measure_precisions("cpu", side=16, repeats=1)}
    assert not kinds["bf16"].works and "off by" in kinds["bf16"].reason
    assert kinds["fp16"].reason == "\"addmm\" not implemented for 'Half'"
    assert kinds["fp16"].matmul == 0
    assert "compute capability" in kinds["tf32"].reason


def test_switches_of_tf32_are_put_back() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with machine.tf32(True):
        assert torch.get_float32_matmul_precision() == "high"
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)


@pytest.mark.parametrize(
    ("longest", "calls", "expected"), [(100.0, 6, 1.0), (13.0, 3, 2.0), (1.0, 2, 3.0)]
)
def test_a_long_call_is_repeated_once_and_a_short_one_within_its_time(
    longest: float, calls: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the six calls there may be; the first compiles.
    seconds = iter([9.0, 3.0, 2.0, 1.0, 1.0, 1.0])
    taken: list[float] = []

    def take(work: object, device: str) -> float:
        taken.append(next(seconds))
        return taken[-1]

    monkeypatch.setattr(machine, "_seconds", take)
    assert machine.fastest(lambda: None, "cpu", 5, longest) == expected
    assert len(taken) == calls
