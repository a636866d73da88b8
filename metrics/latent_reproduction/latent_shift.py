"""One shift h of a latent or of an activation, shared by all samples: decoding under it, finding it by gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from editbench.metrics.latent_reproduction.weight_edit import WeightEdit
from torch import Tensor, nn

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.progress import Advance
from editbench.base.seeding import generator as random
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator

SPACES = ("z", "w", "w_plus", "activation")
BEGIN = 0.1  # spread of a restart's first shift, of the codes' own
PAIRS = 64  # samples behind the spread of a space
DOUBLINGS, HALVINGS, CLOSE = (
    12,
    20,
    0.02,
)  # of the planted shift's length, and how near its effect is to the wanted


class ShiftSpace:
    """Where a shift is added.

    shape: of one shift. field: 'z' or 'w', the samples' latents that are decoded. unit: root mean square of the codes'
    deviation from their mean; of an activation, its root mean square. lr: Adam's rate.
    """

    def __init__(
        self, name: str, generator: Generator, shape: tuple[int, ...], field: str, layer: str = ""
    ) -> None:
        self.name, self.generator, self.shape, self.field, self.layer = (
            name,
            generator,
            shape,
            field,
            layer,
        )
        self.unit, self.lr = 1.0, 0.01

    def decode(self, latent: Tensor, shifts: Tensor) -> Tensor:
        """Latents (n, d) under each of (m, *shape) shifts -> pictures (m n, ...), shift by shift."""
        m, n = len(shifts), len(latent)
        each = shifts.repeat_interleave(n, 0)
        x = latent.repeat(m, 1)
        if self.name == "activation":
            space = Space.W if self.field == "w" else Space.Z
            with added(self.generator.inner(self.layer), each):
                return self.generator.decode(Codes(space, x)).float()
        if self.name == "w_plus":
            x = self.generator.w_plus(x)
        return self.generator.decode(Codes(Space(self.name), x + each)).float()


def shift_space(name: str, edit: WeightEdit, lr: float) -> ShiftSpace:
    """A space with its shape, unit and rate.

    Raises Unsupported where the generator, or a bank of samples without z, does not have it.
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
        space.lr = lr * space.unit
        return space
    kind = Space(name)
    if kind not in generator.spaces:
        raise Unsupported(f"the generator has no {kind.name}")
    width = generator.code_dim(kind)
    shape = (generator.num_ws, width) if name == "w_plus" else (width,)
    space = ShiftSpace(name, generator, shape, "z" if name == "z" else "w")
    try:
        edit.latents(slice(0, 1), space.field)
    except EditbenchError as error:
        raise Unsupported(str(error)) from error
    codes = z if name == "z" else latent
    space.unit, space.lr = (codes - codes.mean(0)).square().mean().sqrt().item(), lr
    return space


def plant(edit: WeightEdit, space: ShiftSpace, energy: float) -> Tensor:
    """A shift of the space whose mean squared image effect, on some new samples, is `energy`: the difference of two
    samples' codes (in W+ of two for every row), longer or shorter."""
    rng = random(0, "reproduction/planted", space.name)
    rows = space.shape[0] if space.name == "w_plus" else 1
    picks = torch.from_numpy(rng.choice(PAIRS, size=(rows, 2), replace=rows * 2 > PAIRS))
    z, latent = edit.draw(0, PAIRS)
    if space.name == "activation":
        codes = activations(space.generator, space.layer, Codes(Space(space.field), latent))
    else:
        codes = z if space.field == "z" else latent
    line = codes[picks[:, 0]] - codes[picks[:, 1]]
    line = (line if space.name == "w_plus" else line[0]).reshape(space.shape)
    own = z if space.field == "z" else latent
    with torch.no_grad():
        base = space.decode(own, torch.zeros_like(line)[None])

    def effect(length: float) -> float:
        with torch.no_grad():
            moved = space.decode(own, (length * line)[None])
        return float((moved - base).flatten(1).square().sum(1).mean())

    low, high = 0.0, 0.125
    for _ in range(DOUBLINGS):
        if effect(high) >= energy:
            break
        low, high = high, 2 * high
    else:
        return high * line  # as much as there is: the record has the planted effect
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = effect(middle)
        if abs(found - energy) <= CLOSE * energy:
            return middle * line
        low, high = (middle, high) if found < energy else (low, middle)
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
    """Adam on eq. 5 for two targets at once, the weight shift's pictures and the planted shift's, and for all restarts:
    shifts (2, restarts, *shape), and the mean training loss of the last tenth of the steps (2, restarts).

    Every step has `batch` new samples, the same for all; Adam works by element, so that the searches do not meet.
    """
    rng = random(0, "reproduction/restarts", space.name)
    first = (
        torch.from_numpy(rng.standard_normal((2, restarts, *space.shape))).float()
        * BEGIN
        * space.unit
    )
    first[:, 0] = 0
    shifts = nn.Parameter(first.to(planted))
    adam = torch.optim.Adam([shifts], lr=space.lr)
    last, counted = torch.zeros(2, restarts, device=planted.device), max(1, steps // 10)
    for step in range(steps):
        adam.param_groups[0]["lr"] = space.lr * (1 + math.cos(math.pi * step / steps)) / 2
        z, latent = edit.draw(PAIRS + step * batch, PAIRS + (step + 1) * batch)
        own = z if space.field == "z" else latent
        with torch.no_grad():
            goal = torch.stack([edit.pictures(latent), space.decode(own, planted[None])])
        made = space.decode(own, shifts.flatten(0, 1)).unflatten(0, (2, restarts, batch))
        loss = (made - goal[:, None]).flatten(3).square().sum(3).mean(2)
        adam.zero_grad(set_to_none=True)
        loss.sum().backward()
        adam.step()
        if step >= steps - counted:
            last += loss.detach() / counted
        if advance is not None:
            advance(1)
    return shifts.detach(), last


@contextmanager
def added(module: nn.Module, shift: Tensor) -> Iterator[None]:
    """While this lasts, the module's first input has a shift (n, ...) added; what else reads that input does not."""

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return inputs[0] + shift.to(inputs[0].dtype), *inputs[1:]

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def activations(generator: Generator, layer: str, codes: Codes) -> Tensor:
    """The first input of a layer: (n, ...)."""
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
