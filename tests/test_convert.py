"""`editbench convert`: what it writes decodes as the source; what it can't read leaves nothing behind."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from editbench import cli
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import file_sha256
from editbench.base.instantiate import build
from editbench.base.spaces import Codes, Space
from editbench.networks.checkpoints import assemble, parity
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2
from editbench.run.compose import compose_config
from tests.checkpoint_files import (
    nvlabs_pickle,
    nvlabs_state,
    read_source,
    tensorflow_pickle,
    tensorflow_variables,
)
from tests.slow_stylegan2 import nvlabs_part, slow_w


def convert(*words: object) -> int:
    return cli.main(["convert", *map(str, words)])


@pytest.fixture
def conditional(tmp_path: Path) -> Path:
    """A converted conditional resnet, of 4 classes."""
    state = nvlabs_state(how="resnet", c_dim=4)
    path, out = (
        nvlabs_pickle(tmp_path / "net.pkl", state, clamp=256),
        tmp_path / "out" / "net.safetensors",
    )
    assert convert(path, "--out", out) == 0
    return out


def test_what_is_written_decodes_as_the_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tensorflow_pickle(tmp_path / "net.pkl", tensorflow_variables(how="resnet", c_dim=4))
    out = tmp_path / "net.safetensors"
    assert convert(source, "--out", out) == 0
    shown = capsys.readouterr().out
    for text in (
        "TensorFlow StyleGAN2 pickle",
        "3 x 16 x 16",
        "resnet, 6 layers",
        "4:6 8:5 16:4",
        "3 layers",
        "4 values",
        "decoded 4 z",
        "generator.label=0",
    ):
        assert text in shown
    expected, got = assemble(read_source(source)), StyleGAN2.from_file(out)
    assert got.config == expected.config
    z, label = torch.randn(3, 7), torch.eye(4)[:3]
    assert torch.equal(got(z, label=label), expected(z, label=label))
    with safe_open(out, "pt") as file:
        header = json.loads(file.metadata()["editbench"])
    assert header["kind"] == "stylegan2" and header["config"]["architecture"] == "resnet"
    assert header["config"]["origin"] == {
        "file": "net.pkl",
        "format": "TensorFlow StyleGAN2 pickle",
        "sha256": file_sha256(source),
    }
    first = out.read_bytes()
    assert (
        convert(source, "--out", out) == 0 and out.read_bytes() == first
    )  # and a second time over it


def test_without_out_the_file_is_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = nvlabs_pickle(tmp_path / "net.pkl", nvlabs_state(), clamp=256)
    assert convert(path) == 0
    assert "clamp" in (shown := capsys.readouterr().out) and "256" in shown
    assert [file.name for file in tmp_path.iterdir()] == ["net.pkl"]


def nan_state() -> dict[str, Tensor]:
    state = nvlabs_state()
    state["mapping.fc1.bias"][2] = torch.inf
    return state


def zero_state() -> dict[str, Tensor]:
    """Finite numbers whose pictures are not."""
    state = nvlabs_state()
    state["synthesis.b16.torgb.weight"].fill_(3e38)
    return state


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (
            lambda path: path.write_bytes(nvlabs_pickle(path, nvlabs_state()).read_bytes()[:5000]),
            "damaged or incomplete",
        ),
        (lambda path: nvlabs_pickle(path, nan_state()), "NaN or infinity"),
        (lambda path: nvlabs_pickle(path, zero_state()), "images contain NaN"),
        (
            lambda path: nvlabs_pickle(path, {"synthesis.L0_36_512.weight": torch.zeros(2)}),
            "StyleGAN3",
        ),
        (
            lambda path: nvlabs_pickle(
                path, nvlabs_state() | {"synthesis.b8.more": torch.zeros(2)}
            ),
            "unexpected",
        ),
        (
            lambda path: nvlabs_pickle(path, {"b16.fromrgb.weight": torch.zeros(2)}, key="D"),
            "not a StyleGAN2|but a generator",
        ),
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "a folder, not a file"),
    ],
)
def test_nothing_half_converted_is_left(
    make, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "net.pkl", tmp_path / "out" / "net.safetensors"
    make(path)
    assert convert(path, "--out", out) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "net.pkl" in error and "Traceback" not in error
    assert re.search(message, error), error
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_a_file_that_does_not_decode_alike_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = nvlabs_pickle(tmp_path / "net.pkl", nvlabs_state()), tmp_path / "net.safetensors"
    other = assemble(read_source(nvlabs_pickle(tmp_path / "other.pkl", nvlabs_state(seed=1))))
    monkeypatch.setattr(StyleGAN2, "from_file", lambda _: other)
    assert convert(path, "--out", out) == 1 and "does not decode" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.pkl", "other.pkl"]


def test_hostile_goldens_are_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "LARGEST", 4 << 20)
    path = nvlabs_pickle(tmp_path / "net.pkl", nvlabs_state())
    header = io.BytesIO()
    huge = {"descr": "<f4", "fortran_order": False, "shape": (1 << 44, 7)}
    np.lib.format.write_array_header_1_0(header, huge)
    long = b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 20) + b" " * (1 << 20)
    members = {
        "bomb": bytes(5 << 20),
        "declares": header.getvalue() + bytes(100),
        "header": long,
        "text": b"not an array",
    }
    for name, content in members.items():
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w", zipfile.ZIP_DEFLATED, True, 1) as file:
            file.writestr("z.npy", content)
    np.savez(tmp_path / "objects.npz", z=np.array([Path("x")], dtype=object))
    (tmp_path / "string.npz").write_bytes(pickle.dumps("z"))
    for name in (*members, "objects", "string"):
        assert convert(path, "--golden", tmp_path / f"{name}.npz") == 1
        message = capsys.readouterr().err
        assert message.startswith("error: ") and message.count("\n") == 1, message
        assert f"{name}.npz" in message


def test_a_string_where_a_mapping_belongs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k, content in enumerate(({"g_ema": "text"}, "text", {"state_dict": ["a"]}, [1, 2, 3])):
        path = tmp_path / f"{k}.pkl"
        path.write_bytes(pickle.dumps(content))
        assert convert(path) == 1
        message = capsys.readouterr().err
        assert str(path) in message and message.count("\n") == 1, message


def test_a_golden_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = nvlabs_state()
    path, z = nvlabs_pickle(tmp_path / "net.pkl", state), torch.randn(2, 7)
    w = slow_w(nvlabs_part(state), z, None, 3, 0.01).float().numpy()
    np.savez(tmp_path / "good.npz", z=z.double().numpy(), w=w, more=w)
    np.savez(tmp_path / "bad.npz", z=z.numpy(), w=w + 1)
    for name, arrays in (
        ("wide", {"z": np.zeros((2, 9)), "w": w}),
        ("none", {"z": z.numpy()}),
        ("short", {"z": z.numpy(), "w": w[:1]}),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert convert(path, "--golden", tmp_path / f"{name}.npz") == 1
        assert f"{name}.npz" in capsys.readouterr().err
    assert convert(path, "--golden", tmp_path / "good.npz") == 0
    assert "not compared: more" in capsys.readouterr().out
    assert (
        convert(path, "--golden", tmp_path / "bad.npz", "--out", tmp_path / "net.safetensors") == 1
    )
    shown = capsys.readouterr()
    assert "TOO LARGE" in shown.out and "nothing is written" in shown.err
    assert not (tmp_path / "net.safetensors").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--out", "net.pkl"], "must end in .safetensors"),
        (["--mapping-lr", 0, "--name", "G_ema"], "mapping_lr must be positive"),
        (["--conv-clamp", -1], "conv_clamp must be positive"),
        (["--name", "g", "--out", "net.safetensors"], "unknown part"),
    ],
)
def test_wrong_words_are_explained(
    words, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.pt"
    torch.save({"G_ema": nvlabs_state()}, path)
    assert convert(path, *words) and message in capsys.readouterr().err


def test_the_checkpoint_itself_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.safetensors"
    save_file({name: value.contiguous() for name, value in nvlabs_state().items()}, path)
    before = path.read_bytes()
    assert convert(path, "--out", tmp_path / "." / path.name) == 1
    assert "the checkpoint itself" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_converted_file_is_not_converted_again(
    conditional: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(conditional, "--out", conditional.with_name("b.safetensors")) == 1
    assert "generator=stylegan2" in capsys.readouterr().err


# -- in a run --------------------------------------------------------------------------------------
def generator(*words: str) -> StyleGAN2Generator:
    return build(compose_config(["generator=stylegan2", *words]).generator)


def test_a_run_takes_the_converted_file(conditional: Path) -> None:
    network: StyleGAN2 = StyleGAN2.from_file(conditional)
    z = torch.randn(2, 7)
    made = generator(
        f"generator.weights={conditional}", "generator.label=3", "generator.truncation_psi=0.5"
    )
    expected = network(z, 0.5, torch.eye(4)[[3, 3]])
    torch.testing.assert_close(made.decode(Codes(Space.Z, z)), expected)
    vector = generator(
        f"generator.weights={conditional}",
        "generator.label=[0,0,0,1]",
        "generator.truncation_psi=0.5",
    )
    assert vector.digest == made.digest
    elsewhere = StyleGAN2Generator.from_file(conditional, device="meta", label=1)
    assert (
        elsewhere.label is not None and elsewhere.label.device.type == "meta"
    )  # moves along with the network
    assert generator(f"generator.weights={conditional}", "generator.label=2").digest != made.digest


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "label=0 to 3"),
        (["generator.label=4"], "are 0 to 3"),
        (["generator.label=[1,2]"], "has 2 numbers"),
        (["generator.label=smile"], "a class must be a whole number"),
        (["generator.label=1.5"], "a class must be a whole number"),
        (["generator.label=1", "generator.truncation_cutoff=7"], "0 to 6"),
        (["generator.label=1", "generator.truncation_cutoff=2.5"], "must be a number of rows"),
        (["generator.label=1", "generator.truncation_cutoff=2.0"], "must be a number of rows"),
        (["generator.label=1", "generator.truncation_cutoff=true"], "must be a number of rows"),
        (["generator.label=1", "generator.truncation_psi=half"], "between 0 and 1"),
    ],
)
def test_a_wrong_label_or_cutoff_is_explained(
    conditional: Path, words: list[str], message: str
) -> None:
    with pytest.raises(EditbenchError, match=message):
        generator(f"generator.weights={conditional}", *words)


def test_a_label_for_an_unconditional_network_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    assert convert(nvlabs_pickle(tmp_path / "net.pkl", nvlabs_state()), "--out", out) == 0
    with pytest.raises(EditbenchError, match="not conditional"):
        generator(f"generator.weights={out}", "generator.label=0")
    with pytest.raises(EditbenchError, match=r"generator\.weights=FILE"):
        generator()
    with pytest.raises(BadFile, match=r"editbench convert .*net\.pkl --out net\.safetensors"):
        generator(f"generator.weights={tmp_path / 'net.pkl'}")


def test_an_altered_file_is_refused(conditional: Path) -> None:
    whole = bytearray(conditional.read_bytes())
    whole[-20] ^= 1  # of a tensor, so that the file is still well formed
    conditional.write_bytes(bytes(whole))
    with pytest.raises(BadFile, match="has changed since it was written"):
        StyleGAN2.from_file(conditional)


def test_an_altered_architecture_is_refused(conditional: Path) -> None:
    """Some numbers of it change pictures without changing a shape."""
    whole = conditional.read_bytes()
    assert whole.count(rb"\"mapping_lr\": 0.01") == 1
    conditional.write_bytes(whole.replace(rb"\"mapping_lr\": 0.01", rb"\"mapping_lr\": 0.03"))
    with pytest.raises(BadFile, match="has changed since it was written"):
        StyleGAN2.from_file(conditional)
