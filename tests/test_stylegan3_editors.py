"""One editor of every family walks on a small StyleGAN3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from editbench.bank.bank import Split
from editbench.base.instantiate import build, plain
from editbench.base.spaces import Codes, Space
from editbench.conformance.testbeds import ColourScorer
from editbench.methods.ganspace import directions
from editbench.networks.stylegan3.config import StyleGAN3Config
from editbench.networks.stylegan3.generator import StyleGAN3Generator
from editbench.run.compose import compose_config
from editbench.walk.editor import FitData, Walk
from tests.small_stylegan3 import network
from tests.toy import BINARY

# -- all editors -----------------------------------------------------------------------------------
TINY = StyleGAN3Config(
    8, (6, 6, 5), 12, 10, num_critical=1, first_cutoff=1.0, first_stopband=1.5, margin=2
)


LAYER = "L1_12_6"


SHORT = {
    "iterations": 3,
    "batch": 4,
    "fresh": 8,
    "search_samples": 4,
    "candidates": 4,
    "samples": 200,
    "components": 4,
    "latents": 8,
    "block": 4,
}


# One of each family, as its YAML has it, with what this network needs: a layer's name, short training.
EDITORS: dict[str, dict[str, object]] = {
    "direction": {"paths": {"a": "a.npy", "b": "b.npy"}},
    "ganspace": {"min_effect": 0.0},
    "ganspace_activations": {"layer": LAYER, "min_effect": 0.0},
    "gradctrl": {"epochs": 20},
    "interfacegan": {},
    "interfacegan_conditional": {},
    "linear_regression": {},
    "navigan": {"layer": LAYER, "count": 6, "min_effect": 0.0},
    "navigan_spectrum": {"layer": LAYER, "count": 4, "min_effect": 0.0},
    "neural_ode": {},
    "random": {},
    "random_channel": {},
    "random_searched": {},
    "sefa": {"min_effect": 0.0, "semantics": 2},
    "stylespace": {},
}


@pytest.fixture(scope="module")
def data() -> FitData:
    generator = StyleGAN3Generator(network(TINY))
    z = torch.randn(300, 12, generator=torch.Generator().manual_seed(3))
    w = generator.map(z)
    teacher = ColourScorer(BINARY, generator, 2)
    logits = teacher(generator.decode(Codes(Space.W, w)))
    fit = Split(torch.arange(240), z[:240], w[:240], logits[:240])
    tune = Split(torch.arange(240, 300), z[240:], w[240:], logits[240:])
    return FitData(generator, teacher, fit, tune, BINARY.log_odds(logits).std(0), 0)


@pytest.mark.parametrize("method", EDITORS)
def test_every_family_of_editors_walks_on_it(
    method: str, data: FitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = data.generator
    config = compose_config([f"method={method}", "budget=demo"]).method
    OmegaConf.set_struct(config, False)
    options = plain(config)
    assert EDITORS[method].keys() <= options.keys()
    options |= EDITORS[method]
    shorten(options)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.eye(10, dtype=np.float32)[:1])
    if "paths" in options:
        options["paths"] = {name: str(tmp_path / f"{name}.npy") for name in ("a", "b")}
    monkeypatch.setattr(directions, "REGRESSION_SAMPLES", 200)
    editor = build(OmegaConf.create(options))
    editor.bind(generator)
    editor.check(generator, data.attributes, "a")
    editor.fit(data)
    if method == "neural_ode":
        editor.tune(data, "a")
    editor.check(generator, data.attributes, "a")
    z = torch.randn(3, 12, generator=torch.Generator().manual_seed(5))
    latent = z if editor.space is Space.Z else generator.map(z)
    codes = generator.lift(latent, editor.space)
    target = torch.tensor([0, 1, 1])
    walk = Walk("a", torch.arange(3), codes, codes, 1 - target, target, latent=latent)
    start = generator.decode(editor.codes(walk))
    torch.testing.assert_close(start, generator.decode(Codes(Space.W, generator.map(z))))
    with torch.no_grad():
        walk.codes = editor.step(walk)
    moved = generator.decode(editor.codes(walk))
    assert torch.isfinite(moved).all()
    assert ((moved - start).abs().amax((1, 2, 3)) > 1e-4).all()


def shorten(options: dict) -> None:
    for key, value in options.items():
        if isinstance(value, dict):
            shorten(value)
        elif key in SHORT and isinstance(value, int):
            options[key] = min(value, SHORT[key])
