"""Training of latent flows as here against the published arrangement, in one run.

The published code decodes and scores the original images in every iteration, although they come
from a fixed bank, and differentiates the flow by the adjoint. Here the bank's logits are read and
plain autograd is used. Both start from the same field with the same draws and take the same
solver steps.

    python benchmarks/flow_training.py [--iterations 10] [--repeats 5] [--depth 1] [--single-step]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torchdiffeq import odeint_adjoint

from editbench.bank.bank import Split
from editbench.base import seeding
from editbench.base.spaces import Codes, Space
from editbench.methods.neural_ode.field import Field, Solver
from editbench.methods.neural_ode.training import Training, main_loss, other_loss, train
from editbench.walk.editor import FitData
from editbench.worlds.faces import load_generator, load_scorer

NAME = "smile"
TARGET = 1
BANK = 1024


class Velocity(torch.nn.Module):
    """The field as a module, whose parameters the adjoint finds."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(field.weight.clone())
        self.bias = torch.nn.Parameter(field.bias.clone())

    def forward(self, _: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return Field(self.weight, self.bias).velocity(w)


def published(
    field: Field, data: FitData, pool: torch.Tensor, scale: float, options: Training, solver: Solver
) -> Field:
    """The published arrangement: originals decoded and scored anew, adjoint gradient."""
    velocity = Velocity(field)
    codes = data.fit.codes(Space.W)
    adam = torch.optim.Adam(velocity.parameters(), lr=options.lr)
    draw = seeding.rng(data.seed, "neural_ode", NAME, TARGET, "starts")
    clock = seeding.rng(data.seed, "neural_ode", NAME, "times")
    for _ in range(options.iterations):
        w = codes[pool[torch.from_numpy(draw.integers(len(pool), size=options.batch))]]
        t = options.horizon * (0.25 + 0.75 * clock.random())
        times = torch.tensor([0.0, t])
        step = t / solver.steps(t)
        start = (w * scale).unsqueeze(0)
        path = odeint_adjoint(velocity, start, times, method="rk4", options={"step_size": step})
        moved = path[-1, 0] / scale
        # The bank holds these logits already.
        with torch.no_grad():
            before = data.teacher(data.generator.decode(Codes(Space.W, w)))
        after = data.teacher(data.generator.decode(Codes(Space.W, moved)))
        tau = options.temperature
        symmetric = options.tempering == "symmetric"
        main = main_loss(data.attributes, after, NAME, TARGET, tau)
        other = other_loss(data.attributes, before, after, NAME, tau, symmetric)
        loss = main + options.weight * other
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
    return Field(velocity.weight.detach(), velocity.bias.detach())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--depth", type=int, default=1, help="layers of the field")
    parser.add_argument(
        "--single-step", action="store_true", help="one rk4 step, as the published code takes"
    )
    args = parser.parse_args()
    gan = load_generator().requires_grad_(False)
    teacher = load_scorer("teacher").requires_grad_(False)
    with torch.no_grad():
        z = torch.randn(BANK, gan.z_dim, generator=torch.Generator().manual_seed(0))
        w = gan.map(z)
        logits = torch.cat([teacher(gan.decode(Codes(Space.W, part))) for part in w.split(64)])
    split = Split(torch.arange(BANK), z, w, logits)
    data = FitData(gan, teacher, split, split, teacher.attributes.log_odds(logits).std(0), 0)
    pool = (teacher.attributes.labels(logits, NAME) != TARGET).nonzero()[:, 0]
    options = Training(iterations=args.iterations)
    solver = Solver(reference_single_step=args.single_step)
    scale = 1.0 / data.step_size(1.0, Space.W)
    field = Field.initial(args.depth, [f"{NAME}/{TARGET}"], gan.w_dim, 0)
    # In turn, so that both ways see the machine in the same state.
    ratios = []
    for repeat in range(args.repeats + 1):
        began = time.process_time()
        here = train(field, data, NAME, [TARGET], [pool], Space.W, scale, options, solver).field
        middle = time.process_time()
        there = published(field, data, pool, scale, options, solver)
        fast = middle - began
        slow = time.process_time() - middle
        if repeat:  # the first one warms up
            ratios.append(slow / fast)
    # Both took the same draws: what is left is the error of the adjoint, grown by Adam.
    gap = (here.weight - there.weight).norm() / (here.weight - field.weight).norm()
    published_ms = slow / args.iterations * 1e3
    here_ms = fast / args.iterations * 1e3
    print(
        f"published {published_ms:.0f} ms an iteration, here {here_ms:.0f} ms; "
        f"the weights they arrive at differ by {gap:.1e} of the way"
    )
    print(
        f"ratio {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}) "
        f"of processor time, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
