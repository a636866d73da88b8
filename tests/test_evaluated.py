"""The evaluated attributes: one list for what is judged, protected, searched by and near.

A job whose list leaves an attribute out is compared with one whose scorer never knew it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.spaces import Codes, Space
from editbench.cli import main
from editbench.commands.demo import demo_methods, demo_seeds, demo_settings, in_demo_order
from editbench.conformance.toy import BINARY, LinearScorer
from editbench.methods.gradctrl import GradCtrl
from editbench.methods.interfacegan import InterFaceGAN
from editbench.methods.linear_regression import LinearRegression
from editbench.methods.shared import meta_validation
from editbench.methods.shared.control_search import choose_control, measure_effects
from editbench.networks.features import ScorerFeatures
from editbench.networks.scorer import Scorer
from editbench.networks.selected import select_attributes
from editbench.report import load, print_table
from editbench.run import fits
from editbench.run.caveats import remarks
from editbench.run.outcome import describe_outcome
from editbench.run.protocol import check_evaluated, check_protocols
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.editor import FitData, FitReport
from editbench.walk.observation import read_observed
from editbench.worlds.faces import load_scorer
from tests.by_config import run_job
from tests.fake_records import fake_run, report_of
from tests.toy import fit_data
from tests.toy_world import ATTRIBUTES, AlongColumn, toy_config

KEPT = ["a", "c"]
FOUR = ("smile", "eyeglasses", "beard", "age")


# -- the scorer ------------------------------------------------------------------------------------
def test_a_selected_scorer_gives_the_columns_of_its_attributes_and_all_else_of_the_whole():
    whole = load_scorer("judge")
    part = select_attributes(whole, ["hair_color", "smile"])
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    assert part.attributes.names == ("smile", "hair_color")
    assert part.attributes.known == whole.attributes.names
    logits = whole(images)
    for name in part.attributes.names:
        expected = whole.attributes.logits(logits, name)
        assert torch.equal(part.attributes.logits(part(images), name), expected)
    assert part.whole is whole and torch.equal(part.features(images), whole.features(images))
    assert part.digest == whole.digest and part.resolution == 32
    assert not hasattr(part, "no_such_thing")
    # features of a network are those of all of it, whatever is evaluated
    assert ScorerFeatures(part).digest == ScorerFeatures(whole).digest
    assert select_attributes(whole, whole.attributes.names) is whole
    with pytest.raises(UnknownName, match="Did you mean 'smile'"):
        select_attributes(whole, ["smiles"])


def test_a_gradient_goes_through_it_and_a_label_counts_once():
    whole = load_scorer("judge")
    part = select_attributes(whole, ["age", "beard"])
    images = torch.zeros(2, 3, 32, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(part(images).sum(), images)
    expected = sum(whole.attributes.logits(whole(images), name).sum() for name in ("age", "beard"))
    assert torch.allclose(slope, torch.autograd.grad(expected, images)[0], atol=1e-6)
    with fits.scored(part) as counts:
        part(images)
        whole(images)
    assert counts == [2, 2]


# -- methods ---------------------------------------------------------------------------------------
class Reduced(Scorer):
    """A linear scorer that never knew the other attributes: what a selection is compared with."""

    def __init__(self, whole: LinearScorer, names: list[str]) -> None:
        super().__init__()
        self.attributes = whole.attributes.select(names)
        self.whole_scorer = whole
        self.digest = whole.digest

    def forward(self, decoded: Tensor) -> Tensor:
        parts = [
            self.whole_scorer.attributes.logits(self.whole_scorer(decoded), name)
            for name in self.attributes.names
        ]
        return torch.cat(parts, -1)


def cut(data: FitData, teacher: Scorer, names: list[str]) -> FitData:
    """The splits with the logits of some attributes, column by column."""

    def part(logits: Tensor) -> Tensor:
        return torch.cat([data.attributes.logits(logits, name) for name in names], -1)

    return replace(
        data,
        teacher=teacher,
        fit=replace(data.fit, logits=part(data.fit.logits)),
        tune=replace(data.tune, logits=part(data.tune.logits)),
        sigma=part(data.sigma),
    )


@pytest.fixture(scope="module")
def pair() -> tuple[FitData, FitData, FitData]:
    """All attributes; a selection of two; and a scorer of these two alone."""
    data = fit_data(BINARY)
    kept = list(BINARY.names[:2])
    selected = cut(data, select_attributes(data.teacher, kept), kept)
    return data, selected, cut(data, Reduced(data.teacher, kept), kept)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GradCtrl(epochs=5, tune_exclusion=True),
        lambda: InterFaceGAN(conditions="all"),
        lambda: LinearRegression(),
    ],
    ids=["gradctrl", "interfacegan_conditional", "linear_regression"],
)
def test_a_method_learns_what_it_would_if_the_others_did_not_exist(make, pair):
    whole, selected, reduced = pair
    states = []
    for data in (selected, reduced, whole):
        editor = make()
        editor.bind(data.generator)
        editor.fit(data)
        editor.tune(data, BINARY.names[0])
        states.append(editor.state())
    assert states[0].keys() == states[1].keys() != states[2].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_mask_is_of_the_evaluated_attributes(pair):
    whole, selected, _ = pair
    target, other, third = BINARY.names
    for data, protected in ((whole, {other, third}), (selected, {other})):
        editor = GradCtrl(epochs=2)
        editor.fit(data)
        assert set(editor.excluded(target)) == protected
    with pytest.raises(UnknownName, match=f"method.exclude '{third}'"):
        editor = GradCtrl(exclude={target: {third: 50}})
        editor.check(selected.generator, selected.attributes, target)


def test_searches_and_tunings_look_at_the_evaluated_attributes(pair):
    whole, selected, _ = pair
    target, other, _ = BINARY.names
    codes = whole.tune.codes(Space.W)
    moves = torch.eye(codes.shape[1])[:4]

    def apply(candidate: int, strength: Tensor, at: Tensor) -> Codes:
        return Codes(Space.W, codes[at] + strength * moves[candidate])

    effects = measure_effects(selected, apply, len(moves), (-1.0, 1.0))
    control = choose_control(effects, selected.attributes, target, 1, 0.0)
    change = effects.change[control.candidate, effects.strengths.index(control.strength)]
    lacking = effects.start[:, 0] != 1
    # off-target is the other evaluated attribute alone
    assert control.off_target == pytest.approx(change[lacking][:, 1].abs().mean().item(), rel=1e-4)
    position = meta_validation.meta_validation(selected, target)[0]
    distance = (selected.tune.logits.abs() / selected.sigma).amax(1)
    assert position.tolist() == distance.argsort(stable=True)[: len(position)].tolist()
    assert other in selected.attributes.names


# -- jobs ------------------------------------------------------------------------------------------
class Spy(AlongColumn):
    """Notes what its fit can see."""

    seen: tuple[Attributes, int, int] | None = None

    def fit(self, data: FitData) -> FitReport:
        pictures = data.generator.decode(Codes(Space.W, data.fit.codes(Space.W)[:3]))
        Spy.seen = (data.attributes, data.fit.logits.shape[1], data.teacher(pictures).shape[1])
        return super().fit(data)


def test_a_job_shows_its_editor_and_its_metrics_the_evaluated_attributes_alone(tmp_path):
    cfg = toy_config(tmp_path, "evaluated=[c,a]")
    cfg.method._target_ = "tests.test_evaluated.Spy"
    outcome = run_job(cfg)
    assert outcome.status == "done", outcome.reason
    assert Spy.seen == (ATTRIBUTES.select(KEPT), 4, 4)
    record = Record.read(tmp_path / outcome.run_id)
    walks = record.trajectories()
    assert walks.attributes.names == ("a", "c")
    made = record.provenance()
    assert made["evaluated"] == KEPT and set(made["start_distance"]) == {"target", "nearest_other"}
    # accuracy by hand: at the crossing every other evaluated attribute kept its class
    table = walks.table
    labels = walks.labels
    first = labels[table.groupby("start")["step"].transform("min") == table["step"]]
    kept = []
    for place, start in enumerate(table["start"].unique()):
        at = np.flatnonzero((table["start"] == start) & table["stopped"])
        kept.append(bool(len(at)) and labels[at[0], 1] == first[place, 1])
    rows = pd.read_parquet(record.path(Record.ROWS)).set_index("metric")
    assert rows.loc["accuracy", "value"] == pytest.approx(np.mean(kept))


def test_an_observation_of_two_edits_counts_no_attribute_that_is_not_evaluated(tmp_path):
    words = ["observation=[composition]", "observation.composition.then=b"]
    words += ["observation.composition.n=40", "observation.composition.pictures=0"]
    others = []
    for evaluated in ("evaluated=[a,b]", "evaluated=null"):
        outcome = run_job(toy_config(tmp_path, evaluated, *words))
        assert outcome.status == "done", outcome.reason
        found = read_observed(tmp_path / outcome.run_id, "composition")
        others.append(found.arrays["others"])
    assert others[0].max() == 0 < others[1].max()


def test_the_list_is_part_of_the_identity_and_all_names_are_the_same_as_none(tmp_path):
    plain = run_job(toy_config(tmp_path))
    named = run_job(toy_config(tmp_path, "evaluated=[b,c,a]"))
    assert named.reused and named.run_id == plain.run_id
    part = run_job(toy_config(tmp_path, "evaluated=[a,b]"))
    assert not part.reused and part.run_id != plain.run_id
    assert len(list((tmp_path / "cache" / "fits").glob("*.safetensors"))) == 2


def test_an_attribute_that_no_folder_can_be_named_after_is_refused(tmp_path):
    settings = Settings.from_config(toy_config(tmp_path, "attribute=left/right"))
    attributes = Attributes(
        [Attribute("left/right", ("left", "right")), Attribute("b", ("n", "y"))]
    )
    with pytest.raises(EditbenchError, match="change its name in the scorer's YAML"):
        check_evaluated(settings, attributes)


def test_a_run_whose_starts_are_far_warns_in_its_line_and_its_record(tmp_path):
    cfg = toy_config(tmp_path, "starts.pool=1")
    outcome = run_job(cfg)
    made = Record.read(tmp_path / outcome.run_id).provenance()
    assert made["start_distance"]["target"] > 0.5
    assert "sigma from the target's boundary" in made["start_warning"]
    assert "(starts 0." in describe_outcome(Settings.from_config(cfg), outcome)
    near = run_job(toy_config(tmp_path, "starts.near=target", "starts.pool=0.1"))
    assert Record.read(tmp_path / near.run_id).provenance()["start_warning"] == ""


def test_the_page_warns_of_far_starts_and_tells_the_distances(tmp_path):
    for method in ("alpha", "beta"):
        folder = fake_run(tmp_path, method, "smile")
        with Record.read(folder).updating() as place:
            made = {
                "bank_n": 24000,
                "start_distance": {"target": 0.93, "nearest_other": 0.31},
                "start_warning": "half of the starts lie more than 0.93 sigma",
            }
            (place / Record.PROVENANCE).write_text(json.dumps(made))
    text = report_of(tmp_path).read_text()
    assert "median distance is 0.93 σ (smile)" in text
    assert (
        "median distance 0.93 σ from the target&#39;s boundary, 0.31 σ from the nearest other one"
        in text
    )


def test_walks_that_become_nan_are_counted_in_the_line_the_tables_and_the_check(tmp_path, capsys):
    """The editor gives NaN where the start's number in the bank is odd."""
    cfg = toy_config(tmp_path / "runs", fail="nan")
    outcome = run_job(cfg)
    table = Record.read(tmp_path / "runs" / outcome.run_id).trajectories().table
    starts = table["start"].unique()
    told = f"{(starts % 2).sum()} of {len(starts)}"
    assert 0 < (starts % 2).sum() < len(starts)
    assert f"; {told} walks not finite)" in describe_outcome(Settings.from_config(cfg), outcome)
    page = report_of(tmp_path / "runs")
    pins = str(tmp_path / "pins.json")
    print_table(load(tmp_path / "runs"))
    assert main(["baseline", str(tmp_path / "runs"), "--out", pins, "--reason", "first"]) == 0
    printed = capsys.readouterr().out
    assert main(["check", str(tmp_path / "runs"), "--baseline", pins]) == 0
    said = (
        "Some walks became NaN or infinite; those that had not crossed before count as failures: "
        f"along on a {told}"
    )
    for text in (
        printed,
        capsys.readouterr().out,
        page.read_text(encoding="utf-8"),
        (page.parent / "table.md").read_text(encoding="utf-8"),
    ):
        assert said in text


