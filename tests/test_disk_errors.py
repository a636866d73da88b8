"""Files that the system does not let us write or read: the message names the remedy."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from editbench.bank.published.npy import read_npy
from editbench.base.errors import BadFile
from editbench.base.files import (
    CannotWrite,
    atomic_folder,
    claim_folder,
    create_folder,
    explain_disk_errors,
    file_sha256,
    lock,
    write_atomic,
)
from editbench.cli import main
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.convnet import ConvScorer
from editbench.networks.torchscript import kind_of
from tests.file_limits import limited_files

VALUES = np.random.default_rng(0).random(10_000)


def write_parquet(path: Path) -> None:
    pd.DataFrame({"value": VALUES}).to_parquet(path)


def write_safetensors(path: Path) -> None:
    save_file({"value": torch.from_numpy(VALUES)}, path)


def write_numpy(path: Path) -> None:
    np.save(path, VALUES)


def write_bytes(path: Path) -> None:
    write_atomic(path, VALUES.tobytes())


@pytest.mark.parametrize("write", [write_parquet, write_safetensors, write_numpy, write_bytes])
def test_a_file_above_the_limit_is_explained(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file.npy"
    with (
        pytest.raises(CannotWrite) as raised,
        limited_files(),
        explain_disk_errors(path, "out=DIR"),
    ):
        write(path)
    text = str(raised.value)
    assert f"the file would be larger than allowed: could not write {path}" in text
    assert "ulimit -f" in text and "or set out=DIR to a folder on another disk" in text
    # Numpy does not say whether the disk is full.
    assert ("the disk is full" in text) == (write is write_numpy)
    assert str(pickle.loads(pickle.dumps(raised.value))) == text


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EFBIG, "larger than allowed"),
        (errno.EROFS, "Read-only file system"),
        (errno.EACCES, "Permission denied"),
    ],
)
def test_every_reason_comes_with_the_key_of_the_folder(number: int, words: str) -> None:
    with (
        pytest.raises(CannotWrite, match=words) as raised,
        explain_disk_errors(Path("there"), "cache=DIR"),
    ):
        raise OSError(number, os.strerror(number))
    assert "there" in str(raised.value) and "set cache=DIR to a folder" in str(raised.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(OSError, match="some other fault"), explain_disk_errors(Path("there")):
        raise OSError("some other fault")
    with pytest.raises(ZeroDivisionError), explain_disk_errors(Path("there")):
        raise ZeroDivisionError


def enter_atomic_folder(path: Path) -> None:
    with atomic_folder(path):
        raise AssertionError("the folder cannot be made")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "write",
    [
        claim_folder,
        create_folder,
        enter_atomic_folder,
        lock,
        lambda path: write_atomic(path, "text"),
    ],
)
@pytest.mark.parametrize("name", ["x/y", "x/y/z"])
def test_a_folder_that_the_file_system_does_not_make_is_explained(
    write: Callable[[Path], object], name: str
) -> None:
    """In /proc, the system says that there is no such file, which is no missing permission."""
    with (
        pytest.raises(
            CannotWrite, match=r"cannot write /proc/x.*set out=DIR to a folder"
        ) as raised,
        explain_disk_errors(Path("/proc/x"), "out=DIR"),
    ):
        write(Path("/proc") / name)
    assert raised.value.number == errno.ENOENT


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "command",
    [
        ["world", "card", "-n", "8"],
        ["scorer", "check", "faces", "-n", "8"],
        ["atlas", "method=ganspace", "--samples", "8"],
    ],
)
def test_a_folder_that_cannot_be_made_is_told_before_any_image_is_judged(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def score(_scorer: Scorer, _images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("an image was judged")

    monkeypatch.setattr(ConvScorer, "forward", score)
    assert main([*command, "--out", "/proc/x"]) != 0
    assert "cannot write /proc/x" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("read", [file_sha256, kind_of, read_npy])
def test_a_file_that_cannot_be_read_is_explained(read: Callable[[Path], object]) -> None:
    """Root may read every file, but nobody the first bytes of a process's memory."""
    with pytest.raises(BadFile, match=r"^/proc/self/mem cannot be read .*check its permissions$"):
        read(Path("/proc/self/mem"))
