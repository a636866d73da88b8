"""Converts a network's outputs to the logits of the declared attributes.

    columns: [31, 15, 39]      # these outputs: Smiling, Eyeglasses, Young of CelebA's 40
    columns: [[0, 1], 2, 3, 4] # for two outputs (no, yes) the logit is their difference
    output: probabilities      # after a sigmoid or softmax; the default is logits

`columns` has one entry per column of a logit row, in the order of the attributes: one for a binary
attribute, K for an attribute of K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, NonFinite, UnknownName

# A network's outputs, before or after its sigmoid or softmax.
OUTPUTS = ("logits", "probabilities")
TINY = 1e-6  # minimum probability, which keeps the logarithm of a saturated sigmoid finite


class Columns(nn.Module):
    """A network's outputs (N, M) -> logits (N, attributes.width), before signs.

    Args:
        columns: for each column an output, or for a binary attribute a pair [no, yes] of outputs;
            None for all outputs, in order.
        output: one of OUTPUTS; None for undeclared logits, for which outputs that look like
            probabilities are rejected.

    Raises:
        EditbenchError: the number of entries is not that of the attributes' columns, or there is a
            pair for an attribute of more than two classes.
    """

    yes: Tensor  # (width,) selected outputs
    no: Tensor  # (width,) outputs to subtract; -1 for none

    def __init__(
        self,
        attributes: Attributes,
        columns: Sequence[int | Sequence[int]] | None,
        output: str | None,
    ) -> None:
        super().__init__()
        self.stated = output is not None
        output = "logits" if output is None else output
        if output not in OUTPUTS:
            raise UnknownName("scorer.output", str(output), OUTPUTS)
        self.attributes = attributes
        self.output = output
        self.all = columns is None
        names = attributes.columns()
        if columns is not None and not isinstance(columns, (list, tuple)):
            raise EditbenchError(
                f"scorer.columns must be a list of outputs, e.g. [31, 15]; got {columns!r}"
            )
        entries = list(range(attributes.width)) if columns is None else list(columns)
        if len(entries) != attributes.width:
            raise EditbenchError(
                f"scorer.columns has {len(entries)} entries, but the attributes have "
                f"{attributes.width} columns: {', '.join(names)}; give one output for each"
            )
        # A pair (no, yes) makes sense only for two classes.
        single = {item.name for item in attributes if item.binary}
        yes = []
        no = []
        for entry, name in zip(entries, names):
            pair = list(entry) if isinstance(entry, (list, tuple)) else [entry]
            if not all(type(place) is int and place >= 0 for place in pair) or len(pair) not in (
                1,
                2,
            ):
                raise EditbenchError(
                    f"scorer.columns: '{entry}' of {name} is not an output; write its number, or "
                    "[no, yes]"
                )
            if len(pair) == 2 and name not in single:
                raise EditbenchError(
                    f"scorer.columns: {name} is one of several classes and has one output, "
                    f"got the pair {pair}"
                )
            yes.append(pair[-1])
            # -1 means none; it is masked.
            no.append(pair[0] if len(pair) == 2 else -1)
        self.register_buffer("yes", torch.tensor(yes), persistent=False)
        self.register_buffer("no", torch.tensor(no), persistent=False)
        # Least width of the network's output.
        self.needed = max(yes + no) + 1
        self.paired = max(no) >= 0
        self.declared = () if self.all and output == "logits" else (yes, no, output)  # for a digest

    def forward(self, out: Tensor) -> Tensor:
        if self.output == "probabilities":
            return self._of_probabilities(out)
        if self.all:
            return out
        logits = out.index_select(1, self.yes)
        if self.paired:
            return logits - out.index_select(1, self.no.clamp(min=0)) * (self.no >= 0)
        return logits

    def _of_probabilities(self, out: Tensor) -> Tensor:
        """Convert probabilities to logits.

        ln p for several classes, ln (p / (1 - p)) for a binary attribute, ln (p_yes / p_no) for a
        pair.
        """
        # The logit of a probability: ln p - ln(1 - p).
        logs = out.clamp(TINY, 1 - TINY).log()
        parts = []
        for item in self.attributes:
            at = self.attributes.slices[item.name]
            part = logs.index_select(1, self.yes[at])
            if item.binary:
                other = self.no[at]
                part = part - (
                    logs.index_select(1, other)
                    if int(other) >= 0
                    else torch.log1p(-out.index_select(1, self.yes[at]).clamp(TINY, 1 - TINY))
                )
            parts.append(part)
        return torch.cat(parts, 1)

    def check(self, out: object, n: int, source: str) -> None:
        """Check a network's output for n images against the declaration.

        Args:
            out: what the network gave, of any type; (n, outputs) is expected.
            n: number of images.
            source: file or class of the network, with which the message begins.

        Raises:
            EditbenchError: it is not a tensor, has the wrong number of columns, or has
                probabilities instead of logits or vice versa.
            NonFinite: it has NaN or infinity.
        """
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        names = ", ".join(self.attributes.columns())
        if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != n:
            raise EditbenchError(
                f"{source}: the network gives {shape}, but its attributes need "
                f"{(n, self.attributes.width)}: {names}"
            )
        if self.all and out.shape[1] != self.attributes.width:
            raise EditbenchError(
                f"{source}: the network gives {shape}, but its attributes need "
                f"{(n, self.attributes.width)}: {names}. Declare an attribute for every output, or "
                "choose outputs with columns: [...]"
            )
        if out.shape[1] < self.needed:
            raise EditbenchError(
                f"{source}: columns names output {self.needed - 1}, but the network gives "
                f"{out.shape[1]}, numbered from 0"
            )
        if not torch.isfinite(out).all():
            raise NonFinite(f"{source}: the network gives NaN or infinity; check its weights")
        if self.output == "probabilities" and (out.min() < 0 or out.max() > 1):
            raise EditbenchError(
                f"{source}: output: probabilities is declared, but the network gives "
                f"{out.min():.3g} to {out.max():.3g}; write output: logits"
            )
        # A softmax is recognised by sums of one; a sigmoid is detected later, in a bank's samples.
        together = []
        for item in self.attributes:
            place = self.attributes.slices[item.name]
            if not item.binary:
                together.append(self.yes[place])
            elif int(self.no[place]) >= 0:
                together.append(torch.cat([self.no[place], self.yes[place]]))
        totals = [out.index_select(1, part).sum(1) for part in together]
        if (
            self.output == "logits"
            and totals
            and out.min() >= 0
            and torch.allclose(torch.stack(totals), torch.ones(()), atol=1e-4)
        ):
            raise EditbenchError(
                f"{source}: the network gives probabilities, the benchmark needs logits: leave out "
                "its softmax, or end it with a log-softmax, or write output: probabilities"
            )
