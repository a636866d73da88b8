"""The labelled selection of unlabelled controls: closed form on a linear world, and the answer 'no control found'."""

import pytest
import torch

from editbench.bank.bank import Split
from editbench.base.errors import EditbenchError, NoControl, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.methods.ganspace.editor import GANSpace
from editbench.methods.navigan.editor import NaviGAN
from editbench.methods.random_direction import RandomDirection
from editbench.methods.random_searched import RandomSearched
from editbench.methods.sefa import SeFa
from editbench.methods.shared.control_search import (
    Bounds,
    Effects,
    choose_control,
    choose_controls,
    measure_effects,
)
from editbench.methods.shared.meta_validation import score_choices
from editbench.methods.shared.picture_distance import PictureDistance
from editbench.methods.stylespace.editor import StyleSpace
from editbench.walk.editor import FitData
from editbench.worlds.faces import load_generator, load_scorer
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.faces.truth import exchange, to_codes, to_factors
from tests.toy import BINARY, MIXED, fit_data


def apply_rows(data, rows):
    codes = data.tune.codes(Space.W)
    return lambda candidate, strength, at: Codes(Space.W, codes[at] + strength * rows[candidate])


def test_effects_are_those_of_the_linear_world_and_the_best_candidate_is_found():
    data = fit_data(overlap=0.0)
    normals = data.teacher.normals
    rows = torch.stack([0.2 * normals[1], normals[2], normals[0] + 0.8 * normals[2], normals[0]])
    effects = measure_effects(data, apply_rows(data, rows), 4, (-3.0, 3.0), samples=50)
    assert effects.decoded == 4 * 2 * 50 and effects.change.shape == (4, 2, 50, 3)
    expected = (
        torch.tensor([-3.0, 3.0])[None, :, None, None]
        * (rows @ normals.T)[:, None, None, :]
        / data.sigma
    )
    torch.testing.assert_close(
        effects.change, expected.expand_as(effects.change), atol=1e-4, rtol=0
    )
    up, down = (
        choose_control(effects, data.attributes, "a", 1),
        choose_control(effects, data.attributes, "a", 0),
    )
    assert (up.candidate, up.strength, down.candidate, down.strength) == (
        3,
        3.0,
        3,
        -3.0,
    )  # as strong, and cleaner
    assert up.effect == pytest.approx(3.0 / data.sigma[0].item(), rel=1e-4) and up.off_target < 1e-4
    with pytest.raises(NoControl, match="no control found for 'b': the best of 4 candidates"):
        choose_controls(effects, data.attributes, "b")


def test_an_empty_tune_split_is_named():
    data = fit_data()
    data.tune = data.tune.first(0)
    with pytest.raises(EditbenchError, match=r"tune split is empty.*directions.*bank\.tune"):
        measure_effects(data, apply_rows(data, data.teacher.normals), 1, (3.0,), what="directions")
    with pytest.raises(EditbenchError, match=r"tune split is empty.*bank\.tune"):
        score_choices(RandomDirection(), data, "a", (1, 2), lambda choice: None)


def test_classes_of_many_get_their_own_controls_and_a_weak_one_is_named():
    data = fit_data(MIXED, overlap=0.0)
    normals = data.teacher.normals
    effects = measure_effects(data, apply_rows(data, normals[1:3] - normals[3]), 2, (3.0,))
    found = choose_controls(effects, MIXED, "kind")
    assert [c.candidate for c in found[:2]] == [0, 1]
    assert [c.found for c in found] == [
        True,
        True,
        False,
    ]


