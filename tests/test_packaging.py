"""The wheel: one top-level package, which imports the same names wherever it is put."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages

from tests.source_graph import COPIED

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this checkout, built in a copy, since a build leaves folders in its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    subprocess.run(
        ["cp", "-r", *(str(ROOT / name) for name in (*COPIED, "LICENSE")), str(source)], check=True
    )
    words = ["pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder)]
    run = subprocess.run(
        [sys.executable, "-m", *words, str(source)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_has_one_top_level_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"editbench"}


def test_the_wheel_holds_every_source_and_data_file(unpacked):
    """Compared with the checkout: a folder without an __init__.py would be left out silently."""
    missing = []
    for folder in ("editbench", "methods", "metrics", "conf"):
        inside = (
            unpacked / "editbench" if folder == "editbench" else unpacked / "editbench" / folder
        )
        for path in (ROOT / folder).rglob("*"):
            is_source = path.is_file() and "__pycache__" not in path.parts
            if is_source and not (inside / path.relative_to(ROOT / folder)).is_file():
                missing.append(str(path.relative_to(ROOT)))
    assert missing == []
    assert (unpacked / "editbench" / "py.typed").is_file()


def test_the_unpacked_wheel_imports_the_same_names_in_a_folder_with_others(unpacked, tmp_path):
    """The folder has a `methods`, a `metrics` and a `conf` that would fail if they were
    imported. No name needs the picture libraries that torchmetrics uses where they are.
    """
    for name in ("methods", "metrics", "conf"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    code = (
        "import sys\n"
        "sys.modules['torchvision'] = sys.modules['torch_fidelity'] = None\n"
        "finders = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "sys.meta_path = finders\n"
        "import importlib, pathlib, editbench\n"
        f"assert pathlib.Path(editbench.__file__).is_relative_to({str(unpacked)!r})\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "from editbench.run.compose import compose_settings\n"
        "print(compose_settings(['method=interfacegan']).method.build())\n"
    )
    names = [f"editbench.{name}" for name in find_packages(str(ROOT / "editbench"))]
    for folder in ("methods", "metrics"):
        names += [f"editbench.{folder}.{name}" for name in find_packages(str(ROOT / folder))]
    run = subprocess.run(
        [sys.executable, "-c", code, *names],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "InterFaceGAN" in run.stdout
