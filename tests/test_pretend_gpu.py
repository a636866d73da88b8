"""On a pretend GPU every method, observation, inversion and training keeps to one device, and seldom waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from editbench.methods.ganspace import directions
from editbench.methods.shared import meta_validation, picture_distance

from editbench.base.conf import group_options
from editbench.walk import engine
from editbench.walk.walker import Walker
from tests.by_config import load_bank, run_job
from tests.pretend_gpu import DEVICE, WAITS, needs_pretend_gpu, pretend_gpu
from tests.tiny_pictures import tiny_config

torch.set_num_threads(1)  # the networks are tiny: more threads only wait for one another
pytestmark = needs_pretend_gpu

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
    print(method, waits)
    assert max(waits) <= 3, str(WAITS)
