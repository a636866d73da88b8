"""What GANSpace's components are computed from: fresh latents, and activations that are regressed
back on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from editbench.methods.ganspace.pca import Components, Incremental, Moments, estimator
from scipy.linalg import lstsq
from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.base.progress import progress
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.walk.editor import FitData

BLOCK = 256  # samples whose activations are held together
REGRESSION_SAMPLES = 10_000  # at least so many, as in the published code
TOO_SHORT = 1e-6  # of the longest row of the regression: a component that no latent moves


@dataclass(frozen=True)
class Directions:
    """mean (d,) of the latents; rows (k, d) unit directions; stdev (k,) of the latents along
    them; notes."""

    mean: np.ndarray
    rows: np.ndarray
    stdev: np.ndarray
    notes: dict[str, object]


def activation_directions(
    data: FitData, layer: str, space: Space, samples: int, components: int
) -> Directions:
    """Components of a layer's flattened activations as unit directions of W or Z.

    With the coordinates A = (activation - mean) @ rows.T / stdev of fresh samples and their
    latents Z, least squares solves A M = Z; the rows of M are brought to unit length. Both sides
    are centred, which keeps the mean of W out of the noise. stdev: 1 in Z, whose draws have it
    along every unit direction; in W that of these latents.
    """

    def stream(purpose: str, n: int) -> Iterator[tuple[Tensor, np.ndarray]]:
        for block in latent_blocks(data, space, n, purpose, BLOCK):
            out = data.generator.activation(Codes(space, block), layer)
            yield block, out.flatten(1).float().cpu().numpy()

    parts: Moments | Incremental | None = None
    for _, activation in stream("components", samples):
        parts = parts or estimator(activation.shape[1], components)
        parts.add(activation)
    assert parts is not None
    found = parts.components(components)
    notes = component_notes(data, space, found, components)
    joint = Moments(len(found) + data.generator.code_dim(space))
    for block, activation in stream("regression", max(REGRESSION_SAMPLES, samples)):
        coordinates = (activation - found.mean) @ found.rows.T / found.stdev
        joint.add(np.concatenate([coordinates, block.double().cpu().numpy()], 1))
    k = len(found)
    covariance = joint.covariance()
    slopes = lstsq(covariance[:k, :k], covariance[:k, k:])[0]
    lengths = np.linalg.norm(slopes, axis=1)
    kept = lengths > TOO_SHORT * lengths.max()
    rows = slopes[kept] / lengths[kept, None]
    stdev = (
        np.ones(len(rows))
        if space == Space.Z
        else np.sqrt(((rows @ covariance[k:, k:]) * rows).sum(1))
    )
    return Directions(joint.mean[k:], rows, stdev, notes | {"directions": len(rows)})


def latent_blocks(
    data: FitData, space: Space, samples: int, purpose: str, block: int
) -> Iterator[Tensor]:
    """Fresh latents (at most `block`, d), `samples` in all; of a generator that cannot draw them,
    the fit split's own.

    The draws are the same however they are blocked.
    """
    draws = can_draw(data, space)
    total = samples if draws else min(samples, len(data.fit))
    device = data.tune.logits.device
    with progress(f"latents for the {purpose}", total) as advance:
        for first in range(0, total, block):
            last = min(first + block, total)
            if draws:
                drawn = normals(data.seed, f"ganspace/{purpose}", first, last, data.generator.z_dim)
                z = torch.from_numpy(drawn).float().to(device)
                yield z if space == Space.Z else data.generator.map(z)
            else:
                yield data.fit.codes(space)[first:last]
            advance(last - first)


def can_draw(data: FitData, space: Space) -> bool:
    """Whether the generator can sample; one that only decodes codes says so in `map`."""
    if not data.generator.z_dim:
        return False
    try:
        if space == Space.W:
            data.generator.map(torch.zeros(1, data.generator.z_dim, device=data.tune.logits.device))
    except EditbenchError:
        return False
    return True


def component_notes(
    data: FitData, space: Space, found: Components, asked: int
) -> dict[str, object]:
    """What a record says of the components. EditbenchError where there are none."""
    if not len(found):
        raise EditbenchError(
            f"the {found.samples} samples do not vary: there is no principal component"
        )
    return {
        "components": len(found),
        "components_asked": asked,
        "components_exact": found.exact,
        "variance_explained": round(float(found.ratio.sum()), 4),
        "component_samples": found.samples,
        "component_codes": "fresh draws"
        if can_draw(data, space)
        else "the fit split's: the generator cannot draw",
    }
