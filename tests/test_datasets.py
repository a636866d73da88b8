"""Data sets of one's own: pictures against Pillow's own steps, labels against a slow reading, packs against kills."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import multiprocessing
import os
import shlex
import shutil
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editbench.base.errors import BadFile, EditbenchError
from editbench.cli import main
from editbench.worlds.datasets.images import ImageFolder, Unreadable, load_picture
from editbench.worlds.datasets.opening import Reading, open_data
from editbench.worlds.datasets.pack import pack
from editbench.worlds.datasets.packed import Epochs, Packed
from editbench.worlds.datasets.training import split
from tests.picture_files import R, folder, noise, save


def sums(packed: Path) -> dict[str, str]:
    return {
        str(p.relative_to(packed)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(packed.rglob("*"))
        if p.is_file()
    }


# -- one picture -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((41, 30), (5, 0, 35, 30)),
        ((30, 41), (0, 5, 30, 35)),
        ((16, 16), (0, 0, 16, 16)),
        ((7, 5), (1, 0, 6, 5)),
    ],
)
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_picture_is_pillows_own_crop_and_resize(
    tmp_path: Path, size: tuple, box: tuple, ending: str
) -> None:
    path = save(tmp_path / f"x.{ending}", noise(*size))
    expected = Image.open(path).convert("RGB").crop(box).resize((R, R), Image.Resampling.LANCZOS)
    pixels, enlarged = load_picture(path, R)
    assert np.array_equal(pixels, np.asarray(expected)) and enlarged == (min(size) < R)


def test_grey_palette_alpha_and_deep_pictures_become_rgb(tmp_path: Path) -> None:
    grey = noise(R, R, 1)
    expected = np.repeat(grey[..., None], 3, 2)
    assert np.array_equal(load_picture(save(tmp_path / "l.png", grey), R)[0], expected)
    deep = grey.astype(np.uint16) * 256 + noise(R, R, 1, seed=1)
    assert np.array_equal(load_picture(save(tmp_path / "i16.png", deep), R)[0], expected)
    assert np.array_equal(load_picture(save(tmp_path / "p.png", grey, "P"), R)[0], expected)
    assert np.array_equal(
        load_picture(save(tmp_path / "one.png", grey, "1"), R)[0][..., 0] % 255, 0 * grey
    )
    # Alpha a over white: a c + (1 - a) 255.
    rgba = noise(R, R, 4)
    alpha = rgba[..., 3:] / 255
    found = load_picture(save(tmp_path / "rgba.png", rgba), R)[0]
    assert np.abs(found - (alpha * rgba[..., :3] + (1 - alpha) * 255)).max() <= 1
    flat = np.zeros((R, R), np.uint8)
    flat[:, : R // 2] = 1
    image = Image.fromarray(flat)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "clear.png", transparency=1)  # palette entry 1 is transparent
    found = load_picture(tmp_path / "clear.png", R)[0]
    assert (found[:, : R // 2] == 255).all() and (found[:, R // 2 :] == (10, 20, 30)).all()


def test_the_transparent_colour_of_a_16_bit_png_becomes_white(tmp_path: Path) -> None:
    """Its lower byte counts in greys; of colours Pillow gives the upper byte alone."""
    deep = noise(R, R, 1).astype(np.uint16) * 256 + noise(R, R, 1, seed=1)
    deep[:3, :3] = 1000
    deep[3, 3] = 1001
    upper = np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, 2)
    expected = np.where((deep == 1000)[..., None], 255, upper)
    (tmp_path / "grey.png").write_bytes(deep_png(deep, 1000))
    assert np.array_equal(load_picture(tmp_path / "grey.png", R)[0], expected)
    expected = np.where(upper == 1000 >> 8, 255, upper)
    (tmp_path / "rgb.png").write_bytes(deep_png(np.stack([deep] * 3, 2), 1000))
    assert np.array_equal(load_picture(tmp_path / "rgb.png", R)[0], expected)


def deep_png(pixels: np.ndarray, transparent: int) -> bytes:
    """A PNG of (h, w) or (h, w, 3) uint16, with a transparent grey; Pillow writes none."""
    height, width, *channels = pixels.shape
    colours = channels[0] if channels else 1
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if channels else 0, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    parts = {
        b"IHDR": header,
        b"tRNS": struct.pack(f">{colours}H", *[transparent] * colours),
        b"IDAT": zlib.compress(lines),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_cmyk_and_turned_pictures(tmp_path: Path) -> None:
    inks = Image.new("CMYK", (R, R), (0, 255, 255, 0))  # no cyan, all of magenta and yellow: red
    inks.save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(load_picture(tmp_path / "cmyk.jpg", R)[0].astype(int) - (255, 0, 0)).max() <= 3
    upright = noise(25, R)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    save(tmp_path / "turned.png", np.rot90(upright).copy(), exif=exif.tobytes())
    assert np.array_equal(load_picture(tmp_path / "turned.png", R)[0], upright[:, 4:20])


def bomb(path: Path, side: int) -> Path:
    """A PNG of a few hundred bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999))
    )
    return path


