"""A study with raters: what is drawn, shown and blinded, against the records; the command from runs to tables."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import Tensor

from editbench.base import batches
from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.base.files import read_json, seal_folder, write_json
from editbench.base.spaces import Codes
from editbench.cli import main
from editbench.report import typeset
from editbench.studies.human.draw import MethodComparison, questions
from editbench.studies.human.edits import read_edits
from editbench.studies.human.redraw import Redraw, Strips, open_pictures
from editbench.studies.human.study import StudyDesign, _check_words, make_study, read_key
from editbench.walk.trajectory import Trajectories
from tests.by_config import run_job
from tests.human_study import (
    NAMES,
    answer_page,
    copied,
    page_data,
    pixels,
    saved,
    study_of,
    walked_runs,
)
from tests.toy_world import toy_config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return walked_runs(tmp_path_factory.mktemp("toy") / "runs")


@pytest.fixture(scope="module")
def study(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_of(root, tmp_path_factory.mktemp("studies") / "study")


# -- what is drawn ---------------------------------------------------------------------------------
def test_pictures_are_the_records_codes_decoded(root: Path, study: Path) -> None:
    """In the toy world the picture is the code: (code + 1) * 127.5 at the stopped row, worked out
    from the files.
    """
    key, runs = (
        read_key(study)["questions"],
        {"".join(path.name.split("-")[:2]): path for path in root.glob("*-s0-*")},
    )
    checked = 0
    for one in page_data(study / "pages" / "page-1.html")["questions"]:
        entry = key[one["id"]]
        for side in ("left", "right"):
            folder = runs[entry[side] + entry["attribute"]]
            walks = Trajectories.load(folder / "trajectory.parquet").table
            stop = walks[(walks["start"] == entry["start"]) & walks["stopped"]]["step"].item()
            codes = pd.read_parquet(folder / "codes.parquet").set_index(["start", "step"])["codes"]
            for step, uri in ((stop, one[side]), (0, one["original"])):
                grey = np.round(
                    (np.clip(np.stack(codes.loc[[(entry["start"], step)]])[0], -1, 1) + 1) * 127.5
                )
                assert np.abs(pixels(uri).astype(float) - grey.reshape(2, 4)).max() <= 1
                checked += 1
    assert checked == 4 * len(page_data(study / "pages" / "page-1.html")["questions"])


def test_only_starts_that_both_crossed_and_the_rest_is_told(root: Path, study: Path) -> None:
    manifest, key = (
        json.loads((study / f"{name}.json").read_text()) for name in ("manifest", "key")
    )
    crossed: dict[tuple[str, str], set[int]] = {}
    for row in manifest["coverage"]:
        table = Trajectories.load(root / row["run_id"] / "trajectory.parquet").table
        starts = set(table["start"])
        crossed[row["method"], row["attribute"]] = set(table[table["crossed"]]["start"])
        assert (row["starts"], row["crossed"]) == (
            len(starts),
            len(crossed[row["method"], row["attribute"]]),
        )
        assert row["not_crossed_share"] == pytest.approx(1 - row["crossed"] / row["starts"])
    lazy = [row["not_crossed_share"] for row in manifest["coverage"] if row["method"] == "laziest"]
    assert max(lazy) > 0.1
    assert {row["pictures"] for row in manifest["coverage"]} == {"redrawn from the stored codes"}
    for entry in key["questions"].values():
        assert all(
            entry["start"] in crossed[entry[side], entry["attribute"]] for side in ("left", "right")
        )
    for row in manifest["pairs"]:
        both = crossed[row["a"], row["attribute"]] & crossed[row["b"], row["attribute"]]
        assert row["both_crossed"] == len(both)
        assert row["asked"] == 6
        assert row["drawn"] == min(6, len(both))


def test_targets_are_those_of_the_walks(root: Path, study: Path) -> None:
    for entry in read_key(study)["questions"].values():
        name = entry["attribute"]
        table = pd.concat(
            pd.read_parquet(path / "trajectory.parquet") for path in root.glob(f"*-{name}-*")
        )
        row = table[table["start"] == entry["start"]].iloc[0]
        classes = {"a": ("no", "yes"), "c": ("x", "y", "z")}[name]
        assert (entry["source"], entry["target"]) == (
            classes[row["source"]],
            classes[row["target"]],
        )


@pytest.mark.parametrize("duplicates", [0.0, 0.05, 0.3, 0.5])
def test_sides_are_balanced_and_repeats_are_swapped_and_far(duplicates: float) -> None:
    drawn = [
        MethodComparison(f"c{k}", attribute, k, "no", "yes", a, b)
        for attribute in "xy"
        for a, b in combinations("pqr", 2)
        for k in range(9)
    ]
    page = questions(drawn, "1", duplicates, seed=4)
    first = [one for one in page if one.duplicate_of is None]
    again = [one for one in page if one.duplicate_of is not None]
    assert len(again) == int(np.ceil(duplicates * len(drawn)))
    assert len({one.id for one in page}) == len(page)
    assert sorted(one.comparison.id for one in first) == sorted(one.id for one in drawn)
    sides = Counter(
        (one.comparison.attribute, one.comparison.a, one.comparison.b, one.left == one.comparison.a)
        for one in first
    )
    assert set(sides.values()) == {4, 5} and len(sides) == 12
    places = {one.id: k for k, one in enumerate(page)}
    for one in again:
        shown = page[places[one.duplicate_of or ""]]
        assert (shown.left, shown.right) == (
            one.right,
            one.left,
        )
        assert shown.comparison == one.comparison
        assert places[one.id] - places[shown.id] >= len(drawn) // 2
    assert [one.id for one in page] == [one.id for one in questions(drawn, "1", duplicates, seed=4)]
    other = questions(drawn, "2", duplicates, seed=4)
    assert [o.comparison for o in other] != [o.comparison for o in page]
    assert not set(places) & {o.id for o in other}


def test_sides_over_many_pages_tell_nothing() -> None:
    """Neither the side nor the place on the page is tied to the method."""
    drawn = [MethodComparison(f"c{k}", "x", k, "no", "yes", "p", "q") for k in range(10)]
    pages = [questions(drawn, str(k), 0, seed=0) for k in range(400)]
    left = np.array([[one.left == "p" for one in page] for page in pages])
    assert (left.sum(1) == 5).all()
    assert np.abs(left.mean(0) - 0.5).max() < 4 * 0.5 / np.sqrt(400)  # by place
    by_start = np.zeros(10)
    for page in pages:
        for one in page:
            by_start[one.comparison.start] += one.left == "p"
    assert np.abs(by_start / 400 - 0.5).max() < 4 * 0.5 / np.sqrt(400)


def test_split_pages_share_the_comparisons_out(root: Path, tmp_path: Path) -> None:
    make_study(
        root,
        tmp_path / "s",
        StudyDesign(pairs=6, sets=3, split=True, duplicates=0, asked=("identity",)),
    )
    key = read_key(tmp_path / "s")
    seen = Counter((one["comparison"], one["set"]) for one in key["questions"].values())
    assert set(seen.values()) == {1} and len({name for name, _ in seen}) == len(seen) == 12
    assert key["asked"] == ["identity"]
    assert (
        'fieldset data-asked="change"' not in (tmp_path / "s" / "pages" / "page-1.html").read_text()
    )


# -- blinding --------------------------------------------------------------------------------------
def test_pages_name_no_method_and_no_order(root: Path, study: Path) -> None:
    key = read_key(study)["questions"]
    runs = [path.name for path in root.iterdir()]
    for name in ("1", "2"):
        path = study / "pages" / f"page-{name}.html"
        text = path.read_text(encoding="utf-8")
        plain = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text).lower()
        assert not [
            word
            for word in (*NAMES, *runs, "seed", "duplicate", "c0000", str(root).lower())
            if word in plain
        ]
        data = page_data(path)
        assert set(data) == {"format", "version", "study", "set", "asked", "questions"}
        assert {frozenset(one) for one in data["questions"]} == {
            frozenset(("id", "attribute", "target", "left", "original", "right"))
        }
        order = [one["id"] for one in data["questions"]]
        assert sorted(order) == sorted(k for k, one in key.items() if one["set"] == name)
        assert all(re.fullmatch(r"q[0-9a-f]{10}", one) for one in order)
        for one in data["questions"]:
            for side in ("left", "original", "right"):
                raw = base64.b64decode(one[side].split(",")[1])
                assert Image.open(io.BytesIO(raw)).info == {} and b"tEXt" not in raw
        # sorted by id nothing falls into order: neither the methods on the left nor the comparisons
        lefts = [key[one]["left"] for one in sorted(order)]
        assert lefts != sorted(lefts)
        assert [key[one]["comparison"] for one in sorted(order)] != sorted(
            key[one]["comparison"] for one in order
        )
    assert {path.name for path in study.iterdir()} == {"pages", "key.json", "manifest.json"}


def test_the_organiser_cannot_unblind_by_the_title(root: Path, tmp_path: Path) -> None:
    for design in (
        StudyDesign(title="Quickest against the rest"),
        StudyDesign(intro="We made slowpoke."),
    ):
        with pytest.raises(EditbenchError, match="which raters must not know"):
            make_study(root, tmp_path / "s", design)
    assert not (tmp_path / "s").exists()
    for words in ("Neural ODE", "NeuralODE?", "the neural-ode method", "neural_ode (steps=3)"):
        with pytest.raises(EditbenchError, match="'neural_ode"):
            _check_words(StudyDesign(title=words), {"neural_ode", "neural_ode (steps=3)"})
    _check_words(StudyDesign(title="Neural code of randomly drawn edits"), {"neural_ode", "random"})


def test_the_same_seed_gives_the_same_study(root: Path, study: Path, tmp_path: Path) -> None:
    study_of(root, tmp_path / "again")
    for name in ("key.json", "pages/page-1.html", "pages/page-2.html"):
        assert (tmp_path / "again" / name).read_bytes() == (study / name).read_bytes()
    study_of(root, tmp_path / "other", seed=1)
    assert read_key(tmp_path / "other")["study"] != read_key(study)["study"]


def test_of_several_seeds_the_first_is_shown(root: Path, tmp_path: Path) -> None:
    """A folder such as the demo's needs no --setting: its methods differ in their numbers of seeds."""
    runs = copied(root, tmp_path)
    for seed in (1, 2):
        cfg = toy_config(runs, "attribute=a", f"seed={seed}", delta=0.5, name="quickest")
        assert run_job(cfg).status == "done"
    (first,) = runs.glob("quickest-a-s0-*")
    (second,) = runs.glob("quickest-a-s1-*")

    def shown() -> str:
        _, edits, _ = read_edits(runs, ("quickest", "slowpoke"))
        assert [one.label for one in edits if one.attribute == "a"] == ["quickest", "slowpoke"]
        return next(one.run_id for one in edits if one.label == "quickest")

    assert shown() == first.name
    # A seed that found no control has no pictures.
    write_json(first / "status.json", read_json(first / "status.json") | {"status": "skipped"})
    seal_folder(first)
    assert shown() == second.name


