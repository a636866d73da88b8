"""The public interface: every name has an example that runs, and agrees with the commands."""

from __future__ import annotations

import doctest
import inspect
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import editbench as eb
from editbench import api
from editbench.base.errors import EditbenchError, UnknownName, WrongType
from editbench.cli import main
from editbench.metrics.crossing_accuracy import CrossingAccuracy
from tests.fake_records import fake_run
from tests.runs_of_samples import one_run, outcomes

ROOT = Path(__file__).parents[1]
EXAMPLES = {name: getattr(api, name) for name in eb.__all__}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which the example of `run` has run, two methods on one attribute, and in which
    three images were inverted."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_example("run") == 0
        assert main(["invert", "faces:3", "--out", "photos", "--steps", "4"]) == 0
    return folder


@pytest.fixture
def here(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return workplace


def run_example(name):
    """Number of lines of a docstring's example that did not do what it says."""
    finder = doctest.DocTestFinder(recurse=False)
    [example] = finder.find(EXAMPLES[name], name, globs={})
    assert example.examples, f"{name} has no example"
    return doctest.DocTestRunner().run(example).failed


@pytest.mark.parametrize("name", [name for name in eb.__all__ if name != "run"])
def test_the_example_of_every_name_runs(name, here):
    assert run_example(name) == 0


def test_the_names_are_few_and_documented():
    assert len(eb.__all__) == 13
    for name in eb.__all__:
        assert len(EXAMPLES[name].__doc__) > 100


def test_run_is_a_function_however_its_package_was_imported(monkeypatch):
    assert inspect.ismodule(eb.run) and eb.run.job.run_job.__name__ == "run_job"
    monkeypatch.setattr(api, "run", lambda *overrides: overrides)
    assert eb.run("seed=0") == ("seed=0",)
    monkeypatch.undo()
    # What help and notebooks show is the function's.
    assert inspect.signature(eb.run) == inspect.signature(api.run)
    assert inspect.getdoc(api.run) in eb.run.__doc__
    monkeypatch.setattr(api, "run", lambda *overrides: overrides)
    monkeypatch.delattr(eb, "run")  # as before any module of the package was imported
    assert eb.run("seed=0") == ("seed=0",) and not inspect.ismodule(eb.run)


def test_importing_the_package_loads_neither_torch_nor_pandas():
    code = "import sys, editbench; print({'torch', 'pandas', 'hydra'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_a_run_found_by_the_interface_is_the_commands_own(here, capfd):
    config = eb.load("runs")["random", "smile"].config()
    small = [f"bank.n={config['bank']['n']}", "bank.shard=1280", "starts.n=56"]
    words = ["method=random", "attribute=smile", "budget=demo", "engine.sweep_steps=4", *small]
    assert main(["run", *words]) == 0
    assert "(reused)" in capfd.readouterr().err


def test_the_table_holds_the_rows_of_every_record(here):
    runs = eb.load("runs")
    table = runs.table()
    assert not {"seeds", "seed_variance"} & set(table)  # of pooled seeds
    for run in runs:
        mine = table[table["run_id"] == run.folder.name]
        stored = pd.read_parquet(run.folder / "rows.parquet")
        assert mine["value"].tolist() == pytest.approx(stored["value"].tolist(), nan_ok=True)
        assert set(mine["method"]) == {run.method}


def test_the_effect_of_a_trajectory_is_the_change_of_the_targets_log_odds(here):
    """For a binary attribute the log-odds are the logit itself."""
    run = eb.load("runs")["interfacegan", "smile"]
    walks = run.trajectory()
    change = walks["logit:smile"] - walks.groupby("start")["logit:smile"].transform("first")
    towards = change.where(walks["target"] == 1, -change)
    moved = walks["effect"].abs() > 0.1
    ratio = towards[moved] / walks["effect"][moved]  # sigma, one number for all rows
    assert moved.sum() > 20 and ratio.std() < 1e-3 * ratio.mean()
    assert (walks.loc[walks["step"] == 0, "effect"] == 0).all()


def test_a_strip_shows_the_record_s_pictures(here):
    run = eb.load("runs")["interfacegan", "smile"]
    figure = eb.strip(run, start=0)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert figure.axes[0].get_title() == "source"
    with pytest.raises(EditbenchError, match="images of 4 starts"):
        eb.strip(run, start=4)
    with pytest.raises(EditbenchError, match="which run"):
        eb.strip(pd.DataFrame(), start=0)


def test_wrong_names_have_the_nearest_right_one(here):
    with pytest.raises(UnknownName, match="gradctrl"):
        eb.run("method=gradctl")
    with pytest.raises(
        UnknownName, match=r"Did you mean .*Available: \[interfacegan, smile, 0\], \[random"
    ):
        eb.load("runs")["random", "smlie"]
    with pytest.raises(UnknownName, match="faces32"):
        eb.generator("faces23")
    with pytest.raises(UnknownName, match="method"):
        eb.options("metod")
    assert eb.options("experiment")["demo"].startswith("What `editbench demo` runs")
    with pytest.raises(AttributeError, match="rnu"):
        eb.rnu  # noqa: B018


def test_a_label_that_is_the_name_of_the_method_is_one_run(tmp_path):
    """As of a record that is older than the option in which it differs."""
    plain = fake_run(tmp_path, "alpha", "smile", tag="plain")
    other = fake_run(tmp_path, "alpha", "smile", tag="other", method_config={"k": 2})
    runs = eb.load(tmp_path)
    assert runs["alpha", "smile"].folder == plain
    assert runs["alpha (k=2)", "smile"].folder == other


def test_runs_that_differ_in_their_setting_alone_are_told_apart_by_their_ids(tmp_path):
    folders = [
        fake_run(tmp_path, "alpha", "smile", tag="many"),
        fake_run(tmp_path, "alpha", "smile", tag="few", starts_n=3, status="failed", reason="why"),
    ]
    runs = eb.load(tmp_path)
    with pytest.raises(EditbenchError, match=r"2 runs of alpha on smile: .*runs\['") as told:
        runs["alpha", "smile"]
    for folder, setting in zip(folders, ("starts.n 1400, done", "starts.n 3, failed")):
        assert f"{folder.name} (alpha, {setting})" in str(told.value)
        assert runs[folder.name].folder == folder


def test_a_mean_over_runs_counts_a_search_without_a_control_as_a_failure(tmp_path):
    for attribute in ("smile", "age"):
        # "other" shows from which starts the search should have walked.
        for method in ("m", "other"):
            if (method, attribute) == ("m", "age"):
                fake_run(tmp_path, method, attribute, status="skipped", no_control=True)
            else:
                fake_run(tmp_path, method, attribute)
    table = eb.load(tmp_path).table()
    accuracy = table[table["metric"] == "accuracy"].groupby("method")["value"].mean()
    assert accuracy["m"] == accuracy["other"] / 2 > 0


def test_what_cannot_be_meant_is_said(here):
    runs = eb.load("runs")
    for key in ("random", ("random",), ("random", "smile", 0, 1), 0):
        with pytest.raises(EditbenchError, match=r"select a run as runs\[method, attribute\]"):
            runs[key]
    with pytest.raises(EditbenchError, match="No closing quotation"):
        eb.run("method='random")
    with pytest.raises(EditbenchError, match="workers=0 must be at least 1"):
        eb.run("method=random", workers=0)
    with pytest.raises(EditbenchError, match="no_such_folder: no such folder"):
        eb.run("method=random", config_dirs="no_such_folder")
    with pytest.raises(EditbenchError, match=r"--config-dir is a flag .* argument config_dirs"):
        eb.run("method=random --config-dir mine")


def test_a_value_of_another_type_is_told_what_is_wanted(here):
    run = eb.load("runs")["interfacegan", "smile"]
    gan, judge = eb.generator("faces32"), eb.judge("faces")
    codes = eb.codes(gan, count=1)
    assert eb.judge("faces", torch.device("cpu")).attributes == judge.attributes
    wrong = [
        (lambda: eb.run("method=random", workers=1.5), r"workers=1\.5 must .*, as in workers=1"),
        (lambda: eb.run({"method": "random"}), r"words of a command line, .* not dict"),
        (lambda: eb.strip(run, start=1.0), r"start=1\.0 must be a whole number"),
        (lambda: eb.load("runs")["random", "smile", "0"], r"seed='0' must be a whole number"),
        (lambda: eb.run("seed=0", workers="2"), r"workers='2' must be a whole number"),
        (lambda: eb.judge("faces", 0), r"device=0 must be a name: 'cpu'"),
        (lambda: eb.options(config_dirs=None), r"config_dirs=None must be a folder or a list"),
        (lambda: eb.options(config_dirs=[3]), r"config_dirs=3 must be the path of a folder"),
        (lambda: eb.load(None), r"root=None must be the path of a folder, such as root='runs'"),
        (lambda: eb.generator(data=3), r"data=3 must be the path of a folder"),
        (lambda: eb.inverted(0), r"folder=0 must be the path of a folder"),
        (lambda: eb.codes(gan, count=1.5), r"count=1\.5 must be a whole number"),
        (lambda: eb.codes(gan, count=1, seed="a"), r"seed='a' must be a whole number"),
        (lambda: eb.codes("faces32", count=1), r"a generator, .* not str"),
        (lambda: eb.strip([run]), "strip takes a run, .* not list"),
        (lambda: gan.decode(codes.values), r"decode takes Codes, .* not Tensor"),
        (lambda: judge(np.zeros((1, 3, 32, 32))), r"in \[-1, 1\] .* not ndarray of float64"),
        (lambda: judge(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)), r"not Tensor of torch\.u"),
        (lambda: judge(codes), "not Codes"),
        (
            lambda: judge(torch.zeros(1, 3, 32, 32, dtype=torch.float64)),
            r"float64: pass values\.to\(torch\.float32\)",
        ),
        (lambda: eb.Codes("w", codes.values), r"editbench\.Space\.W, not 'w' of type str"),
        (lambda: eb.Codes(eb.Space.W, codes.values.numpy()), "a tensor, not ndarray: pass torch"),
        (lambda: CrossingAccuracy().update(run.trajectory()), r"not take a table: pass Traj"),
    ]
    for call, message in wrong:
        with pytest.raises(WrongType, match=message):
            call()