def broken_files(root: Path) -> dict[str, str]:
    """Write files that cannot be read; name -> a word of the reason."""
    root.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "jpg", "webp"):
        whole = save(root / f"cut.{ending}", noise(64, 64)).read_bytes()
        (root / f"cut.{ending}").write_bytes(whole[: len(whole) // 2])
    (root / "zero.jpg").write_bytes(b"")
    (root / "page.jpg").write_text("<html>not found</html>")
    (root / "drawing.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    bomb(root / "bomb.png", 9_600)
    bomb(root / "bigger.png", 60_000)
    return {
        "cut.png": "truncated",
        "cut.jpg": "truncated",
        "cut.webp": "Error",
        "zero.jpg": "empty",
        "page.jpg": "not a PNG",
        "drawing.png": "not a PNG",
        "bomb.png": "pixels",
        "bigger.png": "pixels",
    }


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    for name, word in broken_files(tmp_path).items():
        with pytest.raises(Unreadable, match=word):
            load_picture(tmp_path / name, R)


# -- a folder --------------------------------------------------------------------------------------
def test_broken_files_are_listed_and_left_out(tmp_path: Path) -> None:
    root = folder(tmp_path)
    bad = broken_files(root / "bad")
    (root / "notes.txt").write_text("not a picture")
    (root / ".hidden.png").write_bytes(b"x")
    (root / "dir.png").mkdir()
    os.mkfifo(root / "pipe.png")  # opening it would wait for ever
    with pytest.raises(BadFile, match=r"8 of 20 pictures cannot be read.*--max-broken 0.4 "):
        pack(ImageFolder(root), tmp_path / "out", R)
    with pytest.raises(BadFile, match="not a finished data set"):
        Packed(tmp_path / "out")
    data = pack(ImageFolder(root), tmp_path / "out", R, max_broken=0.4)
    rows = list(csv.reader((tmp_path / "out" / "problems.csv").open()))[1:]
    assert {Path(name).name for name, _ in rows} == set(bad) and all(reason for _, reason in rows)
    assert data.counts["packed"] == len(data) == 12 and data.counts["broken"] == 8
    assert data.counts["of other kinds"] == 2
    good = sorted(p for p in root.glob("[0-9]/*.png"))
    expected = np.stack([load_picture(path, R)[0] for path in good])
    assert np.array_equal(data.pixels(np.arange(12)), expected)
    images = data.images(np.array([7, 2, 7]))
    assert images.shape == (3, 3, R, R) and -1 <= images.min() < images.max() <= 1
    assert np.array_equal(
        ((images.numpy() + 1) * 127.5).round().transpose(0, 2, 3, 1), expected[[7, 2, 7]]
    )


def test_a_folder_of_nothing_but_broken_files_is_refused(tmp_path: Path) -> None:
    broken_files(tmp_path / "in")
    with pytest.raises(BadFile, match="8 of 8"):
        pack(ImageFolder(tmp_path / "in"), tmp_path / "out", R, max_broken=1)
    with pytest.raises(BadFile, match="absent: no such folder"):
        ImageFolder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadFile, match="empty: no image"):
        ImageFolder(tmp_path / "empty")
    with pytest.raises(EditbenchError, match="--resolution"):
        pack(ImageFolder(tmp_path / "in"), tmp_path / "out2")


def test_two_thousand_files_with_ten_broken_ones(tmp_path: Path) -> None:
    root, shapes = tmp_path / "in", [(8, 8), (11, 8), (8, 13), (5, 5)]
    for k, (w, h) in enumerate(shapes):
        save(tmp_path / f"{k}.png", noise(w, h, seed=k))
    for block in range(10):
        (root / f"{block:02d}").mkdir(parents=True)
        for i in range(200):
            os.link(tmp_path / f"{i % 4}.png", root / f"{block:02d}" / f"{i:04d}.png")
    wrong = {f"{k:02d}/{19 * k:04d}.png" for k in range(10)}
    for name in wrong:
        (root / name).unlink()
        (root / name).write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    data = pack(ImageFolder(root), tmp_path / "out", 8)
    rows = list(csv.reader((tmp_path / "out" / "problems.csv").open()))[1:]
    assert {name for name, _ in rows} == wrong
    assert len(data) == 1_990
    assert data.counts["enlarged"] == 497
    kept = [i for i in range(2_000) if f"{i // 200:02d}/{i % 200:04d}.png" not in wrong]
    kinds = np.stack([load_picture(tmp_path / f"{k}.png", 8)[0] for k in range(4)])
    assert np.array_equal(data.pixels(np.arange(len(data))), kinds[np.array(kept) % 4])


# -- packing ---------------------------------------------------------------------------------------
def test_shards_and_threads_change_no_picture(tmp_path: Path) -> None:
    root = folder(tmp_path)
    one = pack(ImageFolder(root, "folders", threads=1), tmp_path / "one", R)
    many = pack(
        ImageFolder(root, "folders", threads=5), tmp_path / "many", R, shard_bytes=5 * 3 * R * R
    )
    assert len(list((tmp_path / "many").glob("shard-*"))) == 3
    rows = np.array([11, 0, 4, 5, 9, 0])
    assert np.array_equal(one.pixels(rows), many.pixels(rows))
    assert np.array_equal(one.labels, many.labels)


class Killed(ImageFolder):
    """Ends its process, as kill -9 does, while it reads the third shard."""

    def read(self, start: int, stop: int, resolution: int):  # type: ignore[no-untyped-def]
        if start >= 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(start, stop, resolution)


def test_a_killed_pack_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    root, size = folder(tmp_path), 4 * 3 * R * R
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pack(ImageFolder(root, "folders"), whole, R, shard_bytes=size)
    child = multiprocessing.get_context("fork").Process(
        target=lambda: pack(Killed(root, "folders"), parts, R, shard_bytes=size)
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL and len(list(parts.glob("shard-*"))) == 2
    (parts / ".partial-shard-00002-1").mkdir()  # what a kill in mid-write leaves
    before = (parts / "shard-00000" / "images.npy").stat().st_mtime_ns
    pack(ImageFolder(root, "folders"), parts, R)  # the size of a shard is that of its beginning
    assert sums(parts) == sums(whole)
    assert (parts / "shard-00000" / "images.npy").stat().st_mtime_ns == before
    assert not list(parts.glob(".partial-*"))


def test_a_folder_of_another_source_is_not_touched(tmp_path: Path) -> None:
    root = folder(tmp_path)
    pack(ImageFolder(root), tmp_path / "out", R)
    with pytest.raises(EditbenchError, match="other files, labels or sizes"):
        pack(ImageFolder(root), tmp_path / "out", 8)
    with pytest.raises(EditbenchError, match="is not a packed data set"):
        pack(ImageFolder(root), root, R)
    save(root / "new.png", noise(9, 9))
    with pytest.raises(EditbenchError, match="other files"):
        pack(ImageFolder(root), tmp_path / "out", R)


def test_a_damaged_pack_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path)
    out = tmp_path / "out"
    assert (
        main(shlex.split(f"dataset pack {root} --labels folders --resolution 16 --out {out}")) == 0
    )
    assert main(["dataset", "info", str(out)]) == 0
    assert (
        "12 pictures of 16 x 16" in (text := capsys.readouterr().out)
        and "0 0.333, 1 0.333, 2 0.333" in text
    )
    path = out / "shard-00000" / "images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadFile, match="checksum"):
        Packed(out).verify()
    path.write_bytes(content[:-1])
    with pytest.raises(BadFile, match="missing or damaged"):
        Packed(out)


def test_a_pack_with_damaged_indices_is_not_finished_with_wrong_labels(tmp_path: Path) -> None:
    root, size = folder(tmp_path), 4 * 3 * R * R
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pack(ImageFolder(root, "folders"), whole, R, shard_bytes=size)
    pack(ImageFolder(root, "folders"), parts, R, shard_bytes=size)
    (parts / "dataset.json").unlink()  # as after a kill before the end
    kept = parts / "shard-00001" / "kept.npy"
    rows = np.load(kept)
    np.save(kept, rows[::-1])
    with pytest.raises(BadFile, match=r"kept\.npy is truncated or altered .* delete") as error:
        pack(ImageFolder(root, "folders"), parts, R)
    # As the message says.
    assert f"delete {kept.parent} and" in str(error.value)
    shutil.rmtree(kept.parent)
    pack(ImageFolder(root, "folders"), parts, R)
    assert sums(parts) == sums(whole)


def test_a_training_refuses_a_damaged_picture(tmp_path: Path) -> None:
    data = pack(ImageFolder(folder(tmp_path), "folders"), tmp_path / "out", R)
    reading = Reading()
    assert len(open_data(data.folder, reading, None, tmp_path / "cache")) == len(data)
    path = data.folder / "shard-00000" / "images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadFile, match=r"images\.npy: its checksum has changed"):
        open_data(data.folder, reading, None, tmp_path / "cache")


def test_many_shards_keep_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path)
    whole = pack(ImageFolder(root), tmp_path / "whole", R)
    monkeypatch.setattr("editbench.worlds.datasets.packed.MOST_OPEN", 2)
    many = pack(ImageFolder(root), tmp_path / "many", R, shard_bytes=3 * R * R)
    rows = np.random.default_rng(0).integers(0, 12, 40)
    assert np.array_equal(many.pixels(rows), whole.pixels(rows)) and len(many._open_shards) == 2


@pytest.mark.parametrize("size", [R, 9])
def test_twins_are_found_and_split_together(tmp_path: Path, size: int) -> None:
    kinds = np.random.default_rng(0).integers(0, 25, 60)
    for i, kind in enumerate(kinds):
        save(tmp_path / "in" / f"{i:02d}.png", noise(size, size, seed=int(kind)))
    data = pack(
        ImageFolder(tmp_path / "in"), tmp_path / "out", size, shard_bytes=7 * 3 * size * size
    )
    assert data.twins.tolist() == [kinds.tolist().index(kind) for kind in kinds]
    parts = split(60, data.twins)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(60))
    for one, two in itertools.combinations(parts.values(), 2):
        assert not set(kinds[one]) & set(kinds[two])
    with pytest.raises(EditbenchError, match="too few"):
        split(60, np.zeros(60, int))


