"""The direction atlas: directions against the fits that use them, effects against a slow loop, the page in a browser."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.commands.atlas import main
from editbench.methods.ganspace import GANSpace
from editbench.methods.gradctrl import GradCtrl
from editbench.methods.navigan import NaviGAN
from editbench.methods.random_searched import RandomSearched
from editbench.methods.stylespace import RandomChannel, StyleSpace
from editbench.run.compose import compose_settings
from editbench.studies.atlas.bench import Bench, Measured, small_pictures
from editbench.studies.atlas.make import Atlas, AtlasDesign, both_ways, make_atlas
from editbench.studies.atlas.page import ROWS, page_rows, render_page, sprites
from editbench.studies.atlas.summary import best_directions, effect_table, summary_table
from editbench.walk.editor import DirectionSet
from tests.browser import dump_page, needs_browser
from tests.processes import forbid_locks
from tests.toy import fit_data
from tests.toy_world import ATTRIBUTES, DIM, ToyGenerator, ToyScorer, V

CONF = Path(__file__).parent / "conf"
TOY = ["generator=toy", "scorer=toy", "budget=toy", "attribute=a"]
SMALL = {"components": 5, "search_samples": 20}


# -- what editors give -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomSearched(**SMALL),
        lambda: GANSpace(samples=500, **SMALL),
        lambda: StyleSpace(candidates=3, samples=20),
        lambda: NaviGAN(layer="conv", count=5, samples=20),
    ],
    ids=["random_searched", "ganspace", "stylespace", "navigan"],
)
def test_directions_are_lines_that_start_at_the_sample(make):
    data = fit_data(dim=8)
    editor = make()
    assert editor.has_directions()
    found = editor.fixed_directions(data)
    assert len(set(found.names)) == len(found) > 2 and min(found.strengths) > 0
    assert all(len(tensor) == len(found) for tensor in found.tensors.values())
    codes = data.generator.lift(data.tune.w[:9], found.space)
    plain = data.generator.decode(Codes(found.space, codes))
    for place in (0, len(found) - 1):
        decoded = {}
        for strength in (-2.0, 0.0, 1.0, 2.0):
            edited = editor.apply_direction(found, place, strength, codes)
            decoded[strength] = data.generator.decode(edited)
        torch.testing.assert_close(decoded[0.0], plain, rtol=0, atol=1e-6)
        # The generator is linear, so that a line stays one.
        step = decoded[1.0] - plain
        assert step.norm() > 1e-3
        torch.testing.assert_close(decoded[2.0] - plain, 2 * step, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(decoded[-2.0] - plain, -2 * step, rtol=1e-3, atol=1e-4)
    # The same from an editor that is made anew, as after a stop.
    again = make().fixed_directions(data)
    for name, tensor in found.tensors.items():
        torch.testing.assert_close(again.tensors[name], tensor)


def test_directions_are_those_that_a_fit_chooses_among():
    data = fit_data(dim=8)
    editor = RandomSearched(**SMALL)
    report = editor.fit(data)
    found = RandomSearched(**SMALL).fixed_directions(data)
    for name, move in editor.moves.items():
        notes = report.notes[f"control.{name}"]
        for row, note in zip(move, notes.values()):
            expected = note["sign"] * found.tensors["moves"][note["component"]]
            torch.testing.assert_close(row, expected)
    editor = StyleSpace(candidates=3, samples=20)
    report = editor.fit(data)
    found = StyleSpace(candidates=3, samples=20).fixed_directions(data)
    for name, rows in editor.directions.items():
        note = report.notes[f"control.{name}"][0]
        place = found.names.index(note["channel"])
        torch.testing.assert_close(rows[1], note["sign"] * found.tensors["moves"][place])
    editor = NaviGAN(layer="conv", count=5, samples=20)
    report = editor.fit(data)
    found = NaviGAN(layer="conv", count=5, samples=20).fixed_directions(data)
    used = {
        note["candidate"]
        for name in data.attributes.names
        for note in report.notes.get(f"control.{name}", {}).values()
    }
    for kernel, place in zip(editor.kernels, sorted(used)):
        torch.testing.assert_close(kernel * editor.largest_shift, found.tensors["kernels"][place])


def test_channels_come_rank_by_rank():
    data = fit_data(dim=8)
    found = StyleSpace(candidates=3, samples=20).fixed_directions(data)
    best = StyleSpace(candidates=1, samples=20).fixed_directions(data)
    assert found.names[: len(best)] == best.names


def test_editors_without_a_fixed_set_say_so():
    for editor in (GradCtrl(), RandomChannel()):
        assert not editor.has_directions()
        with pytest.raises(Unsupported, match="no fixed set of directions"):
            editor.fixed_directions(fit_data(dim=8))


# -- effects ---------------------------------------------------------------------------------------
def toy_bench(n: int = 13, batch: int = 5, shown: int = 7, poison: float = float("inf")):
    latents = torch.randn(n, DIM, generator=torch.Generator().manual_seed(3))
    sigma = torch.linspace(0.5, 2.0, ATTRIBUTES.width).double()
    generator = ToyGenerator(poison)
    bench = Bench(generator, ToyScorer(), latents, Space.W, sigma, shown, batch)
    return bench, latents, sigma


def toy_directions(count: int = 3) -> DirectionSet:
    moves = 0.3 * torch.randn(count, DIM, generator=torch.Generator().manual_seed(4))
    bounds = torch.tensor([[0, 2]] * count)
    names = tuple(map(str, range(count)))
    return DirectionSet(names, (1.0,), "steps", Space.W, {"moves": moves, "bounds": bounds})


def toy_editor() -> RandomSearched:
    editor = RandomSearched()
    editor.bind(ToyGenerator())
    return editor


def test_effects_against_a_slow_loop():
    bench, latents, sigma = toy_bench()
    found = toy_directions()
    strengths = (-1.5, 0.7)
    measured = bench.measure(toy_editor(), found, 1, strengths)
    for at, strength in enumerate(strengths):
        changes = []
        distances = []
        for sample in latents:
            moved = sample + strength * found.tensors["moves"][1]
            odds = []
            for code in (sample, moved):
                logits = (code @ V).double()
                many = [
                    logits[k] - torch.logsumexp(logits[[j for j in (2, 3, 4) if j != k]], 0)
                    for k in (2, 3, 4)
                ]
                odds.append(torch.stack([logits[0], logits[1], *many]))
            changes.append((odds[1] - odds[0]) / sigma)
            distances.append(float(np.sqrt(np.mean((moved - sample).numpy() ** 2))))
        change = torch.stack(changes).numpy()
        np.testing.assert_allclose(measured.change[at], change.mean(0), atol=1e-5)
        spread = change.std(0, ddof=1) / np.sqrt(len(change))
        np.testing.assert_allclose(measured.error[at], spread, atol=1e-5)
        np.testing.assert_allclose(measured.size[at], np.abs(change).mean(0), atol=1e-5)
        assert float(measured.distance[at]) == pytest.approx(np.mean(distances), abs=1e-6)
        images = (latents[:7] + strength * found.tensors["moves"][1]).reshape(-1, 1, 2, 4)
        expected = torch.round((images.clamp(-1, 1) + 1) * 127.5)
        gap = measured.pictures[at].float() - expected
        assert measured.pictures.dtype == torch.uint8 and gap.abs().max() <= 1


def test_the_unedited_samples_are_decoded_once():
    bench, latents, _ = toy_bench()
    assert bench.generator.decoded == len(latents)
    found = toy_directions()
    for place in range(3):
        bench.measure(toy_editor(), found, place, (-1.0, 1.0))
    assert bench.generator.decoded == len(latents) * (1 + 3 * 2)


def test_a_broken_picture_has_no_effect_and_is_grey():
    bench, _, _ = toy_bench(poison=2.0)
    measured = bench.measure(toy_editor(), toy_directions(), 0, (-50.0, 50.0))
    broken = measured.distance.isnan()
    assert bool(broken.any()) and bool(measured.change[broken].isnan().all())
    grey = small_pictures(torch.full((1, 3, 4, 4), float("nan")))
    assert grey.unique().tolist() == [128]


def test_large_pictures_are_made_small():
    assert small_pictures(torch.zeros(2, 3, 512, 256)).shape == (2, 3, 128, 64)
    assert small_pictures(torch.zeros(2, 1, 32, 32)).shape == (2, 1, 32, 32)


# -- tables and page -------------------------------------------------------------------------------
NAME = "</script><b>x"
NAMED = Attributes([Attribute("smile", ("no", "yes")), Attribute("kind", ("x", "y", "z"))])


def made_atlas(count: int = 3, side: int = 16) -> Atlas:
    """Effects that are known: direction 0 moves smile both ways, 1 breaks, 2 moves kind:z."""
    rng = np.random.default_rng(0)
    change = torch.zeros(count, 4, NAMED.width, dtype=torch.float64)
    change[0, :, 0] = torch.tensor([-1.0, -0.6, 0.8, 1.2], dtype=torch.float64)
    change[1] = torch.nan
    change[2, :, 3] = torch.tensor([0.1, 0.0, 0.4, -0.9], dtype=torch.float64)
    size = change.abs() + 0.25
    shape = (count, 4, 2, 3, side, side)
    pictures = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    unedited = torch.from_numpy(rng.integers(0, 256, (2, 3, side, side), dtype=np.uint8))
    distance = torch.arange(4 * count, dtype=torch.float64).reshape(count, 4) / 100
    measured = Measured(change, change.abs() / 10, size, distance, pictures)
    names = (NAME, *map(str, range(1, count)))
    return Atlas(
        "made",
        names,
        (-2.0, -1.0, 1.0, 2.0),
        "steps",
        NAMED,
        (41, 42),
        unedited,
        measured,
        {"seed": "0"},
    )


def test_summary_looks_at_both_ends():
    table = summary_table(made_atlas()).set_index("place")
    first = table.loc[0]
    assert (first["strongest"], first["effect"], first["strength"]) == ("smile", 1.2, 2.0)
    # Off-target of smile: the mean over the three classes of the other attribute.
    assert first["off_target"] == pytest.approx(0.25)
    assert first["ratio"] == pytest.approx(1.2 / 0.25)
    assert (first["smile:low"], first["smile:high"]) == (-1.0, 1.2)
    assert first["distance"] == pytest.approx(0.03)
    last = table.loc[2]
    assert (last["strongest"], last["effect"], last["strength"]) == ("kind:z", -0.9, 2.0)
    assert last["off_target"] == pytest.approx(0.25)
    assert np.isnan(table.loc[1, "effect"])


def test_the_best_direction_of_each_side():
    best = best_directions(made_atlas(), 0.5).set_index(["attribute", "side"])
    up = best.loc[("smile", 1)]
    assert (up["direction"], up["strength"], up["effect"]) == (NAME, 2.0, 1.2)
    assert best.loc[("kind:z", -1), "direction"] == "2"
    # An effect below the least is told, and no direction is named.
    weak = best.loc[("kind:z", 1)]
    assert (weak["direction"], weak["effect"], weak["strength"]) == ("", 0.4, 1.0)


def test_every_effect_stands_in_the_table():
    atlas = made_atlas()
    table = effect_table(atlas)
    assert len(table) == 3 * 4 and table["strength"].tolist()[:4] == list(atlas.strengths)
    row = table[(table["place"] == 0) & (table["strength"] == -1)].iloc[0]
    assert row["smile"] == pytest.approx(-0.6) and row["smile_error"] == pytest.approx(0.06)


def decode(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_cells_of_the_sprites_are_the_pictures():
    atlas = made_atlas(count=ROWS + 2, side=8)
    blocks = sprites(atlas)
    assert [sheet[0].rows for sheet in blocks.values()] == [ROWS, 2]
    for place in (0, ROWS - 1, ROWS + 1):
        block, row = divmod(place, ROWS)
        for k in range(2):
            pixels = decode(blocks[f"{block:05d}"][k].uri)
            edited = atlas.measured.pictures[place, :, k]
            expected = [edited[0], edited[1], atlas.unedited[k], edited[2], edited[3]]
            for column, image in enumerate(expected):
                cell = pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                np.testing.assert_array_equal(cell, image.numpy().transpose(1, 2, 0))
    frames = page_rows(atlas, blocks)[0].strips[0][2]
    captions = [frame.caption for frame in frames]
    assert captions == ["−2", "−1", "unedited", "+1", "+2"]


def test_the_page_needs_no_other_file():
    html = render_page(made_atlas())
    assert NAME not in html and "&lt;b&gt;x" in html
    assert not re.search(r"(src|href)=\"(?!data:)", html) and "http" not in html
    uris = re.findall(r"data:image/\w+;base64,[^)\"]+", html)
    assert len(uris) == len(set(uris)) == 2  # a sprite a sample


PROBE = """<script>
const out = document.createElement("pre"), table = document.querySelector("table.sortable");
const say = (name, value) => out.append(`${name}=${value};`);
const order = () => [...table.tBodies[0].rows].map(row => Number(row.cells[0].dataset.v)).join(",");
const heads = [...table.tHead.rows[0].cells];
const click = at => heads[at].querySelector("button").click();
say("heads", heads.map(head => head.querySelector("button").textContent).join("|"));
say("start", order());
click(1); say("strongest", order()); click(1); say("weakest", order());
click(4); say("distance", order()); click(5); say("smile", order()); click(8); say("kind", order());
click(0); say("back", order());
const visible = () => [...document.querySelectorAll(".strip")].filter(strip => strip.offsetHeight > 0);
say("strips", visible().length); say("frames", visible()[0].children.length);
say("sprite", visible()[0].querySelector(".pic").className);
const pick = value => { chosen.value = value; chosen.dispatchEvent(new Event("change")); };
pick("1"); say("other", visible()[0].querySelector(".pic").className);
pick(""); say("all", visible().length);
say("image", getComputedStyle(document.querySelector(".pic")).backgroundImage.slice(0, 25));
say("errors", window.failures.length); document.body.append(out);
</script>"""


@needs_browser
def test_the_page_sorts_in_a_browser(tmp_path):
    run = dump_page(render_page(made_atlas()), PROBE, tmp_path)
    found = dict(re.findall(r"(\w+)=([^;]*);", run.stdout[run.stdout.rindex("<pre>") :]))
    assert found["errors"] == "0" and "CONSOLE" not in run.stderr
    assert found["heads"].split("|") == [
        *["direction", "strongest", "others", "ratio", "distance", "smile"],
        *["kind:x", "kind:y", "kind:z"],
    ]
    assert found["start"] == found["back"] == "0,1,2"
    # Direction 1 is broken: it has no effect, and stays last whichever way is sorted.
    assert (found["strongest"], found["weakest"]) == ("0,2,1", "2,0,1")
    assert found["distance"] == "2,1,0"
    assert (found["smile"], found["kind"]) == ("0,2,1", "2,0,1")
    assert (found["strips"], found["frames"], found["all"]) == ("3", "5", "6")
    assert found["sprite"] != found["other"] and found["image"].startswith('url("data:image/png')


# -- the command -----------------------------------------------------------------------------------
def toy_words(tmp_path: Path, method: str = "random_searched") -> list[str]:
    place = [f"out={tmp_path}", f"cache={tmp_path}/cache"]
    options = ["method.components=4"] if method == "random_searched" else []
    return [*TOY, f"method={method}", *options, *place]


def test_the_command_writes_page_and_table(tmp_path, capsys):
    out = tmp_path / "atlas"
    words = [*toy_words(tmp_path), "--config-dir", str(CONF), "--out", str(out)]
    words += ["--samples", "20", "--shown", "2", "--strengths", "1,2", "--directions", "3"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "3 of 4 directions of random_searched" in text and "index.html" in text
    table = pd.read_csv(out / "atlas.csv")
    assert sorted(table["strength"].unique()) == [-2, -1, 1, 2] and len(table) == 3 * 4
    # The generator and the logits are linear: the effect is, too.
    wide = table.pivot(index="place", columns="strength", values="a")
    np.testing.assert_allclose(wide[2], 2 * wide[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(wide[-1], -wide[1], rtol=1e-3, atol=1e-4)
    html = (out / "index.html").read_text(encoding="utf-8")
    assert html.count('class="strip"') == 3 * 2


def test_a_stopped_atlas_goes_on(tmp_path, monkeypatch):
    settings = compose_settings(toy_words(tmp_path), [CONF])
    design = AtlasDesign(samples=20, shown=2)
    measure = Bench.measure
    calls = []

    def counted(self, editor, found, place, strengths):
        calls.append(place)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, editor, found, place, strengths)

    monkeypatch.setattr(Bench, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        make_atlas(settings, design)
    calls.append(-1)  # so that the third call is behind
    monkeypatch.setattr(RandomSearched, "fixed_directions", None)  # not found a second time
    monkeypatch.setattr(RandomSearched, "has_directions", lambda self: True)
    forbid_locks(tmp_path / "cache")  # what is found is read where nothing may be locked
    atlas = make_atlas(settings, design)
    assert calls == [0, 1, 2, -1, 2, 3]
    # A damaged part is measured again, the others are not.
    part = next((tmp_path / "cache" / "atlas").glob("*/00001.safetensors"))
    part.write_bytes(part.read_bytes()[:-9])
    again = make_atlas(settings, design)
    assert calls == [0, 1, 2, -1, 2, 3, 1]
    torch.testing.assert_close(again.measured.change, atlas.measured.change)


def test_teacher_and_judge_see_other_samples(tmp_path):
    settings = compose_settings(toy_words(tmp_path), [CONF])
    taught = make_atlas(settings, AtlasDesign(samples=4, shown=1))
    judged = make_atlas(settings, AtlasDesign(samples=4, shown=1, scorer="judge"))
    # Of 1000 samples 600 are to fit and 100 to tune.
    assert (taught.index, judged.index) == ((600,), (700,))


def test_wrong_requests_are_named(tmp_path):
    with pytest.raises(Unsupported, match=r"method=along has no fixed set.*ganspace, .*stylespace"):
        make_atlas(compose_settings(toy_words(tmp_path, "along"), [CONF]), AtlasDesign())
    settings = compose_settings(toy_words(tmp_path), [CONF])
    with pytest.raises(EditbenchError, match=r"tune split of bank\.n=1000 has 100: raise bank\.n"):
        make_atlas(settings, AtlasDesign(samples=101))
    for wrong in (
        {"directions": 0},
        {"samples": 1},
        {"shown": 0},
        {"shown": 65},
        {"strengths": ()},
        {"strengths": (1.0, -2.0)},
        {"strengths": (float("nan"),)},
        {"scorer": "nobody"},
    ):
        with pytest.raises(EditbenchError, match=next(iter(wrong))):
            AtlasDesign(**wrong)
    with pytest.raises(EditbenchError, match="--strengths one must be numbers"):
        main([*toy_words(tmp_path), "--strengths", "one"])
    assert both_ways((2.0, 1.0, 2.0)) == (-2.0, -1.0, 1.0, 2.0)
