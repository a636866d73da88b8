"""Labels of pictures: lists and tables against a slow reading and against pandas, and the inputs that others reported."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.cli import main
from editbench.worlds.datasets.images import ImageFolder
from editbench.worlds.datasets.labels import (
    choose_attributes,
    folder_labels,
    join_classes,
    read_labels,
)
from editbench.worlds.datasets.mpi3d import ArrayImages
from editbench.worlds.datasets.pack import pack
from editbench.worlds.datasets.vocabulary import MISSING, MISSING_WORDS, UNSPECIFIED, read_column
from tests.data_folder import REPORTS, needs_reports
from tests.picture_files import R, folder, noise, save

CELEBA = "3\nSmiling Young\na.png -1  1\nsub/b.png  1 -1\nc.png  1  1\n"
NFC = "caf\u00e9"
NFD = unicodedata.normalize("NFD", NFC)


def pictures(root: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        save(root / name, noise(9, 9, seed=seed))
    return root


def problems(out: Path) -> dict[str, str]:
    with (out / "problems.csv").open(encoding="utf-8", newline="") as file:
        return dict(list(csv.reader(file))[1:])


# -- what others reported --------------------------------------------------------------------------
@needs_reports
@pytest.mark.parametrize(
    ("images", "labels", "packed", "left_out"),
    [
        (
            "10-uncertain-labels/img",
            "10-uncertain-labels/list.txt",
            16,
            "8 with an unspecified label",
        ),
        (
            "10-uncertain-labels/img",
            "10-uncertain-labels/list.csv",
            16,
            "8 with an unspecified label",
        ),
        ("11-missing-spelled/img", "11-missing-spelled/NA.csv", 18, "6 with a missing label"),
        ("11-missing-spelled/img", "11-missing-spelled/empty.csv", 18, "6 with a missing label"),
        ("11-missing-spelled/img", "11-missing-spelled/nan.csv", 18, "6 with a missing label"),
        ("14-file-names/nfd", "14-file-names/nfc.csv", 24, ""),
        ("14-file-names/spaces", "14-file-names/spaces.txt", 24, ""),
    ],
)
def test_a_reported_folder_is_packed_as_its_labels_say(
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    images: str,
    labels: str,
    packed: int,
    left_out: str,
) -> None:
    out = tmp_path / "out"
    words = ["dataset", "pack", str(REPORTS / images), "--labels", str(REPORTS / labels)]
    assert main([*words, "--resolution", "16", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{packed} pictures of 16 x 16" in said and left_out in said
    assert ("left out, each with its reason" in said) == bool(left_out)
    assert main(["dataset", "info", str(out)]) == 0
    # Read the file again, slowly: the share of "yes" is that of 1 among the rows that have a label.
    lines = (REPORTS / labels).read_text(encoding="utf-8").splitlines()
    separator = "," if labels.endswith(".csv") else None
    rows = [line.rsplit(separator, 2) for line in lines if ".png" in line]
    smiles = [row[-2] if ".png" not in row[-2] else row[-1] for row in rows]
    known = [word for word in smiles if word in (("-1", "1") if "-1" in smiles else ("0", "1"))]
    yes = known.count("1") / len(known)
    assert len(known) == packed
    assert f"smile: no {1 - yes:.3f}, yes {yes:.3f}" in capsys.readouterr().out
    assert len(problems(out)) == 24 - packed


# -- lists and tables ------------------------------------------------------------------------------
def test_an_attribute_list_and_files_that_do_not_agree(tmp_path: Path) -> None:
    for i, name in enumerate(("a.png", "sub/b.png", "deep/c.png", "extra.png", "broken.png")):
        save(tmp_path / "in" / name, noise(20, 20, seed=i))
    (tmp_path / "in" / "broken.png").write_bytes(
        b""
    )  # between a.png and the others: labels follow the pictures
    listing = tmp_path / "list.txt"
    listing.write_text(CELEBA.replace("3\n", "5\n", 1) + "gone.png 1 1\nbroken.png -1 -1\n")
    data = pack(ImageFolder(tmp_path / "in", listing), tmp_path / "out", R, max_broken=0.5)
    assert data.attributes == Attributes(
        [Attribute("Smiling", ("no", "yes")), Attribute("Young", ("no", "yes"))]
    )
    by_name = {"a.png": [0, 1], "deep/c.png": [1, 1], "sub/b.png": [1, 0]}  # in order of the paths
    assert data.labels is not None and data.labels.tolist() == list(by_name.values())
    assert data.counts == {
        "files": 5,
        "of other kinds": 0,
        "not listed": 1,
        "hidden": 0,
        "with a missing label": 0,
        "with an unspecified label": 0,
        "listed without file": 1,
        "columns of one value": 0,
        "packed": 3,
        "broken": 1,
        "enlarged": 0,
    }
    text = (tmp_path / "out" / "problems.csv").read_text()
    assert "extra.png,the labels do not name it" in text and 'gone.png,"listed, but' in text
    with pytest.raises(BadFile, match="names none of the 12 images"):
        ImageFolder(folder(tmp_path / "other"), listing)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with the number"),
        ("file,smile\n", "begins with the number"),
        (CELEBA.replace("3", "9", 1), "says 9 files, the list has 3"),
        (CELEBA + "d.png 1\n", "line 6: 1 values for 2"),
        (CELEBA.replace("-1  1", "-1  7"), "line 3: values are -1"),
        (CELEBA.replace("c.png", "a.png"), "listed twice"),
        ("2\nA\na 1\nb 1\n", "no column has two"),
    ],
)
def test_a_damaged_attribute_list_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(BadFile, match=message):
        read_labels(tmp_path / "list.txt")


def test_a_table_has_numbers_words_and_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        '\ufefffile,smile,age,hair,one\n"a,1.png",1,9,red,x\nb.png,0,31.5,,x\nc.png,1,100,blue,x\n'
    )
    table = read_labels(path)
    assert table.names == ["a,1.png", "b.png", "c.png"]
    assert table.attributes.names == (
        "smile",
        "age",
        "hair",
    )
    assert table.attributes["smile"].classes == ("no", "yes")
    assert table.attributes["hair"].classes == ("blue", "red")
    assert table.attributes["age"] == Attribute("age", ("9", "31.5", "100"), ordered=True)
    assert table.classes.tolist() == [[1, 0, 1], [0, 1, -1], [1, 2, 0]]
    assert read_labels(path, ["age"], bins=2).classes.ravel().tolist() == [0, 0, 1]
    with pytest.raises(UnknownName, match="Did you mean 'hair'"):
        read_labels(path, ["hairs"])
    for text, message in (
        ("file\na\n", "a table of labels has a header"),
        ("f,a\nx,1,2\n", "row 2: 3 cells"),
        ('f,a\nx,"1\n', "not a readable CSV"),
        ("a.PNG,1\nb.png,0\n", "the first line names the file 'a.PNG', so the table has no header"),
    ):
        path.write_text(text)
        with pytest.raises(BadFile, match=message):
            read_labels(path)
    path.write_text("f,t\n" + "".join(f"{i}.png,{i}\n" for i in range(300)))
    with pytest.raises(BadFile, match="300 different values; join neighbouring ones with --bins"):
        read_labels(path)
    assert np.bincount(read_labels(path, bins=7).classes.ravel()).tolist() == [
        43,
        43,
        43,
        43,
        43,
        43,
        42,
    ]


def test_a_number_is_one_class_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("f,smile,age\na,1,7.0\nb,0.0,7\nc,1.0,07\nd,,12.0\ne,0,9\n")
    table = read_labels(path)
    assert table.attributes["smile"] == Attribute("smile", ("no", "yes"))
    assert table.attributes["age"] == Attribute("age", ("7", "9", "12.0"), ordered=True)
    assert table.classes.tolist() == [[1, 0], [0, 0], [1, 0], [-1, 2], [0, 1]]
    path.write_text("f,a,b\nx,1,p\ny,1.0,q\n")
    assert read_labels(path).attributes.names == ("b",)
    path.write_text("f,,b\nx,1,p\ny,2,q\n")
    with pytest.raises(BadFile, match="no name"):
        read_labels(path)
    with pytest.raises(EditbenchError, match="2 or more"):
        join_classes(Attribute("c", ("r", "g", "b")), np.arange(3), 1)


def test_bins_join_neighbours_of_ordered_attributes_only() -> None:
    item, labels = join_classes(Attribute("x", tuple(map(str, range(40))), True), np.arange(40), 5)
    assert item.classes == ("0..7", "8..15", "16..23", "24..31", "32..39") and item.ordered
    assert labels.tolist() == [i // 8 for i in range(40)]
    colour = Attribute("c", ("r", "g", "b"))
    assert join_classes(colour, np.arange(3), 2)[0] == colour
    assert join_classes(Attribute("x", tuple("abc"), True), np.array([-1, 2]), 2)[1].tolist() == [
        -1,
        1,
    ]
    both = Attributes([colour, Attribute("still", ("a", "b"))])
    kept, chosen = choose_attributes(both, np.array([[0, 1], [2, 1]]))
    assert kept.names == ("c",) and chosen.tolist() == [[0], [2]]
    with pytest.raises(EditbenchError, match="none of the attributes c, still varies"):
        choose_attributes(both, np.array([[2, 1], [2, 1]]))
    # A named one is not left out silently.
    with pytest.raises(EditbenchError, match=r"'still' has one value.*leave it out"):
        choose_attributes(both, np.array([[0, 1], [2, 1]]), ["c", "still"])


# -- the vocabulary --------------------------------------------------------------------------------
def test_missing_is_what_pandas_calls_missing() -> None:
    assert MISSING_WORDS == STR_NA_VALUES
    words = sorted(STR_NA_VALUES) + ["none", "0", "nA", "?", "-", "unknown", "1"]
    text = "a,b\n" + "".join(f'"{word}",x\n' for word in words)
    expected = pd.read_csv(io.StringIO(text), dtype=str)["a"].isna().to_numpy()
    assert np.array_equal(read_column(words).labels == MISSING, expected)
    # float() reads these as NaN too, so they are no numbers.
    assert (read_column(["NAN", "nAn", "+NaN", "0", "1"]).labels == [-1, -1, -1, 0, 1]).all()


@pytest.mark.parametrize(
    ("cells", "classes", "labels"),
    [
        (["TRUE", "false", "True", ""], ("no", "yes"), [1, 0, 1, MISSING]),
        (["Yes", "NO", "1", "0"], ("no", "yes"), [1, 0, 1, 0]),
        (["No", "NO", "maybe"], ("NO", "No", "maybe"), None),
        (["-1", "0", "1", "NA"], ("no", "yes"), [0, UNSPECIFIED, 1, MISSING]),
        (["-1.0", "0.0", "01"], ("no", "yes"), [0, UNSPECIFIED, 1]),
        (["-1", "0"], ("-1",), [0, UNSPECIFIED]),
        (["-1", "0", "1", "2"], ("-1", "0", "1", "2"), [0, 1, 2, 3]),
        (["1_0", "10", "9"], ("10", "1_0", "9"), [1, 0, 2]),
        ([NFC, NFD, "tea"], (NFC, "tea"), [0, 0, 1]),
        ([" red ", "red", "Red"], ("Red", "red"), [1, 1, 0]),
        (["NA", ""], (), [MISSING, MISSING]),
    ],
)
def test_words_of_a_column(cells: list[str], classes: tuple, labels: list[int] | None) -> None:
    column = read_column(cells)
    if labels is None:  # one class, whichever spelling names it
        assert len(column.classes) == 2 and column.labels[0] == column.labels[1]
    else:
        assert column.classes == classes and column.labels.tolist() == labels


def test_an_infinite_value_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,age\na,1\nb,2\nc,inf\n", encoding="utf-8")
    with pytest.raises(BadFile, match="column 'age': 'inf' is not a label; write NA"):
        read_labels(tmp_path / "t.csv")


def test_an_array_has_the_same_vocabulary(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    smile = np.array([-1, 0, 1, 1, -1, np.nan, 0, 1, -1, 1, -1, 1])
    age = np.array([0, 1, 2, 0, np.nan, 1, 2, 0, 1, 2, 0, 1])
    np.savez(tmp_path / "a.npz", images=images, labels=np.stack([smile, age], 1))
    (tmp_path / "a.yaml").write_text(
        "arrays: a.npz\nlabels: labels\nattributes:\n"
        "  - {name: smile, classes: [no, yes]}\n  - {name: age, classes: 3}\n",
        encoding="utf-8",
    )
    data = pack(ArrayImages(tmp_path / "a.yaml"), tmp_path / "out", shard_bytes=5 * 3 * 8 * 8)
    keep = [0, 2, 3, 7, 8, 9, 10, 11]
    assert np.array_equal(data.pixels(np.arange(len(data))), images[keep])
    assert data.labels is not None
    assert np.array_equal(data.labels, np.stack([(smile[keep] > 0).astype(int), age[keep]], 1))
    assert data.counts["with a missing label"] == data.counts["with an unspecified label"] == 2
    found = problems(tmp_path / "out")
    assert found["image 1"] == "smile is unspecified (0 beside -1)"
    assert found["image 4"] == "age is missing" and len(found) == 4


def test_a_list_has_one_convention(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("3\nsmile hat\na.png -1 0\nb.png 1 1\nc.png 1 0\n", encoding="utf-8")
    with pytest.raises(BadFile, match=r"'hat' has 0 and no -1.*NA for 'unspecified'"):
        read_labels(path)
    assert read_labels(path, ["smile"]).classes.ravel().tolist() == [0, 1, 1]
    # A list of 0 and 1 alone is a copy of CelebA's with 0 for -1.
    path.write_text("3\nsmile hat\na.png 0 0\nb.png 1 NA\nc.png true 1\n", encoding="utf-8")
    assert read_labels(path).classes.tolist() == [[0, 0], [1, MISSING], [1, 1]]


def test_no_column_and_no_picture_goes_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = pictures(tmp_path / "in", ["a.png", "b.png", "c.png", ".d.png"])
    table = tmp_path / "t.csv"
    table.write_text(
        "file,smile,one,none\na.png,0,x,\nb.png,1,x,NA\nc.png,,x,\nd.png,1,x,\n,,,\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    words = ["dataset", "pack", str(root), "--labels", str(table), "--resolution", "8"]
    assert main([*words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for part in ("1 hidden", "1 with a missing label", "1 listed without file"):
        assert part in said
    assert "2 columns of one value" in said and "4 entries were left out" in said
    assert problems(out) == {
        "c.png": "smile is missing",
        "d.png": "listed, but there is no such file",
        "column 'one'": "has one value, so there is nothing to learn",
        "column 'none'": "has one value, so there is nothing to learn",
    }
    # One that was asked for is not left out.
    with pytest.raises(BadFile, match=r"column 'one' has one value.*--attributes"):
        read_labels(table, ["smile", "one"])
    table.write_text("file,smile,hat\na.png,0,\nb.png,1,\nc.png,,1\nx.png,,0\n", encoding="utf-8")
    with pytest.raises(BadFile, match="none of the 3 listed images has all its labels"):
        ImageFolder(root, table)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"file;smile\na.png;1\nb.png;0\n", r"separated by semicolons \(';'\)"),
        ("t.csv", b"file\tsmile\na.png\t1\nb.png\t0\n", "separated by tabs"),
        ("t.tsv", b"file\tsmile\na.png\t1\n", "separated by tabs"),
        ("t.csv", "file,smile\na.png,1\n".encode("utf-16"), "is in UTF-16; save it as UTF-8"),
        ("t.csv", "file,smile\na.png,1\n".encode("utf-16-le"), "line 1: a zero byte, as in UTF-16"),
        ("t.txt", "1\nsmile\na.png 1\n".encode("utf-32"), "is in UTF-32"),
        (
            "t.csv",
            f"file,smile\na.png,1\n{NFC}.png,0\n".encode("latin-1"),
            "line 3: byte 0xe9.*Latin-1",
        ),
        ("t.csv", b"file,a,a\nx,1,2\ny,2,1\n", "column 'a' is listed twice"),
        ("t.csv", b"file,a\nx,1\n./x,2\n", "file 'x' is listed twice"),
        ("t.csv", b"file,a\nx,1\n,2\n", "row 3: names no file"),
        ("t.txt", b"2\nsmile\nmy a.png 1 1\nb.png 1\n", "line 3: 2 values for 1 attributes"),
        ("gone.csv", None, "cannot be read"),
    ],
)
def test_delimiters_and_encodings_are_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFile, match=message):
        read_labels(tmp_path / name)


# -- names -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("file", "listed"),
    [
        (f"{NFD}.png", f"{NFC}.png"),
        (f"{NFC}.png", f"sub/../{NFC}.png"),
        (f"{NFC}/{NFD}.png", f"{NFD}/{NFC}.png"),
        ("my  photo 1.png", "my  photo 1.png"),
        (" a.png", " a.png"),
        ("a.png", " a.png "),
        ("a.png", "./a.png"),
        ("sub/a.png", ".//sub/./a.png"),
        ("sub/a.png", "a.png"),
        ("a,b.png", '"a,b.png"'),
        ("a\nb.png", '"a\nb.png"'),
        ("a\u2028b.png", "a\u2028b.png"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
    ],
)
def test_a_listed_name_is_found(tmp_path: Path, file: str, listed: str) -> None:
    root = pictures(tmp_path / "in", [file, "other.png"])
    table = tmp_path / "t.csv"
    table.write_text(f"file,smile\n{listed},1\nother.png,0\n", encoding="utf-8")
    if ".." in listed:  # a path that leaves the folder is no name of a file in it
        found = ImageFolder(root, table).problems
        assert (listed, "listed, but there is no such file") in found and len(found) == 2
        return
    source = ImageFolder(root, table)
    assert source.problems == [] and sorted(source.files) == sorted([file, "other.png"])
    assert source.labels()[source.files.index(file), 0] == 1  # type: ignore[index]


def test_a_name_that_may_mean_two_files_is_left_out_with_the_reason(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", ["a/x.png", "b/x.png", f"{NFC}.png", f"{NFD}.png", "y.png"])
    table = tmp_path / "t.csv"
    table.write_text(
        f"file,smile\nx.png,1\n./{NFC}.png,1\n{NFD}.png,1\ny.png,0\n", encoding="utf-8"
    )
    source = ImageFolder(root, table)
    # As it stands a name means one file, however alike another one is.
    assert sorted(source.files) == sorted([f"{NFD}.png", "y.png"])
    assert dict(source.problems) == {
        "a/x.png": "the labels name 'x.png', which may be another file",
        "b/x.png": "the labels name 'x.png', which may be another file",
        f"{NFC}.png": f"the labels name '{NFC}.png', which may be another file",
        "x.png": "listed, but several files have that name: write their folders",
        f"./{NFC}.png": "listed, but several files have that name: write their folders",
    }


def test_a_folder_in_two_unicode_forms_is_one_class() -> None:
    table = folder_labels([f"{NFC}/a.png", f"{NFD}/b.png", "tea/c.png"])
    assert table.attributes["class"].classes == (NFC, "tea")
    assert table.classes.ravel().tolist() == [0, 0, 1]
