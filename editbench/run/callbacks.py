"""A user's Hydra callbacks (the key `hydra.callbacks`) in a sweep."""

from __future__ import annotations

import warnings
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from editbench.base.errors import one_line


class Callbacks(Callback):
    """All callbacks of a configuration as one object, which a launcher passes to its workers.

    Hydra's own class for this is private. As in Hydra, an error in a callback is only a warning,
    and callbacks of an end are called in reverse order.

    Args:
        master: configuration of the sweep, with Hydra's own node.
    """

    def __init__(self, master: DictConfig) -> None:
        parts = OmegaConf.select(master, "hydra.callbacks") or {}
        self.parts: list[Callback] = [instantiate(part) for part in parts.values()]

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        for part in self.parts:
            _call(part, "on_multirun_start", config=config, **kwargs)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        for part in reversed(self.parts):
            _call(part, "on_multirun_end", config=config, **kwargs)

    def on_job_start(
        self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any
    ) -> None:
        for part in self.parts:
            _call(part, "on_job_start", config=config, task_function=task_function, **kwargs)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        for part in reversed(self.parts):
            _call(part, "on_job_end", config=config, job_return=job_return, **kwargs)


def _call(part: Callback, event: str, **given: Any) -> None:
    """Call a callback; a job does not fail because of it."""
    try:
        getattr(part, event)(**given)
    except Exception as error:  # a user's code may raise anything
        warnings.warn(f"callback {type(part).__name__}.{event}: {one_line(error)}", stacklevel=2)
