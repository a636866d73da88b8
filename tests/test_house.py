"""Rules of the house: imports run one way, files fit in one head, configurations are whole, lint is clean."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import get_class

from editbench.base.conf import CONF, group_options
from editbench.run.compose import compose_config
from editbench.walk.editor import Editor
from editbench.walk.metric import Metric

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for folder in ("editbench", "methods", "metrics")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def imported(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    forbidden = {
        "editbench": ("methods", "metrics"),
        "methods": ("metrics", "editbench.report", "editbench.run.record"),
        "metrics": (
            "methods",
            "editbench.networks",
            "editbench.networks.scorers",
            "editbench.bank.bank",
        ),
    }
    for name in imported(path):
        for prefix in forbidden[path.relative_to(ROOT).parts[0]]:
            assert name != prefix and not name.startswith(prefix + "."), (
                f"{path.name} imports {name}"
            )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_fits_in_one_head_and_says_what_it_is(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 250, f"{path.name}: find the seam"
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path.name} has no docstring"


@pytest.mark.parametrize("method", group_options("method"))
def test_every_method_is_configured_and_described(method):
    config = compose_config([f"method={method}"]).method
    assert config.name == method and config.about
    assert issubclass(get_class(config["_target_"]), Editor)


@pytest.mark.parametrize("metric", group_options("metric"))
def test_every_metric_is_configured_versioned_and_tells_the_better_side(metric):
    cfg = compose_config([f"metric=[{metric}]"])
    cls = get_class(cfg.metric[metric]["_target_"])
    assert issubclass(cls, Metric) and cls.version >= 1 and cls.produces and cls.citation


@pytest.mark.parametrize("experiment", group_options("experiment"))
def test_every_experiment_composes(experiment):
    assert compose_config([f"experiment={experiment}"]).name == experiment


@pytest.mark.parametrize("budget", group_options("budget"))
def test_every_budget_sets_what_the_job_reads(budget):
    cfg = compose_config([f"budget={budget}"])
    assert (
        cfg.starts.n <= round(cfg.starts.pool * cfg.bank.n) and cfg.bank.shard % cfg.bank.block == 0
    )


def test_groups_and_keys_of_the_main_configuration_exist():
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert folders >= {"generator", "scorer", "bank", "method", "metric", "experiment", "budget"}


@pytest.mark.parametrize("tool", [["ruff", "check", "."], ["mypy"]], ids=["ruff", "mypy"])
def test_lint_and_types_are_clean(tool):
    run = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
