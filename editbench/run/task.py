"""What a launcher of Hydra calls for each job."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from editbench.base.compute_options import is_gpu
from editbench.base.errors import EditbenchError, one_line
from editbench.base.progress import disable_progress, print_message
from editbench.base.workers import end_with_starter
from editbench.run.launch import dealt_device, ends_with_its_sweep, many_processes, used_gpu_memory
from editbench.run.outcome import (
    Outcome,
    describe_outcome,
    failed_outcome,
    write_failure,
    write_outcome,
)
from editbench.run.overrides import NUMBER, check_words_have_effect
from editbench.run.settings import Settings

STARTER = "EDITBENCH_SWEEP_PID"  # process id of the sweep, in the environment of its workers


def job_task(config: DictConfig) -> Outcome:
    """One job under a Hydra launcher.

    Its outcome is printed and, in a sweep, left for the summary.

    Raises:
        UnknownName: a single job's attribute or class does not exist.
        EditbenchError: a single job's settings are wrong, or it cannot begin. In a sweep this is its
            outcome.
    """
    number = take_number(config)
    try:
        settings = join_sweep(Settings.from_config(config))
    except EditbenchError as error:
        if not in_sweep():
            raise
        # Without settings the method and attribute are unknown, so the title is the words.
        title = " ".join(HydraConfig.get().overrides.task)
        return write_failure(Path(HydraConfig.get().sweep.dir), number, title, error)
    # Imported here, since it imports torch and wrong settings should be reported before.
    from editbench.run.job import find_job, run_job

    if not in_sweep():
        check_words_have_effect([settings], HydraConfig.get().overrides.task)
    # In a sweep, jobs with existing records have their outcomes before the launcher starts.
    found = None if in_sweep() else find_job(settings)
    try:
        outcome = found or run_job(settings)
    except Exception as error:
        # Nothing was started, so no record gives the reason.
        if in_sweep():  # one job's error must not end the sweep
            outcome = failed_outcome(error)
        elif isinstance(error, EditbenchError):
            raise
        else:
            raise EditbenchError(one_line(error)) from error
    text = describe_outcome(settings, outcome)
    if prints_its_line():
        print_message(f"{settings.title}: {text}")
    write_outcome_in_sweep(settings.title, outcome, text, number)
    return outcome


def take_number(config: DictConfig) -> int:
    """The number of this job in its sweep; 0 outside a sweep.

    Args:
        config: of the job; the number is removed from it, since it is not a setting.
    """
    with open_dict(config):
        return int(config.pop(NUMBER, 0))


def in_sweep() -> bool:
    """Whether this process works on a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def prints_its_line() -> bool:
    """Whether this process prints the line of its job itself.

    The process that started a sweep prints the lines of its jobs, except for jobs with their own
    logs, such as those of submitit.
    """
    if not in_sweep():
        return True
    launcher = str(HydraConfig.get().launcher["_target_"])
    return many_processes(launcher) and not ends_with_its_sweep(launcher)


def join_sweep(settings: Settings) -> Settings:
    """Prepare a worker of a sweep for its jobs.

    With device=cuda it uses the GPU assigned to this job. Under joblib it ends with the process
    that started the sweep.
    """
    if not in_sweep():
        return settings
    launcher = str(HydraConfig.get().launcher["_target_"])
    if not many_processes(launcher):
        return settings
    # In the sweep's own process the device stays: its jobs run one after the other.
    device = settings.device
    if is_gpu(device):
        device = take_gpu(device, HydraConfig.get().job.num)
    starter = int(os.environ.get(STARTER, 0))
    # With one job at a time, joblib runs it in the starter itself.
    if ends_with_its_sweep(launcher) and os.getpid() != starter:
        disable_progress()  # all workers share one terminal
        # A terminal sends Ctrl-C to all processes. A worker stopped by it while it returns its
        # result would leave the starter waiting for the rest; so the starter ends the workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_starter()
    return settings.with_values(device=device)


def take_gpu(device: str, number: int) -> str:
    """Make a GPU this process's default device, and return its name.

    Args:
        device: 'cuda:1', or 'cuda' for the GPU assigned to the job.
        number: of the job in its sweep.
    """
    import torch  # after the settings, so that a wrong one is reported before

    if device == "cuda":
        # The driver's order, so that its numbers and CUDA's mean the same GPUs.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        used = used_gpu_memory(os.environ)
        device = dealt_device(device, number, torch.cuda.device_count(), used)
    if device != "cuda":  # it stays 'cuda' if no GPU could be assigned
        torch.cuda.set_device(device)
    return device


def write_outcome_in_sweep(title: str, outcome: Outcome, text: str, number: int) -> None:
    """In a sweep, write the outcome where the process that started the sweep reads it.

    Args:
        title: of the job.
        outcome: of the job.
        text: what to print after the title.
        number: of the job in its sweep.
    """
    if in_sweep():
        write_outcome(Path(HydraConfig.get().sweep.dir), number, title, outcome, text)
