"""What becomes of one flipped byte in any file that a run leaves or uses.

    python benchmarks/byte_flips.py 200 --seed 0

A small bank, fit, record, inversion and baseline are made. Then one byte of one file is changed at a
time, and whatever reads that file runs again. Each flip ends as one of

    rebuilt   the damaged file was made anew, and the numbers are the old ones
    refused   an error names the file
    same      the file says what it said: white space of a JSON file has changed
    SILENT    the changed file was used, or stays there unnoticed

The exit code is 1 where a flip was silent.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from editbench.base.errors import EditbenchError
from editbench.commands.baseline import main as pin_baseline
from editbench.inversion.build import build_inversion
from editbench.inversion.store import Inversion
from editbench.regression.file import read_baseline
from editbench.report.load import load
from editbench.run import inversions, loading
from editbench.run.compose import compose_settings
from editbench.run.job import run_job
from editbench.run.record import Record
from editbench.run.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the toy world of the tests is fast enough for hundreds of jobs
SKIPPED = (".locks",)
PAGES = ("index.html", "reconstructions.png")  # of an inversion, for people; nothing reads them


def make_state(folder: Path) -> Settings:
    """A bank, a fit, a record, an inversion and a baseline below `folder`; the settings of the run."""
    from tests.toy_world import toy_config

    config = toy_config(folder / "runs", "bank.n=1000", "starts.n=60")
    config.cache = str(folder / "cache")  # beside the records: other commands read it
    settings = Settings.from_config(config)
    outcome = run_job(settings)
    assert outcome.status == "done", outcome.reason
    words = [str(folder / "runs"), "--out", str(folder / "baseline.json"), "--reason", "pinned"]
    assert pin_baseline(words) == 0
    words = ["inversion=faces", "inversion.images=faces:4", "inversion.steps=2"]
    request = inversions.request_inversion(compose_settings(words))
    build_inversion(folder / "inversion", request.task())
    return settings


def files_of(folder: Path) -> list[Path]:
    """Every file of the state that something reads, relative to its folder."""
    found = []
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not set(SKIPPED) & set(name.parts) and name.name not in PAGES:
            found.append(name)
    return found


def flip_byte(path: Path, rng: np.random.Generator) -> str:
    """Change one byte of a file; where, and from what to what."""
    data = bytearray(path.read_bytes())
    place = int(rng.integers(len(data)))
    old = data[place]
    data[place] = old ^ int(rng.integers(1, 256))
    path.write_bytes(bytes(data))
    return f"byte {place}: {old} -> {data[place]}"


def new_process() -> None:
    """Forget what a process keeps open, as the next command has forgotten it."""
    loading._OPEN_BANKS.clear()


def run_anew(state: Path, settings: Settings) -> pd.DataFrame:
    """The rows of the job after its record was deleted."""
    shutil.rmtree(state / "runs")
    outcome = run_job(settings)
    if outcome.status != "done":
        raise EditbenchError(outcome.reason)
    return Record.read(state / "runs" / outcome.run_id).rows()


def read_record(state: Path, settings: Settings, name: Path) -> pd.DataFrame:
    """The rows after the job was started again, and after its report was read."""
    problems = load(state / "runs").problems
    folder = state / "runs" / name.parts[1]
    if name.name == Record.CODES:  # redrawing alone reads it
        Record.read(folder).path(name.name)
    outcome = run_job(settings)
    if outcome.reused and problems:
        raise EditbenchError("; ".join(problem.reason for problem in problems))
    return Record.read(state / "runs" / outcome.run_id).rows()


def says_the_same(path: Path, original: Path) -> bool:
    """Whether two JSON files have the same content. A clone may change the ends of their lines."""
    if path.suffix != ".json":
        return False
    try:
        return json.loads(path.read_bytes()) == json.loads(original.read_bytes())
    except ValueError:
        return False


def consequence(state: Path, pristine: Path, settings: Settings, name: Path) -> str:
    """Run what reads a file, and say what became of its damage."""
    consumers: dict[str, Callable[[], object]] = {
        "cache": lambda: run_anew(state, settings),
        "runs": lambda: read_record(state, settings, name),
        "inversion": lambda: Inversion(state / "inversion"),
        "baseline.json": lambda: read_baseline(state / "baseline.json"),
    }
    if name == Path("inversion/begun.json"):  # read where an inversion is made, or made again
        request = inversions.request_inversion(
            compose_settings(["inversion=faces", "inversion.images=faces:4", "inversion.steps=2"])
        )
        consumers["inversion"] = lambda: build_inversion(state / "inversion", request.task())
    if says_the_same(state / name, pristine / name):
        return "same"
    before = (state / name).read_bytes()
    try:
        found = consumers[name.parts[0]]()
    except EditbenchError as error:
        named = name.name in str(error) or name.parent.name in str(error)
        return "refused" if named else f"SILENT ({error})"
    # Where the consumer went on, the file must have been made anew, with the old numbers.
    replaced = not (state / name).exists() or (state / name).read_bytes() != before
    if not replaced:
        return "SILENT"
    if isinstance(found, pd.DataFrame):
        record = next(path for path in (pristine / "runs").iterdir() if Record.is_record(path))
        pd.testing.assert_frame_equal(found, Record.read(record).rows())
    return "rebuilt"


def kind_of(name: Path) -> str:
    """The row of the table that a file counts in: what holds it, and its name."""
    folder = name.parts[1] if name.parts[0] == "cache" else name.parts[0]
    if folder == "fits":  # named by their content
        return f"fits/*{''.join(name.suffixes)}"
    return f"{folder}/{name.name}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("flips", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    counts: Counter[tuple[str, str]] = Counter()
    silent = []
    with tempfile.TemporaryDirectory() as folder:
        # Identities hold no path, but the settings do: the state keeps its place for every flip.
        state = Path(folder) / "state"
        pristine = Path(folder) / "pristine"
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            settings = make_state(state)
        shutil.copytree(state, pristine)
        files = files_of(pristine)
        for number in range(arguments.flips):
            name = files[number % len(files)]
            shutil.rmtree(state)
            shutil.copytree(pristine, state)
            new_process()
            what = flip_byte(state / name, rng)
            with redirect_stderr(StringIO()):
                outcome = consequence(state, pristine, settings, name)
            if outcome.startswith("SILENT"):
                silent.append(f"{name}, {what}: {outcome}")
            counts[kind_of(name), outcome.partition(" ")[0]] += 1
    for (file, outcome), count in sorted(counts.items()):
        print(f"{outcome:8} {count:4}  {file}")
    print(f"{arguments.flips} flips in {len(files)} files, {len(silent)} silent")
    print("\n".join(silent))
    return int(bool(silent))


if __name__ == "__main__":
    sys.exit(main())
