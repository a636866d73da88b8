"""bright_and_warm gives logits of the right shape and sign."""

from pathlib import Path

import pytest
import torch

from editbench.run.compose import compose_settings

CONF = Path(__file__).parent / "my_conf"


@pytest.fixture(params=["teacher", "judge"])
def scorer(request):
    settings = compose_settings(["scorer=bright_and_warm"], [CONF])
    return getattr(settings.scorer, request.param).build()


def test_shape(scorer):
    # What a generator gives is in [-1, 1]; the scorer brings it into its own range.
    pictures = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    logits = scorer(pictures)
    assert logits.shape == (6, scorer.attributes.width) and logits.isfinite().all()
    assert torch.allclose(scorer(pictures[2:4]), logits[2:4], atol=1e-4)


def test_signs(scorer):
    white = torch.ones(1, 3, 32, 32)
    red = torch.tensor([1.0, -1, -1])[None, :, None, None].expand(1, 3, 32, 32)
    bright, warm = (scorer.attributes.index(name) for name in ("bright", "warm"))
    assert scorer(white)[0, bright] > 0 > scorer(-white)[0, bright]
    assert scorer(red)[0, warm] > 0
