"""What the demo says it reused."""

import json
from pathlib import Path

import pytest

from editbench.commands.demo import demo_methods, demo_settings, describe_reuse
from editbench.regression.file import read_baseline


def outcome(job, run_id, reused=False):
    return {"job": job, "run_id": run_id, "reused": reused, "status": "done"}


def test_it_names_the_bank_the_records_and_the_fits(tmp_path):
    for run, cached in (("m-a", False), ("m-b", True), ("n-a", True), ("o-a", True), ("o-b", True)):
        (tmp_path / run).mkdir()
        (tmp_path / run / "provenance.json").write_text(json.dumps({"fit_cached": cached}))
    jobs = [
        outcome("m x a", "m-a"),
        outcome("m x b", "m-b"),
        outcome("n x a", "n-a"),
        outcome("o x a", "o-a"),
        outcome("o x b", "o-b"),
        outcome("k x a", "k-a", True),
        outcome("broken x a", ""),
    ]
    assert (
        describe_reuse(True, jobs, tmp_path) == "reused: the bank; 1 of 7 records; the fits of n, o"
    )
    assert describe_reuse(False, jobs[:2], tmp_path) == "reused: nothing"


def test_methods_that_need_files_are_not_in_it():
    assert "interfacegan" in demo_methods()
    assert not {"direction", "gradctrl_ffhq_heads"} & set(demo_methods())


@pytest.mark.parametrize(
    "name", ["runs ä", "a,b", "it's (1)", "x=y", "back\\slash", "at the end\\", "\\'"]
)
def test_its_folder_may_have_any_name(name):
    [settings] = demo_settings(["random"], Path(name), "cpu", [], workers=3)
    assert settings.out == Path(name) and settings.bank.workers == 3


def test_its_pinned_numbers_are_of_its_methods():
    pinned = read_baseline(Path(__file__).parents[1] / "runs" / "baselines" / "demo.json")
    assert {run.method for run in pinned.runs} == set(demo_methods())
    # A demo on a machine with digiface has records that others cannot make.
    assert {run.setting["generator"] for run in pinned.runs} == {"faces32"}
