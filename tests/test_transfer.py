"""Rank correlation between worlds: against SciPy, on runs whose order is known, and what cannot be compared."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.stats import kendalltau

from editbench.base.errors import EditbenchError
from editbench.base.files import CannotWrite
from editbench.commands.transfer import main
from editbench.report.load import load
from editbench.stats.rank_correlation import kendall
from editbench.studies.transfer import rank_table, read_world, read_worlds, transfer
from tests.fake_records import fake_run, metric_rows


def test_tau_is_scipys():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, (30, 7)).astype(float)  # with ties
    b = rng.normal(size=(30, 7))
    expected = [kendalltau(one, other).statistic for one, other in zip(a, b)]
    np.testing.assert_allclose(kendall(a, b), expected)
    assert np.isnan(kendall(np.ones((1, 4)), b[:1, :4]))[0]


def write(root, rates: dict[str, float], attributes=("smile", "age"), n=400, **more):
    """Runs in which a method crosses with the given rate, on its own draws of n starts."""
    for place, (method, rate) in enumerate(rates.items()):
        for attribute in attributes:
            values = (np.random.default_rng(place).random(n) < rate).astype(float)
            samples = pd.DataFrame({"metric": "accuracy", "start": np.arange(n), "value": values})
            fake_run(root, method, attribute, metric_rows(rate), samples=samples, **more)
    return root


def test_order_of_worlds(tmp_path):
    rates = {"alpha": 0.8, "beta": 0.6, "gamma": 0.4, "delta": 0.2, "random": 0.1}
    turned = dict(zip(rates, [0.2, 0.4, 0.6, 0.8, 0.1]))
    one = write(tmp_path / "one", rates)
    other = write(tmp_path / "other", turned)
    again = write(tmp_path / "again", rates)
    worlds = read_worlds([one, again, other])
    found = transfer(worlds, 200)
    assert found["tau"].tolist() == [1, -1, -1]
    assert (found["methods"] == 4).all() and worlds[0].left_out == {"random": "a floor"}
    assert (found["low"] <= found["tau"]).all() and (found["tau"] <= found["high"]).all()
    table = rank_table(worlds[:1])
    assert list(table.index) == ["alpha", "beta", "gamma", "delta"]


def test_every_world_has_a_name_of_its_own_and_seeds_are_none(tmp_path, monkeypatch):
    rates = {"alpha": 0.8, "beta": 0.6, "gamma": 0.4}
    one = write(tmp_path / "a" / "runs", rates)
    write(one, rates, seed=1)
    # Two settings of one generator.
    other = write(tmp_path / "b" / "runs", rates)
    write(other, rates, starts_n=100, tag="few")
    worlds = read_worlds([one, other])
    assert len({world.name for world in worlds}) == len(worlds) == 3
    assert worlds[0].name == str(one)
    with pytest.raises(EditbenchError, match="named twice"):
        read_worlds([one, one.parent / "runs"])
    monkeypatch.chdir(one)
    assert read_worlds([Path()])[0].name == "runs"


def test_a_tie_has_a_wide_interval(tmp_path):
    rates = {"alpha": 0.5, "beta": 0.5, "gamma": 0.5, "delta": 0.5}
    worlds = read_worlds([write(tmp_path / "a", rates, n=60), write(tmp_path / "b", rates, n=60)])
    row = transfer(worlds, 400).iloc[0]
    assert row["high"] - row["low"] > 0.8


def test_what_cannot_be_compared_is_named(tmp_path):
    root = write(tmp_path / "one", {"alpha": 0.8, "beta": 0.6})
    with pytest.raises(EditbenchError, match="has no 3 methods"):
        read_worlds([root])
    root = write(tmp_path / "two", {"alpha": 0.8, "beta": 0.6, "gamma": 0.5})
    with pytest.raises(EditbenchError, match="name a second runs folder"):
        main([str(root), "--out", str(tmp_path / "out")])
    write(root, {"few": 0.9}, ("smile",))
    write(root, {"alpha": 0.8, "beta": 0.6, "gamma": 0.5}, ("yaw", "beard"))
    world = read_world(load(root), "two")
    assert world is not None and world.left_out == {"few": "has results on only 1 of 4 attributes"}


def test_variants_are_methods_of_their_own(tmp_path):
    root = write(tmp_path / "one", {"alpha": 0.8, "beta": 0.6, "gamma": 0.4})
    write(root, {"alpha": 0.2}, method_config={"delta": 0.3}, tag="slow")
    (world,) = read_worlds([root])
    alphas = [name for name in world.methods if name.startswith("alpha")]
    assert len(alphas) == 2 and world.methods[2:] == ["beta", "gamma"]
    # The same draws of the same starts: the shares are those of the two variants alone.
    draws = np.random.default_rng(0).random(400)
    shares = [(draws < 0.2).mean(), (draws < 0.8).mean()]
    assert sorted(world.means(alphas)) == pytest.approx(shares)


def test_a_tie_of_all_methods_is_no_lack_of_methods(tmp_path, capsys):
    rates = {"alpha": 0.8, "beta": 0.6, "gamma": 0.4}
    one = write(tmp_path / "one", rates)
    other = write(tmp_path / "other", dict.fromkeys(rates, 1.0))
    assert main([str(one), str(other), "--out", str(tmp_path / "out")]) == 0
    assert "one and other: no ranking" in capsys.readouterr().out


def test_the_command_writes_its_files(tmp_path, capsys):
    rates = {"alpha": 0.8, "beta": 0.6, "gamma": 0.4}
    one = write(tmp_path / "one", rates)
    other = write(tmp_path / "other", rates)
    out = tmp_path / "out"
    assert main([str(one), str(other), "--out", str(out)]) == 0
    assert "one and other: 1.00" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"transfer.csv", "accuracy.csv", "transfer.png"}


def test_a_full_disk_is_explained(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    rates = {"alpha": 0.8, "beta": 0.6, "gamma": 0.4}
    folders = [str(write(tmp_path / name, rates)) for name in ("one", "other")]
    with pytest.raises(CannotWrite, match="the disk is full"):
        main([*folders, "--out", str(tmp_path / "out")])
