"""Boundaries, directions and channel rates that others published."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from editbench.bank.published.__main__ import main as show
from editbench.bank.published.directions import read_direction
from editbench.bank.published.stylespace import REGIONS, read_semantic, select_channels
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.spaces import Space
from editbench.methods.direction import Direction
from editbench.methods.stylespace.regions import select
from tests.data_folder import DATA, needs_data
from tests.published_files import Evil, dump, ganspace
from tests.toy import BINARY, check_editor, fit_data, make_walk


@needs_data
def test_published_boundaries_are_unit_directions(tmp_path, capsys):
    files = sorted((DATA / "interfacegan").glob("*_boundary.npy"))
    assert len(files) == 14
    for path in files:
        rows = read_direction(path).rows
        np.testing.assert_array_equal(rows, np.load(path, allow_pickle=False))
        assert rows.shape == (1, 512) and abs(np.linalg.norm(rows) - 1) < 1e-9
    assert show([str(path) for path in files]) == 0
    assert capsys.readouterr().out.count("unit as a boundary's normal") == len(files)


def test_a_ganspace_component_edits_its_own_layers_by_its_own_deviation(tmp_path):
    fit = fit_data()
    line = np.random.default_rng(0).normal(size=(1, 24)).astype(np.float32)
    path = ganspace(tmp_path / "light.pkl", line)
    given = read_direction(path)
    assert (given.stdev, given.layers, given.space, given.name) == (1.25, (1, 3), "W", "Light")
    editor = Direction(
        {"a": path}, normalise=False, delta=2.0, scale_step=False
    )  # steps of two deviations
    editor.fit(fit)
    editor.check(fit.generator, BINARY, "a")
    walk = make_walk(fit, editor, "a")
    walk.codes, walk.steps = editor.step(walk), 1
    decoded = editor.codes(walk)
    way = (2 * walk.target - 1)[:, None, None]
    expected = walk.origin[:, None].repeat(1, 4, 1)
    expected[:, 1:3] += 2.0 * 1.25 * way * torch.from_numpy(line)
    assert decoded.space == Space.W_PLUS
    torch.testing.assert_close(decoded.values, expected, atol=1e-5, rtol=0)
    check_editor(
        editor, fit, "a", Direction({"a": path}, normalise=False, delta=2.0, scale_step=False)
    )
    assert Direction({"a": path}, layers=(0, 1)).rows("a") == (0, 1)
    with pytest.raises(BadFile, match=r"method\.space=z"):
        Direction({"a": ganspace(tmp_path / "z.pkl", line, latent_space="Z")}).fit(fit)
    for more, words in (
        ({"edit_end": None}, "has only one"),
        ({"edit_start": None}, "has only one"),
    ):
        with pytest.raises(BadFile, match=words):
            read_direction(ganspace(tmp_path / "half.pkl", line, **more))
    assert (
        read_direction(ganspace(tmp_path / "odd.pkl", line, latent_space=np.arange(2))).space
        is None
    )
    outside = Direction({"a": ganspace(tmp_path / "far.pkl", line, edit_end=9)})
    outside.fit(fit)
    with pytest.raises(EditbenchError, match=r"\[1, 9\)"):
        outside.check(fit.generator, BINARY, "a")


def test_direction_files_of_every_kind_and_what_they_refuse(tmp_path):
    rows = np.random.default_rng(1).normal(size=(18, 24)).astype(np.float32)
    torch.save(torch.from_numpy(rows), tmp_path / "rows.pt")
    np.save(tmp_path / "rows.npy", rows)
    for name in ("rows.pt", "rows.npy"):
        np.testing.assert_array_equal(read_direction(tmp_path / name).rows, rows)
    canary = tmp_path / "canary"
    bad = {
        "dict.pkl": {"a": 1},
        "evil.pkl": Evil(canary),
        "evil2.pkl": {"lat_comp": Evil(canary)},
        "stdev.pkl": {"lat_comp": rows, "lat_stdev": np.zeros(1)},
        "layers.pkl": {"lat_comp": rows, "edit_start": 3, "edit_end": 3},
        "index.pkl": {"lat_comp": rows, "edit_start": "3", "edit_end": 4},
    }
    for name, value in bad.items():
        dump(tmp_path / name, value)
        with pytest.raises(BadFile, match=name):
            read_direction(tmp_path / name)
    for name in ("none.npy", "rows.txt", "none.pkl"):
        with pytest.raises(BadFile, match=name):
            read_direction(tmp_path / name)
    np.savez(tmp_path / "several.npz", rows)
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    with pytest.raises(BadFile, match="npz"):
        read_direction(tmp_path / "several.npy")
    assert not canary.exists()


def test_channel_rates_select_as_the_rule_says(tmp_path, capsys):
    rng = np.random.default_rng(0)
    counts = rng.multinomial(4, [1 / 12] * 12, size=60)[:, :11] * rng.integers(0, 2, (60, 1))
    rates = counts / 4.0
    rates[:3] = 0
    rates[0, 7], rates[1, [7, 3]], rates[2, 5] = (
        1.0,
        (1.0, 0.75),
        0.5,
    )  # one clear, one not by the margin, one too low
    layers = [rates[:20], rates[20:25] * 0, rates[25:]]
    path = tmp_path / "semantic_top_32.pkl"
    dump(path, layers, 4)
    read = read_semantic(path)
    assert all(np.array_equal(a, b) for a, b in zip(read, layers)) and len(read) == 3
    found = select_channels(read)
    starts, flat = np.cumsum([0, *map(len, layers)]), np.concatenate(layers)
    theirs = select(
        torch.from_numpy(4 * flat.T), torch.full((11,), 4)
    )  # the editor's own rule, on the counts
    for r, region in enumerate(REGIONS):
        own = [
            i
            for i in range(len(flat))
            if flat[i, r] > 0.5 and all(flat[i, r] - flat[i, q] > 0.25 for q in range(11) if q != r)
        ]
        channels = [int(starts[layer] + channel) for layer, channel in found[region]]
        assert (
            channels == sorted(own, key=lambda i, r=r: -flat[i, r]) == theirs.channels[r].tolist()
        )
    assert (0, 0) in found["mouth"] and (0, 1) not in found["mouth"] and not found["ear"]
    assert show([str(path)]) == 0 and "60 style channels in 3 layers" in capsys.readouterr().out
    (tmp_path / "semantic_top_32").write_bytes(
        path.read_bytes()
    )  # the published name has no suffix
    assert show([str(tmp_path / "semantic_top_32")]) == 0
    assert "in 3 layers" in capsys.readouterr().out
    for value, words in (
        ([rates[:, :10]], "shape"),
        ([rates * 2], "shares"),
        ({"a": 1}, "holds dict"),
        ([], "list"),
    ):
        dump(path, value)
        with pytest.raises(BadFile, match=words):
            read_semantic(path)
