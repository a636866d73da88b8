"""True classes and margins of samples, in a world whose generator knows its factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError
from editbench.base.spaces import Codes
from editbench.walk.editor import Walk
from editbench.walk.observation import DuringWalk

if TYPE_CHECKING:
    from editbench.networks.roles import Networks

TRUE = "true:"  # prefix of columns; the name of an attribute follows
TRUE_MARGIN = "true_margin"  # a column


@runtime_checkable
class KnowsTruth(Protocol):
    """A generator that knows the true factors of its samples."""

    true_attributes: Attributes

    def true_labels(self, codes: Codes) -> Tensor:
        """True classes of n codes: (n, A) int64, in the order of `true_attributes`."""

    def true_margins(self, codes: Codes, attribute: str, target: Tensor) -> Tensor:
        """Distance from the true threshold of a class, positive inside the class.

        Args:
            codes: n codes.
            attribute: whose threshold is used.
            target: (n,) classes.

        Returns:
            (n,) in units of the factor.
        """


class Truth(DuringWalk):
    """Columns `true:NAME`, the true class of every attribute of the judge, and `true_margin`.

    The margin is how far the sample is inside the target class: 0 on the true threshold.
    """

    def prepare(self, networks: Networks, device: str) -> None:
        """Match the judge's attributes with those that the generator knows.

        Raises:
            EditbenchError: the generator does not know its factors, or not all of these attributes.
        """
        if not isinstance(networks.generator, KnowsTruth):
            raise EditbenchError(
                "observation truth needs a generator that knows its factors: use "
                "generator=renders, or leave the observation out"
            )
        self.generator = networks.generator
        known = self.generator.true_attributes
        # Classes must match by name and order, otherwise their indices would differ.
        for item in networks.judge.attributes:
            if item.name not in known.names or known[item.name].classes != item.classes:
                raise EditbenchError(
                    "observation truth: the generator does not know the judge's attribute "
                    f"'{item.name}' ({', '.join(item.classes)})"
                )
        self.columns = {item.name: known.index(item.name) for item in networks.judge.attributes}

    def measure(
        self, walk: Walk, codes: Codes, decoded: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        """True classes and margins of a batch, computed from the codes, not from the images."""
        labels = self.generator.true_labels(codes)
        columns = {}
        for name, place in self.columns.items():
            columns[f"{TRUE}{name}"] = labels[:, place]
        columns[TRUE_MARGIN] = self.generator.true_margins(codes, walk.attribute, walk.target)
        return columns