def test_means_and_paired_tests_are_those_of_the_report_with_seeds_pooled(tmp_path):
    for method, share in (("weak", 0.3), ("strong", 0.8)):
        for seed in range(2):
            one_run(tmp_path, method, "smile", outcomes(share, seed), seed=seed)
    runs = eb.load(tmp_path)
    runs.report()
    means = runs.means()
    assert means[["method", "seeds", "n"]].values.tolist() == [["strong", 2, 60], ["weak", 2, 60]]
    assert means["accuracy"].tolist() == pytest.approx(
        [np.mean([outcomes(share, seed) for seed in range(2)]) for share in (0.8, 0.3)]
    )
    listed = pd.read_csv(tmp_path / "report" / "means.csv")
    numbers = [f"{name}{end}" for name in ("accuracy", "ad_at") for end in ("", "_low", "_high")]
    np.testing.assert_allclose(means[numbers].astype(float), listed[numbers])
    written = pd.read_csv(tmp_path / "report" / "paired.csv")
    pairs = runs.paired()
    assert pairs[["metric", "a", "b", "n"]].values.tolist() == [
        ["accuracy", "strong", "weak", 60],
        ["ad_at", "strong", "weak", 60],
    ]
    assert pairs["p_holm"].iloc[0] < 0.01
    numbers = ["x", "difference", "low", "high", "p", "p_holm"]
    np.testing.assert_allclose(pairs[numbers].astype(float), written[numbers])


