"""Pictures of the page: sprites against the records' pixels, the explorer in a browser, the size of
the page.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from editbench.base.files import seal_folder
from editbench.figures.theme import make_theme
from editbench.report import load
from editbench.report.explorer import WAYS, SpriteSheet, explorer, gallery, sheets
from editbench.report.files import write_pages
from editbench.report.paper import TALLEST, WIDTHS
from editbench.report.strips import Strip, pages, strips
from editbench.report.style import Style
from editbench.report.templates import OUTLINES
from tests.browser import dump_page, needs_browser
from tests.fake_records import fake_run, report_of

ATTRIBUTES, METHODS, LIMIT = 7, 16, 25_000_000
NAME = "</script><b>alpha"


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def decode(sheet: SpriteSheet) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(sheet.uri.split(",")[1]))))


def made_strip(method: str, images: np.ndarray) -> Strip:
    count = len(images)
    return Strip(
        method, 5, images, np.arange(count), 0.3 * np.arange(count), np.arange(count) > 2, 3
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """alpha and beta with pictures (beta's walks shorter), gamma without, delta skipped."""
    folder = tmp_path_factory.mktemp("runs")
    for attribute in ("smile", "age"):
        one = fake_run(
            folder, "alpha", attribute, pictures=noise(2, 6, 3, 16, 16, seed=len(attribute))
        )
        arrays = load_file(one / "strips.safetensors")
        arrays["crossed"][:] = [False, False, True, True, False, True]  # back at the fifth
        arrays["effect"][0, 5] = np.nan
        save_file(arrays, one / "strips.safetensors")
        seal_folder(one)
        fake_run(folder, "beta", attribute, pictures=noise(2, 4, 3, 16, 16, seed=1))
    fake_run(folder, "gamma", "smile")
    fake_run(folder, "delta", "smile", status="skipped", reason=f"no control found {NAME}")
    report_of(folder)
    return folder


def test_cells_of_a_sprite_are_the_pictures() -> None:
    images = {name: noise(c, 3, 16, 16, seed=c).numpy() for name, c in (("a", 5), ("b", 3))}
    made = sheets([{"smile": {5: [made_strip(name, one) for name, one in images.items()]}}])[0][
        "smile"
    ][0]
    pixels = decode(made)
    assert made.uri.startswith("data:image/png")
    assert (made.columns, made.rows, made.shape) == (
        5,
        2,
        (16, 16),
    )
    for row, one in enumerate(images.values()):
        for column, image in enumerate(one):
            cell = pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            np.testing.assert_array_equal(cell, image.transpose(1, 2, 0))


def test_places_are_those_of_css() -> None:
    """background-position p % puts p % of the picture over p % of the box: offset = p * (box -
    picture).
    """
    made = SpriteSheet("sp", "", columns=5, rows=3, shape=(16, 16))
    for row in range(3):
        for column in range(5):
            x, y = (float(part.rstrip("%")) / 100 for part in made.place(row, column).split())
            assert x * (1 - 5) == pytest.approx(-column) and y * (1 - 3) == pytest.approx(-row)
    assert SpriteSheet("sp", "", 1, 1, (16, 16)).place(0, 0) == "0% 0%"


@pytest.mark.parametrize(("side", "channels"), [(32, 3), (128, 3), (100, 1), (1024, 3)])
def test_sprites_keep_to_the_budget(side: int, channels: int) -> None:
    count = 2 if side == 1024 else 6
    starts = {
        k: [made_strip(name, noise(count, channels, side, side, seed=k).numpy()) for name in "ab"]
        for k in range(2)
    }
    whole = sheets([{"smile": starts}])[0]["smile"]
    assert all(("png" in sheet.uri[:20]) == (side <= 64) for sheet in whole)
    size = sum(len(sheet.uri) for sheet in whole)
    budget = 2 * size // 3
    small = sheets([{"smile": starts}], budget)[0]["smile"]
    assert sum(len(sheet.uri) for sheet in small) <= budget and "jpeg" in small[0].uri[:20]
    high, wide = small[0].shape
    assert decode(small[0]).shape[:2] == (2 * high, count * wide) and high % 8 == 0


def test_jpeg_cells_do_not_bleed() -> None:
    images = np.zeros((4, 3, 128, 128), np.uint8)
    images[::2] = 255
    pixels = decode(sheets([{"a": {0: [made_strip("m", images)]}}])[0]["a"][0]).astype(int)
    assert [int(np.ptp(pixels[:, 128 * k : 128 * k + 128])) for k in range(4)] == [0, 0, 0, 0]


def test_sixteen_methods_on_seven_attributes_fit(tmp_path: Path) -> None:
    """Pure noise, which nothing compresses, is the worst case: 4 starts of 8 frames."""
    found = {
        f"attribute {a}": {
            k: [
                made_strip(f"m{m:02d}", noise(8, 3, 32, 32, seed=a + k + m).numpy())
                for m in range(METHODS)
            ]
            for k in range(4)
        }
        for a in range(ATTRIBUTES)
    }
    made = sheets([found])[0]
    rows = json.dumps(gallery(made))
    assert (
        sum(len(sheet.uri) for group in made.values() for sheet in group) + 3 * len(rows)
        < LIMIT - 8_000_000
    )
    assert WAYS[-1].side >= 32


def test_data_of_the_explorer(root: Path) -> None:
    results = load(root)
    theme = make_theme(["alpha", "beta", "delta", "gamma"])
    made = sheets([strips(results, theme)[0]])[0]
    data = explorer(made, results.runs, theme, OUTLINES)
    assert [one["name"] for one in data["methods"]] == ["alpha", "beta", "delta", "gamma"]
    assert [one["name"] for one in data["attributes"]] == ["smile", "age"]
    # Unless an order was asked for.
    ordered = sheets([strips(results, theme)[0]], first="")[0]
    assert list(ordered) == ["age", "smile"]
    smile = data["attributes"][0]["starts"][0]
    alpha, beta, delta, gamma = smile["methods"]
    assert alpha["crossed"] == [False, False, True, True, False, True]
    assert alpha["effects"][5] is None
    assert alpha["steps"] == [0, 1, 2, 3, 4, 5]
    assert len(beta["steps"]) == 4
    assert (alpha["row"], beta["row"]) == (0, 1)
    assert "no control found" in delta["why"] and gamma["why"] == "no images of this start"
    json.loads(json.dumps(data, allow_nan=False))


def test_pictures_stand_once_in_the_page(root: Path) -> None:
    html = (root / "report" / "index.html").read_text(encoding="utf-8")
    uris = re.findall(r"data:image/\w+;base64,[^)\"]+", html)
    assert len(uris) == len(set(uris)) == 4  # two attributes, two starts
    assert NAME not in html and "<b>alpha" not in html


@pytest.mark.parametrize(("starts", "methods", "pages_made"), [(1, 17, 3), (4, 3, 2)])
def test_strips_in_files_are_no_taller_than_a_page(
    starts: int, methods: int, pages_made: int
) -> None:
    """Every strip has a colour of its own, so that each can be found on the pages."""
    names = [f"m{k:02d}" for k in range(methods)]
    found = {}
    colours = []
    for start in range(starts):
        found[start] = []
        for k, name in enumerate(names):
            colours.append((10 + 12 * k, 200, 40 + 30 * start))
            images = np.broadcast_to(np.array(colours[-1], np.uint8)[:, None, None], (8, 3, 8, 8))
            found[start].append(made_strip(name, images))
    ratio = TALLEST / WIDTHS["two"]
    made = pages(found, "smile", make_theme(names), ratio)
    seen = []
    for one in made:
        pixels = np.array(Image.open(io.BytesIO(one)))
        assert pixels.shape[0] <= ratio * pixels.shape[1]
        # A column of pixels through the middle of the last frames.
        column = [tuple(pixel) for pixel in pixels[:, pixels.shape[1] - 60]]
        seen += [colour for colour in dict.fromkeys(column) if colour in colours]
    assert seen == colours and len(made) == pages_made
    assert len(pages(found, "smile", make_theme(names))) == 1


def test_a_shorter_report_leaves_no_page_of_a_longer_one(tmp_path: Path) -> None:
    first = tmp_path / "strips_smile.png"
    for parts in ([b"1", b"2", b"3"], [b"4"], [b"5", b"6"]):
        write_pages(first, parts)
        names = ["strips_smile.png", "strips_smile_2.png", "strips_smile_3.png"][: len(parts)]
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == dict(
            zip(names, parts)
        )


def test_broken_and_missing_strips_keep_the_rest(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile", pictures=noise(1, 4, 3, 8, 8))
    broken = fake_run(tmp_path, "beta", "smile", pictures=noise(1, 4, 3, 8, 8))
    (broken / "strips.safetensors").write_bytes(b"half a fi")
    half = tmp_path / "gamma-smile-s0-0123456789"
    half.mkdir()
    (half / "status.json").write_text(
        '{"status": "done", "method": "gamma", "attribute": "smile", "generator": "g"}'
    )
    html = report_of(tmp_path).read_text(encoding="utf-8")
    assert 'class="explorer"' in html
    assert broken.name in html
    assert half.name in html
    assert "no images of" in html


def test_mixed_worlds_have_an_explorer_each(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile", pictures=noise(1, 4, 3, 8, 8), generator="faces32")
    fake_run(
        tmp_path, "alpha", "smile", pictures=noise(1, 4, 1, 28, 28), generator="digits", tag="b"
    )
    html = report_of(tmp_path).read_text(encoding="utf-8")
    assert html.count('class="explorer"') == 2
    assert {".sp-0-0-0 {", ".sp-1-0-0 {"} <= set(re.findall(r"\.sp-[\d-]+ \{", html))


def test_the_start_that_most_methods_carry_over_the_boundary_is_shown_first() -> None:
    images = noise(5, 3, 16, 16).numpy()
    never = dataclasses.replace(made_strip("b", images), crossing=None)
    starts = {
        3: [made_strip("a", images), never],
        9: [made_strip("a", images), made_strip("b", images)],
    }
    found = sheets([{"smile": starts}])[0]
    runs = pd.DataFrame({"label": ["a", "b"], "attribute": "smile"})
    theme = make_theme(["a", "b"])
    assert explorer(found, runs, theme, OUTLINES)["attributes"][0]["first"] == 1
    assert explorer(found, runs, theme, OUTLINES, ["b"])["attributes"][0]["first"] == 0


def test_of_starts_that_all_methods_carry_over_the_one_with_the_largest_effect_is_first() -> None:
    images = noise(5, 3, 16, 16).numpy()

    def crossed_at(*effects: float) -> list:
        made = (made_strip(name, images) for name in "abc")
        return [
            dataclasses.replace(strip, crossing=1, effect=np.array([0.0, at, 3.0, 3.0, 3.0]))
            for strip, at in zip(made, effects)
        ]

    # One method that crosses late does not decide.
    starts = {
        3: crossed_at(0.2, 0.2, 2.5),
        9: crossed_at(0.5, 0.6, 0.7),
        12: crossed_at(0.3, 0.3, 0.3),
    }
    found = sheets([{"smile": starts}])[0]
    runs = pd.DataFrame({"label": list("abc"), "attribute": "smile"})
    shown = explorer(found, runs, make_theme(list("abc")), OUTLINES)
    assert shown["attributes"][0]["first"] == 1


def test_the_explorer_follows_the_order_that_was_chosen(root: Path, tmp_path: Path) -> None:
    style = Style(attributes=("age", "smile"))
    html = report_of(root, tmp_path, ["none"], style=style).read_text(encoding="utf-8")
    found = html.index('"attributes": [{"first"')
    assert html.index('"name": "age"', found) < html.index('"name": "smile"', found)


def test_no_pictures_no_explorer(tmp_path: Path) -> None:
    fake_run(tmp_path, "alpha", "smile")
    assert 'class="explorer"' not in report_of(tmp_path).read_text(encoding="utf-8")


PROBE = """<script>
const out = document.createElement("pre"), box = document.querySelector(".explorer");
const say = (name, value) => out.append(`${name}=${value};`);
const cards = () => [...box.querySelectorAll(".card")];
const seen = () => cards().map(card => card.querySelector(".pic")?.style.backgroundPosition || "none").join("|");
const words = () => cards().map(card => [...card.querySelectorAll(":scope > span:not(.pic)")].map(s => s.textContent)
  .join("/")).join("|");
const slider = box.querySelector("input"), roles = name => box.querySelector(`[data-role=${name}]`);
const slide = value => { slider.value = value; slider.dispatchEvent(new Event("input")); };
const pick = (name, value) => { roles(name).value = value; roles(name).dispatchEvent(new Event("change")); };
const link = [...document.querySelectorAll("td a")].at(-1);
link.click(); say("linked", roles("attribute").selectedOptions[0].text === link.dataset.attribute);
pick("attribute", 1); say("cross", seen());
say("hidden", getComputedStyle(slider.parentElement).display); pick("mode", "walk");
say("shown", getComputedStyle(slider.parentElement).display);
say("outlines", new Set(cards().slice(1).map(card => card.querySelector("svg path").getAttribute("d"))).size);
say("paper", getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]);
say("max", slider.max); slide(0); say("zero", seen()); slide(5); say("end", seen()); say("endwords", words());
slide(4); say("back", words());
pick("start", 1); say("title", cards()[0].lastChild.textContent);
say("sprite", [...cards()[1].querySelector(".pic").classList].join(" "));
say("image", getComputedStyle(cards()[1].querySelector(".pic")).backgroundImage.slice(0, 25));
pick("mode", "effect"); say("emax", slider.max); slide(9); say("matched", words());
slider.focus(); say("focus", document.activeElement === slider);
say("labels", [...box.querySelectorAll("select, input")].every(e => e.labels.length || e.ariaLabel));
const table = document.querySelector("table[data-ranking]");
const order = () => [...table.tBodies[0].rows].map(row => row.cells[1].dataset.v).join(",");
const button = table.tHead.rows[0].cells[1].firstElementChild;
button.click(); say("up", order()); button.click(); say("down", order());
say("errors", window.failures.length); document.body.append(out);
</script>"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_explorer_in_a_browser(root: Path, tmp_path: Path, scheme: str) -> None:
    html = (root / "report" / "index.html").read_text(encoding="utf-8")
    blink = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    run = dump_page(html, PROBE, tmp_path, blink)
    found = dict(re.findall(r"(\w+)=([^;]*);", run.stdout[run.stdout.rindex("<pre>") :]))
    assert found["errors"] == "0" and "CONSOLE" not in run.stderr
    # source, alpha, beta, delta (skipped), gamma (no pictures); six columns, two rows. Both cross at
    # their third frame, and the slider has no say there.
    assert found["cross"] == "0% 0%|40% 0%|40% 100%|none|none"
    assert found["hidden"] == "none" and found["shown"] == "flex"
    assert found["linked"] == "true" and found["outlines"] == "4"
    assert found["max"] == "5" and found["zero"] == "0% 0%|0% 0%|0% 100%|none|none"
    assert found["end"] == "0% 0%|100% 0%|60% 100%|none|none"
    assert found["endwords"].split("|")[1:3] == [
        "not finite · step 5/judge: crossed",
        "+0.9 σ · step 3/judge: crossed",
    ]
    assert found["back"].split("|")[1] == "+1.2 σ · step 4/crossed, then back"
    assert found["title"] == "start 41" and found["sprite"].split()[1] == "sp-0-1-1"
    assert found["image"].startswith('url("data:image/png')
    assert found["paper"] == {"light": "255", "dark": "20"}[scheme]
    # the largest finite effect is 1.5 σ in the second start; at 0.9 σ both are at their fourth
    # frame
    assert found["emax"] == "15"
    assert found["matched"].split("|")[1:3] == [
        "+0.9 σ · step 3/judge: crossed",
        "+0.9 σ · step 3/judge: crossed",
    ]
    assert found["focus"] == "true" and found["labels"] == "true"
    assert (
        found["up"].split(",") == sorted(found["up"].split(",")) == found["down"].split(",")[::-1]
    )
