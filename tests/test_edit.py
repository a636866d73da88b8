"""Codes of one's own, edited with the method of a finished run."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import editbench as eb
from editbench.base.errors import EditbenchError, SpaceMismatch, UnknownName, Unsupported, WrongType
from editbench.base.spaces import Codes, Space
from editbench.run.record import Record
from tests.by_config import load_bank
from tests.fake_records import fake_run

SMALL = "budget=demo bank.n=2560 bank.shard=1280 starts.n=56 engine.sweep_steps=4"
METHODS = ("interfacegan", "stylespace", "navigan_svd", "random")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("edit")


@pytest.fixture(scope="module")
def runs(place):
    """Four methods on one attribute, in steps of equal effect."""
    folders = f"out='{place / 'runs'}' cache='{place / 'cache'}'"
    methods = ",".join(METHODS)
    return eb.run(f"method={methods} attribute=smile engine.step_effect=0.25 {SMALL} {folders}")


def starts_of(run):
    """The bank's w of a run's starts, in the order of its trajectory."""
    starts = run.trajectory()["start"].unique()
    w = load_bank(run.config()).array("w").take(starts)
    return Codes(Space.W, torch.from_numpy(np.array(w)))


def smile_of(run, codes):
    """The judge's logit of smiling (n,) of decoded codes."""
    judge = run.judge()
    column = judge.attributes.names.index("smile")
    return judge(run.generator().decode(codes))[:, column].detach().numpy()


@pytest.mark.parametrize("method", ["interfacegan", "stylespace", "navigan_svd"])
def test_edits_of_the_runs_own_starts_are_its_walks(runs, method):
    run = runs[method, "smile"]
    start = starts_of(run)
    walks = run.trajectory().set_index("start")
    for steps in (0, 1, 3):
        # Where a walk crosses, its row is a point between two steps.
        rows = walks[(walks["step"] == steps) & ~walks["stopped"]]
        made = pd.Series(smile_of(run, run.edit(start, steps)), walks.index.unique())
        assert len(rows) >= 5
        np.testing.assert_allclose(made[rows.index], rows["logit:smile"], atol=2e-3)


def test_between_two_steps_codes_are_interpolated(runs):
    run = runs["interfacegan", "smile"]
    start = eb.codes(run.generator(), count=5)
    before, between, after = (run.edit(start, steps, "smiling") for steps in (2, 2.25, 3))
    expected = 0.75 * before.values + 0.25 * after.values
    torch.testing.assert_close(between.values, expected, rtol=1e-4, atol=1e-5)


def test_codes_may_be_in_double_precision(runs):
    run = runs["interfacegan", "smile"]
    start = eb.codes(run.generator(), count=2)
    double = Codes(Space.W, start.values.double())
    assert torch.equal(run.edit(double, 2).values, run.edit(start, 2).values)


def test_an_edit_has_the_precision_of_its_run_after_a_job_with_another_one(runs, monkeypatch):
    run = runs["interfacegan", "smile"]
    start = eb.codes(run.generator(), count=2)
    run.edit(start, 1)
    # On a GPU, the precision is a mode of the process.
    modes = []
    monkeypatch.setattr("editbench.run.edit.use_precision", lambda *mode: modes.append(mode))
    run.edit(start, 1)
    assert modes == [("fp32", "cpu")]


def test_no_codes_are_edited_to_no_codes(runs):
    run = runs["interfacegan", "smile"]
    assert len(run.edit(eb.codes(run.generator(), count=0), 2)) == 0


def test_a_target_is_for_every_sample_and_without_one_each_changes_sides(runs):
    run = runs["interfacegan", "smile"]
    start = eb.codes(run.generator(), count=64)
    before = smile_of(run, start)
    assert 10 < (before > 0).sum() < 54
    for target, sign in (("smiling", 1), (1, 1), (np.int64(1), 1), ("neutral", -1)):
        change = smile_of(run, run.edit(start, 4, target)) - before
        assert (sign * change > 0).mean() > 0.95
    change = smile_of(run, run.edit(start, 4)) - before
    assert (np.sign(change) == -np.sign(before)).mean() > 0.95


def test_the_target_of_the_run_is_the_default(place):
    words = f"method=interfacegan attribute=hair_color {SMALL} cache='{place / 'cache'}'"
    [free] = eb.run(f"{words} out='{place / 'free'}'")
    [bound] = eb.run(f"{words} out='{place / 'bound'}' target=red")
    start = eb.codes(free.generator(), count=6)
    with pytest.raises(
        EditbenchError, match=r"hair_color has 5 classes: give target, one of .*red"
    ):
        free.edit(start, 2)
    assert torch.equal(bound.edit(start, 2).values, free.edit(start, 2, target="red").values)


@pytest.mark.parametrize("method", METHODS)
def test_equal_rows_of_w_plus_and_z_are_edited_as_their_w_is(runs, method):
    run = runs[method, "smile"]
    gan = run.generator()
    z = torch.randn(3, gan.z_dim, generator=torch.Generator().manual_seed(0))
    w = gan.map(z)
    images = gan.decode(run.edit(Codes(Space.W, w), 3, "smiling"))
    for codes in (Codes(Space.Z, z), Codes(Space.W_PLUS, gan.w_plus(w).clone())):
        torch.testing.assert_close(
            gan.decode(run.edit(codes, 3, "smiling")), images, rtol=0, atol=1e-4
        )