def test_threads_may_load_networks_at_the_same_time():
    with ThreadPoolExecutor(6) as pool:
        gans = list(pool.map(eb.generator, ["faces32"] * 12))
    assert {gan.digest for gan in gans} == {eb.generator("faces32").digest}


def test_a_generator_takes_options_of_its_configuration(tmp_path):
    half, whole = eb.generator("faces32", truncation_psi=0.5), eb.generator("faces32")
    z = torch.randn(2000, whole.z_dim, generator=torch.Generator().manual_seed(0))
    spread = half.map(z).std(0).mean() / whole.map(z).std(0).mean()
    assert spread.item() == pytest.approx(0.5, rel=1e-3)
    with pytest.raises(EditbenchError, match="not there"):
        eb.generator("faces32", weights=str(tmp_path / "it's not there.safetensors"))


@pytest.mark.parametrize("get", [eb.generator, eb.judge, eb.teacher])
def test_the_folder_of_ones_own_files_can_be_given(get, tmp_path):
    with pytest.raises(EditbenchError, match=re.escape(f"{tmp_path}/mine: no such folder")):
        get("ffhq", data=tmp_path / "mine")


def test_a_report_has_the_titles_of_ones_own_folder(tmp_path):
    fake_run(tmp_path / "runs", "mine", "smile")
    conf = tmp_path / "conf"
    (conf / "method").mkdir(parents=True)
    (conf / "method" / "mine.yaml").write_text("name: mine\ntitle: My method\n")
    runs = eb.load(tmp_path / "runs")
    for folders, name in (((), "mine"), (conf, "My method")):
        runs.report(tmp_path / "page", config_dirs=folders)
        assert f"| {name} |" in (tmp_path / "page" / "table.md").read_text(encoding="utf-8")
    with pytest.raises(EditbenchError, match="no_such_folder: no such folder"):
        runs.report(config_dirs="no_such_folder")


