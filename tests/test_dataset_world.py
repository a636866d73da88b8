"""A world out of a data set: what is shown when, halves that share nothing, and a run of the benchmark in it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from editbench.base.errors import EditbenchError
from editbench.cli import main
from editbench.networks.scorers.convnet import ConvScorer
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2Config
from editbench.worlds import separability
from editbench.worlds.datasets.mpi3d import ArrayImages
from editbench.worlds.datasets.pack import pack
from editbench.worlds.datasets.packed import Packed
from editbench.worlds.datasets.training import (
    commonest,
    gan_channels,
    reals,
    scorer_batches,
    scorer_training,
    split,
)
from editbench.worlds.faces import weights_path
from editbench.worlds.train_gan import GANTraining, train

CARDINALITIES = (2, 2, 2, 1, 1, 3, 3)
N = int(np.prod(CARDINALITIES))
TINY = ["--channels", "8", "8", "8", "--batch", "8"]


def scenes() -> np.ndarray:
    """MPI3D in small: a square or a diamond, large or small, in one of two colours, 3 x 3 places; (72, 16, 16, 3)."""
    y, x = np.mgrid[:16, :16]
    images = np.full((N, 16, 16, 3), 90, np.uint8)
    for i, (colour, shape, size, _, _, across, down) in enumerate(np.ndindex(CARDINALITIES)):
        dx, dy, reach = np.abs(x - 3 - 5 * across), np.abs(y - 3 - 5 * down), 1 + 2 * size
        inside = np.maximum(dx, dy) <= reach if shape == 0 else dx + dy <= reach
        images[i][inside] = (250, 40, 40) if colour == 0 else (40, 60, 250)
    return images


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    folder = tmp_path_factory.mktemp("data")
    np.savez_compressed(folder / "toy.npz", images=scenes())
    return pack(ArrayImages(folder / "toy.npz", CARDINALITIES), folder / "packed")


# -- what is shown ---------------------------------------------------------------------------------
def test_real_images_are_addressed_by_index_and_each_epoch_shows_all(packed: Packed) -> None:
    show = reals(packed, seed=4)
    stream = show(0, 2 * N)
    assert stream.shape == (2 * N, 3, 16, 16)
    assert stream.dtype == torch.float32
    assert stream.abs().max() <= 1
    assert torch.equal(
        torch.cat([reals(packed, 4)(a, a + 24) for a in range(0, 2 * N, 24)]), stream
    )
    whole = packed.images(np.arange(N)).flatten(1).sort(0).values
    first, second = stream[:N], stream[N:]
    assert torch.equal(first.flatten(1).sort(0).values, whole)
    assert torch.equal(second.flatten(1).sort(0).values, whole)
    assert not torch.equal(first, second) and not torch.equal(reals(packed, 5)(0, N), first)


@pytest.mark.parametrize("n", [20, 72, 1001])
def test_teacher_judge_and_held_out_share_no_picture(n: int) -> None:
    parts = split(n)
    rows = np.concatenate(list(parts.values()))
    assert np.array_equal(np.sort(rows), np.arange(n)) and len(parts["held_out"]) == round(n / 10)
    assert abs(len(parts["teacher"]) - len(parts["judge"])) <= 1
    with pytest.raises(EditbenchError, match="too few"):
        split(3)


def test_a_scorer_sees_its_own_half_with_its_labels(packed: Packed) -> None:
    options = scorer_training("judge", 16)
    images, labels = scorer_batches(packed, options)(3)
    again, _ = scorer_batches(packed, options)(3)
    assert torch.equal(images, again)
    assert images.shape == (128, 3, 16, 16)
    assert labels.dtype == torch.int64
    # Clean pictures are recognised; each must be of the judge's half and carry that picture's labels.
    flat, mine = packed.images(np.arange(N)).flatten(1), set(split(N)["judge"].tolist())
    clean = [
        (i, int(row))
        for i, image in enumerate(images.flatten(1))
        for row in (flat == image).all(1).nonzero()[:, 0]
    ]
    assert len(clean) > 40 and packed.labels is not None
    same = {row for _, row in clean}
    assert same <= mine and all((labels[i].numpy() == packed.labels[row]).all() for i, row in clean)


def test_layouts_follow_the_resolution() -> None:
    assert gan_channels(32) == [64, 64, 48, 32] and gan_channels(64) == [64, 64, 64, 48, 32]
    for resolution in (8, 16, 256, 1024):
        StyleGAN2Config(resolution, tuple(gan_channels(resolution)))
    assert scorer_training("teacher", 32).widths == (32, 48, 64)
    assert scorer_training("judge", 128).widths == (32, 64, 96, 96, 96)
    for resolution, near in ((48, "32 or 64"), (8, "16"), (17, "16 or 32"), (65, "64 or 128")):
        with pytest.raises(EditbenchError, match=rf"the data have {resolution}: .*, {near}$"):
            scorer_training("judge", resolution)
    for resolution, near in ((48, "32 or 64"), (3, "4"), (5, "4 or 8")):
        with pytest.raises(ValueError, match=rf"of two .* got {resolution}; near it: {near}$"):
            StyleGAN2Config(resolution, tuple(gan_channels(resolution)))


# -- the commands ----------------------------------------------------------------------------------
def test_from_an_array_to_a_finished_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The witness looks at 600 samples; its numbers are of no interest here.
    monkeypatch.setattr(separability.watch, "__defaults__", (600, 5_006))
    np.savez(tmp_path / "toy.npz", images=scenes())
    data = [
        *shlex.split(f"--data {tmp_path}/toy.npz --cardinalities"),
        *map(str, CARDINALITIES),
        *shlex.split(f"--bins 2 --name toyworld --out {tmp_path}/world --cache {tmp_path}/cache"),
    ]
    assert main(["world", "train-scorers", *data, "--images", "5120"]) == 0
    text = capsys.readouterr()
    assert "object_color" in text.out and "next: editbench world train-gan" in text.err
    teacher, judge = (
        ConvScorer.from_file(tmp_path / "world" / f"{role}16.safetensors")
        for role in ("teacher", "judge")
    )
    assert teacher.attributes == judge.attributes and teacher.digest != judge.digest
    assert teacher.attributes.names == (
        "object_color",
        "object_shape",
        "object_size",
        "horizontal_axis",
        "vertical_axis",
    )
    assert teacher.attributes["vertical_axis"].classes == ("0..1", "2")
    images = torch.from_numpy(scenes()).permute(0, 3, 1, 2).float() / 127.5 - 1
    colour = np.unravel_index(np.arange(N), CARDINALITIES)[0]
    right = {
        scorer: (scorer.attributes.labels(scorer(images), "object_color").numpy() == colour).mean()
        for scorer in (teacher, judge)
    }
    assert max(right.values()) > 0.8 and min(right.values()) > 0.6, (
        right
    )  # after 40 steps; chance 0.5

    assert main(["world", "train-scorers", *data, "--images", "640", "--role", "witness"]) == 0
    watched = [
        "--steer",
        "--linearity",
        "0.3",
        "--witness",
        str(tmp_path / "world" / "witness16.safetensors"),
    ]
    assert main(["world", "train-gan", *data, *TINY, *watched, "--kimg", "0.08"]) == 0
    assert "use it: editbench run --config-dir" in capsys.readouterr().out
    generator = StyleGAN2Generator.from_file(tmp_path / "world" / "generator16.safetensors")
    assert generator.resolution == 16 and generator.config.channels == (8, 8, 8)

    named = [
        "--config-dir",
        str(tmp_path / "world" / "conf"),
        "generator=toyworld",
        "scorer=toyworld",
    ]
    # Overrides on both sides of an option.
    words = ["world", "card", "--out", str(tmp_path / "card"), *named, "-n", "200", "data=unused"]
    assert main(words) == 0
    assert "AUC in W, all codes" in capsys.readouterr().out
    card = json.loads((tmp_path / "card" / "card.json").read_text())
    assert card["world"] == "toyworld"
    assert "frechet" not in card
    assert set(card["separability"]) == {"Z", "W"}
    page = (tmp_path / "card" / "index.html").read_text()
    assert "the data of this world are not at hand" in page and "object_color" in page
    assert (
        main(
            [
                "world",
                "card",
                "--out",
                str(tmp_path),
                "--correlation",
                "--config-dir",
                named[1],
                *named[2:],
            ]
        )
        == 1
    )
    assert "--correlation: only for the faces world" in capsys.readouterr().err

    out = tmp_path / "runs"
    words = shlex.split(
        f"--config-dir {tmp_path / 'world'}/conf generator=toyworld "
        "scorer=toyworld method=random attribute=object_color bank.n=600 "
        "bank.shard=300 bank.block=50 starts.n=20 starts.pool=0.4 "
        f"starts.near=target engine.max_steps=5 engine.sweep_steps=2 out={out} "
        f"cache={tmp_path}/cache"
    )
    assert main(["run", *words]) == 0, capsys.readouterr().err
    (status,) = [json.loads(path.read_text()) for path in out.glob("[!.]*/status.json")]
    assert (status["status"], status["generator"], status["leaking"]) == ("done", "toyworld", False)


def test_training_on_data_goes_on_and_refuses_other_data(
    packed: Packed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(folder: str, kimg: float, *more: str) -> int:
        return main(
            [
                *shlex.split(f"world train-gan --data {packed.folder} --name w --kimg {kimg}"),
                *TINY,
                *shlex.split(f"--out {tmp_path / folder}"),
                *more,
            ]
        )

    assert train("whole", 0.032) == 0
    first = (tmp_path / "whole" / "generator16.safetensors").read_bytes()
    assert train("whole", 0.032) == 0  # nothing is left to do
    assert (tmp_path / "whole" / "generator16.safetensors").read_bytes() == first
    conf = yaml.safe_load((tmp_path / "whole" / "conf" / "generator" / "w.yaml").read_text())
    assert Path(conf["path"]).is_absolute()
    assert conf["about"].startswith("StyleGAN2 trained on 0.032 thousand")
    # A checkpoint gives its discriminator too, which a packed generator has not.
    checkpoint = tmp_path / "whole" / "checkpoint.pt"
    assert train("on", 0.032, "--init", str(checkpoint), "--warmup-kimg", "1") == 0
    on = torch.load(tmp_path / "on" / "checkpoint.pt", weights_only=True)
    for name, value in torch.load(checkpoint, weights_only=True)["ema"].items():
        assert torch.equal(on["g"][name], value)
    capsys.readouterr()
    state = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    assert state["options"]["data"] == packed.digest
    del state["options"]["data"]  # as a checkpoint has it that is older than --data
    torch.save(state, tmp_path / "whole" / "checkpoint.pt")
    assert train("whole", 0.064) == 1
    assert "belongs to another training (data  there" in capsys.readouterr().err
    state["options"]["data"] = "other"
    torch.save(state, tmp_path / "whole" / "checkpoint.pt")
    for words, message in (
        ((), "belongs to another training (data other there"),
        (("--resolution", "32"), "is packed at 16 pixels, not 32"),
        (("--labels", "x.csv"), "leave out --labels"),
        (("--correlation",), "applies to renders only"),
        (("--name", "faces32"), "is an option of the package"),
        (("--name", "a b"), "must consist of"),
        (("--name", "2024"), "a letter first"),
        (("--name", "null"), "a letter first"),
        (("--batch", "0"), "--batch=0 must be at least 1"),
        (("--discriminator-width", "0"), "--discriminator-width must be 1 or more"),
        (("--ema-kimg", "-1"), "--ema-kimg must be 0 or more"),
        (("--device", "gpu"), "is not a device"),
        (("--channels", "8", "8"), "set --channels"),
        (("--init", str(weights_path("generator"))), "of 32 pixels"),
        (("--attributes", "colour"), "unknown attribute 'colour'"),
        (("--bins", "1"), "2 or more"),
    ):
        assert train("whole", 0.032, *words) in (1, 2)
        assert message in capsys.readouterr().err


def test_a_role_trained_alone_needs_the_same_data(
    packed: Packed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The halves are fixed by the data set: with another one the judge could see the teacher's pictures."""
    np.savez_compressed(tmp_path / "other.npz", images=255 - scenes())
    pack(ArrayImages(tmp_path / "other.npz", CARDINALITIES), tmp_path / "other")

    def train(role: str, data: Path, *more: str) -> int:
        return main(
            [
                "world",
                "train-scorers",
                "--data",
                str(data),
                "--name",
                "w",
                "--role",
                role,
                "--images",
                "128",
                "--out",
                str(tmp_path / "w"),
                *more,
            ]
        )

    assert train("teacher", packed.folder) == 0
    for words in ((tmp_path / "other",), (packed.folder, "--bins", "2")):
        capsys.readouterr()
        assert train("judge", *words) == 1
        assert "was trained on other pictures or attributes" in capsys.readouterr().err
    assert not (tmp_path / "w" / "judge16.safetensors").exists()
    assert train("judge", packed.folder) == 0
    assert (tmp_path / "w" / "conf" / "scorer" / "w.yaml").exists()


