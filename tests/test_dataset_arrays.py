"""MPI3D-style arrays: labels against np.unravel_index, a stream that stays small, and damaged archives."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.cli import main
from editbench.worlds.datasets.mpi3d import (
    CARDINALITIES,
    COMPLEX,
    NAMES,
    ArrayImages,
    mpi3d_factors,
    row_major_labels,
)
from editbench.worlds.datasets.pack import pack
from editbench.worlds.datasets.packed import Packed

SMALL = (2, 2, 2, 1, 1, 3, 3)
N = int(np.prod(SMALL))


def toy(path: Path, compressed: bool = False, size: int = 16, **more: object) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (N, size, size, 3), np.uint8)
    (np.savez_compressed if compressed else np.savez)(path, images=images, **more)  # type: ignore[arg-type]
    return images


def declare(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# -- factors ---------------------------------------------------------------------------------------
def test_labels_are_the_row_major_indices() -> None:
    grid = np.arange(np.prod(CARDINALITIES)).reshape(
        CARDINALITIES
    )  # as the data set's own page reshapes its array
    for start in (0, 500_000, int(grid[5, 5, 1, 2, 2, 39, 37])):
        for i, row in enumerate(row_major_labels(start, start + 3, CARDINALITIES)):
            assert grid[tuple(row)] == start + i
    assert np.prod(CARDINALITIES) == 1_036_800 and np.prod(COMPLEX) == 460_800
    factors = mpi3d_factors(CARDINALITIES)
    assert [name for name, _, _ in factors] == list(NAMES)
    assert [len(classes) for _, classes, _ in factors] == list(CARDINALITIES)
    assert mpi3d_factors(COMPLEX)[1][1] == ("coffee_cup", "tennis_ball", "croissant", "beer_cup")
    assert factors[1][1][3] == "hexagonal" and factors[5][2] and not factors[0][2]


@pytest.mark.parametrize("compressed", [False, True])
def test_an_mpi3d_file_becomes_pictures_and_labels(tmp_path: Path, compressed: bool) -> None:
    images = toy(tmp_path / "toy.npz", compressed)
    data = pack(ArrayImages(tmp_path / "toy.npz", SMALL), tmp_path / "out", shard_bytes=10 * 768)
    assert data.resolution == 16 and len(list((tmp_path / "out").glob("shard-*"))) == 8
    rows = np.random.default_rng(1).permutation(N)
    assert np.array_equal(data.pixels(rows), images[rows])
    assert data.attributes is not None and data.labels is not None
    assert data.attributes.names == tuple(
        name for name, k in zip(NAMES, SMALL) if k > 1
    )  # one value: no attribute
    expected = np.stack(np.unravel_index(np.arange(N), SMALL), 1)[:, [k > 1 for k in SMALL]]
    assert np.array_equal(data.labels, expected)
    view = data.select(["vertical_axis", "object_color"], bins=2)
    assert view.attributes is not None and view.attributes["vertical_axis"].classes == ("0..1", "2")
    assert view.labels is not None and np.array_equal(view.labels[:, 0], expected[:, -1] * 2 // 3)


def test_full_size_arrays_are_known_by_their_number(tmp_path: Path) -> None:
    images = np.lib.stride_tricks.as_strided(
        np.zeros(1, np.uint8), (460_800, 2, 2, 3), (0, 0, 0, 0)
    )
    np.savez_compressed(tmp_path / "complex.npz", images=images)
    source = ArrayImages(tmp_path / "complex.npz")
    assert source.attributes is not None
    assert [len(a.classes) for a in source.attributes] == list(COMPLEX)
    assert np.array_equal(source.labels()[123_456], np.unravel_index(123_456, COMPLEX))
    toy(tmp_path / "toy.npz")
    with pytest.raises(
        BadFile, match="72 images, but MPI3D has 1036800 or 460800: give --cardinalities"
    ):
        ArrayImages(tmp_path / "toy.npz")
    with pytest.raises(BadFile, match=r"2 x 2 x 2 x 1 x 1 x 3 x 4 factors make 96"):
        ArrayImages(tmp_path / "toy.npz", (2, 2, 2, 1, 1, 3, 4))
    for wrong in ((8, 9), (10**12, 1, 1, 1, 1, 1, 1)):
        with pytest.raises(EditbenchError, match="7 numbers from 1 to 10000"):
            ArrayImages(tmp_path / "toy.npz", wrong)


def test_other_sizes_are_resized_as_files_are(tmp_path: Path) -> None:
    images = toy(tmp_path / "toy.npz", size=24)
    data = pack(ArrayImages(tmp_path / "toy.npz", SMALL), tmp_path / "out", 16)
    for i in (0, 71):
        assert np.array_equal(
            data.pixels(np.array([i]))[0],
            np.asarray(Image.fromarray(images[i]).resize((16, 16), Image.Resampling.LANCZOS)),
        )


# -- arrays that a YAML file declares --------------------------------------------------------------
def test_declared_arrays_with_labels_of_any_kind(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    classes = np.stack([random.integers(0, 3, 50), random.integers(0, 4, 50), np.zeros(50, int)], 1)
    labels = np.stack(
        [classes[:, 0], [(-30.0, -7.5, 8, 30)[k] for k in classes[:, 1]], classes[:, 2]], 1
    )
    grey = random.integers(0, 256, (50, 16, 16), np.uint8)
    np.savez(tmp_path / "shapes.npz", pictures=grey, values=labels)
    path = declare(
        tmp_path / "shapes.yaml",
        """
