"""On a pretend GPU every method, observation, inversion and training keeps to one device, and seldom waits for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from editbench.base.conf import group_options
from editbench.methods.ganspace import directions
from editbench.methods.shared import meta_validation, picture_distance
from editbench.run.compose import compose_config
from editbench.run.record import Record
from editbench.walk import engine
from editbench.walk.walker import Walker
from editbench.worlds import separability
from editbench.worlds.card import other_card
from editbench.worlds.parser import ParserTraining, train_parser
from editbench.worlds.steering import ShareSteering
from editbench.worlds.train_gan import GANTrainer
from editbench.worlds.train_scorers import ScorerTraining, train_scorer
from tests.by_config import load_bank, load_networks, run_job
from tests.pretend_gpu import DEVICE, WAITS, needs_pretend_gpu, pretend_gpu
from tests.tiny_pictures import tiny_config

torch.set_num_threads(1)  # the networks are tiny: more threads only wait for one another
pytestmark = needs_pretend_gpu

FEATURES = "editbench.networks.features.ScorerFeatures"
JUDGE = {"_target_": "tests.tiny_pictures.scorer", "role": "judge"}
FRECHET = "editbench.metrics.frechet_distance.reference"
PARSER = "tests.tiny_pictures.Thirds"
INVERSION_WAITS_A_STEP = 1
# At most: the engine has one, and an editor that draws or sorts on the host a second.
WAITS_A_STEP = 3
# The renderer has codes of its own; see below.
METHODS = [name for name in group_options("method") if name != "true_factor"]


class Marked(Walker):
    """Writes down how often the host had waited when a step began."""

    marks: list[int] = []

    def step(self):
        self.marks.append(WAITS.total)
        return super().step()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretend")
    load_bank(tiny_config(folder, "random"))
    return folder


def waits_a_step(monkeypatch, config):
    """The outcome of a job on the pretend device, and what each step but the first waited for."""
    monkeypatch.setattr(engine, "Walker", Marked)
    monkeypatch.setattr(Marked, "marks", [])
    with pretend_gpu():
        outcome = run_job(config)
    marks = Marked.marks
    return outcome, [after - before for before, after in zip(marks[1:], marks[2:])]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Numbers of the methods that are no options."""
    monkeypatch.setattr(meta_validation, "EXAMPLES", 3)
    monkeypatch.setattr(meta_validation, "MAX_STEPS", 2)
    monkeypatch.setattr(picture_distance.PictureDistance.__init__, "__defaults__", (40,))
    monkeypatch.setattr(directions, "REGRESSION_SAMPLES", 100)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_to_the_device(method, folder, monkeypatch):
    config = tiny_config(folder, method, f"device={DEVICE}")
    outcome, waits = waits_a_step(monkeypatch, config)
    assert outcome.status == "done", outcome.reason
    assert max(waits) <= WAITS_A_STEP, str(WAITS)


# -- observations ----------------------------------------------------------------------------------
OBSERVED = {  # observation -> a method that it looks at, and how little it looks at
    "composition": ("interfacegan", {"then": "angle", "n": 6, "max_steps": 2, "pictures": 1}),
    "feature_similarity": ("random", {"samples": 12}),
    "frechet_distance": (
        "random",
        {
            "network": {"_target_": FEATURES, "scorer": JUDGE},
            "reference": {"_target_": f"{FRECHET}.BankImages"},
            "n": 8,
            "points": 3,
            "samples": 6,
            "cap": 2,
            "blocks": 1,
            "subsets": 1,
            "kernel": 4,
        },
    ),
    "latent_reproduction": (
        "navigan_svd",
        {"steps": 2, "batch": 2, "restarts": 1, "held_out": 4, "samples": 6, "cap": 2},
    ),
    "locality": (
        "random",
        {"parser": {"_target_": PARSER}, "n": 6, "points": 2, "samples": 6, "cap": 2, "blocks": 2},
    ),
    "pixel_distance": ("random", {}),
    "singular_entropy": ("neural_ode", {}),
}


@pytest.mark.parametrize("name", OBSERVED)
def test_every_observation_keeps_to_the_device(name, folder, monkeypatch):
    method, options = OBSERVED[name]
    config = tiny_config(folder, method, f"observation=[{name}]", f"device={DEVICE}")
    for key, value in options.items():
        config.observation[name][key] = value
    if name == "latent_reproduction":
        config.method.limit = 1e6  # a shift that shows in pictures of random weights
    outcome, waits = waits_a_step(monkeypatch, config)
    assert outcome.status == "done", outcome.reason
    # What is observed afterwards may walk too.
    assert waits[0] <= WAITS_A_STEP, str(WAITS)
    made = json.loads((Path(config.out) / outcome.run_id / Record.PROVENANCE).read_text())
    assert [part["reason"] for part in made.get("observations", {}).values()] in ([], [""])