def test_pictures_that_differ_in_few_bits_are_no_twins(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    places = [(7, 15), (7, 23), (3, 7), (0, 8), (15, 31), (16 * 16 * 3 - 1, 7)]
    for i, pair in enumerate(places):
        pixels = np.zeros(16 * 16 * 3, np.uint8)
        pixels[list(pair)] = 128
        save(tmp_path / "in" / f"{i}.png", pixels.reshape(16, 16, 3))
    for i in range(200):
        pixels = np.zeros((96, 8), np.uint8)
        pixels[:, 7] = 255 * random.integers(0, 2, 96)
        save(tmp_path / "in" / f"r{i:03d}.png", pixels.reshape(16, 16, 3))
    data = pack(ImageFolder(tmp_path / "in"), tmp_path / "out", 16)
    assert len(np.unique(data.pixels(np.arange(206)), axis=0)) == 206
    assert data.twins.tolist() == list(range(206))


def test_a_data_set_whose_own_record_is_damaged(tmp_path: Path) -> None:
    pack(ImageFolder(folder(tmp_path), "folders"), tmp_path / "out", R)
    path = tmp_path / "out" / "dataset.json"
    whole = json.loads(path.read_text())
    for key in ("n", "shards", "attributes", "labels_sha256"):
        for wrong in ({k: v for k, v in whole.items() if k != key}, whole | {key: [3]}):
            if (key, wrong.get(key)) != ("labels_sha256", [3]):
                path.write_text(json.dumps(wrong))
                with pytest.raises(BadFile, match="pack it again"):
                    Packed(tmp_path / "out")
    for share in (float("nan"), -0.1, 10):
        with pytest.raises(EditbenchError, match="between 0 and 1"):
            pack(ImageFolder(tmp_path / "in"), tmp_path / "other", R, max_broken=share)


def test_folders_whose_names_are_not_utf8(tmp_path: Path) -> None:
    for k, name in enumerate((b"caf\xe9", b"tea")):
        (tmp_path / "in" / os.fsdecode(name)).mkdir(parents=True)
        save(tmp_path / "in" / os.fsdecode(name) / "a.png", noise(9, 9, seed=k))
    data = pack(ImageFolder(tmp_path / "in", "folders"), tmp_path / "out", R)
    assert data.attributes is not None and data.attributes["class"].classes == ("caf\\xe9", "tea")


def test_epochs_show_every_row_once_and_any_split_is_the_same() -> None:
    order = Epochs(7, 3, "reals")
    stream = order.take(0, 35)
    passes = stream.reshape(5, 7)
    assert (np.sort(passes, 1) == np.arange(7)).all() and len({tuple(row) for row in passes}) > 1
    pieces = [
        Epochs(7, 3, "reals").take(a, b) for a, b in itertools.pairwise([0, 3, 14, 14, 20, 35])
    ]
    assert np.array_equal(np.concatenate(pieces), stream)
    assert np.array_equal(order.take(2, 5), stream[2:5])  # backwards, too
    assert not np.array_equal(Epochs(7, 4, "reals").take(0, 35), stream)
    assert set(Epochs(np.array([5, 9]), 0, "x").take(10, 12)) == {5, 9}