def test_the_commonest_class_is_measured_on_the_held_out_pictures(packed: Packed) -> None:
    rows = split(N, packed.twins)["held_out"]
    assert packed.labels is not None
    for i, share in enumerate(commonest(packed).values()):
        column = packed.labels[:, i].tolist()
        most = max(sorted(set(column)), key=column.count)
        assert share == sum(column[row] == most for row in rows) / len(rows)


def test_a_log_line_holds_means_of_the_steps_it_tells_of(tmp_path: Path) -> None:
    class Steps:
        options, step, ema = GANTraining(total_kimg=0.3, batch=100, checkpoint_kimg=0.2), 0, None
        kimg = property(lambda self: self.step * 0.1)

        def train_step(self) -> dict[str, float]:
            self.step += 1
            return {"d": self.step} | (
                {"g": 7} if self.step > 1 else {}
            )  # no g while the generator waits

        def save(self, path: Path) -> None: ...

    train(Steps(), tmp_path)  # type: ignore[arg-type]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(row["d"], row["g"]) for row in rows] == [(1.5, 7), (3, 7)]


def test_a_folder_without_labels_trains_a_generator_but_no_scorer(
    packed: Packed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    (tmp_path / "in").mkdir()
    for i, pixels in enumerate(packed.pixels(np.arange(24))):
        Image.fromarray(pixels).resize((20 + i, 18)).save(tmp_path / "in" / f"{i:02d}.png")
    data = shlex.split(
        f"--data {tmp_path}/in --name w --resolution 16 --cache {tmp_path}/cache --out {tmp_path}/w"
    )
    assert main(["world", "train-gan", *data, *TINY, "--kimg", "0.016"]) == 0
    assert (tmp_path / "w" / "generator16.safetensors").exists()
    assert main(["world", "train-scorers", *data]) == 1
    assert "has no labels" in capsys.readouterr().err
    # Options that choose among labels would have no effect on a packed folder that has none.
    (done,) = (tmp_path / "cache" / "datasets").glob("in-*/dataset.json")
    of_packed = shlex.split(f"--data {done.parent} --name v --out {tmp_path}/v")
    for more in (["--attributes", "smile"], ["--bins", "3"]):
        assert main(["world", "train-gan", *of_packed, *TINY, "--kimg", "0.016", *more]) == 1
        assert "has no labels, among which --attributes and --bins" in capsys.readouterr().err
