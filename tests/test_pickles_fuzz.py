"""Damaged files: a value or a BadFile, nothing else, and within the memory that was promised.

`python benchmarks/fuzz_readers.py` runs the same cases by the thousand, under a limit on the
address space.
"""

import contextlib
import importlib.util
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from editbench.base.errors import BadFile
from editbench.networks.pickles import Limits, read_pickle
from editbench.networks.pickles.reader import FLOOR, RATIO
from tests.data_folder import DATA, needs_data

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz_readers.py"
spec = importlib.util.spec_from_file_location("fuzz_readers", SCRIPT)
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)


def outcomes(tmp_path, files, cases, golden=None):
    known = {
        name: fuzz.opcodes(content)
        for name, (content, _) in [*files.items(), *(golden or {}).items()]
    }
    found = []
    for i in cases:
        _, content, reader = fuzz.case(i, 99, files, golden or {}, lambda name, group: known[name])
        found.append(fuzz.read_case(tmp_path / "case.bin", content, reader))
    return found


def test_small_damaged_files_are_read_or_refused(tmp_path):
    files = fuzz.small_files()
    for content, reader in files.values():
        assert fuzz.read_case(tmp_path / "case.bin", content, reader) == "read"
    found = outcomes(tmp_path, files, range(60))
    assert set(found) == {"read", "BadFile"} and found.count("BadFile") > 45


@needs_data
def test_damaged_and_truncated_goldens_are_read_or_refused(tmp_path):
    golden = fuzz.golden_files(DATA)
    assert len(golden) == 3
    outcomes(tmp_path, golden, range(10))
    for content, reader in golden.values():
        for end in np.linspace(0, len(content) - 1, 6).astype(int):
            assert fuzz.read_case(tmp_path / "case.bin", content[:end], reader) == "BadFile"


SIZE = 40_000  # bytes of file, by which the memory allowed is measured
DENSE = {
    "lists": b"]",
    "dicts": b"}",
    "sets": b"\x8f",
    "tuples": b"K\x01\x85",
    "marks": b"](",
    "kept lists": b"]\x94",
    "numbers": b"J\1\2\3\4",
    "objects": b"h\x00)R",
    "names": b"cab\nc\n",
    "lists of one": b"]\x94Na",
    "dicts of one": b"}\x94K\1Ns",
    "frozen sets": b"(\x91",
    "text": b"\x8c\x04\xf0\x9f\x98\x80",
    "doubles": b"2",
    "short text": b"U\x02\xe9\xe8",
    "short bytes": b"C\x02ab",
    "encoded": b"c_codecs\nencode\n\x94(Vab\nVlatin1\ntR",
}


@pytest.mark.parametrize("name", DENSE)
def test_many_small_objects_stay_within_the_memory_allowed(tmp_path, name):
    """Small values take many times their bytes in the file.

    The system limits the child; here the caller is measured, which reads the child's answer. A file
    of a quarter of the size stands for the whole: what is read grows with the file, so a quarter of
    the memory is allowed.
    """
    path = tmp_path / "dense.pkl"
    path.write_bytes(
        b"\x80\x04cos\nsystem\n\x94N(" + DENSE[name] * (SIZE // 4 // len(DENSE[name])) + b"l."
    )
    tracemalloc.start()
    try:
        with contextlib.suppress(BadFile):
            read_pickle(path, Limits(objects=10**9, depth=10**9))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (FLOOR + RATIO * SIZE) / 4
