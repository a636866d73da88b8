"""Reading the files of raters into one row per vote. The files are not trusted and are checked."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from editbench.base.errors import BadFile, EditbenchError
from editbench.studies.human import ANSWERS, FORMAT, RATER, VERSION

LIMIT = 20_000_000  # bytes; a page with ten thousand questions saves less than two million
VOTES = {
    "rater": "str",
    "set": "str",
    "question": "str",
    "repeat_of": "str",
    "comparison": "str",
    "attribute": "str",
    "a": "str",
    "b": "str",
    "asked": "str",
    "answer": "str",
    "winner": "str",
    "seconds": "float64",
}


@dataclass(frozen=True)
class AnswerSheet:
    """One rater's file for one page.

    Args:
        path: of the file.
        rater: their code.
        page: name of the page.
        saved: time of saving, as the page wrote it.
        answers: question -> asked -> 'left', 'right' or 'none'.
        seconds: question -> seconds that its screen was open.
        missing: number of answers that were not given.
        unknown: number of answers to questions that this page does not have.
        invalid: number of answers with a wrong value.
        note: text about other files of this rater.
    """

    path: Path
    rater: str
    page: str
    saved: str
    answers: dict[str, dict[str, str]]
    seconds: dict[str, float]
    missing: int = 0
    unknown: int = 0
    invalid: int = 0
    note: str = ""

    @property
    def given(self) -> int:
        return sum(map(len, self.answers.values()))


@dataclass(frozen=True)
class Responses:
    """The answers of all raters.

    Args:
        votes: one row per answer, with the columns VOTES. `winner` is a method; '' for none, both
            or not applicable. `repeat_of` is the question that was shown again; '' for a first
            showing.
        sheets: the files that count.
        left_out: (file, why it does not count).
        superseded: (file, text about the file of the same rater that counts instead).
    """

    votes: pd.DataFrame
    sheets: list[AnswerSheet] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    superseded: list[tuple[str, str]] = field(default_factory=list)


def read_responses(paths: Sequence[Path], key: dict) -> Responses:
    """Read all files that belong to a study.

    Args:
        paths: files of raters; those that are not of this study are listed in the result.
        key: content of the study's key.json.

    Raises:
        EditbenchError: no file can be counted.
    """
    sheets = []
    left_out = []
    for path in paths:
        # The answers of other raters count even if one file is broken.
        try:
            sheets.append(read_sheet(path, key))
        except EditbenchError as error:
            left_out.append((str(path), str(error)))
    # After all files were read, since only then is it known which file of a rater counts.
    kept, superseded = _one_each(sheets)
    if not kept:
        raise EditbenchError(
            "no file can be counted: " + "; ".join(f"{path}: {reason}" for path, reason in left_out)
        )
    rows = [row for sheet in kept for row in _votes(sheet, key)]
    return Responses(
        pd.DataFrame(rows, columns=list(VOTES)).astype(VOTES), kept, left_out, superseded
    )


def read_sheet(path: Path, key: dict) -> AnswerSheet:
    """Check one file and keep the answers that are valid.

    Args:
        path: of the file.
        key: content of the study's key.json.

    Raises:
        BadFile: the file is not this study's; gives the reason.
    """
    content = _json(path)
    # The kind first: any other JSON would give a misleading reason further down.
    if content.get("format") != f"{FORMAT} responses" or content.get("version") != VERSION:
        raise BadFile("not a file of responses that a page of `editbench human make` saved")
    # Another study of the same seed can have the same ids of questions.
    if content.get("study") != key["study"]:
        raise BadFile(
            f"answers of another study ({_short(content.get('study'))}); this one is {key['study']}"
        )
    rater = content.get("rater")
    page = content.get("set")
    # Codes end up in tables, file lists and spreadsheets, so only harmless characters are taken.
    if not isinstance(rater, str) or not re.fullmatch(RATER, rater):
        raise BadFile(
            f"the rater code {_short(rater)} is not one: letters, digits, dot, dash, underscore, "
            "at most 40, and not 'all'"
        )
    # A page knows its own questions only; one of another page is counted as unknown.
    mine = {name for name, one in key["questions"].items() if one["set"] == page}
    if not isinstance(page, str) or not mine:
        raise BadFile(f"the study has no page {_short(page)}")
    answers = content.get("answers")
    seconds = content.get("seconds")
    if not isinstance(answers, dict) or not isinstance(seconds, dict):
        raise BadFile("it holds no answers")
    kept: dict[str, dict[str, str]] = {}
    unknown = invalid = 0
    for question, given in answers.items():
        if question not in mine:
            unknown += 1
            continue
        # A value that is not an object counts as one invalid answer.
        pairs = given.items() if isinstance(given, dict) else [("", given)]
        good = {
            name: value
            for name, value in pairs
            if name in key["asked"] and isinstance(value, str) and value in ANSWERS
        }
        invalid += len(pairs) - len(good)
        kept[question] = good
    sheet = AnswerSheet(
        path,
        rater,
        page,
        # Shortened, since it is untrusted text that is only used for sorting.
        str(content.get("saved", ""))[:40],
        kept,
        _numbers(seconds),
        0,
        unknown,
        invalid,
    )
    # Known only after all answers were checked.
    return replace(sheet, missing=len(mine) * len(key["asked"]) - sheet.given)


def _json(path: Path) -> dict:
    try:
        # Checked before the whole file is read into memory.
        if path.stat().st_size > LIMIT:
            raise BadFile(f"larger than {LIMIT / 1e6:.0f} MB: no page saves that much")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFile(f"not readable ({error.strerror or error})") from error
    # A wrong encoding is a ValueError too, and thousands of nested brackets a RecursionError.
    except (ValueError, RecursionError) as error:
        raise BadFile(f"not JSON ({type(error).__name__}: {_short(error)})") from error
    if not isinstance(content, dict):
        raise BadFile(f"holds {type(content).__name__}, expected an object")
    return content


def _numbers(seconds: dict) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in seconds.items()
        # JSON's true is an int in Python. The upper limit excludes infinity and absurd times.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9
    }


def _short(value: object) -> str:
    """Untrusted text, shortened and printable."""
    text = repr(value) if isinstance(value, str) else str(value)
    # Control characters could change what the terminal shows.
    text = "".join(letter if letter.isprintable() else " " for letter in text[:80])
    return text + ("..." if len(str(value)) > 80 else "")


def _one_each(sheets: list[AnswerSheet]) -> tuple[list[AnswerSheet], list[tuple[str, str]]]:
    """Choose one file per rater and page: the one with most answers, then the one saved last.

    Args:
        sheets: all files.

    Returns:
        The chosen files, and for each other file a text about the one that counts instead.
    """
    groups: dict[tuple[str, str], list[AnswerSheet]] = {}
    for sheet in sheets:
        groups.setdefault((sheet.rater, sheet.page), []).append(sheet)
    kept = []
    superseded = []
    for (rater, page), group in sorted(groups.items()):
        # The path comes last, so that the choice among equal files is reproducible.
        best, *others = sorted(
            group, key=lambda one: (one.given, one.saved, str(one.path)), reverse=True
        )
        # Noted, since a rater may have changed their mind, or two raters may share a code.
        changed = sum(one.answers != best.answers for one in others)
        kept.append(
            replace(
                best,
                note=f"{len(group)} files of this rater, {changed} of them with other answers; the "
                "fullest, then last saved, counts"
                if others
                else "",
            )
        )
        superseded += [
            (str(one.path), f"rater {rater} has another file for page {page}: {best.path} counts")
            for one in others
        ]
    return kept, superseded


def _votes(sheet: AnswerSheet, key: dict) -> list[dict]:
    rows = []
    for question, given in sheet.answers.items():
        one = key["questions"][question]
        # Sorted, so that a pair of methods has the same order whichever side they were on.
        a, b = sorted((one["left"], one["right"]))
        for asked, answer in given.items():
            rows.append(
                {
                    "rater": sheet.rater,
                    "set": sheet.page,
                    "question": question,
                    "repeat_of": one["duplicate_of"] or "",
                    "comparison": one["comparison"],
                    "attribute": one["attribute"],
                    "a": a,
                    "b": b,
                    "asked": asked,
                    "answer": answer,
                    # The method on the side that was chosen.
                    "winner": "" if answer == "none" else one[answer],
                    "seconds": sheet.seconds.get(question, float("nan")),
                }
            )
    return rows
