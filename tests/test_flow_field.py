"""Latent flows: closed forms, scipy at a tight tolerance, and torchdiffeq's rules written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import solve_ivp
from torch.nn.functional import leaky_relu
from torchdiffeq import odeint

from editbench.base.errors import Unsupported
from editbench.methods.neural_ode.field import Field, Solver
from tests.toy import check_refused

DIM = 12


def field(layers: int, flows: int = 2, dim: int = DIM, strength: float = 1.0) -> Field:
    """Fields with larger weights than at the start, so that their paths bend."""
    first = Field.initial(layers, [f"test/{k}" for k in range(flows)], dim, 3).to(
        torch.device("cpu"), torch.float64
    )
    return Field(first.weight * strength, first.bias)


def starts(flows: int = 2, n: int = 5, dim: int = DIM) -> torch.Tensor:
    return torch.randn(
        flows, n, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def length(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


def test_start_is_the_code_s_default():
    constant, linear, mlp = (Field.initial(layers, ["a/0", "a/1"], 256, 0) for layers in (0, 1, 3))
    assert constant.weight.shape == (0, 2, 256, 256) and constant.bias.shape == (1, 2, 256)
    assert 0.9 < constant.bias.std() < 1.1
    for one, layers in ((linear, 1), (mlp, 3)):
        assert one.weight.shape == (layers, 2, 256, 256) and one.bias.shape == (layers, 2, 256)
        for part in (one.weight, one.bias):
            assert part.abs().max() <= 1 / 16
            assert abs(part.std().item() - 1 / 16 / math.sqrt(3)) < 2e-3
    alone = Field.initial(3, ["a/1"], 256, 0)
    assert torch.equal(alone.weight, mlp[1].weight) and torch.equal(alone.bias, mlp[1].bias)
    assert not torch.equal(mlp[0].weight, mlp[1].weight)


@pytest.mark.parametrize("layers", [0, 1, 2, 4])
def test_fields_side_by_side_equal_one_sample_and_one_layer_at_a_time(layers):
    fields, w = field(layers), starts()
    for k in range(2):
        for row in range(5):
            x = w[k, row]
            for layer in range(layers):
                x = leaky_relu(x, 0.2) if layer else x
                x = x + fields.weight[layer, k] @ x + fields.bias[layer, k]
            x = fields.bias[0, k] if layers == 0 else x
            torch.testing.assert_close(fields.raw(w)[k, row], x)
            torch.testing.assert_close(fields.velocity(w)[k, row], x / (x.norm() + 1e-6))


def test_constant_flow_is_a_straight_line_of_the_asked_length():
    constant, w = field(0), starts()
    for t in (2.7, -6.0):
        moved = Solver().integrate(constant.velocity, w, length(t)) - w
        unit = constant.bias[0] / constant.bias[0].norm(dim=1, keepdim=True)
        torch.testing.assert_close(
            moved, (t * unit).unsqueeze(1).expand_as(moved), atol=1e-5, rtol=0
        )


def test_linear_flow_stays_on_the_curve_of_the_matrix_exponential():
    linear = field(1, flows=1, strength=2.0)
    w, matrix = starts(1, 1), torch.eye(DIM, dtype=torch.float64) + linear.weight[0, 0]
    system = torch.zeros(
        DIM + 1, DIM + 1, dtype=torch.float64
    )  # (w, 1)' = [[I + A, b], [0, 0]] (w, 1)
    system[:DIM, :DIM], system[:DIM, DIM] = matrix, linear.bias[0, 0]
    lifted = torch.cat([w[0, 0], torch.ones(1, dtype=torch.float64)])
    times = torch.linspace(0, 2, 8001, dtype=torch.float64)
    small = torch.linalg.matrix_exp(system * times[1])
    curve = [lifted]
    for _ in times[1:]:
        curve.append(small @ curve[-1])
    points = torch.stack(curve)[:, :DIM]
    arc = torch.cat(
        [torch.zeros(1, dtype=torch.float64), (points[1:] - points[:-1]).norm(dim=1).cumsum(0)]
    )
    for t in (0.5, 2.0, 5.0):
        assert arc[-1] > t
        at = Solver(step_size=0.02).integrate(linear.velocity, w, length(t))[0, 0]
        distance, nearest = (points - at).norm(dim=1).min(0)
        assert distance < 1e-3 and abs(arc[nearest] - t) < 1e-3, (
            "the same curve, at the arc length t"
        )
        assert (at - w[0, 0] - t * linear.velocity(w)[0, 0]).norm() > 0.01, (
            "and the curve is not a line"
        )


@pytest.mark.parametrize("solver", [Solver(step_size=0.05), Solver("dopri5")])
@pytest.mark.parametrize("layers", [1, 3])
def test_flows_equal_scipy_at_a_tight_tolerance(layers, solver):
    fields, w = field(layers, strength=2.0), starts()
    for t in (3.0, -1.5):
        moved = solver.integrate(fields.velocity, w, length(t))
        for k in range(2):

            def rhs(_, x, k=k, t=t):
                return (
                    math.copysign(1, t)
                    * fields[k].velocity(torch.from_numpy(x)[None, None])[0, 0].numpy()
                )

            exact = solve_ivp(rhs, (0, abs(t)), w[k, 0].numpy(), rtol=1e-8, atol=1e-9).y[:, -1]
            torch.testing.assert_close(moved[k, 0], torch.from_numpy(exact), atol=1e-4, rtol=0)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_path_is_as_long_as_t(layers):
    fields, w, solver = field(layers, strength=2.0), starts(), Solver()
    points, t = [w], 6.0
    for _ in range(300):
        points.append(solver.integrate(fields.velocity, points[-1], length(t / 300)))
    path = (torch.stack(points)[1:] - torch.stack(points)[:-1]).norm(dim=-1).sum(0)
    assert (path - t).abs().max() < 1e-3 * t


def test_halving_the_step_divides_the_error_by_sixteen():
    linear, w = field(1, strength=2.0), starts()
    exact = Solver(step_size=2**-8).integrate(linear.velocity, w, length(4.0))
    errors = [
        (Solver(step_size=h).integrate(linear.velocity, w, length(4.0)) - exact).norm()
        for h in (0.25, 0.125)
    ]
    assert 3.5 < math.log2(errors[0] / errors[1]) < 4.6


def test_steps_join_and_a_flow_turns_back():
    fields, w, solver = field(2, strength=2.0), starts(), Solver()
    walked = w
    for _ in range(10):
        walked = solver.integrate(fields.velocity, walked, length(0.6))
    torch.testing.assert_close(
        walked, Solver(step_size=0.3).integrate(fields.velocity, w, length(6.0))
    )
    fine = Solver(step_size=0.02)
    there = fine.integrate(fields.velocity, w, length(3.0))
    torch.testing.assert_close(
        fine.integrate(fields.velocity, there, length(-3.0)), w, atol=1e-4, rtol=0
    )


def test_reference_single_step_is_the_three_eighths_rule_with_four_evaluations():
    fields, w, t, calls = field(2, strength=2.0), starts(), 6.0, []

    def velocity(x):
        calls.append(x)
        return fields.velocity(x)

    moved = Solver(reference_single_step=True).integrate(velocity, w, length(t))
    assert len(calls) == 4
    k1 = fields.velocity(w)
    k2 = fields.velocity(w + t * k1 / 3)
    k3 = fields.velocity(w + t * (k2 - k1 / 3))
    k4 = fields.velocity(w + t * (k1 - k2 + k3))
    torch.testing.assert_close(moved, w + t * (k1 + 3 * k2 + 3 * k3 + k4) / 8)
    assert ((moved - w).norm(dim=-1) < t).all(), "its path is shorter than t"
    many = Solver().integrate(fields.velocity, w, length(t))
    assert (moved - many).norm(dim=-1).min() > 1e-3
    assert Solver().steps(6.0) == 12 and Solver().steps(0.6) == 2 and Solver().steps(-0.5) == 1


def test_a_length_a_row_equals_each_row_alone():
    fields, w = field(2), starts()
    far = torch.linspace(1, 6, 10, dtype=torch.float64).reshape(2, 5, 1)
    together = Solver(step_size=0.02).integrate(fields.velocity, w, far)
    for k in range(2):
        for row in range(5):
            alone = Solver(step_size=0.02).integrate(
                fields[k].velocity, w[k, row][None, None], far[k, row]
            )
            torch.testing.assert_close(together[k, row], alone[0, 0], atol=1e-5, rtol=0)


def test_gradient_is_that_of_a_difference():
    fields, w = field(2, strength=2.0), starts()
    bias = fields.bias.clone().requires_grad_()
    probe = torch.randn(w.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def value(b):
        return (Solver().integrate(Field(fields.weight, b).velocity, w, length(3.0)) * probe).sum()

    (gradient,) = torch.autograd.grad(value(bias), bias)
    for at in ((0, 0, 3), (1, 1, 7)):
        step = torch.zeros_like(bias)
        step[at] = 1e-6
        difference = (value(fields.bias + step) - value(fields.bias - step)) / 2e-6
        assert gradient[at].item() == pytest.approx(difference.item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("solver", [Solver(), Solver("dopri5")])
def test_a_sick_row_stays_alone(solver):
    fields, w = field(2), starts()
    sick = w.clone()
    sick[0, 2, 5] = torch.nan
    well, moved = (solver.integrate(fields.velocity, x, length(2.0)) for x in (w, sick))
    assert torch.isnan(moved[0, 2]).all()
    keep = torch.ones(2, 5, dtype=torch.bool)
    keep[0, 2] = False
    torch.testing.assert_close(moved[keep], well[keep], atol=1e-6, rtol=0)


def test_a_field_that_breaks_down_is_unsupported():
    broken = Field(field(2).weight * torch.nan, field(2).bias)
    with pytest.raises(Unsupported, match="diverged"):
        Solver("dopri5").integrate(broken.velocity, starts(), length(2.0))


def test_bad_options():
    options = [
        {"solver": "euler"},
        {"step_size": 0.0},
        {"solver": "dopri5", "reference_single_step": True},
        {"step_size": "x"},
    ]
    check_refused(Solver, options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rk4_gives_the_numbers_of_torchdiffeq(dtype):
    """The loop of the project asks no device whether the end is reached; every bit is the library's."""
    fields = Field.initial(2, ["a", "b"], 6, 0).to(torch.device("cpu"), dtype)
    w = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    far = torch.rand(2, 5, 1, generator=torch.Generator().manual_seed(1)).to(dtype) * 4
    grid = torch.linspace(0, 1, Solver().steps(far.max().item()) + 1, dtype=dtype)
    expected = odeint(
        lambda _, x: far * fields.velocity(x),
        w,
        grid[[0, -1]],
        method="rk4",
        options={"grid_constructor": lambda *_: grid},
    )[-1]
    assert len(grid) > 4 and torch.equal(Solver().integrate(fields.velocity, w, far), expected)
