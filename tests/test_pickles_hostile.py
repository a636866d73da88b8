"""Files that try to run code:

whatever way they take, nothing is run, and what comes back is inert.
"""

import collections
import copyreg
import io
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from editbench.base.errors import BadFile
from editbench.networks.pickles import Limits, Opaque, read_pickle, read_torch
from editbench.networks.pickles.reader import CHILD, REFUSED
from tests.hostile_pickles import Call, glob, line

LOUD: list[str] = []  # what a payload of this module's own classes did


class Loud:
    """Every hook that an unpickler could call leaves a trace."""

    def __new__(cls, *args, **kwargs):
        LOUD.append("__new__")
        return super().__new__(cls)

    def hook(self, *args):
        LOUD.append("hook")

    __setstate__ = append = extend = add = __setitem__ = hook

    def __hash__(self):
        LOUD.append("__hash__")
        return 1


def payloads(canary):
    """name -> a pickle that makes the folder `canary`, or calls Loud, when Python's own unpickler
    reads it.
    """
    here, made = __name__, f"V{canary}\n".encode()
    mkdir = Call(os.mkdir, canary)
    loud = glob(here, "Loud")
    archive = io.BytesIO()
    torch.save({"w": mkdir}, archive, _use_new_zipfile_serialization=False)
    zipped = io.BytesIO()
    torch.save([torch.ones(2), mkdir], zipped)
    array = np.zeros(2).__reduce__()
    return {
        "system": pickle.dumps(Call(os.system, f"mkdir {canary}")),
        "eval": pickle.dumps(Call(eval, f"__import__('os').mkdir({canary!r})"), 2),
        "exec": pickle.dumps(Call(exec, f"import os; os.mkdir({canary!r})"), 0),
        "getattr chain": glob("builtins", "getattr")
        + b"("
        + glob("builtins", "__import__")
        + b"(Vos\ntRVmkdir\ntR("
        + made
        + b"tR.",
        "inst": b"(" + made + b"i" + line("os") + line("mkdir") + b".",
        "obj": b"(" + glob("os", "mkdir") + made + b"o.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + made + b"\x85R.",
        "extension": b"\x80\x02\x82\xf0" + made + b"\x85R.",
        "nested pickle": pickle.dumps(Call(pickle.loads, pickle.dumps(mkdir))),
        "older archive in bytes": pickle.dumps(
            Call(torch.storage._load_from_bytes, archive.getvalue())
        ),
        "zip archive in bytes": pickle.dumps(
            Call(torch.storage._load_from_bytes, zipped.getvalue())
        ),
        "in numpy's _reconstruct": pickle.dumps(Call(array[0], mkdir, *array[1][1:])),
        "in an array's state": pickle.dumps([np.zeros(2)]).replace(
            b"tb", b"0" + pickle.dumps(mkdir)[2:-1] + b"tb"
        ),
        "in an object array": pickle.dumps(np.array([mkdir, 1], dtype=object)),
        "in an ordered dict": pickle.dumps(Call(collections.OrderedDict, [("a", mkdir)])),
        "as a key": b"}" + pickle.dumps(mkdir)[:-1] + b"I1\ns.",
        "new": b"\x80\x02" + loud + b")\x81.",
        "new with names": b"\x80\x04" + loud + b")}\x92.",
        "copyreg new": b"\x80\x02" + glob("copyreg", "__newobj__") + loud + b"\x85R.",
        "copyreg old": glob("copyreg", "_reconstructor") + b"(" + loud + loud + b"I1\ntR.",
        "setstate": b"\x80\x02" + loud + b")\x81}b.",
        "append": b"\x80\x02" + loud + b")\x81I1\na.",
        "extend": b"\x80\x02" + loud + b")\x81(I1\ne.",
        "setitem": b"\x80\x02" + loud + b")\x81I1\nI1\ns.",
        "add": b"\x80\x04" + loud + b")\x81(I1\n\x90.",
        "hash": b"\x80\x02}" + loud + b")\x81I1\ns.",
        "class state": b"\x80\x02" + loud + b"}(Va\nI1\nub0I1\n.",
    }


NAMES = list(payloads("x"))


