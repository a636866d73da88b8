"""torchmetrics without what it loads for nobody here.

At its import torchmetrics loads scipy.signal (with scipy.stats), for an alias that another library
looks for, and matplotlib.pyplot, for the plots of its own metrics: two seconds of every process that
computes a metric. Here both are put off. Whoever asks a metric for a plot gets it, and pyplot is
loaded then.

    from editbench.base.light_torchmetrics import torchmetrics
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any

PUT_OFF = ("scipy.signal", "matplotlib.axes", "matplotlib.pyplot")


class PutOff(ModuleType):
    """A module that is loaded when something of it is used for the first time."""

    def __getattr__(self, name: str) -> Any:
        # Python itself asks for names such as __path__ while it imports.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def _styled(style: list[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`pyplot.style.context` as a decorator, looked up when the function is called."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def drawn(*args: Any, **options: Any) -> Any:
            with importlib.import_module("matplotlib.style").context(style):
                return function(*args, **options)

        return drawn

    return decorate


@contextmanager
def put_off() -> Iterator[None]:
    """Modules of PUT_OFF that are imported meanwhile are loaded at their first use."""
    standins: dict[str, PutOff] = {}
    for name in PUT_OFF:
        if name not in sys.modules:
            standins[name] = PutOff(name)
    # What torchmetrics touches of them at its import: an alias, and classes for annotations.
    wanted: dict[str, dict[str, Any]] = {
        "scipy.signal": {"hamming": None},
        "matplotlib.axes": {"Axes": object},
        "matplotlib.pyplot": {"Figure": object, "style": SimpleNamespace(context=_styled)},
    }
    for name, standin in standins.items():
        vars(standin).update(wanted[name])
        sys.modules[name] = standin
        package, _, module = name.partition(".")
        setattr(importlib.import_module(package), module, standin)
    try:
        yield
    finally:
        for name, standin in standins.items():
            if sys.modules.get(name) is standin:
                del sys.modules[name]
            package, _, module = name.partition(".")
            if vars(sys.modules[package]).get(module) is standin:
                delattr(sys.modules[package], module)
            # From now on every name is that of the real module.
            for placeholder in wanted[name]:
                del vars(standin)[placeholder]


# Where somebody has imported it before, this changes nothing.
with put_off():
    import torchmetrics as torchmetrics
