"""The convolutional scorer, its training recipe, and the weights that the package ships."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import ndtr

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.networks.scorers.convnet import KIND, ConvScorer, classification_loss
from editbench.networks.weights import save_tensors
from editbench.worlds import train_scorers
from editbench.worlds.faces import attributes, load_generator, load_scorer, weights_path
from editbench.worlds.faces.factors import YAW_STEP, FactorLaw, sample_factors
from editbench.worlds.train_scorers import ROLES, ScorerTraining, augment, batch, train_scorer

ATTRIBUTES = Attributes(
    [Attribute("glasses", ("no", "yes")), Attribute("colour", ("red", "green", "blue"))]
)
TINY = ScorerTraining("teacher", seed=1, widths=(8, 12, 16), hidden=24, images=640, batch=32)


@pytest.fixture(scope="module")
def scorer() -> ConvScorer:
    torch.manual_seed(0)
    return ConvScorer(ATTRIBUTES, 32, (4, 6, 8), 10).seal()


# -- the network -----------------------------------------------------------------------------------
def test_logits_have_the_layout_of_the_attributes(scorer: ConvScorer) -> None:
    logits = scorer(torch.rand(5, 3, 32, 32))
    assert logits.shape == (5, ATTRIBUTES.width) == (5, 4) and logits.dtype == torch.float32
    assert scorer.features(torch.rand(5, 3, 32, 32)).shape == (5, 10)
    assert ATTRIBUTES.labels(logits).shape == (5, 2)


def test_a_logit_does_not_depend_on_the_batch_or_the_memory_format(scorer: ConvScorer) -> None:
    images = torch.rand(6, 3, 32, 32)
    whole = scorer(images)
    torch.testing.assert_close(scorer(images.contiguous(memory_format=torch.channels_last)), whole)
    for i in range(6):
        torch.testing.assert_close(scorer(images[i : i + 1])[0], whole[i], atol=1e-5, rtol=0)


def test_gradients_reach_the_picture(scorer: ConvScorer) -> None:
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(scorer(images)[:, 0].sum(), images)
    assert (gradient.abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 32, 32), (3, 32, 32)])
def test_another_shape_is_refused(scorer: ConvScorer, shape: tuple[int, ...]) -> None:
    with pytest.raises(EditbenchError, match=r"takes images \(N, 3, 32, 32\)"):
        scorer(torch.zeros(shape))


def test_another_resolution_is_refused_or_built() -> None:
    assert ConvScorer(ATTRIBUTES, 48, (4, 4, 4), 8)(torch.zeros(1, 3, 48, 48)).shape == (1, 4)
    with pytest.raises(EditbenchError, match="multiple of 16, got 40"):
        ConvScorer(ATTRIBUTES, 40)


def test_file_round_trip(scorer: ConvScorer, tmp_path: Path) -> None:
    path = tmp_path / "scorer.safetensors"
    scorer.save(path)
    again = ConvScorer.from_file(path)
    assert again.attributes == ATTRIBUTES and again.digest == scorer.digest != ""
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(again(images), scorer(images))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadFile, match=str(path)):
        ConvScorer.from_file(path)


def test_weights_of_nan_are_refused(scorer: ConvScorer, tmp_path: Path) -> None:
    path = tmp_path / "scorer.safetensors"
    tensors = scorer.state_dict() | {"neck.bias": torch.full_like(scorer.neck.bias, torch.nan)}
    save_tensors(path, tensors, KIND, scorer.config())
    with pytest.raises(BadFile, match=r"'neck\.bias' holds NaN or infinity"):
        ConvScorer.from_file(path)


@pytest.mark.parametrize("config", [{}, {"attributes": ATTRIBUTES.as_config(), "depth": 3}])
def test_a_file_of_another_version_is_named(
    scorer: ConvScorer, config: dict, tmp_path: Path
) -> None:
    path = tmp_path / "scorer.safetensors"
    save_tensors(path, scorer.state_dict(), KIND, config)
    with pytest.raises(BadFile, match=f"{path}: its configuration is not that of a ConvScorer"):
        ConvScorer.from_file(path)


def test_loss_is_the_mean_of_the_cross_entropies() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 1.0, -1.0]]), torch.tensor([[0, 1]])
    softmax = np.exp([0.0, 1.0, -1.0]) / np.exp([0.0, 1.0, -1.0]).sum()
    expected = (np.log1p(np.exp(2.0)) - np.log(softmax[1])) / 2
    assert classification_loss(logits, labels, ATTRIBUTES).item() == pytest.approx(
        expected, rel=1e-6
    )


# -- the recipe ------------------------------------------------------------------------------------
def test_a_step_depends_on_seed_role_and_step_alone() -> None:
    first = batch(TINY, "cpu", 4)
    batch(TINY, "cpu", 9)
    again = batch(TINY, "cpu", 4)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    others = [
        batch(TINY, "cpu", 5),
        batch(replace(TINY, role="judge"), "cpu", 4),
        batch(replace(TINY, seed=2), "cpu", 4),
    ]
    assert not any(torch.equal(first[0], other[0]) for other in others)


def test_augmentation_stays_in_range_and_leaves_some_pictures_alone() -> None:
    images = torch.rand(40, 3, 32, 32) * 2 - 1
    out = augment(images, torch.Generator().manual_seed(0), clean=0.5)
    same = (out == images).flatten(1).all(1)
    assert out.abs().max() <= 1 and out.shape == images.shape and 8 < same.sum() < 32


def test_scorers_are_trained_on_uncorrelated_faces() -> None:
    for law in (train_scorers.UNCORRELATED, train_scorers.CLEAR):
        labels = sample_factors(law, 0, 0, 8000).labels()[:, :5].double()
        off = torch.corrcoef(labels.T) - torch.eye(5)
        assert off.abs().max() < 0.05


def test_an_annotator_is_as_sure_as_a_face_is_far_from_the_threshold() -> None:
    n = 4000
    factors = sample_factors(FactorLaw(margin=1.0), 0, 0, n)
    truth = factors.labels()
    # Nobody mistakes the clearest faces.
    random = torch.Generator().manual_seed(0)
    assert (train_scorers.annotate(factors, random) == truth).float().mean() > 0.99
    # The share of annotators who see a smile is the normal distribution's at its amount.
    for amount in (0.5, 0.6, 0.75, 0.2):
        half_smile = replace(factors, amounts=torch.full((n, 5), amount))
        seen = train_scorers.annotate(half_smile, random)[:, 0].double().mean().item()
        expected = ndtr((amount - 0.5) / (0.5 * train_scorers.ANNOTATION_ERROR))
        assert seen == pytest.approx(expected, abs=0.03)
    # A pose on the border of two bins is either of both, half of the time.
    between = replace(factors, yaw=torch.full((n,), 0.5 * YAW_STEP))
    yaw = train_scorers.annotate(between, random)[:, 6]
    assert set(yaw.tolist()) == {2, 3}
    assert yaw.double().mean().item() == pytest.approx(2.5, abs=0.03)


def test_a_short_training_learns_and_repeats_itself() -> None:
    lines: list[str] = []
    longer = replace(TINY, images=1920)  # after a third of it the noise of the batches is as large
    once = train_scorer(longer, lines.append, log_every=10)
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < losses[0]
    assert once.digest
    first, second = (train_scorer(replace(TINY, images=160)).digest for _ in range(2))
    assert first == second != once.digest


# -- the weights of the package --------------------------------------------------------------------
def test_the_roles_differ_in_everything_that_matters() -> None:
    teacher, judge = ROLES["teacher"], ROLES["judge"]
    assert teacher.seed != judge.seed and sum(teacher.widths) < sum(judge.widths)
    assert load_scorer("teacher").digest != load_scorer("judge").digest
    assert load_scorer("teacher").attributes == load_scorer("judge").attributes == attributes()


def test_blurring_does_not_change_what_the_judge_sees() -> None:
    judge, factors = load_scorer("judge"), sample_factors(FactorLaw(), 4, 0, 256)
    from editbench.worlds.faces.renderer import render

    with torch.inference_mode():
        images = render(factors, 32)
        soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        same = judge.attributes.labels(judge(soft)) == factors.labels()
    assert same.double().mean(0).min() > 0.9


def test_weights_of_the_package_are_small_and_named() -> None:
    assert (
        sum(weights_path(name).stat().st_size for name in ("generator", "teacher", "judge")) < 8e6
    )
    with pytest.raises(UnknownName, match="Did you mean 'judge'"):
        weights_path("juge")
    with pytest.raises(UnknownName, match="generator"):
        load_scorer("generator")
    with pytest.raises(BadFile, match="train-gan"):
        load_generator("nowhere.safetensors")
