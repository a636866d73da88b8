"""What `editbench new` writes: its tests pass, it runs, and the documentation shows it."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from editbench.base import user_code
from editbench.cli import main
from editbench.commands.new import KINDS, class_name, written
from editbench.examples import steps_to_crossing
from editbench.report import Style, load
from editbench.run.compose import compose_settings
from tests.fake_records import fake_run, metric_rows

ROOT = Path(__file__).parents[1]
TOY = ["generator=toy", "scorer=toy", "budget=toy"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    others = [finder for finder in sys.meta_path if not isinstance(finder, user_code.UserCode)]
    monkeypatch.setattr(sys, "meta_path", others)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in list(sys.modules):
        if name.startswith(("my_own", "test_my_own")):
            del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_the_test_that_is_written_passes(kind, here, capsys):
    assert main(["new", kind, f"my_own_{kind}"]) == 0
    text = capsys.readouterr().out
    assert f"wrote my_own_{kind}.py" in text and f"pytest test_my_own_{kind}.py" in text
    quiet = ["-q", "-p", "no:cacheprovider", "--rootdir", str(here)]
    assert pytest.main([*quiet, str(here / f"test_my_own_{kind}.py")]) == 0


def test_editor_metric_and_world_run_together(here, capfd):
    for kind in ("editor", "metric", "world"):
        assert main(["new", kind, f"my_own_{kind}", "--config-dir", "conf"]) == 0
    shutil.copytree(ROOT / "tests" / "conf" / "budget", "conf/budget")
    world = ["generator=my_own_world", "scorer=my_own_world", "budget=toy", "out=runs", "cache=c"]
    words = [
        "-m",
        "method=my_own_editor,random",
        "attribute=bright",
        "metric=[crossing_accuracy,my_own_metric]",
    ]
    assert main(["run", "--config-dir", "conf", *world, *words]) == 0
    assert "2 jobs: 2 done" in capfd.readouterr().err
    success = {}
    for folder in Path("runs").glob("*-bright-*"):
        rows = pd.read_parquet(folder / "rows.parquet").set_index("metric")
        success[folder.name.partition("-")[0]] = rows.loc["success_rate", "value"]
        walks = pd.read_parquet(folder / "trajectory.parquet")
        steps = walks.loc[walks["stopped"], "step"].mean()
        assert rows.loc["my_own_metric", "value"] == pytest.approx(steps)
        assert rows.loc["my_own_metric", "group"] == "my_own_metric"
    assert success["my_own_editor"] > success["random"]
    assert main(["report", "runs"]) == 0
    assert pd.read_csv("runs/report/table.csv")["my_own_metric"].notna().all()
    page = Path("runs/report/index.html").read_text()
    assert "Steps to the crossing" in page and "figure of my_own_metric" not in page


def test_without_the_module_the_report_names_the_figure_and_goes_on(here, capfd):
    assert main(["new", "metric", "my_own_metric"]) == 0
    words = ["--config-dir", "my_conf", "--config-dir", str(ROOT / "tests" / "conf"), *TOY]
    job = ["method=along", "attribute=a", "metric=[my_own_metric]", "out=runs", "cache=cache"]
    assert main(["run", *words, *job]) == 0
    sys.modules.pop("my_own_metric")
    (here / "my_own_metric.py").unlink()
    assert main(["report", "runs"]) == 0
    page = Path("runs/report/index.html").read_text()
    assert "figure of my_own_metric" in page and "my own metric" in page


def test_nothing_is_overwritten(here, capsys):
    (here / "test_my_own_editor.py").write_text("mine\n")
    assert main(["new", "editor", "my_own_editor"]) == 1
    assert "these exist: test_my_own_editor.py" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["test_my_own_editor.py"]
    assert (here / "test_my_own_editor.py").read_text() == "mine\n"


def test_a_folder_that_is_none_is_said(here, capsys):
    (here / "file").write_text("")
    assert main(["new", "editor", "kept_nowhere", "--folder", "file"]) == 1
    assert "cannot write file (File exists)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-editor", "must be a Python name"),
        ("class", "must be a Python name"),
        ("Mine", "in small letters"),
        ("größer", "in small letters a to z"),
        ("none", "gives no name of a class (None)"),
        ("_1", "gives no name of a class (1)"),
        ("__", "gives no name of a class (nothing is left)"),
        ("gradctrl", "already the name of an option of method"),
        ("torch", "name of an installed module"),
        ("__main__", "the running program"),
    ],
)
def test_a_name_that_cannot_serve_is_refused(name, message, here, capsys):
    assert main(["new", "editor", name]) == 1
    assert message in capsys.readouterr().err and not list(here.iterdir())


def test_no_name_of_the_example_is_left():
    for kind in KINDS.values():
        for path, text in written(kind, "my_own", "conf").items():
            assert not re.search(rf"{kind.example}|{class_name(kind.example)}|my_conf", path + text)


def test_the_figure_of_the_metric_has_titles(tmp_path):
    for attribute in ("long_hair", "smile"):
        fake_run(tmp_path, "gradctrl", attribute, metric_rows(steps_to_crossing=4.0))
    results = load(tmp_path)
    theme = Style().theme(results)
    (drawing,) = steps_to_crossing.draw(results, theme)
    (axes,) = drawing.draw(theme).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["long hair", "smile"]
    assert [label.get_text() for label in axes.get_legend().get_texts()] == ["GradCtrl"]


def test_a_preset_of_an_own_method_begins_as_the_template_says(here):
    assert main(["new", "editor", "my_own_editor"]) == 0
    said = Path("my_conf/method/my_own_editor.yaml").read_text()
    (place, first) = re.search(r"(preset/\S+\.yaml), below the line \"(.*)\"", said).groups()
    preset = Path("my_conf") / place
    preset.parent.mkdir()
    preset.write_text(f"{first}\ndelta: 0.25\n")
    words = ["method=my_own_editor", "budget=demo"]
    assert compose_settings(words, [Path("my_conf")]).method.options["delta"] == 0.25


# -- the documentation -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("page", "kind"), [("docs/own_method.md", "editor"), ("docs/metrics.md", "metric")]
)
def test_the_documentation_shows_what_is_written(page, kind):
    text = (ROOT / page).read_text()
    example = KINDS[kind].example
    assert f"editbench new {kind} {example}" in text
    for path, content in written(KINDS[kind], example).items():
        language = "yaml" if path.endswith(".yaml") else "python"
        assert path.startswith("test_") or f"```{language}\n{content}```" in text, path


def test_a_name_that_holds_the_name_of_the_folder(here, capsys):
    words = ["--config-dir", "the conf", "--folder", "some where"]
    assert main(["new", "editor", "my_own_conf_editor", *words]) == 0
    assert (here / "some where" / "my_own_conf_editor.py").is_file()
    assert (here / "some where" / "the conf" / "method" / "my_own_conf_editor.yaml").is_file()
    text = capsys.readouterr().out
    assert "cd 'some where'" in text and "editbench demo --config-dir 'the conf'" in text
    texts = written(KINDS["editor"], "my_conf_editor", "conf")
    assert set(texts) == {
        "my_conf_editor.py",
        "test_my_conf_editor.py",
        "conf/method/my_conf_editor.yaml",
    }
