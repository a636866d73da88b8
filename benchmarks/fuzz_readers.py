"""Tests the readers of other people's files with thousands of damaged files.

A reader must return a value or raise BadFile with the name of the file. It must not crash, hang or
use unbounded memory. Case i depends only on (seed, i). It consists of:

- a valid file: a small one that this script makes in every format, or a golden file, which is a
  checkpoint of a third party from the folder --data (15 % of the cases, if the folder exists);
- one to four random changes: bytes flipped or replaced, lengths overwritten, parts cut, doubled,
  inserted or set to zero. In pickles, half of the changes are made at or just behind an opcode;
- the reader for this kind of file.

Worker processes read 500 cases each, with a limited address space (RLIMIT_AS) and limited time. The
output counts the outcomes for each kind of file:

    read      the reader returned a value
    BadFile   the reader refused the file with an error that names it

Everything else is a failure: another exception, a dead worker, a worker that exceeds its time. Then
come the totals, the slowest case in seconds, and the memory in MiB. The memory is the growth of a
worker's peak memory while it reads damaged files, after it has read the valid ones. It must stay
far below the bound, which follows from the limits of the pickle reader for the largest file. The
exit code is 1 if there is any failure, otherwise 0.

    python benchmarks/fuzz_readers.py                     # 4,000 cases, about 2 CPU minutes
    python benchmarks/fuzz_readers.py 500 --seed 5        # 500 other cases

tests/test_pickles_fuzz.py runs some of the cases. docs/published_data.md reports the result.
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
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from editbench.bank.importing import read_matrix
from editbench.base.errors import BadFile
from editbench.networks.external import read_tensors
from editbench.networks.pickles import read_pickle, read_torch
from editbench.networks.pickles.reader import FLOOR, RATIO

CHUNK = 500  # cases per worker
CASE_SECONDS = 20  # limit for a case, far more than any case takes
# Share of the cases. Each of them takes 100 times as long as a case with a small file.
GOLDEN_SHARE = 0.15
AIMED_SHARE = 0.5  # of the changes in pickles, which are made at or just behind an opcode
OPCODE_REACH = 6  # bytes: the opcode itself, and up to five bytes of its argument
# Lengths that overwrite eight bytes of a file.
LENGTHS = (2**31 - 1, 2**32 - 1, 2**40, 2**60, 2**63, 2**64 - 1)
PICKLE_OPCODES = "(.0Nbcdeghijklopqrstu}])RQPVXBTMKJIGFSUaABCDE"
Reader = Callable[[Path], object]
Files = dict[str, tuple[bytes, Reader]]  # name -> (content, reader)


def small_files() -> Files:
    """Make a small valid file in every format, with its reader."""
    # The seed is fixed, so that case i is the same file in every run.
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(6, 8)).astype(np.float32)
    plain = {
        "latents": latents,
        "names": ["smile", "é"],
        "n": [1, 2.5, None, True],
        "scalar": np.float64(3),
        "set": {1, 2},
        "state": OrderedDict(a=b"x" * 20),
        "turned": np.ones((2, 3)).T,
    }
    files: Files = {}
    for protocol in range(6):
        files[f"protocol {protocol}"] = (pickle.dumps(plain, protocol), read_pickle)
    module = {"G": torch.nn.Linear(3, 2), "t": torch.arange(6.0).view(2, 3).t()}
    files["module"] = (pickle.dumps(module), read_pickle)
    # Weights, running statistics and a counter have three different dtypes.
    state = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).state_dict()
    checkpoint = {"g_ema": state, "latent_avg": torch.ones(4)}
    for name, zipped in (("torch zip", True), ("torch older", False)):
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer, _use_new_zipfile_serialization=zipped)
        files[name] = (buffer.getvalue(), read_torch)
    buffer = io.BytesIO()
    np.save(buffer, latents)
    files["npy"] = (buffer.getvalue(), read_matrix)
    files["safetensors"] = (save(dict(state)), read_tensors)
    return files


def golden_files(data: Path) -> Files:
    """Read the checkpoints of third parties.

    Args:
        data: folder with stylegan2-ada/*.pkl and rosinality/*.pt.

    Returns:
        Name -> (content, reader); empty if the folder does not exist.
    """
    files: Files = {}
    for path in sorted((data / "stylegan2-ada").glob("*.pkl")):
        files[path.name] = (path.read_bytes(), read_pickle)
    for path in sorted((data / "rosinality").glob("*.pt")):
        files[path.name] = (path.read_bytes(), read_torch)
    return files


def opcodes(content: bytes) -> np.ndarray:
    """Find the opcodes of a pickle without executing any of them.

    Args:
        content: of a file of any kind.

    Returns:
        (n,) positions of the opcodes, bytes; n is 0 if the file is not a pickle.
    """
    found: list[int] = []
    with contextlib.suppress(ValueError, IndexError):
        found = [position for _, _, position in pickletools.genops(content) if position is not None]
    return np.array(found, np.int64)


def change(content: bytearray, rng: np.random.Generator, targets: np.ndarray) -> None:
    """Damage a file once, in place.

    Args:
        content: of the file.
        rng: draws the kind of damage, its position and its length.
        targets: (n,) positions of opcodes; n may be 0.
    """

    def draw_position() -> int:
        if len(targets) and rng.random() < AIMED_SHARE:
            position = int(rng.choice(targets)) + int(rng.integers(0, OPCODE_REACH))
            return min(position, max(len(content) - 1, 0))
        return int(rng.integers(0, max(len(content), 1)))

    at = draw_position()
    length = int(rng.integers(1, 64))
    # There are nine kinds of damage, which are equally frequent.
    kind = rng.integers(0, 9)
    if kind == 0:
        # Cut off the end.
        del content[at:]
    elif kind == 1 and at < len(content):
        # Flip a bit.
        content[at] ^= 1 << int(rng.integers(0, 8))
    elif kind == 2 and at < len(content):
        # Replace a byte.
        content[at] = int(rng.integers(0, 256))
    elif kind == 3 and at < len(content):
        # Replace a byte by an opcode.
        content[at] = ord(rng.choice(list(PICKLE_OPCODES)))
    elif kind == 4:
        # Insert random bytes.
        content[at:at] = rng.bytes(length)
    elif kind == 5:
        # Insert a copy of another part.
        start = draw_position()
        content[at:at] = content[start:][: length * int(rng.integers(1, 40))]
    elif kind == 6:
        # Overwrite a part with zeros.
        content[at : at + length] = bytes(length)
    elif kind == 7:
        # Overwrite eight bytes with a large number.
        number = LENGTHS[int(rng.integers(0, len(LENGTHS)))]
        content[at : at + 8] = number.to_bytes(8, "little")
    else:
        # Remove a part.
        del content[at : at + length]


def case(
    i: int, seed: int, files: Files, golden: Files, targets: Callable[[str, Files], np.ndarray]
) -> tuple[str, bytes, Reader]:
    """Make case i, which can therefore be repeated alone.

    Args:
        i: number of the case.
        seed: of the run.
        files: small valid files.
        golden: valid files of third parties; may be empty.
        targets: gives the positions of the opcodes of a file, by its name and its group.

    Returns:
        Name of the valid file, the damaged content, and the reader.
    """
    rng = np.random.default_rng((seed, i))
    group = files
    if golden and rng.random() < GOLDEN_SHARE:
        group = golden
    name = list(group)[int(rng.integers(0, len(group)))]
    valid, reader = group[name]
    content = bytearray(valid)
    for _ in range(int(rng.integers(1, 5))):
        change(content, rng, targets(name, group))
    return name, bytes(content), reader


def read_case(path: Path, content: bytes, reader: Reader) -> str:
    """Write a file and read it.

    Args:
        path: where the file is written.
        content: of the file.
        reader: of this kind of file.

    Returns:
        'read' or 'BadFile'.

    Raises:
        AssertionError: the message of the BadFile does not name the file.
    """
    path.write_bytes(content)
    try:
        reader(path)
        return "read"
    except BadFile as error:
        if str(path) not in str(error):
            raise AssertionError(f"the message does not name the file: {error}") from error
        return "BadFile"


def peak_kib() -> int:
    """Peak memory of this process so far, KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_cases(first: int, last: int, seed: int, data: Path) -> dict:
    """Read a range of cases in this process.

    Args:
        first: number of the first case.
        last: number of the last case + 1.
        seed: of the run.
        data: folder of the golden files.

    Returns:
        counts: outcome, or 'kind of file: outcome' -> number of cases
        slowest: seconds of the slowest case
        growth_mb: growth of the peak memory beyond that of the valid files, MiB
        bound_mb: allowed growth for the largest file, MiB
    """
    files = small_files()
    golden = golden_files(data)
    valid = [*files.values(), *golden.values()]
    known: dict[str, np.ndarray] = {}

    def targets(name: str, group: Files) -> np.ndarray:
        if name not in known:
            known[name] = opcodes(group[name][0])
        return known[name]

    counts: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.bin"
        for content, reader in valid:
            assert read_case(path, content, reader) == "read"
        # Measured after the valid files, since Python keeps the memory of its first buffers.
        before = peak_kib()
        for i in range(first, last):
            name, content, reader = case(i, seed, files, golden, targets)
            # If this worker dies or hangs, the last line tells the parent at which case.
            print(i, file=sys.stderr, flush=True)
            began = time.perf_counter()
            outcome = read_case(path, content, reader)
            slowest = max(slowest, time.perf_counter() - began)
            counts[outcome] += 1
            kind = "golden" if name in golden else name
            counts[f"{kind}: {outcome}"] += 1
        growth = peak_kib() - before
    # The bound for the largest file; most are far smaller. The child process of the reader may use
    # FLOOR + RATIO x size, and its result as much again.
    largest = max(len(content) for content, _ in valid)
    bound = 2 * (FLOOR + RATIO * largest)
    return {
        "counts": counts,
        "slowest": slowest,
        "growth_mb": growth / 1024,
        "bound_mb": bound / 2**20,
    }


def limit_address_space(extra_mb: int) -> None:
    """Limit the address space of this process to its present size plus `extra_mb` MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    most = pages * resource.getpagesize() + (extra_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def work(first: int, last: int, seed: int, data: Path, extra_mb: int) -> None:
    """Do the work of a worker process: run cases under the limit, and print the result as JSON."""
    # What torch loads at its first use does not count against the limit.
    small_files()
    limit_address_space(extra_mb)
    print(json.dumps(run_cases(first, last, seed, data)))


def run_worker(first: int, last: int, args: argparse.Namespace) -> tuple[dict | None, str]:
    """Run cases in a worker process, which may die without harm to this one.

    Args:
        first: number of the first case.
        last: number of the last case + 1.
        args: options of the command.

    Returns:
        The result of `run_cases` and ''; or None and the reason of the failure.
    """
    command = [sys.executable, __file__, str(last), "--first", str(first)]
    command += ["--seed", str(args.seed), "--data", str(args.data)]
    command += ["--extra-mb", str(args.extra_mb)]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=CASE_SECONDS * CHUNK
        )
    except subprocess.TimeoutExpired as error:
        return None, f"hang: {str(error.stderr)[-200:]}"
    if done.returncode:
        # The end of the error output names the case and the exception.
        return None, f"exit {done.returncode}: {done.stderr[-1500:]}"
    return json.loads(done.stdout.splitlines()[-1]), ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "cases", type=int, nargs="?", default=4000, help="number of files (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random changes (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        help="folder of the golden files; it need not exist (default: %(default)s)",
    )
    parser.add_argument(
        "--extra-mb",
        type=int,
        default=1024,
        help="address space of a worker beyond that at its start, MiB (default: %(default)s)",
    )
    # Only this script itself uses this option, to start its workers.
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first is not None:
        work(args.first, args.cases, args.seed, args.data, args.extra_mb)
        return
    total: Counter[str] = Counter()
    failures = []
    slowest = 0.0
    growth = 0.0
    bound = 0.0
    began = time.perf_counter()
    for first in range(0, args.cases, CHUNK):
        found, failure = run_worker(first, min(first + CHUNK, args.cases), args)
        if found is None:
            failures.append(failure)
            continue
        total.update(found["counts"])
        slowest = max(slowest, found["slowest"])
        growth = max(growth, found["growth_mb"])
        bound = found["bound_mb"]
    seconds = time.perf_counter() - began
    print("cases by kind of file and outcome")
    for name, number in sorted(total.items()):
        if ":" in name:
            print(f"  {name} {number}")
    print(
        f"{total['read'] + total['BadFile']} of {args.cases} cases: {total['BadFile']} BadFile, "
        f"{total['read']} read, {len(failures)} failures"
    )
    print(f"slowest case {slowest:.2f} s, all cases {seconds:.0f} s")
    print(
        f"memory beyond that of the valid files: at most {growth:.0f} MiB (bound {bound:.0f} MiB)"
    )
    print(f"address space of a worker: {args.extra_mb} MiB more than at its start")
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
