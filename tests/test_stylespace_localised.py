"""Localised channels: gradient maps against autograd, the alignment against the triple loop of the published code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from editbench.bank.bank import Split
from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.conformance.toy import ToyGenerator
from editbench.methods.stylespace.channels import movable
from editbench.methods.stylespace.localised import LocalisedStyleSpace
from editbench.methods.stylespace.regions import (
    belongs,
    gradient_maps,
    localise,
    pooled_labels,
    select,
)
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.walk.editor import FitData
from tests.toy import BINARY, LinearScorer, check_editor, fit_data

DIM, SIDE = 12, 8
NAMES = ("rest", "left", "right", "dot")
LABELS = torch.zeros(SIDE, SIDE, dtype=torch.int64)
LABELS[1:7, 0:3], LABELS[1:7, 5:8], LABELS[3:5, 3:5] = 1, 2, 3


class PatternGenerator(ToyGenerator):
    """decode(s) = the sum of the channels' patterns, so that gradient maps are the patterns themselves."""

    output = "image"

    def __init__(self) -> None:
        super().__init__(DIM)
        rng = torch.Generator().manual_seed(0)
        patterns = 0.01 * torch.rand(DIM, 3, SIDE, SIDE, generator=rng)
        for u, region in {0: 1, 1: 1, 2: 2, 3: 3, 4: 0}.items():
            patterns[u, :, LABELS == region] += 1.0 + u * torch.rand(3, 1, generator=rng)
        patterns[5] = torch.rand(3, SIDE, SIDE, generator=rng)  # acts anywhere
        patterns[6] = 0.0
        self.patterns = patterns

    def _decode(self, codes: Codes) -> Tensor:
        return torch.einsum("nu,uchw->nchw", super()._decode(codes), self.patterns.to(codes.values))


class SideParser(nn.Module):
    """Every picture has the same regions. It is made in the mode of training, as any module is."""

    names = NAMES

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        return LABELS.expand(len(images), -1, -1)


def world() -> FitData:
    """a: logit is the mean brightness of the left region, b: of the right one, c: of the top row."""
    plain, generator = fit_data(BINARY, DIM, n=600), PatternGenerator()
    picked = torch.zeros(3, 3, SIDE, SIDE)
    picked[0, :, LABELS == 1], picked[1, :, LABELS == 2], picked[2, :, 0] = 1.0, -1.0, 1.0

    class Seen(LinearScorer):
        def forward(self, decoded: Tensor) -> Tensor:
            if (
                decoded.dim() == 2
            ):  # the walks of tests.toy label the codes, which decode to themselves there
                decoded = generator.decode(Codes(Space.S, decoded))
            return super().forward(decoded.flatten(1))

    teacher = Seen(BINARY, picked.flatten(1))
    splits = [
        Split(part.index, part.z, part.w, teacher(generator.decode(Codes(Space.W, part.w))))
        for part in (plain.fit, plain.tune)
    ]
    return FitData(generator, teacher, *splits, splits[0].logits.std(0), 0)


# -- gradient maps ---------------------------------------------------------------------------------
def test_gradient_maps_are_those_of_autograd_and_of_finite_differences():
    torch.manual_seed(0)
    generator = StyleGAN2Generator(StyleGAN2(StyleGAN2Config(16, (4, 4, 3), 8, 8, 2))).double()
    styles = generator.lift(generator.map(torch.randn(1, 8, dtype=torch.float64)), Space.S)[0]
    channels = movable(generator).nonzero()[:, 0]
    jacobian = torch.autograd.functional.jacobian(
        lambda s: generator.decode(Codes(Space.S, s[None]))[0], styles
    )
    slopes = jacobian[..., channels].permute(3, 0, 1, 2)
    # Signed slopes are averaged, then the size taken.
    pooled = torch.nn.functional.avg_pool2d(slopes, 4).abs().mean(1)
    step = 1e-6
    for block in (7, 1000):
        maps = gradient_maps(generator, styles, channels, 16, block)
        torch.testing.assert_close(maps, slopes.abs().mean(1), atol=1e-10, rtol=1e-8)
        for at in (0, len(channels) - 1):
            bump = torch.zeros_like(styles)
            bump[channels[at]] = step
            pair = generator.decode(Codes(Space.S, torch.stack([styles + bump, styles - bump])))
            torch.testing.assert_close(
                maps[at], ((pair[0] - pair[1]) / (2 * step)).abs().mean(0), atol=1e-6, rtol=1e-4
            )
        coarse = gradient_maps(generator, styles, channels, 4, block)
        torch.testing.assert_close(coarse, pooled, atol=1e-10, rtol=1e-8)