def only_inert(value):
    if isinstance(value, dict):
        return all(map(only_inert, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(only_inert, value))
    if isinstance(value, Opaque):
        return only_inert([value.args, value.state, value.items, value.kwargs])
    return isinstance(
        value, (int, float, str, bytes, bytearray, np.ndarray, torch.Tensor, type(None))
    )


@pytest.fixture
def canary(tmp_path):
    LOUD.clear()
    copyreg.add_extension("os", "mkdir", 0xF0)
    yield tmp_path / "canary"
    copyreg.remove_extension("os", "mkdir", 0xF0)


@pytest.mark.parametrize("name", NAMES)
def test_no_payload_runs(tmp_path, canary, name):
    content = payloads(str(canary))[name]
    path = tmp_path / "payload.pkl"
    path.write_bytes(content)
    for read in (read_pickle, read_torch):
        try:
            assert only_inert(read(path)), name
        except BadFile as error:
            assert str(path) in str(error)
        assert not canary.exists() and not LOUD, f"{name} ran"


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("in an array's state", "class state")]
)
def test_the_payloads_are_live(canary, name):
    """Otherwise the test above would show nothing:

    Python's own unpickler does run each, made by this very file.
    """
    try:
        pickle.loads(payloads(str(canary))[name])
    except Exception as error:
        assert canary.exists() or LOUD, repr(error)
    assert canary.exists() or LOUD


def test_an_extension_that_the_caller_has_used_is_not_called(tmp_path, canary):
    """The caller's unpickler would take it from a cache, without asking for its name."""
    path = tmp_path / "payload.pkl"
    content = payloads(str(canary))["extension"]
    pickle.loads(content)
    canary.rmdir()
    path.write_bytes(content)
    with pytest.raises(BadFile, match="unregistered extension"):
        read_pickle(path)
    assert not canary.exists()


def test_writing_a_name_as_a_value_imports_no_module(tmp_path):
    """pickle imports the module that the __module__ of a function names, when it writes it."""
    path = tmp_path / "value.pkl"
    for value, rc in ((b"N}(V__module__\nVthis\nu\x86b", REFUSED), (b"", 0)):
        path.write_bytes(b"\x80\x04]" + glob("_codecs", "encode") + value + b"a.")
        command = [sys.executable, "-I", "-S", "-X", "importtime", str(CHILD), "pickle"]
        command += map(str, (1 << 28, 10, 100, 100))
        with path.open("rb") as stream:
            done = subprocess.run(command, stdin=stream, capture_output=True, check=False)
        imported = {line.rpartition(b"|")[2].strip() for line in done.stderr.splitlines()}
        assert done.returncode == rc
        assert b"pickle" in imported and b"this" not in imported


def test_a_storage_keeps_its_own_size(tmp_path):
    """Whatever state a file hands to it is data."""
    path = tmp_path / "storage.pt"
    state = b"N}(Vsize\nJ\0\0\0\x10Vdtype\nVint64\nu\x86b"
    with zipfile.ZipFile(path, "w") as archive:
        identity = b"(Vstorage\n" + glob("torch", "FloatStorage") + b"V0\nVcpu\nK\x03tQ"
        archive.writestr("a/data.pkl", b"\x80\x02" + identity + state + b".")
        archive.writestr("a/data/0", bytes(12))
    assert torch.equal(read_torch(path), torch.zeros(3))


@pytest.mark.parametrize("zipped", [True, False])
def test_no_payload_in_a_torch_file_runs(tmp_path, canary, zipped):
    path = tmp_path / "model.pt"
    torch.save(
        {"g_ema": torch.ones(3), "args": Call(os.mkdir, str(canary))},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    found = read_torch(path)
    assert not canary.exists()
    assert found["args"].name == "posix.mkdir"
    assert found["args"].args == (str(canary),)
    assert torch.equal(found["g_ema"], torch.ones(3))


def test_what_is_not_a_name_is_not_called(tmp_path, canary):
    path = tmp_path / "chain.pkl"
    path.write_bytes(payloads(str(canary))["getattr chain"])
    with pytest.raises(BadFile, match="object is not callable"):
        read_pickle(path)


def test_a_persistent_id_is_not_followed(tmp_path):
    for content in (b"Pos.system\n.", b"\x80\x02Vx\nQ."):
        (tmp_path / "id.pkl").write_bytes(content)
        with pytest.raises(BadFile, match="persistent"):
            read_pickle(tmp_path / "id.pkl")


def test_a_view_of_a_storage_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "old.pt"
    torch.save(torch.ones(3), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    without, view = b"K\x03Nt", b"K\x03(X\x01\0\0\x001K\0K\x03tt"
    assert whole.count(without) == 1
    path.write_bytes(whole.replace(without, view))
    assert torch.equal(torch.load(path, weights_only=True), torch.ones(3))
    with pytest.raises(BadFile, match="a view of a storage, as PyTorch before"):
        read_torch(path)


def test_results_are_trees_that_can_be_walked_and_shown(tmp_path):
    path = tmp_path / "shared.pkl"
    part = list(range(10))
    path.write_bytes(pickle.dumps([part] * 100))
    assert sum(map(len, read_pickle(path))) == 1000
    with pytest.raises(BadFile, match="written out"):
        read_pickle(path, Limits(objects=1000))
    path.write_bytes(pickle.dumps(Call(os.mkdir, "x" * 10_000, [1] * 1000)))
    assert len(repr(read_pickle(path))) < 200
