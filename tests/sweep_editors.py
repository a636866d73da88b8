"""Editors of the toy world that note what they do in a file, and that hang or die where a test asks for it."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

from tests.toy_world import AlongColumn

JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


class Noted(AlongColumn):
    """Appends 'LABEL check ATTRIBUTE', 'LABEL fit' and 'LABEL fitted' to the file FOLDER/notes, a line each.

    A file named DIE or HANG beside it is taken away by the first fit that finds it, and that fit is killed or never
    ends. While there is a file HOLD, fits wait. The option is the folder: a file's bytes would be part of a job's name.
    """

    def __init__(self, folder: str, label: str) -> None:
        super().__init__()
        self.notes, self.label = Path(folder) / "notes", label

    def note(self, text: str) -> None:
        with self.notes.open("a") as file:
            file.write(f"{self.label} {text}\n")

    def check(self, generator, attributes, attribute) -> None:
        super().check(generator, attributes, attribute)
        self.note(f"check {attribute}")

    def fit(self, data):
        self.note("fit")
        for name in ("DIE", "HANG"):
            try:
                self.notes.with_name(name).unlink()
            except FileNotFoundError:
                continue
            if name == "DIE":
                os.kill(os.getpid(), signal.SIGKILL)
            self.note("hangs")
            try:
                time.sleep(3600)
            except KeyboardInterrupt:
                self.note("interrupted")
                raise
        while self.notes.with_name("HOLD").exists():
            time.sleep(0.01)
        report = super().fit(data)
        self.note("fitted")
        return report


def toy_words(tmp_path: Path) -> list[str]:
    """The words of a sweep on the toy world, with methods one and two, which note what they do in tmp_path/notes."""
    conf = tmp_path / "conf"
    shutil.copytree(Path(__file__).with_name("conf"), conf)
    for name in ("one", "two"):
        (conf / "method" / f"{name}.yaml").write_text(
            f"name: {name}\n_target_: tests.sweep_editors.Noted\nlabel: {name}\nfolder: {tmp_path}\n"
        )
    return [
        "--config-dir",
        str(conf),
        "generator=toy",
        "scorer=toy",
        "budget=toy",
        f"cache={tmp_path}/cache",
    ]


def notes(tmp_path: Path) -> Counter[str]:
    """How often each thing was noted."""
    file = tmp_path / "notes"
    return Counter(file.read_text().splitlines() if file.exists() else [])


def records(folder: Path) -> dict[str, dict]:
    """Id of a run -> the content of its status.json."""
    return {
        path.parent.name: json.loads(path.read_text()) for path in folder.glob("[!.]*/status.json")
    }


def outcomes(folder: Path) -> dict[int, dict]:
    """Job number -> outcome of the one sweep that wrote below `folder`."""
    (sweep,) = (folder / ".sweeps").iterdir()
    return {int(file.stem): json.loads(file.read_text()) for file in sweep.glob("*.json")}
