"""Sizes of batches follow the memory, halve where it ends, and change no result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from editbench.bank.build import build_bank
from editbench.bank.spec import BankSpec
from editbench.base import batches
from editbench.base.batches import Batches, fitting_batch, is_out_of_memory, peak_bytes
from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes, Space
from editbench.conformance.testbeds import make_networks
from editbench.inversion import build
from editbench.inversion.projector import latent_statistics
from editbench.inversion.spec import ProjectionSpec, Schedule
from editbench.networks.perceptual import PixelDistance
from editbench.networks.roles import Networks
from editbench.run.batch import engine_batch, fit_batch
from editbench.run.compose import compose_settings
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.editor import SCORED
from editbench.walk.observation import (
    AfterWalk,
    DuringWalk,
    ObservationContext,
    WalkObserver,
    observe_after_walk,
)
from editbench.walk.observed import Observed
from editbench.walk.spec import EngineSpec
from editbench.walk.trajectory import Trajectories
from tests.by_config import run_job
from tests.linear_walks import walk
from tests.toy import fit_data
from tests.toy_world import ToyGenerator, ToyScorer, toy_config


class Small(ToyGenerator):
    """A generator on a device that holds `room` samples."""

    room = 5

    def _decode(self, codes: Codes) -> torch.Tensor:
        if len(codes) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._decode(codes)


class Brightness(DuringWalk):
    """The mean of a sample, and that of its start."""

    def reference(self, decoded):
        return decoded.flatten(1).mean(1, keepdim=True)

    def measure(self, walk, codes, decoded, reference):
        return {"mean": decoded.flatten(1).mean(1), "first": reference[:, 0]}


# -- the loop --------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 3, 8, 64])
def test_every_sample_is_worked_on_once_and_in_order(size, capfd):
    def work(rows):
        if rows.stop - rows.start > 3:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        return list(range(20))[rows]

    plan = Batches(size, "work")
    assert [k for part in plan.run(20, work) for k in part] == list(range(20))
    said = capfd.readouterr().err.splitlines()
    assert len(said) == {1: 0, 3: 0, 8: 2, 64: 3}[size]
    # 64 are asked for, 20 are there: what failed is halved, and not what was asked for.
    if size == 64:
        assert said[0] == ("work: 20 samples at once are too much for the memory; on with 10")
    assert plan.run(4, work) and not capfd.readouterr().err  # the size is kept


def test_one_sample_that_is_too_much_and_other_errors_are_raised():
    def full(rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        Batches(8, "work").run(8, full)
    with pytest.raises(RuntimeError, match="shape"):
        Batches(8, "work").run(8, lambda rows: torch.zeros(2, 2) @ torch.zeros(3, 1))
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError("not enough memory"))


# -- how many fit ----------------------------------------------------------------------------------
def test_the_peak_is_that_of_tensors_alive_at_once():
    x = torch.ones(1000)  # float32: 4000 bytes
    assert peak_bytes(lambda: (x + 1) + 1) == 8000
    assert peak_bytes(lambda: [x + 1 for _ in range(5)]) == 20_000
    assert peak_bytes(lambda: [(x + 1).sum() for _ in range(5)]) < 4100
    assert peak_bytes(lambda: x.view(10, 100).mul_(1)[3]) == 0


@pytest.mark.parametrize(
    "free, most, expected",
    [
        (1e9, 0, 64),
        (1e9, 50, 50),
        (48e6, 0, 16),
        (1, 0, 1),
        (1, 50, 1),
        (0, 50, 50),  # nothing says, as on macOS
    ],
)
def test_the_size_is_what_the_free_memory_holds(free, most, expected, monkeypatch):
    """A sample of 0.4 MB needs 0.6 MB with its workspace, and a quarter of the memory is taken."""
    monkeypatch.setattr(batches, "free_memory", lambda device: free)
    assert fitting_batch(lambda: torch.ones(100_000), "cpu", most) == expected


def test_a_network_of_one_fixed_size_is_not_asked(monkeypatch):
    def one():
        raise RuntimeError("traced at a batch of 4")

    monkeypatch.setattr(batches, "free_memory", lambda device: 10)
    assert fitting_batch(one, "cpu", 256) == 256


class Keeping(ToyScorer):
    """Computes 0.4 GB from its weights in the first pass, and keeps them."""

    kept = None

    def forward(self, decoded: torch.Tensor) -> torch.Tensor:
        if self.kept is None:
            self.kept = torch.empty(100_000_000)
        return super().forward(decoded)


def test_what_a_network_keeps_is_no_memory_of_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "free_memory", lambda device: 1e9)
    settings = Settings.from_config(toy_config(tmp_path, "engine.batch=auto"))
    generator = ToyGenerator()
    networks = Networks(generator, Keeping("t"), Keeping())
    assert engine_batch(settings, networks) == batches.MOST_ON_CPU
    assert fit_batch(settings, networks) == SCORED
    assert generator.decoded == 0


@pytest.mark.parametrize("word", ["engine.batch=much", "bank.batch=0", "engine.batch=1.5"])
def test_other_sizes_are_refused(word):
    with pytest.raises(EditbenchError, match=word):
        compose_settings([word])
    assert compose_settings(["engine.batch=auto", "bank.batch=auto"]).bank.batch == "auto"


# -- what uses it ----------------------------------------------------------------------------------
def test_a_walk_goes_on_where_memory_ends(capfd):
    generator = Small()
    small = walk(
        generator=generator,
        spec=EngineSpec(8, 4, 16, 3),
        observer=WalkObserver({"b": Brightness()}),
    )
    assert "walk of a: 16 samples at once" in capfd.readouterr().err
    plain = ToyGenerator()
    whole = walk(
        generator=plain, spec=EngineSpec(8, 4, 16, 3), observer=WalkObserver({"b": Brightness()})
    )
    pd.testing.assert_frame_equal(small.table, whole.table, check_exact=False, rtol=1e-5)
    assert torch.allclose(small.codes, whole.codes) and small.decoded == whole.decoded
    assert generator.decoded == plain.decoded  # what failed is no cost
    assert [image.shape for image in small.pictures.images] == [
        image.shape for image in whole.pictures.images
    ]
    assert (small.pictures.start, small.pictures.step) == (
        whole.pictures.start,
        whole.pictures.step,
    )


def test_an_observation_looks_again_in_smaller_batches(tmp_path, capfd):
    class Look(AfterWalk):
        def look(self, context):
            Small()._decode(Codes(Space.W, torch.zeros(context.batch, 8)))
            return Observed({"batch": np.array(context.batch)})

    context = ObservationContext(
        *[SimpleNamespace(decoded=0)] * 5, "a", None, 0, "cpu", 16, tmp_path
    )
    costs = observe_after_walk(tmp_path, {"look": Look()}, context, {})
    assert Observed.load(tmp_path / "observation-look.safetensors").arrays["batch"] == 4
    assert costs["look"]["reason"] == "" and capfd.readouterr().err.count("too much") == 2


@pytest.mark.parametrize("batch, room", [(None, 5), (3, 99), (40, 99), (40, 7)])
def test_a_bank_is_the_same_however_much_of_it_is_in_memory(tmp_path, batch, room):
    spec = BankSpec(120, block=20, shard=60)
    generator = Small()
    generator.room = room
    small = build_bank(
        tmp_path / "a",
        "id",
        spec,
        lambda: Networks(generator, ToyScorer("t"), ToyScorer()),
        batch=batch,
    )
    whole = build_bank(
        tmp_path / "b", "id", spec, lambda: Networks(ToyGenerator(), ToyScorer("t"), ToyScorer())
    )
    rows = np.arange(120)
    for name in whole.fields:
        assert np.array_equal(small.array(name).take(rows), whole.array(name).take(rows)), name


def test_a_fit_scores_in_parts_that_fit(monkeypatch, capfd):
    data = fit_data()
    codes = Codes(Space.W, data.tune.w)
    whole = data.score(codes)
    decode = type(data.generator)._decode

    def small(self, codes):
        if len(codes) > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(self, codes)

    monkeypatch.setattr(type(data.generator), "_decode", small)
    before = data.generator.decoded
    torch.testing.assert_close(data.score(codes), whole, atol=1e-5, rtol=0)
    assert data.generator.decoded - before == len(codes)
    assert data.batches.size == 25 and capfd.readouterr().err.count("fit: ") == 3


def test_auto_gives_the_numbers_of_any_other_size(tmp_path):
    tables = []
    for words in ([], ["engine.batch=auto", "bank.batch=auto"]):
        config = toy_config(tmp_path / str(len(words)), *words)
        outcome = run_job(config)
        assert outcome.status == "done", outcome.reason
        tables.append(Trajectories.load(Path(config.out) / outcome.run_id / Record.TRAJECTORY))
    fixed, auto = tables
    assert len(fixed.table) > 60
    pd.testing.assert_frame_equal(fixed.table, auto.table, check_exact=False, rtol=1e-5)


def test_an_inversion_goes_on_where_memory_ends(monkeypatch, capfd):
    """Images do not depend on one another: one at a time they come out as together."""
    networks = Networks(*make_networks("pictures", "mixed"))
    generator = networks.generator
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(0))
    pixels = generator.decode(Codes(Space.Z, z)).detach()
    spec = ProjectionSpec(schedule=Schedule(steps=4), samples=20, noise="optimise")
    task = SimpleNamespace(networks=networks, perceptual=PixelDistance(), spec=spec, device="cpu")
    statistics = latent_statistics(generator, spec)
    index = np.arange(3)
    whole = build._invert_all(task, pixels, index, statistics, 3, lambda amount=1: None)
    invert = build.invert

    def small(generator, perceptual, pixels, *rest, **more):
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return invert(generator, perceptual, pixels, *rest, **more)

    monkeypatch.setattr(build, "invert", small)
    steps: list[int] = []
    parts = build._invert_all(task, pixels, index, statistics, 3, lambda amount=1: steps.append(1))
    torch.testing.assert_close(parts.codes.values, whole.codes.values, atol=1e-4, rtol=0)
    assert list(parts.noise) == list(whole.noise) and len(parts.distance) == 3
    assert len(steps) == 4 and "inversion: 3 samples at once" in capfd.readouterr().err


def test_asking_for_the_peak_does_not_load_torchs_compiler():
    # torch wraps what a mode does in a function that imports the compiler: two seconds of every
    # process that asks. Another test may have imported it, so the wrapping is looked at.
    assert not hasattr(batches._Alive.__torch_dispatch__, "__wrapped__")
