"""The bank: bits that don't depend on how it was built, files that are whole or absent, statistics that stream."""

import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from editbench.bank import build as building
from editbench.bank.bank import Bank, ShardedArray, read_spec
from editbench.bank.build import BankBuild, build_bank, build_shard
from editbench.bank.layout import shard_folder
from editbench.bank.spec import BankSpec
from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile, EditbenchError, NonFinite, UnknownName, Unsupported
from editbench.base.files import digest, read_json, write_json
from editbench.base.identity import bank_id
from editbench.base.seeding import normals
from editbench.base.spaces import Space
from editbench.networks.roles import Networks
from editbench.run.compose import compose_config
from tests.by_config import load_networks
from tests.processes import Started
from tests.toy_world import ATTRIBUTES, ToyGenerator, ToyScorer, V


def models(poison=float("inf")):
    return Networks(ToyGenerator(poison), ToyScorer("teacher", 2.0), ToyScorer("judge"))


def build(folder, n=1000, block=50, shard=250, workers=1, **kwargs):
    spec = BankSpec(n, block=block, shard=shard)
    return build_bank(folder, "id", spec, partial(models, **kwargs), workers=workers)


def contents(bank):
    return {name: bank.array(name).range(0, len(bank)).tobytes() for name in bank.fields}


def test_samples_are_what_the_seed_says(tmp_path):
    bank = build(tmp_path / "b")
    z = normals(0, "bank", 0, 1000, 8).astype(np.float32)
    assert np.array_equal(bank.array("z").range(0, 1000), z)
    assert np.array_equal(bank.array("w").range(0, 1000), 2 * z)
    assert np.allclose(bank.array("judge").range(0, 1000), 2 * z @ V.numpy(), atol=1e-5)
    assert np.allclose(bank.array("teacher").range(0, 1000), 4 * z @ V.numpy(), atol=1e-5)


def test_shards_and_workers_do_not_change_a_byte(tmp_path):
    whole = contents(build(tmp_path / "one", shard=1000))
    assert contents(build(tmp_path / "many", shard=50)) == whole
    assert contents(build(tmp_path / "uneven", shard=350)) == whole
    assert contents(build(tmp_path / "workers", shard=250, workers=2)) == whole


def test_block_size_changes_numbers_by_float_tolerance_only(tmp_path):
    a, b = build(tmp_path / "a", block=50), build(tmp_path / "b", block=125)
    assert np.array_equal(a.array("z").range(0, 1000), b.array("z").range(0, 1000))
    assert np.abs(a.array("judge").range(0, 1000) - b.array("judge").range(0, 1000)).max() < 1e-5


def test_sigma_streams_to_the_plain_standard_deviation(tmp_path):
    bank = build(tmp_path / "b", n=970)
    logits = torch.from_numpy(bank.array("judge").range(0, 970)).double()
    expected = ATTRIBUTES.log_odds(logits).std(0).numpy()
    assert np.allclose(bank.sigma["judge"], expected, rtol=1e-12)


def test_a_constant_class_of_many_is_refused_whatever_rounding_leaves(tmp_path):
    one = Attributes([Attribute("kind", ("x", "y", "z"))])
    shard_folder(tmp_path, 0).mkdir()
    logits = np.tile(np.float32([0.3, -1.7, 0.9]), (100, 1))
    odds = one.log_odds(torch.from_numpy(logits).double()).numpy()
    # What this is about: the plain mean of equal numbers is another number.
    assert (odds.mean(0) != odds[0]).any()
    np.save(shard_folder(tmp_path, 0) / "judge.npy", logits)
    with pytest.raises(BadFile, match="logit 'kind:x' is constant"):
        building.stream_sigma(tmp_path, BankSpec(100, block=100, shard=100), "judge", one)


def test_a_selection_of_a_selection_has_its_own_columns(tmp_path):
    bank = build(tmp_path / "b", n=100, shard=50)
    part = bank.select(["b", "c"]).select(["c"])
    columns = bank.judge_attributes.positions(part.judge_attributes)
    for role in ("teacher", "judge"):
        expected = bank.array(role).range(0, 100)[:, columns]
        assert np.array_equal(part.array(role).range(0, 100), expected)
        assert np.array_equal(part.array(role).take(np.array([70, 3])), expected[[70, 3]])
    assert part is bank.select(["c"]) and part.sigma["judge"].shape == (3,)
    with pytest.raises(UnknownName, match="'a'"):
        bank.select(["b", "c"]).select(["a"])


def test_splits_cover_the_bank_once(tmp_path):
    bank = build(tmp_path / "b")
    index = torch.cat([bank.split(name).index for name in ("fit", "tune", "test")])
    assert index.tolist() == list(range(1000))
    assert bank.split("fit") is bank.split("fit")
    with pytest.raises(Unsupported, match="no S codes"):
        bank.split("fit").codes(Space.S)


