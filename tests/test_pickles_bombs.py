"""Small files that stand for huge ones, and sizes that lie:

refused for the right reason, within the memory bound.
"""

import collections
import io
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from editbench.base.errors import BadFile
from editbench.networks.pickles import Limits, read_pickle, read_torch
from editbench.networks.pickles.reader import CHILD, FLOOR, RATIO
from tests.hostile_pickles import Call, glob


def array_pickle(shape, code="f8", raw=b"\0" * 16):
    dtype = pickle.dumps(np.dtype("f8"), 2)[2:-1].replace(
        b"\x02\x00\x00\x00f8", struct.pack("<I", len(code)) + code.encode()
    )
    state = [pickle.dumps(part, 4)[2:-1] for part in (1, shape)] + [
        dtype,
        b"\x89",
        pickle.dumps(raw, 4)[2:-1],
    ]
    return (
        b"\x80\x04"
        + glob("numpy.core.multiarray", "_reconstruct")
        + glob("numpy", "ndarray")
        + b"K\x00\x85C\x01b\x87R("
        + b"".join(state)
        + b"tb."
    )


def tensor_pickle(offset, size, stride, numel=4):
    storage = torch.zeros(numel)._typed_storage()
    return pickle.dumps(
        Call(
            torch._utils._rebuild_tensor_v2,
            storage,
            offset,
            size,
            stride,
            False,
            collections.OrderedDict(),
        )
    )


def repeated(prefix, step, number):
    return b"\x80\x04]" + prefix + b"q\xc80(" + step * number + b"e."


