"""A loss term that makes the attributes of generated images linear in w.

A linear regressor predicts from w the log-odds that a witness assigns to the generated image. Both
the regressor and the generator minimise its squared error. The direction of an attribute in W is
not prescribed. With weight 0 the training is the plain adversarial one, in which nothing controls
the curvature of W.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError
from editbench.worlds.capture import adam, load_optimiser

CLEAR = 6.0  # log-odds are clamped to this size
SCALE = 3.0  # log-odds that count as one unit, so that targets lie in [-2, 2]
RATE = 3e-3


def binary_columns(attributes: Attributes) -> list[int]:
    """Columns of the binary attributes in a scorer's logits.

    Raises:
        EditbenchError: there is none.
    """
    columns = [attributes.slices[item.name].start for item in attributes if item.binary]
    if not columns:
        raise EditbenchError(
            "the linear term needs a binary attribute, and the witness scores "
            f"{', '.join(attributes.names)}: train with --linearity 0"
        )
    return columns


class LinearTerm:
    """The regressor, its optimiser and the loss.

    Args:
        attributes: of the witness; the binary ones are predicted.
        w_dim: size of w.
        weight: of the squared error relative to the adversarial loss (lambda).
        device: of the regressor.
    """

    def __init__(
        self, attributes: Attributes, w_dim: int, weight: float, device: torch.device | str = "cpu"
    ) -> None:
        self.columns = binary_columns(attributes)
        # A tensor on the device, since a list would be copied there in every step.
        self.places = torch.tensor(self.columns, device=device)
        self.weight = weight
        self.regressor = nn.Linear(w_dim, len(self.columns)).to(device)
        # Adam's own betas; on a GPU a training step may be captured.
        captured = torch.device(device).type == "cuda"
        self.optimiser = adam(self.regressor, RATE, (0.9, 0.999), captured)

    def loss(self, w: Tensor, logits: Tensor) -> Tensor:
        """The mean squared error, without the weight.

        Its gradient reaches the regressor, w and, through the witness, the picture.

        Args:
            w: (N, w_dim), centred.
            logits: (N, width) of the witness for the pictures of w.

        Returns:
            A scalar.
        """
        # In full precision, since a squared error of bfloat16 numbers has few digits.
        with torch.autocast(w.device.type, enabled=False):
            # Clamped, so that a clear attribute need not become clearer.
            traits = logits.index_select(1, self.places).float().clamp(-CLEAR, CLEAR) / SCALE
            predicted = self.regressor(w.float())
            return (predicted - traits).square().mean()

    def zero_grad(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update the regressor with the gradient of the generator's backward pass."""
        self.optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        return {"regressor": self.regressor.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.regressor.load_state_dict(state["regressor"])
        load_optimiser(self.optimiser, state["optimiser"])
