"""The classifiers on latents: closed-form Jacobian, training, sample selection, published files."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from editbench.bank.bank import Split
from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile
from editbench.methods.gradctrl.editor import GradCtrl
from editbench.methods.gradctrl.latent_classifier import (
    Examples,
    LatentClassifier,
    balanced,
    initial,
    train,
)
from editbench.methods.shared.examples import example_order, extreme_examples, random_examples
from tests.published_heads import FFHQ, ffhq_codes, heads, published
from tests.toy import DATA, fit_data, needs_data


@needs_data
@pytest.mark.parametrize("name", ["ffhq", "cat"])
def test_closed_form_jacobian_equals_autograd(name):
    w, classifier = ffhq_codes(40).double(), heads(name)
    logits, slopes = classifier.forward(w)
    closed = classifier.jacobian(slopes, torch.arange(logits.shape[1]))
    row = 0
    for module in published(name):
        x = w.clone().requires_grad_()
        out = module(x)
        torch.testing.assert_close(logits[:, row : row + out.shape[1]], out, atol=1e-10, rtol=1e-10)
        for c in range(out.shape[1]):
            gradient = torch.autograd.grad(out[:, c].sum(), x, retain_graph=True)[0]
            torch.testing.assert_close(closed[:, row], gradient, atol=1e-12, rtol=1e-5)
            row += 1
    assert row == logits.shape[1]


def test_a_head_does_not_depend_on_the_others():
    rng = torch.Generator().manual_seed(0)
    codes, widths = torch.randn(3, 50, 12, generator=rng), [1, 3, 4]
    labels = torch.stack([torch.randint(0, k, (50,), generator=rng) for k in (2, 3, 4)])
    weights, held = torch.ones(3, 50), torch.rand(3, 50, generator=rng) < 0.3
    weights[1, 40:] = 0

    def trained(heads: slice) -> LatentClassifier:
        parts = [
            Examples(codes[heads], labels[heads], (weights * side)[heads]) for side in (~held, held)
        ]
        return train(list("pqr")[heads], widths[heads], *parts, seed=3, epochs=80)[0]

    together = trained(slice(0, 3))
    for a, name in enumerate("pqr"):
        alone = trained(slice(a, a + 1))
        for x, y in zip(together.heads[name], alone.heads[name]):
            torch.testing.assert_close(x, y, atol=2e-4, rtol=1e-3)


def slow_training(codes, labels, check_codes, check_labels, seed, epochs, patience=20):
    """One binary head by the book: a module, Adam, and the snapshot of the lowest mean over the
    classes of their mean validation losses."""
    start = initial("p", 1, codes.shape[1], seed)
    module = torch.nn.Sequential(
        torch.nn.Linear(codes.shape[1], 16), torch.nn.LeakyReLU(0.1), torch.nn.Linear(16, 1)
    )
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), start):
            parameter.copy_(value)
    adam = torch.optim.Adam(module.parameters(), lr=1e-3)
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    lowest, at, best = float("inf"), 0, None
    for epoch in range(epochs + 1):
        with torch.no_grad():
            logits = module(check_codes)[:, 0]
            sides = []
            for c in (0, 1):
                mine = check_labels == c
                sides.append(loss(logits[mine], check_labels[mine].float()))
            value = sum(sides) / 2
        if value < lowest:
            lowest, at = value.item(), epoch
            best = [parameter.detach().clone() for parameter in module.parameters()]
        if epoch - at > patience:
            break
        adam.zero_grad()
        loss(module(codes)[:, 0], labels.float()).backward()
        adam.step()
    return best, at, lowest


def test_training_stops_on_the_balanced_loss_of_the_validation_samples():
    rng = torch.Generator().manual_seed(1)
    normal = torch.randn(12, generator=rng)
    codes = torch.randn(60, 12, generator=rng)
    check = torch.randn(400, 12, generator=rng)
    noise = torch.randn(460, generator=rng) * 2
    labels = (codes @ normal + noise[:60] > 0).long()
    # A rare class: it must count as much as the other one.
    check_labels = (check @ normal + noise[60:] > 4).long()
    training = Examples(codes[None], labels[None], torch.ones(1, 60))
    weights = balanced(check_labels, 2)
    assert weights[check_labels == 1].sum().item() == pytest.approx(1.0, abs=1e-5)
    assert weights[check_labels == 0].sum().item() == pytest.approx(1.0, abs=1e-5)
    validation = Examples(check[None], check_labels[None], weights[None])
    found, notes = train(["p"], [1], training, validation, seed=3, epochs=400)
    best, at, lowest = slow_training(codes, labels, check, check_labels, 3, 400)
    assert 0 < at < 400 and notes["p"]["epochs"] == at
    assert notes["p"]["validation_loss"] == pytest.approx(lowest, abs=1e-3)
    for x, y in zip(found.heads["p"], best):
        torch.testing.assert_close(x.float(), y, atol=1e-4, rtol=1e-3)
    # Without validation samples the loss of the training is what stops it.
    none = Examples(check[None, :0], check_labels[None, :0], weights[None, :0])
    _, notes = train(["p"], [1], training, none, seed=3, epochs=30)
    assert notes["p"]["epochs"] == 30


def test_extremes_are_the_surest_of_the_pool_and_a_rare_class_is_scanned_for():
    labels = torch.zeros(100, dtype=torch.long)
    labels[[70, 80, 90]] = 1
    odds = torch.stack([torch.arange(100.0), -torch.arange(100.0)], 1)
    order = np.arange(100)
    chosen, looked = extreme_examples(odds, labels, order, 2, 50)
    assert chosen[0].tolist() == [49, 48] and chosen[1].tolist() == [70, 80] and looked == 81
    chosen, looked = random_examples(labels, 2, order, 5)
    assert chosen[0].tolist() == [0, 1, 2, 3, 4] and chosen[1].tolist() == [70, 80, 90]
    assert looked == 100
    _, looked = random_examples(labels, 2, order, 2)
    assert looked == 81


def test_a_random_example_depends_on_the_seed_and_its_own_place_alone():
    data, wider = fit_data(n=500), fit_data(n=900)
    order = example_order(data)
    assert sorted(order.tolist()) == list(range(500))
    # More samples in the bank leave the order among the first ones as it was.
    longer = example_order(wider)
    assert longer[longer < 500].tolist() == order.tolist()
    # As do samples in between that belong to another split.
    part = dataclasses.replace(data, fit=Split(*(t[::2] for t in vars(data.fit).values())))
    assert (2 * example_order(part)).tolist() == [i for i in order.tolist() if i % 2 == 0]
    assert example_order(dataclasses.replace(data, seed=1)).tolist() != order.tolist()
    labels = data.attributes.labels(data.fit.logits, "a")
    few, _ = random_examples(labels, 2, order, 10)
    more, _ = random_examples(labels, 2, order, 40)
    for c in range(2):
        assert len(more[c]) == 40 and few[c].tolist() == more[c][:10].tolist()
        assert (labels[torch.from_numpy(more[c])] == c).all()


@needs_data
def test_published_heads_with_signs_and_their_errors(tmp_path):
    file = str(DATA / "gradctrl-heads" / "ffhq.safetensors")
    scored = Attributes([Attribute("gender", ("f", "m")), Attribute("age", ("young", "old"))])
    data = fit_data(scored, dim=512, n=60)
    editor = GradCtrl(
        heads=file,
        head_attributes=FFHQ,
        head_signs=[1, 1, 1, -1, 1],
        exclude={"age": {"gender": 100}},
    )
    assert editor.fit(data).labels == 0
    # Only the heads of evaluated attributes are kept: gender is the first of the file, age the fourth.
    assert editor.classifier.names == ("gender", "age")
    plain, flipped = heads("ffhq").forward(data.fit.w)[0], editor.classifier.forward(data.fit.w)[0]
    torch.testing.assert_close(flipped, plain[:, [0, 3]] * torch.tensor([1, -1]))
    with pytest.raises(BadFile, match="list each of its heads"):
        GradCtrl(heads=file, head_attributes=FFHQ[:4]).fit(data)
    with pytest.raises(BadFile, match="classifier heads"):
        GradCtrl(heads=str(tmp_path / "none"), head_attributes=FFHQ).fit(data)
    with pytest.raises(BadFile, match="512 channels"):
        GradCtrl(heads=file, head_attributes=FFHQ).fit(fit_data())


def test_a_new_head_is_drawn_as_torch_draws_a_linear_layer() -> None:
    torch.manual_seed(0)
    ours = initial("smile", 3, 512, seed=0)
    layers = (torch.nn.Linear(512, 16), torch.nn.Linear(16, 3))
    theirs = [part for layer in layers for part in (layer.weight, layer.bias)]
    for mine, other in zip(ours, theirs):
        assert mine.shape == other.shape
    for fan_in, *parts in ((512, ours[0], theirs[0]), (16, ours[2], theirs[2])):
        for part in parts:
            bound = fan_in**-0.5
            assert part.abs().max() <= bound
            # The standard deviation of a uniform draw; the smaller layer has 48 weights.
            assert float(part.std()) == pytest.approx(bound / 3**0.5, rel=0.15)
    assert ours[1].abs().max() <= 512**-0.5 and ours[3].abs().max() <= 16**-0.5
