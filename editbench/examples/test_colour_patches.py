"""colour_patches keeps the contracts of a generator and of a scorer."""

from pathlib import Path

import torch

from editbench.base.spaces import Codes, Space
from editbench.run.compose import compose_settings
from editbench.run.loading import load_networks

CONF = Path(__file__).parent / "my_conf"


def networks():
    words = ["generator=colour_patches", "scorer=colour_patches"]
    return load_networks(compose_settings(words, [CONF]))


def codes(generator, n=64):
    z = torch.randn(n, generator.z_dim, generator=torch.Generator().manual_seed(0))
    return Codes(Space.W, generator.map(z))


def test_pictures():
    generator = networks().generator
    many = codes(generator)
    pictures = generator.decode(many)
    assert pictures.shape[:2] == (64, 3) and pictures.abs().max() <= 1
    # The same picture in any batch.
    assert torch.allclose(generator.decode(many[5:9]), pictures[5:9], atol=1e-5)
    many.values.requires_grad_()
    assert torch.autograd.grad(generator.decode(many).sum(), many.values)[0].abs().sum() > 0


def test_logits():
    found = networks()
    pictures = found.generator.decode(codes(found.generator))
    for scorer in (found.teacher, found.judge):
        logits = scorer(pictures)
        assert logits.shape == (64, scorer.attributes.width) and logits.isfinite().all()
        # Every class is there, or nothing can be edited towards it.
        labels = scorer.attributes.labels(logits)
        for column, attribute in enumerate(scorer.attributes):
            assert set(labels[:, column].tolist()) == set(range(len(attribute.classes)))
    assert not found.leaking  # teacher and judge are two networks


def test_signs():
    white, black = torch.ones(1, 3, 16, 16), -torch.ones(1, 3, 16, 16)
    judge = networks().judge
    assert judge(white)[0, 0] > 0 > judge(black)[0, 0]
