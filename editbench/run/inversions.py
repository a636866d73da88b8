"""The inversion that a job's walks start from, by the job's settings."""

from __future__ import annotations

from editbench.inversion.load import InversionRequest
from editbench.run.loading import load_networks, networks_code
from editbench.run.settings import Settings


def request_inversion(settings: Settings) -> InversionRequest | None:
    """The inversion of a job, before it is made or opened; None if walks start from the bank."""
    chosen = settings.inversion
    if chosen.is_none:
        return None
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
