"""The structure of the sources: where files stand, and which way they import."""

from __future__ import annotations

import ast

from tests.source_graph import FILES, GRAPH, ORDER, ROOT, circle, room


def test_no_file_lies_loose_beside_the_rooms():
    loose = {path.name for path in (ROOT / "editbench").glob("*.py")}
    assert loose <= {"__init__.py", "__main__.py", "cli.py", "api.py"}


def test_no_two_modules_import_each_other_in_a_circle():
    assert circle(GRAPH) == []


def test_every_room_imports_only_from_rooms_below_it():
    upwards = []
    for module, others in GRAPH.items():
        if room(module) not in ORDER:
            continue
        for other in others:
            if room(other) in ORDER and ORDER.index(room(other)) > ORDER.index(room(module)):
                upwards.append(f"{module} -> {other}")
    assert sorted(upwards) == []


def test_no_room_imports_what_stands_above_all_rooms():
    """The entry point and the public interface stand in no room; commands alone may use them."""
    upwards = []
    for module, others in GRAPH.items():
        if room(module) in ("", "commands"):
            continue
        upwards += [f"{module} -> {other}" for other in others if room(other) == ""]
    assert upwards == []


def test_the_harness_knows_no_method_and_no_metric():
    """Only Hydra's `_target_` joins them."""
    named = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in others
        if room(other) in ("methods", "metrics") and room(module) not in ("methods", "metrics")
    ]
    assert named == []


def test_methods_and_metrics_do_not_know_each_other():
    named = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in others
        if {room(module), room(other)} == {"methods", "metrics"}
    ]
    assert named == []


def test_methods_and_metrics_see_no_room_above_the_walk():
    """They work on codes and tables; jobs, records and reports are the harness's business."""
    above = ORDER[ORDER.index("inversion") :]
    named = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in others
        if room(module) in ("methods", "metrics") and room(other) in above
    ]
    assert named == []


def test_every_room_is_named_in_the_order():
    rooms = {room(module) for module in FILES} - {"", "methods", "metrics", "conf"}
    assert rooms == set(ORDER)


def test_no_module_uses_a_private_module_of_hydra():
    private = []
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name.startswith("hydra.") and "._" in name:
                    private.append(f"{module}: {name}")
    assert private == []
