"""The workflow of GitHub Actions and the container file name what exists in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.source_graph import COPIED

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".github" / "workflows" / "test.yml").read_text()


def test_keys_of_caches_are_hashes_of_files_that_exist():
    patterns = {
        pattern
        for listed in re.findall(r"hashFiles\(([^)]*)\)", TEXT)
        for pattern in re.findall(r"'([^']+)'", listed)
    }
    assert {"pyproject.toml", "Makefile", "methods/**"} <= patterns
    for pattern in patterns:
        assert any(ROOT.glob(pattern)), pattern


def test_an_older_cache_is_restored_only_for_the_same_libraries():
    """`restore-keys` are beginnings of the key: what stands behind them may differ."""
    [steps] = [job["steps"] for name, job in yaml.safe_load(TEXT)["jobs"].items() if name == "demo"]
    [cache] = [step["with"] for step in steps if step.get("uses", "").startswith("actions/cache@")]
    assert cache["key"].startswith(cache["restore-keys"])
    assert "hashFiles('pyproject.toml', 'Makefile')" in cache["restore-keys"]
    assert "methods" not in cache["restore-keys"]


def test_every_make_target_that_it_runs_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"run: make (\w+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_container_has_the_torch_of_the_makefile_and_the_sources_of_the_wheel():
    makefile = (ROOT / "Makefile").read_text()
    container = (ROOT / "Containerfile").read_text()
    [version] = re.findall(r"torch==([0-9.]+)", makefile)
    assert f"ARG TORCH={version}\n" in container
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert admitted == {*COPIED, "LICENSE"}
    assert all((ROOT / name).exists() for name in admitted)
