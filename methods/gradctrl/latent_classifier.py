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
        self.owner = _owners(self.widths).to(self.w1.device)

    @property
    def dim(self) -> int:
        return self.w1.shape[2]

    def to(self, device: torch.device) -> LatentClassifier:
        """Move the parameters to a device, in place."""
        if self.w1.device != device:
            for name in ("w1", "b1", "w2", "b2", "owner"):
                setattr(self, name, getattr(self, name).to(device))
        return self

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """w (n, d) -> logits (n, R) and slopes (n, A, 16) of the LeakyReLU units, in {1, 0.1}."""
        # In float64, so that a sample's result does not depend on the other samples in the batch.
        before = (w.double() @ self.w1.flatten(0, 1).T).unflatten(1, self.b1.shape) + self.b1
        slopes = torch.where(before > 0, torch.ones_like(before), SLOPE)
        hidden = (before * slopes)[:, self.owner]
        logits = torch.einsum("nrh,rh->nr", hidden, self.w2) + self.b2
        return logits, slopes

    def jacobian(self, slopes: Tensor, rows: Tensor) -> Tensor:
        """Jacobian d logit / d w of some output rows in closed form, J = W2 diag(s) W1.

        Args:
            slopes: (n, A, 16) of `forward`.
            rows: (r,) output rows.

        Returns:
            (n, r, d).
        """
        owner = self.owner[rows]
        return torch.einsum("nrh,rhd->nrd", slopes[:, owner] * self.w2[rows], self.w1[owner])

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


def _owners(widths: Sequence[int]) -> Tensor:
    """The head that each output row belongs to: (R,), where R is the sum of the widths."""
    return torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))


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
    drawn = []
    for name, width in zip(names, widths):
        drawn.append(initial(name, width, training.codes.shape[2], seed))
    device = training.codes.device
    heads = _HeadBatch(drawn, device)
    best = _HeadBatch(drawn, device)  # each head at its lowest validation loss so far
    adam = torch.optim.Adam([part.requires_grad_() for part in heads.parameters()], lr=lr)
    validated = validation.weights.sum(1) > 0
    lowest = torch.full((len(names),), torch.inf, device=device)
    waited = torch.zeros(len(names), device=device)  # epochs since a head's lowest loss
    used = torch.zeros(len(names), dtype=torch.long, device=device)
    for epoch in range(epochs + 1):
        losses = training.mean(heads.losses(training))
        with torch.no_grad():  # a head's snapshot is taken before its parameters move
            value = validation.mean(heads.losses(validation))
            value = torch.where(validated, value, losses)
            better = (value < lowest) & (waited <= PATIENCE)
            best.copy_heads(heads, better)
            lowest = torch.where(better, value, lowest)
            used = torch.where(better, epoch, used)
            waited = torch.where(better, 0.0, waited + 1)
        # A head that has stopped stays in the batch, but its snapshot no longer changes.
        if bool((waited > PATIENCE).all()):
            break
        adam.zero_grad(set_to_none=True)
        losses.sum().backward()
        adam.step()
    with torch.no_grad():  # only for the snapshots: it would cost a third of every epoch's time
        accuracy = torch.where(validated, best.accuracies(validation), best.accuracies(training))
    notes = {}
    for a, name in enumerate(names):
        notes[name] = {
            "epochs": int(used[a]),
            "validation_loss": round(float(lowest[a]), 4),
            "validation_accuracy": round(float(accuracy[a]), 4),
        }
    return LatentClassifier(dict(zip(names, best.heads()))), notes


class _HeadBatch:
    """A heads with R output rows in total, which are trained as one batch.

    Args:
        heads: for each head weight1 (16, d), bias1 (16,), weight2 (width, 16), bias2 (width,).
        device: of the parameters, which are copies.
    """

    def __init__(self, heads: Sequence[Sequence[Tensor]], device: torch.device) -> None:
        weight1, bias1, weight2, bias2 = zip(*heads)
        self.widths = [len(bias) for bias in bias2]
        # One layer per head: (A, 16, d) and (A, 16).
        self.first = [torch.stack(weight1).to(device), torch.stack(bias1).to(device)]
        # The rows of all heads: (R, 16) and (R,).
        self.second = [torch.cat(weight2).to(device), torch.cat(bias2).to(device)]
        self.owner = _owners(self.widths).to(device)
        self.rows_of_classes = _rows_of_classes(self.widths).to(device)

    def parameters(self) -> list[Tensor]:
        return [*self.first, *self.second]

    def heads(self) -> list[tuple[Tensor, ...]]:
        """The parameters of each head, as they are given to `__init__`."""
        firsts = zip(*self.first)
        seconds = zip(*(part.split(self.widths) for part in self.second))
        return [(*first, *second) for first, second in zip(firsts, seconds)]

    def copy_heads(self, source: _HeadBatch, chosen: Tensor) -> None:
        """Copy the parameters of some heads from another batch.

        Args:
            source: the other batch, of the same heads.
            chosen: (A,) bool, the heads to copy.
        """
        for own, other in zip(self.first, source.first):
            own[chosen] = other.detach()[chosen]
        rows = chosen[self.owner]
        for own, other in zip(self.second, source.second):
            own[rows] = other.detach()[rows]

    def losses(self, examples: Examples) -> Tensor:
        """Cross-entropy of each example: (A, m)."""
        logits = self._class_logits(examples.codes)
        return F.cross_entropy(logits, examples.labels, reduction="none")

    def accuracies(self, examples: Examples) -> Tensor:
        """Accuracy of the heads: (A,); NaN for a head without examples."""
        predicted = self._class_logits(examples.codes).argmax(1)
        return examples.mean((predicted == examples.labels).float())

    def _class_logits(self, codes: Tensor) -> Tensor:
        """Logits of the classes of all heads, each for its own codes: (A, m, d) -> (A, K, m)."""
        weight1, bias1 = self.first
        weight2, bias2 = self.second
        before = torch.baddbmm(bias1.unsqueeze(1), codes, weight1.transpose(1, 2))  # (A, m, 16)
        hidden = F.leaky_relu(before, SLOPE)
        rows = torch.einsum("rmh,rh->rm", hidden[self.owner], weight2) + bias2.unsqueeze(1)
        # The two rows that `_rows_of_classes` refers to beyond those of the heads.
        zero = torch.zeros_like(rows[:1])
        never = torch.full_like(rows[:1], -torch.inf)
        return torch.cat([rows, zero, never])[self.rows_of_classes]


def _rows_of_classes(widths: Sequence[int]) -> Tensor:
    """Index of the output row with the logit of each class of each head: (A, K), largest K.

    This lets cross-entropy treat all heads as one (A, K) array. Two rows are appended to those of
    the heads: a logit of 0, for class 0 of a binary attribute, and a logit of -inf, for classes
    that a head does not have.

    Args:
        widths: number of output rows of each head; 1 for a binary attribute.
    """
    zero = sum(widths)
    never = zero + 1
    table = torch.full((len(widths), max(2, *widths)), never)
    end = 0
    for a, width in enumerate(widths):
        rows = list(range(end, end + width))
        end += width
        if width == 1:
            rows = [zero, *rows]
        table[a, : len(rows)] = torch.tensor(rows)
    return table
