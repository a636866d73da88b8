"""Tests whether every file of a run is protected against a single changed byte.

The script makes a small bank, fit, record, inversion and baseline with the toy networks of the
tests. Then it changes one random byte of one file, runs the command that reads this file, restores
all files, and goes on with the next file. Each change ends with one of four outcomes:

    rebuilt   editbench made the damaged file again, and the results equal the original ones
    refused   editbench stopped with an error that names the file
    same      the JSON file has the same content as before (only white space changed)
    SILENT    editbench used the damaged file, or left it in place without a message

The output has one row per outcome and kind of file, with the number of changes. The last lines list
each silent change. The exit code is 1 if any change was silent, otherwise 0.

    python benchmarks/byte_flips.py                  # 200 changes, about 10 CPU seconds
    python benchmarks/byte_flips.py 20 --seed 1      # a short run with other random bytes

The result guards the seals and checksums of banks, fits, records, inversions and baselines.
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
from editbench.inversion.load import InversionRequest
from editbench.inversion.store import Inversion
from editbench.regression.file import read_baseline
from editbench.report.load import load
from editbench.run import loading
from editbench.run.compose import compose_settings
from editbench.run.inversions import request_inversion
from editbench.run.job import run_job
from editbench.run.record import Record
from editbench.run.settings import Settings

ROOT = Path(__file__).resolve().parents[1]  # of the repository
# The tests have a toy world, which is fast enough for hundreds of jobs.
sys.path.insert(0, str(ROOT))

SKIPPED_FOLDERS = (".locks",)  # lock files; nothing reads their content
# People look at these files of an inversion. No command reads them.
SKIPPED_FILES = ("index.html", "reconstructions.png")
# Four images and two steps of the optimiser keep the inversion fast.
INVERSION = ["inversion=faces", "inversion.images=faces:4", "inversion.steps=2"]


def inversion_request() -> InversionRequest:
    """Compose the request for the small inversion of the state."""
    request = request_inversion(compose_settings(INVERSION))
    assert request is not None  # `INVERSION` chooses one
    return request


def make_state(folder: Path) -> Settings:
    """Make a bank, a fit, a record, an inversion and a baseline below a folder.

    Args:
        folder: that receives the files; it does not exist yet.

    Returns:
        The settings of the run.
    """
    from tests.toy_world import toy_config

    config = toy_config(folder / "runs", "bank.n=1000", "starts.n=60")
    # The cache lies beside the records, so that other commands can find it.
    config.cache = str(folder / "cache")
    settings = Settings.from_config(config)
    outcome = run_job(settings)
    assert outcome.status == "done", outcome.reason
    words = [str(folder / "runs"), "--out", str(folder / "baseline.json"), "--reason", "pinned"]
    assert pin_baseline(words) == 0
    build_inversion(folder / "inversion", inversion_request().task)
    return settings


def list_files(folder: Path) -> list[Path]:
    """List every file of the state that a command reads, relative to the folder of the state."""
    found = []
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        skipped = bool(set(SKIPPED_FOLDERS) & set(name.parts)) or name.name in SKIPPED_FILES
        if file.is_file() and not skipped:
            found.append(name)
    return found


def flip_byte(path: Path, rng: np.random.Generator) -> str:
    """Change one random byte of a file.

    Args:
        path: of the file.
        rng: draws the position and the change.

    Returns:
        A description of the change: position, old value and new value.
    """
    data = bytearray(path.read_bytes())
    position = int(rng.integers(len(data)))
    old = data[position]
    # An exclusive or with a number above 0 always changes the byte.
    data[position] = old ^ int(rng.integers(1, 256))
    path.write_bytes(bytes(data))
    return f"byte {position}: {old} -> {data[position]}"


def forget_open_banks() -> None:
    """Close the banks that this process keeps open, since the next command would not have them."""
    loading._OPEN_BANKS.clear()


def run_again(state: Path, settings: Settings) -> pd.DataFrame:
    """Delete the record, run the job again, and return the rows of its metrics.

    Raises:
        EditbenchError: the job failed, with the reason of its record.
    """
    shutil.rmtree(state / "runs")
    outcome = run_job(settings)
    if outcome.status != "done":
        raise EditbenchError(outcome.reason)
    return Record.read(state / "runs" / outcome.run_id).rows()


def read_record(state: Path, settings: Settings, name: Path) -> pd.DataFrame:
    """Load the record as a report does, start its job again, and return the rows of its metrics.

    Args:
        state: folder of the state.
        settings: of the job.
        name: of the damaged file, relative to the state.

    Raises:
        EditbenchError: the report found the damage, and the job used the record nevertheless.
    """
    problems = load(state / "runs").problems
    folder = state / "runs" / name.parts[1]
    if name.name == Record.CODES:
        # Only the command that draws images again reads the codes.
        Record.read(folder).path(name.name)
    outcome = run_job(settings)
    if outcome.reused and problems:
        raise EditbenchError("; ".join(problem.reason for problem in problems))
    return Record.read(state / "runs" / outcome.run_id).rows()


def has_same_content(path: Path, original: Path) -> bool:
    """Whether two JSON files have the same content, as after a change of white space."""
    if path.suffix != ".json":
        return False
    try:
        return json.loads(path.read_bytes()) == json.loads(original.read_bytes())
    except ValueError:
        return False


def read_damaged(state: Path, pristine: Path, settings: Settings, name: Path) -> str:
    """Run the command that reads a damaged file, and classify what it did.

    Args:
        state: folder with the damaged file.
        pristine: folder with the original files.
        settings: of the job.
        name: of the damaged file, relative to both folders.

    Returns:
        'rebuilt', 'refused', 'same', or 'SILENT' with details.
    """
    readers: dict[str, Callable[[], object]] = {
        "cache": lambda: run_again(state, settings),
        "runs": lambda: read_record(state, settings, name),
        "inversion": lambda: Inversion(state / "inversion"),
        "baseline.json": lambda: read_baseline(state / "baseline.json"),
    }
    # Only the command that makes or resumes an inversion reads this file.
    if name == Path("inversion/begun.json"):
        request = inversion_request()
        readers["inversion"] = lambda: build_inversion(state / "inversion", request.task)
    if has_same_content(state / name, pristine / name):
        return "same"
    before = (state / name).read_bytes()
    try:
        found = readers[name.parts[0]]()
    except EditbenchError as error:
        named = name.name in str(error) or name.parent.name in str(error)
        # An error that does not name the file does not help the user to repair it.
        return "refused" if named else f"SILENT ({error})"
    # The command went on, so it must have made the file again, with the same results.
    replaced = not (state / name).exists() or (state / name).read_bytes() != before
    if not replaced:
        return "SILENT"
    if isinstance(found, pd.DataFrame):
        record = next(path for path in (pristine / "runs").iterdir() if Record.is_record(path))
        pd.testing.assert_frame_equal(found, Record.read(record).rows())
    return "rebuilt"


def kind_of(name: Path) -> str:
    """The row of the table that counts a file: the folder that holds it, and its name."""
    folder = name.parts[1] if name.parts[0] == "cache" else name.parts[0]
    if folder == "fits":
        # The names of fits are hashes of their content, which say nothing to a reader.
        return f"fits/*{''.join(name.suffixes)}"
    return f"{folder}/{name.name}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "flips",
        type=int,
        nargs="?",
        default=200,
        help="number of changed bytes; the files take turns (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the positions and values of the bytes (default: %(default)s)",
    )
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    counts: Counter[tuple[str, str]] = Counter()
    silent = []
    with tempfile.TemporaryDirectory() as folder:
        # The settings contain the path of the state, so every change is made in the same place.
        state = Path(folder) / "state"
        pristine = Path(folder) / "pristine"
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            settings = make_state(state)
        shutil.copytree(state, pristine)
        files = list_files(pristine)
        for number in range(arguments.flips):
            name = files[number % len(files)]
            shutil.rmtree(state)
            shutil.copytree(pristine, state)
            # A flip must be noticed by a new process, which has no bank open.
            forget_open_banks()
            change = flip_byte(state / name, rng)
            with redirect_stderr(StringIO()):
                outcome = read_damaged(state, pristine, settings, name)
            if outcome.startswith("SILENT"):
                silent.append(f"{name}, {change}: {outcome}")
            counts[kind_of(name), outcome.partition(" ")[0]] += 1
    print(f"{'outcome':8} {'flips':>5}  file")
    for (file, outcome), count in sorted(counts.items()):
        print(f"{outcome:8} {count:5}  {file}")
    print(f"{arguments.flips} flips in {len(files)} files, {len(silent)} silent")
    print("\n".join(silent))
    return int(bool(silent))


if __name__ == "__main__":
    sys.exit(main())