MILLION = b"B" + struct.pack("<I", 1 << 20) + bytes(1 << 20)
COPY_BYTES = b"cbuiltins\nbytearray\nh\xc8\x85R"
COPY_ARRAY = (
    glob("numpy.core.numeric", "_frombuffer")
    + b"(h\xc8"
    + pickle.dumps(np.dtype("u1"), 2)[2:-1]
    + b"J\x00\x00\x10\x00\x85VC\ntR"
)
U8, U4 = "<Q", "<I"
PARAMETER = pickle.dumps(torch.ones(1), 2)[2:-1]
REMEMBER, RECALL = b"r\xe8\x03\0\0", b"j\xe8\x03\0\0"
BOMBS = {
    "tuples of tuples": b"\x80\x04)" + b"2\x86" * 60 + b".",
    "lists of one list": b"\x80\x04]"
    + b"\x94](h\x00h\x00e"
    + b"".join(b"\x94](h%ch%ce" % (n, n) for n in range(1, 60))
    + b".",
    "a key of nested tuples": b"\x80\x04})" + b"2\x86" * 60 + b"Ns.",
    "a list in itself": b"\x80\x04]\x94h\x00a.",
    "deep lists": b"]" * 20_000 + b"a" * 19_999 + b".",
    "deep tuples": b")" + b"\x85" * 20_000 + b".",
    "deep states": b"\x80\x04" + (glob("a", "b") + b")\x81") * 5_000 + b"b" * 4_999 + b".",
    "many marks": b"(" * 50_000 + b".",
    "copies of bytes": repeated(MILLION, COPY_BYTES, 2000),
    "copies of arrays": repeated(MILLION, COPY_ARRAY, 2000),
    "copies of storages": b"",
    "long bytes": b"\x8e" + struct.pack(U8, 1 << 60) + b"x.",
    "long text": b"\x8d" + struct.pack(U8, 1 << 62) + b"x.",
    "long byte array": b"\x96" + struct.pack(U8, (1 << 64) - 1) + b"x.",
    "a long byte array that Python reports itself": b"\x96" + struct.pack(U8, 1 << 60) + b"x.",
    "long integer": b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.",
    "negative length": b"T" + struct.pack("<i", -5) + b"x.",
    "an integer in digits": b"I" + b"9" * 100_000 + b"\n.",
    "a float in digits": b"F" + b"9" * 1_000_000 + b"\n.",
    "a false frame": b"\x80\x04\x95" + struct.pack(U8, 1 << 60) + b"N.",
    "keys of one hash": b"\x80\x04}("
    + b"".join(
        b"\x8a\x0a" + (k * ((1 << 61) - 1)).to_bytes(10, "little") + b"N" for k in range(1, 9_000)
    )
    + b"u.",
    "many tuples as keys": b"\x80\x04}("
    + b"".join(b"J" + struct.pack(U4, k) + b"\x85N" for k in range(12_000))
    + b"u.",
    "a larger array": array_pickle((3,)),
    "a huge array": array_pickle((1 << 60,)),
    "a shape that overflows": array_pickle((1 << 32, 1 << 32)),
    "a negative shape": array_pickle((-2,)),
    # Their product takes many seconds.
    "a shape of huge integers": array_pickle((1 << 8_000_000,) * 64),
    "one integer many times": pickle.dumps([1 << 1_000_000] * 2000),
    "an empty array of NumPy's lengths": array_pickle((0, np.int64(1 << 62)), raw=b""),
    "an empty array of text of width 0": array_pickle((0, 1 << 60), "U0", b""),
    "no items of no size": array_pickle((1 << 40,), "U0", b""),
    "an empty array that sums to a huge one": array_pickle((0, 1 << 40), raw=b""),
    "an array of objects": array_pickle((2,), "O8"),
    "an array of records": array_pickle((2,), "V8"),
    "too many axes": array_pickle((1,) * 70 + (2,)),
    "a million axes": array_pickle((1 << 62,) * 1_000_000),
    "booleans of other bytes": array_pickle((16,), "b1", b"\x07" * 16),
    # The bytes of 1.0, which are not all 0 or 1.
    "booleans in another array": pickle.dumps(
        Call(np.ones(1).__reduce_ex__(5)[0], np.ones(1), np.dtype(bool), (8,), "C")
    ),
    "text of no characters": array_pickle((4,), "U1", b"\xff" * 16),
    "a tensor beyond its storage": tensor_pickle(0, (5,), (1,)),
    "a stride beyond": tensor_pickle(0, (2, 2), (3, 1)),
    "an offset beyond": tensor_pickle(4, (1,), (1,)),
    "an offset before": tensor_pickle(-1, (2,), (1,)),
    "a negative stride": tensor_pickle(3, (2,), (-1,)),
    "strides for other axes": tensor_pickle(0, (2, 2), (1,)),
    "an offset that is a tensor": tensor_pickle(torch.tensor((1 << 63) - 1), (2,), (1,)),
    "NumPy's strides": tensor_pickle(0, (5,), (np.int64(1 << 62),)),
    "a huge stride": tensor_pickle(0, (2,), (1 << 61,)),
    "an expanded tensor": tensor_pickle(0, (1 << 40,), (0,)),
    "many expanded tensors": tensor_pickle(0, (1 << 20, 1 << 20), (0, 0)),
    "a tensor expanded beyond 64 bits": tensor_pickle(0, (1 << 32, 1 << 32), (0, 0)),
    "a tensor of another object": pickle.dumps(
        Call(torch._utils._rebuild_tensor_v2, "x", 0, (1,), (1,), False, {})
    ),
    "a tensor of a tensor": pickle.dumps(
        Call(torch._utils._rebuild_tensor_v2, torch.zeros(2, 2), 0, (1,), (1,), False, {})
    ),
    "an empty huge tensor": tensor_pickle(0, (0, 1 << 50), (1, 1)),
    "archives within archives": b"",
    "one array many times": pickle.dumps([np.zeros(1 << 15)] * 2000),
    "a long tuple of arguments": b"\x80\x02"
    + glob("torch._utils", "_rebuild_parameter")
    + b"("
    + PARAMETER
    + b"N" * 20_000
    + b"tR.",
    "new of new of new": b"\x80\x02"
    + glob("copyreg", "__newobj__")
    + REMEMBER
    + b"("
    + RECALL * 20_000
    + b"tR.",
    "items of a known dict": b"\x80\x02}q\x00("
    + b"".join(b"J" + struct.pack(U4, k) + b"N" for k in range(5000))
    + b"u(cx\ny\nNh\x00tq\x010]("
    + (glob("copyreg", "_reconstructor") + b"h\x01R") * 200
    + b"e.",
    "scattered integers as keys": b"\x80\x02}("
    + b"".join(b"J" + struct.pack(U4, k << 13) + b"N" for k in range(1, 40_000))
    + b"u.",
    "floats in a set": b"\x80\x04\x8f("
    + b"".join(b"G" + struct.pack(">d", 2.0 + k) for k in range(40_000))
    + b"\x90.",
    # Python's own hash overflows the stack here.
    "a deep key that is thrown away": b"\x80\x04})" + b"\x85" * 3_000_000 + b"Ns0N.",
    # The child hashes stand-ins, and only the caller would hash numbers.
    "keys of NumPy's numbers with one hash": pickle.dumps(
        {tuple(2.0 ** np.array((61 * a, 61 * b))): 0 for a in range(11) for b in range(11)}
    ),
    "a buffer that cannot be written": b"\x80\x05\x96" + struct.pack(U8, 1) + b"x\x98.",
    "scattered entries of the memo": b"\x80\x02N"
    + b"".join(b"r" + struct.pack(U4, k << 13) for k in range(1, 50_000))
    + b".",
}
inner = pickle.dumps(torch.ones(2)._typed_storage())
for _ in range(6):
    outer = io.BytesIO()
    torch.save(
        Call(torch.storage._load_from_bytes, inner), outer, _use_new_zipfile_serialization=False
    )
    inner = outer.getvalue()
