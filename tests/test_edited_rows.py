"""Edits of some rows of W+, where the generator truncates its first rows (`truncation_cutoff`)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Space
from editbench.inversion.walks import LayeredEditor
from editbench.methods.direction import Direction
from editbench.methods.neural_ode import NeuralODE
from editbench.methods.random_searched import RandomSearched
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.walk.editor import Editor, FitData, FitReport, Walk

CONFIG = StyleGAN2Config(16, (12, 8, 6), z_dim=10, w_dim=9, mapping_layers=2)
CUTOFF = 3
PSI = 0.5
EDITED = (2, 5)  # a row before the cutoff and two after it
SAMPLES = 4
MOVE = torch.linspace(-1, 1, CONFIG.w_dim)


class Line(Editor):
    """Along a fixed line."""

    def fit(self, data: FitData) -> FitReport:
        return FitReport()

    def step(self, walk: Walk) -> Tensor:
        return walk.codes + MOVE


class Forgetful(Line):
    """One that does not call its base class."""

    def __init__(self) -> None:
        self.delta = 1.0


def searched() -> Editor:
    """An editor that has found one control, which moves the rows EDITED."""
    editor = RandomSearched()
    editor.moves["smile"] = MOVE.expand(2, -1)
    editor.row_ranges["smile"] = torch.tensor([EDITED, EDITED])
    return editor


@pytest.fixture(scope="module")
def generator() -> StyleGAN2Generator:
    torch.manual_seed(0)
    network = StyleGAN2(CONFIG)
    with torch.no_grad():
        network.mapping.w_avg.normal_()
    return StyleGAN2Generator(network, truncation_psi=PSI, truncation_cutoff=CUTOFF)


@pytest.fixture(scope="module")
def w(generator: StyleGAN2Generator) -> Tensor:
    return generator.map(torch.randn(SAMPLES, CONFIG.z_dim))


def slow_rows(generator: StyleGAN2Generator, w: Tensor) -> Tensor:
    """One row after the other: mean + PSI (w - mean) before the cutoff, w itself after it."""
    mean = generator.network.mapping.w_avg
    rows = [mean + PSI * (w - mean) if row < CUTOFF else w for row in range(CONFIG.num_ws)]
    return torch.stack(rows, 1)


def walk_of(w: Tensor, moved: Tensor) -> Walk:
    to = torch.ones(SAMPLES, dtype=torch.long)
    return Walk("smile", torch.arange(SAMPLES), w, moved, 1 - to, to, latent=w)


@pytest.mark.parametrize("make", [lambda: Line(layers=EDITED), searched])
def test_only_the_edited_rows_move_and_each_as_the_generator_maps_it(generator, w, make):
    editor = make()
    editor.bind(generator)
    start = editor.codes(walk_of(w, w))
    assert start.space == Space.W_PLUS
    torch.testing.assert_close(start.values, slow_rows(generator, w))
    expected = slow_rows(generator, w)
    first, last = EDITED
    expected[:, first:last] = slow_rows(generator, w + MOVE)[:, first:last]
    torch.testing.assert_close(editor.codes(walk_of(w, w + MOVE)).values, expected)


def test_a_file_with_a_direction_for_each_row_adds_to_the_rows_themselves(generator, w):
    rows = torch.randn(CONFIG.num_ws, CONFIG.w_dim).double()
    editor = Direction({"smile": "rows.npy"}, normalise=False)
    editor.directions["smile"] = rows
    editor.length = 1.0
    editor.bind(generator)
    start = walk_of(w, w)
    torch.testing.assert_close(editor.codes(start).values, slow_rows(generator, w))
    moved = editor.codes(walk_of(w, editor.step(start))).values
    torch.testing.assert_close(moved, slow_rows(generator, w) + rows.float())


def test_rows_of_an_inverted_image_move_by_what_their_mean_moves(generator, w):
    image = torch.randn(SAMPLES, CONFIG.num_ws, CONFIG.w_dim)
    mean = image.mean(1)
    walk = walk_of(mean, mean + MOVE)
    walk.latent = image
    moved = LayeredEditor(Line(layers=EDITED), generator).codes(walk).values - image
    expected = torch.zeros(CONFIG.num_ws, 1)
    expected[2] = PSI
    expected[3:5] = 1.0
    torch.testing.assert_close(moved, (expected * MOVE).expand(SAMPLES, -1, -1))


def test_a_flow_of_each_row_is_refused_where_the_rows_are_truncated(generator):
    smile = Attributes([Attribute("smile", ("no", "yes"))])
    with pytest.raises(Unsupported, match=r"w_plus .*cutoff.*method\.space=w, with"):
        NeuralODE(space="w_plus").check(generator, smile, "smile")
    NeuralODE(space="w", layers=EDITED).check(generator, smile, "smile")
    # A cutoff that truncates nothing leaves every row a w.
    for options in ({}, {"truncation_psi": PSI}, {"truncation_cutoff": CUTOFF}):
        plain = StyleGAN2Generator(generator.network, **options)
        NeuralODE(space="w_plus").check(plain, smile, "smile")


def test_an_editor_that_was_not_bound_says_so(w):
    with pytest.raises(EditbenchError, match=r"editor.bind\(generator\)"):
        Line(layers=EDITED).codes(walk_of(w, w))


def test_an_editor_that_does_not_call_its_base_class_edits_every_row(
    generator: StyleGAN2Generator,
) -> None:
    editor = Forgetful()
    editor.bind(generator)
    editor.check(generator, Attributes([Attribute("smile", ("no", "yes"))]), "smile")
    assert editor.rows("smile") is None
