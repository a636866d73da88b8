"""The human-evaluation kit: what is drawn and blinded, against records; the analysis, against
scipy, sklearn and hand numbers. The answers here are made up by the tests, from probabilities they
know.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.base.files import read_json, seal_folder, write_json
from editbench.cli import main
from editbench.report import typeset
from editbench.stats.intervals import holm
from editbench.studies.human.agreement import agreement, consistency, krippendorff
from editbench.studies.human.bradley_terry import connected, fit
from editbench.studies.human.draw import MethodComparison, questions
from editbench.studies.human.edits import read_edits
from editbench.studies.human.preferences import bootstrap_wins, preferences, win_counts
from editbench.studies.human.redraw import Redraw, Strips, open_pictures
from editbench.studies.human.responses import LIMIT, VOTES, read_responses, read_sheet
from editbench.studies.human.study import StudyDesign, _check_words, make_study, read_key
from editbench.walk.trajectory import Trajectories
from tests.by_config import run_job
from tests.toy_world import toy_config

NAMES = ("quickest", "slowpoke", "laziest")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three walkers of other step lengths on two attributes; the laziest misses the cap from some
    starts.
    """
    folder = tmp_path_factory.mktemp("toy") / "runs"
    for attribute in ("a", "c"):
        for name, delta in zip(NAMES, (0.5, 0.2, 0.03)):
            cfg = toy_config(folder, f"attribute={attribute}", delta=delta, name=name)
            assert run_job(cfg).status == "done"
    return folder


