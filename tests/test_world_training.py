"""Training of the world: resuming changes nothing, R1 has its closed form, and the command packs what it trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from editbench.base.errors import BadFile, EditbenchError, NonFinite
from editbench.base.files import CannotWrite
from editbench.base.images import to_host_bytes
from editbench.base.seeding import normals
from editbench.commands import world
from editbench.networks.roles import Networks
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.convnet import ConvScorer
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.worlds.card import (
    SHEET,
    SHEET_COLUMNS,
    SHEET_ROWS,
    SHEET_ZOOM,
    associations,
    cramers_v,
    largest_gap,
    marginals,
    phi,
    sheet,
    world_card,
)
from editbench.worlds.faces import attributes
from editbench.worlds.faces.factors import FactorLaw, sample_factors
from editbench.worlds.faces.renderer import render
from editbench.worlds.generator_training import read_start
from editbench.worlds.parser import ParserTraining, train_parser
from editbench.worlds.steering import ShareSteering
from editbench.worlds.train_gan import GANTrainer, GANTraining, check_checkpoint, train
from editbench.worlds.train_scorers import ScorerTraining, train_scorer
from tests.file_limits import limited_files
from tests.toy_world import ATTRIBUTES

CONFIG = StyleGAN2Config(8, (8, 8), z_dim=6, w_dim=6, mapping_layers=2)
STEPS, BATCH = 6, 8
LAWS = {"undisputed", "world law"}
OPTIONS = GANTraining(
    total_kimg=STEPS * BATCH / 1000,
    batch=BATCH,
    r1_every=2,
    path_every=2,
    linearity=0.3,
    steer_from_kimg=0,
    checkpoint_kimg=2 * BATCH / 1000,
)


def reals(start: int, stop: int) -> Tensor:
    return render(sample_factors(FactorLaw(), 0, start, stop), 8)


class Witness(Scorer):
    """Reads two traits and a class of three off the mean colour."""

    attributes = ATTRIBUTES

    def forward(self, decoded: Tensor) -> Tensor:
        mean = decoded.mean((2, 3))
        return torch.cat([mean, mean], 1)[:, : self.attributes.width]


def trainer(**changes: float) -> GANTrainer:
    options = replace(OPTIONS, **changes)
    witness = Witness()
    labels = torch.zeros(10, 3, dtype=torch.int64)
    return GANTrainer(
        CONFIG, options, reals, steering=ShareSteering(ATTRIBUTES, labels), witness=witness
    )


def assert_same_state(a: GANTrainer, b: GANTrainer) -> None:
    for name in ("g", "d", "ema"):
        ours, theirs = getattr(a, name).state_dict(), getattr(b, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


# -- the GAN ---------------------------------------------------------------------------------------
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
    assert torch.equal(whole.linear.regressor.weight, second.linear.regressor.weight)
    assert torch.equal(whole.path_mean, second.path_mean)
    assert whole.path_count == second.path_count == 3
    assert torch.equal(whole.steering.shares, second.steering.shares)
    rows = [
        json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    ]
    assert [row["kimg"] for row in rows] == [0.02, 0.03, 0.05]
    assert all(np.isfinite(row["d"]) for row in rows)
    assert [path.name for path in folder.iterdir() if path.suffix == ".partial"] == []


def test_a_training_that_is_stopped_in_the_look_at_a_checkpoint_logs_it_when_it_goes_on(
    tmp_path: Path,
) -> None:
    def look(t: GANTrainer) -> dict[str, int]:
        return {"look": t.step}

    def stopped(t: GANTrainer) -> dict[str, int]:
        if t.step == at:
            raise KeyboardInterrupt
        return look(t)

    train(trainer(), tmp_path / "whole", look)
    for at in (2, 4, STEPS):
        folder = tmp_path / str(at)
        with pytest.raises(KeyboardInterrupt):
            train(trainer(), folder, stopped)
        train(trainer(), folder, look)
        train(trainer(), folder, look)  # a finished training adds nothing
        ours, theirs = (
            [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
            for place in (tmp_path / "whole", folder)
        )
        for row in ours + theirs:
            del row["img_per_s"]
        assert ours == theirs


def test_a_loss_that_is_not_finite_is_an_error_with_a_remedy_that_is_taken() -> None:
    t = trainer()
    with torch.no_grad():
        t.d.out.bias.fill_(float("nan"))
    with pytest.raises(NonFinite, match=r"at step 0: train with a lower --lr .* another --out"):
        t.train_step()


def test_training_moves_all_networks_and_the_average_trails() -> None:
    t = trainer()
    before = [parameter.clone() for parameter in t.g.parameters()]
    for _ in range(3):
        t.train_step()
    assert any(not torch.equal(a, b) for a, b in zip(before, t.g.parameters()))
    assert t.g.mapping.w_avg.abs().max() > 0 and torch.equal(t.g.mapping.w_avg, t.ema.mapping.w_avg)


def test_with_a_half_life_of_0_the_average_is_the_generator_itself() -> None:
    made = trainer(ema_kimg=0.0)
    made.train_step()
    for mine, theirs in zip(made.ema.parameters(), made.g.parameters()):
        assert torch.equal(mine, theirs)


def test_mixed_rows_come_from_two_w_and_the_first_is_its_own() -> None:
    t = trainer(batch=400, mixing=0.5)
    drawn = t._draw(0)
    z = drawn["z/g"]
    w, w_plus = t._mixed(drawn, "g", z)
    torch.testing.assert_close(w, t.g.mapping(z))
    own = (w_plus == w[:, None]).all(2)
    assert (
        own[:, 0].all() and not (own[:, 1:] & ~own[:, :-1]).any()
    )  # a cut, after which no row is its own
    assert (~own[:, -1]).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert set(own.sum(1).tolist()) == set(range(1, CONFIG.num_ws + 1))
    assert (trainer(batch=400, mixing=0.0)._mixed(drawn, "g", z)[1] == w[:, None]).all()


def test_the_path_length_of_a_linear_generator_has_its_closed_form() -> None:
    t = trainer(mixing=0.0)
    torch.manual_seed(0)
    matrix = torch.randn(CONFIG.w_dim, 3 * 8 * 8)
    t._picture = lambda w_plus: (w_plus.mean(1) @ matrix).view(-1, 3, 8, 8)  # type: ignore[method-assign]
    t.path_share.fill_(1)
    penalty, length = t._path_length(t._draw(0))
    noise = torch.from_numpy(normals(0, "gan/path", 0, BATCH // 2, 192)).float()
    # A row has its share of the gradient; the mean over rows is taken of its square.
    lengths = (noise / 8 @ matrix.T).norm(dim=1) / CONFIG.num_ws
    assert length.item() == pytest.approx(lengths.mean().item(), rel=1e-5)
    assert penalty.item() == pytest.approx(
        lengths.var(unbiased=False).item(), rel=1e-4
    )  # the first mean is this one
    assert t.path_mean.item() == pytest.approx(length.item(), rel=1e-6)


def test_the_log_tells_every_term_and_the_plain_game_has_none() -> None:
    assert {"d", "g", "steer", "linear", "path_penalty", "path_length"} <= set(
        trainer().train_step()
    )
    plain = GANTrainer(CONFIG, replace(OPTIONS, linearity=0, path_weight=0, mixing=0), reals)
    assert set(plain.train_step()) == {"d", "g", "real", "fake"}
    with pytest.raises(EditbenchError, match="--witness"):
        GANTrainer(CONFIG, OPTIONS, reals)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mixing": 1.5},
        {"path_weight": -1.0},
        {"linearity": float("nan")},
        {"path_weight": float("inf")},
        {"linearity": float("inf")},
        {"seed": 2**65},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"r1_gamma": -5.0},
        {"steer_weight": float("nan")},
        {"warmup_kimg": -1.0},
        {"checkpoint_kimg": float("nan")},
    ],
)
def test_options_out_of_range_are_named(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(EditbenchError, match=f"--{name.replace('_', '-')}"):
        replace(OPTIONS, **wrong)


def test_trainings_leave_the_global_random_numbers_alone() -> None:
    """A caller's own draws after a training must not be those after its seed."""

    def quiet(line: str) -> None:
        pass

    torch.manual_seed(1)
    before = torch.get_rng_state()
    tiny = ScorerTraining("witness", 7, (4, 4, 4), 4, images=4, batch=2, bfloat16=False)
    weights = train_scorer(tiny, quiet).state_dict()
    train_parser(ParserTraining(faces=2, passes=1, batch=2), quiet)
    trainer()
    assert torch.equal(torch.get_rng_state(), before)
    # The initial weights are still those of the seed, whatever was drawn before.
    torch.rand(3)
    again = train_scorer(tiny, quiet).state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


