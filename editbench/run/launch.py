"""Under Hydra's launchers: which are there, the jobs of a sweep, and what each worker may use of the machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from editbench.base.conf import CONF
from editbench.base.errors import EditbenchError, UnknownName

EXTRAS = {
    "joblib": ("launch", "hydra_joblib_launcher"),
    "submitit_local": ("slurm", "hydra_submitit_launcher"),
    "submitit_slurm": ("slurm", "hydra_submitit_launcher"),
}  # launcher -> our extra, and its plugin
CHOICE = "hydra/launcher="


def check_launcher(words: Sequence[str], more: Sequence[Path] = ()) -> None:
    """Raise unless the launcher that the words ask for is installed, naming the extra that brings it.

    `more`: a user's own configuration folders, which may hold hydra/launcher/NAME.yaml.
    """
    for name in (word.removeprefix(CHOICE) for word in words if word.startswith(CHOICE)):
        if name in EXTRAS:
            extra, plugin = EXTRAS[name]
            if not installed(plugin):
                raise EditbenchError(
                    f"hydra/launcher={name} needs a plugin that is not installed: "
                    f"pip install 'editbench[{extra}]'"
                )
            continue
        Plugins.instance()  # registers the launchers of all plugins
        known = {Path(file).stem for file in ConfigStore.instance().list("hydra/launcher")} | set(
            EXTRAS
        )
        known |= {
            file.stem
            for folder in (CONF, *more)
            for file in (folder / "hydra" / "launcher").glob("*.yaml")
        }
        if name not in known:
            raise UnknownName("launcher", name, known)


def installed(plugin: str) -> bool:
    """Whether a plugin of Hydra can be imported; without any, the namespace package itself may be absent."""
    return (
        find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{plugin}") is not None
    )


def sweep_jobs(config: DictConfig, loader: ConfigLoader) -> list[list[str]]:
    """The overrides of every job, in order, of a configuration composed for a multirun; Hydra's own parser and product.

    An experiment's hydra.sweeper.params come first, so that the command line replaces them.
    """
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(
        [*words, *config.hydra.overrides.task]
    )
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return jobs


# -- shares of the machine ---------------------------------------------------------------------------------------------
def many_processes(launcher: str) -> bool:
    """Whether a launcher, by its `_target_`, gives jobs to other processes than the one that started the sweep."""
    return not launcher.endswith(".BasicLauncher")


@cache
def end_with_parent(parent: int) -> None:
    """End this process within a second of the death of the one that started it, which could tell it nothing.

    A worker left alone would hold its locks for as long as its job takes, and its memory for longer. `parent` is the
    process id: the parent may have died before this is called.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def local_workers(config: DictConfig, jobs: int, cores: int) -> int | None:
    """How many jobs run at once on this machine; None where that is not for us to say (a cluster)."""
    batch = config.hydra.sweeper.get("max_batch_size")
    at_once = max(1, jobs if batch is None or batch < 1 else min(jobs, batch))
    target = str(config.hydra.launcher._target_)
    if target.endswith(".BasicLauncher"):
        return 1
    if target.endswith(".JoblibLauncher"):
        asked = config.hydra.launcher.n_jobs
        return max(
            1, min(at_once, asked if asked > 0 else cores + 1 + asked)
        )  # -1 all cores, -2 all but one
    return at_once if target.endswith(".LocalLauncher") else None


def worker_threads(workers: int | None, cores: int, environ: Mapping[str, str]) -> int | None:
    """Threads for each of several workers on one machine; None leaves them as they are.

    OMP_NUM_THREADS, where it is set, is the user's own decision.
    """
    if workers is None or workers == 1 or environ.get("OMP_NUM_THREADS"):
        return None
    return max(1, cores // workers)


def available_cores() -> int:
    """Cores that this process may use: a container or a scheduler may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def dealt_device(device: str, number: int, count: int) -> str:
    """The device of job `number`: device=cuda goes round the `count` devices in turn, any other stays what it is."""
    return f"cuda:{number % count}" if device == "cuda" and count > 0 else device
