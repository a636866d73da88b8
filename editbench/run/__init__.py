"""Jobs: settings, identity, fits, records, sweeps.

`editbench.run` is both this package and a function of the public interface. Importing any module of
the package binds the name `run` of `editbench` to the package, so the package is made callable.
"""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that can be called as `editbench.api.run`, and is described as that function."""

    def __call__(self, *overrides: Any, **options: Any) -> Any:
        return self._function(*overrides, **options)

    @property
    def _function(self) -> Any:
        # Looked up by name, since this room must not import the public interface above it.
        root = self.__name__.partition(".")[0]
        return importlib.import_module(f"{root}.api").run

    # What `help(editbench.run)` and a notebook's `editbench.run?` show.
    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return f"run{self.__signature__}\n\n{inspect.getdoc(self._function)}"


# Python allows a module to take a subclass of ModuleType as its class.
sys.modules[__name__].__class__ = _CallablePackage
