"""Data that others published: GradCtrl's folders and InterFaceGAN's scores as banks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import yaml

from editbench.bank.bank import Bank
from editbench.bank.importing import import_bank, read_matrix
from editbench.bank.published.__main__ import main as show
from editbench.bank.published.arrays import as_array
from editbench.bank.published.gradctrl import import_gradctrl
from editbench.bank.published.interfacegan import import_scores
from editbench.base.errors import BadFile, UnknownName
from editbench.cli import main
from tests.published_files import Evil, dump, ganspace

N, DIM = 300, 6
LAYOUT = [
    {"name": "smile", "classes": ["neutral", "smiling"]},
    {"name": "color", "classes": ["a", "b", "c"]},
    {"name": "age", "classes": ["young", "old"], "positive_is_low": True},
]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return {
        "w": rng.normal(size=(N, DIM)),
        "smile": rng.normal(size=(N, 1)),
        "color": rng.normal(size=(N, 3)),
        "age": rng.normal(size=(N, 1)) + 0.5,
    }


@pytest.fixture
def attributes(tmp_path):
    path = tmp_path / "attributes.yaml"
    path.write_text(yaml.safe_dump(LAYOUT))
    return path


@pytest.fixture
def folder(tmp_path, data):
    """As the published sampling and scoring write it: float64 codes, logits of shape (n, classes), default protocol."""
    dump(tmp_path / "samples" / "latents.pkl", data["w"])
    for name in ("smile", "color", "age"):
        dump(tmp_path / "samples" / "logits" / f"logits_{name}.pkl", data[name])
    return tmp_path / "samples"


def rows_of(bank, field):
    return np.concatenate(list(bank.array(field).stream()))


def expected_logits(data):
    return np.concatenate([data["smile"], data["color"], -data["age"]], 1).astype(np.float32)


@pytest.mark.parametrize("kind", ["array", "tensor", "list of arrays", "flat scores"])
def test_a_gradctrl_folder_becomes_a_bank(tmp_path, folder, data, attributes, kind, capsys):
    if kind == "tensor":
        dump(folder / "latents.pkl", torch.from_numpy(data["w"]))
    elif kind == "list of arrays":
        dump(folder / "latents.pkl", list(data["w"]), 4)
    elif kind == "flat scores":
        dump(folder / "logits" / "logits_smile.pkl", data["smile"][:, 0], 2)
    out = tmp_path / "bank"
    words = ["--gradctrl", str(folder), "--attributes", str(attributes), "--out", str(out)]
    assert main(["bank", "import", *words]) == 0
    bank = Bank(out)
    np.testing.assert_array_equal(rows_of(bank, "w"), data["w"].astype(np.float32))
    for role in ("teacher", "judge"):
        np.testing.assert_array_equal(rows_of(bank, role), expected_logits(data))
    printed = capsys.readouterr().out
    assert (
        f"age: young {(data['age'] >= 0).mean():.3f}, old {(data['age'] < 0).mean():.3f}" in printed
    )
    assert f"smile: neutral {(data['smile'] <= 0).mean():.3f}" in printed


def test_a_whole_module_is_told_by_its_tensors(tmp_path, capsys):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    torch.save({"model": network}, tmp_path / "net.pt")
    assert show([str(tmp_path / "net.pt")]) == 0
    printed = capsys.readouterr().out
    for name, tensor in network.state_dict().items():
        assert f"{name}: tensor {tuple(tensor.shape)}" in printed
    assert "_buffers" not in printed


def test_nan_in_an_array_is_told_with_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr("editbench.bank.importing.ROWS", 4)
    values = np.zeros((11, 2))
    values[[6, 9], 1] = np.nan, np.inf
    np.save(tmp_path / "w.npy", values)
    with pytest.raises(BadFile, match=r"first in row 6 \(counted from 0\)"):
        read_matrix(tmp_path / "w.npy")


def test_a_gradctrl_folder_that_is_not_whole_leaves_nothing(tmp_path, folder, data, attributes):
    out, canary = tmp_path / "bank", tmp_path / "canary"
    logits = folder / "logits" / "logits_smile.pkl"

    def refused(words):
        with pytest.raises(BadFile, match=words):
            import_gradctrl(out, folder, attributes)
        assert not out.exists() and not canary.exists()

    for value, words in (
        (Evil(canary), "but an array"),
        ([1.0, Evil(canary)], "but an array"),
        (data["smile"][:-1], r"shape \(299, 1\), expected \(300, 1\)"),
        ({"a": 1}, "contains a dict"),
        (np.full((N, 1), np.nan), "NaN"),
        (data["color"], r"\(300, 1\): a row for each latent"),
        ([data["smile"], data["color"]], "different shapes"),
    ):
        dump(logits, value)
        refused(words)
    logits.write_bytes(pickle.dumps(data["smile"])[:-50])
    refused("damaged or incomplete")
    logits.unlink()
    refused("lacks logits/logits_smile.pkl; it has logits for age, color")
    for name in ("age", "color"):
        (folder / "logits" / f"logits_{name}.pkl").unlink()
    dump(folder / "labels.pkl", np.zeros((N, 3)))
    refused("prepared training folder")
    dump(folder / "latents.pkl", np.zeros((N, 18, DIM)))
    for name in ("smile", "age", "color"):
        dump(folder / "logits" / f"logits_{name}.pkl", data[name])
    refused(r"expected W codes of shape \(n, d\)")
    (folder / "latents.pkl").unlink()
    refused("not a GradCtrl data folder")
    out.mkdir()
    with pytest.raises(BadFile, match="exists"):
        import_gradctrl(out, folder, attributes)


def test_interfacegan_scores_become_a_bank(tmp_path, data, attributes):
    np.save(tmp_path / "w.npy", data["w"])
    for name, values in (
        ("smile", data["smile"]),
        ("color", data["color"]),
        ("age", data["age"][:, 0]),
    ):
        np.save(tmp_path / f"{name}.npy", values)
    files = {
        name: tmp_path / f"{name}.npy" for name in ("age", "color", "smile")
    }  # another order than the attributes'
    words = [
        "--w",
        str(tmp_path / "w.npy"),
        "--scores",
        *(f"{name}={path}" for name, path in files.items()),
    ]
    words += ["--attributes", str(attributes)]
    assert main(["bank", "import", *words, "--out", str(tmp_path / "bank")]) == 0
    np.testing.assert_array_equal(
        rows_of(Bank(tmp_path / "bank"), "teacher"), expected_logits(data)
    )
    scored = data["smile"].copy()
    scored[[3, 200]] = -9.0
    np.save(files["smile"], scored)
    bank = import_scores(tmp_path / "fewer", tmp_path / "w.npy", files, attributes, invalid=-9.0)
    keep = np.delete(np.arange(N), [3, 200])
    np.testing.assert_array_equal(rows_of(bank, "w"), data["w"][keep].astype(np.float32))
    np.testing.assert_array_equal(rows_of(bank, "judge"), expected_logits(data)[keep])
    for change, error, match in (
        ({"beard": files["age"]}, UnknownName, "beard"),
        ({"smile": None}, BadFile, "no score file for smile"),
        ({"age": tmp_path / "w.npy"}, BadFile, r"expected \(300, 1\)"),
        ({"age": attributes}, BadFile, r"is not an \.npy file, .*; save it with numpy\.save$"),
        ({"age": tmp_path}, BadFile, "a folder, not a file"),
    ):
        with pytest.raises(error, match=match):
            import_scores(
                tmp_path / "x",
                tmp_path / "w.npy",
                {k: v for k, v in (files | change).items() if v},
                attributes,
            )
    assert not (tmp_path / "x").exists()
    assert main(["bank", "import", *words[:3], "smile", *words[-2:], "--out", "x"]) == 1


def test_a_mark_beside_probabilities_that_is_not_the_given_one_is_told(tmp_path):
    random = np.random.default_rng(0)
    np.save(tmp_path / "w.npy", random.normal(size=(40, 6)))
    scores = random.random((40, 1))
    scores[3] = -1
    scores[5] = -7
    np.save(tmp_path / "smile.npy", scores)
    (tmp_path / "one.yaml").write_text("- {name: smile, classes: [neutral, smiling]}")
    files = {"smile": tmp_path / "smile.npy"}
    with pytest.raises(BadFile, match=r"1 of 39 scores are -1 .* add --invalid=-1"):
        import_scores(
            tmp_path / "bank", tmp_path / "w.npy", files, tmp_path / "one.yaml", invalid=-7.0
        )
    assert not (tmp_path / "bank").exists()


def test_scores_are_left_out_in_the_precision_of_their_file(tmp_path, data, capsys):
    """-0.1 in 32 bits is another number than -0.1 in 64, which a file beside it may have."""
    scores = {"smile": data["smile"].astype(np.float32), "age": data["age"]}
    scores["smile"][[2, 5]], scores["age"][7] = -0.1, -0.1
    np.save(tmp_path / "w.npy", data["w"])
    for name, values in scores.items():
        np.save(tmp_path / f"{name}.npy", values)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump([LAYOUT[0], LAYOUT[2]]))
    words = ["--w", str(tmp_path / "w.npy"), "--attributes", str(tmp_path / "two.yaml"), "--out"]
    given = ["--scores", *(f"{name}={tmp_path / name}.npy" for name in scores), "--invalid=-0.1"]
    assert main(["bank", "import", *words, str(tmp_path / "bank"), *given]) == 0
    expected = np.delete(data["w"], [2, 5, 7], 0).astype(np.float32)
    np.testing.assert_array_equal(rows_of(Bank(tmp_path / "bank"), "w"), expected)
    printed = capsys.readouterr().out
    assert "left out: 3 rows" in printed and "leaking" in printed
    for wrong in (
        ["--logits", str(tmp_path / "smile.npy"), "--invalid=-1"],
        [*given[:2], given[1]],
        [*given[:-1], "--invalid=nan"],  # equal to no score, so it would leave out no row
    ):
        try:
            assert main(["bank", "import", *words, str(tmp_path / "no"), *wrong]) == 1
        except SystemExit as error:
            assert error.code == 2
    assert not (tmp_path / "no").exists()


def test_a_bank_leaks_where_judge_and_teacher_are_one_and_holds_finite_numbers(
    tmp_path, data, attributes
):
    logits = np.concatenate([data["smile"], data["color"], data["age"]], 1)
    files = {"w": data["w"], "a": logits, "b": logits + 0.5, "copy": logits, "big": logits * 1e39}
    for name, values in files.items():
        np.save(tmp_path / f"{name}.npy", values)
    for judge, leaking in ((None, True), ("copy", True), ("b", False)):
        bank = import_bank(
            tmp_path / f"bank_{judge}",
            tmp_path / "w.npy",
            tmp_path / "a.npy",
            attributes,
            judge and tmp_path / f"{judge}.npy",
        )
        assert bank.meta["leaking"] is leaking
    with pytest.raises(BadFile, match="float32"):
        import_bank(tmp_path / "no", tmp_path / "w.npy", tmp_path / "big.npy", attributes)
    # Of no values nothing says what they are, and nothing needs to.
    np.save(tmp_path / "none.npy", logits[:0])
    np.save(tmp_path / "w.npy", data["w"][:0])
    with pytest.raises(BadFile, match=r"w\.npy has no rows"):
        import_bank(tmp_path / "no", tmp_path / "w.npy", tmp_path / "none.npy", attributes)
    assert not (tmp_path / "no").exists() and not list(tmp_path.glob(".partial*"))


def test_lists_become_arrays_or_are_refused(tmp_path):
    np.testing.assert_array_equal(as_array([[1, 2.5], [3, 4]], "x"), [[1, 2.5], [3, 4]])
    deep: object = 1.0
    for _ in range(70):
        deep = [deep]
    for value, words in (
        (deep, "nested"),
        ([10**400, 1], "integer"),
        ([True, 1], "real numbers"),
        ([[1], [1, 2]], "shapes"),
    ):
        with pytest.raises(BadFile, match=words):
            as_array(value, "x")


def test_what_published_files_hold_is_shown(tmp_path, folder, data, capsys):
    np.save(tmp_path / "steer.npy", np.full((18, 512), 0.5, np.float32))
    np.save(tmp_path / "normal.npy", np.eye(1, 512))
    np.save(tmp_path / "scores.npy", np.array([[-1.0], [2.0], [3.0]]))
    component = ganspace(tmp_path / "light.pkl", np.eye(1, 24))
    dump(
        tmp_path / "net.pkl",
        {"G": Evil(tmp_path / "canary"), "w": torch.zeros(2, 3), "a": list(range(99))},
        2,
    )
    files = [
        folder,
        tmp_path / "steer.npy",
        tmp_path / "normal.npy",
        tmp_path / "scores.npy",
        component,
        tmp_path / "net.pkl",
    ]
    assert show([str(path) for path in files]) == 0
    printed = capsys.readouterr().out
    for words in (
        "latents (300, 6)",
        f"smile: 2 classes, {(data['smile'] > 0).mean():.3f} above 0",
        "color: 3 classes",
        "18 rows",
        "unit as a boundary",
        "0.667 above 0",
        "'Light' in W: (1, 24)",
        "deviation 1.25, layers [1, 3)",
        "'posix.mkdir', left as it is",
        "w: tensor (2, 3) float32",
        "... and 87 more",
    ):
        assert words in printed, words
    assert not (tmp_path / "canary").exists()
    assert show([str(tmp_path / "none.pkl"), component]) == 1
    assert "none.pkl: no such file" in capsys.readouterr().err
    for value in (np.array(3.5), np.zeros((0, 1))):
        dump(folder / "logits" / "logits_smile.pkl", value)
        assert show([str(folder)]) == 1
        assert "one row of logits per sample" in capsys.readouterr().err