def test_a_diverging_candidate_is_never_chosen():
    data = fit_data(overlap=0.0)
    rows = torch.stack([data.teacher.normals[0] * torch.nan, data.teacher.normals[0]])
    found = choose_control(
        measure_effects(data, apply_rows(data, rows), 2, (3.0,)), data.attributes, "a", 1
    )
    assert found.candidate == 1 and found.found


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_candidate_with_one_broken_logit_is_never_chosen(column, value):
    """The broken logit is that of the attribute or of another; the other candidate is weaker."""
    change = torch.tensor([[2.0, 0.1, 0.1], [1.0, 0.1, 0.1]])[:, None, None].repeat(1, 1, 5, 1)
    change[0, 0, 2, column] = value
    effects = Effects(change, (3.0,), torch.zeros(5, 3, dtype=torch.long), 10)
    found = choose_control(effects, BINARY, "a", 1)
    assert found.candidate == 1 and found.found and found.effect == pytest.approx(1.0)


@pytest.mark.parametrize("share, chosen", [(0.8, 0), (0.94, 0), (0.96, 1), (0.97, 1)])
def test_a_cleaner_candidate_is_taken_only_within_5_percent_of_the_best_effect(share, chosen):
    """Candidate 0 moves 'a' by 2 sigma and the others by 1; candidate 1 moves it by a share of that, others hardly."""
    change = torch.tensor([[2.0, 1.0, 1.0], [2 * share, 0.01, 0.01]])[:, None, None].expand(
        2, 1, 5, 3
    )
    effects = Effects(change, (3.0,), torch.zeros(5, 3, dtype=torch.long), 10)
    found = choose_control(effects, BINARY, "a", 1)
    assert found.candidate == chosen
    assert found.effect == pytest.approx(2 * share if chosen else 2.0)


def test_a_control_is_chosen_by_the_samples_that_lack_the_class():
    """What a candidate does to samples of the class would reverse the choice and break a bound."""
    start = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]])
    change = torch.zeros(2, 1, 5, 3)
    distance = torch.ones(2, 1, 5)
    lacking = [0, 2]
    having = [1, 3, 4]
    change[0, 0, lacking, 0] = torch.tensor([1.0, 2.0])
    change[0, 0, lacking, 1] = torch.tensor([0.2, -0.4])
    change[0, 0, having] = torch.tensor([-3.0, 4.0, 4.0])
    distance[0, 0, having] = 9.0
    change[1, 0, :, 0] = torch.tensor([0.9, 5.0, 0.9, 5.0, 5.0])
    effects = Effects(change, (3.0,), start, 10, distance)
    found = choose_control(effects, BINARY, "a", 1, bounds=Bounds(off_target=0.5, distance=2.0))
    assert found.candidate == 0 and found.found
    assert found.effect == pytest.approx((1.0 + 2.0) / 2)
    # The mean of |0.2| and |-0.4|, and over two other attributes, of which one does not change.
    assert found.off_target == pytest.approx((0.2 + 0.4) / 2 / 2)
    assert found.distance == pytest.approx(1.0)


@pytest.mark.parametrize("best, chosen", [(0.51, 0), (0.53, 1), (0.49, 1)])
def test_a_cleaner_candidate_below_the_least_effect_does_not_replace_a_control(best, chosen):
    """Candidate 0 moves 'a' by `best` sigma, candidate 1 by 3 % less and the others hardly."""
    weaker = 0.97 * best
    change = torch.tensor([[best, 1.0, 1.0], [weaker, 0.01, 0.01]])[:, None, None].expand(
        2, 1, 5, 3
    )
    effects = Effects(change, (3.0,), torch.zeros(5, 3, dtype=torch.long), 10)
    found = choose_control(effects, BINARY, "a", 1, min_effect=0.5)
    assert found.candidate == chosen
    assert found.effect == pytest.approx(weaker if chosen else best)
    # Whether there is a control is a question to the largest effect alone.
    assert found.found == (best >= 0.5)


# -- a control keeps the picture -------------------------------------------------------------------
def broken_and_whole():
    """Edits of the linear world: a small clean one, and one that moves the attribute ten times as
    far and shifts what no attribute sees by a hundred of its deviations."""
    data = fit_data(overlap=0.0)
    normals = data.teacher.normals
    blind = torch.linalg.svd(normals)[2][-1]
    spread = data.fit.codes(Space.W).std()
    rows = torch.stack([normals[0], 10 * normals[0] + 100 * spread * blind])
    return data, rows


