"""experiment=ffhq: a folder of a user's own files and one command give the paper's table and figures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from editbench.base.conf import CONF, read_yaml
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.spaces import Codes, Space
from editbench.cli import main
from editbench.figures.theme import Theme
from editbench.networks.checkpoints import assemble
from editbench.networks.own_folder import FolderScorer, find_generator, load_generator, words_of
from editbench.report.load import load
from editbench.report.published import published
from editbench.run.compose import compose_settings
from tests.checkpoint_files import (
    nvlabs_pickle,
    nvlabs_state,
    read_source,
    rosinality_state,
    tensorflow_pickle,
    tensorflow_variables,
)
from tests.data_folder import DATA, needs_data
from tests.fake_records import report_of
from tests.ffhq_folder import make_folder, retrained

STYLEGAN3 = DATA / "stylegan3"
SCORER = read_yaml(CONF / "scorer" / "ffhq.yaml")["teacher"]
WORDS = SCORER["files"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("own"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


# -- the command -----------------------------------------------------------------------------------
def test_one_command_on_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    # Of 256 pixels: the smallest with rows enough for the published table of layers.
    folder = make_folder(tmp_path / "own", resolution=256)
    out = tmp_path / "runs"
    words = ["experiment=ffhq", "budget=demo", f"data={folder}", f"out={out}"]
    words += [f"cache={tmp_path / 'cache'}", "method=gradctrl,interfacegan", "attribute=gender"]
    small = ["bank.n=240", "starts.n=20", "starts.pool=0.5", "engine.max_steps=6"]
    small += ["engine.sweep_steps=4", "metric.logit_scatter.min_points=1"]
    small += ["metric.attribute_dependency.min_points=2"]
    # Whether one of the few starts has the figure's classes depends on rounding.
    small += ["metric.logit_scatter.source=null", "metric.logit_scatter.other_class=null"]
    assert main(["run", "-m", *words, *small]) == 0
    assert "2 done, 0 skipped, 0 failed" in capsys.readouterr().err
    results = load(out)
    # Table 1: the paper's numbers beside ours.
    (table,) = published(results, Theme({}))
    rows = {(row["method"], row["attribute"]): row for row in table.rows}
    assert rows["gradctrl", "gender"]["paper"] == "0.6937"
    assert 0 <= rows["gradctrl", "gender"]["value"] <= 1
    assert rows["stylespace", "age"]["ours"] == "attribute not in these runs"
    # Fig. 7a and 7b.
    page = report_of(out, draws=("ad", "scatter_gender_smile"))
    names = {file.name for file in (page.parent / "figures").iterdir()}
    assert {"ad.png", "scatter_gender_smile.png"} <= names


def test_the_papers_settings_are_the_default() -> None:
    paper = compose_settings(["experiment=ffhq", "method=gradctrl"])
    assert (paper.bank.spec.n, paper.starts.n) == (500_000, 3000)
    gradctrl = paper.method.config
    assert (gradctrl["layers"], gradctrl["exclude"], gradctrl["n_per_class"]) == (
        "ffhq",
        "ffhq",
        30,
    )
    assert compose_settings(["experiment=ffhq", "budget=demo"]).bank.spec.n < 10_000
    own = read_yaml(CONF / "experiment" / "ffhq.yaml")
    table = read_yaml(CONF / "experiment" / "chen2022_table1.yaml")
    assert own["published"]["values"] == table["published"]["values"]
    swept = own["hydra"]["sweeper"]["params"]
    assert set(table["published"]["values"]) < set(swept["method"].split(","))
    assert swept["attribute"].split(",") == [item["name"] for item in SCORER["attributes"]]
    for entry in SCORER["attributes"]:
        assert isinstance(entry["positive_is_low"], bool)


# -- the folder ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["tensorflow", "rosinality", "nvlabs", "wrapped"])
def test_a_generator_in_any_official_format(kind: str, folder: Path) -> None:
    (folder / "stylegan2-ffhq-config-f.pkl").unlink()
    path = folder / "ffhq.pkl"
    if kind == "tensorflow":
        tensorflow_pickle(path, tensorflow_variables())
    elif kind == "nvlabs":
        nvlabs_pickle(path, nvlabs_state(seed=3))
    elif kind == "rosinality":
        path = folder / "550000.pt"
        torch.save({"g_ema": rosinality_state(nvlabs_state()), "latent_avg": torch.ones(8)}, path)
    else:
        path = folder / "ours.ckpt"
        state = {f"generator_ema.module.{name}": v for name, v in nvlabs_state().items()}
        torch.save({"state_dict": state}, path)
    generator = load_generator(folder, words=WORDS)
    z = torch.randn(2, 7)
    expected = assemble(read_source(path))(z)
    assert torch.equal(generator.decode(Codes(Space.Z, z)), expected)
    # A second time the converted file is read, also where it alone is there.
    (converted,) = (folder / "converted").iterdir()
    path.unlink()
    shutil.move(converted, folder / "mine.safetensors")
    assert torch.equal(load_generator(folder, words=WORDS).decode(Codes(Space.Z, z)), expected)


@needs_data
def test_a_stylegan3_in_the_folder(folder: Path) -> None:
    (folder / "stylegan2-ffhq-config-f.pkl").unlink()
    file = next(path for path in sorted(STYLEGAN3.iterdir()) if path.suffix == ".pkl")
    shutil.copy(file, folder / "stylegan3-ffhq.pkl")
    generator = load_generator(folder, words=WORDS)
    assert Space.S in generator.spaces and type(generator).__name__ == "StyleGAN3Generator"


def test_classifiers_of_both_formats(folder: Path) -> None:
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    attributes = SCORER["attributes"]
    first = FolderScorer(folder, WORDS, attributes)
    retrained(folder, "smiling")
    second = FolderScorer(folder, WORDS, attributes)
    assert first.digest != second.digest
    same = first(images) == second(images)
    assert same.all(0).tolist() == [True, False, True, True]
    assert first.attributes.names == ("gender", "smile", "eyeglasses", "age")


def test_signs_are_turned_by_an_option() -> None:
    word = "scorer.teacher.attributes.1.positive_is_low=false"
    settings = compose_settings(["experiment=ffhq", word])
    assert settings.scorer.teacher.config["attributes"][1]["positive_is_low"] is False
    # The judge is the teacher, and stays so.
    assert settings.scorer.judge.config == settings.scorer.teacher.config


def test_words_are_whole(tmp_path: Path) -> None:
    assert "male" not in words_of(tmp_path, tmp_path / "female.pth")
    assert "male" in words_of(tmp_path, tmp_path / "Male" / "net_best.pth")


def test_what_is_missing_is_named(folder: Path) -> None:
    attributes = SCORER["attributes"]
    with pytest.raises(EditbenchError, match="data=FOLDER"):
        load_generator(folder / "none", words=WORDS)
    shutil.copy(folder / "stylegan2-ffhq-config-f.pkl", folder / "other.pkl")
    with pytest.raises(EditbenchError, match=r"other\.pkl.* generator\.file=NAME"):
        find_generator(folder, None, WORDS)
    assert find_generator(folder, "other.pkl", WORDS) == folder / "other.pkl"
    with pytest.raises(EditbenchError, match=r"generator\.file"):
        find_generator(folder, "none.pkl", WORDS)
    (folder / "male.pth").write_bytes(b"")
    with pytest.raises(EditbenchError, match=r"celebahq-classifier-00-male\.pkl, male\.pth"):
        FolderScorer(folder, WORDS, attributes)
    (folder / "male.pth").unlink()
    shutil.copy(folder / "other.pkl", folder / "celebahq-classifier-00-male.pkl")
    with pytest.raises(BadFile, match="not a CelebA-HQ classifier"):
        FolderScorer(folder, WORDS, attributes)
    (folder / "celebahq-classifier-00-male.pkl").unlink()
    with pytest.raises(EditbenchError, match=r"male/net_best\.pth"):
        FolderScorer(folder, WORDS, attributes)
    assert not list(folder.glob("converted/classifiers*"))
