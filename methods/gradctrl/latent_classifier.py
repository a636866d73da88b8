"""The latent classifiers that GradCtrl differentiates: one small network per attribute.

Each network is Linear(d, 16) - LeakyReLU(0.1) - Linear(16, width), without shared layers (Chen et
al. 2022 and its published code). `width` is 1 for a binary attribute and K for K classes. The
second layers are stored as the rows of one matrix, in the layout of editbench.base.attributes, so
that no width is padded. All networks are trained and evaluated as one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from editbench.base.errors import BadFile
from editbench.base.seeding import uniforms

HIDDEN = 16
SLOPE = 0.1
# A head stops after this many epochs without a lower validation loss.
PATIENCE = 20
# weight1 and bias1 are stacked by head; weight2 and bias2 are concatenated rows of all heads.
PER_ROW = (
    False,
    False,
    True,
    True,
)


class LatentClassifier:
    """A heads with R output rows in total (the sum of their widths).

    Args:
        heads: name -> (weight1 (16, d), bias1 (16,), weight2 (width, 16), bias2 (width,)).
    """

    def __init__(self, heads: Mapping[str, Sequence[Tensor]]) -> None:
        self.names = tuple(heads)
        self.heads: dict[str, tuple[Tensor, ...]] = {}
        for name, head in heads.items():
            self.heads[name] = tuple(part.double() for part in head)
        parts = list(self.heads.values())
        self.widths = tuple(len(part[3]) for part in parts)
        # Where each head's rows lie among all R.
        self.slices: dict[str, slice] = {}
        end = 0
        for name, width in zip(self.names, self.widths):
            self.slices[name] = slice(end, end + width)
            end += width
        self.w1 = torch.stack([part[0] for part in parts])
        self.b1 = torch.stack([part[1] for part in parts])
        self.w2 = torch.cat([part[2] for part in parts])
        self.b2 = torch.cat([part[3] for part in parts])
        # (R,) the head that a row belongs to
        owner = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(self.widths))
        self.head = owner.to(self.w1.device)

    @property
    def dim(self) -> int:
        return self.w1.shape[2]

    def to(self, device: torch.device) -> LatentClassifier:
        """Move the parameters to a device, in place."""
        if self.w1.device != device:
            for name in ("w1", "b1", "w2", "b2", "head"):
                setattr(self, name, getattr(self, name).to(device))
        return self

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """w (n, d) -> logits (n, R) and slopes (n, A, 16) of the LeakyReLU units, in {1, 0.1}."""
        # In float64, so that a sample's result does not depend on the other samples in the batch.
        before = (w.double() @ self.w1.flatten(0, 1).T).unflatten(1, self.b1.shape) + self.b1
        slopes = torch.where(before > 0, torch.ones_like(before), SLOPE)
        hidden = (before * slopes)[:, self.head]
        logits = torch.einsum("nrh,rh->nr", hidden, self.w2) + self.b2
        return logits, slopes

    def jacobian(self, slopes: Tensor, rows: Tensor) -> Tensor:
        """Jacobian d logit / d w of some output rows in closed form, J = W2 diag(s) W1.

        Args:
            slopes: (n, A, 16) of `forward`.
            rows: (r,) output rows.

        Returns (n, r, d).
        """
        head = self.head[rows]
        return torch.einsum("nrh,rhd->nrd", slopes[:, head] * self.w2[rows], self.w1[head])

    def pull_back(self, slopes: Tensor, name: str, weights: Tensor) -> Tensor:
        """Gradient with respect to w of a weighted sum of one head's logits, in closed form.

        It is v^T W2 diag(s) W1, without the Jacobian of all outputs as an intermediate result.

        Args:
            slopes: (n, A, 16) of `forward`.
            name: attribute of the head.
            weights: v, (n, width), one weight per output of the head.

        Returns:
            (n, d).
        """
        a = self.names.index(name)
        return ((weights @ self.w2[self.slices[name]]) * slopes[:, a]) @ self.w1[a]


def load_heads(
    path: str | Path, names: Sequence[str], signs: Sequence[int] | None = None
) -> LatentClassifier:
    """Load published heads: keys `classifiers.i.classifier.{0,2}.{weight,bias}`, i over `names`.

    Args:
        path: a safetensors file.
        names: the heads' attributes, in order.
        signs: +1 or -1 for each head, for scorers that flip an attribute; a head of several classes
            must have +1. None means +1 for all.

    Raises:
        BadFile: the file has other heads, or a sign does not fit.
    """
    heads: dict[str, tuple[Tensor, ...]] = {}
    try:
        tensors = load_file(path)
        for i, name in enumerate(names):
            layer = f"classifiers.{i}.classifier"
            first = (tensors[f"{layer}.0.weight"], tensors[f"{layer}.0.bias"])
            second = (tensors[f"{layer}.2.weight"], tensors[f"{layer}.2.bias"])
            heads[name] = first + second
    except (OSError, SafetensorError, KeyError) as error:
        raise BadFile(
            f"{path}: not a safetensors file with {len(names)} classifier heads ({error}); set "
            "method.heads and method.head_attributes to a file and its heads in order"
        ) from error
    # An additional head shows that the names do not belong to this file.
    extra = f"classifiers.{len(names)}.classifier.0.weight"
    if extra in tensors or len(signs or names) != len(names) or len(set(names)) != len(names):
        raise BadFile(
            f"{path}: method.head_attributes and method.head_signs must list each of its heads once"
        )
    for name, sign in zip(names, signs or [1] * len(names)):
        weight1, bias1, weight2, bias2 = heads[name]
        if sign not in (1, -1) or (sign == -1 and len(bias2) > 1):
            raise BadFile(f"{path}: the sign of head '{name}' must be 1, or -1 for a binary head")
        heads[name] = (weight1, bias1, sign * weight2, sign * bias2)
    return LatentClassifier(heads)


def initial(name: str, width: int, dim: int, seed: int) -> list[Tensor]:
    """Draw a head with PyTorch's default initialisation, U(-1/sqrt(fan in), 1/sqrt(fan in)).

    It depends only on (seed, name), not on the other heads.

    Args:
        name: attribute of the head.
        width: number of outputs; 1 for a binary attribute.
        dim: d, channels of a code.
        seed: of the draws.

    Returns:
        weight1 (16, d), bias1 (16,), weight2 (width, 16), bias2 (width,), float32 on the host.
    """
    shapes = {
        "weight1": (HIDDEN, dim),
        "bias1": (HIDDEN,),
        "weight2": (width, HIDDEN),
        "bias2": (width,),
    }
    parts = []
    for part, shape in shapes.items():
        # As in nn.Linear, the bias has the bound of its layer's weight.
        fan_in = dim if part.endswith("1") else HIDDEN
        size = int(np.prod(shape))
        u = uniforms(seed, f"latent_classifier/{name}/{part}", 0, 1, size).reshape(shape)
        parts.append(torch.from_numpy((2 * u - 1) / np.sqrt(fan_in)).float())
    return parts


@dataclass(frozen=True)
class Examples:
    """Labelled codes of A heads.

    Args:
        codes: (A, m, d), padded to the same m; a view of (1, m, d) if all heads share their codes.
        labels: (A, m) classes.
        weights: (A, m) weight of each example in the mean loss of its head; 0 for padding.
    """

    codes: Tensor
    labels: Tensor
    weights: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Weighted mean of the values (A, m) of each head: (A,). NaN for a head with no weight."""
        return (values * self.weights).sum(1) / self.weights.sum(1)


