"""Checkpoints that the code of NVlabs and of rosinality wrote, against what that code computed from them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from editbench.base.errors import BadFile
from editbench.base.spaces import Codes, Space
from editbench.networks.checkpoints import assemble
from editbench.networks.checkpoints.parity import BOUND, compare, not_compared, parity, read_golden
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from tests.checkpoint_files import read_source
from tests.data_folder import DATA, needs_data

FILES = {
    "stylegan2-ada/stylegan2ada_64": ".pkl",
    "stylegan2-ada/stylegan2ada_128": ".pkl",
    "rosinality/rosinality_64": ".pt",
}
ROWS = dict(zip(FILES, (5 + 14, 5 + 17, 4)))  # W and pictures, and a style a layer
STEP = (
    3e-9  # of a finite difference: hardly any of a million activations changes its sign within it
)


def load(name: str) -> StyleGAN2:
    return assemble(read_source(DATA / f"{name}{FILES[name]}"))


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_w_styles_and_pictures_are_those_of_the_official_code(name: str) -> None:
    golden = read_golden(DATA / f"{name}.golden.npz")
    rows = parity(load(name), golden)
    assert len(rows) == ROWS[name] and not not_compared(rows, golden)
    assert {row.name: row.error for row in rows if not row.error <= BOUND} == {}


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_the_harness_gives_the_same_numbers(name: str) -> None:
    """Through the generator's own spaces: Z with truncation, W, W+ and S."""
    golden = read_golden(DATA / f"{name}.golden.npz")
    network, z = load(name), golden["z"]
    truncated = StyleGAN2Generator(network, truncation_psi=0.7)
    full = StyleGAN2Generator(network)

    def close(codes: Codes, generator: StyleGAN2Generator, image: Tensor) -> None:
        assert (generator.decode(codes) - image).abs().max() <= BOUND * image.std()

    w = full.map(z)
    close(Codes(Space.Z, z), truncated, golden["img_trunc07_const"])
    for space in (Space.W, Space.W_PLUS, Space.S):
        close(Codes(space, full.lift(w, space)), full, golden["img_const"])


@needs_data
def test_a_cutoff_truncates_the_first_rows_alone() -> None:
    name = "stylegan2-ada/stylegan2ada_64"
    golden, network = read_golden(DATA / f"{name}.golden.npz"), load(name)
    generator = StyleGAN2Generator(network, truncation_psi=0.7, truncation_cutoff=4)
    rows = torch.cat([golden["ws_trunc07"][:, :4], golden["ws"][:, 4:]], 1)
    torch.testing.assert_close(
        generator.w_plus(generator.map(golden["z"])), rows, atol=1e-5, rtol=0
    )
    z = Codes(Space.Z, golden["z"])
    torch.testing.assert_close(
        generator.decode(z), generator.decode(Codes(Space.W_PLUS, rows)), atol=1e-4, rtol=0
    )
    whole = StyleGAN2Generator(network, truncation_psi=0.7, truncation_cutoff=network.config.num_ws)
    image = golden["img_trunc07_const"]
    assert (whole.decode(z) - image).abs().max() <= BOUND * image.std()
    assert whole.digest != generator.digest


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_gradients_with_respect_to_w_are_those_of_finite_differences(name: str) -> None:
    golden = read_golden(DATA / f"{name}.golden.npz")
    generator = StyleGAN2Generator(load(name).double())
    w = generator.map(golden["z"][:2].double()).requires_grad_(True)
    torch.manual_seed(0)
    probe = torch.randn(golden["img_const"][:2].shape, dtype=torch.float64)

    def value(w: Tensor) -> Tensor:
        return (generator.decode(Codes(Space.W, w)) * probe).sum((1, 2, 3))

    (gradient,) = torch.autograd.grad(value(w).sum(), w)
    for seed in range(3):
        torch.manual_seed(seed)
        direction = torch.randn_like(w)
        with torch.no_grad():
            slope = (value(w + STEP * direction) - value(w - STEP * direction)) / (2 * STEP)
        expected = (gradient * direction).sum(1)
        assert (
            (slope - expected).abs() <= 1e-5 * gradient.norm(dim=1) * direction.norm(dim=1)
        ).all()


@needs_data
def test_parity_sees_a_defect() -> None:
    """One sign, one row of noise, one mean: each shows in the rows that it should."""
    name = "stylegan2-ada/stylegan2ada_64"
    golden = read_golden(DATA / f"{name}.golden.npz")

    def bad(network: StyleGAN2) -> set[str]:
        return {row.name for row in parity(network, golden) if not row.good}

    network = load(name)
    network.mapping.w_avg += 1e-3
    assert bad(network) == {"ws_trunc07", "img_trunc07_const"}
    network = load(name)
    network.synthesis.layers["conv16"].noise += 0.01
    assert bad(network) == {"img_const", "img_trunc07_const"}
    network = load(name)
    network.synthesis.layers["rgb8"].affine.bias.data[0] += 1e-3
    assert "style:b8.torgb" in bad(network) and "style:b8.conv1" not in bad(network)


def test_a_golden_that_is_none_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.zeros(3))
    with pytest.raises(BadFile, match="no 'z'"):
        read_golden(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"PK")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    for name in ("b.npz", "c.npz", "cut.npz"):
        with pytest.raises(BadFile, match=name):
            read_golden(tmp_path / name)
    np.savez(tmp_path / "objects.npz", z=np.array([{}], dtype=object))
    with pytest.raises(BadFile, match=r"\(it holds Python objects\)"):
        read_golden(tmp_path / "objects.npz")


def test_a_golden_of_another_network_and_one_without_spread() -> None:
    network = StyleGAN2(
        StyleGAN2Config(8, (4, 4), z_dim=5, w_dim=6, mapping_layers=2, c_dim=2)
    ).requires_grad_(False)
    z, label = torch.randn(3, 5), torch.eye(2)[[0, 1, 1]]
    for golden in (
        {"z": z[:, :4], "c": label},
        {"z": z},
        {"z": z, "c": label[:, :1]},
        {"z": z, "c": label[:2]},
    ):
        with pytest.raises(BadFile, match=r"expected \(N, 5\)"):
            parity(network, golden)
    golden = {"z": z, "c": label, "w": network.mapping(z, label), "latent_avg": torch.zeros(1, 6)}
    assert all(row.good and row.error == 0 for row in parity(network, golden))
    network.mapping.w_avg[2] = (
        1e-6  # any difference from numbers that are all the same is too large
    )
    assert [row.name for row in parity(network, golden) if not row.good] == ["latent_avg"]


def test_differences_are_in_units_of_the_golden_and_nan_is_no_agreement() -> None:
    golden = torch.tensor([-1.0, 1.0])
    constant = torch.ones(2)
    for ours, theirs, error in (
        (golden + 0.5, golden, 0.5 / math.sqrt(2)),
        (constant, constant, 0.0),
        (constant.double() + 1e-9, constant.double(), math.inf),
        (golden * math.nan, golden, math.nan),
    ):
        row = compare("w", ours.double(), theirs)
        assert row.error == pytest.approx(error, nan_ok=True) and row.good == (error == 0)
