"""What a sample truly is, in a world whose generator knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes
from editbench.walk.editor import Walk
from editbench.walk.gauge import Gauge

if TYPE_CHECKING:
    from editbench.networks.roles import Networks


@runtime_checkable
class KnowsTruth(Protocol):
    """A generator that can say what it drew."""

    true_attributes: Attributes

    def true_labels(self, codes: Codes) -> Tensor:
        """(N, A) int64 classes in the order of `true_attributes`."""

    def true_margins(self, codes: Codes, attribute: str, target: Tensor) -> Tensor:
        """(N,) signed distance from the true threshold of class target (N,), positive inside."""


class Truth(Gauge):
    """Columns `true:NAME`, the true class of every attribute of the judge, and `true_margin`, how far the sample is
    inside the target class (0: on the true threshold)."""

    def prepare(self, networks: Networks, device: str) -> None:
        if not isinstance(networks.generator, KnowsTruth):
            raise EditbenchError(
                "gauge truth needs a generator that knows its factors: use generator=renders, or "
                "leave the gauge out"
            )
        self.generator, known = networks.generator, networks.generator.true_attributes
        for item in networks.judge.attributes:
            if item.name not in known.names or known[item.name].classes != item.classes:
                raise EditbenchError(
                    f"gauge truth: the generator does not know the judge's attribute '{item.name}' "
                    f"({', '.join(item.classes)})"
                )
        self.columns = {item.name: known.index(item.name) for item in networks.judge.attributes}

    def measure(
        self, walk: Walk, codes: Codes, decoded: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        labels = self.generator.true_labels(codes)
        columns = {f"true:{name}": labels[:, place] for name, place in self.columns.items()}
        return columns | {
            "true_margin": self.generator.true_margins(codes, walk.attribute, walk.target)
        }
