"""A shift h of a latent or of an activation, the same for all samples.

Functions for decoding with a shift, for planting a shift of known effect, and for finding a shift
by gradients (Cherepkov et al. 2021, eq. 5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from editbench.base import seeding
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.progress import Advance
from editbench.base.spaces import Codes, Space
from editbench.metrics.latent_reproduction.weight_edit import WeightEdit
from editbench.networks.generator import Generator

SPACES = ("z", "w", "w_plus", "activation")
BEGIN = 0.1  # spread of a restart's initial shift, relative to the spread of the codes
PAIRS = 64  # samples used for the spread of a space and for a planted shift
# The search for the planted shift's length. It starts at 1/8 of the difference of two samples and
# may double to 512 times; 20 halvings then exceed the required accuracy of the effect.
DOUBLINGS = 12
HALVINGS = 20
CLOSE = 0.02  # relative tolerance of the wanted effect


class ShiftSpace:
    """A space in which shifts are added."""

    def __init__(
        self, name: str, generator: Generator, shape: tuple[int, ...], field: str, layer: str = ""
    ) -> None:
        """Describe a space of shifts.

        Args:
            name: one of SPACES.
            generator: in whose space the shift is added.
            shape: of one shift.
            field: 'z' or 'w', the samples' latents that are decoded.
            layer: whose input is shifted; only for activations.
        """
        self.name = name
        self.generator = generator
        self.shape = shape
        self.field = field
        self.layer = layer
        # Root mean square deviation of the codes from their mean; for an activation, of its values.
        self.unit = 1.0
        self.lr = 0.01  # Adam's rate

    def choose_latents(self, z: Tensor, latent: Tensor) -> Tensor:
        """Choose which of the same samples' z and latents are decoded in this space.

        Args:
            z: (n, z_dim).
            latent: (n, d) w of the same samples, or z again if the generator has no W.
        """
        return z if self.field == "z" else latent

    def decode(self, latent: Tensor, shifts: Tensor) -> Tensor:
        """Decode every latent under every shift.

        Args:
            latent: (n, d).
            shifts: (m, *shape).

        Returns:
            (m n, ...), shift by shift.
        """
        m = len(shifts)
        n = len(latent)
        # A single pass of the generator for all pairs of shift and latent.
        each = shifts.repeat_interleave(n, 0)
        x = latent.repeat(m, 1)
        if self.name == "activation":
            with added(self.generator.inner(self.layer), each):
                return self.generator.decode(Codes(Space(self.field), x)).float()
        if self.name == "w_plus":
            x = self.generator.w_plus(x)
        return self.generator.decode(Codes(Space(self.name), x + each)).float()


def shift_space(name: str, edit: WeightEdit, lr: float) -> ShiftSpace:
    """Build a space with its shape, unit and learning rate.

    Args:
        name: one of SPACES.
        edit: the edit that the shift should reproduce.
        lr: Adam's learning rate; for the activation in units of its root mean square.

    Raises:
        Unsupported: the generator lacks the space, or the bank lacks its codes.
    """
    generator = edit.generator
    own = "w" if edit.latent_space is Space.W else "z"
    z, latent = edit.draw(0, PAIRS)
    if name == "activation":
        if not edit.layer:
            raise Unsupported("the edit names no layer of the weights")
        values = activations(generator, edit.layer, Codes(Space(own), latent))
        space = ShiftSpace(name, generator, tuple(values.shape[1:]), own, edit.layer)
        space.unit = values.square().mean().sqrt().item()
        # Latents have a scale of about 1, so their rates are absolute; activations have any scale.
        space.lr = lr * space.unit
        return space
    kind = Space(name)
    if kind not in generator.spaces:
        raise Unsupported(f"the generator has no {kind.name}")
    width = generator.code_dim(kind)
    shape = (generator.num_ws, width) if name == "w_plus" else (width,)
    space = ShiftSpace(name, generator, shape, "z" if name == "z" else "w")
    # An imported bank may hold w without z.
    try:
        edit.latents(slice(0, 1), space.field)
    except EditbenchError as error:
        raise Unsupported(str(error)) from error
    codes = space.choose_latents(z, latent)
    space.unit = (codes - codes.mean(0)).square().mean().sqrt().item()
    space.lr = lr
    return space


def plant(edit: WeightEdit, space: ShiftSpace, energy: float) -> Tensor:
    """Make a shift with a given effect on the images, which the optimiser should find again.

    It is the scaled difference of two samples' codes (in W+, of two samples for every row), so that
    it points to codes that the generator does produce.

    Args:
        edit: draws the samples.
        space: of the shift.
        energy: mean squared image effect that it should have on some new samples.

    Returns:
        The shift, with the shape of the space. If no length has the effect, it is the longest shift
        that was tried; the record also holds the effect of the planted shift.
    """
    # The name of the random stream decides the draws and must not change.
    rng = seeding.rng(0, "reproduction/planted", space.name)
    rows = space.shape[0] if space.name == "w_plus" else 1
    picks = torch.from_numpy(rng.choice(PAIRS, size=(rows, 2), replace=rows * 2 > PAIRS))
    z, latent = edit.draw(0, PAIRS)
    own = space.choose_latents(z, latent)
    if space.name == "activation":
        codes = activations(space.generator, space.layer, Codes(Space(space.field), latent))
    else:
        codes = own
    # For W+ one pair of samples per row, otherwise a single pair.
    line = codes[picks[:, 0]] - codes[picks[:, 1]]
    if space.name != "w_plus":
        line = line[0]
    line = line.reshape(space.shape)
    with torch.no_grad():
        base = space.decode(own, torch.zeros_like(line)[None])

    def effect_of(length: float) -> float:
        with torch.no_grad():
            moved = space.decode(own, (length * line)[None])
        return float((moved - base).flatten(1).square().sum(1).mean())

    # The effect grows with the length; the bracket is found by doubling, then halved.
    low = 0.0
    high = 0.125
    for _ in range(DOUBLINGS):
        if effect_of(high) >= energy:
            break
        low = high
        high = 2 * high
    else:
        return high * line
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = effect_of(middle)
        if abs(found - energy) <= CLOSE * energy:
            return middle * line
        if found < energy:
            low = middle
        else:
            high = middle
    return (low + high) / 2 * line


def optimise(
    edit: WeightEdit,
    space: ShiftSpace,
    planted: Tensor,
    steps: int,
    batch: int,
    restarts: int,
    advance: Advance | None = None,
) -> tuple[Tensor, Tensor]:
    """Search for two shifts at once, with Adam on eq. 5: for the weight shift and the planted one.

    Every step uses `batch` new samples, the same for all searches. Adam works elementwise, so the
    searches do not influence each other although they share a tensor.

    Args:
        edit: the weight shift.
        space: of the shifts.
        planted: with the shape of the space; the control that should be found.
        steps: number of Adam steps; the learning rate decays to 0 on a cosine.
        batch: samples per step.
        restarts: number of searches for each target; restart 0 begins at h = 0.
        advance: called after every step.

    Returns:
        shifts: (2, restarts, *shape).
        losses: (2, restarts) mean training loss of the last tenth of the steps.
    """
    rng = seeding.rng(0, "reproduction/restarts", space.name)
    first = torch.from_numpy(rng.standard_normal((2, restarts, *space.shape))).float()
    first = first * BEGIN * space.unit
    first[:, 0] = 0  # restart 0 begins at the unshifted samples
    shifts = nn.Parameter(first.to(planted))
    adam = torch.optim.Adam([shifts], lr=space.lr)
    last = torch.zeros(2, restarts, device=planted.device)
    counted = max(1, steps // 10)
    for step in range(steps):
        adam.param_groups[0]["lr"] = space.lr * (1 + math.cos(math.pi * step / steps)) / 2
        # The first PAIRS samples of the stream belong to `plant`.
        z, latent = edit.draw(PAIRS + step * batch, PAIRS + (step + 1) * batch)
        own = space.choose_latents(z, latent)
        with torch.no_grad():
            goal = torch.stack([edit.pictures(latent), space.decode(own, planted[None])])
        made = space.decode(own, shifts.flatten(0, 1)).unflatten(0, (2, restarts, batch))
        # Summed over pixels and averaged over samples, as in eq. 5; (2, restarts).
        loss = (made - goal[:, None]).flatten(3).square().sum(3).mean(2)
        adam.zero_grad(set_to_none=True)
        loss.sum().backward()
        adam.step()
        # A single batch is noisy; during the last tenth of the steps the shift is almost final.
        if step >= steps - counted:
            last += loss.detach() / counted
        if advance is not None:
            advance(1)
    return shifts.detach(), last


@contextmanager
def added(module: nn.Module, shift: Tensor) -> Iterator[None]:
    """Add a shift to the first input of a module inside the context.

    The hook passes a new tensor to the module, so other readers of the same input are not shifted.

    Args:
        module: whose input is shifted.
        shift: (n, ...), one row per sample.
    """

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return inputs[0] + shift.to(inputs[0].dtype), *inputs[1:]

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def activations(generator: Generator, layer: str, codes: Codes) -> Tensor:
    """The first input of a layer during the decoding of codes.

    Args:
        generator: decodes.
        layer: its name.
        codes: n codes.

    Returns:
        (n, ...) float32.

    Raises:
        Unsupported: the layer is not used in decoding.
    """
    found: list[Tensor] = []
    handle = generator.inner(layer).register_forward_pre_hook(
        lambda _module, inputs: found.append(inputs[0])
    )
    try:
        with torch.no_grad():
            generator.decode(codes)
    finally:
        handle.remove()
    if not found:
        raise Unsupported(f"layer '{layer}' takes no part in decoding")
    return found[0].float()