def test_gradient_maps_of_a_linear_generator_are_its_patterns():
    generator = PatternGenerator()
    maps = gradient_maps(generator, torch.randn(DIM), torch.tensor([3, 0, 6]))
    torch.testing.assert_close(maps, generator.patterns[[3, 0, 6]].abs().mean(1))


# -- alignment -------------------------------------------------------------------------------------
def triple_loop(
    maps: np.ndarray, labels: np.ndarray, regions: int
) -> tuple[np.ndarray, list[list[int]]]:
    """As the method is described, a percentile for each image, channel and region. maps (N, C, P), labels (N, P)."""
    images, channels, pixels = maps.shape
    counts, shown = np.zeros((regions, channels)), np.zeros(regions)
    for i in range(images):
        present = [r for r in range(regions) if (labels[i] == r).any()]
        shown[present] += 1
        for u in range(channels):
            scores = {}
            for r in present:
                mask = labels[i] == r
                size = mask.sum()
                active = maps[i, u] > np.percentile(maps[i, u], 100 * (1 - size / pixels))
                scores[r] = (active & mask).sum() / size**2
            counts[max(scores, key=lambda r: (scores[r], -r)), u] += 1
    rate = counts / np.maximum(shown, 1)[:, None]
    chosen = []
    for r in range(regions):
        rows = [
            u
            for u in range(channels)
            if rate[r, u] > 0.5
            and rate[r, u] - max(rate[q, u] for q in range(regions) if q != r) > 0.25
        ]
        chosen.append(sorted(rows, key=lambda u: -rate[r, u]))
    return rate, chosen


def test_alignment_is_that_of_the_triple_loop():
    rng = np.random.default_rng(1)
    images, channels, pixels, regions = 12, 20, 64, 5
    labels = rng.choice(4, size=(images, pixels), p=[0.5, 0.3, 0.15, 0.05])
    labels[0] = 0
    labels[0, :5] = 1  # one image shows two regions only; nobody shows the fifth
    maps = rng.random((images, channels, pixels)) + 2.0 * (
        labels[:, None] == (np.arange(channels) % 5)[None, :, None]
    )
    rate, chosen = triple_loop(maps, labels, regions)
    counts, shown = (
        torch.zeros(regions, channels, dtype=torch.int64),
        torch.zeros(regions, dtype=torch.int64),
    )
    for i in range(images):
        best, area = belongs(torch.from_numpy(maps[i]), torch.from_numpy(labels[i]), regions)
        counts[best, torch.arange(channels)] += 1
        shown += area > 0
    found = select(counts, shown)
    np.testing.assert_allclose(found.rate.numpy(), rate)
    assert [own.tolist() for own in found.channels] == chosen
    assert sum(map(len, chosen)) >= 8
    assert not chosen[4]


def test_a_small_region_wins_over_a_large_one_that_is_hit_as_well():
    labels = torch.tensor([0] * 12 + [1] * 4)
    maps = torch.rand(1, 16, generator=torch.Generator().manual_seed(0))
    maps[0, 10:12], maps[0, 12:14] = 5.0, 6.0  # half of the small region, and two pixels beside it
    assert belongs(maps, labels, 2)[0].tolist() == [1]
    assert belongs(maps, labels, 2, discount=0.0)[0].tolist() == [0]