def test_pictures_that_the_judge_did_not_see_are_refused(root: Path, tmp_path: Path) -> None:
    """Codes of another walk: the judge's answers differ, and the strips serve, which hold the few
    stored pictures.
    """
    runs = copied(root, tmp_path)
    (lazy,), (quick,) = (list(runs.glob(f"{name}-a-*")) for name in ("slowpoke", "quickest"))
    results, edits, _ = read_edits(runs)
    one = next(edit for edit in edits if edit.run_id == quick.name)
    good = Redraw(one, quick, results.provenance[quick.name])(sorted(one.crossed)[:2])
    strips = Strips(one, results.strips(quick.name)).found
    assert len(strips) == 2
    for start, pair in strips.items():  # what was kept while walking is what is drawn again
        for mine, kept in zip(Redraw(one, quick, {})([start])[start], pair):
            np.testing.assert_allclose(mine.astype(int), kept, atol=1)
    assert len(good) == 2
    table = pd.read_parquet(quick / "codes.parquet")
    table["codes"] = [code * 0.7 for code in table["codes"]]
    table.to_parquet(quick / "codes.parquet")
    seal_folder(quick)
    with pytest.raises(BadFile, match="differ from those that were judged"):
        Redraw(one, quick, results.provenance[quick.name])
    fallen, _ = open_pictures(results, one)
    assert fallen.usable == frozenset(strips) & one.crossed
    assert "from the strips, because" in fallen.pictures
    (lazy / "codes.parquet").unlink()
    (lazy / "strips.safetensors").write_bytes(b"half a fi")
    seal_folder(lazy)
    manifest = make_study(runs, tmp_path / "s", StudyDesign(pairs=3))
    told = {
        row["method"]: row["pictures"] for row in manifest["coverage"] if row["attribute"] == "a"
    }
    assert "redrawn" in told["laziest"]
    assert re.match("none, because: no codes are stored.*not readable", told["slowpoke"])
    assert not any(
        "slowpoke" in (row["a"], row["b"]) and row["drawn"]
        for row in manifest["pairs"]
        if row["attribute"] == "a"
    )


