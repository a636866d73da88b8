"""Batch sizes of a job: the configured ones, or the largest that fit into memory for `auto`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from editbench.base.batches import fitting_batch
from editbench.base.compute_options import AUTO
from editbench.base.spaces import Codes
from editbench.networks.roles import Networks
from editbench.networks.scorer import Scorer
from editbench.run.settings import Settings
from editbench.walk.editor import SCORED

REDRAWN = 64  # images of a record that are decoded again together, if they fit into memory


def engine_batch(settings: Settings, networks: Networks) -> int:
    """Samples that a walk and its observations decode together.

    Args:
        settings: of the job.
        networks: of the job.
    """
    if settings.engine.batch != AUTO:
        return int(settings.engine.batch)
    return _fitting(settings, networks, networks.judge)


def fit_batch(settings: Settings, networks: Networks) -> int:
    """Samples that the teacher scores together in a fit: SCORED, or fewer if memory is short.

    Args:
        settings: of the job; they give the device whose free memory counts.
        networks: of the job, on that device.

    Returns:
        SCORED, or a smaller power of two.
    """
    return _fitting(settings, networks, networks.teacher, SCORED)


def redraw_batch(settings: Settings, networks: Networks) -> int:
    """Images of a record that are decoded again together: REDRAWN, or fewer if memory is short.

    Not `engine.batch`, since the record may be from a machine with more memory.

    Args:
        settings: of the record, with the device that decodes.
        networks: of the record, on that device.

    Returns:
        REDRAWN, or a smaller power of two.
    """
    return _fitting(settings, networks, networks.judge, REDRAWN)


def bank_batch(settings: Settings, networks: Networks) -> int:
    """Samples of a bank that are computed together: its block, unless `bank.batch` says otherwise.

    Args:
        settings: of the job. With bank.batch=auto the largest batch that fits into memory is taken,
            where the workers of `bank.workers` share the memory.
        networks: of the job, with which one sample is tried for `auto`.
    """
    batch = settings.bank.batch
    if batch is None:
        return settings.bank.spec.block
    if batch != AUTO:
        return int(batch)
    workers = settings.bank.workers
    return _fitting(settings, networks, networks.judge, workers=workers)


def _fitting(
    settings: Settings, networks: Networks, scorer: Scorer, most: int = 0, workers: int = 1
) -> int:
    one = _one(settings, networks, scorer)
    return fitting_batch(one, settings.device, most, workers, networks.generator)


def _one(settings: Settings, networks: Networks, scorer: Scorer) -> Callable[[], Tensor]:
    """Decodes one sample and scores it."""
    generator = networks.generator
    space = generator.latent_space
    # The memory of a pass does not depend on the values of the code.
    code = torch.zeros(1, generator.code_dim(space), device=settings.device)

    def work() -> Tensor:
        with torch.no_grad():
            return scorer(generator.decode(Codes(space, code)))

    return work