def test_a_direction_that_breaks_the_picture_is_no_control():
    data, rows = broken_and_whole()
    distance = PictureDistance(data)
    tune = data.tune.codes(Space.W)
    assert distance(data.generator.decode(Codes(Space.W, tune))).mean() == pytest.approx(1, abs=0.3)
    effects = measure_effects(data, apply_rows(data, rows), 2, (-3.0, 3.0), 50, distance=distance)
    assert effects.distance.shape == (2, 2, 50)
    assert effects.distance[0].mean() < 2 < 100 < effects.distance[1].mean()
    # Looked at by its effect alone, the broken one wins.
    assert choose_control(effects, data.attributes, "a", 1).candidate == 1
    bounds = Bounds(0.5, 2.0)
    kept = choose_control(effects, data.attributes, "a", 1, bounds=bounds)
    assert kept.candidate == 0 and kept.found and kept.distance < 2 and kept.off_target < 0.5
    # Alone it is told, and not counted.
    alone = measure_effects(data, apply_rows(data, rows[1:]), 1, (-3.0, 3.0), 50, distance=distance)
    assert choose_controls(alone, data.attributes, "a")[1].found
    told = choose_control(alone, data.attributes, "a", 1, bounds=bounds)
    assert not told.found and told.effect > 10 and told.distance > 100
    with pytest.raises(Unsupported, match=r"with off-target .* 0.5 sigma and a picture distance"):
        choose_controls(alone, data.attributes, "a", bounds=bounds)


def test_a_direction_that_moves_all_attributes_is_no_control():
    data = fit_data(overlap=0.0)
    normals = data.teacher.normals
    rows = torch.stack([0.5 * normals[0], normals.sum(0)])
    effects = measure_effects(data, apply_rows(data, rows), 2, (-3.0, 3.0), samples=50)
    assert choose_control(effects, data.attributes, "a", 1).candidate == 1
    kept = choose_control(effects, data.attributes, "a", 1, bounds=Bounds(off_target=0.2))
    assert kept.candidate == 0
    assert kept.off_target < 0.2
    assert torch.isnan(torch.tensor(kept.distance))


def test_bounds_are_positive_or_none():
    with pytest.raises(EditbenchError, match="max_distance=0"):
        Bounds(distance=0)
    assert str(Bounds()) == ""


def test_noise_is_far_from_the_pictures_of_the_embedded_world_and_a_perfect_edit_is_not():
    world, width = load_generator(), load_scorer("teacher").attributes.width
    with torch.no_grad():
        z = torch.randn(800, world.z_dim, generator=torch.Generator().manual_seed(0))
        w = world.map(z)
        split = Split(torch.arange(800), z, w, torch.zeros(800, width))
        data = FitData(world, load_scorer("teacher"), split, split, torch.ones(width), 0)
        distance = PictureDistance(data, 700)
        pictures = world.decode(Codes(Space.W, w[700:]))
        assert distance(pictures).mean() == pytest.approx(1, abs=0.3)
        # Larger pictures are averaged down.
        large = pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(distance(large), distance(pictures))
        noise = torch.rand(pictures.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
        assert distance(noise).mean() > 10
        assert distance((pictures + 0.6 * noise).clamp(-1, 1)).mean() > 4
        # Faces of the law that no generator made, all of them with glasses.
        codes = exchange(to_codes(sample_factors(FactorLaw(), 5, 0, 60)), "eyeglasses", 1)
        assert distance(render(to_factors(codes), 32)).mean() < 2.2
    assert torch.isinf(distance(torch.full((1, 3, 32, 32), torch.nan))).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [GANSpace, NaviGAN, RandomSearched, SeFa, StyleSpace])
def test_a_least_effect_that_is_no_number_is_refused(kind: type, value: float) -> None:
    # No comparison with NaN is true, so no control would ever be found.
    with pytest.raises(EditbenchError, match=f"min_effect={value} must be finite"):
        kind(min_effect=value)
