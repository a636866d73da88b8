"""Training of the world: resuming changes nothing, R1 has its closed form, and the command packs what it trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from editbench.base.errors import BadFile, EditbenchError
from editbench.commands import world
from editbench.networks.scorers.convnet import ConvScorer
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.worlds.card import associations, cramers_v, largest_gap, marginals, phi, world_card
from editbench.worlds.faces import attributes
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.train_gan import GANTrainer, GANTraining, train

CONFIG = StyleGAN2Config(8, (8, 8), z_dim=6, w_dim=6, mapping_layers=2)
STEPS, BATCH = 6, 8
OPTIONS = GANTraining(
    total_kimg=STEPS * BATCH / 1000, batch=BATCH, r1_every=2, checkpoint_kimg=2 * BATCH / 1000
)


def reals(start: int, stop: int) -> Tensor:
    return render(sample_factors(FactorLaw(), 0, start, stop), 8)


def trainer() -> GANTrainer:
    return GANTrainer(CONFIG, OPTIONS, reals)


def assert_same_state(a: GANTrainer, b: GANTrainer) -> None:
    for name in ("g", "d", "ema"):
        ours, theirs = getattr(a, name).state_dict(), getattr(b, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


# -- the GAN ----------------------------------------------------------------------------------------------------------
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole, first, second = trainer(), trainer(), trainer()
    train(whole, tmp_path / "whole")
    folder = tmp_path / "parts"
    folder.mkdir()
    for _ in range(3):
        first.train_step()
    first.save(folder / "checkpoint.pt")
    torch.manual_seed(99)  # a new process has another global state
    train(second, folder)
    assert whole.step == second.step == STEPS
    assert_same_state(whole, second)
    rows = [
        json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    ]
    assert [row["kimg"] for row in rows] == [0.02, 0.03, 0.05] and all(
        np.isfinite(row["d"]) for row in rows
    )
    assert [path.name for path in folder.iterdir() if path.suffix == ".partial"] == []


def test_training_moves_all_networks_and_the_average_trails() -> None:
    t = trainer()
    before = [parameter.clone() for parameter in t.g.parameters()]
    for _ in range(3):
        t.train_step()
    assert any(not torch.equal(a, b) for a, b in zip(before, t.g.parameters()))
    assert t.g.mapping.w_avg.abs().max() > 0 and torch.equal(t.g.mapping.w_avg, t.ema.mapping.w_avg)


def test_r1_of_a_linear_discriminator_is_its_squared_norm() -> None:
    t = trainer()
    linear = nn.Linear(3 * 8 * 8, 1)
    t.d = nn.Sequential(nn.Flatten(), linear, nn.Flatten(0))  # type: ignore[assignment]
    penalty = t._r1(reals(0, 4))
    assert penalty.item() == pytest.approx(linear.weight.square().sum().item(), rel=1e-6)
    penalty.backward()
    torch.testing.assert_close(linear.weight.grad, 2 * linear.weight)


# -- the command ------------------------------------------------------------------------------------------------------
def test_pack_writes_the_averaged_generator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    t = trainer()
    t.train_step()
    t.save(tmp_path / "checkpoint.pt")
    out = tmp_path / "deep" / "net.safetensors"
    assert (
        world.main(["pack", "--checkpoint", str(tmp_path / "checkpoint.pt"), "--out", str(out)])
        == 0
    )
    assert str(out) in capsys.readouterr().out
    z = torch.randn(2, CONFIG.z_dim)
    torch.testing.assert_close(StyleGAN2Generator.from_file(out).network(z), t.ema(z))


def test_what_is_not_a_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for content in (None, b"", b"not a checkpoint"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BadFile, match=r"checkpoint\.pt"):
            world.main(["pack", "--checkpoint", str(path), "--out", str(tmp_path / "out")])
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(BadFile, match="not a checkpoint of a generator's training"):
        world.main(["pack", "--checkpoint", str(path), "--out", str(tmp_path / "out")])


def test_train_gan_refuses_what_cannot_be_and_what_does_not_fit_its_checkpoint(
    tmp_path: Path,
) -> None:
    with pytest.raises(EditbenchError, match="--channels"):
        world.main(["train-gan", "--resolution", "64", "--out", str(tmp_path)])
    trainer().save(tmp_path / "checkpoint.pt")
    with pytest.raises(EditbenchError, match=r"of another training.*resolution 8 there, 32 here"):
        world.main(["train-gan", "--out", str(tmp_path)])


@pytest.mark.parametrize("argv", [["--help"], ["card", "--help"], ["train-gan", "--help"]])
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        world.main(argv)
    assert stop.value.code == 0 and "world" in capsys.readouterr().out


# -- the card ---------------------------------------------------------------------------------------------------------
def test_statistics_of_the_card_against_closed_forms() -> None:
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert phi(a, a) == pytest.approx(1) and phi(a, b) == pytest.approx(0) and phi(a, 0 * a) == 0
    assert phi(a, 1 - a) == pytest.approx(-1)
    c = np.array([0, 1, 2, 0, 1, 2])
    assert cramers_v(c, (c + 1) % 3, 3, 3) == pytest.approx(1)
    assert cramers_v(c, np.array([0, 0, 0, 1, 1, 1]), 3, 2) == pytest.approx(0)
    assert cramers_v(a, 1 - a, 2, 2) == pytest.approx(1)  # for two binary labels it is |phi|
    labels = sample_factors(FactorLaw(), 0, 0, 200).labels().numpy()
    matrix, shares = associations(labels, attributes()), marginals(labels, attributes())
    assert matrix.shape == (7, 7) and np.allclose(matrix, matrix.T)
    assert (
        all(sum(share) == pytest.approx(1) for share in shares.values())
        and largest_gap(shares, shares) == 0
    )


def test_the_card_is_one_self_contained_page(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = StyleGAN2Generator(StyleGAN2(StyleGAN2Config(32, (8, 8, 8, 8), 8, 8, 2)))
    teacher, judge = (ConvScorer(attributes(), 32, (4, 4, 4), 8).seal() for _ in range(2))
    card = world_card(tmp_path, 100, generator, teacher, judge)
    page = (tmp_path / "index.html").read_text()
    assert json.loads((tmp_path / "card.json").read_text())["n"] == 100
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert "http" not in page.replace("http-equiv", "") and generator.digest in page
    assert all(name in page for item in attributes() for name in (item.name, *item.classes))
    assert card["frechet"]["generated"] > 0 and set(card["agreement"]["generated"]) == set(
        attributes().names
    )
