"""StyleSpace: planted channels of a world in closed form, rankings against a slow loop, and what must never move."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from editbench.bank.bank import Split
from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, NoControl, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.conformance.toy import RGB
from editbench.methods.stylespace.channels import (
    Candidates,
    ChannelMoments,
    channel_moments,
    channel_name,
    draw_exemplars,
    movable,
    offsets,
    positive_bank,
    rank_channels,
)
from editbench.methods.stylespace.editor import StyleSpace
from editbench.networks.latent_only import LatentOnly
from editbench.walk.editor import FitData
from editbench.worlds.faces import load_generator
from tests.toy import BINARY, MIXED, LinearScorer, check_editor, check_refused, fit_data, make_walk

DIM = 24  # channels 0 to 20 belong to 'conv', 21 to 23 to 'rgb'


def planted(
    rows: dict[int, dict[int, float]],
    attributes: Attributes = BINARY,
    n: int = 3000,
    bias: torch.Tensor | None = None,
) -> FitData:
    """A world whose logit `column` is the given combination of style channels: {column: {channel: weight}}."""
    normals = torch.zeros(attributes.width, DIM)
    for column, weights in rows.items():
        for channel, weight in weights.items():
            normals[column, channel] = weight
    return fit_data(attributes, DIM, n=n, scorer=LinearScorer(attributes, normals, bias))


def fitted(data: FitData, **options) -> StyleSpace:
    editor = StyleSpace(**({"candidates": 5} | options))
    editor.report = editor.fit(data)
    return editor


# -- the space -------------------------------------------------------------------------------------
def test_the_styles_of_a_w_decode_to_its_picture_and_offsets_name_the_channels():
    generator = load_generator()
    w = generator.map(torch.randn(8, generator.z_dim, generator=torch.Generator().manual_seed(0)))
    pictures = [
        generator.decode(Codes(space, generator.lift(w, space)))
        for space in (Space.W, Space.W_PLUS, Space.S)
    ]
    for picture in pictures[1:]:
        torch.testing.assert_close(picture, pictures[0], atol=1e-4, rtol=0)
    names = [channel_name(generator, u) for u in range(sum(generator.style_sizes))]
    slow = [
        f"{name}:{i}"
        for name, size in zip(generator.layer_names, generator.style_sizes)
        for i in range(size)
    ]
    assert names == slow and offsets(generator)[-1] == len(slow)
    assert movable(generator).tolist() == [not name.startswith("rgb") for name in slow]


def test_moments_of_any_block_are_those_of_all_samples_at_once():
    data = fit_data(n=1000)
    shifted = data.fit.w + 1000.0  # a mean far from zero cancels in sums of squares
    styles = data.generator.lift(shifted, Space.S).double()
    for block in (7, 256, 5000):
        found = channel_moments(data.generator, shifted, block)
        torch.testing.assert_close(found.mean, styles.mean(0), rtol=1e-12, atol=0)
        torch.testing.assert_close(found.std, styles.std(0, correction=0), rtol=1e-9, atol=0)


# -- ranking ---------------------------------------------------------------------------------------
def test_ranking_is_that_of_a_slow_loop():
    rng = np.random.default_rng(0)
    bank, rows = rng.normal(2, 3, (400, 9)), rng.normal(2.5, 2, (25, 9))
    bank[:, 4], rows[:, 4] = 7.0, 7.0  # constant
    rows[:, 2] = bank[:, 2].mean() - 0.5  # exemplars that all agree: the spread is floored
    allowed = torch.tensor([True] * 7 + [False] * 2)
    theta, delta = np.full(9, -np.inf), np.zeros(9)
    for u in range(9):
        if u == 4:
            continue
        d = [(value - bank[:, u].mean()) / bank[:, u].std() for value in rows[:, u]]
        delta[u] = np.mean(d)
        if u < 7:
            theta[u] = abs(np.mean(d)) / max(np.std(d), 1e-3)
    found = rank_channels(
        *(
            ChannelMoments(torch.from_numpy(x.mean(0)), torch.from_numpy(x.std(0)))
            for x in (rows, bank)
        ),
        allowed,
    )
    np.testing.assert_allclose(found.theta.numpy(), theta, rtol=1e-10)
    np.testing.assert_allclose(found.delta[:4].numpy(), delta[:4], rtol=1e-10)
    assert found.order.tolist() == np.argsort(-theta, kind="stable")[:6].tolist()
    assert found.order[0] == 2


def test_positives_are_the_most_extreme_members_of_the_class_and_exemplars_come_from_them():
    odds = torch.tensor([0.1, 5.0, -1.0, 3.0, 2.0, 4.0])
    labels = torch.tensor([1, 1, 0, 1, 0, 1])  # the fifth is not of the class, whatever its odds
    assert positive_bank(odds, labels, 1, 0.5, 1).tolist() == [1, 5, 3]
    assert positive_bank(odds, labels, 1, 0.1, 2).tolist() == [1, 5]
    assert positive_bank(odds, labels, 1, 1.0, 1).tolist() == [1, 5, 3, 0]
    bank = torch.arange(100, 200)
    one, again, other = (
        draw_exemplars(bank, 30, 0, *names) for names in (("a", 1), ("a", 1), ("a", 0))
    )
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert len(one.unique()) == 30 and bool(torch.isin(one, bank).all())
    assert draw_exemplars(bank, None, 0) is bank


def test_the_top_channel_is_stable_under_resampled_exemplars():
    data = planted({0: {7: 1.0}, 1: {3: 1.0, 11: -0.8}, 2: {20: 1.0}})
    picks = set()
    for seed in range(8):
        again = FitData(data.generator, data.teacher, data.fit, data.tune, data.sigma, seed)
        editor = fitted(again, exemplars=20, verify=False)
        picks.add(tuple(int(editor.directions[name][1].abs().argmax()) for name in ("a", "c")))
        assert int(editor.directions["b"][1].abs().argmax()) in (3, 11)
    assert picks == {(7, 20)}


# -- the edit --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, attribute",
    [
        ({}, "a"),
        ({"verify": False}, "a"),
        ({"channels": [1, 3], "negative": "own"}, "a"),
        ({"exemplars": None}, "kind"),
    ],
)
def test_contract(options, attribute):
    data = planted(
        {0: {7: 1.0}, 1: {2: 1.0}, 2: {3: 1.0}, 3: {4: 1.0}}
        | {4 + k: {5 + k: 1.0} for k in range(4)},
        MIXED,
    )
    editor, fresh = fitted(data, **options), StyleSpace(**options)
    assert editor.report.labels >= len(data.fit)
    check_editor(editor, data, attribute, fresh)
    fresh.check(data.generator, MIXED, attribute)
    assert all(tensor.is_contiguous() for tensor in editor.state().values())


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("negative", ["reverse", "own"])
def test_planted_channels_are_found_with_their_sign_and_move_alone(verify, negative):
    data = planted({0: {7: -1.0}, 1: {3: 1.0}, 2: {20: 1.0}})
    editor = fitted(data, verify=verify, negative=negative, step=0.5)
    sigma = data.generator.lift(data.fit.w, Space.S).double().std(0, correction=0)
    for name, channel, sign in (("a", 7, -1), ("b", 3, 1), ("c", 20, 1)):
        expected = torch.zeros(2, DIM, dtype=torch.float64)
        expected[1, channel], expected[0, channel] = sign * sigma[channel], -sign * sigma[channel]
        torch.testing.assert_close(editor.directions[name], expected, rtol=1e-6, atol=0)
        note = editor.report.notes[f"control.{name}"][-1]
        assert note["channel"] == f"conv:{channel}" and note["sign"] == sign
    walk = make_walk(data, editor, "a")
    moved = editor.step(walk) - walk.codes
    assert bool((moved[:, torch.arange(DIM) != 7] == 0).all())
    toward = (2 * walk.target - 1).float()
    torch.testing.assert_close(moved[:, 7], -toward * 0.5 * sigma[7].float(), rtol=1e-3, atol=1e-5)
    gain = (data.teacher(walk.codes + moved) - data.teacher(walk.codes))[:, 0] * toward
    torch.testing.assert_close(
        gain, torch.full_like(gain, 0.5 * sigma[7].item()), rtol=1e-3, atol=1e-5
    )


def test_verification_prefers_a_channel_that_acts_over_one_that_only_goes_along():
    data = planted({0: {7: 1.0}, 1: {3: 1.0}, 2: {20: 1.0}})
    for split in (data.fit, data.tune):
        split.w[:, 9] = (
            5 * split.w[:, 7] * torch.tensor(0.2)
        )  # as extreme as the cause, and without effect
        split.w[:, 7] += 0.5 * torch.randn(len(split), generator=torch.Generator().manual_seed(1))
        split.logits[:, 0] = split.w[:, 9]  # the labels follow the bystander
    blind, seeing = fitted(data, verify=False), fitted(data)
    assert int(blind.directions["a"][1].abs().argmax()) == 9
    assert int(seeing.directions["a"][1].abs().argmax()) == 7
    note = seeing.report.notes["control.a"][0]
    assert note["rank"] > 1 and note["sign_of_exemplars"] == note["sign"] == 1
    assert note["effect"] == pytest.approx(
        note["strength"] * data.fit.w[:, 7].std().item() / data.sigma[0].item(), rel=0.05
    )


def test_colour_channels_are_neither_chosen_nor_moved():
    first = DIM - RGB
    data = planted({0: {first: 1.0, 5: 0.3}, 1: {first + 1: 1.0}, 2: {20: 1.0}})
    for options in (
        {},
        {"channels": [10, 21], "verify": False},
        {"negative": "own", "candidates": 100},
    ):
        editor = fitted(data, **options)
        for name in editor.directions:
            assert bool((editor.directions[name][:, first:] == 0).all())
    assert int(fitted(data, verify=False).directions["a"][1].argmax()) == 5
    with pytest.raises(NoControl, match="no control found for 'b': the best of 5 candidates"):
        fitted(data).check(data.generator, BINARY, "b")


def test_a_constant_channel_is_never_chosen():
    data = planted({0: {7: 1.0}, 1: {3: 1.0}, 2: {20: 1.0}})
    data.fit.w[:, 12] = 3.25
    editor = fitted(data, channels=[100], verify=False)
    for name in BINARY.names:
        assert bool((editor.directions[name][:, 12] == 0).all())
        assert bool(editor.directions[name].isfinite().all())


def test_several_channels_have_the_weights_of_their_mean_deltas_and_a_step_its_length():
    data = planted({0: {7: 1.0, 2: -1.0, 14: 0.5}, 1: {3: 1.0}, 2: {20: 1.0}})
    editor = fitted(data, channels=[3], exemplars=None, verify=False, step=2.0)
    styles = data.generator.lift(data.fit.w, Space.S).double()
    mean, sigma = styles.mean(0), styles.std(0, correction=0)
    top = data.fit.logits[:, 0].argsort(descending=True)[:100]
    delta = ((styles[top] - mean) / sigma).mean(0)
    row = torch.zeros(DIM, dtype=torch.float64)
    row[[7, 2, 14]] = delta[[7, 2, 14]]
    torch.testing.assert_close(
        editor.directions["a"][1], row / row.norm() * sigma, rtol=1e-6, atol=1e-9
    )
    walk = make_walk(data, editor, "a")
    length = ((editor.step(walk) - walk.codes) / sigma.float()).norm(dim=1)
    torch.testing.assert_close(length, torch.full_like(length, 2.0), rtol=1e-4, atol=0)
    assert row[2] < 0 < row[7]


def test_each_class_of_many_gets_its_own_channel():
    rows = {1: {2: 1.0}, 2: {8: 1.0}, 3: {13: -1.0}}
    editor = fitted(planted({0: {7: 1.0}} | rows | {4 + k: {15 + k: 1.0} for k in range(4)}, MIXED))
    found = editor.directions["kind"]
    assert found.abs().argmax(1).tolist() == [2, 8, 13] and found[2, 13] < 0 < found[0, 2]


def test_a_candidate_is_kept_once():
    out, generator = Candidates(), fit_data().generator
    assert [out.add_channel(generator, u) for u in (5, 3, 5)] == [0, 1, 0] and len(out.rows) == 2


# -- who cannot be served --------------------------------------------------------------------------
def test_a_class_without_positives_is_a_reason_and_the_others_are_served():
    data = planted({0: {7: 1.0}, 1: {3: 1.0}, 2: {20: 1.0}}, bias=torch.tensor([0.0, -100.0, 0.0]))
    editor, fresh = fitted(data), StyleSpace()
    fresh.load_state(editor.state())
    for one in (editor, fresh):
        one.check(data.generator, BINARY, "a")
        with pytest.raises(Unsupported, match=r"fewer than 10 positives of b: yes \(0\)"):
            one.check(data.generator, BINARY, "b")
        with pytest.raises(Unsupported, match="no channel for 'b'"):
            one.step(make_walk(data, one, "b"))
    few = Split(
        *(value[:12] for value in (data.fit.index, data.fit.z, data.fit.w, data.fit.logits))
    )
    editor = fitted(FitData(data.generator, data.teacher, few, data.tune, data.sigma, 0))
    with pytest.raises(Unsupported, match="fewer than 10 positives of a"):
        editor.check(data.generator, BINARY, "a")


def test_a_control_is_found_where_every_sample_looked_at_has_the_class():
    data = planted({0: {7: 1.0}, 1: {3: 1.0}, 2: {20: 1.0}})
    keep = data.tune.logits[:, 0] > 0
    tune = Split(
        *(value[keep] for value in (data.tune.index, data.tune.z, data.tune.w, data.tune.logits))
    )
    editor = fitted(
        FitData(data.generator, data.teacher, data.fit, tune, data.sigma, 0), negative="own"
    )
    assert editor.directions["a"].abs().argmax(1).tolist() == [7, 7]
    assert editor.directions["a"][0, 7] < 0 < editor.directions["a"][1, 7]
    editor.check(data.generator, BINARY, "a")


def test_a_generator_without_styles_is_a_reason():
    attributes = Attributes([Attribute("a", ("no", "yes"))])
    with pytest.raises(Unsupported, match="needs S codes"):
        StyleSpace().check(LatentOnly(8), attributes, "a")


def test_more_channels_than_there_are_is_an_error_before_the_fit():
    data = planted({0: {7: 1.0}})
    StyleSpace(channels=[1, DIM - RGB]).check(data.generator, BINARY, "a")
    with pytest.raises(EditbenchError, match=rf"channels=\[1, {DIM}\]: .* has {DIM - RGB} style"):
        StyleSpace(channels=[1, DIM]).check(data.generator, BINARY, "a")


def test_bad_options():
    options = [
        {"positives": 0},
        {"min_positives": 3},
        {"exemplars": 9},
        {"negative": "x"},
        {"channels": []},
        {"channels": [0]},
        {"channels": [2.5]},
        {"channels": 5},
        {"candidates": 0},
        {"strengths": []},
        {"strengths": [-5.0]},
        {"step": 0},
        {"verify": "maybe"},
    ]
    check_refused(StyleSpace, options)