def test_no_more_pictures_are_redrawn_at_once_than_fit_into_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (quick,) = root.glob("quickest-a-*")
    results, edits, _ = read_edits(root)
    one = next(edit for edit in edits if edit.run_id == quick.name)
    starts = sorted(one.crossed)
    drawn = []
    # 0 is unknown. In a kilobyte there is room for a few pictures of 32 bytes.
    for free in (0, 1000):
        monkeypatch.setattr(batches, "free_memory", lambda device, free=free: free)
        redraw = Redraw(one, quick, results.provenance[quick.name])
        sizes: list[int] = []
        decode = redraw.networks.generator.decode

        def counted(codes: Codes, decode=decode, sizes=sizes) -> Tensor:  # type: ignore[no-untyped-def]
            sizes.append(len(codes))
            return decode(codes)

        monkeypatch.setattr(redraw.networks.generator, "decode", counted)
        drawn.append(redraw(starts))
        monkeypatch.undo()
        assert max(sizes) == len(starts) if free == 0 else max(sizes) < 8
    for start in starts:
        for here, there in zip(drawn[0][start], drawn[1][start]):
            np.testing.assert_array_equal(here, there)


def test_bad_input_gets_a_clear_message(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(UnknownName, match="quickest"):
        make_study(root, tmp_path / "s", StudyDesign(methods=("quikest",)))
    with pytest.raises(EditbenchError, match="two methods"):
        make_study(root, tmp_path / "s", StudyDesign(methods=("quickest",)))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "responses.json").write_text("{}")
    with pytest.raises(EditbenchError, match="there already"):
        make_study(root, tmp_path / "s", StudyDesign())
    assert main(shlex.split(f"human make {root} --out {tmp_path}/t --questions change,beauty")) == 1
    assert "--questions takes change and identity" in capsys.readouterr().err
    words = ["human", "make", str(root), "--out", str(tmp_path / "t")]
    assert main([*words, "--methods", ""]) == 1
    assert "--methods names no method" in capsys.readouterr().err
    assert main([*words, "--device", "nonsense"]) == 1
    assert "--device nonsense is not a device" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
    mixed = copied(root, tmp_path)
    one = next(mixed.glob("quickest-a-*"))
    (one / "config.yaml").write_text(
        (one / "config.yaml").read_text().replace("max_steps: 20", "max_steps: 21")
    )
    seal_folder(one)
    with pytest.raises(EditbenchError, match="--setting"):
        make_study(mixed, tmp_path / "t", StudyDesign())
    with pytest.raises(EditbenchError, match="not the key of a study"):
        read_key(root)
    saved(
        tmp_path / "key.json",
        {"format": "editbench human key", "version": 1, "asked": [], "questions": {}},
    )
    with pytest.raises(EditbenchError, match="'study'"):
        read_key(tmp_path)