def test_a_teacher_and_a_judge_that_contradict_each_other_are_told(tmp_path, capsys):
    made = {
        "agreement": {
            "smile": {"agreement": 0.31, "kappa": -0.38},
            "age": {"agreement": 0.9, "kappa": 0.8},
            "hat": {"agreement": 1.0, "kappa": None},
        }
    }
    for method in ("alpha", "beta"):
        fake_run(tmp_path, method, "smile", made=made)
    page = report_of(tmp_path)
    print_table(load(tmp_path))
    said = "(Cohen's κ of 0.2 or less): smile in {} (κ −0.38). On"
    assert said.format("faces32") in capsys.readouterr().out
    assert said.format("Cartoon faces").replace("'", "&#39;") in page.read_text(encoding="utf-8")
    assert remarks(made) == [
        "teacher and judge disagree on smile: kappa -0.38",
        "a single class of hat in the bank",
    ]


def test_an_attribute_of_a_single_class_is_told_and_no_larger_bank_is_advised(tmp_path, capsys):
    # As if the judge sees a hat on every sample. Its starts are then far from the boundary.
    made = {
        "agreement": {
            "smile": {"agreement": 0.9, "kappa": 0.8},
            "hat": {"agreement": 1.0, "kappa": None},
        },
        "start_warning": "far",
        "start_distance": {"target": 12194.0},
    }
    fake_run(tmp_path, "alpha", "hat", made=made)
    print_table(load(tmp_path))
    out = capsys.readouterr().out
    assert "one and the same class: hat in faces32. Nothing can be learned" in out
    assert "larger bank" not in out
    # Of an attribute with two classes the advice stands.
    fake_run(tmp_path, "alpha", "smile", made=made)
    print_table(load(tmp_path))
    assert "median distance is 12,194 σ (smile), and more" in capsys.readouterr().out


