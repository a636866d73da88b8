"""The hash of the source behind a class: what must change it, and what must not."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from editbench.base.errors import EditbenchError
from editbench.base.sources import LIBRARIES, source_digest, source_hashes
from editbench.run.environment import package_versions
from tests.by_config import load_networks, run_job
from tests.toy_world import toy_config

METHOD = """
from helper import direction
from package.near import scale
import constants


class Mine:
    def step(self):
        from lazily import late
        return direction() * scale * constants.TABLE["k"] * late()
"""
FILES = {
    "mine.py": METHOD,
    "helper.py": "def direction():\n    return 1\n",
    "constants.py": 'TABLE = {"k": 2}\n',
    "lazily.py": "def late():\n    return 3\n",
    "unrelated.py": "X = 1\n",
    "package/__init__.py": "",
    "package/near.py": "from .sibling import VALUE\nscale = VALUE\n",
    "package/sibling.py": "VALUE = 4\n",
    "package/unused.py": "VALUE = 5\n",
}


@pytest.fixture(autouse=True)
def no_modules_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests import modules of the same names, from folders of their own."""
    names = {Path(name).parts[0].removesuffix(".py") for name in FILES}
    for name in list(sys.modules):
        if name.partition(".")[0] in names:
            monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    return tmp_path


def digest_in_new_process(folder: Path, target: str = "mine.Mine") -> str:
    """The digest as the next command sees it."""
    program = f"from editbench.base.sources import source_digest; print(source_digest('{target}'))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("helper.py", "return 1", "return 2"),
        ("constants.py", "2}", "3}"),
        ("lazily.py", "return 3", "return 4"),
        ("package/sibling.py", "4", "5"),
        ("package/near.py", "scale = VALUE", "scale = VALUE + 1"),
        ("package/__init__.py", "", "X = 1\n"),
        ("mine.py", "* scale", "+ scale"),
    ],
)
def test_every_file_that_the_class_imports_counts(folder, monkeypatch, file, old, new):
    monkeypatch.syspath_prepend(str(folder))
    before = source_digest("mine.Mine")
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new) if old else new)
    assert source_digest("mine.Mine") != before


@pytest.mark.parametrize("file", ["unrelated.py", "package/unused.py", "new.py"])
def test_a_file_that_nothing_imports_does_not_count(folder, monkeypatch, file):
    monkeypatch.syspath_prepend(str(folder))
    before = source_digest("mine.Mine")
    (folder / file).write_text("X = 99\n")
    assert source_digest("mine.Mine") == before


