"""Measures the CPU time of training a latent flow, against the implementation that was published.

Both train the same field (method `neural_ode`, attribute smile) in the embedded world, from the
same initial weights, with the same random draws and the same steps of the solver. They differ in
two ways:

    published   decodes and scores the original images in every iteration, although they come from
                a fixed bank, and differentiates the flow with the adjoint method of torchdiffeq
    ours        reads the logits of the originals from the bank, and differentiates the flow with
                ordinary autograd

The repetitions alternate between both. The output gives, for each, the CPU milliseconds per
iteration in the last repetition. The column "ratio" has the CPU time of published divided by that
of ours: the median over the repetitions, with the smallest and the largest in brackets. The last
line gives the distance between the trained weights of both, as a share of the distance from the
initial weights. It shows the numerical error of the adjoint method, which the optimiser amplifies.

    python benchmarks/flow_training.py    # about 20 CPU seconds
    python benchmarks/flow_training.py --iterations 1 --repeats 1     # the smallest run
    python benchmarks/flow_training.py --depth 3 --single-step        # other flows

docs/methods.md reports the ratio. It guards methods/neural_ode/training.py.
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
from editbench.methods.neural_ode.training import Flows, Training, main_loss, other_loss, train
from editbench.walk.editor import FitData
from editbench.worlds.faces import load_generator, load_scorer

NAME = "smile"  # the attribute that is edited
TARGET = 1  # the class that the flow leads to
BANK = 1024  # samples
BATCH = 64  # images of the bank that are decoded together


class Velocity(torch.nn.Module):
    """The field as a module, so that the adjoint method finds its parameters."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(field.weight.clone())
        self.bias = torch.nn.Parameter(field.bias.clone())

    def forward(self, _: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Return the velocity at w (..., w_dim); the time, the first argument, has no effect."""
        return Field(self.weight, self.bias).velocity(w)


def train_as_published(
    field: Field, data: FitData, pool: torch.Tensor, scale: float, options: Training, solver: Solver
) -> Field:
    """Train a field as the published code does: decode the originals again, use the adjoint method.

    Args:
        field: the initial field.
        data: generator, teacher and bank.
        pool: (m,) positions of the starts in the fit split.
        scale: of the codes, from W to the coordinates of the field.
        options: of the training.
        solver: of the flow.

    Returns:
        The trained field.
    """
    velocity = Velocity(field)
    codes = data.fit.codes(Space.W)
    adam = torch.optim.Adam(velocity.parameters(), lr=options.lr)
    # The names of the random draws are those of `train`, so that both draw the same numbers.
    start_rng = seeding.rng(data.seed, "neural_ode", NAME, TARGET, "starts")
    time_rng = seeding.rng(data.seed, "neural_ode", NAME, "times")
    for _ in range(options.iterations):
        chosen = torch.from_numpy(start_rng.integers(len(pool), size=options.batch))
        w = codes[pool[chosen]]
        t = options.horizon * (0.25 + 0.75 * time_rng.random())
        times = torch.tensor([0.0, t])
        step = t / solver.steps(t)
        start = (w * scale).unsqueeze(0)
        path = odeint_adjoint(velocity, start, times, method="rk4", options={"step_size": step})
        moved = path[-1, 0] / scale
        # The bank already has these logits. The published code computes them again.
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


def make_data() -> FitData:
    """Make a small bank of the embedded world, in memory."""
    generator = load_generator().requires_grad_(False)
    teacher = load_scorer("teacher").requires_grad_(False)
    with torch.no_grad():
        z = torch.randn(BANK, generator.z_dim, generator=torch.Generator().manual_seed(0))
        w = generator.map(z)
        parts = []
        for batch in w.split(BATCH):
            parts.append(teacher(generator.decode(Codes(Space.W, batch))))
        logits = torch.cat(parts)
    split = Split(torch.arange(BANK), z, w, logits)
    sigma = teacher.attributes.log_odds(logits).std(0)
    return FitData(generator, teacher, split, split, sigma, seed=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--iterations", type=int, default=10, help="of one training (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        help="measured trainings of each, after one that is not measured (default: %(default)s)",
    )
    parser.add_argument(
        "--depth", type=int, default=1, help="layers of the field (default: %(default)s)"
    )
    parser.add_argument(
        "--single-step",
        action="store_true",
        help="solve the flow with one rk4 step, as the published code does (default: several)",
    )
    args = parser.parse_args()
    data = make_data()
    labels = data.attributes.labels(data.fit.logits, NAME)
    # The flow starts at samples that are not in the target class yet.
    pool = (labels != TARGET).nonzero()[:, 0]
    options = Training(iterations=args.iterations)
    solver = Solver(reference_single_step=args.single_step)
    scale = 1.0 / data.step_size(1.0, Space.W)
    field = Field.initial(args.depth, [f"{NAME}/{TARGET}"], data.generator.w_dim, 0)
    flows = Flows(field, NAME, [TARGET], [pool], Space.W, scale)
    ratios = []
    # The two alternate, so that changes of the machine's speed affect both.
    for repeat in range(args.repeats + 1):
        began = time.process_time()
        ours = train(flows, data, options, solver).field
        middle = time.process_time()
        published = train_as_published(field, data, pool, scale, options, solver)
        ours_seconds = middle - began
        published_seconds = time.process_time() - middle
        # The first repetition only warms up.
        if repeat:
            ratios.append(published_seconds / ours_seconds)
    published_ms = 1000 * published_seconds / args.iterations
    ours_ms = 1000 * ours_seconds / args.iterations
    spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
    # Both had the same random draws, so only the error of the adjoint method is left.
    gap = (ours.weight - published.weight).norm() / (ours.weight - field.weight).norm()
    print(f"{args.iterations} iterations, {torch.get_num_threads()} threads")
    print(f"{'implementation':<16}{'CPU ms per iteration':>22}  ratio")
    print(f"{'published':<16}{published_ms:22.0f}  {statistics.median(ratios):.2f} {spread}")
    print(f"{'ours':<16}{ours_ms:22.0f}  1")
    print(f"distance of the trained weights / distance from the initial weights: {gap:.1e}")


if __name__ == "__main__":
    main()
