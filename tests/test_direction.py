"""Given directions: shapes, signs, layered decodes and the errors of bad files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.spaces import Space
from editbench.methods.direction import Direction
from editbench.run.compose import compose_config
from tests.toy import BINARY, DATA, MIXED, check_editor, fit_data, make_walk, needs_data

DIM, ROWS = 24, 4


def saved(tmp_path, array, name: str = "direction.npy") -> str:
    np.save(tmp_path / name, array)
    return str(tmp_path / name)


def some(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("shape", [(DIM,), (1, DIM), (ROWS, DIM)])
@pytest.mark.parametrize("layers", [None, (1, 3)])
def test_contract(tmp_path, shape, layers):
    data, path = fit_data(), saved(tmp_path, some(*shape))
    editor, fresh = (Direction({"a": path}, layers=layers) for _ in range(2))
    assert set(editor.fit(data).notes) == {"step"}
    editor.check(data.generator, BINARY, "a")
    check_editor(editor, data, "a", fresh)


def test_flat_direction_is_a_line_with_the_sign_of_the_file(tmp_path):
    data, line = fit_data(), some(DIM)
    path = saved(tmp_path, line)
    for sign in (1, -1):
        editor = Direction({"a": path}, {"a": sign}, delta=0.5, scale_step=False)
        editor.fit(data)
        walk = make_walk(data, editor, "a")
        way = (2 * walk.target - 1)[:, None] * sign
        expected = walk.codes + 0.5 * way * torch.from_numpy(line / np.linalg.norm(line))
        torch.testing.assert_close(editor.step(walk), expected.float())
    raw = Direction({"a": path}, normalise=False, scale_step=False)
    raw.fit(data)
    walk = make_walk(data, raw, "a")
    assert (raw.step(walk) - walk.codes)[0].norm().item() == pytest.approx(
        0.6 * np.linalg.norm(line), rel=1e-5
    )


def test_step_is_scaled_to_the_spread(tmp_path):
    data = fit_data()
    editor = Direction({"a": saved(tmp_path, some(DIM))}, delta=0.6)
    editor.fit(data)
    walk = make_walk(data, editor, "a")
    expected = 0.6 * data.spread(Space.W) / 9.06
    torch.testing.assert_close(
        (editor.step(walk) - walk.codes).norm(dim=1), torch.full((len(walk),), expected)
    )


@pytest.mark.parametrize("layers", [None, (1, 3)])
def test_layered_direction_moves_each_row_along_its_own(tmp_path, layers):
    data, rows = fit_data(), some(ROWS, DIM)
    editor = Direction({"a": saved(tmp_path, rows)}, delta=0.5, scale_step=False, layers=layers)
    editor.fit(data)
    walk = make_walk(data, editor, "a")
    for step in range(3):
        walk.codes, walk.steps = editor.step(walk), step + 1
    rows = torch.from_numpy(rows / np.sqrt(np.square(rows).sum(1).mean()))
    if layers:
        rows[: layers[0]], rows[layers[1] :] = 0, 0
    way = (2 * walk.target - 1)[:, None, None]
    decoded = editor.codes(walk)
    assert decoded.space == Space.W_PLUS
    torch.testing.assert_close(
        decoded.values, (walk.origin[:, None] + 1.5 * way * rows).float(), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        (walk.codes - walk.origin).norm(dim=1), torch.full((len(walk),), 1.5)
    )
    walk.codes = (walk.codes + walk.origin) / 2  # halfway in W is halfway in W+
    expected = (walk.origin[:, None] + 0.75 * way * rows).float()
    torch.testing.assert_close(editor.codes(walk).values, expected, atol=1e-5, rtol=0)


def test_bad_files_name_themselves_and_the_remedy(tmp_path):
    data = fit_data()
    pickled = str(tmp_path / "object.npy")
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    bad = {
        "none.npy": str(tmp_path / "none.npy"),
        "object.npy": pickled,
        "shape.npy": saved(tmp_path, some(7), "shape.npy"),
        "rows.npy": saved(tmp_path, some(3, DIM), "rows.npy"),
        "deep.npy": saved(tmp_path, some(1, 1, DIM), "deep.npy"),
        "zero.npy": saved(tmp_path, np.zeros(DIM), "zero.npy"),
        "nan.npy": saved(tmp_path, np.full(DIM, np.nan), "nan.npy"),
        "integers.npy": saved(tmp_path, np.ones(DIM, int), "integers.npy"),
    }
    for name, path in bad.items():
        with pytest.raises(BadFile, match=name):
            Direction({"a": path}).fit(data)
    with pytest.raises(BadFile, match=r"\(24,\), \(1, 24\); set method.paths.a"):
        Direction({"a": saved(tmp_path, some(ROWS, DIM))}, space="z").fit(data)


def test_what_it_cannot_serve_is_skipped_with_a_reason(tmp_path):
    path = saved(tmp_path, some(DIM))
    data, editor = fit_data(MIXED), Direction({"kind": path, "elsewhere": path})
    assert editor.fit(data).notes["unused"] == ["elsewhere"]
    with pytest.raises(Unsupported, match="no direction file for 'a'"):
        editor.check(data.generator, MIXED, "a")
    with pytest.raises(Unsupported, match="3 classes"):
        editor.check(data.generator, MIXED, "kind")
    with pytest.raises(EditbenchError, match="signs"):
        Direction({"a": path}, {"b": -1})


@needs_data
def test_published_files_are_read():
    paths = {
        "a": str(DATA / "interfacegan" / "stylegan_ffhq_smile_w_boundary.npy"),
        "b": str(DATA / "ffhq-latents" / "direction_smile_e4e.npy"),
    }
    data, editor = fit_data(dim=512, n=20), Direction(paths)
    editor.fit(data)
    for name, path in paths.items():
        file = np.load(path, allow_pickle=False)[0].astype(np.float64)
        np.testing.assert_allclose(
            editor.directions[name][0], file / np.linalg.norm(file), atol=1e-7
        )


@pytest.mark.parametrize("word", ["method.paths.smile=s.npy", "method.paths={smile: s.npy}"])
def test_a_file_that_needs_a_plus_is_told_so(word):
    with pytest.raises(EditbenchError, match=r"\+method\.paths=\{smile: ?(s\.npy|\.\.\.)\}"):
        compose_config(["method=direction", word])
    given = compose_config(["method=direction", "+method.paths={smile: s.npy}"])
    assert given.method.paths == {"smile": "s.npy"}