def test_sharded_array_takes_any_rows():
    shards = [
        np.arange(6).reshape(3, 2),
        np.arange(6, 8).reshape(1, 2),
        np.arange(8, 14).reshape(3, 2),
    ]
    array, plain = ShardedArray(shards), np.concatenate(shards)
    assert len(array) == 7
    assert np.array_equal(array.take(np.array([6, 0, 3, 3])), plain[[6, 0, 3, 3]])
    for a in range(8):
        for b in range(a, 8):
            assert np.array_equal(array.range(a, b), plain[a:b])


def name_of(spec, generator="g", teacher="t", judge="j", code="c"):
    networks = {"generator": generator, "teacher": teacher, "judge": judge}
    return bank_id(vars(spec), networks, code)


def test_identity_depends_on_content_not_on_layout():
    base = BankSpec(1000, block=50, shard=250)
    assert name_of(base) == name_of(BankSpec(1000, block=50, shard=500))
    names = {
        name_of(base),
        name_of(BankSpec(1001, block=50, shard=250)),
        name_of(BankSpec(1000, 1, block=50, shard=250)),
        name_of(base, generator="x"),
        name_of(base, teacher="x"),
        name_of(base, judge="x"),
        name_of(base, code="x"),
    }
    assert len(names) == 7
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_bank_keeps_the_layout_it_was_begun_with(tmp_path):
    before = contents(build(tmp_path / "b", shard=250))
    stamps = {k: shard_folder(tmp_path / "b", k).stat().st_mtime_ns for k in (0, 2, 3)}
    shutil.rmtree(shard_folder(tmp_path / "b", 1))
    assert contents(build(tmp_path / "b", shard=50)) == before
    assert {k: shard_folder(tmp_path / "b", k).stat().st_mtime_ns for k in (0, 2, 3)} == stamps
    assert len(list((tmp_path / "b").glob("shard-*"))) == 4


# -- bad input -------------------------------------------------------------------------------------
def test_a_cut_shard_is_noticed_and_only_it_is_rebuilt(tmp_path):
    bank = build(tmp_path / "b")
    before, others = (
        contents(bank),
        {k: shard_folder(bank.folder, k).stat().st_mtime_ns for k in (0, 1, 3)},
    )
    file = shard_folder(bank.folder, 2) / "judge.npy"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadFile, match=r"shard-00002.*judge\.npy is truncated or altered.*delete"):
        Bank(bank.folder)
    for each in shard_folder(bank.folder, 2).iterdir():
        each.unlink()
    shard_folder(bank.folder, 2).rmdir()
    assert contents(build(tmp_path / "b")) == before
    assert {k: shard_folder(bank.folder, k).stat().st_mtime_ns for k in (0, 1, 3)} == others


@pytest.mark.parametrize("finished", [True, False])
def test_sigma_is_never_that_of_a_damaged_shard(tmp_path, finished):
    whole = build(tmp_path / "b")
    sigma = whole.sigma["judge"]
    damaged = shard_folder(whole.folder, 1)
    np.save(damaged / "judge.npy", 50 * np.load(damaged / "judge.npy"))
    bank_json = whole.folder / "bank.json"
    if finished:
        # As a bank of before: its sigma was taken of the damaged shard.
        wrong = {"teacher": whole.sigma["teacher"].tolist(), "judge": (50 * sigma).tolist()}
        write_json(bank_json, {**read_json(bank_json), "sigma": wrong})
    else:
        bank_json.unlink()
    with pytest.raises(
        BadFile, match=r"judge\.npy is truncated or altered.*only this shard is rebuilt"
    ):
        build(whole.folder)
    assert bank_json.exists() == finished
    shutil.rmtree(damaged)
    assert np.array_equal(build(whole.folder).sigma["judge"], sigma)


@pytest.mark.parametrize("harm", ["cut", "missing"])
def test_a_damaged_shard_of_an_unfinished_bank_is_named(tmp_path, harm):
    bank = build(tmp_path / "b")
    (bank.folder / "bank.json").unlink()
    file = shard_folder(bank.folder, 1) / "teacher.npy"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:500])
    else:
        file.unlink()
    with pytest.raises(
        BadFile, match=r"shard-00001.*teacher\.npy (is truncated|is missing).*delete"
    ):
        build(bank.folder)


def test_one_flipped_bit_is_noticed(tmp_path):
    bank = build(tmp_path / "b")
    file = shard_folder(bank.folder, 1) / "w.npy"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(BadFile, match=r"w\.npy is truncated or altered"):
        Bank(bank.folder)


def test_a_missing_shard_and_a_broken_index_are_named(tmp_path):
    bank = build(tmp_path / "b")
    shard_folder(bank.folder, 0).rename(tmp_path / "elsewhere")
    with pytest.raises(BadFile, match="shard-00000 is missing"):
        Bank(bank.folder)
    (bank.folder / "bank.json").write_text("{ not json")
    with pytest.raises(BadFile, match=r"bank\.json is not readable JSON"):
        Bank(bank.folder)