SCRIPT = """
import editbench as eb

def main():
    words = "generator=toy scorer=toy budget=toy method=along attribute=a,b"
    print(eb.run(words, config_dirs={conf!r}, workers=2))

{call}
"""


@pytest.mark.parametrize("guarded", [False, True])
def test_a_script_with_workers_is_told_that_its_call_needs_a_condition(tmp_path, guarded):
    call = 'if __name__ == "__main__":\n    main()' if guarded else "main()"
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.format(conf=str(ROOT / "tests" / "conf"), call=call))
    path = {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, str(file)],
        cwd=tmp_path,
        env=os.environ | path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if guarded:
        assert ran.returncode == 0 and "2 done" in ran.stdout
    else:
        last = ran.stderr.strip().splitlines()[-1]
        assert ran.returncode == 1 and 'put this call below `if __name__ == "__main__":`' in last
        assert "bootstrapping" not in ran.stderr and ran.stderr.count("Traceback") == 1


def test_networks_of_ones_own_are_found_in_ones_own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownName, match="generator 'patches'"):
        eb.generator("patches")
    with pytest.raises(EditbenchError, match="no_such_folder: no such folder"):
        eb.options("generator", config_dirs="no_such_folder")
    # A generator of pictures of one colour, with a teacher and a judge.
    assert main(["new", "world", "patches"]) == 0
    assert "patches" in eb.options("scorer", config_dirs=["my_conf"])
    gan = eb.generator("patches", config_dirs="my_conf", size=8)
    images = gan.decode(eb.codes(gan, count=3))
    assert images.shape == (3, 3, 8, 8)
    for get in (eb.teacher, eb.judge):
        assert get("patches", config_dirs=Path("my_conf"))(images).shape == (3, 2)


def test_the_notebook_runs(here):
    """docs/tour.ipynb, from top to bottom, in this folder, whose bank it finds."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    client.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_the_interface_is_what_the_readme_shows():
    text = (ROOT / "README.md").read_text()
    assert set(re.findall(r"\beb\.(\w+)", text)) <= set(eb.__all__)
