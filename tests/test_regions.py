"""Region masks by the renderer, and the parser that learns them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.base.spaces import Codes, Space
from editbench.commands import world
from editbench.networks.weights import save_tensors
from editbench.worlds.faces import load_generator, load_parser, weights_path
from editbench.worlds.faces.factors import FactorLaw, Factors, sample_factors
from editbench.worlds.faces.regions import REGIONS, regions
from editbench.worlds.faces.renderer import Canvas, render
from editbench.worlds.parser import (
    KIND,
    ParserTraining,
    RegionParser,
    parser_quality,
    photometric,
    train_parser,
)
from tests.one_face import face


def share(labels: torch.Tensor, name: str) -> float:
    return (labels == REGIONS.index(name)).double().mean().item()


# -- masks -----------------------------------------------------------------------------------------
def test_masks_are_labels_and_a_face_does_not_depend_on_its_batch():
    factors = sample_factors(FactorLaw(), 1, 0, 6)
    labels = regions(factors, 32)
    assert labels.shape == (6, 32, 32) and labels.dtype == torch.int64
    assert 0 <= labels.min() and labels.max() < len(REGIONS)
    for i in range(6):
        alone = Factors(**{name: value[i : i + 1] for name, value in vars(factors).items()})
        assert (
            regions(alone, 32)[0] != labels[i]
        ).double().mean() < 1e-2  # a point on an edge may round
    whole = sample_factors(FactorLaw(), 1, 0, 300)
    seen = torch.bincount(regions(whole, 32, 2).flatten(), minlength=len(REGIONS))
    assert bool((seen > 0).all())


@pytest.mark.parametrize("trait, region", [("eyeglasses", "glasses"), ("beard", "beard")])
def test_a_trait_appears_at_its_own_threshold(trait, region):
    below, above = (share(regions(face(**{trait: amount}), 32), region) for amount in (0.48, 0.52))
    assert below == 0 and above > 0.004


def test_regions_lie_where_they_are_painted():
    labels = regions(face(eyeglasses=1.0, beard=1.0), 64)[0]
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")

    def centre(name: str) -> tuple[float, float]:
        mask = labels == REGIONS.index(name)
        return rows[mask].mean().item() / 32 - 1, columns[mask].mean().item() / 32 - 1

    heights = [centre(name)[0] for name in ("eyebrow", "eye", "nose", "mouth", "beard", "clothes")]
    assert heights == sorted(heights) and all(abs(centre(name)[1]) < 0.03 for name in REGIONS)
    assert centre("eye")[0] == pytest.approx(-0.06, abs=0.02)
    assert centre("mouth")[0] == pytest.approx(0.36, abs=0.03)
    # An area in closed form: two ellipses of half-axes 0.095 and 0.065 (nearly flat near the middle of the head).
    bare = share(regions(face(), 64), "eye") * 4
    assert bare == pytest.approx(2 * 3.1416 * 0.095 * 0.065, rel=0.15)
    assert share(regions(face(smile=1.0), 64), "mouth") > 2 * share(
        regions(face(smile=0.0), 64), "mouth"
    )
    assert share(regions(face(long_hair=1.0), 64), "hair") > 1.3 * share(
        regions(face(), 64), "hair"
    )


def test_a_pixel_takes_the_majority_of_its_points():
    factors = sample_factors(FactorLaw(), 4, 0, 3)
    points = regions(factors, 128, 1)
    coarse = regions(factors, 32, 4)
    for n, i, j in ((0, 10, 12), (1, 17, 16), (2, 20, 9)):
        cell = points[n, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten()
        assert coarse[n, i, j] == torch.bincount(cell, minlength=len(REGIONS)).argmax()


def test_pictures_are_blind_to_region_names(monkeypatch):
    factors = sample_factors(FactorLaw(), 6, 0, 4)
    plain, original = render(factors, 32), Canvas.paint
    monkeypatch.setattr(
        Canvas, "paint", lambda self, cover, color, region: original(self, cover, color, "skin")
    )
    assert torch.equal(render(factors, 32), plain)


# -- the parser ------------------------------------------------------------------------------------
def test_the_packed_parser_knows_the_regions_of_held_out_renders():
    assert weights_path("parser").stat().st_size < 1e6
    parser = load_parser()
    assert parser.names == REGIONS
    found = parser_quality(parser, 300, seed=77)
    assert found["all"]["found"] > 0.97 and found["all"]["iou"] > 0.85
    # docs/world.md has the numbers of 2,000 renders: 0.89 and more, and 0.80 and more.
    assert min(found[name]["iou"] for name in ("hair", "skin", "beard", "background")) > 0.86
    assert min(found[name]["iou"] for name in ("mouth", "eye", "glasses", "nose")) > 0.76


def test_on_generated_faces_regions_come_in_the_shares_of_renders():
    generator, parser = load_generator(), load_parser()
    z = torch.randn(100, generator.z_dim, generator=torch.Generator().manual_seed(3))
    pictures = generator.decode(Codes(Space.Z, z))
    generated, rendered = parser(pictures), regions(sample_factors(FactorLaw(), 8, 0, 100), 32, 2)
    for name in ("background", "hair", "skin", "clothes", "mouth", "eye"):
        assert share(generated, name) == pytest.approx(share(rendered, name), rel=0.35), name


def test_quality_against_a_parser_that_is_right_and_one_that_says_background():
    class Always(RegionParser):
        def forward(self, images):
            return torch.zeros(images.shape[0], 32, 32, dtype=torch.int64)

    found = parser_quality(Always(), 40)
    true = torch.cat([regions(sample_factors(FactorLaw(), 9_003, 0, 40, "parser/held-out"), 32)])
    assert found["all"]["found"] == pytest.approx(share(true, "background"))
    assert found["background"] == pytest.approx({"found": 1.0, "iou": share(true, "background")})
    assert found["hair"] == {"found": 0.0, "iou": 0.0}


def test_training_learns_and_repeats(tmp_path: Path):
    tiny = ParserTraining(faces=32, passes=6, batch=16, resolution=16)
    lines: list[str] = []
    one, again = train_parser(tiny, lines.append, 3), train_parser(tiny, lambda _: None)
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values())
    )
    losses = [float(line.split('"loss": ')[1].rstrip("}")) for line in lines]
    assert len(losses) == 4 and losses[-1] < losses[0]
    # Fewer faces than a batch are one, every pass; no step at all would leave the network as drawn.
    lines.clear()
    train_parser(replace(tiny, faces=10), lines.append, 1)
    assert len(lines) == tiny.passes
    one.save(tmp_path / "p.safetensors")
    read = RegionParser.from_file(tmp_path / "p.safetensors")
    images = render(sample_factors(FactorLaw(), 0, 0, 4), 32)
    assert torch.equal(read(images), one(images)) and read.names == one.names
    with pytest.raises(EditbenchError, match="multiples of 4"):
        read(images[:, :, :30])
    # As another version may have written it.
    for config in ({"name": ["sky"]}, {"names": ["sky"], "widths": [4, 4]}):
        save_tensors(tmp_path / "p.safetensors", one.state_dict(), KIND, config)
        with pytest.raises(BadFile, match=r"p.safetensors: its configuration"):
            RegionParser.from_file(tmp_path / "p.safetensors")


def test_the_command_trains_saves_and_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
):
    asked = []
    monkeypatch.setattr(
        "editbench.worlds.parser.train_parser",
        lambda options, log, device: asked.append(options) or RegionParser(),
    )
    monkeypatch.setattr(
        "editbench.worlds.parser.parser_quality",
        lambda parser: {"hair": {"found": 0.5, "iou": 0.25}},
    )
    assert world.main(["train-parser", "--out", str(tmp_path / "deep"), "--faces", "64"]) == 0
    assert asked == [ParserTraining(faces=64)]
    assert "hair       pixels found  50.00%, IoU 0.250" in capsys.readouterr().out
    load_parser(tmp_path / "deep" / "parser32.safetensors")
    with pytest.raises(BadFile, match="train-parser"):
        load_parser(tmp_path / "absent.safetensors")
    with pytest.raises(UnknownName, match="parser"):
        weights_path("paser")


def test_augmentation_leaves_the_pixels_where_they_are():
    images = render(sample_factors(FactorLaw(), 0, 0, 16), 32)
    random = torch.Generator().manual_seed(0)
    shown = photometric(images, random)
    assert shown.shape == images.shape and not torch.equal(shown, images) and shown.abs().max() <= 1
    assert torch.equal(shown, photometric(images, torch.Generator().manual_seed(0)))
    flat = lambda x: (x - x.mean((2, 3), keepdim=True)).flatten(1)  # noqa: E731
    here = torch.nn.functional.cosine_similarity(flat(shown), flat(images))
    assert here.min() > 0.9
    assert bool(
        (here > torch.nn.functional.cosine_similarity(flat(shown), flat(images.roll(2, 3)))).all()
    )
