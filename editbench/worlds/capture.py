"""Training steps as CUDA graphs, and optimisers that can be captured in them.

A training step of small networks consists of thousands of small operations, which a GPU computes
faster than the host launches them. A graph is launched as a whole. It reads and writes the memory
that it was captured with, so the inputs of a step are copied there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

# What was drawn for a step -> names and values of its losses.
Step = Callable[[dict[str, Tensor]], tuple[list[str], Tensor]]


class CapturedStep:
    """A step as a CUDA graph.

    Args:
        step: to be captured; nothing is computed until the first call.
        inputs: of the step, with the shapes of those of every call.
    """

    def __init__(self, step: Step, inputs: dict[str, Tensor]) -> None:
        self.inputs = {name: value.clone() for name, value in inputs.items()}
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.names, self.values = step(self.inputs)

    def __call__(self, inputs: dict[str, Tensor]) -> tuple[list[str], Tensor]:
        for name, value in inputs.items():
            self.inputs[name].copy_(value)
        self.graph.replay()
        return self.names, self.values


class StepGraphs:
    """A graph for each kind of step.

    Args:
        step: runs one step, of any kind.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        # None after the first step of a kind.
        self.graphs: dict[Hashable, CapturedStep | None] = {}

    def __call__(self, kind: Hashable, inputs: dict[str, Tensor]) -> tuple[list[str], Tensor]:
        """Run a step.

        Args:
            kind: of the step; steps of one kind launch the same operations.
            inputs: the tensors that were drawn for it.

        Returns:
            Names and values of the losses.
        """
        # The first step of a kind is not captured, since optimisers allocate their moments in it,
        # and libraries choose their kernels.
        if kind not in self.graphs:
            self.graphs[kind] = None
            return self.step(inputs)
        graph = self.graphs[kind]
        if graph is None:
            graph = CapturedStep(self.step, inputs)
            self.graphs[kind] = graph
        return graph(inputs)


def adam(
    network: torch.nn.Module, rate: float, betas: tuple[float, float], captured: bool
) -> torch.optim.Adam:
    """Make Adam for a network.

    Args:
        network: whose parameters are optimised, on their device.
        rate: learning rate.
        betas: decay rates of the two moments.
        captured: whether the steps are captured in a CUDA graph; the rate is then a tensor on the
            device, which `set_rate` changes.
    """
    parameters = list(network.parameters())
    if not captured:
        return torch.optim.Adam(parameters, rate, betas)
    # A graph keeps a Python number as it was during the capture.
    lr = torch.tensor(rate, device=parameters[0].device)
    return torch.optim.Adam(parameters, lr, betas, capturable=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate.

    Args:
        optimiser: made by `adam`.
        rate: of all its parameters, from the next step on.
    """
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            # In place: a captured step reads this memory.
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the moments of an optimiser, which may have run on another kind of device.

    Args:
        optimiser: made by `adam`; it keeps its own learning rate.
        state: `state_dict` of an optimiser of the same network.
    """
    groups = []
    for mine, theirs in zip(optimiser.param_groups, state["param_groups"]):
        # The memory of the rate, and whether steps are captured, belong to this optimiser.
        groups.append({**theirs, "lr": mine["lr"], "capturable": mine["capturable"]})
    optimiser.load_state_dict({**state, "param_groups": groups})
