"""Inversion of images by optimisation: the projector of StyleGAN2.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix D. Adam starts
from the mean latent and minimises a perceptual distance to the image. Noise on the latent (jitter),
which decreases to zero, helps to avoid poor local minima. The images of a block are optimised
together but independently: image i has its own random numbers from (seed, i), and neither the loss
nor Adam mixes images. Other images of the block can change only the last bit of a sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from editbench.base.devices import to_device
from editbench.base.errors import NonFinite, Unsupported
from editbench.base.progress import Advance
from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.inversion.noise import NoiseMaps, decode_with, rows_of_normals
from editbench.inversion.spec import ProjectionSpec
from editbench.networks.generator import Generator
from editbench.networks.perceptual import Perceptual

BLOCK = 500  # latents that are mapped at once for the statistics


@dataclass(frozen=True)
class Statistics:
    """Mean and spread of latents.

    Args:
        mean: (d,).
        spread: root-mean-square distance from the mean.
    """

    mean: Tensor
    spread: float


@dataclass(frozen=True)
class Inverted:
    """The result for n images.

    Args:
        codes: in the space of the inversion.
        noise: name of a buffer -> (n, 1, H, W); empty for constant noise.
        distance: (n,) perceptual distance at the last step, with the jitter and maps of that step.
    """

    codes: Codes
    noise: dict[str, Tensor]
    distance: Tensor


def check_invertible(generator: Generator, space: str) -> None:
    """Check that images can be inverted into a space of a generator.

    Args:
        generator: of the job.
        space: the option `inversion.space`: 'z', 'w' or 'w_plus'.

    Raises:
        Unsupported: the generator makes no images, or lacks the space.
    """
    if generator.output != "image":
        raise Unsupported(
            f"{type(generator).__name__} makes no pictures: there is nothing to invert"
        )
    if Space(space) not in generator.spaces:
        able = [s.value for s in (Space.W, Space.W_PLUS, Space.Z) if s in generator.spaces]
        raise Unsupported(
            f"the generator has no {Space(space).name} codes: set inversion.space={able[0]}"
        )


@torch.no_grad()
def latent_statistics(
    generator: Generator, spec: ProjectionSpec, device: torch.device | str = "cpu"
) -> Statistics:
    """Mean and spread of w = map(z) for random z; for Z in closed form.

    Karras et al. 2020, appendix D, which takes 10,000 z.

    Args:
        generator: with a mapping network, unless the space is Z.
        spec: with the space, the number of samples and the seed.
        device: of the generator, and of the mean.
    """
    if spec.space == Space.Z:
        return Statistics(torch.zeros(generator.z_dim, device=device), generator.z_dim**0.5)
    total = torch.zeros(generator.w_dim, dtype=torch.float64, device=device)
    square = 0.0
    # Sums are relative to the first sample, since cancellation could lose a small spread.
    origin: Tensor | None = None
    for first in range(0, spec.samples, BLOCK):
        last = min(first + BLOCK, spec.samples)
        z = torch.from_numpy(
            normals(spec.seed, "inversion/statistics", first, last, generator.z_dim)
        ).float()
        w = generator.map(z.to(device)).double()
        origin = w[0] if origin is None else origin
        total += (w - origin).sum(0)
        square += float((w - origin).square().sum())
    assert origin is not None
    shift = total / spec.samples
    return Statistics(
        (origin + shift).float(), (square / spec.samples - float(shift.square().sum())) ** 0.5
    )


def invert(
    generator: Generator,
    distance: Perceptual,
    targets: Tensor,
    spec: ProjectionSpec,
    index: np.ndarray | None = None,
    statistics: Statistics | None = None,
    advance: Advance | None = None,
) -> Inverted:
    """Find the codes of n images.

    Args:
        generator: with constant weights, in evaluation mode.
        distance: the perceptual distance to minimise.
        targets: (n, C, H, W) in [-1, 1], of the generator's size.
        spec: space, noise and schedule.
        index: (n,) numbers of the images, which determine their random numbers; None for 0..n-1.
        statistics: mean and spread of the latents; None to estimate them here.
        advance: called once per step.

    Raises:
        Unsupported: the generator has no such space or noise.
        NonFinite: the loss of an image is NaN or infinite.
    """
    check_invertible(generator, spec.space)
    space = Space(spec.space)
    n = len(targets)
    device = targets.device
    index = np.arange(n) if index is None else index
    statistics = statistics or latent_statistics(generator, spec, device)
    mean = statistics.mean.to(targets)
    rows = (generator.num_ws,) if space == Space.W_PLUS else ()
    code = mean.expand(n, *rows, -1).clone().requires_grad_()
    maps = NoiseMaps(generator, spec.seed, index) if spec.noise == "optimise" else None
    with torch.no_grad():  # the targets are constant
        goal = distance.residual(targets)
    variables = [code, *(maps.maps.values() if maps else ())]
    optimiser = torch.optim.Adam(variables, lr=spec.schedule.lr, betas=(0.9, 0.999))
    apart = goal.new_zeros(n)
    for step in range(spec.schedule.steps):
        t = step / spec.schedule.steps
        optimiser.param_groups[0]["lr"] = spec.schedule.learning_rate(t)
        codes = Codes(space, code + jitter(spec, step, index, code) * statistics.spread)
        image = decode_with(generator, codes, maps.maps) if maps else generator.decode(codes)
        apart = (distance.residual(image) - goal).square().sum(1)
        loss = apart
        if spec.pixel_weight:
            loss = loss + spec.pixel_weight * (image - targets).square().flatten(1).mean(1)
        if maps:
            loss = loss + spec.noise_weight * maps.penalty()
        if not bool(torch.isfinite(loss).all()):
            bad = index[int((~torch.isfinite(loss)).nonzero()[0])]
            raise NonFinite(
                f"the inversion of image {bad} has a NaN or infinite loss at step {step}: lower "
                f"inversion.lr={spec.schedule.lr}, or check the weights of the generator"
            )
        # The gradient of the sum with respect to an image's variables is that of its own loss.
        for variable, slope in zip(variables, torch.autograd.grad(loss.sum(), variables)):
            variable.grad = slope
        optimiser.step()
        if maps:
            maps.renormalise()
        if advance:
            advance()
    noise = {name: x.detach() for name, x in maps.maps.items()} if maps else {}
    return Inverted(Codes(space, code.detach()), noise, apart.detach())


def decode_inverted(generator: Generator, found: Inverted) -> Tensor:
    """Decode the reconstructions, with the optimised noise if there is any.

    Args:
        generator: that was inverted.
        found: n images.

    Returns:
        (n, C, H, W) in about [-1, 1].
    """
    if found.noise:
        return decode_with(generator, found.codes, found.noise)
    return generator.decode(found.codes)


def jitter(spec: ProjectionSpec, step: int, index: np.ndarray, code: Tensor) -> Tensor:
    """The jitter of a step, which decreases to zero (Karras et al. 2020, appendix D).

    Args:
        spec: with the schedule and the seed.
        step: from 0.
        index: (n,) numbers of the images, in ascending order.
        code: (n, ...) current codes, which give shape, dtype and device.

    Returns:
        Normal noise shaped like `code`, in units of the latents' spread.
    """
    scale = spec.schedule.jitter_scale(step / spec.schedule.steps)
    # At the end there is no jitter; drawing numbers for it would only cost time.
    if scale == 0:
        return torch.zeros_like(code)
    width = code[0].numel()
    values = rows_of_normals(spec.seed, f"inversion/jitter/{step}", index, width) * scale
    noise = torch.from_numpy(values.astype(np.float32)).to(code.dtype)
    return to_device(noise, code.device).reshape(code.shape)
