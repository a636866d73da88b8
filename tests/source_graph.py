"""The import graph of the product, drawn from its sources without importing them."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The rooms of the package, from the ground up: a room imports only from rooms that stand before it.
ORDER = (
    "base",
    "stats",
    "networks",
    "worlds",
    "bank",
    "walk",
    "figures",
    "inversion",
    "run",
    "report",
    "regression",
    "conformance",
    "examples",
    "studies",
    "commands",
)
# What a wheel or a container is built from, beside the licence.
COPIED = ("editbench", "methods", "metrics", "conf", "pyproject.toml", "setup.py", "README.md")


def module_name(path: Path) -> str:
    """The dotted name of a source file: methods/x.py is `editbench.methods.x`."""
    words = list(path.relative_to(ROOT).with_suffix("").parts)
    if words[-1] == "__init__":
        words.pop()
    return ".".join(words if words[0] == "editbench" else ["editbench", *words])


def source_files() -> dict[str, Path]:
    """Every module of the product, by its dotted name."""
    folders = ("editbench", "methods", "metrics", "conf")
    return {
        module_name(path): path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def room(module: str) -> str:
    """The folder of `editbench` that a module stands in; '' for the few that stand in none."""
    words = module.split(".")
    is_package = f"{module}" in PACKAGES
    return words[1] if len(words) > 2 or is_package else ""


def imported_modules(module: str) -> set[str]:
    """Modules of the product that a module names in its import statements, whether at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in FILES else node.module)
    return {name for name in found if name in FILES and name != module}


FILES = source_files()
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"} - {"editbench"}
GRAPH = {module: imported_modules(module) for module in FILES}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph as a list of its nodes, or an empty list."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return path[path.index(node) :]
        if node in done:
            return []
        for other in sorted(graph.get(node, ())):
            found = visit(other, [*path, node])
            if found:
                return found
        done.add(node)
        return []

    for start in sorted(graph):
        found = visit(start, [])
        if found:
            return found
    return []
