"""`editbench invert`: folders of all sorts, what is written, resumed to the same bits, and refused."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

import editbench.inversion.build as building
from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import read_json, write_json
from editbench.base.spaces import Codes, Space
from editbench.cli import main
from editbench.commands.invert import invert_settings
from editbench.inversion.build import build_inversion
from editbench.inversion.images import FaceRenders, open_images
from editbench.inversion.store import Inversion
from editbench.worlds.faces import load_generator, load_scorer
from editbench.worlds.faces.factors import TRAITS
from tests.by_config import request_inversion
from tests.processes import forbid_locks
from tests.toy_world import ATTRIBUTES

torch.set_num_threads(1)
FAST = ["inversion.samples=50", "inversion.block=2"]


def task(images="faces:5", space="w", steps=3, *words):
    return request_inversion(invert_settings(str(images), space, steps, [*FAST, *words])).task


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return build_inversion(tmp_path_factory.mktemp("inverted") / "five", task())


@pytest.fixture
def folder(tmp_path):
    """Three pictures of other sizes and modes, and four files that are none."""
    rng = np.random.default_rng(0)
    path = tmp_path / "photos"
    (path / "more").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 255, (50, 40, 3), np.uint8)).save(path / "a.png")
    Image.fromarray(rng.integers(0, 255, (20, 90), np.uint8)).save(path / "d.jpg")
    Image.fromarray(rng.integers(0, 255, (33, 33, 4), np.uint8)).save(path / "more" / "z.png")
    (path / "b.png").write_bytes((path / "a.png").read_bytes()[:300])
    (path / "c.jpg").write_text("no picture")
    (path / "e.png").write_bytes(b"")
    (path / "notes.txt").write_text("not looked at")
    return path


def files(path):
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


# -- what is written -------------------------------------------------------------------------------
def test_the_folder_holds_codes_errors_logits_and_truth(done):
    generator, judge, teacher = load_generator(), load_scorer("judge"), load_scorer("teacher")
    renders = FaceRenders(5, 32)
    part = renders.read(0, 5, judge.attributes)
    codes = done.codes(np.arange(5))
    made = generator.decode(Codes(Space.W, codes))
    assert codes.shape == (5, generator.w_dim) and list(done.table["index"]) == [0, 1, 2, 3, 4]
    assert torch.equal(done.codes(np.array([3, 0, 3])), codes[[3, 0, 3]])
    mse = (made - part.pixels).square().flatten(1).mean(1)
    assert np.allclose(done.table["mse"], mse, rtol=1e-4)
    assert np.allclose(done.table["psnr"], 10 * np.log10(4 / mse.numpy()), rtol=1e-4)
    for role, scorer in (("judge", judge), ("teacher", teacher)):
        assert np.allclose(done.logits(role), scorer(made), atol=1e-3)
        assert np.allclose(done.logits(f"real_{role}"), scorer(part.pixels), atol=1e-3)
    assert (done.truth == renders.factors(0, 5).labels().numpy()).all()
    assert list(judge.attributes.names) == list(TRAITS)
    summary = done.summary().set_index("attribute")
    real, then = (
        judge.attributes.labels(judge(part.pixels)).numpy(),
        judge.attributes.labels(judge(made)).numpy(),
    )
    assert np.allclose(summary["kept"], (real == then).mean(0))
    assert np.allclose(summary["true"], (then == done.truth).mean(0))
    assert np.allclose(summary["real_true"], (real == done.truth).mean(0))
    original, again = done.pictures()
    assert original.shape == again.shape == (5, 3, 32, 32)
    assert torch.equal(original, ((part.pixels + 1) * 127.5).round().byte())
    with Image.open(done.folder / "reconstructions.png") as sheet:
        assert sheet.size == (5 * 64, 2 * 64)
    assert "5 inverted" in (done.folder / "index.html").read_text()


def test_renders_are_new_and_of_the_worlds_law():
    from editbench.worlds.faces.factors import FactorLaw, sample_factors

    mine = FaceRenders(300, 32).factors(0, 300)
    for seed, stream in ((0, "faces"), (101, "faces"), (202, "faces"), (0, "gan")):
        other = sample_factors(FactorLaw(), seed, 0, 300, stream)
        assert not (mine.amounts[:, None] == other.amounts[None]).all(2).any()
    assert (
        FaceRenders(5, 32).read(3, 5, ATTRIBUTES).truth.tolist() == [[-1, -1, -1]] * 2
    )  # attributes of another world
    same = Attribute("smile", ("neutral", "smiling"))
    turned = Attribute("smile", ("smiling", "neutral"))
    assert (FaceRenders(9, 32).read(0, 9, Attributes([same])).truth >= 0).all()
    assert (FaceRenders(9, 32).read(0, 9, Attributes([turned])).truth == -1).all()


def test_a_folder_of_mixed_and_broken_files(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["invert", str(folder), "--out", str(out), "--space", "w_plus", "--steps", "2", *FAST])
        == 0
    )
    text = capsys.readouterr().out
    found = Inversion(out)
    assert list(found.table["name"]) == ["a.png", "d.jpg", "more/z.png"]
    assert list(found.table["index"]) == [0, 3, 5]
    assert set(found.skipped) == {"b.png", "c.jpg", "e.png"} and "skipped c.jpg" in text
    assert found.codes(np.array([2])).shape == (1, 8, 128) and (found.truth == -1).all()
    assert "image, as judged, true" not in text and found.summary()["true"].isna().all()
    assert main(["invert", "show", str(out)]) == 0
    assert "3 inverted into w_plus" in capsys.readouterr().out


def test_a_folder_of_nothing_leaves_nothing(folder, tmp_path, capsys):
    for name in ("a.png", "d.jpg", "more/z.png"):
        (folder / name).unlink()
    out = tmp_path / "out"
    assert main(["invert", str(folder), "--out", str(out), "--steps", "2", *FAST]) == 1
    assert "none of the 3 images can be read" in capsys.readouterr().err and not out.exists()
    assert main(["invert", str(tmp_path / "missing"), "--out", str(out)]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_a_folder_named_like_markup_and_an_output_inside_it(folder, tmp_path, capsys):
    odd = folder.rename(tmp_path / "photos [old]")
    (odd / "e.png").unlink()
    assert (
        main(["invert", str(odd), "--out", str(odd / "more" / "out"), "--steps", "1", *FAST]) == 1
    )
    assert "lies in the folder of the images" in capsys.readouterr().err
    assert not (odd / "more" / "out").exists()
    assert main(["invert", str(odd), "--out", str(tmp_path / "out"), "--steps", "1", *FAST]) == 0
    assert "photos [old]" in capsys.readouterr().out


def test_offline_is_heard(tmp_path):
    from editbench.networks.registry import is_offline

    words = ["invert", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    assert main([*words, "offline=true"]) == 1 and is_offline()
    assert main(words) == 1 and not is_offline()


def test_a_grey_generator_gets_luma(folder):
    part = open_images(str(folder), (1, 28, 28)).read(0, 6, ATTRIBUTES)
    assert part.pixels.shape == (3, 1, 28, 28) and -1 <= part.pixels.min() < part.pixels.max() <= 1


# -- resuming --------------------------------------------------------------------------------------
def test_killed_and_started_again_it_gives_the_same_bits(done, tmp_path, monkeypatch):
    out, calls, real = tmp_path / "out", [], building.invert

    def stopped(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(building, "invert", stopped)
    with pytest.raises(KeyboardInterrupt):
        build_inversion(out, task())
    assert sorted(path.name for path in out.iterdir()) == ["begun.json", "block-00000"]
    again = build_inversion(out, task())
    assert len(calls) == 4 and again.id == done.id  # the first block was kept
    assert files(out) == files(done.folder)
    build_inversion(out, task())
    assert len(calls) == 4


def test_a_finished_inversion_is_opened_where_nothing_may_be_locked(done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done.folder, out)
    forbid_locks(tmp_path)
    before = files(out)
    assert len(build_inversion(out, task())) == len(done)
    assert files(out) == before


def test_killed_before_its_page_or_at_its_first_byte_it_is_completed(done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done.folder, out)
    (out / "index.html").unlink()
    build_inversion(out, task())
    assert files(out) == files(done.folder)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".partial-begun.json-1").write_text("{")
    with pytest.raises(EditbenchError, match="no such folder"):
        build_inversion(tmp_path / "new", replace(task(), images=NoImages()))
    assert not (tmp_path / "new" / ".partial-begun.json-1").exists()


class NoImages(FaceRenders):
    """Any work on them ends."""

    def __init__(self):
        super().__init__(2, 32)

    def read(self, start, stop, attributes):
        raise EditbenchError("no such folder")


def test_another_task_does_not_write_over_it(done, tmp_path):
    with pytest.raises(EditbenchError, match="contains something else"):
        build_inversion(done.folder, task(steps=4))
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(EditbenchError, match="contains something else"):
        build_inversion(tmp_path, task())
    assert (tmp_path / "mine.txt").exists()
    with pytest.raises(EditbenchError, match=r"mine\.txt is a file; give a folder"):
        build_inversion(tmp_path / "mine.txt", task())


def test_overrides_win_over_the_options_of_the_command():
    words = ["inversion.steps=9", "inversion.space=z"]
    given = invert_settings("faces:2", "w", 7, words).inversion.projection
    assert (given.schedule.steps, given.space) == (9, "z")
    assert invert_settings("faces:2", "w", 7, []).inversion.projection.schedule.steps == 7


def test_what_determines_the_codes_is_in_the_name(done):
    settings = invert_settings("faces:5", "w", 3, FAST)
    changes = [
        {},
        {"images": "faces:6"},
        {"space": "w_plus"},
        {"perceptual": "pixels"},
        {"pixel_weight": 2},
        {"noise": "optimise"},
        {"seed": 1},
        {"block": 4},
        {"lr": 0.2},
        {"jitter": 0.1},
        {"perceptual": {"_target_": "editbench.networks.perceptual.PixelDistance"}},
    ]
    names = [
        request_inversion(OmegaConf.merge(settings.plain, {"inversion": change})).id
        for change in changes
    ]
    names.append(task("faces:5", "w", 3, "generator.truncation_psi=0.7").id)
    assert len(set(names)) == len(names) and names[0] == done.id


def test_other_code_is_another_inversion(done, monkeypatch):
    pixels = "inversion.perceptual={_target_:editbench.networks.perceptual.PixelDistance}"
    own = task("faces:5", "w", 3, pixels)
    with monkeypatch.context() as patch:
        patch.setattr("editbench.inversion.build.modules_digest", lambda names: "other")
        assert task().id != done.id
    with monkeypatch.context() as patch:
        patch.setattr("editbench.base.identity.source_digest", lambda target: f"edited {target}")
        assert task("faces:5", "w", 3, pixels).distance != own.distance


def test_optimised_noise_is_kept(tmp_path):
    found = build_inversion(tmp_path / "noise", task("faces:2", "w", 3, "inversion.noise=optimise"))
    parts = load_file(found.folder / "block-00000" / "codes.safetensors")
    assert parts["network.synthesis.layers.conv32.noise"].shape == (2, 32, 32)
    assert found.table["noise_mse"].notna().all()
    assert "optimised noise" in (found.folder / "index.html").read_text()


# -- refused ---------------------------------------------------------------------------------------
def test_damage_is_named(done, tmp_path):
    for name in ("block-00001/codes.safetensors", "table.parquet"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(done.folder, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        with pytest.raises(BadFile, match=name):
            Inversion(copy)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadFile, match="is not a finished inversion"):
        Inversion(tmp_path / "empty")
    meta = read_json(done.folder / "inversion.json") | {"version": 99}
    write_json(tmp_path / "empty" / "inversion.json", meta)
    with pytest.raises(BadFile, match="format 99"):
        Inversion(tmp_path / "empty")
    write_json(tmp_path / "empty" / "inversion.json", {"version": 1})
    with pytest.raises(BadFile, match="is incomplete"):
        Inversion(tmp_path / "empty")


@pytest.mark.parametrize(
    "words, message",
    [
        (["faces:0"], "faces:N"),
        (["faces:many"], "faces:N"),
        (["faces:2", "--steps", "0"], "at least 1"),
        (["faces:2", "inversion.perceptual=lpips"], "teacher, pixels"),
        (["faces:2", "inversion.block=0"], "at least 1"),
        (
            ["faces:2", "inversion.perceptual={_target_:builtins.list}"],
            "not an editbench.networks.perceptual",
        ),
        (["faces:2", "inversion.stepz=3"], "stepz"),
        (["inversion.steps=3"], "no such folder"),
        (["faces:2", "inversion=none"], "inversion=none: this command makes an inversion"),
    ],
)
def test_wrong_words_get_an_error_that_says_so(words, message, tmp_path, capsys):
    assert main(["invert", words[0], *FAST, *words[1:], "--out", str(tmp_path / "out")]) != 0
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_table_is_plain_parquet(done):
    table = pd.read_parquet(done.folder / "table.parquet")
    assert len(table) == 5
    assert {"mse", "psnr", "perceptual", "judge:smile", "real_teacher:age", "truth:yaw"} <= set(
        table
    )