def test_a_module_that_comes_later_counts_from_then_on(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    with (folder / "mine.py").open("a") as file:
        file.write("\n\ndef more():\n    import comes_later\n")
    before = source_digest("mine.Mine")
    (folder / "comes_later.py").write_text("X = 1\n")
    importlib.invalidate_caches()
    assert source_digest("mine.Mine") != before


@pytest.mark.parametrize(
    "call, file",
    [
        ('importlib.import_module("by_name")', "by_name.py"),
        ('import_module("package.unused")', "package/unused.py"),
        ('__import__("by_name")', "by_name.py"),
    ],
)
def test_a_module_that_is_imported_by_its_name_as_text_counts(folder, monkeypatch, call, file):
    monkeypatch.syspath_prepend(str(folder))
    (folder / "by_name.py").write_text("VALUE = 1\n")
    with (folder / "mine.py").open("a") as text:
        text.write(f"\n\ndef late(name):\n    import_module(name)\n    {call}\n")
    before = source_digest("mine.Mine")
    (folder / file).write_text("VALUE = 99\n")
    assert source_digest("mine.Mine") != before


def test_a_module_of_the_same_package_that_is_imported_by_its_name_counts(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    with (folder / "package" / "near.py").open("a") as text:
        text.write('\nimport_module(".unused", __package__)\n')
    assert "package.unused" in source_hashes("mine.Mine")


def test_a_folder_of_a_package_needs_no_init_file(folder, monkeypatch):
    """It is read before the package above it is imported."""
    monkeypatch.syspath_prepend(str(folder))
    deep = folder / "package" / "folder" / "inner"
    deep.mkdir(parents=True)
    (deep / "deep.py").write_text("VALUE = 6\n")
    with (folder / "mine.py").open("a") as text:
        text.write("\n\ndef late():\n    import package.folder.inner.deep\n")
    before = source_digest("mine.Mine")
    (deep / "deep.py").write_text("VALUE = 66\n")
    assert "package.folder.inner.deep" in source_hashes("mine.Mine")
    assert source_digest("mine.Mine") != before


@pytest.mark.parametrize("name", ["site-packages", "dist-packages"])
def test_packages_of_another_environment_are_libraries_too(folder, monkeypatch, name):
    """As of the system's Python, or of the modules of a cluster on PYTHONPATH."""
    packages = folder / "lib" / name
    packages.mkdir(parents=True)
    (packages / "some_library.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.syspath_prepend(str(packages))
    with (folder / "mine.py").open("a") as text:
        text.write("\n\ndef late():\n    import some_library\n")
    assert "some_library" not in source_hashes("mine.Mine")


def test_line_ends_of_windows_do_not_count(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    before = source_digest("mine.Mine")
    for name, text in FILES.items():
        (folder / name).write_bytes(text.replace("\n", "\r\n").encode())
    assert source_digest("mine.Mine") == before


def test_the_place_of_the_files_does_not_count(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere")
    for name, text in FILES.items():
        path = other / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert digest_in_new_process(folder) == digest_in_new_process(other)


def test_a_process_keeps_the_text_that_it_loaded(folder, monkeypatch):
    """What runs is the code as it was when it was imported."""
    monkeypatch.syspath_prepend(str(folder))
    import helper  # noqa: F401 - the module is what the test needs

    before = source_digest("mine.Mine")
    (folder / "helper.py").write_text("def direction():\n    return 7\n")
    assert source_digest("mine.Mine") == before
    assert digest_in_new_process(folder) != before
    for name in ("helper", "mine", "constants", "lazily", "package", "package.near"):
        sys.modules.pop(name, None)
    assert source_digest("mine.Mine") != before


def test_a_module_that_is_reloaded_counts_as_it_is_now(folder, monkeypatch):
    """As a notebook does it: the module object stays the same."""
    monkeypatch.syspath_prepend(str(folder))
    import helper

    before = source_digest("mine.Mine")
    (folder / "helper.py").write_text("def direction():\n    return 77\n")
    importlib.reload(helper)
    assert helper.direction() == 77
    assert source_digest("mine.Mine") == digest_in_new_process(folder) != before
    del sys.modules["helper"]


def test_a_network_that_is_reloaded_is_built_again(tmp_path, monkeypatch):
    text = (
        "from tests import toy_world\n\nclass Generator(toy_world.ToyGenerator):\n    mark = {}\n"
    )
    (tmp_path / "own_world.py").write_text(text.format(1))
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = toy_config(tmp_path)
    cfg.generator["_target_"] = "own_world.Generator"
    import own_world

    assert load_networks(cfg).generator.mark == 1
    assert load_networks(cfg).generator is load_networks(cfg).generator
    (tmp_path / "own_world.py").write_text(text.format(22))
    importlib.reload(own_world)
    assert load_networks(cfg).generator.mark == 22
    del sys.modules["own_world"]


def test_no_module_is_executed(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    (folder / "helper.py").write_text("raise SystemExit('this must not run')\n")
    assert "helper" in source_hashes("mine.Mine")


def test_libraries_are_left_to_the_versions_in_the_provenance():
    roots = {
        name.partition(".")[0] for name in source_hashes("editbench.methods.gradctrl.GradCtrl")
    }
    assert roots == {"editbench"}


def test_the_provenance_has_the_version_of_every_library_that_the_project_computes_with():
    declared = {re.split(r"[^\w.-]", line)[0] for line in metadata.requires("editbench") or ()}
    names = {metadata.packages_distributions().get(root, [root])[0] for root in LIBRARIES}
    computing = names & declared
    assert {"torch", "scikit-learn", "torchdiffeq"} <= computing
    assert computing <= set(package_versions())


def test_an_editor_of_the_package_counts_with_its_family_and_the_contract():
    names = set(source_hashes("editbench.methods.gradctrl.GradCtrl"))
    assert {"editbench.methods.gradctrl.editor", "editbench.walk.editor"} <= names
    assert not any(name.startswith(("editbench.report", "editbench.commands")) for name in names)
    assert not any(name.startswith("editbench.methods.navigan") for name in names)


def test_an_unknown_name_is_refused():
    with pytest.raises(EditbenchError, match=r"no_such_module\.Mine cannot be imported"):
        source_digest("no_such_module.Mine")


EDITOR = """
from helper import FACTOR
from tests.toy_world import AlongColumn


class Mine(AlongColumn):
    def step(self, walk):
        return walk.codes + FACTOR * (super().step(walk) - walk.codes)
"""


def test_a_run_is_repeated_after_a_helper_of_its_method_was_edited(tmp_path, monkeypatch):
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine.py").write_text(EDITOR)
    (code / "helper.py").write_text("FACTOR = 1\n")
    monkeypatch.syspath_prepend(str(code))
    first = run_job(toy_config(tmp_path, _target_="mine.Mine"))
    again = run_job(toy_config(tmp_path, _target_="mine.Mine"))
    assert first.status == "done" and not first.reused and again.reused
    (code / "helper.py").write_text("FACTOR = 2\n")
    for name in ("helper", "mine"):
        del sys.modules[name]
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    shutil.rmtree(code / "__pycache__", ignore_errors=True)
    edited = run_job(toy_config(tmp_path, _target_="mine.Mine"))
    assert edited.status == "done" and not edited.reused and edited.run_id != first.run_id


def test_a_class_of_a_library_is_named_by_its_version():
    assert source_hashes("torch.nn.Flatten") == {"torch": metadata.version("torch")}
    assert source_hashes("sklearn.svm.SVC") == {"sklearn": metadata.version("scikit-learn")}
