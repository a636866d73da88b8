"""The training of a flow: its starts, the law of the lengths, and the learning rate."""

import numpy as np
import pytest
import torch
from scipy import stats

from editbench.base.spaces import Space
from editbench.methods.neural_ode.field import Field, Solver
from editbench.methods.neural_ode.training import Flows, Training, starts_of, train
from tests.toy import BINARY, fit_data


def run(options: Training, solver: Solver) -> None:
    data = fit_data(n=200)
    labels = BINARY.labels(data.fit.logits, "a").numpy()
    pools = [starts_of(labels, target, None, torch.device("cpu")) for target in (0, 1)]
    start = Field.initial(2, ["a/0", "a/1"], 24, 0)
    train(Flows(start, "a", [0, 1], pools, Space.W, 1.0), data, options, solver)


def test_a_flow_starts_from_its_source_or_from_every_other_class():
    labels = np.array([0, 1, 2, 0])
    cpu = torch.device("cpu")
    assert starts_of(labels, 2, 0, cpu).tolist() == [0, 3]
    assert starts_of(labels, 2, None, cpu).tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    "times, iterations, draws", [("batch", 150, 150), ("sample", 20, 20 * 2 * 4)]
)
def test_lengths_are_uniform_from_a_quarter_of_t_to_t(times, iterations, draws):
    seen = []

    class Spy(Solver):
        def integrate(self, velocity, w, length):
            seen.append(length.flatten())
            return super().integrate(velocity, w, length)

    run(Training(horizon=8.0, iterations=iterations, batch=4, times=times), Spy(step_size=8.0))
    lengths = torch.cat(seen).double()
    assert len(lengths) == draws and 2.0 <= lengths.min() < 2.3 and 7.7 < lengths.max() <= 8.0
    assert stats.kstest(lengths.numpy(), stats.uniform(2.0, 6.0).cdf).pvalue > 0.01


def test_the_learning_rate_is_halved_every_so_many_iterations(monkeypatch):
    rates = []

    class Spy(torch.optim.Adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Spy)
    run(Training(iterations=10, batch=4, lr=0.08, decay_every=3), Solver(step_size=9.0))
    assert rates == pytest.approx([0.08] * 3 + [0.04] * 3 + [0.02] * 3 + [0.01])
