"""What pytest does around the tests."""

import gc

# What is imported stays until the end: looking through it for garbage would only cost time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
