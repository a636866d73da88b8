"""Archives of torch.export: what torch's own reader would run, import or unpack is refused."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from editbench.base.errors import BadFile
from editbench.networks.exported import SIZE, known_operator, read_exported, rebuild
from editbench.networks.scorers.exported import FileScorer
from tests.declared_scorer import DECLARED, Classifier, by_hand, export, noise


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorers")
    export(Classifier().eval(), folder / "net.pt2")
    return folder


def test_every_flipped_byte_is_refused_or_harmless(files: Path, tmp_path: Path) -> None:
    content, refused = (files / "net.pt2").read_bytes(), 0
    for place in range(0, len(content), max(1, len(content) // 40)):
        spoiled = bytearray(content)
        spoiled[place] ^= 0x5A
        (tmp_path / "flip.pt2").write_bytes(spoiled)
        try:
            read_exported(tmp_path / "flip.pt2")
        except BadFile:
            refused += 1
    assert refused > 20


# -- archives that would run code in torch's own reader --------------------------------------------
def alter(path: Path, out: Path, member: str, change: Any) -> Path:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(member):
                data = change(json.loads(data)) if member.endswith(".json") else change(data)
                data = data if isinstance(data, bytes) else json.dumps(data).encode()
            target.writestr(name, data)
    return out


MARKER = Path(tempfile.gettempdir()) / "editbench-was-here"


class Payload:
    def __reduce__(self) -> tuple:
        return os.system, (f"touch {MARKER}",)


def set_target(graph: dict) -> dict:
    graph["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"
    return graph


def set_size(graph: dict) -> dict:
    text = json.dumps(graph).replace('"expr_str": "', '"expr_str": "__import__(\'os\').getpid() + ')
    assert "getpid" in text
    return json.loads(text)


def set_layout(graph: dict) -> dict:
    call = graph["graph_module"]["module_call_graph"][0]["signature"]
    call["in_spec"] = call["in_spec"].replace("builtins.dict", "collections.defaultdict")
    return graph


def set_pickle(config: dict) -> dict:
    next(iter(config["config"].values()))["use_pickle"] = True
    return config


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("models/model.json", set_target, r"calls 'torch\.os\.system'"),
        ("models/model.json", set_size, "not arithmetic"),
        ("models/model.json", set_layout, "defaultdict"),
        ("model_weights_config.json", set_pickle, "stored as a pickle"),
    ],
)
def test_what_torch_would_run_or_import_is_refused(
    files: Path, tmp_path: Path, member: str, change: Any, message: str
) -> None:
    with pytest.raises(BadFile, match=message):
        read_exported(alter(files / "net.pt2", tmp_path / "bad.pt2", member, change))


def test_pickled_inputs_and_guards_are_left_unread(files: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Payload(), buffer)
    MARKER.unlink(missing_ok=True)
    hostile = alter(
        files / "net.pt2", tmp_path / "a.pt2", "sample_inputs/model.pt", lambda _: buffer.getvalue()
    )
    hostile = alter(
        hostile,
        tmp_path / "b.pt2",
        "models/model.json",
        lambda graph: graph | {"guards_code": [f"open({str(MARKER)!r}, 'w') is not None"]},
    )
    scorer = FileScorer(hostile, **DECLARED)
    assert torch.allclose(scorer(noise()).double(), by_hand(), atol=1e-5) and not MARKER.exists()
    with zipfile.ZipFile(rebuild(hostile)) as clean:
        assert json.loads(clean.read("network/models/model.json"))["guards_code"] == []
        assert clean.read("network/data/sample_inputs/model.pt") == b""


def test_operators_are_the_registered_ones() -> None:
    for name in (
        "torch.ops.aten.conv2d.default",
        "torch.ops.aten.add.Tensor",
        "_operator.mul",
        "torch.sym_int",
    ):
        assert known_operator(name)
    for name in (
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.conv2d.__class__",
        "torch.load",
        "os.system",
        "_operator.attrgetter",
        "torch.ops.aten.nothing.default",
        "builtins.eval",
        "math.__loader__",
    ):
        assert not known_operator(name)


def test_a_size_is_told_in_steps_linear_in_its_length() -> None:
    assert SIZE.fullmatch("1" * 5000 + "@") is None  # this would take for ever otherwise
    assert SIZE.fullmatch("Mul(Integer(128), Symbol('s0', positive=True, integer=True))")
    assert not SIZE.fullmatch("__import__('os')")


def test_an_archive_that_unpacks_to_far_more_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/code/a.py", bytes(80_000_000))
    with pytest.raises(BadFile, match="unpack to 80000000"):
        FileScorer(tmp_path / "bomb.pt", **DECLARED)
