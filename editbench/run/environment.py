"""The software and hardware that a record was made with, and the peak memory of the process."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from editbench.base.compute_options import is_gpu

# torch is imported where it is used: commands import this module before they check their words.

# The hashes of sources exclude installed packages, so the provenance has their versions.
PACKAGES = (
    "editbench",
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "torchdiffeq",
    "torchmetrics",
    "pillow",
    "hydra-core",
    "omegaconf",
)


def environment(device: str = "cuda") -> dict:
    """Versions and hardware, for the provenance of a record.

    Args:
        device: of the job; determines the GPU that is named.
    """
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_model(),
        "threads": torch.get_num_threads(),
        "git": git_commit(),
        "cuda": _gpu_name(device) if torch.cuda.is_available() else None,
        "packages": package_versions(),
    }


@cache
def package_versions() -> dict[str, str]:
    """Versions of PACKAGES; a process keeps what it imported."""
    return {name: metadata.version(name) for name in PACKAGES}


def _gpu_name(device: str) -> str:
    import torch

    # For a job on the CPU, the machine's default GPU is named.
    return torch.cuda.get_device_name(device if is_gpu(device) else None)


def processor_model() -> str:
    """The model of the processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    # macOS has no /proc.
    except OSError:
        return platform.processor()
    # Some architectures, such as ARM, have no line 'model name'.
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def git_commit() -> str | None:
    """Commit of the source tree, with '+' if it has local changes; None outside a checkout.

    An installed package may lie inside the checkout of another project, such as a user's own.
    """

    def git(*words: str) -> str | None:
        run = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        return run.stdout.strip() if run.returncode == 0 else None

    try:
        if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
            return None
        # Without tags. Untracked files, such as records, are not changes of the source.
        return git("describe", "--always", "--exclude=*", "--dirty=+")
    # git is not installed.
    except OSError:
        return None


def peak_memory_mb(device: str) -> float:
    """Peak memory in MiB.

    Args:
        device: on a GPU the peak allocation there is returned. On a CPU it is the peak resident
            memory of this process, or of a child process that has ended if that is higher.
    """
    import torch

    if is_gpu(device):
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    # macOS gives bytes, other systems KiB.
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
