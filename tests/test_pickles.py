"""The restricted reader gives what pickle and torch.save wrote, with names as inert stand-ins."""

import collections
import errno
import io
import pickle
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editbench.base.errors import BadFile
from editbench.networks.pickles import Limits, Opaque, read_pickle, read_torch, reader
from tests.pickle_files import PROTOCOLS, same, written

atoms = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text()
    | st.binary()
)


keys = st.text() | st.integers(-(2**59), 2**59) | st.tuples(st.text(), st.integers(0, 9))


nested = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(keys, inner)
        | st.tuples(inner, inner)
        | st.sets(st.integers(0, 99))
        | st.frozensets(st.text())
    ),
    max_leaves=20,
)


@settings(max_examples=15, deadline=None)
@given(value=st.lists(nested, min_size=1, max_size=8), protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_come_back_as_pickle_would_read_them(tmp_path_factory, value, protocol):
    """Several values a file, as each file costs a process."""
    path = tmp_path_factory.getbasetemp() / "plain.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert same(read_pickle(path), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::3],
        np.array(3.5),
        np.zeros((0, 512), np.float16),
        np.array([True, False]),
        np.arange(4, dtype=">f8"),
        np.array(["smile", "é"]),
        np.array([b"ab", b"c"]),
        np.array([1 + 2j, np.nan]),
        np.arange(5, dtype=np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_of_every_kind_and_protocol(tmp_path, protocol, array):
    value = {
        "a": array,
        "again": array,
        "scalar": array.dtype.type(array.flat[0]) if array.size else 0,
    }
    found = read_pickle(written(tmp_path, value, protocol))
    value["a"] = value["again"] = array.astype(array.dtype.newbyteorder("="))
    assert same(found, value) and found["a"] is found["again"] and found["a"].flags.writeable


class EasyDict(dict):
    """A dict with attributes, as StyleGAN's dnnlib has it."""


EasyDict.__module__ = "dnnlib.util"


class Odd:
    """A class of somebody else, with a state."""

    def __init__(self, **state):
        self.__dict__.update(state)


class OddList(list):
    pass


class Keyword:
    def __new__(cls, *, size):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"size": 4}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dict_likes_are_dicts_and_other_classes_are_opaque(tmp_path, protocol, monkeypatch):
    import sys
    import types

    monkeypatch.setitem(sys.modules, "dnnlib", types.ModuleType("dnnlib"))
    monkeypatch.setitem(sys.modules, "dnnlib.util", types.ModuleType("dnnlib.util"))
    monkeypatch.setattr(sys.modules["dnnlib.util"], "EasyDict", EasyDict, raising=False)
    default = collections.defaultdict(list, a=[1])
    value = [
        EasyDict(fmap_base=8192),
        collections.OrderedDict([("b", 1), ("a", 2)]),
        default,
        Odd(x=np.arange(3)),
        Odd,
        OddList([1, 2]),
    ]
    easy, ordered, plain, odd, name, odd_list = read_pickle(written(tmp_path, value, protocol))
    assert same(easy, {"fmap_base": 8192})
    assert same(ordered, {"b": 1, "a": 2})
    assert same(plain, {"a": [1]})
    for found, cls in ((odd, Odd), (name, Odd), (odd_list, OddList)):
        assert isinstance(found, Opaque) and found.name == f"{__name__}.{cls.__name__}"
    assert same(odd.state, {"x": np.arange(3)})
    # Protocols 0 and 1 call copyreg._reconstructor with the list, the others append its items.
    assert [*odd_list.args, odd_list.items] == ([[1, 2], []] if protocol < 2 else [[1, 2]])


def test_keys_and_members_are_plain_values(tmp_path):
    value = {("b", (3, None)): 1, 2: {0.5, b"a"}}
    assert same(read_pickle(written(tmp_path, value)), value)
    for refused in ({np.int64(1): 1}, {(1, np.float32(0.5))}, {Keyword(size=4): 1}):
        with pytest.raises(BadFile, match="a key of a dict or set is an object"):
            read_pickle(written(tmp_path, refused))


def test_named_arguments_are_kept_aside(tmp_path):
    found = read_pickle(written(tmp_path, Keyword(size=4)))
    assert found.name.endswith("Keyword") and found.args == () and found.kwargs == {"size": 4}


def test_parts_that_are_shared_stay_shared(tmp_path):
    part = [1]
    found = read_pickle(written(tmp_path, {"a": part, "b": part}))
    assert found["a"] is found["b"]


class Text(str):
    pass


class Number(int):
    pass


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_of_classes_of_text_and_numbers_hold_their_value(tmp_path, protocol):
    text, number = read_pickle(written(tmp_path, [Text("ab"), Number(5)], protocol))
    assert text.name.endswith("Text") and text.args == ("ab",) and not text.items
    assert number.name.endswith("Number") and number.args == (5,)


def test_names_of_functions_that_are_called_are_opaque_by_themselves(tmp_path):
    value = [set, frozenset, complex, bytes, bytearray, dict, torch.Size]
    names = [f"builtins.{cls.__name__}" for cls in value[:-1]] + ["torch.Size"]
    assert read_pickle(written(tmp_path, value)) == [
        Opaque(name, (), {}, None, []) for name in names
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_of_empty_text(tmp_path, protocol):
    value = [np.str_(""), np.bytes_(b"")]
    assert same(read_pickle(written(tmp_path, value, protocol)), value)


class Network:
    """As dnnlib.tflib.network.Network pickles itself: its own state, no arguments."""

    def __getstate__(self):
        return {
            "version": 4,
            "name": "Gs",
            "static_kwargs": EasyDict(resolution=64),
            "components": EasyDict(),
            "build_module_src": "raise SystemExit",
            "build_func_name": "G_main",
            "variables": [("dlatent_avg", np.arange(4, dtype=np.float32)), ("lod", np.float32(0))],
        }


Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensorflow_networks_come_as_opaque_with_their_variables(tmp_path, protocol, monkeypatch):
    import sys
    import types

    for name, cls in {
        "dnnlib": None,
        "dnnlib.util": EasyDict,
        "dnnlib.tflib": None,
        "dnnlib.tflib.network": Network,
    }.items():
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        if cls:
            monkeypatch.setattr(sys.modules[name], cls.__name__, cls, raising=False)
    found = read_pickle(written(tmp_path, (Network(), Network(), Network()), protocol))
    assert [network.name for network in found] == ["dnnlib.tflib.network.Network"] * 3
    state = found[2].state
    assert state["version"] == 4 and state["build_func_name"] == "G_main"
    assert same(state["static_kwargs"], {"resolution": 64})
    name, values = state["variables"][0]
    assert name == "dlatent_avg" and same(values, np.arange(4, dtype=np.float32))


def test_python_2_wrote_arrays_with_text_for_bytes(tmp_path):
    raw = np.array([1.5, -2.0]).tobytes()
    path = tmp_path / "old.pkl"
    path.write_bytes(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
        + repr(raw)[1:].encode()
        + b"\ntb."
    )
    assert same(read_pickle(path), np.array([1.5, -2.0]))
    assert same(
        pickle.loads(path.read_bytes(), encoding="latin1"), np.array([1.5, -2.0])
    )  # our own bytes, above


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs", "git-lfs"),
        (b"\x1f\x8b\x08\x00", "gunzip"),
        (pickle.dumps(1) + pickle.dumps(2), "several pickles"),
        (b"hello", "damaged"),
        (b"\xff\xd8\xff\xe0", "not a pickle"),
        (b"\x80\x09N.", "unsupported pickle protocol: 9"),
        (pickle.dumps(1)[:-1], "ends in the middle"),
        (b"PK\x03\x04" + bytes(100), "ends in the middle"),
        (b"\x89PNG\r\n\x1a\n", "persistent ids.* damaged or not a pickle"),
    ],
)
def test_files_of_another_kind_say_what_they_are(tmp_path, content, words):
    path = tmp_path / "value.pkl"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=words) as error:
        read_pickle(path)
    assert str(error.value).startswith(str(path))


