"""What pytest does around the tests."""

import gc

import tests.read_once  # noqa: F401 (parses constant YAML once)
from editbench.base.workers import PRELOADED

# Workers of the product and processes of the tests are forks of one server, which imports this too.
PRELOADED.append("tests.warm")
# What is imported stays until the end: looking through it for garbage would only cost time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    # Python looks every 700 objects, which is a twentieth of the suite's time.
    gc.set_threshold(20_000, 20, 100)
    gc.enable()
