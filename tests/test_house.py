"""Every module and every option of the configuration is whole and described."""

import ast
import re
from pathlib import Path

import pytest
from hydra.utils import get_class

from editbench.base.conf import CONF, group_options
from editbench.report.cells import COLUMNS
from editbench.report.figure_trade import SIDE
from editbench.report.tables import ABOVE_FLOOR
from editbench.run.compose import compose_config
from editbench.walk.metric import Metric
from tests.source_graph import FILES, GRAPH, room

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for folder in ("editbench", "methods", "metrics")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_every_module_says_what_it_is_for():
    """A package file that only passes names on needs no docstring."""
    silent = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defines = [node for node in tree.body if not _passes_on(node)]
        if defines and not ast.get_docstring(tree):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def _passes_on(node):
    """Whether a statement is an import, or the assignment of `__all__`."""
    is_list = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    return is_list or isinstance(node, ast.Import | ast.ImportFrom)


def test_metrics_see_no_networks_and_no_bank():
    """A metric reads trajectories; what needs a network is an observation beside it."""
    readers = {
        module
        for module, path in FILES.items()
        if room(module) == "metrics" and path.name == "metric.py"
    }
    seen = [
        f"{module} -> {other}"
        for module in readers
        for other in GRAPH[module]
        if room(other) in ("networks", "bank")
    ]
    assert seen == []


# What the name of a number says about its better side.
HIGHER = (
    "accuracy|success|similarity|verified|right|reached|crossed|stop_is_true|cd_.*control|"
    "locality_(top|inside|touched)"
)
LOWER = (
    "flips|ad$|ad_max|ad_at|wrong_direction|path_length|entropy|commutator|dependency_on|distance|"
    "fid|kid|error|iqr|scatter_ratio|reproduction_control"
)


@pytest.mark.parametrize("metric", group_options("metric"))
def test_every_metric_is_configured_versioned_and_tells_the_better_side(metric):
    cfg = compose_config([f"metric=[{metric}]"])
    # The same metric with other options has the name of the metric.
    (chosen,) = cfg.metric.values()
    cls = get_class(chosen["_target_"])
    assert issubclass(cls, Metric) and cls.version >= 1 and cls.produces and cls.citation
    for name, better in cls.produces.items():
        if better is not None:
            assert bool(re.search(HIGHER, name)) == better, name
            assert bool(re.search(LOWER, name)) != better, name
    # Tables and figures mark the same side.
    shown = [(column.key, column.better) for column in (*COLUMNS, SIDE)]
    for name, better in (*shown, *ABOVE_FLOOR.items()):
        if name in cls.produces and better is not None:
            assert better == cls.produces[name], name


@pytest.mark.parametrize("budget", group_options("budget"))
def test_every_budget_sets_what_the_job_reads(budget):
    cfg = compose_config([f"budget={budget}"])
    candidates = round(cfg.bank.n * (1 - cfg.bank.fit - cfg.bank.tune))
    assert cfg.starts.n <= round(cfg.starts.pool * candidates)
    assert cfg.bank.shard % cfg.bank.block == 0


def test_groups_and_keys_of_the_main_configuration_exist():
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert folders >= {"generator", "scorer", "bank", "method", "metric", "experiment", "budget"}
