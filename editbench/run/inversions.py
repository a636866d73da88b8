"""The inversion that a job's walks start from, by the job's settings."""

from __future__ import annotations

from editbench.inversion.build import Task
from editbench.inversion.load import InversionRequest
from editbench.inversion.store import Inversion
from editbench.run.loading import load_networks, networks_code
from editbench.run.settings import Settings


def request_inversion(settings: Settings) -> InversionRequest:
    """The inversion of a job, before it is made or opened."""
    chosen = settings.inversion
    return InversionRequest(
        images=chosen.images,
        path=chosen.path,
        perceptual=chosen.perceptual,
        block=chosen.block,
        projection=chosen.projection,
        networks=load_networks(settings),
        code=networks_code(settings),
        device=settings.device,
        cache=settings.cache,
    )


def load_inversion(settings: Settings) -> Inversion | None:
    """The inversion, made first if necessary; None if the starts are samples of the bank."""
    if settings.inversion.is_none:
        return None
    return request_inversion(settings).load()


def inversion_id(settings: Settings) -> str:
    """Identity of the inversion; '' if the starts are samples of the bank."""
    if settings.inversion.is_none:
        return ""
    return request_inversion(settings).id()


def inversion_task(settings: Settings) -> Task:
    """What is to be inverted, and how."""
    return request_inversion(settings).task()