def test_what_cannot_be_edited_is_said(runs):
    run = runs["interfacegan", "smile"]
    start = eb.codes(run.generator(), count=2)
    holed = Codes(Space.W, start.values.clone())
    holed.values[1, 5] = float("nan")
    wrong = [
        (lambda: run.edit(start.values, 1), WrongType, "edit takes Codes, .* not Tensor"),
        (lambda: run.edit(start, -1), EditbenchError, "steps=-1 must be at least 0"),
        (lambda: run.edit(start, "2"), WrongType, "steps='2' must be a number, at least 0"),
        (lambda: run.edit(start, 1, "smilling"), UnknownName, "smiling"),
        (
            lambda: run.edit(Codes(Space.S, start.values), 1),
            SpaceMismatch,
            "Z, W, W_PLUS, not in S",
        ),
        (lambda: run.edit(Codes(Space.W, start.values[:, 1:]), 1), SpaceMismatch, r"\(2, 128\)"),
        (lambda: run.edit(holed, 1), EditbenchError, r"1 of 2 codes .* first is codes\[1\]"),
    ]
    for call, kind, message in wrong:
        with pytest.raises(kind, match=message):
            call()


def test_a_method_that_walks_in_z_needs_z(place):
    folders = f"out='{place / 'in_z'}' cache='{place / 'cache'}'"
    [run] = eb.run(f"method=random method.space=z attribute=smile {SMALL} {folders}")
    gan = run.generator()
    z = torch.randn(2, gan.z_dim, generator=torch.Generator().manual_seed(0))
    assert run.edit(Codes(Space.Z, z), 2, "smiling").space == Space.Z
    with pytest.raises(Unsupported, match="random walks in Z and needs codes in Z, not in W"):
        run.edit(eb.codes(gan, count=2), 2, "smiling")


def test_only_a_finished_run_of_the_present_code_edits(runs, tmp_path):
    run = runs["interfacegan", "smile"]
    start = eb.codes(run.generator(), count=2)
    fake_run(tmp_path, "interfacegan", "smile", status="skipped", reason="why not")
    with pytest.raises(EditbenchError, match="has no fitted method: why not"):
        eb.load(tmp_path)["interfacegan", "smile"].edit(start, 1)
    other = eb.Run(run.folder)
    other._record.status["run_id"] = "interfacegan-smile-s0-0000000000"
    with pytest.raises(EditbenchError, match=r"other code, networks or files .* run the job again"):
        other.edit(start, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"judge": "0" * 64}, r"\(changed: the judge\)"),
        ({"bank": "0", "method_source": "0"}, r"\(changed: the bank .*, the code of the method\)"),
        ({}, "than there are now, so"),
    ],
)
def test_an_edit_that_cannot_be_repeated_names_what_changed(runs, monkeypatch, changed, message):
    run = eb.Run(runs["interfacegan", "smile"].folder)
    provenance = run.provenance()
    provenance["hashes"] |= changed
    monkeypatch.setattr(Record, "provenance", lambda record: provenance)
    run._record.status["run_id"] = "interfacegan-smile-s0-0000000000"
    with pytest.raises(EditbenchError, match=message):
        run.edit(eb.codes(run.generator(), count=1), 1)


def test_a_bank_that_is_not_in_the_cache_is_announced_and_built_again(
    tmp_path, monkeypatch, capsys
):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    monkeypatch.chdir(first)
    [run] = eb.run(f"method=random attribute=smile {SMALL} out=runs cache=cache")
    start = eb.codes(run.generator(), count=2)
    capsys.readouterr()
    expected = run.edit(start, 2, "smiling").values
    assert "does not have the bank" not in capsys.readouterr().err
    # The relative cache of its configuration is now another folder.
    monkeypatch.chdir(second)
    [same] = eb.load(first / "runs")
    assert torch.equal(same.edit(start, 2, "smiling").values, expected)
    told = capsys.readouterr().err
    assert f"{second / 'cache'} does not have the bank of {run.folder.name}, because" in told


MINE = """
from editbench.walk.editor import Editor, FitReport

class Mine(Editor):
    def fit(self, data):
        return FitReport(labels=0)

    def step(self, walk):
        return walk.codes + 0.1

    def state(self):
        return {}

    def load_state(self, state):
        pass
"""
SCRIPT = """
import editbench as eb

[run] = eb.load("runs")
start = eb.codes(run.generator(), count=2)
moved = run.edit(start, 1, "smiling").values - run.edit(start, 0, "smiling").values
print(moved.min().item(), moved.max().item())
"""


def test_a_method_of_the_working_folder_is_found_by_a_script_in_another(tmp_path, place):
    (tmp_path / "mine_here.py").write_text(MINE)
    group = tmp_path / "my_conf" / "method"
    group.mkdir(parents=True)
    (group / "mine.yaml").write_text("name: mine\nabout: one\n_target_: mine_here.Mine\n")
    script = tmp_path / "scripts" / "edit.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    job = f"method=mine attribute=smile {SMALL} out=runs"
    words = [*job.split(), f"cache={place / 'cache'}"]
    made = [sys.executable, "-m", "editbench", "run", "--config-dir", "my_conf", *words]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    edited = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert [float(number) for number in edited.stdout.split()] == pytest.approx(
        [0.1, 0.1], rel=1e-4
    )
