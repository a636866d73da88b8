"""The classifiers on latents: closed-form Jacobian, training, sample selection, published files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from editbench.methods.gradctrl.editor import GradCtrl
from editbench.methods.gradctrl.latent_classifier import train
from editbench.methods.shared.selection import few_shot

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile
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
    together, _ = train(["p", "q", "r"], widths, codes, labels, weights, held, seed=3, epochs=80)
    for a, name in enumerate("pqr"):
        one = slice(a, a + 1)
        alone, _ = train(
            [name], widths[one], codes[one], labels[one], weights[one], held[one], seed=3, epochs=80
        )
        for x, y in zip(together.heads[name], alone.heads[name]):
            torch.testing.assert_close(x, y, atol=2e-4, rtol=1e-3)


def test_few_shot_takes_the_surest_of_the_pool_and_scans_on_for_a_rare_class():
    labels = torch.zeros(100, dtype=torch.long)
    labels[[70, 80, 90]] = 1
    odds = torch.stack([torch.arange(100.0), -torch.arange(100.0)], 1)
    order = np.arange(100)
    chosen, looked = few_shot(odds, labels, order, 2, 50, extremes=True)
    assert chosen[0].tolist() == [49, 48] and chosen[1].tolist() == [70, 80] and looked == 81
    chosen, looked = few_shot(odds, labels, order, 5, 50, extremes=False)
    assert (
        chosen[0].tolist() == [0, 1, 2, 3, 4]
        and chosen[1].tolist() == [70, 80, 90]
        and looked == 100
    )


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
    plain, flipped = heads("ffhq").forward(data.fit.w)[0], editor.classifier.forward(data.fit.w)[0]
    torch.testing.assert_close(flipped, plain * torch.tensor([1, 1, 1, -1, 1]))
    with pytest.raises(BadFile, match="list each of its heads"):
        GradCtrl(heads=file, head_attributes=FFHQ[:4]).fit(data)
    with pytest.raises(BadFile, match="classifier heads"):
        GradCtrl(heads=str(tmp_path / "none"), head_attributes=FFHQ).fit(data)
    with pytest.raises(BadFile, match="512 channels"):
        GradCtrl(heads=file, head_attributes=FFHQ).fit(fit_data())
