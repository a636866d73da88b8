"""Classifiers of W codes: the heads published with GradCtrl (Chen et al. 2022).

There is one small network per attribute: Linear(d, h), LeakyReLU(0.1), Linear(h, classes), with the
tensors `classifiers.{i}.classifier.{0,2}.{weight,bias}`.

Beware of the signs. The heads were trained on the presence of the CelebA attributes Male, Smiling,
Eyeglasses and Young, so the logit of the age head is positive for YOUNG faces. The pose head is
positive where the published yaw boundary of StyleGAN2-FFHQ is negative. The configuration sets
`positive_is_low` for this reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.identity import tensors_digest
from editbench.base.validation import check_kind
from editbench.networks.external import read_tensors
from editbench.networks.scorer import Scorer
from editbench.networks.scorers.attribute_list import declare

SLOPE = 0.1  # of the leaky ReLU
NAME = "classifiers.{head}.classifier.{layer}.{part}"


class LatentHeads(Scorer):
    """w (N, d) -> logits (N, width), all heads at once.

    Args:
        path: safetensors file of the heads.
        attributes: one entry per head, see editbench.networks.scorers.attribute_list. `head` selects a
            head by number, so that a subset can be used; by default they are used in order. If the
            head of a binary attribute has two outputs, the logit is their difference.

    Raises:
        BadFile: a tensor is missing, or shapes do not match each other or the classes.
        EditbenchError: a `head` is not an integer.
    """

    input = "w"
    first: Tensor  # (heads * h, d)
    first_bias: Tensor
    second: Tensor  # (width, h)
    second_bias: Tensor
    head_of: Tensor  # (width,) the head of each column

    def __init__(self, path: Path | str, attributes: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.attributes, signs = declare(attributes)
        tensors = read_tensors(path)
        parts: list[tuple[Tensor, ...]] = []
        for position, (item, sign) in enumerate(zip(self.attributes, signs)):
            head = attributes[position].get("head", position)
            check_kind(f"scorer.attributes.{item.name}.head", head, "int")
            weight, bias, second, second_bias = _read_head(tensors, head, path)
            if item.binary and len(second) == 2:
                # The softmax of two outputs is the sigmoid of their difference.
                second = second[1:] - second[:1]
                second_bias = second_bias[1:] - second_bias[:1]
            if len(second) != item.width:
                raise BadFile(
                    f"{path}: head {head} has {len(second)} outputs, but attribute '{item.name}' "
                    f"has the classes {', '.join(item.classes)}"
                )
            if parts and parts[0][0].shape != weight.shape:
                raise BadFile(
                    f"{path}: head {head} is {tuple(weight.shape)} and the first "
                    f"{tuple(parts[0][0].shape)}; all heads of a scorer must have the same size"
                )
            parts.append((weight, bias, sign * second, sign * second_bias))
        # Concatenated, so that one matrix product computes all heads.
        names = ("first", "first_bias", "second", "second_bias")
        for k, name in enumerate(names):
            self.register_buffer(name, torch.cat([part[k] for part in parts]))
        # All columns of an attribute with several classes read the same head.
        columns = [k for k, item in enumerate(self.attributes) for _ in range(item.width)]
        self.register_buffer("head_of", torch.tensor(columns))
        self.digest = tensors_digest(self.state_dict(), self.attributes.as_config(), SLOPE)

    def forward(self, decoded: Tensor) -> Tensor:
        if decoded.dim() != 2 or decoded.shape[1] != self.first.shape[1]:
            raise EditbenchError(
                f"these heads take w (N, {self.first.shape[1]}) but were given "
                f"{tuple(decoded.shape)}"
            )
        hidden = F.leaky_relu(F.linear(decoded, self.first, self.first_bias), SLOPE)
        hidden = hidden.unflatten(1, (len(self.attributes), -1)).index_select(1, self.head_of)
        return (torch.einsum("nch,ch->nc", hidden, self.second) + self.second_bias).float()


def _read_head(
    tensors: Mapping[str, Tensor], head: int, path: Path | str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The tensors of one head: weight (h, d), bias (h,), weight (c, h), bias (c,)."""
    names = [
        NAME.format(head=head, layer=layer, part=part)
        for layer in (0, 2)
        for part in ("weight", "bias")
    ]
    for name in names:
        if name not in tensors:
            heads = sorted({key.split(".")[1] for key in tensors if key.startswith("classifiers.")})
            raise BadFile(
                f"{path}: has no {name}; it holds the heads {', '.join(heads) or 'none'}: list one "
                "attribute per head in the scorer's attributes"
            )
    weight, bias, second, second_bias = (tensors[name] for name in names)
    if (
        weight.dim() != 2
        or bias.shape != weight.shape[:1]
        or second.shape[1:] != weight.shape[:1]
        or second_bias.shape != second.shape[:1]
    ):
        raise BadFile(
            f"{path}: the shapes of head {head} do not fit: "
            + ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in names)
        )
    return weight, bias, second, second_bias
