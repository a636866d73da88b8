"""Modules of a user: found in the current folder and beside the configuration, and after everything installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from editbench.base import user_code
from editbench.base.errors import EditbenchError
from editbench.base.sources import source_hashes
from editbench.base.validation import check_options, load_target
from editbench.cli import main
from editbench.run.sweep import _in_worker

ROOT = Path(__file__).parents[1]
CODE = """
from tests import toy_world
from editbench.metrics.crossing_accuracy import CrossingAccuracy
from editbench.walk.observation import DuringWalk


class Generator(toy_world.ToyGenerator): ...
class Scorer(toy_world.ToyScorer): ...
class Editor(toy_world.AlongColumn): ...
class Metric(CrossingAccuracy): ...


class Observation(DuringWalk):
    def measure(self, walk, codes, decoded, reference):
        return {"brightness": decoded.flatten(1).mean(1)}
"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """The process as it was: no folder of an earlier test is searched, and no module of this one stays."""
    others = [finder for finder in sys.meta_path if not isinstance(finder, user_code.UserCode)]
    monkeypatch.setattr(sys, "meta_path", others)
    yield
    for name in list(sys.modules):
        if name.startswith("own_"):
            del sys.modules[name]


def own_configuration(folder: Path, module: str) -> Path:
    """A configuration folder with an option of every kind, each of a class of `module`."""
    conf = folder / "my_conf"
    texts = {
        "generator": f"name: mine\n_target_: {module}.Generator\n",
        "scorer": f"teacher: {{_target_: {module}.Scorer, digest: t}}\njudge: {{_target_: {module}.Scorer}}\n",
        "method": f"name: mine\n_target_: {module}.Editor\n",
        "metric": f"# @package metric.mine\n_target_: {module}.Metric\n",
        "observation": f"# @package observation.mine\n_target_: {module}.Observation\n",
        "budget": (ROOT / "tests" / "conf" / "budget" / "toy.yaml").read_text(),
    }
    for group, text in texts.items():
        (conf / group).mkdir(parents=True)
        (conf / group / "mine.yaml").write_text(text)
    return conf


@pytest.mark.parametrize("place", ["current", "beside"])
def test_every_kind_of_component_is_found(place, tmp_path, monkeypatch, capfd):
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    conf = own_configuration(tmp_path, f"own_{place}")
    folder = {"current": current, "beside": tmp_path}[place]
    (folder / f"own_{place}.py").write_text(CODE)
    one_of_each = ["generator=mine", "scorer=mine", "method=mine", "budget=mine"]
    lists = ["metric=[mine]", "observation=[mine]", "attribute=a"]
    words = ["--config-dir", str(conf), *one_of_each, *lists]
    assert main(["run", *words, f"out={tmp_path}/runs", f"cache={tmp_path}/cache"]) == 0
    assert "mine x a, seed 0: done" in capfd.readouterr().err
    (status,) = (tmp_path / "runs").glob("mine-*/status.json")
    assert json.loads(status.read_text())["status"] == "done"


def test_a_run_is_named_by_the_source_of_the_users_file(tmp_path):
    (tmp_path / "own_named.py").write_text("import own_part\n\nclass Mine: ...\n")
    (tmp_path / "own_part.py").write_text("RATE = 3\n")
    user_code.search_folders(tmp_path)
    assert set(source_hashes("own_named.Mine")) == {"own_named", "own_part"}


@pytest.mark.parametrize("name", ["editbench", "torch", "random", "own_file"])
def test_a_file_never_takes_the_place_of_a_module(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("class Mine: ...\n")
    user_code.search_folders(tmp_path)
    if name == "own_file":
        assert load_target("method._target_", f"{name}.Mine").__name__ == "Mine"
        return
    with pytest.raises(EditbenchError, match=f"the name is taken by .*: rename .*{name}.py"):
        load_target("method._target_", f"{name}.Mine")


def test_a_folder_named_as_the_package_is_passed_over(tmp_path):
    """As beside a checkout that is called `editbench`."""
    (tmp_path / "editbench").mkdir()
    (tmp_path / "editbench" / "__init__.py").write_text("raise RuntimeError\n")
    user_code.search_folders(tmp_path)
    specs = [finder.find_spec("editbench", None) for finder in sys.meta_path]
    first = next(spec for spec in specs if spec is not None)
    assert Path(first.origin).parents[1] == ROOT


def test_a_folder_of_results_is_no_module(tmp_path):
    (tmp_path / "wandb" / "latest").mkdir(parents=True)
    (tmp_path / "own_helpers").mkdir()
    (tmp_path / "own_helpers" / "one.py").write_text("ONE = 1\n")
    user_code.search_folders(tmp_path)
    with pytest.raises(ImportError, match="wandb"):
        __import__("wandb.latest")
    assert __import__("own_helpers.one").one.ONE == 1


def test_what_is_nowhere_says_where_to_put_it(tmp_path):
    user_code.search_folders(tmp_path)
    with pytest.raises(EditbenchError, match=r"put own_absent\.py into the current folder"):
        load_target("method._target_", "own_absent.Mine")
    # A network within another component is first met where its source is hashed.
    with pytest.raises(
        EditbenchError, match=r"own_absent\.Mine .*put own_absent\.py into the curr"
    ):
        source_hashes("own_absent.Mine")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("own_key", "\nMine = {}['a']\n", r"KeyError: 'a' \(.*own_key\.py:2\)"),
        ("own_import", "import own_nowhere\n", r"No module named 'own_nowhere' \(.*\.py:1\)"),
        ("own_exit", "raise SystemExit\n", r"SystemExit \(.*own_exit\.py:1\)"),
        ("own_syntax", "def f(:\n", r"invalid syntax \(own_syntax\.py, line 1\)"),
        ("own_other", "class Yours: ...\n", r"module 'own_other' has no attribute 'Mine'$"),
    ],
)
def test_a_module_that_cannot_be_imported_says_where(name, text, message, tmp_path, capfd):
    (tmp_path / f"{name}.py").write_text(text)
    user_code.search_folders(tmp_path)
    with pytest.raises(
        EditbenchError, match=f"_target_={name}.Mine cannot be imported: .*{message}"
    ):
        load_target("method._target_", f"{name}.Mine")
    assert capfd.readouterr().err == ""  # the message says it all


def test_the_line_is_that_of_the_file_that_fails_and_not_of_the_one_that_imports_it(tmp_path):
    (tmp_path / "own_outer.py").write_text("import own_inner\n")
    (tmp_path / "own_inner.py").write_text("import json\n\njson.loads('x')\n")
    user_code.search_folders(tmp_path)
    with pytest.raises(EditbenchError, match=r"JSONDecodeError: .* \(.*own_inner\.py:3\)$"):
        load_target("method._target_", "own_outer.Mine")


def test_a_worker_finds_what_its_sweep_finds(tmp_path, monkeypatch):
    (tmp_path / "own_worker.py").write_text("ANSWER = 42\n")
    user_code.search_folders(tmp_path)
    folders = user_code.searched_folders()
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:-1])
    assert not user_code.searched_folders()

    def task(config):
        return __import__("own_worker").ANSWER

    assert _in_worker(task, folders, False, None) == 42


def test_a_default_of_another_kind_is_no_example_of_a_right_value(tmp_path):
    slower = "class Slower(Editor):\n    def __init__(self, pace: int = 0.5): ...\n"
    (tmp_path / "own_slower.py").write_text(f"{CODE}\n{slower}")
    user_code.search_folders(tmp_path)
    with pytest.raises(EditbenchError, match=r"^method\.pace=0\.5 must be a whole number$"):
        check_options("method", "own_slower.Slower", {"pace": 0.5})


@pytest.mark.parametrize("later", ["", "from __future__ import annotations\n"])
def test_a_list_of_the_wrong_kind_is_told_by_its_key(tmp_path, later):
    """Whether annotations are objects or text."""
    name = f"own_lists{len(later)}"
    code = (
        f"{later}from collections.abc import Sequence\n"
        "class Lists:\n"
        "    def __init__(self, rows: Sequence[int] = (1, 2), names: list[str] | None = None,\n"
        "                 widths: float | Sequence[float] = 1.0,\n"
        "                 pairs: Sequence[Sequence[int]] = ((0, 18),),\n"
        "                 files: dict[str, str] = {}): ...\n"
    )
    (tmp_path / f"{name}.py").write_text(code)
    user_code.search_folders(tmp_path)
    target = f"{name}.Lists"
    for options in (
        {"rows": [3], "names": ["a"], "widths": [0.5, 2]},
        {"pairs": [[1, 2]], "files": {"smile": "a.npy"}},
    ):
        check_options("method", target, options)
    wrong = [
        ({"rows": 3}, "rows=3 must be a list of whole numbers, as in method.rows=[1,2]"),
        (
            {"rows": [1, 2.5]},
            "rows=[1,2.5] must be a list of whole numbers, as in method.rows=[1,2]",
        ),
        ({"rows": None}, "rows=null must be a list of whole numbers, as in method.rows=[1,2]"),
        ({"names": "smile"}, "names=smile must be a list of text or null"),
        ({"names": [True]}, "names=[true] must be a list of text or null"),
        (
            {"pairs": [1, 2]},
            "pairs=[1,2] must be a list of lists of whole numbers, as in method.pairs=[[0,18]]",
        ),
        ({"files": "smile.npy"}, "files=smile.npy must be a mapping from names to text"),
        (
            {"widths": "x"},
            "widths=x must be a number or a list of numbers, as in method.widths=1.0",
        ),
    ]
    for options, message in wrong:
        with pytest.raises(EditbenchError) as caught:
            check_options("method", target, options)
        assert str(caught.value) == f"method.{message}"


def test_a_default_of_none_allows_null(tmp_path):
    """Many annotations leave it out."""
    code = (
        "class Implicit:\n"
        "    def __init__(self, layers: list[int] = None, pace: int = None, last: int = 3): ...\n"
    )
    (tmp_path / "own_implicit.py").write_text(code)
    user_code.search_folders(tmp_path)
    check_options("method", "own_implicit.Implicit", {"layers": None, "pace": None})
    with pytest.raises(EditbenchError, match=r"method\.layers=3 must be a list of whole numbers$"):
        check_options("method", "own_implicit.Implicit", {"layers": 3})
    with pytest.raises(EditbenchError, match=r"method\.last=null must be a whole number"):
        check_options("method", "own_implicit.Implicit", {"last": None})


def test_an_argument_that_the_yaml_lacks_is_told_how_to_give(tmp_path, capsys):
    faster = "class Faster(Editor):\n    def __init__(self, pace: int = 1): ...\n"
    (tmp_path / "own_faster.py").write_text(f"{CODE}\n{faster}")
    conf = own_configuration(tmp_path, "own_faster")
    (conf / "method" / "faster.yaml").write_text("name: faster\n_target_: own_faster.Faster\n")
    words = ["run", "--config-dir", str(conf), "method=faster", "attribute=smile"]
    assert main([*words, "method.pace=2"]) == 1
    told = capsys.readouterr().err
    assert "the YAML of 'method' has no pace, which own_faster.Faster takes" in told
    assert main([*words, "method.pase=2"]) == 2
    assert "unknown option of 'method' 'pase'. Available: none." in capsys.readouterr().err
