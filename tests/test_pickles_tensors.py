"""Tensors and arrays that the restricted reader gives, against torch's safe reader and NumPy."""

import gc
import pickle
import tracemalloc
import weakref

import numpy as np
import pytest
import torch

from editbench.base.errors import BadFile
from editbench.networks.pickles import read_pickle, read_torch
from tests.data_folder import DATA, needs_data
from tests.pickle_files import PROTOCOLS, same, written

TENSORS = {
    "plain": torch.arange(12.0).reshape(3, 4),
    "turned": torch.arange(12.0).reshape(3, 4).t(),
    "part": torch.arange(12)[2:9:3],
    "half": torch.ones(3, dtype=torch.float16),
    "empty": torch.zeros(0, 4),
    "bfloat": torch.ones(2, dtype=torch.bfloat16),
    "bool": torch.tensor([True, False]),
    "number": torch.tensor(2.5),
    "complex": torch.tensor([1 + 2j]),
    "byte": torch.arange(4, dtype=torch.uint8),
    "wide": torch.ones(1).expand(5, 3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "nan": torch.tensor([1, 2], dtype=torch.int16),
}


def test_the_byte_order_in_a_dtypes_own_code_counts_where_it_has_no_state(tmp_path):
    path = tmp_path / "value.pkl"
    content = (
        b"cnumpy.core.numeric\n_frombuffer\n("
        + pickle.dumps(np.arange(3, dtype=">f4").tobytes(), 3)[2:-1]
        + b"cnumpy\ndtype\n(V>f4\nI00\nI01\ntR(I3\ntVC\ntR."
    )
    path.write_bytes(content)
    assert same(read_pickle(path), np.arange(3, dtype=np.float32))


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 0, 1), (0, 2, 1)])
def test_transposed_arrays_of_every_protocol(tmp_path, axes):
    array = np.arange(24.0).reshape(2, 3, 4).transpose(axes)
    for protocol in PROTOCOLS:
        assert same(read_pickle(written(tmp_path, array, protocol)), array)


@pytest.mark.parametrize("zipped", [True, False])
def test_conjugate_and_negative_views_are_refused_and_unsigned_integers_read(tmp_path, zipped):
    path, turned = tmp_path / "value.pt", torch.tensor([1 + 2j, 3 - 4j]).conj()
    for view in (turned, turned.imag):
        torch.save({"w": view}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(BadFile, match="resolve_conj"):
            read_torch(path)
    value = [torch.arange(9).to(torch.uint16)[2:7], torch.arange(3).to(torch.uint64)]
    if zipped:  # torch does not write them in the older format
        torch.save(value, path)
        assert same(read_torch(path), torch.load(path, weights_only=True))


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_equal_the_safe_reader_of_torch(tmp_path, zipped):
    path = tmp_path / "value.pt"
    shared = torch.arange(6.0)
    value = {
        **TENSORS,
        "shared": [shared, shared[2:], shared.view(2, 3)],
        "epoch": 3,
        "names": ("a", "b"),
        "state": torch.nn.Linear(2, 3).state_dict(),
    }
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    found, expected = read_torch(path), torch.load(path, weights_only=True)
    assert same(found, {**expected, "state": dict(expected["state"])})
    assert same(read_pickle(path), found)
    found["shared"][0][2] = 99.0
    assert found["shared"][1][0] == 99.0 and found["shared"][2][0, 2] == 99.0


def read_and_peak(read, path):
    """What a reader gives, and the most bytes that this process held meanwhile."""
    tracemalloc.start()
    try:
        return read(path), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("zipped", [True, False])
def test_elements_are_held_once_while_they_are_read(tmp_path, zipped):
    path = tmp_path / "value.pt"
    value = {str(k): torch.full((1 << 20,), float(k)) for k in range(3)}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    found, peak = read_and_peak(read_torch, path)
    assert same(found, value)
    size = sum(tensor.nbytes for tensor in value.values())
    assert size <= peak <= size + (4 << 20)


@pytest.mark.parametrize("protocol", [4, 5])
def test_the_bytes_of_an_array_are_let_go_of(tmp_path, protocol):
    value = {str(k): np.full(1 << 18, float(k)) for k in range(6)}
    path = written(tmp_path, value, protocol)
    found, peak = read_and_peak(read_pickle, path)
    assert same(found, value)
    size = sum(array.nbytes for array in value.values())
    # One array beside its bytes, and another copy of it while it is made.
    assert size <= peak <= size + (5 << 20)


def test_the_content_is_freed_with_its_last_reference(tmp_path):
    """And not at the next garbage collection, which can be long after."""
    path = written(tmp_path, [np.ones(3)])
    gc.disable()
    try:
        array = weakref.ref(read_pickle(path)[0])
        assert array() is None
    finally:
        gc.enable()


def test_parameters_and_buffers_of_another_layout_are_refused_with_the_remedy(tmp_path):
    sparse = torch.eye(2).to_sparse()
    for value in (torch.nn.Parameter(sparse), torch.nn.Buffer(sparse)):
        with pytest.raises(BadFile, match="save a dense tensor"):
            read_pickle(written(tmp_path, value))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_tensors_within_a_plain_pickle(tmp_path, protocol):
    path = written(tmp_path, {"G_ema": TENSORS}, protocol)
    assert same(read_pickle(path), {"G_ema": {k: v.detach() for k, v in TENSORS.items()}})


@needs_data
def test_rosinality_equals_the_safe_reader_of_torch():
    path = DATA / "rosinality" / "rosinality_64.pt"
    expected = torch.load(path, weights_only=True, map_location="cpu")
    assert same(read_torch(path), {**expected, "g_ema": dict(expected["g_ema"])})


@needs_data
@pytest.mark.parametrize("size", [64, 128])
def test_nvlabs_pickles_come_as_opaque_modules_with_their_tensors(size):
    path = DATA / "stylegan2-ada" / f"stylegan2ada_{size}.pkl"
    found = read_pickle(path)
    network = found["G_ema"]
    assert network.name == "torch_utils.persistence._reconstruct_persistent_obj"
    assert len(network.args) == 1
    meta = network.args[0]
    assert meta["class_name"] == "Generator" and isinstance(meta["module_src"], str)
    mapping = meta["state"]["_modules"]["mapping"].args[0]["state"]
    average = mapping["_buffers"]["w_avg"]
    golden = np.load(path.with_suffix("").with_suffix(".golden.npz"), allow_pickle=False)
    assert average.shape == (golden["ws"].shape[-1],)
    # truncation pulls to w_avg: ws_trunc = w_avg + 0.7 (ws - w_avg) pins its value by the official
    # code's own output
    pulled = (golden["ws_trunc07"] - 0.7 * golden["ws"]) / 0.3
    np.testing.assert_allclose(np.broadcast_to(average.numpy(), pulled.shape), pulled, atol=2e-5)
