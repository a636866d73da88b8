"""Devices and precisions that are not there are told once, before any job of a sweep."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from editbench.api import run
from editbench.base.errors import EditbenchError
from editbench.cli import main
from editbench.run import launch
from editbench.run.compose import compose_settings
from editbench.run.loading import device_problem
from tests.sweep_editors import JOBLIB, outcomes

AWAY = "device=cuda:64"


TURING = "GPU-aa11, 7.5\n"
TF32 = ["device=cuda", "precision=tf32"]
# Words that ask for what is not there, the driver's answer, and the beginning and the remedy of the message.
ABSENT = [
    (["device=cuda:64"], None, "device=cuda:64, but torch sees ", "device=cpu"),
    (["device=cpu,cuda:64"], None, "device=cuda:64, but torch sees ", "device=cpu"),
    (TF32, TURING, "precision=tf32 with device=cuda: TF32 needs an NVIDIA GPU", "precision=fp32"),
]


@pytest.fixture
def one_gpu(monkeypatch):
    """A machine with one GPU, as far as a sweep looks before its jobs start -> sets its driver's answer."""

    def answer(text):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        asked = SimpleNamespace(stdout=text)
        monkeypatch.setattr(launch.subprocess, "run", lambda *_, **__: asked)

    return answer


@pytest.mark.parametrize("launcher", [[], JOBLIB])
@pytest.mark.parametrize(("asked", "answer", "told", "remedy"), ABSENT)
def test_what_is_not_there_is_told_once_before_any_job_of_a_sweep(
    launcher, asked, answer, told, remedy, tmp_path, words, in_root, capfd, one_gpu
):
    if launcher:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    if answer:
        one_gpu(answer)
    out = tmp_path / "out"
    jobs = ["-m", "method=along,skip", "attribute=a,b", *asked]
    assert main(["run", *words, f"out={out}", *jobs, *launcher]) == 1
    text = capfd.readouterr().err
    assert text.startswith(f"error: {told}") and text.count("\n") == 1
    assert remedy in text
    assert not out.exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("asked", "answer", "told", "remedy"), [ABSENT[0], ABSENT[2]])
def test_what_is_not_there_is_told_once_by_a_bank_in_parts_and_by_the_interface(
    asked, answer, told, remedy, tmp_path, words, in_root, capfd, one_gpu
):
    if answer:
        one_gpu(answer)
    assert main(["bank", *words, f"out={tmp_path}/out", *asked, "--parts", "3"]) == 1
    text = capfd.readouterr().err
    assert text.startswith(f"error: {told}") and text.count("\n") == 1
    folder, *others = words[1:]
    sweep = [*others, f"out={tmp_path}/out", "method=along", "attribute=a,b", *asked]
    with pytest.raises(EditbenchError, match=f"^{told}.*{remedy}"):
        run(sweep, config_dirs=folder)
    # No job was begun, which would have made the bank.
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_the_demo_tells_of_the_device_once(tmp_path, in_root, capfd):
    assert main(["demo", "--out", str(tmp_path / "out"), AWAY]) == 1
    text = capfd.readouterr().err
    assert text.startswith(f"error: {AWAY}") and text.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_finished_jobs_need_no_device(tmp_path, words, in_root, capfd):
    command = ["run", *words, f"out={tmp_path}/out", "-m", "method=along"]
    assert main([*command, "attribute=a,b"]) == 0
    capfd.readouterr()
    assert main([*command, "attribute=a,b", AWAY]) == 0
    assert "2 done, 0 skipped, 0 failed (2 reused)" in capfd.readouterr().err
    # One more job has to run.
    assert main([*command, "attribute=a,b,c", AWAY]) == 1
    assert capfd.readouterr().err.startswith(f"error: {AWAY}")


def test_the_devices_of_other_machines_are_not_looked_for(
    tmp_path, words, in_root, capfd, monkeypatch
):
    # As with a launcher that sends the jobs away; here they run in this process after all.
    monkeypatch.setattr("editbench.run.sweep.local_workers", lambda *_: None)
    jobs = ["-m", "method=along", "attribute=a,b", AWAY]
    assert main(["run", *words, f"out={tmp_path}/out", *jobs]) == 1
    assert [outcome["status"] for outcome in outcomes(tmp_path / "out").values()] == ["failed"] * 2


@pytest.mark.parametrize(
    ("answer", "precision", "is_told"),
    [
        (TURING, "tf32", True),
        ("GPU-aa11, 8.0\n", "tf32", False),
        ("GPU-aa11, 10.0\n", "tf32", False),
        # A worker may be given the GPU that has it.
        (f"{TURING}GPU-bb22, 8.6\n", "tf32", False),
        # An old driver, whose tool does not know the question.
        ('Field "compute_cap" is not a valid field to query.\n', "tf32", False),
        ("", "tf32", False),
        (TURING, "bf16", False),
        (TURING, "fp32", False),
    ],
)
def test_only_what_is_known_to_lack_tf32_is_refused(answer, precision, is_told, one_gpu, words):
    one_gpu(answer)
    config = ["method=along", "attribute=a", "device=cuda", f"precision={precision}"]
    folder, *others = words[1:]
    settings = compose_settings([*others, *config], [Path(folder)])
    assert (device_problem(settings) is not None) == is_told


@pytest.mark.parametrize(
    "command",
    [
        ["world", "train-gan", "--out", "gan"],
        ["scorer", "check", "faces"],
        ["human", "make", "runs", "--out", "study"],
    ],
)
def test_a_command_with_an_option_names_the_option(command, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--device", "cuda:64"]) == 1
    text = capfd.readouterr().err
    assert text.startswith("error: --device cuda:64, but torch sees ")
    assert "--device cpu" in text and list(tmp_path.iterdir()) == []
