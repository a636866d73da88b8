"""editbench: a comparative benchmark for GAN image editors.

The public interface is the names in `__all__`. Their code lies in `editbench.api`, which is
imported when the first of them is used: `import editbench` alone loads neither torch nor pandas.

    import editbench as eb

    runs = eb.run("method=gradctrl,interfacegan attribute=smile budget=demo")
    table = runs.table()
"""

import importlib
from typing import Any

__version__ = "0.1.0"

__all__ = [
    "Codes",
    "Run",
    "Runs",
    "Space",
    "codes",
    "generator",
    "inverted",
    "judge",
    "load",
    "options",
    "run",
    "strip",
    "teacher",
]


def __getattr__(name: str) -> Any:
    """A public name, from `editbench.api`. Subpackages are found by Python's own import."""
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
