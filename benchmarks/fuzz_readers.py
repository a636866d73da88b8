"""Damaged files by the thousand against the readers of other people's files: no crash, no hang,
bounded memory.

Case i depends on (seed, i) alone: a good file (a golden of ../shared/data, or a small one made
here), a reader of its kind, and one to four changes: bytes flipped or replaced, lengths
overwritten, parts cut, doubled, inserted or zeroed; in pickles half of the changes aim at opcodes.
Workers read under RLIMIT_AS and report; any outcome but a value or a BadFile is a failure, and so
is a worker that dies or takes longer than its limit.

    python benchmarks/fuzz_readers.py [CASES] [--seed 0] [--data ../shared/data] [--extra-mb 1024]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import pickle
import pickletools
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from editbench.bank.importing import read_matrix
from editbench.base.errors import BadFile
from editbench.networks.external import read_tensors
from editbench.networks.pickles import read_pickle, read_torch
from editbench.networks.pickles.reader import FLOOR, RATIO

CHUNK = 500  # cases of one worker
CASE_SECONDS = 20  # of one case, far above what any takes
GOLDEN_SHARE = 0.15  # of the cases; each takes 100 times as long as a small file
LENGTHS = 2**31 - 1, 2**32 - 1, 2**40, 2**60, 2**63, 2**64 - 1  # written over eight bytes
Reader = Callable[[Path], object]


def small_files() -> dict[str, tuple[bytes, Reader]]:
    """name -> (content, reader) of small files in every format."""
    # Fixed, so that case i is the same file in every run.
    rng = np.random.default_rng(0)
    plain = {
        "latents": rng.normal(size=(6, 8)).astype(np.float32),
        "names": ["smile", "é"],
        "n": [1, 2.5, None, True],
        "scalar": np.float64(3),
        "set": {1, 2},
        "state": OrderedDict(a=b"x" * 20),
        "turned": np.ones((2, 3)).T,
    }
    # Weights, running statistics and an integer: three dtypes.
    state = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).state_dict()
    files: dict[str, tuple[bytes, Reader]] = {
        f"protocol {n}": (pickle.dumps(plain, n), read_pickle) for n in range(6)
    }
    files["module"] = (
        pickle.dumps({"G": torch.nn.Linear(3, 2), "t": torch.arange(6.0).view(2, 3).t()}),
        read_pickle,
    )
    for name, zipped in (("torch zip", True), ("torch older", False)):
        buffer = io.BytesIO()
        torch.save(
            {"g_ema": state, "latent_avg": torch.ones(4)},
            buffer,
            _use_new_zipfile_serialization=zipped,
        )
        files[name] = buffer.getvalue(), read_torch
    array = io.BytesIO()
    np.save(array, plain["latents"])
    files["npy"] = array.getvalue(), read_matrix
    files["safetensors"] = save(dict(state)), read_tensors
    return files


def golden_files(data: Path) -> dict[str, tuple[bytes, Reader]]:
    """The third-party checkpoints, where they are."""
    paths = [(path, read_pickle) for path in sorted((data / "stylegan2-ada").glob("*.pkl"))]
    paths += [(path, read_torch) for path in sorted((data / "rosinality").glob("*.pt"))]
    return {path.name: (path.read_bytes(), reader) for path, reader in paths}


def opcodes(content: bytes) -> np.ndarray:
    """Positions of the opcodes of a pickle, found without carrying any out.

    The result is empty for other files.
    """
    found: list[int] = []
    with contextlib.suppress(ValueError, IndexError):
        found = [position for _, _, position in pickletools.genops(content) if position is not None]
    return np.array(found, np.int64)


def change(content: bytearray, rng: np.random.Generator, targets: np.ndarray) -> None:
    """One damage, in place."""

    def place() -> int:
        # Up to five bytes behind an opcode are its argument.
        if len(targets) and rng.random() < 0.5:
            return min(int(rng.choice(targets)) + int(rng.integers(0, 6)), max(len(content) - 1, 0))
        return int(rng.integers(0, max(len(content), 1)))

    at = place()
    length = int(rng.integers(1, 64))
    # One of nine kinds of damage, equally often.
    kind = rng.integers(0, 9)
    if kind == 0:
        del content[at:]
    elif kind == 1 and at < len(content):
        content[at] ^= 1 << int(rng.integers(0, 8))
    elif kind == 2 and at < len(content):
        content[at] = int(rng.integers(0, 256))
    elif kind == 3 and at < len(content):
        content[at] = ord(rng.choice(list("(.0Nbcdeghijklopqrstu}])RQPVXBTMKJIGFSUaABCDE")))
    elif kind == 4:
        content[at:at] = rng.bytes(length)
    elif kind == 5:
        content[at:at] = content[place() :][: length * int(rng.integers(1, 40))]
    elif kind == 6:
        content[at : at + length] = bytes(length)
    elif kind == 7:
        content[at : at + 8] = LENGTHS[int(rng.integers(0, len(LENGTHS)))].to_bytes(8, "little")
    else:
        del content[at : at + length]


def case(
    i: int, seed: int, files: dict, golden: dict, targets: Callable
) -> tuple[str, bytes, Reader]:
    """(name, damaged content, reader) of case i."""
    # A case can be repeated alone, by its number.
    rng = np.random.default_rng((seed, i))
    group = files
    if golden and rng.random() < GOLDEN_SHARE:
        group = golden
    name = list(group)[int(rng.integers(0, len(group)))]
    content = bytearray(group[name][0])
    for _ in range(int(rng.integers(1, 5))):
        change(content, rng, targets(name, group))
    return name, bytes(content), group[name][1]


def read_case(path: Path, content: bytes, reader: Reader) -> str:
    """'read' or 'BadFile'; anything else is raised."""
    path.write_bytes(content)
    try:
        reader(path)
        return "read"
    except BadFile as error:
        if str(path) not in str(error):
            raise AssertionError(f"the message does not name the file: {error}") from error
        return "BadFile"


def run_cases(first: int, last: int, seed: int, data: Path) -> dict:
    """Outcomes of cases [first, last), the slowest, and how far memory grew beyond what it was
    after the good files.
    """
    files = small_files()
    golden = golden_files(data)
    known = {}

    def targets(name: str, group: dict) -> np.ndarray:
        if name not in known:
            known[name] = opcodes(group[name][0])
        return known[name]

    counts: Counter = Counter()
    slowest = 0.0
    growth = 0
    largest = max(len(content) for content, _ in [*files.values(), *golden.values()])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.bin"
        for content, reader in [*files.values(), *golden.values()]:
            assert read_case(path, content, reader) == "read"
        # After the good files, so that buffers that Python keeps do not count.
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(first, last):
            name, content, reader = case(i, seed, files, golden, targets)
            # The last line says which case killed or held up a worker.
            print(i, file=sys.stderr, flush=True)
            began = time.perf_counter()
            outcome = read_case(path, content, reader)
            slowest = max(slowest, time.perf_counter() - began)
            counts[outcome] += 1
            counts[f"{'golden' if name in golden else name}: {outcome}"] += 1
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # Of the largest file; most cases have far less.
    bound = 2 * (FLOOR + RATIO * largest)
    return {
        "counts": counts,
        "slowest": slowest,
        "growth_mb": growth / 1024,
        "bound_mb": bound / 2**20,
    }


def limited(extra_mb: int) -> None:
    """Cap the address space at what it is now, in megabytes more."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    most = pages * resource.getpagesize() + (extra_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def worker(first: int, last: int, seed: int, data: Path, extra_mb: int) -> None:
    small_files()  # what torch loads on first use does not count
    limited(extra_mb)
    print(json.dumps(run_cases(first, last, seed, data)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=int, nargs="?", default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--extra-mb", type=int, default=1024, help="address space of a worker beyond its start"
    )
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first is not None:
        worker(args.first, args.cases, args.seed, args.data, args.extra_mb)
        return
    total = Counter()
    failures = []
    slowest = 0.0
    growth = 0.0
    bound = 0.0
    began = time.perf_counter()
    for first in range(0, args.cases, CHUNK):
        last = min(first + CHUNK, args.cases)
        # Each chunk in a process of its own, which may die.
        command = [
            sys.executable,
            __file__,
            str(last),
            "--first",
            str(first),
            "--seed",
            str(args.seed),
            "--data",
            str(args.data),
            "--extra-mb",
            str(args.extra_mb),
        ]
        start = partial(subprocess.run, command, capture_output=True, encoding="utf-8")
        try:
            done = start(timeout=CASE_SECONDS * CHUNK)
        except subprocess.TimeoutExpired as error:
            failures.append(f"hang: {str(error.stderr)[-200:]}")
            continue
        # A crash, an assertion or a killed process; the end of its output says which case.
        if done.returncode:
            failures.append(f"exit {done.returncode}: {done.stderr[-1500:]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        total.update(found["counts"])
        slowest = max(slowest, found["slowest"])
        growth = max(growth, found["growth_mb"])
        bound = found["bound_mb"]
    for name, number in sorted(total.items()):
        if ":" in name:
            print(f"  {name} {number}")
    print(
        f"cases {total['read'] + total['BadFile']} of {args.cases}, BadFile {total['BadFile']}, "
        f"read {total['read']}, failures {len(failures)}"
    )
    print(
        f"slowest case {slowest:.2f} s, all {time.perf_counter() - began:.0f} s; memory beyond the "
        "good files' "
        f"{growth:.0f} MiB at most (bound {bound:.0f} MiB; address space capped at {args.extra_mb} "
        "MiB more than at the start)"
    )
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
