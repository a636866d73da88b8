"""A plan names the jobs that a sweep runs, in its order and by their run ids, and builds nothing."""

import json
import shutil
from pathlib import Path

import pytest

from editbench.cli import main
from editbench.run.overrides import check_overrides
from tests.sweep_editors import toy_words


@pytest.fixture
def toy(tmp_path):
    """The words that put a sweep on the toy world, with an experiment that brings a sweep of its own."""
    words = toy_words(tmp_path)
    conf = Path(words[1])
    (conf / "experiment").mkdir()
    (conf / "experiment" / "own.yaml").write_text(
        f"# @package _global_\nname: own\nout: {tmp_path}/own\nattribute: a\n"
        "hydra:\n  sweeper:\n    params:\n      method: along,skip\n      attribute: a,b\n"
    )
    return words


def plan(capsys, *words):
    """Exit code and the parsed --json of a plan."""
    capsys.readouterr()
    code = main(["plan", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def ran(folder):
    """(title, run id) of every job of the one sweep below `folder`, in order."""
    files = sorted(folder.glob(".sweeps/*/*.json"), key=lambda file: int(file.stem))
    return [
        (found["job"], found["run_id"])
        for found in map(json.loads, (file.read_text() for file in files))
    ]


def titles(found):
    return [
        (f"{job['method']} x {job['attribute']}, seed {job['seed']}", job["run_id"])
        for job in found["jobs"]
    ]


@pytest.mark.parametrize(
    "sweep",
    [
        ["method=along,skip", "attribute=b", "seed=range(1,3)"],
        ["experiment=own"],
        ["+experiment=own", "attribute=c,a"],
        ["attribute=choice(b,a)", "method=glob(a*)", "starts.n=60"],
    ],
)
def test_it_names_what_hydra_runs(sweep, toy, tmp_path, capsys):
    sweep = sweep if "own" in sweep[0] else [*sweep, f"out={tmp_path}/own"]
    code, before = plan(capsys, *toy, *sweep)
    assert code == 0 and {job["status"] for job in before["jobs"]} == {"missing"}
    assert not (tmp_path / "cache").exists() and not (tmp_path / "own").exists()
    assert before["banks"][0] | {"folder": ""} == {
        "id": before["jobs"][0]["bank"],
        "folder": "",
        "n": 1000,
        "built": False,
        "shards": 4,
        "shards_there": 0,
    }
    assert main(["run", *toy, "-m", *sweep]) == 0
    assert titles(before) == ran(tmp_path / "own")
    assert len(before["jobs"]) == before["totals"]["to_run"]
    code, after = plan(capsys, "-m", *toy, *sweep)
    assert titles(after) == titles(before)
    assert after["totals"]["to_run"] == after["totals"]["to_fit"] == 0
    for job in after["jobs"]:
        assert (job["status"], job["fit_cached"]) == (
            ("skipped", False) if job["method"] == "skip" else ("done", True)
        )
    made = len(list((tmp_path / "cache" / "fits").glob("*.safetensors")))
    skips = len({(job["method"], job["seed"]) for job in after["jobs"] if job["method"] == "skip"})
    assert before["totals"]["to_fit"] == made + skips  # a fit that finds no control is not kept
    assert after["banks"][0]["built"] and after["banks"][0]["shards_there"] == 4


def test_the_table_says_what_is_there(toy, tmp_path, capsys):
    words = [*toy, f"out={tmp_path}/runs", "attribute=a", "starts.n=60"]
    assert main(["run", *words, "-m", "method=along,skip,crash"]) == 1
    (bank,) = (tmp_path / "cache" / "banks").glob("[!.]*")
    (bank / "bank.json").unlink()
    shutil.rmtree(bank / "shard-00002")
    capsys.readouterr()
    assert main(["plan", *words, "method=along,skip,crash", "starts.seed=0,1"]) == 0
    text = capsys.readouterr().out
    rows = {
        tuple(line.split()[i] for i in (0, 3)): line.split()[4:] for line in text.splitlines()[1:7]
    }
    assert {key: (row[0], *row[-1:]) for key, row in rows.items()} == {
        ("along", "starts.seed=0"): ("done", "cached"),
        ("along", "starts.seed=1"): ("missing", "cached"),
        ("skip", "starts.seed=0"): ("skipped", "-"),
        ("skip", "starts.seed=1"): ("missing", "fit"),
        ("crash", "starts.seed=0"): ("failed", "fit"),
        ("crash", "starts.seed=1"): ("missing", "fit"),
    }
    assert "to be built, 3 of 4 shards built, 1000 samples" in text
    assert "skipped, 1 job: no control found" in text
    assert "failed, 1 job: RuntimeError: a defect of the method" in text
    assert "6 jobs: 1 done, 1 skipped, 1 failed, 3 missing; to run: 4; fits to compute: 2" in text


def test_a_list_in_brackets_is_shown(toy, tmp_path, capsys):
    words = [*toy, f"out={tmp_path}/runs", "attribute=a", "method=along"]
    assert main(["plan", *words, "evaluated=[a,b],[a,c]"]) == 0
    text = capsys.readouterr().out
    assert "evaluated=[a,b]" in text and "evaluated=[a,c]" in text


def test_a_tuned_method_needs_a_fit_and_a_tuning(capsys, tmp_path):
    words = ["budget=demo", f"cache={tmp_path}", f"out={tmp_path}/runs"]
    _, found = plan(capsys, *words, "method=gradctrl", "attribute=smile,age")
    assert found["totals"]["to_fit"] == 1 and found["totals"]["to_tune"] == 2
    assert found["jobs"][0]["bank"] == found["jobs"][1]["bank"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["method=gradctl"], 2, "unknown method 'gradctl'. Did you mean 'gradctrl'? Available: "),
        (["atribute=smile"], 2, "unknown option 'atribute'. Did you mean 'attribute'?"),
        (["smile"], 1, "'smile' is not an override: write key=value"),
        (["hydra/launcher=jobli"], 2, "unknown launcher 'jobli'. Did you mean 'joblib'?"),
        (["seed=range(1"], 1, "could not compose the configuration: "),
        (["method=glob(zzz*)"], 1, "method=glob(zzz*): has no value, so there is no job"),
        (["seed=range(0)"], 1, "seed=range(0): has no value, so there is no job"),
        (["out=/data/Müller (2)"], 1, "stands in quotes: \"out='my runs (2)'\""),
        (["--cfg", "job"], 1, "--cfg does not apply to a plan"),
        (["method=gradctrl,"], 1, "method=gradctrl,: a comma has no value beside it; remove the"),
        (["method=,sefa"], 1, "method=,sefa: a comma has no value beside it"),
        (["seed=0,,1"], 1, "seed=0,,1: a comma has no value beside it"),
        (["metric=[locality,]"], 1, "metric=[locality,]: a comma has no value beside it"),
        (["evaluated=[age, ],[smile]"], 1, "a comma has no value beside it"),
    ],
)
def test_wrong_words_get_the_errors_of_run(words, code, message, capsys):
    assert main(["plan", *words]) == code
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


