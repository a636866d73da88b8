"""NaviGAN's eq. (1): learning directions in a layer's weight, with a network that recognises them.

min over coefficients and R of E_{z, k, t} [ CE(k, k_hat) + lambda |t - t_hat| ], (k_hat, t_hat) =
R(G_theta(z), G_{theta + t xi_k}(z)); z ~ N(0, I), k uniform, t ~ U[-T, T] (Cherepkov, Voynov &
Babenko, CVPR 2021, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base import seeding
from editbench.base.errors import NonFinite, Unsupported
from editbench.base.progress import progress
from editbench.base.seeding import stream_key
from editbench.base.spaces import Codes, Space, WeightShift
from editbench.base.validation import check_at_least, check_choice, check_fields, check_positive
from editbench.methods.navigan.reconstructor import RECONSTRUCTORS
from editbench.methods.navigan.weight_bases import WeightBasis, paper_scale
from editbench.networks.generator import Generator
from editbench.networks.style_generator import StyleGenerator

LOOK_EVERY = 50  # iterations between two reads of the loss, each of which waits for the device


@dataclass(frozen=True)
class Training:
    """Budget of eq. (1).

    t is in the units of the paper's layers throughout (T = 3500 or 80), so that lambda has the same
    meaning as there; the weight is shifted by t times `paper_scale`.

    Args:
        iterations: of Adam.
        batch: pairs per iteration.
        lr: of the reconstructor.
        direction_lr: of the directions.
        shift_weight: lambda.
        min_shift: smaller |t| are raised to it (published code; in units of `limit`).
        reconstructor: 'resnet18' or 'small'.
        resolution: of its input images; 0 does not resize them.
        shift_unit: output of its shift head: 'raw', t itself, as published; or 'limit', t / T,
            which can be learned with a small budget.
        fresh: number of pairs for the final evaluation.

    Raises:
        EditbenchError: a value is out of its range or unknown.
    """

    iterations: int = 100_000
    batch: int = 32
    lr: float = 1e-4
    direction_lr: float = 1e-4
    shift_weight: float = 2.5e-3
    min_shift: float = 300.0
    reconstructor: str = "resnet18"
    resolution: int = 256
    shift_unit: str = "raw"
    fresh: int = 1024

    def __post_init__(self) -> None:
        check_fields("training", self)
        check_choice("training.reconstructor", self.reconstructor, tuple(RECONSTRUCTORS))
        check_choice("training.shift_unit", self.shift_unit, ("raw", "limit"))
        # Batch normalisation needs at least two pairs.
        least = {"iterations": 1, "batch": 2, "fresh": 1}
        least |= {"shift_weight": 0, "min_shift": 0, "resolution": 0}
        for name, bound in least.items():
            check_at_least(f"training.{name}", getattr(self, name), bound)
        check_positive("training.lr", self.lr)
        check_positive("training.direction_lr", self.direction_lr)


@dataclass(frozen=True)
class Learned:
    """What eq. (1) gave.

    Args:
        coefficients: (K, size) at unit length.
        accuracy: of k_hat on fresh pairs.
        shift_mae: mean |t - t_hat| on fresh pairs, in units of the paper's t.
        first_loss: of eq. (1), over the first tenth of the iterations.
        last_loss: the same over the last tenth.
    """

    coefficients: Tensor
    accuracy: float
    shift_mae: float
    first_loss: float
    last_loss: float


class Pairs:
    """Random pairs of eq. (1): (before, after, k, t), all from one stream.

    Args:
        generator: whose layer is shifted.
        layer: by name.
        basis: of the directions.
        count: K.
        limit: T, in units of the paper's layers.
        min_shift: smallest |t|, in the same units.
        rng: the stream.
    """

    def __init__(
        self,
        generator: Generator,
        layer: str,
        basis: WeightBasis,
        count: int,
        limit: float,
        min_shift: float,
        rng: np.random.Generator,
    ) -> None:
        self.generator = generator
        self.layer = layer
        self.basis = basis
        self.count = count
        self.limit = limit
        self.min_shift = min_shift
        self.rng = rng
        self.weight = generator.kernels()[layer]
        self.scale = paper_scale(self.weight)

    def __call__(self, coefficients: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """n pairs under directions given by their coefficients (K, size)."""
        z = torch.from_numpy(self.rng.standard_normal((n, self.generator.z_dim))).to(self.weight)
        # Drawn on the host, so that a seed gives the same pairs on every device.
        k = torch.from_numpy(self.rng.integers(self.count, size=n)).to(self.weight.device)
        uniform = torch.from_numpy(self.rng.uniform(-1, 1, n)).to(self.weight)
        t = push_out(uniform * self.limit, self.min_shift)
        # A direction is as large as the weight, so each one in use is built once.
        used, index = k.unique(return_inverse=True)
        shift = WeightShift(self.layer, self.basis.unit(coefficients[used]), index, t * self.scale)
        return *decode_pair(self.generator, z, shift), k, t


def push_out(t: Tensor, least: float) -> Tensor:
    """Raise shifts with |t| < least to |t| = least, and keep their sign.

    The published code does so; the paper does not mention it.

    Args:
        t: (n,) shifts.
        least: smallest |t|, in the same units.
    """
    # `copysign` instead of a product with the sign, which is 0 for t = 0.
    return torch.where(t.abs() < least, torch.full_like(t, least).copysign(t), t)


def decode_pair(generator: Generator, z: Tensor, shift: WeightShift) -> tuple[Tensor, Tensor]:
    """Decode images before and after a shift of a layer's weight; the first have no gradients.

    Both have the same constant noise. For a StyleGenerator the features before the layer are
    computed once for both.

    Args:
        generator: whose layer is shifted.
        z: (n, z_dim) latents.
        shift: of one layer, with a direction and a strength for each of the n samples.

    Returns:
        Images before and images after, (n, C, R, R) each.
    """
    if not isinstance(generator, StyleGenerator):
        codes = Codes(Space.Z, z)
        with torch.no_grad():
            before = generator.decode(codes)
        return before, generator.decode(replace(codes, shift=shift))
    synthesis = generator.network.synthesis
    first = generator.layer_names.index(shift.layer)
    with torch.no_grad():
        styles = generator.split_styles(generator.styles(generator.w_plus(generator.map(z))))
        state = synthesis.run(synthesis.begin(len(z)), styles, last=first)
        _, plain = synthesis.run(state, styles, first=first)
    _, edited = synthesis.run(state, styles, shift=shift, first=first)
    # Only the last part of the network returns images, so neither can be None here.
    assert plain is not None and edited is not None
    # `decode` counts decoded samples, and this path does not call it.
    generator.decoded += 2 * len(z)
    return plain, edited


def losses(logits: Tensor, t_hat: Tensor, k: Tensor, t: Tensor, shift_weight: float) -> Tensor:
    """Eq. (1) of a batch of n pairs (Cherepkov et al. 2021): CE(k, k_hat) + lambda |t - t_hat|.

    Args:
        logits: (n, K) of k_hat.
        t_hat: (n,) predicted shifts.
        k: (n,) int64, the directions that were applied.
        t: (n,) the shifts that were applied, in units of the paper's layers.
        shift_weight: lambda.

    Returns:
        The mean over the batch, a scalar.
    """
    return F.cross_entropy(logits, k) + shift_weight * (t - t_hat).abs().mean()


def learn(
    generator: Generator,
    layer: str,
    basis: WeightBasis,
    count: int,
    limit: float,
    options: Training,
    network: Callable[[int, int, float, int | None], nn.Module],
    seed: int,
) -> Learned:
    """Minimise eq. (1) over `count` directions in a basis and a reconstructor, both from scratch.

    Args:
        generator: whose layer is shifted.
        layer: by name.
        basis: of the directions.
        count: K.
        limit: T, in units of the paper's layers.
        options: the budget.
        network: (channels, directions, unit of the shift head, resolution) -> R, a module that
            takes (before, after) and returns (logits of k_hat, t_hat).
        seed: of coefficients, pairs and network.

    Raises:
        Unsupported: the generator does not make images.
        NonFinite: the loss diverged.
    """
    if generator.output != "image":
        raise Unsupported("the reconstructor compares pictures, and this generator gives none")
    rng = seeding.rng(seed, "navigan", layer)
    pairs = Pairs(generator, layer, basis, count, limit, options.min_shift, rng)
    # The coefficients are on the device of the weight.
    weight = generator.kernels()[layer]
    coefficients = (
        torch.from_numpy(rng.standard_normal((count, basis.size))).to(weight).requires_grad_()
    )
    with torch.no_grad():
        # One image is decoded to find the number of colour channels.
        channels = pairs(coefficients, 1)[0].shape[1]
    # torch's modules draw their initial weights from the global generator, which is restored.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_key(seed, "navigan/reconstructor") >> 65)
        unit = limit if options.shift_unit == "limit" else 1.0
        reconstructor = network(channels, count, unit, options.resolution or None).to(weight.device)
    history = _minimise(reconstructor, pairs, coefficients, options)
    accuracy, shift_mae = _evaluate(reconstructor, pairs, coefficients.detach(), options)
    tenth = max(options.iterations // 10, 1)
    # Adam also changes the length of the coefficients, which has no effect on the images.
    norms = coefficients.detach().norm(dim=1, keepdim=True)
    return Learned(
        coefficients.detach() / norms,
        accuracy,
        shift_mae,
        history[:tenth].mean().item(),
        history[-tenth:].mean().item(),
    )


def _minimise(
    reconstructor: nn.Module, pairs: Pairs, coefficients: Tensor, options: Training
) -> Tensor:
    """Minimise eq. (1) with Adam, in place.

    Args:
        reconstructor: R, as `network` of `learn` makes it.
        pairs: draws the pairs of every iteration.
        coefficients: (K, size), which require gradients.
        options: the budget.

    Returns:
        (iterations,) the losses.

    Raises:
        NonFinite: the loss diverged.
    """
    optimiser = torch.optim.Adam(
        [
            {"params": reconstructor.parameters(), "lr": options.lr},
            {"params": [coefficients], "lr": options.direction_lr},
        ]
    )
    history = torch.zeros(options.iterations, device=coefficients.device)
    with torch.enable_grad(), progress("directions: iterations", options.iterations) as advance:
        for step in range(options.iterations):
            before, after, k, t = pairs(coefficients, options.batch)
            logits, t_hat = reconstructor(before, after)
            loss = losses(logits, t_hat, k, t, options.shift_weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            pairs.generator.decoded += options.batch  # back through the generator
            optimiser.step()
            history[step] = loss.detach()
            look = step % LOOK_EVERY == 0 or step + 1 == options.iterations
            if look and not bool(torch.isfinite(loss)):
                raise NonFinite(
                    f"eq. (1) diverged within {step + 1} iterations (loss {loss.item()}): lower "
                    "method.training.lr, method.training.direction_lr or method.limit"
                )
            advance()
    return history


@torch.no_grad()
def _evaluate(
    reconstructor: nn.Module, pairs: Pairs, coefficients: Tensor, options: Training
) -> tuple[float, float]:
    """Accuracy of k_hat and mean |t - t_hat| of a trained reconstructor, on fresh pairs."""
    # In evaluation mode, so that batch normalisation does not depend on the other pairs.
    reconstructor.eval()
    right = 0
    error = 0.0
    seen = 0
    while seen < options.fresh:
        before, after, k, t = pairs(coefficients, min(options.batch, options.fresh - seen))
        logits, t_hat = reconstructor(before, after)
        right += int((logits.argmax(1) == k).sum())
        error += float((t - t_hat).abs().sum())
        seen += len(k)  # the last batch may be smaller
    return right / seen, error / seen
