"""A study on toy runs, its pages, and answers to them."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from editbench.base.files import write_json
from editbench.studies.human.study import StudyDesign, make_study, read_key
from tests.by_config import run_job
from tests.toy_world import toy_config

NAMES = ("quickest", "slowpoke", "laziest")


def walked_runs(folder: Path) -> Path:
    """Three walkers of other step lengths on two attributes; the laziest misses the cap from some starts."""
    for attribute in ("a", "c"):
        for name, delta in zip(NAMES, (0.5, 0.2, 0.03)):
            config = toy_config(folder, f"attribute={attribute}", delta=delta, name=name)
            assert run_job(config).status == "done"
    return folder


def study_of(root: Path, out: Path, **design: object) -> Path:
    """A study with two pages whose questions are repeated in part."""
    make_study(root, out, StudyDesign(pairs=18, sets=2, duplicates=0.2, **design))
    return out


def page_data(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    )


def pixels(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def copied(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root, tmp_path / "runs", ignore=shutil.ignore_patterns("cache", ".locks"))
    return tmp_path / "runs"


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