def test_a_world_that_misses_bars_is_named_in_every_table(tmp_path, capsys):
    folder = fake_run(tmp_path, "alpha", "smile")
    with Record.read(folder).updating() as place:
        card = {"bars": 30, "missed": ["share near the boundary of smile 0.09, below 0.15"]}
        made = {"bank_n": 24000, "world_card": card}
        (place / Record.PROVENANCE).write_text(json.dumps(made))
    page = report_of(tmp_path)
    print_table(load(tmp_path))
    tables = (page, page.parent / "table.md", page.parent / "latex" / "accuracy.tex")
    texts = [capsys.readouterr().out, *(path.read_text(encoding="utf-8") for path in tables)]
    for text in texts[:3]:
        assert "misses 1 of the 30 quality criteria of its card" in text
        assert "share near the boundary of smile 0.09, below 0.15" in text
    assert "29 of 30 quality criteria met" in texts[3]
    # A document may contain one of the LaTeX tables only, and comments are not printed.
    for name in ("accuracy", "ad", "means"):
        text = (page.parent / "latex" / f"{name}.tex").read_text(encoding="utf-8")
        printed = [line for line in text.splitlines() if not line.startswith("%")]
        assert any("misses 1 of the 30 quality criteria" in line for line in printed), name


# -- found before the work -------------------------------------------------------------------------
@pytest.fixture
def words(tmp_path):
    return [
        *("--config-dir", str(Path(__file__).parent / "conf")),
        *("generator=toy", "scorer=toy", "method=along", "budget=toy"),
        *(f"out={tmp_path}/runs", f"cache={tmp_path}/cache"),
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["attribute=a,b", "evaluated=[b,c]"], "attribute=a is not evaluated, evaluated=[b,c]"),
        (["attribute=b,a", "evaluated=[b,c]"], "attribute=a is not evaluated, evaluated=[b,c]"),
        (["attribute=a,b", "evaluated=[a,bb]"], "'bb'. Did you mean 'b'?"),
        (
            ["attribute=a,b", "starts.near=target", "starts.n=600"],
            "starts.n=600 over 3 attributes means 200 per attribute, which exceeds its pool of 180",
        ),
        (["attribute=a,b", "starts.n=200"], "exceeds the pool of 180"),
        (["attribute=a,c", "starts.n=2"], "no start was drawn for c: raise starts.n=2"),
        (["attribute=a,b", "starts.attributes=[a,b]"], "set evaluated=[a,b]"),
        (["attribute=a,bb"], "unknown attribute 'bb'. Did you mean 'b'?"),
        (["attribute=a,c", "target=zz"], "'zz'. Did you mean 'z'?"),
    ],
)
def test_a_sweep_finds_it_once_and_before_a_bank_is_built(more, message, words, tmp_path, capsys):
    assert main(["run", *words, "-m", *more]) in (1, 2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert list(tmp_path.iterdir()) == []


def test_a_target_class_is_unknown_where_no_attribute_of_the_sweep_has_it(tmp_path):
    def jobs(target, *attributes):
        words = [(f"attribute={name}", f"target={target}") for name in attributes]
        return [Settings.from_config(toy_config(tmp_path, *pair)) for pair in words]

    check_protocols(jobs("z", "c", "a"))  # the jobs of `a` fail by themselves
    with pytest.raises(UnknownName, match="unknown class of attribute 'a' 'z'"):
        check_protocols(jobs("z", "a"))


def test_near_target_serves_as_many_starts_as_its_pools_hold_together(tmp_path):
    # 180 candidates are near each boundary; a single pool would refuse 540
    check_protocols(
        [Settings.from_config(toy_config(tmp_path, "starts.near=target", "starts.n=540"))]
    )
    with pytest.raises(EditbenchError, match="exceeds the pool of 180"):
        check_protocols([Settings.from_config(toy_config(tmp_path, "starts.n=540"))])


# -- the demo --------------------------------------------------------------------------------------
def test_the_demo_judges_four_attributes_and_takes_either_reading_by_one_override(tmp_path):
    (settings,) = demo_settings(["random"], tmp_path, "cpu", [])
    assert settings.evaluated == FOUR and settings.name == "demo" and settings.out == tmp_path
    candidates = settings.bank.spec.split("test")
    candidates = candidates[1] - candidates[0]
    settings.starts.check_enough(candidates, 4)
    assert settings.starts.near == "joint" and min(settings.starts.counts(4)) >= 150
    # The methods' own steps differ in their effect, so all walk in steps of the same.
    assert settings.engine.step_effect == 0.25
    words = ["starts.near=target", "evaluated=[yaw,smile]"]
    (other,) = demo_settings(["random"], tmp_path, "cpu", words)
    assert other.starts.near == "target" and other.evaluated == ("yaw", "smile")
    other.starts.check_enough(candidates, 2)
    with pytest.raises(EditbenchError, match="every evaluated attribute"):
        demo_settings(["random"], tmp_path, "cpu", ["attribute=smile"])
    with pytest.raises(EditbenchError, match=r"budget=paper: .* one budget, .* budget=demo"):
        demo_settings(["random"], tmp_path, "cpu", ["budget=paper"])


def test_a_method_that_draws_its_examples_has_several_seeds_in_the_demo(tmp_path):
    drawing = ["gradctrl", "gradctrl_random", "neural_ode", "navigan_spectrum"]
    methods = [*drawing, "interfacegan"]
    assert set(methods) <= set(demo_methods())
    composed = demo_settings(methods, tmp_path, "cpu", [])
    jobs = in_demo_order(composed, ["smile", "age"])
    seeds = {name: [] for name in methods}
    for job in jobs:
        if job.attribute == "age":
            seeds[job.method.name].append(job.seed)
    assert seeds == {name: [0, 1, 2, 3, 4] for name in drawing} | {"interfacegan": [0]}
    assert len(jobs) == 42
    (later,) = demo_settings(["gradctrl"], tmp_path, "cpu", ["seed=5", "method.seeds=2"])
    assert demo_seeds(later) == [5, 6]
    (wrong,) = demo_settings(["gradctrl"], tmp_path, "cpu", ["method.seeds=0"])
    with pytest.raises(EditbenchError, match=r"method\.seeds=0 must be at least 1"):
        demo_seeds(wrong)