@pytest.fixture(scope="module")
def study(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studies") / "study"
    make_study(root, out, StudyDesign(pairs=18, sets=2, duplicates=0.2))
    return out


def page_data(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    )


def pixels(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


# -- what is drawn
# -------------------------------------------------------------------------------------------------
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
# ----------------
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
    design = StudyDesign(pairs=18, sets=2, duplicates=0.2)
    make_study(root, tmp_path / "again", design)
    for name in ("key.json", "pages/page-1.html", "pages/page-2.html"):
        assert (tmp_path / "again" / name).read_bytes() == (study / name).read_bytes()
    make_study(root, tmp_path / "other", StudyDesign(pairs=18, sets=2, duplicates=0.2, seed=1))
    assert read_key(tmp_path / "other")["study"] != read_key(study)["study"]


# -- pictures that cannot be redrawn
# -------------------------------------------------------------------------------
def copied(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root, tmp_path / "runs", ignore=shutil.ignore_patterns("cache", ".locks"))
    return tmp_path / "runs"


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
    assert (
        main(
            [
                "human",
                "make",
                str(root),
                "--out",
                str(tmp_path / "t"),
                "--questions",
                "change,beauty",
            ]
        )
        == 1
    )
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


# -- responses -------------------------------------------------------------------------------------
# ----------------
def answer_page(study: Path, page: str, rater: str, choose, **more: object) -> dict:  # type: ignore[no-untyped-def]
    """What a page saves when choose(entry of the key, asked) answers."""
    key = read_key(study)
    mine = {name: entry for name, entry in key["questions"].items() if entry["set"] == page}
    return {
        "format": "editbench human responses",
        "version": 1,
        "study": key["study"],
        "set": page,
        "rater": rater,
        "started": "",
        "saved": "2026-01-01T00:00:00Z",
        "asked": key["asked"],
        "answers": {
            name: {asked: choose(entry, asked) for asked in key["asked"]}
            for name, entry in mine.items()
        },
        "seconds": dict.fromkeys(mine, 3.5),
    } | more


def saved(path: Path, told: object) -> Path:
    write_json(path, told)
    return path


def test_answers_are_unblinded_by_the_key(study: Path, tmp_path: Path) -> None:
    """A rater who always takes the method that is first in the alphabet for Q1, and the left
    picture for Q2.
    """

    def choose(entry: dict, asked: str) -> str:
        return (
            ("left" if entry["left"] < entry["right"] else "right") if asked == "change" else "left"
        )

    key = read_key(study)
    found = read_responses(
        [
            saved(tmp_path / f"{page}.json", answer_page(study, page, f"r{page}", choose))
            for page in "12"
        ],
        key,
    )
    votes = found.votes
    assert (
        votes[votes["asked"] == "change"]["winner"] == votes[votes["asked"] == "change"]["a"]
    ).all()
    rates, _ = preferences(votes, draws=50)
    assert (rates[rates["asked"] == "change"]["rate_a"] == 1).all()
    table = consistency(votes).set_index(["asked", "rater"])
    assert table.loc[("change", "all"), "share"] == 1
    assert table.loc[("identity", "all"), "share"] == 0
    assert table.loc[("identity", "all"), "left_share"] == 1
    assert table.loc[("identity", "all"), "left_p"] < 1e-9
    assert 0.3 < table.loc[("change", "all"), "left_share"] < 0.7
    n = sum(one["duplicate_of"] is not None for one in key["questions"].values())
    assert table.loc[("change", "all"), "repeats"] == n > 6
    assert len(votes) == 2 * len(key["questions"]) and (votes["repeat_of"] != "").sum() == 2 * n
    shown = rates[(rates["asked"] == "change") & (rates["attribute"] == "all")]["votes"].sum()
    assert shown == len(key["questions"]) - n  # a repeat is no second vote


def test_a_rater_of_several_pages_has_one_vote_a_comparison(study: Path, tmp_path: Path) -> None:
    key = read_key(study)
    paths = [
        saved(tmp_path / f"{page}.json", answer_page(study, page, "r", lambda *_, side=side: side))
        for page, side in (("1", "left"), ("2", "right"))
    ]
    one, both = (
        preferences(read_responses(some, key).votes, draws=50) for some in (paths[:1], paths[::-1])
    )
    pd.testing.assert_frame_equal(one[0], both[0])
    pd.testing.assert_frame_equal(one[1], both[1])


def test_missing_unknown_and_invalid_answers_are_counted(study: Path, tmp_path: Path) -> None:
    told = answer_page(study, "1", "r", lambda *_: "none")
    names = sorted(told["answers"])
    del told["answers"][names[0]]
    told["answers"][names[1]] = {"change": "left"}
    told["answers"][names[2]] = {"change": "LEFT", "identity": 3, "beauty": "left"}
    told["answers"][names[3]] = ["left"]
    other = next(name for name, one in read_key(study)["questions"].items() if one["set"] == "2")
    told["answers"] |= {other: {"change": "left"}, "q0": {"change": "left"}}
    told["seconds"] = {names[1]: 1e12, names[2]: "3", names[4]: True, names[5]: 2}
    sheet = read_sheet(saved(tmp_path / "r.json", told), read_key(study))
    assert (sheet.missing, sheet.unknown, sheet.invalid) == (2 + 1 + 2 + 2, 2, 4)
    assert sheet.seconds == {names[5]: 2.0} and sheet.given == 2 * len(names) - 7


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "expected an object"),
        ('{"a": 1}', "not a file of resp"),
        ("\x00\xff", "not JSON"),
        (" " * (LIMIT + 1), "larger than"),
        (None, "not readable"),
    ],
)
def test_hostile_files_get_a_clear_error(
    study: Path, tmp_path: Path, text: str | None, reason: str
) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(EditbenchError, match=reason):
        read_sheet(path, read_key(study))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"study": "0" * 12}, "another study"),
        ({"set": "9"}, "no page"),
        ({"set": ["1"]}, "no page"),
        ({"rater": "=cmd|' /C calc'!A0"}, "rater code"),
        ({"rater": None}, "rater code"),
        ({"rater": "all"}, "rater code"),
        ({"rater": "x" * 41}, "rater"),
        ({"answers": []}, "holds no answers"),
        ({"version": 2}, "not a file of responses"),
        ({"seconds": 1}, "no answers"),
    ],
)
def test_files_of_another_kind_are_refused(
    study: Path, tmp_path: Path, change: dict, reason: str
) -> None:
    with pytest.raises(BadFile, match=reason):
        read_sheet(
            saved(tmp_path / "x.json", answer_page(study, "1", "r", lambda *_: "left") | change),
            read_key(study),
        )


def test_a_file_whose_name_is_no_text(study: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"r\xff.json")
    saved(path, answer_page(study, "1", "r1", lambda entry, asked: "left"))
    out = tmp_path / "out"
    assert main(["human", "analyse", str(study), str(path), "--out", str(out)]) == 0
    assert pd.read_csv(out / "files.csv")["file"].tolist() == ["r\\xff.json"]