def test_every_observation_is_tried():
    assert set(group_options("observation")) == {*OBSERVED, "truth"}


def test_the_renderer_keeps_to_the_device(tmp_path, monkeypatch):
    """Its codes are the true factors; the teacher, the judge and the parser are the packed ones."""
    words = ["generator=renders", "method=true_factor", "attribute=smile", "evaluated=[smile,age]"]
    sizes = ["bank.n=120", "bank.block=60", "bank.shard=120", "starts.n=6", "starts.pool=0.9"]
    steps = ["engine.max_steps=3", "engine.sweep_steps=3", "observation=[truth]"]
    places = [f"out={tmp_path}", f"cache={tmp_path}/cache", f"device={DEVICE}"]
    config = compose_config([*words, *sizes, *steps, *places])
    outcome, waits = waits_a_step(monkeypatch, config)
    assert outcome.status == "done", outcome.reason
    assert max(waits) <= WAITS_A_STEP, str(WAITS)


# -- banks, real images, trainings -----------------------------------------------------------------
def test_a_bank_of_the_device_is_that_of_the_host(folder, tmp_path):
    config = tiny_config(tmp_path, "random", f"device={DEVICE}", "bank.n=120", "bank.shard=120")
    with pretend_gpu() as waits:
        bank = load_bank(config)
    here = load_bank(tiny_config(folder, "random", "bank.n=120", "bank.shard=120"))
    rows = np.arange(len(bank))
    for name in bank.fields:
        assert np.array_equal(bank.array(name).take(rows), here.array(name).take(rows)), name
    blocks = bank.meta["spec"]["n"] // bank.meta["spec"]["block"]
    asked = [n for (_, where), n in waits.places.items() if "bank/build.py" in where]
    assert sum(asked) <= 2 * blocks, str(waits)


def test_the_card_of_a_world_of_the_device_is_that_of_the_host(tmp_path, monkeypatch):
    monkeypatch.setattr(separability, "few_shot_auc", lambda *_: None)  # of the host in any case
    cards = {}
    for device in ("cpu", DEVICE):
        with pretend_gpu():
            networks = load_networks(tiny_config(tmp_path, "random", f"device={device}"))
            cards[device] = other_card(tmp_path / device, 96, networks, "tiny")
    assert cards[DEVICE] == cards["cpu"] and "path_length" in cards["cpu"]
    pictures = [(tmp_path / device / "sheet.png").read_bytes() for device in cards]
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("space", ["w", "w_plus"])
def test_inversion_keeps_to_the_device(space, folder, monkeypatch):
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{k}.png")
    words = ["inversion=folder", f"inversion.images={pictures}", f"inversion.space={space}"]
    sizes = [
        "inversion.steps=6",
        "inversion.samples=20",
        "starts.near=any",
        "starts.n=3",
        "inversion.block=3",
    ]
    words += [*sizes, "inversion.noise=optimise" if space == "w" else "inversion.noise=const"]
    config = tiny_config(folder, "random", *words, f"device={DEVICE}")
    outcome, _ = waits_a_step(monkeypatch, config)
    assert outcome.status == "done", outcome.reason
    asked = [n for (kind, where), n in WAITS.places.items() if "projector.py" in where]
    assert sum(asked) <= 6 * INVERSION_WAITS_A_STEP + 3, str(WAITS)  # and before the first


def test_the_training_of_the_gan_waits_once_a_step(monkeypatch):
    from tests import test_world_training as training

    with pretend_gpu() as waits:
        witness = training.Witness()
        shares = ShareSteering(witness.attributes, torch.zeros(10, 3, dtype=torch.int64))
        trainer = GANTrainer(
            training.CONFIG,
            replace(training.OPTIONS, bfloat16=False),
            training.reals,
            DEVICE,
            steering=shares,
            witness=witness,
        )
        trainer.train_step()
        waits.clear()
        for _ in range(2):
            trainer.train_step()
    assert waits.total == 2, str(waits)


@pytest.mark.parametrize("role", ["scorer", "parser"])
def test_other_trainings_wait_for_their_log_alone(role):
    """Twice as many steps wait once more: for the second line of the log."""
    counts = []
    for steps in (2, 4):
        with pretend_gpu() as waits:
            if role == "scorer":
                options = ScorerTraining("teacher", 1, (4, 4, 4), 8, 8 * steps, False, batch=8)
                train_scorer(options, log=len, log_every=2, device=DEVICE)
            else:
                train_parser(ParserTraining(0, 8, steps, 8), len, 2, DEVICE)
        counts.append(waits.total)
    assert counts[1] == counts[0] + 1, str(waits)