@pytest.mark.parametrize(
    "value", ["a,b", "[a, b],[c]", "'a,'", "a\\,", "[]", "", "choice(a,b)", "{a: 1}", "${x:a,}"]
)
def test_commas_that_stand_between_values_or_in_a_text_are_let_through(value):
    check_overrides([f"out={value}"])


def test_a_job_that_cannot_run_says_why(toy, tmp_path, capsys):
    code, found = plan(capsys, *toy, f"out={tmp_path}/runs", "method=along", "attribute=a,aa")
    assert code == 1 and [job["status"] for job in found["jobs"]] == ["missing", "impossible"]
    assert (
        "unknown attribute 'aa'. Did you mean 'a'? Available: a, b, c."
        in found["jobs"][1]["reason"]
    )
    assert found["jobs"][1]["bank"] is None and found["totals"]["impossible"] == 1


def test_a_sweep_for_a_device_that_is_not_here_can_be_planned(toy, tmp_path, capsys):
    words = [*toy, "method=along", "attribute=a"]
    assert main(["plan", *words, "device=cpu", "--json"]) == 0
    here = json.loads(capsys.readouterr().out)["jobs"][0]["run_id"]
    assert main(["plan", *words, "device=cuda:7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["run_id"] == here != ""
    # Nor does this machine have to have the precision, which makes another run.
    assert main(["plan", *words, "device=cuda", "precision=fp16", "--json"]) == 0
    (job,) = json.loads(capsys.readouterr().out)["jobs"]
    assert job["status"] == "missing" and job["run_id"] != here
