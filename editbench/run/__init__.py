"""Jobs: settings, identity, fits, records, sweeps.

`editbench.run` is this package and a function of the public interface as well. Importing any module
of the package binds the name `run` of `editbench` to the package, so the package is made callable.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that can be called as `editbench.api.run`."""

    def __call__(self, *overrides: Any, **options: Any) -> Any:
        # Found by name: the interface stands above this room, which must not import it.
        root = self.__name__.partition(".")[0]
        return importlib.import_module(f"{root}.api").run(*overrides, **options)


# Python allows a module to take a subclass of ModuleType as its class.
sys.modules[__name__].__class__ = _CallablePackage
