"""Hydra's launchers: which ones are installed, and each worker's share of the machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from editbench.base.conf import CONF
from editbench.base.errors import EditbenchError, UnknownName
from editbench.base.workers import worker_context

# Launcher -> the extra of this package that installs it, and the module of its plugin.
EXTRAS = {
    "joblib": ("launch", "hydra_joblib_launcher"),
    "submitit_local": ("slurm", "hydra_submitit_launcher"),
    "submitit_slurm": ("slurm", "hydra_submitit_launcher"),
}
CHOICE = "hydra/launcher="
# Launchers by the ends of their `_target_`; importing their classes would need the plugins.
BASIC = ".BasicLauncher"
JOBLIB = ".JoblibLauncher"
SUBMITIT_LOCAL = ".LocalLauncher"
SUBMITIT_SLURM = ".SlurmLauncher"
# A GPU with this many MiB more in use than the least used GPU counts as occupied.
IN_USE = 512


def check_launcher(overrides: Sequence[str], more: Sequence[Path] = ()) -> None:
    """Check that the launcher is installed.

    Args:
        overrides: words of a command line.
        more: a user's own configuration folders, which may hold hydra/launcher/NAME.yaml.

    Raises:
        EditbenchError: its plugin is not installed, with the extra that brings it.
        UnknownName: there is no such launcher.
    """
    for word in overrides:
        if not word.startswith(CHOICE):
            continue
        name = word.removeprefix(CHOICE)
        if name not in EXTRAS:
            _check_known(name, more)
            continue
        extra, plugin = EXTRAS[name]
        if not installed(plugin):
            raise EditbenchError(
                f"hydra/launcher={name} needs a plugin that is not installed: "
                f"pip install 'editbench[{extra}]'"
            )


def _check_known(name: str, more: Sequence[Path]) -> None:
    Plugins.instance()  # registers the launchers of all plugins in the ConfigStore
    known = set(EXTRAS)
    known |= {Path(file).stem for file in ConfigStore.instance().list("hydra/launcher")}
    for folder in (CONF, *more):
        # A user may configure their own launcher, or configure one of ours differently.
        known |= {file.stem for file in (folder / "hydra" / "launcher").glob("*.yaml")}
    if name not in known:
        raise UnknownName("launcher", name, known)


def installed(plugin: str) -> bool:
    """Whether a plugin of Hydra can be imported.

    Without any plugin, the namespace package `hydra_plugins` itself is absent, and searching it for
    a module would raise an error.
    """
    if find_spec("hydra_plugins") is None:
        return False
    return find_spec(f"hydra_plugins.{plugin}") is not None


# -- shares of the machine -----------------------------------------------------------------------
def many_processes(launcher: str) -> bool:
    """Whether a launcher, given by its `_target_`, runs jobs outside the sweep's own process."""
    return not launcher.endswith(BASIC)


def submitit_cluster(launcher: str) -> str | None:
    """submitit's name for where the jobs of a launcher run; None for launchers of other libraries.

    Args:
        launcher: its `_target_`.
    """
    if launcher.endswith(SUBMITIT_SLURM):
        return "slurm"
    if launcher.endswith(SUBMITIT_LOCAL):
        return "local"
    return None


def ends_with_its_sweep(launcher: str) -> bool:
    """Whether a launcher's workers must not outlive the sweep. Jobs of submitit are meant to."""
    return launcher.endswith(JOBLIB)


@contextmanager
def forked_joblib_workers() -> Iterator[None]:
    """Make joblib fork its workers from the server process of `prepare_workers`.

    Otherwise each worker would import torch and the other libraries anew, for about 4 seconds.
    """
    # joblib has no option for this, and Hydra's launcher would not pass one on.
    from joblib.externals.loky.backend.context import get_start_method, set_start_method

    before = get_start_method()
    set_start_method(worker_context().get_start_method(), force=True)
    try:
        yield
    finally:
        set_start_method(before, force=True)