def balanced(labels: Tensor, classes: int) -> Tensor:
    """Weights that give all classes equal influence, however many samples they have.

    Args:
        labels: (m,) classes.
        classes: K.

    Returns:
        (m,) float32.
    """
    counts = torch.bincount(labels, minlength=classes)
    return 1.0 / counts[labels]


def train(
    names: Sequence[str],
    widths: Sequence[int],
    training: Examples,
    validation: Examples,
    seed: int,
    epochs: int = 500,
    lr: float = 1e-3,
) -> tuple[LatentClassifier, dict[str, dict[str, float]]]:
    """Train all heads together with Adam, each to its own lowest validation loss.

    All examples of a head form one batch per epoch. Heads share no parameters, so the result of a
    head depends only on its own samples; they are trained together to share matrix products.

    Args:
        names: of the A heads.
        widths: number of outputs of each head.
        training: the training examples.
        validation: the examples for early stopping; a head without any uses its training loss.
        seed: of the heads' initial weights.
        epochs: largest number of epochs.
        lr: learning rate of Adam (the published code's default).

    Returns:
        The classifier and, for each head, the number of epochs used and the validation loss and
        accuracy after them.
    """
    device = training.codes.device
    first = [sum(widths[:a]) for a in range(len(names))]
    table = _rows_of_classes(widths, first).to(device)
    owner = torch.repeat_interleave(torch.arange(len(names)), torch.tensor(widths)).to(device)
    drawn = []
    for name, width in zip(names, widths):
        drawn.append(initial(name, width, training.codes.shape[2], seed))
    parameters = []
    # zip(*drawn) regroups the parameters from heads to kinds of parameters.
    for parts, per_row in zip(zip(*drawn), PER_ROW):
        joined = torch.cat(parts) if per_row else torch.stack(parts)
        parameters.append(joined.to(device).requires_grad_())
    adam = torch.optim.Adam(parameters, lr=lr)
    validated = validation.weights.sum(1) > 0
    best = [p.detach().clone() for p in parameters]
    lowest = torch.full((len(names),), torch.inf, device=device)
    since = torch.zeros(len(names), device=device)
    used = torch.zeros(len(names), dtype=torch.long, device=device)
    for epoch in range(epochs + 1):
        losses = _losses(parameters, training, owner, table)
        with torch.no_grad():  # a head's snapshot is taken before its parameters move
            value = validation.mean(_losses(parameters, validation, owner, table))
            value = torch.where(validated, value, training.mean(losses))
            better = (value < lowest) & (since <= PATIENCE)
            for kept, now, per_row in zip(best, parameters, PER_ROW):
                take = better[owner] if per_row else better
                kept[take] = now.detach()[take]
            lowest = torch.where(better, value, lowest)
            used = torch.where(better, epoch, used)
            since = torch.where(better, 0.0, since + 1)
        # A head that has stopped stays in the batch, but its snapshot no longer changes.
        if bool((since > PATIENCE).all()):
            break
        adam.zero_grad(set_to_none=True)
        training.mean(losses).sum().backward()
        adam.step()
    with torch.no_grad():  # only for the snapshots: it would cost a third of every epoch's time
        accuracy = torch.where(
            validated,
            _accuracies(best, validation, owner, table),
            _accuracies(best, training, owner, table),
        )
    pieces = {}
    notes = {}
    for a, (name, width) in enumerate(zip(names, widths)):
        rows_of = slice(first[a], first[a] + width)
        pieces[name] = (best[0][a], best[1][a], best[2][rows_of], best[3][rows_of])
        notes[name] = {
            "epochs": int(used[a]),
            "validation_loss": round(float(lowest[a]), 4),
            "validation_accuracy": round(float(accuracy[a]), 4),
        }
    return LatentClassifier(pieces), notes


