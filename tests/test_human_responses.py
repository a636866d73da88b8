"""Answers of raters: unblinded, counted once, and refused where they are of another study or hostile."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from editbench.base.errors import BadFile, EditbenchError
from editbench.cli import main
from editbench.studies.human.agreement import consistency
from editbench.studies.human.preferences import preferences
from editbench.studies.human.responses import LIMIT, read_responses, read_sheet
from editbench.studies.human.study import read_key
from tests.human_study import answer_page, saved, study_of, walked_runs


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return walked_runs(tmp_path_factory.mktemp("toy") / "runs")


@pytest.fixture(scope="module")
def study(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_of(root, tmp_path_factory.mktemp("studies") / "study")


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