def local_workers(config: DictConfig, jobs: int, cores: int) -> int | None:
    """How many jobs of a sweep run at once on this machine.

    Args:
        config: of the sweep, with Hydra's own node.
        jobs: number of jobs.
        cores: of this machine.

    Returns:
        The number; None if the launcher sends jobs to other machines.
    """
    launcher = str(config.hydra.launcher._target_)
    if launcher.endswith(BASIC):
        return 1
    at_once = batch_size(config, jobs)
    if launcher.endswith(JOBLIB):
        wanted = config.hydra.launcher.n_jobs
        if wanted <= 0:
            wanted = cores + 1 + wanted  # joblib: -1 is all cores, -2 all but one
        return max(1, min(at_once, wanted))
    if launcher.endswith(SUBMITIT_LOCAL):
        return at_once
    return None


def batch_size(config: DictConfig, jobs: int) -> int:
    """Batch size of a launcher: how many jobs it gets at once and finishes before it gets more.

    Args:
        config: of the sweep, with Hydra's own node.
        jobs: number of jobs.
    """
    most = config.hydra.sweeper.get("max_batch_size")
    if most is None or most < 1:
        return max(1, jobs)
    return max(1, min(jobs, most))


def worker_threads(workers: int | None, cores: int, environ: Mapping[str, str]) -> int | None:
    """Number of threads for each of several workers on one machine; None leaves it unchanged.

    Args:
        workers: number of jobs that run at once, see `local_workers`; None if they run elsewhere.
        cores: that this machine's workers share.
        environ: of the process. If OMP_NUM_THREADS is set, the user has decided, and it is
            respected.
    """
    if workers is None or workers == 1 or environ.get("OMP_NUM_THREADS"):
        return None
    # There may be more workers than cores.
    return max(1, cores // workers)


def available_cores() -> int:
    """Cores that this process may use.

    A container or a scheduler may allow fewer than the machine has.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def dealt_device(device: str, number: int, count: int, used: Sequence[int] = ()) -> str:
    """The device of job `number`: with device=cuda the free GPUs are assigned in turn.

    Any other device is returned unchanged.

    Args:
        device: as configured.
        number: of the job in its sweep.
        count: number of GPUs that this process sees.
        used: memory in use on each GPU, in MiB; if empty, it is unknown and all GPUs are used.
    """
    if device != "cuda" or count == 0:
        return device
    able = list(range(count))
    if len(used) == count:
        # Jobs that start together see the same memory use, so GPUs are still taken in turn.
        able = [k for k in able if used[k] <= min(used) + IN_USE]
    return f"cuda:{able[number % len(able)]}"


def used_gpu_memory(environ: Mapping[str, str]) -> list[int]:
    """Memory in use on each GPU that this process sees, in MiB, in CUDA's order.

    This calls the driver's tool, since torch would initialise every GPU to query it.

    Args:
        environ: of the process; CUDA_VISIBLE_DEVICES says which GPUs it sees.

    Returns:
        One number per visible GPU; empty if the driver's answer or a GPU's name cannot be read.
    """
    return _of_visible_gpus("memory.used", environ)


def gpu_generations(environ: Mapping[str, str]) -> list[int]:
    """Major compute capability of each GPU that this process sees, without initialising CUDA.

    Args:
        environ: as of `used_gpu_memory`.

    Returns:
        One number per visible GPU; empty if it is unknown, as of `used_gpu_memory`.
    """
    return _of_visible_gpus("compute_cap", environ)


def _of_visible_gpus(quantity: str, environ: Mapping[str, str]) -> list[int]:
    """What the driver's tool answers about each visible GPU, without decimals."""
    command = ["nvidia-smi", f"--query-gpu=uuid,{quantity}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True
        )
        rows = [line.split(", ") for line in answer.stdout.splitlines()]
        names = [row[0] for row in rows]
        values = [int(row[1].partition(".")[0]) for row in rows]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return []
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return values
    found = []
    for word in map(str.strip, visible.split(",")):
        # A number or the prefix of a GPU's UUID. The driver numbers GPUs as CUDA does with
        # PCI_BUS_ID.
        if word.isdecimal():
            places = [int(word)]
        else:
            places = [k for k, name in enumerate(names) if word and name.startswith(word)]
        if len(places) != 1 or places[0] >= len(values):
            return []
        found.append(values[places[0]])
    return found
