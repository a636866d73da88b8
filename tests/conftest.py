"""What pytest does around the tests."""

import gc
from pathlib import Path

import pytest

import tests.read_once  # noqa: F401 (parses constant YAML once)
from editbench.base.workers import PRELOADED
from editbench.networks import registry

# Workers of the product and processes of the tests are forks of one server, which imports this too.
PRELOADED.append("tests.warm")
# What is imported stays until the end: looking through it for garbage would only cost time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    # Python looks every 700 objects, which is a twentieth of the suite's time.
    gc.set_threshold(20_000, 20, 100)
    gc.enable()


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder of the repository, where workers find the package of the tests."""
    monkeypatch.chdir(Path(__file__).parents[1])


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The words of a sweep on the toy world, with methods one and two, which note what they do in tmp_path/notes."""
    from tests.sweep_editors import toy_words

    return toy_words(tmp_path)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of published networks, and no setting of the user's."""
    monkeypatch.setenv(registry.FOLDER, str(tmp_path / "networks"))
    monkeypatch.delenv(registry.OFFLINE, raising=False)
    monkeypatch.delenv(registry.MIRROR, raising=False)
    monkeypatch.setattr(registry, "_offline", False)
    return tmp_path / "networks"