BOMBS["archives within archives"] = pickle.dumps(Call(torch.storage._load_from_bytes, inner))
million = io.BytesIO()
torch.save(torch.ones(1 << 18)._typed_storage(), million)
COPY_STORAGE = glob("torch.storage", "_load_from_bytes") + b"h\xc8\x85R"
BOMBS["copies of storages"] = repeated(
    b"B" + struct.pack(U4, len(million.getvalue())) + million.getvalue(), COPY_STORAGE, 200
)


REASONS = {
    "written out it would have more than 10,000,000 objects": [
        "tuples of tuples",
        "lists of one list",
    ],
    "written out it would have more than .* bytes": ["one array many times"],
    "reading it takes more than 1 s": ["a key of nested tuples"],
    "written out it would have more than 300 levels": [
        "a list in itself",
        "deep lists",
        "deep tuples",
        "deep states",
    ],
    "it is not a pickle, or it is damaged": ["many marks"],
    ": its content would take more than": [
        "a long byte array that Python reports itself",
        "copies of arrays",
        "copies of storages",
        "copies of bytes",
        "long bytes",
        "long text",
        "long integer",
        "negative length",
        "a false frame",
        "new of new of new",
        "scattered entries of the memo",
    ],
    "exceeds system's maximum": ["long byte array"],
    "could not convert string to int": ["an integer in digits"],
    "value too large to convert to float": ["a float in digits"],
    "cannot reshape array": ["a larger array", "no items of no size"],
    "the shape of an array is negative or too large": [
        "a huge array",
        "a negative shape",
        "a shape that overflows",
        "an empty array that sums to a huge one",
        "an empty huge tensor",
        "an empty array of text of width 0",
        "an expanded tensor",
        "many expanded tensors",
        "a tensor expanded beyond 64 bits",
    ],
    "are no integers": [
        "an empty array of NumPy's lengths",
        "an offset that is a tensor",
        "NumPy's strides",
    ],
    "an integer has more than 1,024 bits": ["a shape of huge integers", "one integer many times"],
    "an array has .* axes": ["too many axes", "a million axes"],
    "a tensor has no storage": ["a tensor of a tensor"],
    "only numbers and fixed-size text": ["an array of objects", "an array of records"],
    "other bytes than 0 and 1": ["booleans of other bytes", "booleans in another array"],
    "no characters": ["text of no characters"],
    "strides for other axes": ["strides for other axes"],
    "reaches beyond": [
        "a tensor beyond its storage",
        "a stride beyond",
        "an offset before",
        "an offset beyond",
        "a negative stride",
        "a huge stride",
    ],
    "no attribute 'dim'": ["a tensor of another object"],
    "it is not a torch.save archive": ["archives within archives"],
    "the reading process ended": ["a deep key that is thrown away"],
    "a key of a dict or set is an object": ["keys of NumPy's numbers with one hash"],
    "cannot pickle memoryview": ["a buffer that cannot be written"],
}
# Slow or long, but no larger than the file says: refused beyond the limits, and read within them.
READ = {
    "keys of one hash": 8_999,
    "many tuples as keys": 12_000,
    "scattered integers as keys": 39_999,
    "floats in a set": 40_000,
    "a long tuple of arguments": 1,
    "items of a known dict": 200,
}