def test_a_checkpoint_from_before_these_terms_is_of_a_plain_training(tmp_path: Path) -> None:
    t = trainer()
    t.save(tmp_path / "checkpoint.pt")
    check_checkpoint(tmp_path / "checkpoint.pt", CONFIG, OPTIONS)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for name in ("mixing", "path_weight", "path_every", "linearity", "witness_every", "margin"):
        del state["options"][name]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(
        EditbenchError, match=r"mixing 0.0 there, 0.9 here.*linearity 0.0 there, 0.3 here"
    ):
        check_checkpoint(tmp_path / "checkpoint.pt", CONFIG, OPTIONS)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    t = trainer()
    t.save(tmp_path / "checkpoint.pt")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    t.train_step()
    with pytest.raises(CannotWrite, match=r"could not write .*checkpoint.pt"), limited_files():
        t.save(tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_without_a_discriminator_is_refused(tmp_path: Path) -> None:
    t = trainer()
    t.save(tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["d"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(BadFile, match=r"checkpoint.pt: .*not a checkpoint"):
        read_start(tmp_path / "checkpoint.pt", 8)


def test_a_training_does_not_go_on_from_weights_of_which_one_bit_has_changed(
    tmp_path: Path,
) -> None:
    t = trainer()
    path = tmp_path / "checkpoint.pt"
    t.save(path)
    weights = next(t.g.parameters()).detach().numpy().tobytes()
    content = path.read_bytes()
    position = content.index(weights)
    changed = content[position] ^ 1
    path.write_bytes(content[:position] + bytes([changed]) + content[position + 1 :])
    with pytest.raises(BadFile, match=r"checkpoint.pt: not a complete checkpoint"):
        check_checkpoint(path, CONFIG, OPTIONS)


def test_the_card_shows_pictures_that_are_not_square() -> None:
    pictures = torch.linspace(-1, 1, SHEET)[:, None, None, None].expand(-1, 1, 4, 6)
    shown = sheet(iter(pictures.split(10)))
    assert shown.shape == (SHEET_ROWS * 4 * SHEET_ZOOM, SHEET_COLUMNS * 6 * SHEET_ZOOM, 3)
    # The first picture is black, and the next one stands to its right.
    assert (shown[:8, :12] == 0).all()
    assert (shown[:8, 12:24] == to_host_bytes(pictures[1, 0, 0, 0]).item()).all()


def test_r1_of_a_linear_discriminator_is_its_squared_norm() -> None:
    t = trainer()
    linear = nn.Linear(3 * 8 * 8, 1)
    t.d = nn.Sequential(nn.Flatten(), linear, nn.Flatten(0))  # type: ignore[assignment]
    penalty = t._r1(reals(0, 4))
    assert penalty.item() == pytest.approx(linear.weight.square().sum().item(), rel=1e-6)
    penalty.backward()
    torch.testing.assert_close(linear.weight.grad, 2 * linear.weight)


# -- the command -----------------------------------------------------------------------------------
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
    half = tmp_path / "half.safetensors"
    words = ["pack", "--checkpoint", str(tmp_path / "checkpoint.pt"), "--out", str(half), "--half"]
    assert world.main(words) == 0
    assert half.stat().st_size < 0.7 * out.stat().st_size
    torch.testing.assert_close(
        StyleGAN2Generator.from_file(half).network(z), t.ema(z), atol=0.01, rtol=0.01
    )


def test_a_training_goes_on_from_the_generator_and_discriminator_of_a_checkpoint(
    tmp_path: Path,
) -> None:
    t = trainer()
    t.train_step()
    t.save(tmp_path / "checkpoint.pt")
    network, critic = read_start(tmp_path / "checkpoint.pt", 8)
    again = GANTrainer(
        network.config, replace(OPTIONS, linearity=0.0), reals, start=network, critic=critic
    )
    for name, value in t.d.state_dict().items():
        assert torch.equal(again.d.state_dict()[name], value)
    for name, value in t.ema.state_dict().items():
        assert torch.equal(again.g.state_dict()[name], value)
    generator = StyleGAN2Generator(t.ema)
    generator.save(tmp_path / "net.safetensors")
    network, critic = read_start(tmp_path / "net.safetensors", 8)
    assert critic is None and network.config == CONFIG
    for asked, message in (
        ({"resolution": 32}, "of 8 pixels, but the training uses 32"),
        ({"resolution": 8, "channels": [8, 4]}, "has --channels 8 8"),
        ({"resolution": 8, "mapping_layers": 3}, "has --mapping-layers 2"),
    ):
        with pytest.raises(EditbenchError, match=message):
            read_start(tmp_path / "net.safetensors", **asked)
    with pytest.raises(EditbenchError, match=r"has --discriminator-width 1$"):
        read_start(tmp_path / "checkpoint.pt", 8, discriminator_width=2)
    assert read_start(tmp_path / "net.safetensors", 8, (8, 8), 2)[0].config == CONFIG


def test_a_steered_training_goes_on_steered(tmp_path: Path) -> None:
    t = trainer(steer=True)
    path = tmp_path / "checkpoint.pt"
    t.save(path)
    check_checkpoint(path, CONFIG, t.options)
    with pytest.raises(EditbenchError, match="steer True there, False here"):
        check_checkpoint(path, CONFIG, OPTIONS)
    # A checkpoint of before holds the shares where they were steered.
    state = torch.load(path, weights_only=True)
    del state["options"]["steer"]
    torch.save(state, path)
    with pytest.raises(EditbenchError, match="steer True there, False here"):
        check_checkpoint(path, CONFIG, OPTIONS)
    check_checkpoint(path, CONFIG, t.options)


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
    for term in (["--steer"], ["--linearity", "0.3"]):
        with pytest.raises(EditbenchError, match="give --witness"):
            world.main(["train-gan", *term, "--out", str(tmp_path)])
    with pytest.raises(EditbenchError, match="--channels"):
        world.main(["train-gan", "--resolution", "64", "--out", str(tmp_path)])
    trainer().save(tmp_path / "checkpoint.pt")
    with pytest.raises(
        EditbenchError, match=r"belongs to another training.*resolution 8 there, 32 here"
    ):
        world.main(["train-gan", "--out", str(tmp_path)])


@pytest.mark.parametrize("argv", [["--help"], ["card", "--help"], ["train-gan", "--help"]])
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        world.main(argv)
    assert stop.value.code == 0 and "world" in capsys.readouterr().out


# -- the card --------------------------------------------------------------------------------------
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
    assert all(sum(share) == pytest.approx(1) for share in shares.values())
    assert largest_gap(shares, shares) == 0


def test_the_card_is_one_self_contained_page(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = StyleGAN2Generator(StyleGAN2(StyleGAN2Config(32, (8, 8, 8, 8), 8, 8, 2)))
    teacher, judge = (ConvScorer(attributes(), 32, (4, 4, 4), 8).seal() for _ in range(2))
    card = world_card(tmp_path, 100, Networks(generator, teacher, judge), FactorLaw())
    page = (tmp_path / "index.html").read_text()
    assert json.loads((tmp_path / "card.json").read_text())["n"] == 100
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert "http" not in page.replace("http-equiv", "") and generator.digest in page
    assert all(name in page for item in attributes() for name in (item.name, *item.classes))
    assert {bar["what"] for bar in card["bars"]} >= {
        "AUC in W, all codes",
        "judge right, undisputed label",
    }
    assert "AUC in W, 30 examples a class" in page and card["path_length"]["mean"] > 0
    assert set(card["separability"]) == {"Z", "W"} and set(card["accuracy"]["judge"]) == LAWS
    assert card["frechet"]["generated"] > 0
    assert set(card["agreement"]["generated"]) == set(attributes().names)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["train-scorers", "--images", "0"], "--images"),
        (["train-parser", "--faces", "0"], "--faces"),
        (["train-gan", "--mapping-layers", "0"], "--mapping-layers"),
        (["card", "-n", "0"], "-n"),
    ],
)
def test_a_count_of_nothing_is_refused(words, key, tmp_path):
    with pytest.raises(EditbenchError, match=f"{key}=0 must be at least 1"):
        world.main([*words, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_card_of_the_faces_needs_two_pictures_and_other_correlations_once(tmp_path):
    card = ["card", "--out", str(tmp_path / "out")]
    with pytest.raises(EditbenchError, match="-n=1 must be at least 2"):
        world.main([*card, "-n", "1"])
    for words in (
        ["age,age=0.3"],
        ["age,beard=0.3", "age,beard=0.1"],
        ["age,beard=0", "beard,age=0"],
    ):
        with pytest.raises(EditbenchError, match="name two traits, and each pair once"):
            world.main([*card, "--correlation", *words])
    with pytest.raises(EditbenchError, match="'age' has no correlation"):
        world.main([*card, "--correlation", "age"])
    assert not (tmp_path / "out").exists()


def test_a_batch_of_faces_is_of_two_laws_and_therefore_even(tmp_path):
    words = ["train-scorers", "--batch", "1", "--out", str(tmp_path / "out")]
    with pytest.raises(EditbenchError, match="--batch=1 must be even"):
        world.main(words)
    assert not (tmp_path / "out").exists()


def test_a_size_that_no_generator_has_is_refused_with_the_nearest(tmp_path):
    for size, message in (
        ("48", "got 48; near it: 32 or 64; set --resolution and --channels"),
        ("0", "--resolution=0 must be at least 1"),
    ):
        with pytest.raises(EditbenchError, match=message):
            world.main(["train-gan", "--resolution", size, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["train-gan", "--labels", "folders", "--name", "mine"], "--name, --labels"),
        (["train-scorers", "--resolution", "64"], "--resolution"),
        (["train-gan", "--max-broken", "0.5", "--threads", "9"], "--max-broken, --threads"),
        (["train-scorers", "--cache", "elsewhere"], "--cache"),
    ],
)
def test_options_of_data_need_data(words, given, tmp_path):
    with pytest.raises(EditbenchError, match=f"^{given} without --data"):
        world.main([*words, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
