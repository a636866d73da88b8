"""A small interpreter of TensorFlow.js graphs: the dozen operations that face networks are made of.

A graph is a list of nodes in which every node stands after those that it reads. Pictures are (N, C,
H, W) here and (N, H, W, C) there; what a graph gives at its end is (N, values) in TensorFlow's
order.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from editbench.base.errors import BadFile
from editbench.networks.digiface.padding import convolve_same, pad_same

# What follows a convolution within one node, by TensorFlow's names.
FUSED = ("BiasAdd", "Relu", "Prelu")
CONVOLUTIONS = ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative")


@dataclass(frozen=True)
class Node:
    """One operation.

    Args:
        name: of the node.
        op: 'Placeholder', or one of COMPUTE.
        inputs: names of the nodes that it reads, and of weights.
        padding: 'SAME' or 'VALID'; '' where the operation has none.
        stride: (down, right) in pixels.
        kernel: (height, width) of a maximum, in pixels.
        fused: what follows a convolution, of FUSED.
        pads: zeros before and after each axis (N, H, W, C), eight numbers.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    padding: str = ""
    stride: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    fused: tuple[str, ...] = ()
    pads: tuple[int, ...] = ()

    def as_config(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Node:
        # JSON has lists in place of tuples.
        values: dict[str, Any] = {}
        for key, value in config.items():
            values[key] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


def read_graph(
    topology: Mapping[str, Any], outputs: Sequence[str], constants: Mapping[str, Tensor]
) -> list[Node]:
    """The nodes that some outputs depend on, in an order in which they can be computed.

    Args:
        topology: `modelTopology` of a TensorFlow.js graph model.
        outputs: names of the nodes that are wanted.
        constants: name -> weights of the model, as TensorFlow has them.

    Raises:
        BadFile: a node is missing, or is an operation that is not known here.
    """
    raw = {node["name"]: node for node in topology["node"]}
    found: dict[str, Node] = {}

    def visit(name: str) -> None:
        if name in found or name in constants:
            return
        if name not in raw:
            raise BadFile(f"the graph has no node '{name}': it is of another version")
        node = _read_node(raw[name], constants)
        # Inputs come first, so that the list can be run from its beginning to its end.
        for other in node.inputs:
            visit(other)
        found[name] = node

    for name in outputs:
        visit(name)
    return list(found.values())


def _read_node(raw: Mapping[str, Any], constants: Mapping[str, Tensor]) -> Node:
    name = str(raw["name"])
    op = str(raw["op"])
    attributes = raw.get("attr") or {}
    inputs = tuple(raw.get("input") or ())
    if op != "Placeholder" and op not in COMPUTE:
        raise BadFile(f"node '{name}' of the graph is a {op}; known are {', '.join(COMPUTE)}")
    if attributes.get("dilations", {}).get("list", {}).get("i", ["1"] * 4) != ["1"] * 4:
        raise BadFile(f"node '{name}' of the graph is a dilated convolution, which is not read")
    fused = tuple(
        _text(item) for item in attributes.get("fused_ops", {}).get("list", {}).get("s", [])
    )
    if not set(fused) <= set(FUSED):
        raise BadFile(f"node '{name}' of the graph fuses {fused}; known are {', '.join(FUSED)}")
    pads: tuple[int, ...] = ()
    if op in ("Pad", "Mean", "Reshape"):
        # Their second input says how: it is a part of the node here, not a weight.
        how = constants[inputs[1]].flatten().tolist()
        inputs = inputs[:1]
        if op == "Pad":
            pads = tuple(int(value) for value in how)
        if op == "Mean" and sorted(how) != [1, 2]:
            raise BadFile(f"node '{name}' of the graph averages axes {how}; read are [1, 2]")
    return Node(
        name,
        op,
        inputs,
        _text(attributes.get("padding", {}).get("s", "")),
        _sides(attributes, "strides"),
        _sides(attributes, "ksize"),
        fused,
        pads,
    )


def _text(value: str) -> str:
    """A string of the graph's JSON, which is base64."""
    try:
        return base64.b64decode(value, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise BadFile(f"the graph has the text {value!r}, which is not base64") from error


def _sides(attributes: Mapping[str, Any], key: str) -> tuple[int, int]:
    """(height, width) of an attribute for the axes (N, H, W, C)."""
    values = attributes.get(key, {}).get("list", {}).get("i", [1, 1, 1, 1])
    return int(values[1]), int(values[2])


def weights_of(nodes: Sequence[Node], constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that nodes read, in PyTorch's layouts.

    Args:
        nodes: of `read_graph`.
        constants: name -> weights of the model, as TensorFlow has them.

    Returns:
        Name -> kernels (out, in, h, w), of a depthwise convolution (channels, 1, h, w); vectors (C,).
    """
    found: dict[str, Tensor] = {}
    for node in nodes:
        for position, name in enumerate(node.inputs):
            if name not in constants:
                continue
            value = constants[name]
            if node.op == "DepthwiseConv2dNative" and position == 1:
                value = depthwise_kernel(value, node.name)
            elif node.op in CONVOLUTIONS and position == 1:
                value = value.permute(3, 2, 0, 1)
            else:
                # Slopes are (1, 1, C) there: one a channel.
                value = value.flatten()
            found[name] = value.contiguous()
    return found


def depthwise_kernel(kernel: Tensor, name: str) -> Tensor:
    """TensorFlow's (h, w, C, 1) as PyTorch's (C, 1, h, w)."""
    if kernel.dim() != 4 or kernel.shape[3] != 1:
        raise BadFile(
            f"{name}: a depthwise kernel of shape {tuple(kernel.shape)}; (h, w, channels, 1) is read"
        )
    return kernel.permute(2, 3, 0, 1).contiguous()


class GraphNetwork(nn.Module):
    """Runs a graph: pictures (N, C, H, W) -> each of its outputs (N, values).

    Args:
        nodes: of `read_graph`.
        outputs: names of nodes.
        weights: name -> weights in PyTorch's layouts, see `weights_of`.
    """

    def __init__(
        self, nodes: Sequence[Node], outputs: Sequence[str], weights: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.nodes = tuple(nodes)
        self.outputs = tuple(outputs)
        # A module allows no dots and slashes in a name.
        self.names = {name: f"weight{k}" for k, name in enumerate(sorted(weights))}
        for name, key in self.names.items():
            self.register_parameter(key, nn.Parameter(weights[name].float(), requires_grad=False))

    def extra_repr(self) -> str:
        # Part of a scorer's identity: the same weights in another graph are another network.
        return f"nodes={self.nodes}, outputs={self.outputs}"

    def forward(self, pictures: Tensor) -> list[Tensor]:
        values: dict[str, Tensor] = {name: getattr(self, key) for name, key in self.names.items()}
        for node in self.nodes:
            if node.op == "Placeholder":
                values[node.name] = pictures
                continue
            inputs = [values[name] for name in node.inputs]
            values[node.name] = COMPUTE[node.op](node, inputs)
        return [_flat(values[name]) for name in self.outputs]


def _flat(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W * C), TensorFlow's order."""
    if x.dim() == 4:
        x = x.permute(0, 2, 3, 1)
    return x.flatten(1)


def _convolve(node: Node, inputs: list[Tensor]) -> Tensor:
    x, kernel, *rest = inputs
    groups = 1
    if node.op == "DepthwiseConv2dNative":
        groups = x.shape[1]
    bias = rest.pop(0) if "BiasAdd" in node.fused else None
    if node.padding == "SAME":
        x = convolve_same(x, kernel, bias, node.stride, groups)
    else:
        x = F.conv2d(x, kernel, bias, node.stride, groups=groups)
    if "Relu" in node.fused:
        return x.relu()
    if "Prelu" in node.fused:
        return F.prelu(x, rest.pop(0))
    return x


def _max_pool(node: Node, inputs: list[Tensor]) -> Tensor:
    x = inputs[0]
    if node.padding == "SAME":
        # The border must never be the largest.
        x = pad_same(x, node.kernel, node.stride, float("-inf"))
    return F.max_pool2d(x, node.kernel, node.stride)


def _pad(node: Node, inputs: list[Tensor]) -> Tensor:
    _, _, top, bottom, left, right, first, last = node.pads
    return F.pad(inputs[0], (left, right, top, bottom, first, last))


def _add(node: Node, inputs: list[Tensor]) -> Tensor:
    return inputs[0] + inputs[1]


def _relu(node: Node, inputs: list[Tensor]) -> Tensor:
    return inputs[0].relu()


def _prelu(node: Node, inputs: list[Tensor]) -> Tensor:
    return F.prelu(inputs[0], inputs[1])


def _mean(node: Node, inputs: list[Tensor]) -> Tensor:
    return inputs[0].mean((2, 3))


def _reshape(node: Node, inputs: list[Tensor]) -> Tensor:
    # These graphs reshape at their ends alone, where each sample becomes one row.
    return _flat(inputs[0])


def _identity(node: Node, inputs: list[Tensor]) -> Tensor:
    return inputs[0]


# What each operation computes of a node and the values of its inputs.
COMPUTE: dict[str, Callable[[Node, list[Tensor]], Tensor]] = {
    "Conv2D": _convolve,
    "_FusedConv2D": _convolve,
    "DepthwiseConv2dNative": _convolve,
    "Identity": _identity,
    "AddV2": _add,
    "Relu": _relu,
    "Prelu": _prelu,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Mean": _mean,
    "Reshape": _reshape,
}
