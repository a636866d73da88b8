"""The structure of the sources: where files stand, and which way they import."""

from __future__ import annotations

import ast

import pytest

from tests.source_graph import FILES, GRAPH, ORDER, ROOT, circle, room

EDGES = ("methods", "metrics")  # beside the rooms: what users add to


def test_no_file_lies_loose_beside_the_rooms():
    loose = {path.name for path in (ROOT / "editbench").glob("*.py")}
    assert loose <= {"__init__.py", "__main__.py", "cli.py", "api.py"}


def test_no_two_modules_import_each_other_in_a_circle():
    assert circle(GRAPH) == []


# What a room may not import, and why.
FORBIDDEN = {
    "a room above it": lambda one, other: (
        one in ORDER and other in ORDER and ORDER.index(other) > ORDER.index(one)
    ),
    # The entry point and the public interface stand in no room; commands alone may use them.
    "what stands above all rooms": lambda one, other: one not in ("", "commands") and other == "",
    # Only Hydra's `_target_` joins the harness with them.
    "a method or a metric, as the harness": lambda one, other: one not in EDGES and other in EDGES,
    "methods by metrics or the reverse": lambda one, other: {one, other} == set(EDGES),
    # Methods and metrics work on codes and tables; jobs, records and reports are the harness's business.
    "a room above the walk, as a method or metric": lambda one, other: (
        one in EDGES and other in ORDER[ORDER.index("inversion") :]
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_room_imports(what):
    forbidden = FORBIDDEN[what]
    found = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in others
        if forbidden(room(module), room(other))
    ]
    assert found == []


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
