"""Jobs whose walks start from inverted images: what moves, what stays, who is skipped."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import open_dict

from editbench.bank.spec import StartsSpec
from editbench.bank.starts import Starts
from editbench.base import batches
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.inversion.build import build_inversion
from editbench.inversion.walks import (
    LayeredEditor,
    LayeredStarts,
    check_walk,
    draw_inverted,
    prepare_walk,
)
from editbench.networks.perceptual import PixelDistance
from editbench.run import job
from editbench.walk.editor import Editor, FitReport, Walk
from editbench.walk.engine import WalkInputs, walk_starts
from editbench.walk.spec import EngineSpec
from editbench.walk.trajectory import Trajectories
from tests.by_config import load_bank, load_networks, make_run_id, request_inversion, run_job
from tests.real_job import real_job

torch.set_num_threads(1)


NAMES = ["smile", "eyeglasses"]


class Shift(Editor):
    """Along a fixed direction, in any space."""

    def __init__(self, space=Space.W, layers=None):
        super().__init__(layers)
        self.space = space

    def fit(self, data):
        return FitReport()

    def step(self, walk):
        return walk.codes + 0.3 * torch.linspace(-1, 1, walk.codes.shape[-1])


class Weight(Shift):
    """Along a fixed direction in a weight."""

    def __init__(self, kernel):
        super().__init__(Space.THETA)
        self.kernel = kernel

    def step(self, walk):
        return walk.codes + 0.5

    def codes(self, walk):
        index = torch.zeros(len(walk), dtype=torch.int64)
        return Codes(
            Space.W, walk.latent, WeightShift("conv8", self.kernel[None], index, walk.codes[:, 0])
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def config(home):
    return partial(real_job, home)


@pytest.fixture(scope="module")
def networks(config):
    return load_networks(config())


@pytest.fixture(scope="module")
def layered(config):
    return request_inversion(config("inversion.space=w_plus")).load()


def a_walk(editor, generator, latent, steps=2):
    codes = generator.lift(latent, editor.space)
    zero = torch.zeros(len(latent), dtype=torch.int64)
    walk = Walk("smile", torch.arange(len(latent)), codes, codes, zero, zero + 1, latent=latent)
    for _ in range(steps):
        walk.codes, walk.steps = editor.step(walk), walk.steps + 1
    return walk


def rows(n, generator):
    w_plus = torch.from_numpy(normals(1, "rows", 0, n, generator.num_ws * generator.w_dim)).float()
    return w_plus.reshape(n, generator.num_ws, generator.w_dim)


# -- W+ starts -------------------------------------------------------------------------------------
@pytest.mark.parametrize("layers", [None, (2, 5)])
def test_every_row_in_reach_moves_as_the_mean_does_and_no_other(networks, layers):
    editor, latent = (
        LayeredEditor(Shift(layers=layers), networks.generator),
        rows(3, networks.generator),
    )
    starts = LayeredStarts(networks.generator)
    walk = a_walk(editor, starts, latent)
    expected = latent.clone()
    first, last = layers or (0, 8)
    expected[:, first:last] += 2 * 0.3 * torch.linspace(-1, 1, 128)
    made = editor.codes(walk)
    assert made.space == Space.W_PLUS and torch.allclose(made.values, expected, atol=1e-5)
    assert torch.equal(editor.codes(a_walk(editor, starts, latent, 0)).values, latent)


def test_an_editor_of_w_plus_walks_the_rows_themselves(networks):
    editor, latent = (
        LayeredEditor(Shift(Space.W_PLUS, (1, 3)), networks.generator),
        rows(2, networks.generator),
    )
    made = editor.codes(a_walk(editor, LayeredStarts(networks.generator), latent)).values
    assert torch.equal(made[:, [0, *range(3, 8)]], latent[:, [0, *range(3, 8)]])
    assert torch.allclose(
        made[:, 1:3], latent[:, 1:3] + 0.6 * torch.linspace(-1, 1, 128), atol=1e-5
    )


def test_an_editor_of_styles_starts_from_the_images_styles(networks):
    generator, latent = networks.generator, rows(2, networks.generator)
    editor = LayeredEditor(Shift(Space.S), generator)
    made = editor.codes(a_walk(editor, LayeredStarts(generator), latent))
    assert made.space == Space.S
    styles = generator.styles(latent)
    assert torch.allclose(
        made.values, styles + 0.6 * torch.linspace(-1, 1, styles.shape[1]), atol=1e-4
    )


def test_an_editor_of_weights_keeps_the_rows_under_its_shift(networks):
    generator, latent = networks.generator, rows(2, networks.generator)
    kernel = torch.from_numpy(
        normals(2, "kernel", 0, 1, generator.kernels()["conv8"].numel())
    ).float()
    kernel = kernel.reshape(generator.kernels()["conv8"].shape)
    editor = LayeredEditor(Weight(kernel), generator)
    made = editor.codes(a_walk(editor, LayeredStarts(generator), latent))
    assert made.space == Space.W_PLUS and torch.equal(made.values, latent)
    moved = dict(generator.network.state_dict())
    moved["synthesis.layers.conv8.weight"] = moved["synthesis.layers.conv8.weight"] + kernel
    expected = torch.func.functional_call(
        generator,
        {f"network.{key}": value for key, value in moved.items()},
        (Codes(Space.W_PLUS, latent),),
    )
    assert torch.allclose(generator.decode(made), expected, atol=1e-4)


@pytest.mark.parametrize("layers", [None, (2, 5)])
def test_from_equal_rows_a_walk_is_the_walk_from_w(networks, layers):
    generator, n = networks.generator, 6
    w = generator.map(torch.from_numpy(normals(3, "w", 0, n, generator.z_dim)).float())
    starts = Starts(np.arange(n), np.zeros(n, np.int64), np.ones(n, np.int64), np.nan)
    logits = networks.judge(generator.decode(Codes(Space.W, w)))
    spec, sigma = EngineSpec(max_steps=3, sweep_steps=3), np.ones(networks.judge.attributes.width)
    editor = Shift(layers=layers)
    editor.bind(generator)
    from_w = WalkInputs(editor, generator, "smile", starts, w, logits)
    flat = walk_starts(from_w, networks.judge, sigma, spec)
    from_rows = replace(
        from_w,
        editor=LayeredEditor(editor, generator),
        generator=LayeredStarts(generator),
        codes=generator.w_plus(w).clone(),
    )
    wide = walk_starts(from_rows, networks.judge, sigma, spec)
    pd.testing.assert_frame_equal(flat.table, wide.table, rtol=1e-3, atol=1e-3)


# -- the draw --------------------------------------------------------------------------------------
def test_starts_are_drawn_among_the_images(config, layered):
    bank = load_bank(config()).select(NAMES)
    drawn = draw_inverted(StartsSpec(12, near="any"), layered, bank)
    assert sorted(np.concatenate([one.index for one in drawn.values()])) == list(range(12))
    labels = layered.labels("judge")
    for name, one in drawn.items():
        own = labels[one.index, layered.attributes.index(name)]
        assert (one.source == own).all() and (one.target == 1 - own).all()
    again = draw_inverted(StartsSpec(12, near="any"), layered, bank)
    assert all((again[name].index == one.index).all() for name, one in drawn.items())
    flat = draw_inverted(
        StartsSpec(12, near="any"), request_inversion(config()).load(), bank
    )  # the same images, into W
    assert all((flat[name].index == one.index).all() for name, one in drawn.items())
    assert sum(map(len, draw_inverted(StartsSpec(4, pool=0.5), layered, bank).values())) == 4
    found = "12 samples of the inverted images"
    for spec, remedy in (
        (StartsSpec(13, near="any"), "invert more images, or lower starts.n"),
        (StartsSpec(13, pool=1.0), "invert more images, or lower starts.n"),
        (StartsSpec(4, pool=0.03), "invert more images, raise starts.pool, or lower starts.n"),
    ):
        with pytest.raises(EditbenchError, match=rf"{found}.*: {remedy}$"):
            draw_inverted(spec, layered, bank)


def test_codes_and_logits_are_the_reconstructions(networks, layered):
    starts = Starts(np.array([7, 2]), np.zeros(2, np.int64), np.ones(2, np.int64), np.nan)
    here = prepare_walk(
        Shift(), networks.generator, networks.judge.attributes, "smile", layered, starts, "cpu"
    )
    assert torch.equal(here.codes, layered.codes(np.array([7, 2])))
    decoded = networks.generator.decode(Codes(Space.W_PLUS, here.codes))
    assert torch.allclose(here.logits, networks.judge(decoded), atol=1e-3)


def test_a_z_inversion_serves_both_z_and_w(config, networks):
    found = request_inversion(config("inversion.space=z")).load()
    starts = Starts(np.arange(3), np.zeros(3, np.int64), np.ones(3, np.int64), np.nan)
    names = networks.judge.attributes
    z = prepare_walk(Shift(Space.Z), networks.generator, names, "smile", found, starts, "cpu").codes
    w = prepare_walk(Shift(Space.W), networks.generator, names, "smile", found, starts, "cpu").codes
    assert torch.equal(z, found.codes(np.arange(3))) and torch.equal(w, networks.generator.map(z))
    check_walk(Shift(Space.Z), found)


# -- jobs ------------------------------------------------------------------------------------------
def test_names_of_runs_from_the_bank_stay_as_they_were(config):
    plain, asked = config("inversion=none"), config()
    identity = make_run_id(plain, "bank", NAMES)
    with open_dict(plain):
        del plain["inversion"]
    assert make_run_id(plain, "bank", NAMES) == identity
    names = {
        identity,
        make_run_id(asked, "bank", NAMES),
        make_run_id(config("inversion.steps=5"), "bank", NAMES),
        make_run_id(config("inversion.space=w_plus"), "bank", NAMES),
    }
    assert len(names) == 4


class CountedDistance(PixelDistance):
    """Counts how often it is built, as a network of a distance would be."""

    built = 0

    def __init__(self):
        super().__init__()
        CountedDistance.built += 1


def test_a_job_builds_the_perceptual_distance_once(config):
    target = "tests.test_real_images.CountedDistance"
    assert run_job(config(f"inversion.perceptual={{_target_:{target}}}")).status == "done"
    assert CountedDistance.built == 1


def test_pictures_that_are_not_there_are_told_before_the_bank_is_built(config, monkeypatch):
    monkeypatch.setattr(job, "load_bank", None)  # would fail with another message
    with pytest.raises(EditbenchError, match=r"^nowhere: no such folder$"):
        run_job(config("inversion.images=nowhere"))


@pytest.mark.parametrize(
    "method, space, status",
    [
        ("random", "w", "done"),
        ("interfacegan", "w_plus", "done"),
        ("interfacegan_z", "w", "skipped"),
    ],
)
def test_jobs_run_from_inverted_images(config, method, space, status, home):
    words = (
        ["method=interfacegan", "method.space=z"]
        if method == "interfacegan_z"
        else [f"method={method}"]
    )
    cfg = config(*words, f"inversion.space={space}", "attribute=smile")
    outcome = run_job(cfg)
    assert outcome.status == status, outcome.reason
    if status == "skipped":
        assert "no z" in outcome.reason
        return
    folder, found = home / "runs" / outcome.run_id, request_inversion(cfg).load()
    walks = Trajectories.load(folder / "trajectory.parquet")
    begin = walks.table[walks.table["step"] == 0]
    logits = begin[[f"logit:{name}" for name in walks.attributes.columns()]].to_numpy()
    columns = [found.attributes.columns().index(name) for name in walks.attributes.columns()]
    assert np.allclose(logits, found.logits("judge")[begin["start"]][:, columns], atol=1e-5)
    originals = pd.read_parquet(folder / "originals.parquet").set_index("start")
    assert (originals["name"] == found.table["name"][originals.index]).all()
    assert len(originals) == len(begin)
    assert json.loads((folder / "provenance.json").read_text())["inversion"]["space"] == space
    assert run_job(cfg).reused


def test_an_inversion_by_path_must_be_of_these_networks(config, home):
    folder = home / "by_path"
    found = build_inversion(folder, request_inversion(config()).task)
    assert (
        request_inversion(config("inversion.images=null", f"inversion.path={folder}")).load().id
        == found.id
    )
    with pytest.raises(BadFile, match="another generator"):
        request_inversion(config(f"inversion.path={folder}", "generator.truncation_psi=0.5")).load()
    for wrong in ("7", "true"):
        with pytest.raises(EditbenchError, match="must be text"):
            run_job(config(f"inversion.path={wrong}"))
    with pytest.raises(EditbenchError, match=r"inversion\.images is not set"):
        run_job(config("inversion.images=null"))


def test_an_inversion_that_was_made_again_in_its_folder_is_opened_again(config, home):
    folder = home / "again"
    words = ["inversion.images=null", f"inversion.path={folder}"]
    found = []
    for steps in (1, 2):
        task = request_inversion(config(f"inversion.steps={steps}")).task
        shutil.rmtree(folder, ignore_errors=True)
        made = build_inversion(folder, task)
        # As the same command of another process would write it, only later.
        os.utime(folder / "inversion.json", ns=(steps, steps))
        request = request_inversion(config(*words))
        assert request.id == made.id
        assert request.load() is request_inversion(config(*words)).load()  # verified once
        found.append(request.id)
    assert found[0] != found[1]


def test_no_more_images_are_decoded_at_once_than_fit_into_memory(config, home, monkeypatch):
    task = request_inversion(config()).task
    generator = task.networks.generator
    decode = generator.decode
    sizes = []

    def counted(codes):
        sizes.append(len(codes))
        return decode(codes)

    monkeypatch.setattr(generator, "decode", counted)
    whole = build_inversion(home / "whole", task)
    assert max(sizes) == len(whole)
    sizes.clear()
    monkeypatch.setattr(batches, "free_memory", lambda device: 1)
    alone = build_inversion(home / "alone", task)
    assert max(sizes) == 1
    numbers = whole.table.select_dtypes("number")
    np.testing.assert_allclose(alone.table[numbers.columns], numbers, rtol=1e-3, atol=1e-3)