def test_one_file_a_rater_and_page_counts(study: Path, tmp_path: Path) -> None:
    full = answer_page(study, "1", "r", lambda *_: "left")
    half = full | {"answers": dict(list(full["answers"].items())[:3]), "saved": "2027"}
    late = answer_page(study, "1", "r", lambda *_: "right") | {"saved": "2026-02"}
    paths = [
        saved(tmp_path / f"{name}.json", told)
        for name, told in {
            "full": full,
            "half": half,
            "late": late,
            "other": full | {"rater": "s"},
            "two": answer_page(study, "2", "r", lambda *_: "left"),
        }.items()
    ]
    found = read_responses(paths, read_key(study))
    assert [sheet.path.name for sheet in found.sheets] == ["late.json", "two.json", "other.json"]
    assert {Path(name).name for name, _ in found.superseded} == {
        "full.json",
        "half.json",
    }
    assert not found.left_out
    assert "3 files of this rater, 2 of them with other answers" in found.sheets[0].note
    bad = saved(tmp_path / "bad.json", {})
    assert [
        Path(name).name for name, _ in read_responses([bad, paths[0]], read_key(study)).left_out
    ] == ["bad.json"]
    with pytest.raises(EditbenchError, match="no file can be counted"):
        read_responses([bad], read_key(study))


# -- analysis --------------------------------------------------------------------------------------
# ----------------
def made_votes(
    strength: dict[str, float],
    comparisons: int,
    raters: int,
    tie: float = 0.0,
    seed: int = 0,
    shared: bool = True,
) -> pd.DataFrame:
    """Votes with P(a over b) = 1 / (1 + exp(s_b - s_a)), each pair and rater alike."""
    rng, rows = np.random.default_rng(seed), []
    for a, b in combinations(sorted(strength), 2):
        chance = 1 / (1 + np.exp(strength[b] - strength[a]))
        for k in range(comparisons):
            for rater in range(raters):
                draw = rng.random()
                winner = "" if draw < tie else a if rng.random() < chance else b
                rows.append(
                    {
                        "rater": f"r{rater}",
                        "set": "1",
                        "question": f"{a}{b}{k}",
                        "repeat_of": "",
                        "comparison": f"{a}{b}{k}" + ("" if shared else f"/{rater}"),
                        "attribute": f"x{k % 2}",
                        "a": a,
                        "b": b,
                        "asked": "change",
                        "answer": "none" if not winner else "left" if winner == a else "right",
                        "winner": winner,
                        "seconds": 1.0,
                    }
                )
    return pd.DataFrame(rows, columns=list(VOTES))


def test_win_rates_against_scipy_and_a_slow_count() -> None:
    votes = made_votes({"p": 0.0, "q": 0.8, "r": -0.5}, 40, 1, tie=0.25, seed=3)
    rates, _ = preferences(votes, draws=20)
    for row in rates.to_dict("records"):
        own = [
            vote
            for vote in votes.to_dict("records")
            if (vote["a"], vote["b"]) == (row["a"], row["b"])
            and row["attribute"] in ("all", vote["attribute"])
        ]
        wins = sum(vote["winner"] == row["a"] for vote in own)
        losses, ties = (
            sum(vote["winner"] == row["b"] for vote in own),
            sum(vote["winner"] == "" for vote in own),
        )
        assert (row["wins_a"], row["wins_b"], row["ties"], row["votes"]) == (
            wins,
            losses,
            ties,
            len(own),
        )
        test = binomtest(wins, wins + losses)
        assert row["rate_a"] == pytest.approx(wins / (wins + losses))
        assert row["p"] == pytest.approx(test.pvalue)
        assert (row["low"], row["high"]) == pytest.approx(
            tuple(test.proportion_ci(method="wilson"))
        )
        assert row["tie_share"] == pytest.approx(ties / len(own)) and ties
    for whole in (True, False):  # two families: overall, and every attribute and pair
        family = rates[(rates["attribute"] == "all") == whole]
        np.testing.assert_allclose(family["p_holm"], holm(family["p"].to_numpy()))
        order = family.sort_values("p")
        assert order["p_holm"].iloc[0] == pytest.approx(min(1, len(family) * order["p"].iloc[0]))


def test_all_ties_have_no_rate() -> None:
    rates, strengths = preferences(made_votes({"p": 0.0, "q": 0.0}, 5, 1, tie=1.0), draws=20)
    assert rates["rate_a"].isna().all()
    assert rates["p"].isna().all()
    assert (rates["ties"] == rates["votes"]).all()
    assert strengths.empty


