"""Unit-speed autonomous fields dw/dt = F(w) / (|F(w)| + 1e-6), and their integration.

Khrulkov, Mirvakhabova, Oseledets & Babenko, "Latent Transformations via NeuralODEs for GAN-based
Image Editing", ICCV 2021. With unit speed, t is the length of the path for any F.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchdiffeq import odeint

from editbench.base.devices import to_device
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.seeding import normals, uniforms
from editbench.base.validation import check_choice, check_fields

EPS = 1e-6
_THIRD = 1 / 3
SLOPE = 0.2  # of the LeakyReLU between layers
METHODS = ("rk4", "dopri5")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}  # of dopri5, both relative and absolute


class Field:
    """K fields on R^d of the same form: layers x + (A x + b) with LeakyReLU between them.

    L = 0 layers are the constant field F = b (the paper's "linear": its lines are straight), L = 1
    is F = w + (A w + b) (the paper's "nonlinear": affine in w, curved in time), L >= 2 an MLP.

    Args:
        weight: A, (L, K, d, d).
        bias: b, (max(L, 1), K, d).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight = weight
        self.bias = bias

    @classmethod
    def initial(cls, layers: int, names: Sequence[str], dim: int, seed: int) -> Field:
        """Fields with the initialisation of the published code, one per name.

        A constant is drawn from N(0, I), a layer from PyTorch's default U(-1/sqrt(d), 1/sqrt(d)).

        Args:
            layers: L.
            names: of the K fields; a field depends only on (seed, name).
            dim: d.
            seed: of the draws.
        """
        weights = []
        biases = []
        for name in names:
            stream = f"neural_ode/{name}"
            if layers == 0:
                weights.append(np.empty((0, dim, dim)))
                biases.append(normals(seed, stream, 0, 1, dim))
            else:
                # One row of d numbers for each row of A, then one for each b.
                unit = 2 * uniforms(seed, stream, 0, layers * (dim + 1), dim) - 1
                drawn = unit / math.sqrt(dim)
                weights.append(drawn[: layers * dim].reshape(layers, dim, dim))
                biases.append(drawn[layers * dim :])
        return cls(
            torch.from_numpy(np.stack(weights, 1)).float(),
            torch.from_numpy(np.stack(biases, 1)).float(),
        )

    def __getitem__(self, k: int) -> Field:
        """The k-th field alone (K = 1)."""
        return Field(self.weight[:, k : k + 1], self.bias[:, k : k + 1])

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Field:
        """The same fields on a device, in a dtype.

        Args:
            device: of the copy.
            dtype: of the copy; None keeps the dtype.
        """
        return Field(self.weight.to(device, dtype), self.bias.to(device, dtype))

    def raw(self, w: Tensor) -> Tensor:
        """F: (K, m, d) -> (K, m, d), each field on its own rows."""
        if len(self.weight) == 0:
            # A constant field does not depend on the code.
            return self.bias[0].unsqueeze(1).expand_as(w)
        for layer, (weight, bias) in enumerate(zip(self.weight, self.bias)):
            w = F.leaky_relu(w, SLOPE) if layer else w
            # One batched product for all fields, plus the residual of the published code's layers.
            w = w + torch.baddbmm(bias.unsqueeze(1), w, weight.transpose(1, 2))
        return w

    def velocity(self, w: Tensor) -> Tensor:
        """F / (|F| + 1e-6): (K, m, d) -> (K, m, d)."""
        out = self.raw(w)
        return out / (out.norm(dim=-1, keepdim=True) + EPS)


@dataclass(frozen=True)
class Solver:
    """How a flow is integrated.

    Args:
        solver: 'rk4' (the 3/8 rule in equal steps, as in torchdiffeq) or 'dopri5' (adaptive steps).
        step_size: largest step of rk4, in units of path length.
        reference_single_step: rk4 in a single step for any length, as in the training of the
            published code: torchdiffeq uses the requested output times as rk4's grid, and these are
            [0, t] there. The path of one long step is shorter than t.

    Raises:
        EditbenchError: an option is unknown or out of its range.
    """

    solver: str = "rk4"
    step_size: float = 0.5
    reference_single_step: bool = False

    def __post_init__(self) -> None:
        check_fields("method", self)
        check_choice("solver", self.solver, METHODS)
        if not self.step_size > 0:
            raise EditbenchError(f"step_size must be positive, got {self.step_size}")
        if self.reference_single_step and self.solver != "rk4":
            raise EditbenchError("reference_single_step is only used with solver: rk4")

    def steps(self, length: float) -> int:
        """Number of equal rk4 steps for a length."""
        if self.reference_single_step:
            return 1
        # Without the 1e-9, rounding could turn a length of 3 steps into 4.
        return max(1, math.ceil(abs(length) / self.step_size - 1e-9))

    def integrate(self, velocity: Callable[[Tensor], Tensor], w: Tensor, length: Tensor) -> Tensor:
        """w(length) for w(0) = w, differentiable.

        The length is a factor of the field, dw/ds = length * F(w) over s in [0, 1], so that each
        row can have its own length.

        Args:
            velocity: F at unit speed, (..., d) -> (..., d).
            w: (..., d).
            length: broadcasts against w; a negative length goes backwards. If it is on the host,
                rk4 need not wait for the device.

        Returns:
            (..., d).

        Raises:
            Unsupported: dopri5 could not follow the field.
        """
        # Plain autograd instead of the adjoint method: storing the few dozen evaluations of a small
        # network is cheap, the gradient is exact, and the adjoint would solve the equation a second
        # time, backwards.
        if self.solver == "rk4":
            # All rows share the grid of the longest one.
            steps = self.steps(length.abs().max().item())
            length = to_device(length, w.device)
            return _three_eighths(lambda x: length * velocity(x), w, steps)
        length = to_device(length, w.device)
        times = torch.tensor([0.0, 1.0], dtype=w.dtype, device=w.device)
        # All rows share the step length, so one NaN would stop all of them.
        finite = torch.isfinite(w).all(-1, keepdim=True)
        tolerance = TOLERANCE.get(w.dtype, 1e-5)
        # The maximum norm bounds the error of every row for any batch size. `step_t` ends a step at
        # s = 1, because torchdiffeq's interpolation is less accurate if the last step contains a
        # kink of the field.
        options = {"norm": lambda x: x.abs().amax(), "step_t": times[1:]}
        try:
            end = odeint(
                lambda _, x: length * velocity(x),
                w.masked_fill(~finite, 0.0),
                times,
                method="dopri5",
                rtol=tolerance,
                atol=tolerance,
                options=options,
            )[-1]
        except AssertionError as error:  # torchdiffeq: underflow in dt, non-finite values
            raise Unsupported(f"the flow diverged: dopri5 could not follow it ({error})") from error
        return end.masked_fill(~finite, torch.nan)


def _three_eighths(velocity: Callable[[Tensor], Tensor], w: Tensor, steps: int) -> Tensor:
    """w at s = 1 from w at s = 0, by the 3/8 rule of Kutta in equal steps.

    The numbers are those of torchdiffeq's fixed-step solver, which however queries the device at
    every step for whether the end is reached.

    Args:
        velocity: dw/ds, the same at every s.
        w: (..., d).
        steps: at least 1.
    """
    grid = torch.linspace(0, 1, steps + 1, dtype=w.dtype)
    # Zero-dimensional tensors on the host act as scalars on the device, in the precision of w.
    for dt in (grid[1:] - grid[:-1]).unbind(0):
        k1 = velocity(w)
        k2 = velocity(w + dt * k1 * _THIRD)
        k3 = velocity(w + dt * (k2 - k1 * _THIRD))
        k4 = velocity(w + dt * (k1 - k2 + k3))
        w = w + (k1 + 3 * (k2 + k3) + k4) * dt * 0.125
    return w