def test_nan_from_the_generator_names_the_sample_and_leaves_finished_shards(tmp_path):
    z = normals(0, "bank", 0, 1000, 8)
    worst = float(2 * np.sort(z[:, 0])[-1])
    first_bad = int(np.argmax(z[:, 0]))
    with pytest.raises(NonFinite, match=f"bank sample {first_bad} has NaN"):
        build(tmp_path / "b", poison=worst - 1e-4)
    left = sorted(path.name for path in (tmp_path / "b").iterdir() if path.name.startswith("shard"))
    assert left == [f"shard-{k:05d}" for k in range(first_bad // 250)]


def test_bad_specs_say_which_key():
    for kwargs, key in (
        ({"n": 0}, "bank.n"),
        ({"n": 10, "block": 3, "shard": 10}, "bank.shard=10 must be a multiple"),
        ({"n": 10, "fit": 0.9, "tune": 0.1}, "bank.fit=0.9"),
    ):
        with pytest.raises(EditbenchError, match=key):
            BankSpec(**kwargs)


def test_a_full_disk_is_explained_and_nothing_half_written_stays(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    folder, spec = tmp_path / "b", BankSpec(1000, block=50, shard=250)
    build_shard(BankBuild(folder, spec), models(), 0, lambda amount=1: None)
    monkeypatch.setattr(building, "write_npy_header", full)
    with pytest.raises(EditbenchError, match=r"disk is full.*shard-00001.*free some space"):
        build_shard(BankBuild(folder, spec), models(), 1, lambda amount=1: None)
    assert sorted(p.name for p in folder.iterdir()) == [".locks", "shard-00000"]


class SlowGenerator(ToyGenerator):
    def _decode(self, codes):
        time.sleep(0.02)
        return super()._decode(codes)


def slow_models():
    return Networks(SlowGenerator(), ToyScorer("teacher", 2.0), ToyScorer("judge"))


def build_slowly(folder, workers):
    build_bank(folder, "id", BankSpec(1000, block=10, shard=100), slow_models, workers=workers)


def test_ctrl_c_stops_a_build_with_workers(tmp_path):
    process = Started(build_slowly, tmp_path / "b", 2)
    deadline = time.monotonic() + 90
    while not (tmp_path / "b" / "shard-00001").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=60)  # it would go on for all ten shards
    assert not (tmp_path / "b" / "shard-00009").exists()
    assert contents(build(tmp_path / "b", block=10, shard=100)) == contents(
        build(tmp_path / "w", block=10, shard=100)
    )


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_goes_on_and_gives_the_same_bytes(tmp_path, kill):
    folder = tmp_path / "killed"
    process = Started(build_slowly, folder, 1)
    deadline = time.monotonic() + 60
    while not (folder / "shard-00002").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(kill)
    process.wait(timeout=60)
    assert not (folder / "bank.json").exists()
    finished = [k for k in range(10) if shard_folder(folder, k).exists()]
    assert 3 <= len(finished) < 10
    stamps = {k: shard_folder(folder, k).stat().st_mtime_ns for k in finished}
    bank = build(folder, block=10, shard=100)
    assert contents(bank) == contents(build(tmp_path / "whole", block=10, shard=100))
    assert {k: shard_folder(folder, k).stat().st_mtime_ns for k in finished} == stamps
    assert not list(folder.glob(".partial-*"))


def test_the_embedded_world_gives_the_same_bytes_for_any_layout_and_number_of_threads(tmp_path):
    networks = load_networks(compose_config([]))
    threads, found = torch.get_num_threads(), []
    try:
        for count, shard in ((1, 64), (2, 128), (1, 192)):
            torch.set_num_threads(count)
            spec = BankSpec(180, block=64, shard=shard)
            found.append(
                contents(build_bank(tmp_path / f"{count}-{shard}", "id", spec, lambda: networks))
            )
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]
    other = build_bank(
        tmp_path / "block", "id", BankSpec(180, block=45, shard=90), lambda: networks
    )
    gap = other.array("judge").range(0, 180) - np.frombuffer(found[0]["judge"], np.float32).reshape(
        180, -1
    )
    assert np.abs(gap).max() < 1e-5 * np.abs(other.array("judge").range(0, 180)).max()


def test_a_folder_without_a_bank_is_named(tmp_path):
    for read in (Bank, read_spec):
        with pytest.raises(BadFile, match="nowhere is not a bank"):
            read(tmp_path / "nowhere")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_a_bank_of_many_shards_needs_few_open_files(tmp_path):
    """A process has often no more than 1024 of them, and a bank may have more shards."""
    bank = build(tmp_path / "many", block=10, shard=10)
    before = len(os.listdir("/proc/self/fd"))
    held = [Bank(bank.folder), Bank(bank.folder)]
    assert len(os.listdir("/proc/self/fd")) < before + 10
    rows = held[0].array("judge").range(0, 1000)
    assert np.array_equal(
        rows, build(tmp_path / "one", block=10, shard=1000).array("judge").range(0, 1000)
    )
    assert np.array_equal(held[1].array("judge").take(np.arange(1000)), rows)