def test_a_file_whose_reading_the_system_killed_is_not_called_damaged(tmp_path, monkeypatch):
    script = tmp_path / "child.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setattr(reader, "CHILD", script)
    with pytest.raises(BadFile, match="the system killed the process"):
        read_pickle(written(tmp_path, [1]))


def test_missing_files_folders_torchscript_and_other_zips(tmp_path):
    for path in (tmp_path / "absent.pkl", tmp_path):
        for read in (read_pickle, read_torch):
            with pytest.raises(BadFile, match=r"no such file|a folder, not a file"):
                read(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(BadFile, match="TorchScript"):
        read_torch(tmp_path / "script.pt")
    np.savez(tmp_path / "arrays.npz", a=np.arange(3))
    with pytest.raises(BadFile, match=r"data\.pkl|compressed"):
        read_torch(tmp_path / "arrays.npz")
    with pytest.raises(BadFile, match=r"not a torch\.save archive"):
        read_torch(written(tmp_path, [1]))


def test_a_reading_process_that_cannot_start_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(BadFile, match=r"could be started .*temporarily unavailable"):
        read_pickle(written(tmp_path, 1))


def test_limits_are_kept_and_named(tmp_path):
    path = written(tmp_path, [np.zeros(1000), *range(1000)])
    assert len(read_pickle(path)) == 1001
    for limits, words in (
        (Limits(objects=500), r"Limits\(objects"),
        (Limits(bytes=100), r"Limits\(bytes"),
    ):
        with pytest.raises(BadFile, match=words):
            read_pickle(path, limits)
    array = np.zeros(1 << 20)
    repeated = written(tmp_path, [array] * 9)
    assert len(read_pickle(repeated)) == 9
    with pytest.raises(BadFile, match=r"Limits\(bytes"):
        read_pickle(repeated, Limits(bytes=5 * array.nbytes))
    deep = written(tmp_path, [[[[1]]]])
    assert read_pickle(deep, Limits(depth=4)) == [[[[1]]]]
    with pytest.raises(BadFile, match="more than 3 levels"):
        read_pickle(deep, Limits(depth=3))
    shared = [[1]]
    twice = written(
        tmp_path, [shared, [[shared]]]
    )  # 5 levels, of which 2 are known when they are met again
    assert read_pickle(twice, Limits(depth=5)) == [shared, [[shared]]]
    with pytest.raises(BadFile, match="more than 4 levels"):
        read_pickle(twice, Limits(depth=4))


def test_objects_with_numbers_only_in_object_arrays_are_refused(tmp_path):
    with pytest.raises(BadFile, match="only numbers"):
        read_pickle(written(tmp_path, np.array([1, "a"], dtype=object)))
    with pytest.raises(BadFile, match="only numbers"):
        read_pickle(written(tmp_path, np.zeros(2, [("x", "f4")])))
    buffer = io.BytesIO()
    torch.save(torch.zeros(2, 2).to_sparse(), buffer)
    (tmp_path / "sparse.pt").write_bytes(buffer.getvalue())
    assert read_torch(tmp_path / "sparse.pt").name == "torch._utils._rebuild_sparse_tensor"
