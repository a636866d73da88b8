"""The wizard against planted faults: wrong range, flipped sign, constant head, probabilities, NaN; and bad YAML."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from editbench.bank.importing import read_attributes
from editbench.base import batches
from editbench.base.attributes import Attribute, Attributes
from editbench.base.conf import read_yaml
from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.base.instantiate import build
from editbench.cli import main
from editbench.commands.scorer import as_json, pictures_at_once
from editbench.networks.scorers.config_file import keys_of, read_scorers, scorer_file
from editbench.networks.scorers.exported import FileScorer
from editbench.networks.scorers.module import ModuleScorer
from editbench.run.compose import compose_config
from editbench.studies.scorer_check.agreement import compare
from editbench.studies.scorer_check.checkup import (
    Checkup,
    RangeTrial,
    correlations,
    examine,
    examine_logits,
    find_better_range,
    information,
    measure_range,
    try_inputs,
)
from editbench.studies.scorer_check.page import draw_sheet, picture_sections
from editbench.studies.scorer_check.sources import FolderPictures, Generated
from editbench.worlds.faces import load_scorer
from tests.data_folder import DATA, needs_data

N = 64
FACES = Attributes(
    [Attribute("smile", ("neutral", "smiling")), Attribute("hair", ("black", "blond", "red"))]
)


class Face(nn.Module):
    """A face scorer whose first outputs can be spoiled; takes [-1, 1]."""

    def __init__(self, spoil: str = "") -> None:
        super().__init__()
        judge = load_scorer("judge")
        self.trunk, self.neck, self.head, self.spoil = judge.trunk, judge.neck, judge.head, spoil

    def forward(self, images: Tensor) -> Tensor:
        out = self.head(nn.functional.silu(self.neck(self.trunk(images).flatten(1))))
        if self.spoil == "flip":
            return torch.cat([-out[:, :1], out[:, 1:]], 1)
        if self.spoil == "constant":
            return torch.cat([out[:, :1], 0 * out[:, 1:2] + 3, out[:, 2:]], 1)
        if self.spoil == "probabilities":
            return out[:, :5].sigmoid()
        if self.spoil == "nan":
            return torch.where(images.mean((1, 2, 3))[:, None] > 0.15, torch.nan, out)
        return out


@lru_cache
def scripted(spoil: str) -> bytes:
    with torch.no_grad():
        network = torch.jit.trace(Face(spoil).eval(), torch.zeros(2, 3, 32, 32), check_trace=False)
    return network.save_to_buffer()


@lru_cache
def configuration() -> dict[str, Any]:
    return OmegaConf.to_container(compose_config([]), resolve=False)


def declare(folder: Path, spoil: str = "", **changed: object) -> Path:
    """The YAML of a scorer whose teacher is the embedded one and whose judge is a spoiled file."""
    (folder / f"face{spoil}.pt").write_bytes(scripted(spoil))
    attributes = load_scorer("judge").attributes.as_config()
    if spoil == "probabilities":
        attributes = attributes[:5]
    file = {
        "_target_": "editbench.networks.scorers.exported.FileScorer",
        "path": str(folder / f"face{spoil}.pt"),
        "input_size": [32, 32],
        "attributes": [{k: v for k, v in item.items()} for item in attributes],
    } | changed
    path = folder / "mine.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "mine",
                "about": "a test",
                "teacher": {"_target_": "editbench.worlds.faces.load_scorer", "role": "teacher"},
                "judge": file,
            }
            if spoil != "probabilities"
            else file
        )
    )
    return path


# -- planted faults --------------------------------------------------------------------------------
class Stored:
    """Faces that were generated once."""

    about = "stored faces"

    def __init__(self) -> None:
        generator = build(compose_config([]).generator).eval().requires_grad_(False)
        self.images = Generated(generator, N, "faces32")(range(N))

    def __len__(self) -> int:
        return N

    def __call__(self, numbers: object) -> Tensor:
        return self.images[list(numbers)]  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def faces() -> Stored:
    return Stored()


@pytest.fixture(scope="module")
def teacher(faces: Stored) -> Checkup:
    return examine(load_scorer("teacher"), "teacher", faces)


def judge(faces: Stored, folder: Path, spoil: str = "", **changed: object) -> Checkup:
    scorers = read_scorers(declare(folder, spoil, **changed), configuration())
    return examine(scorers.get("judge") or scorers["scorer"], "judge", faces)


def findings(checkup: Checkup, level: str) -> list[tuple[str, str]]:
    return [(item.where, item.text) for item in checkup.findings if item.level == level]


def test_a_good_scorer_has_no_findings(faces: Stored, teacher: Checkup, tmp_path: Path) -> None:
    checkup = judge(faces, tmp_path)
    assert checkup.findings == [] and teacher.findings == [] and checkup.worst == ""
    table, found = compare(teacher, checkup)
    assert (
        found == []
        and float(table["correlation"].min()) > 0.9
        and float(table["agreement"].min()) > 0.8  # of 64 pictures
    )
    assert teacher.ranges == [] and checkup.ranges[0].name == "[-1, 1], as declared"


@pytest.mark.parametrize("declared", [[0, 255], [0, 1]])
def test_a_wrong_range_is_seen(faces: Stored, tmp_path: Path, declared: list) -> None:
    checkup = judge(faces, tmp_path, input_range=declared)
    assert any(
        where == ""
        and "may be wrong: with it" in text
        and str([float(v) for v in declared]) in text
        for where, text in findings(checkup, "warning")
    )


def test_a_range_that_only_makes_logits_larger_is_no_better() -> None:
    """A linear head without a bias: another std scales its logits, which makes p more certain."""
    head = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    nn.init.normal_(head[1].weight, std=0.5, generator=torch.Generator().manual_seed(0))
    scorer = ModuleScorer(
        head,
        [{"name": "a", "classes": ["no", "yes"]}, {"name": "b", "classes": ["no", "yes"]}],
        input_size=(2, 2),
    )
    pictures = torch.rand(200, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    declared = measure_range("declared", scorer(pictures), scorer.attributes)
    scorer.std.mul_(0.1)
    larger = measure_range("larger", scorer(pictures), scorer.attributes)
    assert larger.information > declared.information + 0.1
    assert larger.scaled == pytest.approx(declared.scaled)
    assert find_better_range([declared, replace(larger, size=20.0)], scorer) == []
    better = replace(larger, size=20.0, scaled=declared.scaled + 0.02)
    assert "may be wrong" in find_better_range([declared, better], scorer)[0].text


class Brightest(nn.Module):
    """Whether the brightest value exceeds 1.2, which no image file does."""

    def forward(self, images: Tensor) -> Tensor:
        return images.amax((1, 2, 3)).sub(1.2)[:, None].expand(-1, 2)


class Overshooting:
    """Grey pictures, of which every fourth has one pixel beyond white."""

    about = "grey pictures"

    def __len__(self) -> int:
        return N

    def __call__(self, numbers: range) -> Tensor:
        images = torch.zeros(len(numbers), 3, 8, 8)
        images[3::4, 0, 0, 0] = 1.5
        return images


def test_classes_that_hang_on_values_beyond_white_are_seen() -> None:
    attributes = [{"name": name, "classes": ["dim", "bright"]} for name in ("one", "other")]
    found = examine(ModuleScorer(Brightest(), attributes, None), "judge", Overshooting())
    told = [item for item in found.findings if "cut off" in item.text]
    assert [item.where for item in told] == ["one", "other"]
    # One of the 192 values of every fourth picture.
    assert all(item.text.startswith("25.0% of the pictures") for item in told)
    assert "(0.1% of all)" in told[0].text


class CountedBatches(Overshooting):
    """The same pictures; the largest number that was asked for at once is kept."""

    largest = 0

    def __len__(self) -> int:
        return 300

    def __call__(self, numbers: range) -> Tensor:
        self.largest = max(self.largest, len(numbers))
        return super().__call__(numbers)


class CountingNetwork(Brightest):
    """Keeps the largest number of pictures that it was given at once."""

    largest = 0

    def forward(self, images: Tensor) -> Tensor:
        self.largest = max(self.largest, len(images))
        return super().forward(images)


def test_no_more_pictures_than_a_batch_are_in_memory() -> None:
    network = CountingNetwork()
    scorer = ModuleScorer(
        network, [{"name": "one", "classes": ["dim", "bright"]}], None, columns=[0]
    )
    network.largest = 0  # the checks when a scorer is made have batches of their own
    pictures = CountedBatches()
    found = examine(scorer, "judge", pictures, batch=5)
    assert network.largest == 5 and pictures.largest == 5
    # The first 256 pictures are tried, the last of their batches in part.
    told = [item.text for item in found.findings if "cut off" in item.text]
    assert len(told) == 1 and len(found.ranges) == 4


def test_without_a_batch_as_many_pictures_as_fit_are_scored_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = ModuleScorer(
        Brightest(), [{"name": "one", "classes": ["dim", "bright"]}], [8, 8], columns=[0]
    )
    pictures = Overshooting()
    found = []
    for free in (0, 1e12, 1e5):
        monkeypatch.setattr(batches, "free_memory", lambda device, free=free: free)
        found.append(pictures_at_once([scorer], pictures, "cpu"))
    # 0 is unknown. A picture of 768 bytes and its copy for the network need more than 1,152.
    assert found[:2] == [64, 64] and 1 <= found[2] < 0.25 * 1e5 / 1152


def test_the_numbers_are_json_that_every_reader_takes() -> None:
    """Of an attribute with one class only, kappa is undefined."""
    attributes = Attributes([Attribute("smile", ("neutral", "smiling"))])
    logits = torch.rand(100, 1, generator=torch.Generator().manual_seed(0)) + 1
    first, second = (examine_logits(logits + shift, attributes, str(shift)) for shift in (0, 1))
    first.ranges = [RangeTrial("broken", 0.0, float("inf"), 0.0)]
    table, _ = compare(first, second)
    assert np.isnan(table.loc["smile", "kappa"])
    found = as_json([first, second], [("both", table)], Overshooting())
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["agreement"]["both"]["smile"]["kappa"] is None
    assert found["scorers"]["0"]["ranges"][0]["size"] is None


def test_a_flipped_sign_is_seen_by_the_other_role(
    faces: Stored, teacher: Checkup, tmp_path: Path
) -> None:
    table, found = compare(teacher, judge(faces, tmp_path, "flip"))
    assert float(table["correlation"]["smile"]) < -0.9 and float(table["agreement"]["smile"]) < 0.1
    assert [(item.level, item.where) for item in found] == [("error", "smile")]
    assert "opposite" in found[0].text
    other = declare(tmp_path)
    text = yaml.safe_load(other.read_text())
    text["judge"]["attributes"][0]["classes"].reverse()
    other.write_text(yaml.safe_dump(text))
    _, found = compare(
        teacher,
        examine_logits(teacher.logits, read_scorers(other, configuration())["judge"].attributes),
    )
    assert "smiling, neutral" in found[0].text and found[0].level == "error"


def test_a_head_that_always_says_the_same_is_seen(faces: Stored, tmp_path: Path) -> None:
    assert [
        (where, text.split(" for ")[0])
        for where, text in findings(judge(faces, tmp_path, "constant"), "error")
    ] == [("eyeglasses", "answers the same")]


def test_probabilities_are_seen_and_declaring_them_mends_it(
    faces: Stored, teacher: Checkup, tmp_path: Path
) -> None:
    spoiled = judge(faces, tmp_path, "probabilities")
    assert ["look like probabilities" in text for _, text in findings(spoiled, "error")] == [True]
    assert any("'without' is 0.0%" in text for _, text in findings(spoiled, "warning"))
    mended = judge(faces, tmp_path, "probabilities", output="probabilities")
    assert findings(mended, "error") == []
    # As if its logits had never been probabilities.
    plain = judge(faces, tmp_path)
    agreed = [compare(one, teacher)[0]["agreement"]["smile"] for one in (mended, plain)]
    assert agreed[0] == agreed[1] > 0.9


def test_nan_is_counted_and_the_rest_is_looked_at(faces: Stored, tmp_path: Path) -> None:
    checkup = judge(faces, tmp_path, "nan")
    ((where, text),) = findings(checkup, "error")
    bad = int((faces.images.mean((1, 2, 3)) > 0.15).sum())
    assert where == "" and 0 < bad < N and f"logits of {bad} of {N} pictures" in text
    assert checkup.shares.groupby("attribute")["share"].sum().tolist() == pytest.approx([1] * 7)


def test_the_page_shows_every_class_and_the_command_fails_on_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = main(["scorer", "check", str(declare(tmp_path, "flip")), "-n", "24", "--out", str(out)])
    report, text = json.loads((out / "check.json").read_text()), capsys.readouterr().out
    assert code == 1
    assert "error: smile: teacher and judge point opposite ways" in text
    assert "smiling" in text
    assert report["agreement"]["teacher and judge"]["smile"]["correlation"] < -0.9
    page = (out / "check.html").read_text()
    assert "http" not in page and page.count("data:image/png") == 2 * (5 * 3 + 5 + 5)
    with Image.open(out / "check-judge.png") as picture:
        assert picture.width > 800 and np.asarray(picture).std() > 20


def test_a_scorer_against_another_of_the_same_roles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["scorer", "check", "faces", "--against", "faces", "-n", "2", "--out", str(tmp_path)]
    main(words)
    pairs = ["teacher and judge"]
    for role in ("teacher", "judge"):
        pairs += [f"{role} and faces: teacher", f"{role} and faces: judge"]
    report = json.loads((tmp_path / "check.json").read_text())["agreement"]
    assert sorted(report) == sorted(pairs)
    assert report["judge and faces: judge"]["smile"]["agreement"] == 1
    assert main([*words, "--device", "nonsense"]) == 1
    assert "--device nonsense is not a device" in capsys.readouterr().err


# -- the numbers by hand ---------------------------------------------------------------------------
def test_shares_quantiles_correlation_and_information_by_hand() -> None:
    rng = torch.Generator().manual_seed(2)
    logits = torch.randn(500, 4, generator=rng) * 3 + torch.tensor([-7.0, 1, 0, 0])
    checkup = examine_logits(logits, FACES)
    odds = logits[:, 1] - torch.logsumexp(logits[:, 2:], 1)
    assert checkup.shares["share"].tolist()[1] == pytest.approx(
        (logits[:, 0] > 0).double().mean().item()
    )
    assert checkup.shares["share"].tolist()[2:] == pytest.approx(
        [(logits[:, 1:].argmax(1) == c).double().mean().item() for c in range(3)]
    )
    assert checkup.quantiles.loc["hair:black", "50%"] == pytest.approx(
        np.median(odds.numpy()), abs=1e-5
    )
    assert checkup.correlation.loc["smile", "hair:black"] == pytest.approx(
        np.corrcoef(logits[:, 0].numpy(), odds.numpy())[0, 1], abs=1e-5
    )
    assert any("'smiling' is" in item.text for item in checkup.findings)
    certain = torch.tensor([[50.0, 50, 0, 0], [-50.0, 0, 50, 0]])
    assert information(certain, FACES) == pytest.approx(np.log(2), abs=1e-9)
    assert information(torch.zeros(4, 4), FACES) == pytest.approx(0, abs=1e-9)
    assert correlations(torch.tensor([[1.0, 5], [2, 5], [3, 5]]))[0, 1] == 0


def test_rows_go_from_the_lowest_to_the_highest() -> None:
    class Ramp:
        about = "a ramp"

        def __len__(self) -> int:
            return 40

        def __call__(self, numbers: object) -> Tensor:
            return torch.tensor([i / 20 - 1 for i in numbers]).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)  # type: ignore

    layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1)]
    scorer = ModuleScorer(
        layers, [{"name": "light", "classes": ["dark", "bright"]}], (4, 4), channels=1
    )
    with torch.no_grad():
        layers[2].weight.fill_(5.0), layers[2].bias.zero_()
    (part,) = picture_sections(examine(scorer, "scorer", Ramp(), batch=7), Ramp())
    low, middle, high = part.rows
    assert "dark" in low.caption and "bright" in high.caption
    assert low.odds == pytest.approx([5 * (i / 20 - 1) for i in range(8)], abs=1e-5)
    assert high.odds == pytest.approx([5 * (i / 20 - 1) for i in range(32, 40)], abs=1e-5)
    assert max(map(abs, middle.odds)) <= 1.0 + 1e-5 and middle.odds == sorted(middle.odds)
    pixels = np.asarray(high.strip)
    assert pixels[0, 0, 0] == round(32 / 20 * 127.5) and draw_sheet([part], "t").height > 300


def test_trying_ranges_leaves_the_scorer_as_it_was(tmp_path: Path) -> None:
    scorer = FileScorer(
        **{
            key: value
            for key, value in yaml.safe_load(
                declare(
                    tmp_path, "probabilities", input_range=[0, 1], mean=[0.4] * 3, std=[0.3] * 3
                ).read_text()
            ).items()
            if key != "_target_"
        }
    )
    images = torch.rand(6, 3, 32, 32) * 2 - 1
    before = scorer(images)
    ranges = try_inputs(scorer, images).ranges
    assert torch.equal(scorer(images), before) and len(ranges) == 5
    assert next(iter(ranges)) == "as declared" and torch.equal(ranges["as declared"], before)


# -- pictures of a folder --------------------------------------------------------------------------
def test_pictures_of_a_folder_with_broken_ones(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(12):
        Image.fromarray(np.full((40, 50, 3), 20 * k, np.uint8)).save(photos / f"{k:02}.png")
    (photos / "03.png").write_bytes(b"no picture")
    folder = FolderPictures(photos, 100, 32)
    assert len(folder) == 11 and "1 left out: 03.png" in folder.about
    assert folder([3]).mean().item() == pytest.approx(80 / 127.5 - 1, abs=1e-5)
    words = [
        "scorer",
        "check",
        str(declare(tmp_path, "probabilities")),
        *shlex.split(f"--out {tmp_path}/out --images {photos}"),
    ]
    assert main(words) in (0, 1)
    assert "11 pictures" in json.loads((tmp_path / "out" / "check.json").read_text())["pictures"]
    with pytest.raises(EditbenchError, match="no such folder"):
        FolderPictures(tmp_path / "none", 5, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EditbenchError, match="no readable"):
        FolderPictures(tmp_path / "empty", 5, 8)


# -- what is wrong in a YAML file ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message", "kind"),
    [
        (
            {"input_rang": [0, 1]},
            r"key of .*mine\.yaml: judge 'input_rang'.*Did you mean 'input_range'",
            UnknownName,
        ),
        (
            {"attributes": [{"nam": "a", "classes": ["x", "y"]}]},
            r"mine\.yaml: judge: .*'nam'",
            EditbenchError,
        ),
        (
            {"attributes": [{"name": "a", "classes": ["x", "y"]}]},
            r"judge: .*gives \(2, 15\)",
            EditbenchError,
        ),
        (
            {"_target_": "editbench.networks.scorers.exported.FileScorr"},
            r"mine\.yaml: judge\._target_=.*FileScorr cannot be imported: .*no attribute",
            EditbenchError,
        ),
        ({"_target_": None}, "judge", EditbenchError),
        ({"input_size": 32}, r"judge: scorer\.input_size needs a list of 2", EditbenchError),
        ({"input_size": [0, 32]}, r"scorer\.input_size must be \[height, width\]", EditbenchError),
        ({"input_range": ["a", 1]}, r"scorer\.input_range needs", EditbenchError),
        ({"std": [float("inf")] * 3}, r"scorer\.std needs a list of 3 finite", EditbenchError),
        ({"antialias": "no"}, r"scorer\.antialias=no must be true or false", EditbenchError),
        (
            {"attributes": [{"name": "a", "classes": [False, True]}]},
            "put them in quotes",
            EditbenchError,
        ),
        (
            {"attributes": [{"name": "a", "classes": "xy"}]},
            "list of different names",
            EditbenchError,
        ),
        (
            {"attributes": [{"name": "a", "classes": ["x", "y"], "positive_is_low": "no"}]},
            "true or false",
            EditbenchError,
        ),
        (
            {"attributes": [{"name": "a", "classes": ["x", "y"], "head": "3"}]},
            "outputs with columns",
            EditbenchError,
        ),
        ({"attributes": "smile"}, "list them under 'attributes'", EditbenchError),
        ({"path": None}, r"judge: lacks path", EditbenchError),
        ({"path": "${nothing.here}"}, r"judge: .*nothing", EditbenchError),
        ({"path": "none.pt"}, r"judge: none\.pt: no such file", EditbenchError),
    ],
)
def test_a_mistake_in_the_file_names_file_role_and_key(
    change: dict, message: str, kind: type, tmp_path: Path
) -> None:
    path = declare(tmp_path, **change)
    with pytest.raises(kind, match=message):
        read_scorers(path, configuration())


def test_a_layer_that_cannot_be_imported_is_named_with_its_place() -> None:
    layers = [{"_target_": "torch.nn.ReLU"}, {"_target_": "torch.nn.Linaer"}]
    message = r"^network\[1\]\._target_=torch\.nn\.Linaer cannot be imported: Module"
    with pytest.raises(EditbenchError, match=message):
        build({"_target_": "torch.nn.ModuleList", "network": layers})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not readable YAML"),
        ("judge: {}\njudge: {}", "not readable YAML.*duplicate"),
        ("- 1", "must be a mapping"),
        ("teachr: {}", "Did you mean 'teacher'"),
        ("judge: {}", "declares no teacher"),
        ("a: &a [1, 2]\njudge: *a", r"line 2 has the alias \*a"),
        ("text", "unknown key.*'text'"),
        ("teacher: text", "needs _target_"),
        ("#" * (1 << 20) + "##", "not a configuration"),
        ("teacher: {path: x}", "needs _target_"),
    ],
)
def test_files_that_declare_no_scorer(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(EditbenchError, match=f"(?s){message}"):
        read_scorers(tmp_path / "bad.yaml", configuration())


def test_every_yaml_of_a_user_is_read_with_bounds(tmp_path: Path) -> None:
    """Nine lines, each of ten references to the one before, would be 10^9 values written out."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for k in range(1, 10):
        lines.append(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]")
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    for read in (read_yaml, read_attributes, lambda file: read_scorers(file, configuration())):
        with pytest.raises(BadFile, match="alias") as error:
            read(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    path.write_text("[1, 2]")
    with pytest.raises(BadFile, match="must be a mapping"):
        read_yaml(path)


def test_names_and_files_of_scorers() -> None:
    assert scorer_file("faces").name == "faces.yaml"
    with pytest.raises(UnknownName, match="Did you mean 'faces'"):
        scorer_file("facess")
    with pytest.raises(BadFile, match="no such file"):
        scorer_file("none.yaml")
    assert "path" in keys_of(FileScorer) and "network" not in keys_of(FileScorer)
    assert keys_of(FileScorer)["input_size"] and not keys_of(FileScorer)["columns"]


def test_the_command_says_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scorer", "chek", "faces"]) == 2
    assert "Did you mean 'check'" in capsys.readouterr().err


@needs_data
def test_a_generator_of_latents_has_no_pictures_to_look_at(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["scorer", "check", "faces", "--generator", "ffhq_latents", f"data={DATA}"]) == 1
    assert "--generator NAME" in capsys.readouterr().err