def test_one_comparison_has_no_bootstrap_interval() -> None:
    votes = made_votes({"p": 5.0, "q": 0.0}, 1, 4)
    rates, _ = preferences(votes, draws=20)
    assert rates[["boot_low", "boot_high"]].isna().all(axis=None) and rates["low"].notna().all()
    # Of two comparisons, one an attribute, only the row over both attributes has one.
    rates, _ = preferences(made_votes({"p": 5.0, "q": 0.0}, 2, 4), draws=20)
    assert rates["boot_low"].notna().tolist() == (rates["attribute"] == "all").tolist()


def test_bradley_terry_of_two_is_the_log_odds_of_wins() -> None:
    wins = np.array([[[0, 17], [5, 0]], [[0, 3], [3, 0]], [[0, 1], [400, 0]]], float)
    found = fit(wins)
    np.testing.assert_allclose(
        found[:, 0] - found[:, 1], np.log(wins[:, 0, 1] / wins[:, 1, 0]), atol=1e-7
    )
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-12)


def test_bradley_terry_is_the_logistic_regression_of_sklearn() -> None:
    rng = np.random.default_rng(2)
    wins = rng.integers(1, 30, (5, 5)).astype(float)
    np.fill_diagonal(wins, 0)
    rows, weights = [], []
    for i in range(5):
        for j in range(5):
            if i != j:
                rows.append(np.eye(5)[i] - np.eye(5)[j])
                weights.append(wins[i, j])
    both = np.concatenate([rows, -np.array(rows)])
    labels = np.repeat([1, 0], len(rows))
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
    model.fit(both, labels, np.tile(weights, 2))
    expected = model.coef_[0] - model.coef_[0].mean()
    np.testing.assert_allclose(fit(wins), expected, atol=1e-5)
    order = rng.permutation(5)
    np.testing.assert_allclose(fit(wins[np.ix_(order, order)]), fit(wins)[order], atol=1e-7)
    np.testing.assert_allclose(fit(np.stack([wins, 3 * wins]))[1], fit(wins), atol=1e-7)


def test_bradley_terry_recovers_planted_strengths() -> None:
    planted = {"p": -1.0, "q": -0.2, "r": 0.3, "s": 0.9}
    votes = made_votes(planted, 500, 4, tie=0.1, seed=1, shared=False)
    _, table = preferences(votes, draws=300)
    table = table[table["attribute"] == "all"].set_index("method")
    assert list(table.index) == ["s", "r", "q", "p"]
    for name, value in planted.items():
        assert table.loc[name, "strength"] == pytest.approx(value, abs=0.12)
        assert table.loc[name, "low"] < value < table.loc[name, "high"]
        assert 0.05 < table.loc[name, "high"] - table.loc[name, "low"] < 0.4


def test_strengths_without_an_end_are_said_to_be() -> None:
    wins = np.array([[0, 4, 4], [0, 0, 3], [0, 2, 0]], float)  # the first was never beaten
    assert not connected(wins) and connected(wins + wins.T)
    assert connected(np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], float))  # a ring of wins
    assert connected(np.stack([wins, wins + wins.T])).tolist() == [False, True]
    votes = made_votes({"p": 30.0, "q": 0.0, "r": 0.0}, 20, 1)
    _, table = preferences(votes, draws=50)
    assert table["strength"].isna().all() and table["note"].str.contains("never beaten").all()
    nearly = made_votes({"p": 3.0, "q": 0.0, "r": 0.0}, 20, 1, seed=6)
    _, table = preferences(nearly, draws=200)
    whole = table[table["attribute"] == "all"]
    assert whole["strength"].notna().all() and whole["low"].isna().all()
    assert whole["note"].str.contains("without an end").all()


def test_bootstrap_keeps_comparisons_whole_and_knows_one_rater_from_many() -> None:
    """Ten raters who all say the same know no more than one: the interval of the bootstrap stays,
    Wilson's shrinks.
    """
    one = made_votes({"p": 0.0, "q": 0.5}, 60, 1, seed=2)
    many = pd.concat([one.assign(rater=f"r{k}") for k in range(10)], ignore_index=True)
    tables = [
        preferences(votes, draws=2000)[0].query("attribute == 'all'").iloc[0]
        for votes in (one, many)
    ]
    widths = [row["boot_high"] - row["boot_low"] for row in tables]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)
    assert tables[1]["high"] - tables[1]["low"] < 0.5 * (tables[0]["high"] - tables[0]["low"])
    rate = tables[0]["rate_a"]
    assert widths[0] == pytest.approx(
        2 * 1.96 * np.sqrt(rate * (1 - rate) / 60), rel=0.15
    )  # one vote a comparison
    drawn = bootstrap_wins(one, ["p", "q"], 0, 50)
    assert (drawn.sum((1, 2)) == len(one)).all() and win_counts(one, ["p", "q"]).sum() == len(one)
    shuffled = bootstrap_wins(one.sample(frac=1, random_state=1), ["p", "q"], 0, 50)
    np.testing.assert_array_equal(shuffled, drawn)  # any order of files
    # one rater for p, one for q: the raters differ more than their 60 comparisons can tell
    split = pd.concat(
        [one.assign(rater="r0", winner="p"), one.assign(rater="r1", winner="q")], ignore_index=True
    )
    row = preferences(split, draws=400)[0].iloc[0]
    assert (row["boot_low"], row["boot_high"]) == (0.0, 1.0) and row["low"] > 0.4


