"""Files of StyleGAN3: what is written decodes as its source, and what is not whole is refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from editbench import cli
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.instantiate import build
from editbench.base.spaces import Codes, Space
from editbench.networks.checkpoints import assemble
from editbench.networks.stylegan3.generator import StyleGAN3Generator
from editbench.networks.stylegan3.network import StyleGAN3
from editbench.run.compose import compose_config
from tests.checkpoint_files import read_source, stylegan3_pickle, stylegan3_state
from tests.small_stylegan3 import ODD, SMALL, network


# -- files -----------------------------------------------------------------------------------------
def test_what_is_written_decodes_as_the_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = network(ODD)
    source = stylegan3_pickle(tmp_path / "net.pkl", made)
    out = tmp_path / "net.safetensors"
    assert cli.main(["convert", str(source), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    for text in ("StyleGAN3 pickle", "configuration t", "L1_14_4", "generator=stylegan3"):
        assert text in shown
    assert StyleGAN3.from_file(out).config == ODD
    words = [f"generator.weights={out}", "generator.label=1", "generator.truncation_psi=0.5"]
    found = build(compose_config(["generator=stylegan3", *words]).generator)
    z = torch.randn(3, 6)
    expected = made(z, 0.5, torch.eye(2)[[1, 1, 1]])
    torch.testing.assert_close(found.decode(Codes(Space.Z, z)), expected)
    with pytest.raises(BadFile, match="contains a 'stylegan3', expected a 'stylegan2'"):
        build(compose_config(["generator=stylegan2", *words]).generator)
    with pytest.raises(EditbenchError, match=r"generator=stylegan3 needs a network"):
        build(compose_config(["generator=stylegan3"]).generator)
    found.save(tmp_path / "again.safetensors")
    again = StyleGAN3Generator.from_file(tmp_path / "again.safetensors", 0.5, label=1)
    assert again.digest == found.digest


def test_a_state_dict_is_read_by_the_published_design(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, num_critical=2)
    made = network(config)
    torch.save({"g_ema": stylegan3_state(made)}, tmp_path / "net.pt")
    source = read_source(tmp_path / "net.pt")
    assert source.config == config and "mapping_lr" in source.assumed
    assert read_source(tmp_path / "net.pt", conv_clamp=3.0).config.conv_clamp == 3.0
    z = torch.randn(2, 12)
    torch.testing.assert_close(assemble(source)(z), made(z))


def broken(change) -> dict[str, Tensor]:
    state = stylegan3_state(network(dataclasses.replace(SMALL, num_critical=2)))
    change(state)
    return state


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("synthesis.L2_20_7.weight"), "expected L0, L1, ..."),
        (lambda state: state.pop("synthesis.L1_20_8.magnitude_ema"), "missing.*magnitude_ema"),
        (lambda state: state.update({"synthesis.L1_20_8.more": torch.ones(2)}), "unexpected.*more"),
        (lambda state: state.pop("synthesis.L0_20_8.up_filter"), "lacks .*up_filter"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(change, message: str, tmp_path: Path) -> None:
    torch.save(broken(change), tmp_path / "net.pt")
    with pytest.raises(BadFile, match=rf"net\.pt(.|\n)*{message}"):
        assemble(read_source(tmp_path / "net.pt"))


def test_layers_of_another_design_are_refused(tmp_path: Path) -> None:
    arrays = [np.ones(2)] * 4
    given = (("padding", [1, 1, 1, 1]), ("padding", arrays), ("down_factor", 4), ("in_size", 9))
    for name, value in given:
        path = stylegan3_pickle(tmp_path / "net.pkl", network(), **{name: value})
        with pytest.raises(Unsupported, match=f"{name}=(.|\n)*design of the paper"):
            read_source(path)
    path = stylegan3_pickle(tmp_path / "net.pkl", network(), in_sampling_rate=math.nan)
    with pytest.raises(BadFile, match=r"in_sampling_rate' is nan; the file is damaged"):
        read_source(path)
    # A state dict does not show its bands.
    torch.save(stylegan3_state(network(ODD)), tmp_path / "net.pt")
    with pytest.raises(Unsupported, match="would be L"):
        read_source(tmp_path / "net.pt")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"resolution": 12}, "power of two"),
        ({"channels": (8, 0, 7, 6)}, "at least 1"),
        ({"num_critical": 4}, "num_critical"),
        ({"first_stopband": 1.0}, "stop band"),
        ({"kernel": 2}, "odd"),
        ({"margin": -1}, "counts"),
        ({"conv_clamp": 0.0}, "conv_clamp"),
    ],
)
def test_an_impossible_architecture_is_explained(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)
