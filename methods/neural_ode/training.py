"""Training of latent flows through the generator and the teacher.

Khrulkov et al. 2021, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from editbench.base import seeding
from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError
from editbench.base.progress import progress
from editbench.base.spaces import Codes, Space
from editbench.base.validation import check_choice, check_fields
from editbench.methods.neural_ode.field import Field, Solver
from editbench.walk.editor import FitData

CHOICES = {
    "tempering": ("symmetric", "reference"),
    "other": ("logits", "identity"),
    "times": ("batch", "sample"),
}
Embedding = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Training:
    """Budget and loss of a flow.

    Args:
        horizon: T, the largest length; each iteration draws t ~ U(T/4, T).
        iterations: of Adam.
        batch: samples per flow and iteration.
        lr: learning rate.
        decay_every: iterations after which the learning rate is halved.
        temperature: tau of the softmax.
        tempering: 'symmetric' divides the logits of both images by tau, so that the second loss is
            0 for an unchanged image; 'reference' divides only those of the edited image, so that it
            is not 0.
        other: what the second loss preserves: the other attributes ('logits') or an embedding of
            the image ('identity').
        weight: of the second loss.
        times: one t per batch ('batch', as in the code) or per sample ('sample').

    Raises:
        EditbenchError: a value is unknown or out of range.
    """

    horizon: float = 6.0
    iterations: int = 1000
    batch: int = 32
    lr: float = 1e-3
    decay_every: int = 1000
    temperature: float = 4.0
    tempering: str = "symmetric"
    other: str = "logits"
    weight: float = 1.0
    times: str = "batch"

    def __post_init__(self) -> None:
        check_fields("method", self)
        for key, known in CHOICES.items():
            check_choice(key, getattr(self, key), known)
        for key in ("horizon", "iterations", "batch", "lr", "decay_every", "temperature"):
            if not getattr(self, key) > 0:
                raise EditbenchError(f"{key} must be positive, got {getattr(self, key)}")
        if not self.weight >= 0:
            raise EditbenchError(f"weight must not be negative, got {self.weight}")


@dataclass(frozen=True)
class Flows:
    """The K flows of one attribute before their training.

    Args:
        field: the flows at initialisation, in the paper's units: codes times `scale`.
        name: the attribute.
        targets: the target class of each flow.
        starts: for each flow, positions (s,) of its starting samples in the fit split.
        space: W or Z, the space of the flows.
        scale: number of the paper's units in one unit of this space.
    """

    field: Field
    name: str
    targets: Sequence[int]
    starts: Sequence[Tensor]
    space: Space
    scale: float


@dataclass(frozen=True)
class Trained:
    """Result of the training, one row per flow.

    Args:
        field: the K flows.
        diverged: (K,) bool.
        loss: (K, 2) the main and the other loss, over the last tenth of the iterations.
        reached: (K,) share of samples that reached their target class, over the same iterations.
    """

    field: Field
    diverged: Tensor
    loss: Tensor
    reached: Tensor


# -- losses -------------------------------------------------------------------
def class_logits(attributes: Attributes, logits: Tensor, name: str) -> Tensor:
    """Logits of every class of one attribute.

    Args:
        attributes: the teacher's.
        logits: (..., width) of all attributes.
        name: the attribute.

    Returns:
        (..., K), whose softmax gives the class probabilities.
    """
    # A binary attribute gets (0, l), whose softmax is the sigmoid of l.
    part = attributes.logits(logits, name)
    return F.pad(part, (1, 0)) if attributes[name].binary else part


def main_loss(
    attributes: Attributes, logits: Tensor, name: str, target: int, temperature: float
) -> Tensor:
    """Mean cross-entropy of the tempered logits with the target class: a scalar.

    It is the loss on the edited attribute (Khrulkov et al. 2021, section 4). The temperature is
    that of the published code.

    Args:
        attributes: the teacher's.
        logits: (m, width) of the edited images.
        name: the edited attribute.
        target: its target class, by index.
        temperature: tau, by which the logits are divided.
    """
    after = class_logits(attributes, logits, name) / temperature
    return F.cross_entropy(after, torch.full((len(after),), target, device=after.device))


def other_loss(
    attributes: Attributes,
    before: Tensor,
    after: Tensor,
    name: str,
    temperature: float,
    symmetric: bool,
) -> Tensor:
    """KL(softmax(before) || softmax(after / tau)), mean over other attributes and samples: scalar.

    Args:
        attributes: the teacher's.
        before: (m, width) logits of the original images.
        after: (m, width) logits of the edited images.
        name: the edited attribute.
        temperature: tau.
        symmetric: temper `before` too.
    """
    terms = []
    # The published code tempers only the edited image, so that even a perfect edit has a loss.
    temper_original = temperature if symmetric else 1.0
    for other in attributes.names:
        if other != name:
            original = class_logits(attributes, before, other).detach() / temper_original
            edited = class_logits(attributes, after, other) / temperature
            terms.append(
                F.kl_div(
                    edited.log_softmax(-1),
                    original.log_softmax(-1),
                    reduction="batchmean",
                    log_target=True,
                )
            )
    # With a single attribute there is nothing to preserve.
    return torch.stack(terms).mean() if terms else after.new_zeros(())


def identity_loss(before: Tensor, after: Tensor) -> Tensor:
    """Mean of 1 - cosine between embeddings of the original and of the edited images: a scalar.

    In the paper's identity variant (Khrulkov et al. 2021) it replaces `other_loss`.

    Args:
        before: (m, e) of the original images; no gradient flows to them.
        after: (m, e) of the edited images.
    """
    return 1 - F.cosine_similarity(before.detach(), after, dim=-1).mean()


# -- training -----------------------------------------------------------------
def train(
    flows: Flows,
    data: FitData,
    options: Training,
    solver: Solver,
    embedding: Embedding | None = None,
) -> Trained:
    """Train the K flows of one attribute side by side; each sees its own starts and has its own
    loss.

    The equation is solved for all flows at once. Then one flow after the other is decoded and
    differentiated with respect to its codes, so that memory holds one batch of images. The logits
    of the original images come from the bank, so only edited images are decoded (the identity
    variant also decodes the originals for their embedding).

    Args:
        flows: to train; they are not changed.
        data: the splits, the generator and the teacher.
        options: budget and loss.
        solver: of the equation.
        embedding: images -> (n, e), for `other: identity`.
    """
    name = flows.name
    targets = flows.targets
    codes = data.fit.codes(flows.space)
    device = data.fit.logits.device
    weight = flows.field.weight.to(device, copy=True).requires_grad_()
    bias = flows.field.bias.to(device, copy=True).requires_grad_()
    field = Field(weight, bias)
    adam = torch.optim.Adam([weight, bias], lr=options.lr)
    schedule = torch.optim.lr_scheduler.StepLR(adam, options.decay_every, 0.5)
    streams = [seeding.rng(data.seed, "neural_ode", name, target, "starts") for target in targets]
    clock = seeding.rng(data.seed, "neural_ode", name, "times")
    diverged = torch.zeros(len(targets), dtype=torch.bool, device=device)
    # Main loss, other loss and share that reached the class, over the last tenth of the iterations.
    means = torch.zeros(len(targets), 3)
    averaged = max(1, options.iterations // 10)
    with progress(f"{name}: flows", options.iterations) as advance:
        for iteration in range(options.iterations):
            rows = _draw_starts(streams, flows.starts, options.batch)
            lengths = _draw_lengths(clock, len(targets), options).to(codes.dtype)
            paper_codes = codes[rows] * flows.scale
            moved = solver.integrate(field.velocity, paper_codes, lengths) / flows.scale
            gradients = torch.zeros_like(moved)  # (K, m, d)
            for k, target in enumerate(targets):
                if diverged[k]:
                    continue
                figures, gradient = _evaluate_flow(
                    flows, data, target, rows[k], moved[k], options, embedding
                )
                finite = torch.isfinite(figures[0] + figures[1]) & torch.isfinite(gradient).all()
                diverged[k] = ~finite
                gradients[k] = gradient.nan_to_num(0.0, 0.0, 0.0)
                if iteration >= options.iterations - averaged:
                    means[k] += figures.cpu() / averaged
            # From the codes back through the solver, for all flows at once.
            adam.zero_grad(set_to_none=True)
            moved.backward(gradients)
            adam.step()
            schedule.step()
            diverged |= _reset_broken(weight, bias)
            advance()
            if bool(diverged.all()):
                break
    return Trained(Field(weight.detach(), bias.detach()), diverged, means[:, :2], means[:, 2])


def _draw_starts(
    streams: Sequence[np.random.Generator], starts: Sequence[Tensor], batch: int
) -> Tensor:
    """Draw `batch` starting samples for each flow, with replacement.

    Args:
        streams: one random stream for each of the K flows.
        starts: for each flow, positions (s,) of its starting samples in the fit split.
        batch: m.

    Returns:
        (K, m) positions in the fit split.
    """
    rows = []
    for stream, pool in zip(streams, starts):
        drawn = torch.from_numpy(stream.integers(len(pool), size=batch))
        rows.append(pool[drawn.to(pool.device)])
    return torch.stack(rows)


def _draw_lengths(clock: np.random.Generator, flows: int, options: Training) -> Tensor:
    """Draw t ~ U(T/4, T): (K, m, 1) float64 on the host, or (1, 1, 1) if `times` is 'batch'."""
    shape = (flows, options.batch, 1) if options.times == "sample" else (1, 1, 1)
    return torch.from_numpy(options.horizon * (0.25 + 0.75 * clock.random(shape)))


def _evaluate_flow(
    flows: Flows,
    data: FitData,
    target: int,
    rows: Tensor,
    moved: Tensor,
    options: Training,
    embedding: Embedding | None,
) -> tuple[Tensor, Tensor]:
    """Decode and score the end of one flow, and differentiate its loss.

    Args:
        flows: of which it is one.
        data: the splits, the generator and the teacher.
        target: the class that the flow leads to.
        rows: (m,) positions of the starting samples in the fit split.
        moved: (m, d) codes that the flow has moved them to.
        options: of the loss.
        embedding: of the identity loss; None for the loss on the other attributes.

    Returns:
        figures: (3,) main loss, other loss, and share of the samples that reached the class.
        gradient: (m, d) of the loss with respect to `moved`.
    """
    # The graph is cut at the codes, so that only one flow's images are in memory.
    leaf = moved.detach().requires_grad_()
    image = data.generator.decode(Codes(flows.space, leaf))
    logits = data.teacher(image)
    main = main_loss(data.attributes, logits, flows.name, target, options.temperature)
    if embedding is None:
        other = other_loss(
            data.attributes,
            data.fit.logits[rows],
            logits,
            flows.name,
            options.temperature,
            options.tempering == "symmetric",
        )
    else:
        with torch.no_grad():
            start = Codes(flows.space, data.fit.codes(flows.space)[rows])
            original = embedding(data.generator.decode(start))
        other = identity_loss(original, embedding(image))
    (gradient,) = torch.autograd.grad(main + options.weight * other, leaf)
    # The backward pass through the generator costs about as much as a forward pass.
    data.generator.decoded += len(leaf)
    reached = (data.attributes.labels(logits, flows.name) == target).float().mean()
    return torch.stack([main, other, reached]).detach(), gradient


@torch.no_grad()
def _reset_broken(weight: Tensor, bias: Tensor) -> Tensor:
    """Reset the flows with non-finite parameters to zero, and return which they are (K,).

    All flows share the solver, which one NaN would stop for the others.
    """
    broken = ~(torch.isfinite(weight).all(-1).all(-1).all(0) & torch.isfinite(bias).all(-1).all(0))
    weight[:, broken] = 0.0
    bias[:, broken] = 0.0
    return broken


def starts_of(labels: np.ndarray, target: int, source: int | None, device: torch.device) -> Tensor:
    """Positions of the samples to begin from.

    Args:
        labels: (n,) classes.
        target: the class that a flow leads to.
        source: the class that it starts from; None means every class but the target.
        device: of the result.
    """
    chosen = labels != target if source is None else labels == source
    return torch.from_numpy(np.flatnonzero(chosen)).to(device)
