"""Sampling for GANSpace: fresh latents, and components of activations regressed on latents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.linalg import lstsq
from torch import Tensor

from editbench.base.errors import EditbenchError
from editbench.base.progress import progress
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.methods.ganspace.pca import Components, Incremental, RunningMoments, estimator
from editbench.methods.shared.direction_search import Directions
from editbench.walk.editor import FitData

BLOCK = 256  # samples whose activations are in memory at a time
REGRESSION_SAMPLES = 10_000  # minimum, as in the published code
# Relative to the longest row of the regression; components with shorter rows depend on no latent.
TOO_SHORT = 1e-6


def activation_directions(
    data: FitData, layer: str, space: Space, samples: int, components: int
) -> Directions:
    """Components of a layer's flattened activations as unit directions of W or Z.

    With the coordinates A = (activation - mean) @ rows.T / stdev of fresh samples and their latents
    Z, least squares solves A M = Z, as in the published code; the rows of M are scaled to unit
    length. Both sides are centred, so that the mean of W adds no noise.

    Args:
        data: the generator and its latents.
        layer: whose activations are decomposed.
        space: W or Z, the space of the directions.
        samples: number of samples that the components are computed from.
        components: largest number of components.
    """

    def stream(purpose: str, n: int) -> Iterator[tuple[Tensor, np.ndarray]]:
        for block in latent_blocks(data, space, n, purpose, BLOCK):
            out = data.generator.activation(Codes(space, block), layer)
            yield block, out.flatten(1).float().cpu().numpy()

    # The number of channels of the layer is known only with the first block.
    parts: RunningMoments | Incremental | None = None
    for _, activation in stream("components", samples):
        parts = parts or estimator(activation.shape[1], components)
        parts.add(activation)
    assert parts is not None
    found = parts.components(components)
    notes = component_notes(data, space, found, components)
    # Other samples than for the components, so that the regression does not fit their noise. All
    # sums that least squares needs are in one joint covariance.
    joint = RunningMoments(len(found) + data.generator.code_dim(space))
    for block, activation in stream("regression", max(REGRESSION_SAMPLES, samples)):
        coordinates = (activation - found.mean) @ found.rows.T / found.stdev
        joint.add(np.concatenate([coordinates, block.double().cpu().numpy()], 1))
    k = len(found)
    covariance = joint.covariance()
    # The normal equations of A M = Z, small enough (k x k) to be solved directly.
    slopes = lstsq(covariance[:k, :k], covariance[:k, k:])[0]
    lengths = np.linalg.norm(slopes, axis=1)
    kept = lengths > TOO_SHORT * lengths.max()
    rows = slopes[kept] / lengths[kept, None]
    if space == Space.Z:
        # z ~ N(0, I) has a standard deviation of 1 along every unit direction.
        stdev = np.ones(len(rows))
    else:
        stdev = np.sqrt(((rows @ covariance[k:, k:]) * rows).sum(1))
    return Directions(joint.mean[k:], rows, stdev, notes | {"directions": len(rows)})


def latent_blocks(
    data: FitData, space: Space, samples: int, purpose: str, block: int
) -> Iterator[Tensor]:
    """Yield blocks of fresh latents (at most `block`, d), or the fit split's if none can be drawn.

    The draws do not depend on the block size.

    Args:
        data: the generator and the splits.
        space: W or Z.
        samples: total number of latents.
        purpose: names the random stream and the progress line.
        block: number of latents per block.
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
    """Whether the generator can draw latents; one that only decodes codes raises in `map`.

    Args:
        data: the generator, and the device of its latents.
        space: W or Z; for W a mapping network is needed too.
    """
    if not data.generator.z_dim:
        return False
    # A generator for given codes has the z_dim of its data but no mapping network.
    try:
        if space == Space.W:
            # One latent is enough to see whether `map` raises.
            data.generator.map(torch.zeros(1, data.generator.z_dim, device=data.tune.logits.device))
    except EditbenchError:
        return False
    return True


def component_notes(
    data: FitData, space: Space, found: Components, asked: int
) -> dict[str, object]:
    """Notes about the components for the record.

    Args:
        data: tells whether the samples were drawn or taken from the fit split.
        space: W or Z, the space of the samples.
        found: the components.
        asked: number of components that the configuration asks for; `found` may have fewer.

    Raises:
        EditbenchError: there are no components.
    """
    if not len(found):
        raise EditbenchError(
            f"the {found.samples} samples do not vary: there is no principal component"
        )
    drawn = can_draw(data, space)
    return {
        "components": len(found),
        "components_asked": asked,
        "components_exact": found.exact,
        "variance_explained": round(float(found.ratio.sum()), 4),
        "component_samples": found.samples,
        "component_codes": "fresh draws" if drawn else "the fit split's: the generator cannot draw",
    }
