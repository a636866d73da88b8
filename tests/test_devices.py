"""Which GPU a worker takes, what a job's memory was, and banks whose shards come from several kinds of devices."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from editbench.bank import build
from editbench.bank.build import BankBuild, build_bank, build_shard, fix_layout
from editbench.bank.layout import shard_folder
from editbench.bank.spec import BankSpec
from editbench.base.devices import forget_peak, free_memory, main_memory, to_device, to_host
from editbench.base.errors import BadFile
from editbench.base.precision import use_precision
from editbench.methods.shared.device_copies import DeviceCopies
from editbench.networks.roles import Networks
from editbench.run import launch
from editbench.run.environment import peak_memory_mb
from tests.pretend_gpu import DEVICE, needs_pretend_gpu, pretend_gpu
from tests.toy_world import ToyGenerator, ToyScorer

SMI = "GPU-aa11, 40\nGPU-bb22, 30000\nGPU-cc33, 12\n"
SPEC = BankSpec(120, block=20, shard=40)


# -- which GPU -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "visible, expected",
    [
        (None, [40, 30000, 12]),
        ("2,0", [12, 40]),
        ("GPU-bb, GPU-aa11", [30000, 40]),
        ("7", []),  # the driver knows no such GPU
        ("MIG-1", []),
        ("GPU-", []),  # the beginning of several names
    ],
)
def test_memory_in_use_is_that_of_the_visible_gpus(visible, expected, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=SMI))
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert launch.used_gpu_memory(environ) == expected


@pytest.mark.parametrize(
    "error", [FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 10)]
)
def test_without_the_driver_s_tool_nothing_is_known(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert launch.used_gpu_memory({}) == []


def test_free_gpus_are_dealt_in_turn_and_used_ones_left_alone():
    used = [40, 30000, 12]
    dealt = [launch.dealt_device("cuda", k, 3, used) for k in range(4)]
    assert dealt == ["cuda:0", "cuda:2", "cuda:0", "cuda:2"]
    # Where every GPU is in use, the least used one is left.
    assert launch.dealt_device("cuda", 5, 2, [9000, 4000]) == "cuda:1"
    assert launch.dealt_device("cuda:1", 0, 3, used) == "cuda:1"


# -- memory and numbers ----------------------------------------------------------------------------
@needs_pretend_gpu
def test_the_peak_is_that_of_the_job_and_its_device(monkeypatch):
    asked = []
    with pretend_gpu():
        monkeypatch.setattr(
            torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(device)
        )
        monkeypatch.setattr(
            torch.cuda, "max_memory_allocated", lambda device: {DEVICE: 2**21}[device]
        )
        forget_peak(DEVICE)
        forget_peak("cpu")
        assert peak_memory_mb(DEVICE) == 2 and asked == [DEVICE]
    assert peak_memory_mb("cpu") > 10 and 0 < free_memory() <= main_memory()


def test_copies_on_the_host_are_the_tensors_themselves():
    x = torch.arange(3)
    assert to_host(x)[0] is x and to_device(x, torch.device("cpu")) is x


def test_what_is_kept_of_a_fit_is_that_of_its_tensor_and_of_the_walk_s_numbers():
    copies = DeviceCopies()
    fit = torch.arange(3, dtype=torch.float64)
    like = torch.zeros(1)
    kept = copies.get("a", fit, like)
    assert kept.dtype == like.dtype and copies.get("a", fit, like + 1) is kept
    assert copies.get("a", fit, like.double()) is fit
    # Another fit has other tensors, though they are equal.
    assert copies.get("a", fit.clone(), like) is not kept


@needs_pretend_gpu
def test_a_gpu_is_to_repeat_its_numbers_and_rounds_to_tf32_where_asked():
    with pretend_gpu():
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG")
        use_precision("fp32", DEVICE)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark and not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        use_precision("tf32", DEVICE)
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
        use_precision("fp32", DEVICE)
    assert not torch.are_deterministic_algorithms_enabled()


# -- banks of several kinds ------------------------------------------------------------------------
def models(scale: float = 1.0):
    return Networks(ToyGenerator(), ToyScorer("teacher", scale), ToyScorer("judge"))


def begin_elsewhere(folder, monkeypatch, scale):
    """The first shard of a bank, as another kind of device makes it."""
    fix_layout(folder, SPEC)
    monkeypatch.setattr(build, "device_kind", lambda device: "H100")
    build_shard(BankBuild(folder, SPEC), models(scale), 0, lambda amount=1: None)
    monkeypatch.setattr(build, "device_kind", lambda device: "cpu")


def test_shards_of_two_kinds_that_agree_make_one_bank(tmp_path, monkeypatch):
    begin_elsewhere(tmp_path / "a", monkeypatch, 1 + 1e-5)
    bank = build_bank(tmp_path / "a", "id", SPEC, models)
    assert bank.meta["devices"] == ["H100", "cpu"]
    whole = build_bank(tmp_path / "b", "id", SPEC, models)
    assert whole.meta["devices"] == ["cpu"]
    rows = np.arange(120)
    assert np.allclose(
        bank.array("teacher").take(rows), whole.array("teacher").take(rows), atol=1e-3
    )


def test_shards_of_two_kinds_that_differ_are_refused(tmp_path, monkeypatch):
    begin_elsewhere(tmp_path / "a", monkeypatch, 1.01)
    with pytest.raises(BadFile, match="shard-00000 was built on H100, but on cpu the logits"):
        build_bank(tmp_path / "a", "id", SPEC, models)
    assert not (tmp_path / "a" / "bank.json").exists()


def test_a_shard_that_another_kind_builds_anew_is_compared(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    begin_elsewhere(folder, monkeypatch, 1.01)
    kept = shard_folder(folder, 0)
    moved = kept.rename(tmp_path / "elsewhere")
    build_bank(folder, "id", SPEC, models)
    shutil.rmtree(kept)
    # A finished bank of the processor whose first shard H100 has built anew.
    moved.rename(kept)
    shutil.rmtree(shard_folder(folder, 1))
    with pytest.raises(BadFile, match="shard-00000 was built on H100, but on cpu the logits"):
        build_bank(folder, "id", SPEC, models)


def test_the_peak_is_in_mib_where_the_system_counts_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    here = peak_memory_mb("cpu")
    counted = resource.getrusage

    def in_bytes(who: int) -> SimpleNamespace:
        return SimpleNamespace(ru_maxrss=counted(who).ru_maxrss * 1024)

    monkeypatch.setattr(resource, "getrusage", in_bytes)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory_mb("cpu") == pytest.approx(here, rel=0.05)