def test_the_forgeries_are_read_where_they_tell_the_truth(tmp_path):
    """Otherwise a mistake in the forging would be what the tests below see refused."""
    path = tmp_path / "value.pkl"
    for content, expected in (
        (array_pickle((2,)), [0.0, 0.0]),
        (tensor_pickle(1, (3,), (1,)), [0.0] * 3),
        (array_pickle((2, 0, 3), raw=b""), [[], []]),
        (tensor_pickle(0, (2, 2), (0, 3)), None),
        (repeated(MILLION, COPY_BYTES, 2), [bytes(1 << 20)] * 2),
    ):
        path.write_bytes(content)
        found = read_pickle(path)
        assert (
            expected is None
            or list(found.tolist() if hasattr(found, "tolist") else found) == expected
        )
    path.write_bytes(repeated(MILLION, COPY_ARRAY, 2))
    assert [array.shape for array in read_pickle(path)] == [(1 << 20,)] * 2


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_within_the_bound_on_memory(tmp_path, name):
    """The child has its own bound, of the system; here is what the caller spends."""
    path = tmp_path / "bomb.pkl"
    path.write_bytes(BOMBS[name])
    limits = Limits(seconds=1 if name == "a key of nested tuples" else 20)
    tracemalloc.start()
    try:
        if name in READ:
            assert len(read_pickle(path, limits)) == READ[name]
        else:
            (words,) = [words for words, names in REASONS.items() if name in names]
            with pytest.raises(BadFile, match=words) as error:
                read_pickle(path, limits)
            assert str(path) in str(error.value) and "\n" not in str(error.value)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    largest = 2 << 20  # the last array that was made before the bound was seen to be passed
    assert peak <= FLOOR + RATIO * len(BOMBS[name]) + largest


def test_the_process_that_reads_has_its_bound_on_memory_from_the_system(tmp_path, monkeypatch):
    """Without its own bound, the same content is read: so it is the bound that refuses."""
    path = tmp_path / "bomb.pkl"
    path.write_bytes(repeated(MILLION, COPY_BYTES, 200))
    with pytest.raises(BadFile, match="would take more than"):
        read_pickle(path, Limits(bytes=100 << 20))
    monkeypatch.setattr(Limits, "memory", lambda limits, size: 1 << 40)
    assert len(read_pickle(path)) == 200