def _rows_of_classes(widths: Sequence[int], first: Sequence[int]) -> Tensor:
    """Index of the output row with the logit of each class of each head: (A, K), largest K.

    This lets cross-entropy treat all heads as one (A, K) array. Two rows are appended to those of
    the heads: a logit of 0, for class 0 of a binary attribute, and a logit of -inf, for classes
    that a head does not have.
    """
    zero = sum(widths)
    never = zero + 1
    table = torch.full((len(widths), max(2, *widths)), never)
    for a, width in enumerate(widths):
        own = list(range(first[a], first[a] + width))
        if width == 1:
            own = [zero, *own]
        table[a, : len(own)] = torch.tensor(own)
    return table


def _class_logits(
    parameters: Sequence[Tensor], codes: Tensor, owner: Tensor, table: Tensor
) -> Tensor:
    """Logits of all heads, each for its own codes.

    Args:
        parameters: weight1 (A, 16, d), bias1 (A, 16), weight2 (R, 16), bias2 (R,).
        codes: (A, m, d).
        owner: (R,) the head of each row.
        table: (A, K) of `_rows_of_classes`.

    Returns:
        (A, K, m).
    """
    w1, b1, w2, b2 = parameters
    # (A, m, 16)
    hidden = F.leaky_relu(torch.baddbmm(b1.unsqueeze(1), codes, w1.transpose(1, 2)), SLOPE)
    rows = torch.einsum("rmh,rh->rm", hidden[owner], w2) + b2.unsqueeze(1)
    rows = torch.cat([rows, torch.zeros_like(rows[:1]), torch.full_like(rows[:1], -torch.inf)])
    return rows[table]


def _losses(
    parameters: Sequence[Tensor], examples: Examples, owner: Tensor, table: Tensor
) -> Tensor:
    """Cross-entropy of each example (A, m)."""
    logits = _class_logits(parameters, examples.codes, owner, table)
    return F.cross_entropy(logits, examples.labels, reduction="none")


def _accuracies(
    parameters: Sequence[Tensor], examples: Examples, owner: Tensor, table: Tensor
) -> Tensor:
    """Accuracy of the heads (A,); NaN for a head without examples."""
    logits = _class_logits(parameters, examples.codes, owner, table)
    return examples.mean((logits.argmax(1) == examples.labels).float())