def test_channels_without_effect_belong_nowhere():
    maps = torch.stack([torch.zeros(16), torch.full((16,), torch.nan), torch.rand(16)])
    best, area = belongs(maps, torch.arange(16) // 8, 3)
    assert best[:2].tolist() == [-1, -1] and best[2] >= 0 and area.tolist() == [8, 8, 0]


def test_margin_and_rate_both_bind():
    counts = torch.tensor([[9, 6, 5, 6, 10], [1, 4, 5, 3, 0]])
    found = select(counts, torch.tensor([10, 10]))
    assert [own.tolist() for own in found.channels] == [
        [4, 0, 3],
        [],
    ]  # 0.6 - 0.4 is too little, 0.6 - 0.3 is not
    assert select(torch.tensor([[6, 4]]), torch.tensor([10])).channels[0].tolist() == [0]


def test_pooled_labels_are_the_majority():
    fine = torch.tensor([[1, 1, 0, 2], [1, 0, 2, 2], [3, 3, 0, 0], [3, 3, 0, 1]])[None]
    assert pooled_labels(fine, 4, 2).tolist() == [[[1, 2], [3, 0]]]
    assert pooled_labels(fine, 4, 8) is fine


def test_planted_patterns_are_found_by_their_region():
    generator = PatternGenerator()
    styles = torch.randn(5, DIM, generator=torch.Generator().manual_seed(2))
    found = localise(generator, SideParser().eval(), 4, styles, torch.tensor([6, 4, 3, 2, 1, 0]))
    assert [sorted(own.tolist()) for own in found.channels] == [[4], [0, 1], [2], [3]]
    assert found.images.tolist() == [5] * 4


# -- the editor ------------------------------------------------------------------------------------
REGIONS = {"a": ["left"], "b": ["right", "dot"], "c": None}


def test_the_contract_and_the_channels_of_the_regions():
    data = world()
    editor, fresh = (LocalisedStyleSpace(SideParser(), REGIONS, images=4) for _ in range(2))
    report = editor.fit(data)
    check_editor(editor, data, "a", fresh)
    for one in (editor, fresh):
        one.check(data.generator, BINARY, "a")
        with pytest.raises(Unsupported, match="no region of the picture is named for 'c'"):
            one.check(data.generator, BINARY, "c")
    assert report.notes["derivatives"] == 4 * (DIM - 3)
    # Only the search reads labels, those of its tune samples; the gradient maps need none.
    assert report.labels == min(editor.samples, len(data.tune))
    assert report.notes["images_of_region"]["dot"] == 4
    assert report.notes["channels_of_region"]["right"] == ["conv:2"]
    brighter = data.generator.patterns[:, :, LABELS == 1].sum((1, 2)) * data.fit.w.std(0)
    wanted = max((0, 1), key=lambda u: brighter[u].item())
    assert editor.directions["a"].abs().argmax(1).tolist() == [wanted, wanted]
    assert editor.directions["a"][1, wanted] > 0 > editor.directions["a"][0, wanted]
    assert "sign_of_exemplars" not in report.notes["control.a"][0]
    best = LocalisedStyleSpace(SideParser(), REGIONS, images=4, candidates=1)
    best.fit(data)
    assert editor.candidate_counts["a"] == len(report.notes["channels_of_region"]["left"]) > 1
    assert best.candidate_counts["a"] == 1 and best.candidate_counts["b"] == 2  # of two regions
    assert editor.directions["b"][1, 2] < 0 < editor.directions["b"][0, 2]  # brighter is less of b


def test_who_cannot_be_served():
    data = world()
    with pytest.raises(Unsupported, match="a parser of their regions"):
        LocalisedStyleSpace(None, REGIONS).check(data.generator, BINARY, "a")
    with pytest.raises(Unsupported, match="need pictures"):
        LocalisedStyleSpace(SideParser(), REGIONS).check(fit_data().generator, BINARY, "a")
    with pytest.raises(EditbenchError, match="must be null or have a _target_"):
        LocalisedStyleSpace("faces", REGIONS)
    with pytest.raises(UnknownName, match=r"region of the parser 'lfet'.*'left'"):
        LocalisedStyleSpace(SideParser(), {"a": ["lfet"]})
    with pytest.raises(UnknownName, match=r"attribute in method.regions 'aa'\. Did you mean 'a'"):
        LocalisedStyleSpace(SideParser(), REGIONS | {"aa": ["left"]}).check(
            data.generator, BINARY, "a"
        )
    with pytest.raises(EditbenchError, match="images=0"):
        LocalisedStyleSpace(SideParser(), REGIONS, images=0)
    strict = LocalisedStyleSpace(
        SideParser(), REGIONS, images=2, min_margin=1.0
    )  # no channel passes
    strict.fit(data)
    with pytest.raises(Unsupported, match="no style channel acts on right or dot alone"):
        strict.check(data.generator, BINARY, "b")