arrays: shapes.npz
images: pictures
labels: values
attributes:
  - {name: shape, classes: [cube, ball, pill]}
  - {name: angle, classes: 4, ordered: true}
  - {name: still, classes: 1}
""",
    )
    data = pack(ArrayImages(path), tmp_path / "out")
    assert data.attributes is not None and data.attributes.names == ("shape", "angle")
    assert data.labels is not None and np.array_equal(data.labels, classes[:, :2])
    assert np.array_equal(data.pixels(np.arange(50)), np.repeat(grey[..., None], 3, 3))
    for old, new, message in (
        ("classes: 4", "classes: 5", "4 different values from -30 to 30"),
        ("values", "vales", "has no array 'vales'; it holds pictures, values"),
        ("labels: values\n", "", r"3 x 4 x 1 factors make 12"),
        ("- {name: still, classes: 1}", "", r"\(50, 2\) numbers"),
        ("classes: 1", "classes: none", "must be a number up to 10000 or a list"),
        ("classes: 1", "classes: 1000000000000", "must be a number up to 10000"),
        ("shapes.npz", "gone.npz", "no such .npz"),
        ("[cube, ball, pill]", "[cube, ball, ball]", "'shape' must be different names"),
        ("ordered: true", "ordered: 'false'", "true or false, without quotes"),
    ):
        with pytest.raises(BadFile, match=message):
            ArrayImages(declare(tmp_path / "wrong.yaml", path.read_text().replace(old, new)))
    with pytest.raises(UnknownName, match="Did you mean 'images'"):
        ArrayImages(declare(tmp_path / "wrong.yaml", path.read_text().replace("images:", "imgs:")))
    (tmp_path / "wrong.yaml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(BadFile, match="is in UTF-16; save it as UTF-8"):
        ArrayImages(tmp_path / "wrong.yaml")
    with pytest.raises(BadFile, match="must be a mapping"):
        ArrayImages(declare(tmp_path / "wrong.yaml", "- 1"))
    with pytest.raises(BadFile, match="needs 'arrays'"):
        ArrayImages(declare(tmp_path / "wrong.yaml", "images: images"))
    toy(tmp_path / "toy.npz", labels=np.zeros((N, 2), int))
    with pytest.raises(BadFile, match="whose names and classes a YAML file has to declare"):
        ArrayImages(tmp_path / "toy.npz")


# -- size and damage -------------------------------------------------------------------------------
def test_a_large_array_is_streamed(tmp_path: Path) -> None:
    images = np.lib.stride_tricks.as_strided(
        np.arange(64 * 64 * 3, dtype=np.uint8), (2304, 64, 64, 3), (0, 192, 3, 1)
    )
    np.savez_compressed(tmp_path / "big.npz", images=images)  # 28 MB
    del images
    cardinalities = (2, 2, 2, 2, 2, 8, 9)
    tracemalloc.start()
    data = pack(
        ArrayImages(tmp_path / "big.npz", cardinalities), tmp_path / "out", shard_bytes=1 << 20
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) == 2304 and peak < 6 << 20


def rewrite(path: Path, out: Path, change) -> Path:  # type: ignore[no-untyped-def]
    """The archive with the bytes of its array changed before they are packed again."""
    with zipfile.ZipFile(path) as archive:
        content = archive.read("images.npy")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", change(content))
    return out


def test_arrays_that_are_not_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "toy.npz"
    toy(path)
    for change, message in (
        (lambda c: c + b"\0" * 10_000_000, "declared as 10055424 bytes"),  # a bomb
        (lambda c: c[:-100], "the file is damaged"),
        (lambda c: c.replace(b"(72,", b"(7e,"), "not a complete"),
        (lambda c: c.replace(b"'|u1'", b"'|O' "), "holds object"),
        (lambda c: c.replace(b"False", b"True "), "Fortran"),
        (lambda c: c.replace(b"|u1", b"|i1"), "images must be uint8"),
    ):
        with pytest.raises(BadFile, match=message):
            ArrayImages(rewrite(path, tmp_path / "wrong.npz", change), SMALL)
    np.savez(tmp_path / "objects.npz", images=np.array([{"a": 1}], object))
    with pytest.raises(BadFile, match="holds object"):
        ArrayImages(tmp_path / "objects.npz", SMALL)
    (tmp_path / "text.npz").write_text("not a zip")
    with pytest.raises(BadFile, match=r"not a complete \.npz"):
        ArrayImages(tmp_path / "text.npz", SMALL)


def test_damaged_bytes_are_found_and_nothing_is_left(tmp_path: Path) -> None:
    images = toy(tmp_path / "toy.npz", compressed=True)
    whole = (tmp_path / "toy.npz").read_bytes()
    random = np.random.default_rng(3)
    found = 0
    for trial, at in enumerate(random.integers(0, len(whole), 80)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(random.integers(8))
        path, out = tmp_path / "damaged.npz", tmp_path / f"out{trial}"
        path.write_bytes(damaged[: at + 1] if trial % 4 == 0 else damaged)
        try:
            data = pack(ArrayImages(path, SMALL), out, shard_bytes=20 * 768)
        except BadFile:
            found += 1
            assert not out.exists() or not list(out.iterdir())
        else:  # the flip was in a part of the directory that no reader needs
            assert np.array_equal(data.pixels(np.arange(N)), images)
    assert found > 70


def test_a_stopped_pack_of_an_array_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = toy(tmp_path / "toy.npz", compressed=True)
    read = ArrayImages.read

    def stop(self: ArrayImages, start: int, stop: int, resolution: int):  # type: ignore[no-untyped-def]
        if start >= 40:
            raise KeyboardInterrupt
        return read(self, start, stop, resolution)

    monkeypatch.setattr(ArrayImages, "read", stop)
    with pytest.raises(KeyboardInterrupt):
        pack(ArrayImages(tmp_path / "toy.npz", SMALL), tmp_path / "out", shard_bytes=20 * 768)
    monkeypatch.setattr(ArrayImages, "read", read)
    data = pack(ArrayImages(tmp_path / "toy.npz", SMALL), tmp_path / "out")
    assert np.array_equal(data.pixels(np.arange(N)), images)
    data.verify()


def test_a_full_disk_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(tmp_path / "toy.npz")
    monkeypatch.setattr(
        "editbench.worlds.datasets.pack.shutil.disk_usage",
        lambda path: type("U", (), {"free": 1000})(),
    )
    with pytest.raises(EditbenchError, match="are free on that disk"):
        pack(ArrayImages(tmp_path / "toy.npz", SMALL), tmp_path / "out")
    monkeypatch.undo()
    assert (
        len(pack(ArrayImages(tmp_path / "toy.npz", SMALL), tmp_path / "out", 8)) == N
    )  # as the message says


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy(tmp_path / "toy.npz")
    words = ["dataset", "pack", str(tmp_path / "toy.npz"), "--out", str(tmp_path / "out")]
    assert main([*words, "--cardinalities", *map(str, SMALL)]) == 0
    assert "72 pictures of 16 x 16" in capsys.readouterr().out
    assert len(Packed(tmp_path / "out")) == N
    for more, message in (
        ([], "give --cardinalities"),
        (["--bins", "2"], "when training instead"),
        (["--labels", "x.csv"], "for a folder of images"),
    ):
        assert main([*words, *more]) == 1
        assert message in capsys.readouterr().err
    assert main(["dataset", "pack", str(tmp_path / "gone"), "--out", str(tmp_path / "o")]) == 1
    assert "no such folder" in capsys.readouterr().err
    # A declaration has its own classes, beside which cardinalities would have no effect.
    declared = declare(
        tmp_path / "toy.yaml", "arrays: toy.npz\nattributes:\n  - {name: place, classes: 72}\n"
    )
    of_yaml = ["dataset", "pack", str(declared), "--out", str(tmp_path / "declared")]
    assert main([*of_yaml, "--cardinalities", "9", "8"]) == 1
    assert "--cardinalities is for an .npz" in capsys.readouterr().err
    assert main(of_yaml) == 0