def test_consistency_counts_planted_repeats() -> None:
    first = made_votes({"p": 0.0, "q": 0.0}, 12, 1, tie=0.3, seed=5).assign(seconds=np.arange(12.0))
    again = first.assign(repeat_of=first["question"], question="again" + first["question"])
    again.loc[[1, 4, 6], "winner"] = [
        {"p": "q", "q": "", "": "p"}[one] for one in first.loc[[1, 4, 6], "winner"]
    ]
    stranger = again.iloc[:2].assign(
        rater="r9"
    )  # a repeat whose first showing was not answered counts for nothing
    table = consistency(pd.concat([first, again, stranger], ignore_index=True)).set_index("rater")
    assert (table.loc["r0", "repeats"], table.loc["r0", "alike"]) == (12, 9)
    assert table.loc["r9", "repeats"] == 0
    assert table.loc["all", "share"] == 0.75 and table.loc["r0", "seconds"] == 5.5
    assert (table.loc["r0", "low"], table.loc["r0", "high"]) == pytest.approx(
        tuple(binomtest(9, 12).proportion_ci(method="wilson"))
    )


def test_krippendorff_of_the_published_example() -> None:
    """Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", C: 4 observers, 12 units,
    nominal 0.743.
    """
    none = 0
    units = [
        [1, 1, none, 1],
        [2, 2, 3, 2],
        [3, 3, 3, 3],
        [3, 3, 3, 3],
        [2, 2, 2, 2],
        [1, 2, 3, 4],
        [4, 4, 4, 4],
        [1, 1, 2, 1],
        [2, 2, 2, 2],
        [none, 5, 5, 5],
        [none, none, 1, 1],
        [none, none, 3, none],
    ]
    counts = np.array([[row.count(value) for value in range(1, 6)] for row in units], float)
    percent, alpha, pairs = krippendorff(counts[counts.sum(1) > 1])
    assert alpha == pytest.approx(0.743, abs=5e-4)
    same = [a == b for row in units for a, b in combinations([v for v in row if v], 2)]
    assert percent == pytest.approx(np.mean(same)) and pairs == len(same)
    assert np.isnan(krippendorff(np.array([[2.0, 0.0], [3.0, 0.0]]))[1])
    assert krippendorff(np.zeros((0, 3)))[2] == 0


def test_agreement_of_raters_against_scotts_pi() -> None:
    """With two raters and nothing missing, alpha = pi + (1 - pi) / (2 n) for Scott's pi."""
    votes = made_votes({"p": 0.0, "q": 1.5}, 50, 2, tie=0.2, seed=8)
    row = agreement(votes).query("attribute == 'all'").iloc[0]
    table = votes.pivot(index="comparison", columns="rater", values="winner")
    seen = (table["r0"] == table["r1"]).mean()
    chance = sum(((votes["winner"] == name).mean()) ** 2 for name in ("p", "q", ""))
    pi = (seen - chance) / (1 - chance)
    assert row["percent"] == pytest.approx(seen)
    assert row["alpha"] == pytest.approx(pi + (1 - pi) / 100)
    assert (row["raters"], row["comparisons"], row["pairs"]) == (2, 50, 50)
    alone = agreement(votes[votes["rater"] == "r0"])
    assert (alone["comparisons"] == 0).all() and alone["alpha"].isna().all()


# -- the command -----------------------------------------------------------------------------------
# ----------------
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
            [
                "human",
                "make",
                str(runs),
                "--out",
                str(study),
                "--methods",
                "quickest,laziest,slowpoke",
                "--pairs",
                "9",
                "--intro",
                str(intro),
            ]
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