def test_the_process_that_reads_keeps_the_bounds_of_the_caller():
    lines = (
        "import resource, sys",
        f"sys.path.append({str(CHILD.parent)!r})",
        "import child",
        "hard = resource.getrlimit(resource.RLIMIT_CPU)[1]",
        "resource.setrlimit(resource.RLIMIT_CPU, (5, hard))",
        "child.limit(1 << 30, 10)",
        "print(resource.getrlimit(resource.RLIMIT_CPU)[0])",
    )
    command = [sys.executable, "-I", "-S", "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert int(done.stdout) == 5


def test_keys_of_one_hash_end_at_the_limit_of_time(tmp_path):
    path = tmp_path / "keys.pkl"
    step = (1 << 61) - 1  # whose multiples all have the hash 0
    keys = [b"\x8a\x0a" + (k * step).to_bytes(10, "little") + b"N" for k in range(1, 40_000)]
    path.write_bytes(b"\x80\x04}(" + b"".join(keys) + b"u.")
    with pytest.raises(BadFile, match="takes more than 1 s"):
        read_pickle(path, Limits(seconds=1))


def rezip(path, out, compression=zipfile.ZIP_STORED, edit=lambda name, data: data, more=()):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for info in [*old.infolist(), *more]:
            new.writestr(info.filename, edit(info.filename, old.read(info.filename)))
    return out


def test_zip_bombs_and_odd_zips_are_refused(tmp_path):
    good = tmp_path / "good.pt"
    torch.save({"w": torch.zeros(100), "v": torch.ones(3)}, good)
    assert torch.equal(read_torch(rezip(good, tmp_path / "same.pt"))["v"], torch.ones(3))
    bomb = rezip(
        good,
        tmp_path / "bomb.pt",
        zipfile.ZIP_DEFLATED,
        lambda name, data: bytes(50 << 20) if name.endswith("data/0") else data,
    )
    with pytest.raises(BadFile, match="its content would take more than"):
        read_torch(bomb)
    short = rezip(
        good, tmp_path / "short.pt", edit=lambda name, data: data[:-4] if "data/0" in name else data
    )
    with pytest.raises(BadFile, match="396 bytes, 400 declared"):
        read_torch(short)
    with pytest.warns(UserWarning):
        twice = rezip(good, tmp_path / "twice.pt", more=zipfile.ZipFile(good).infolist()[:1])
    with pytest.raises(BadFile, match="same name"):
        read_torch(twice)
    data = bytearray((tmp_path / "same.pt").read_bytes())
    data[data.index(struct.pack("<f", 1.0) * 3)] ^= 1
    (tmp_path / "flipped.pt").write_bytes(data)
    with pytest.raises(BadFile, match="CRC"):
        read_torch(tmp_path / "flipped.pt")
    data = bytearray((tmp_path / "same.pt").read_bytes())
    entries = [at for at in range(len(data)) if data[at : at + 4] == b"PK\x01\x02"]
    names = zipfile.ZipFile(tmp_path / "same.pt").namelist()
    first, second = (
        entry for entry, name in zip(entries, names) if name.endswith(("data/0", "data/1"))
    )
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # its offset, that of another
    (tmp_path / "overlap.pt").write_bytes(data)
    with pytest.raises(BadFile, match=r"File name in directory .* and header .* differ"):
        read_torch(tmp_path / "overlap.pt")


def test_an_older_archive_cannot_declare_more_than_it_holds(tmp_path):
    path = tmp_path / "old.pt"
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    declared = b"M" + struct.pack("<H", 1000)
    assert whole.count(declared) >= 2  # as a storage's length, and as a size
    for number, words in (
        (1 << 30, "1,000 elements, 1,073,741,824 declared"),
        (1 << 20, "1,000 elements, 1,048,576 declared"),
        (1001, "1,000 elements, 1,001 declared"),
        (999, "1,000 elements, 999 declared"),
    ):
        path.write_bytes(whole.replace(declared, b"J" + struct.pack("<I", number)))
        with pytest.raises(BadFile, match=words):
            read_torch(path)
    for content, words in ((whole + b"x", "follow"), (whole[:-1], "3,999 bytes, 4,000 declared")):
        path.write_bytes(content)
        with pytest.raises(BadFile, match=words):
            read_torch(path)
