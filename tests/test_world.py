"""The weights in the box: what the embedded world promises, measured anew on 3,000 faces."""

import numpy as np
import pytest

from editbench.worlds.card import measure
from editbench.worlds.faces import load_generator, load_scorer, weights_path

N = 3000


@pytest.fixture(scope="module")
def card():
    return measure(N, load_generator(), load_scorer("teacher"), load_scorer("judge"), seed=77)


def test_the_judge_reads_held_out_renders(card):
    assert min(card["accuracy"]["judge"]["world law"].values()) >= 0.97


def test_teacher_and_judge_agree_on_generated_faces(card):
    assert min(card["agreement"]["generated"].values()) >= 0.93


def test_every_class_has_its_share(card):
    assert card["marginal_gap"] <= 0.10


def test_traits_go_together_as_the_law_says(card):
    truth, made = (np.array(card["associations"][name]) for name in ("truth", "generated"))
    names = [item["name"] for item in card["attributes"]]
    assert np.abs(truth - made).max() <= 0.17, "an entanglement that nobody planted"
    planted = {
        ("age", "eyeglasses"): 0.30,
        ("age", "beard"): 0.21,
        ("beard", "long_hair"): -0.33,
        ("smile", "age"): -0.12,
    }
    for (a, b), phi in planted.items():
        assert made[names.index(a), names.index(b)] == pytest.approx(phi, abs=0.10)


def test_the_whole_world_is_small():
    assert (
        sum(file.stat().st_size for file in weights_path("judge").parent.glob("*.safetensors"))
        <= 8e6
    )