def test_a_key_with_a_changed_method_is_refused(study: Path, tmp_path: Path) -> None:
    """Two methods that have changed sides would have each other's votes."""
    text = (study / "key.json").read_text()
    swapped = text.replace('"left": "quickest"', '"left": "laziest"', 1)
    assert swapped != text
    (tmp_path / "key.json").write_text(swapped)
    with pytest.raises(EditbenchError, match=r"not the key of a study .*checksum differs"):
        read_key(tmp_path)


# -- the command -----------------------------------------------------------------------------------
def test_the_command_from_runs_to_tables(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    intro = tmp_path / "intro.txt"
    intro.write_text("You may stop at any time.")
    study = tmp_path / "study"
    runs = copied(root, tmp_path)
    (runs / "broken").mkdir()
    (runs / "broken" / "status.json").write_text("{}")
    status = next(runs.glob("slowpoke-c-*")) / "status.json"
    write_json(status, read_json(status) | {"status": "skipped", "reason": "no control"})
    seal_folder(status.parent)
    assert (
        main(
            shlex.split(
                f"human make {runs} --out {study} --methods quickest,laziest,slowpoke "
                f"--pairs 9 --intro {intro}"
            )
        )
        == 0
    )
    out = capsys.readouterr().out
    assert f"left out: {status.parent.name}: skipped: no control" in out
    assert "left out: broken: " in out
    assert "laziest on a: " in out
    assert "You may stop at any time." in (study / "pages" / "page-1.html").read_text()
    rng = np.random.default_rng(0)
    files = [
        saved(
            tmp_path / f"r{k}.json",
            answer_page(study, "1", f"r{k}", lambda *_: str(rng.choice(["left", "right", "none"]))),
        )
        for k in range(3)
    ]
    assert main(["human", "analyse", str(study), *map(str, files)]) == 0
    out = capsys.readouterr().out
    assert "Bradley-Terry" in out and "laziest on a: " in out and "Krippendorff" in out
    tables = study / "analysis"
    assert {path.name for path in tables.iterdir()} == {
        "win_rates.csv",
        "strengths.csv",
        "consistency.csv",
        "agreement.csv",
        "files.csv",
        "votes.csv",
        "report.md",
        "tables.tex",
    }
    rates = pd.read_csv(tables / "win_rates.csv")
    assert set(rates["attribute"]) == {"all", "a", "c"}
    assert set(rates["asked"]) == {
        "change",
        "identity",
    }
    tex = (tables / "tables.tex").read_text()
    assert tex.startswith(typeset.PREAMBLE)
    assert tex.count(r"\toprule") == tex.count(r"\end{tabular}") == 6
    assert "| quickest : slowpoke |" in (tables / "report.md").read_text()
    bad = saved(tmp_path / "bad.json", {"study": "[red]x"})
    assert (
        main(
            ["human", "analyse", str(study), str(bad), str(files[0]), "--out", str(tmp_path / "o")]
        )
        == 1
    )
    found = capsys.readouterr()
    assert "not counted: " in found.out and "1 of 2 files" in found.err
