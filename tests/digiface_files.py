"""Archives in the formats of the digiface packages, with small random weights, and slow networks to compare with."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from editbench.networks.dcgan import DCGAN

MODEL = "StatefulPartitionedCall/model_1"


# -- TensorFlow.js files ---------------------------------------------------------------------------
class Weights:
    """Collects weights, and writes them as a binary file with a manifest."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.entries: list[dict] = []
        self.data = b""
        self.values: dict[str, np.ndarray] = {}

    def add(
        self, name: str, shape: tuple[int, ...], how: str = "uint8", spread: float = 0.5
    ) -> str:
        entry: dict = {"name": name, "shape": list(shape), "dtype": "float32"}
        exact = self.rng.normal(0, spread / max(np.prod(shape[:-1]), 1) ** 0.5, shape)
        if how == "uint8":
            scale = float((exact.max() - exact.min()) / 255) or 1.0
            stored = np.round((exact - exact.min()) / scale).astype(np.uint8)
            entry["quantization"] = {"dtype": "uint8", "scale": scale, "min": float(exact.min())}
            self.values[name] = stored * scale + exact.min()
        elif how == "float16":
            stored = exact.astype(np.float16)
            entry["quantization"] = {"dtype": "float16"}
            self.values[name] = stored.astype(np.float64)
        else:
            stored = exact.astype(np.float32)
            self.values[name] = stored.astype(np.float64)
        self.entries.append(entry)
        self.data += stored.tobytes()
        return name

    def add_numbers(self, name: str, numbers: object) -> str:
        stored = np.asarray(numbers, np.int32)
        self.entries.append({"name": name, "shape": list(stored.shape), "dtype": "int32"})
        self.data += stored.tobytes()
        self.values[name] = stored
        return name

    @property
    def manifest(self) -> list[dict]:
        return [{"weights": self.entries, "paths": ["weights.bin"]}]


def faceapi_weights(outputs: int, seed: int, channels: tuple[int, ...]) -> Weights:
    """Weights with the names of face-api's models."""
    made = Weights(seed)
    n_in = 3
    for k, n_out in enumerate(channels):
        for j in range(4):
            layer = f"dense{k}/conv{j}"
            if k == j == 0:
                made.add(f"{layer}/filters", (3, 3, 3, n_out), spread=2)
            else:
                width = n_in if j == 0 else n_out
                made.add(f"{layer}/depthwise_filter", (3, 3, width, 1), spread=6)
                made.add(f"{layer}/pointwise_filter", (1, 1, width, n_out), spread=2)
            made.add(f"{layer}/bias", (n_out,), "float32")
        n_in = n_out
    made.add("fc/weights", (n_in, outputs), spread=2)
    made.add("fc/bias", (outputs,), "float32")
    return made


def node(
    name: str, op: str, *inputs: str, fused: tuple[str, ...] = (), **attributes: object
) -> dict:
    """A node of a graph as TensorFlow.js writes it: texts in base64, numbers as texts."""
    attr: dict = {}
    for key, value in attributes.items():
        if isinstance(value, str):
            attr[key] = {"s": base64.b64encode(value.encode()).decode()}
        else:
            attr[key] = {"list": {"i": [str(number) for number in value]}}  # type: ignore[attr-defined]
    if fused:
        attr["fused_ops"] = {"list": {"s": [base64.b64encode(s.encode()).decode() for s in fused]}}
    return {"name": name, "op": op, "input": list(inputs), "attr": attr}


def small_graph(outputs: dict[str, int], channels: int, seed: int) -> tuple[dict, Weights]:
    """A graph with every operation, which ends in the named outputs with so many values each.

    One that is called Mean is an average over pixels, one that is called Reshape a reshaped picture of one pixel.
    """
    made = Weights(seed)
    add = made.add
    strided, still = (1, 2, 2, 1), (1, 1, 1, 1)
    nodes = [
        node("input_1", "Placeholder"),
        node("a", "_FusedConv2D", "input_1", add("a/w", (3, 3, channels, 4)), add("a/b", (4,)),
             fused=("BiasAdd", "Relu"), padding="SAME", strides=strided),
        node("b", "DepthwiseConv2dNative", "a", add("b/w", (3, 3, 4, 1), spread=3), padding="SAME", strides=strided),
        node("c", "_FusedConv2D", "b", add("c/w", (1, 1, 4, 4), "float16"), add("c/b", (4,)), add("c/p", (1, 1, 4)),
             fused=("BiasAdd", "Prelu"), padding="VALID", strides=still),
        node("d", "MaxPool", "a", padding="SAME", strides=strided, ksize=(1, 3, 3, 1)),
        node("e", "AddV2", "c", "d"),
        node("f", "Prelu", "e", add("f/p", (1, 1, 4))),
        node("g", "Pad", "f", made.add_numbers("g/pads", [[0, 0], [0, 1], [2, 0], [0, 2]])),
        node("h", "Relu", "g"),
        node("unused", "Softmax", "h"),
    ]  # fmt: skip
    for k, (name, values) in enumerate(outputs.items()):
        w, b = add(f"out{k}/w", (1, 1, 6, values), spread=4), add(f"out{k}/b", (values,), spread=1)
        if name.endswith("Mean"):
            nodes.append(
                node(
                    f"out{k}",
                    "_FusedConv2D",
                    "h",
                    w,
                    b,
                    fused=("BiasAdd",),
                    padding="SAME",
                    strides=still,
                )
            )
            nodes.append(node(name, "Mean", f"out{k}", made.add_numbers(f"out{k}/axes", [1, 2])))
            continue
        nodes.append(
            node(
                f"mean{k}",
                "MaxPool",
                "h",
                padding="SAME",
                strides=(1, 99, 99, 1),
                ksize=(1, 99, 99, 1),
            )
        )
        end = name if not name.endswith("Reshape") else f"out{k}"
        nodes.append(
            node(
                end,
                "_FusedConv2D",
                f"mean{k}",
                w,
                b,
                fused=("BiasAdd",),
                padding="VALID",
                strides=still,
            )
        )
        if end != name:
            nodes.append(
                node(name, "Reshape", end, made.add_numbers(f"out{k}/shape", [-1, values]))
            )
    model = {"modelTopology": {"node": nodes[::-1]}, "weightsManifest": made.manifest}
    return model, made


# -- archives --------------------------------------------------------------------------------------
def tgz(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            file.addfile(info)
    return path


def generator_wheel(path: Path, seed: int = 0) -> DCGAN:
    """A wheel with a random generator, and that generator."""
    torch.manual_seed(seed)
    network = DCGAN()
    for module in network.main:
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    stream = io.BytesIO()
    torch.save({"netG_state_dict": network.state_dict()}, stream)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("gan_face_generate/weights.tar", stream.getvalue())
        file.writestr("gan_face_generate-1.1.1.dist-info/licenses/LICENSE", "Copyright a generator")
        file.writestr("../evil.py", "raise SystemExit")
    return network.eval()


def faceapi_archive(path: Path, channels: tuple[int, ...]) -> dict[str, Weights]:
    parts = {
        "face_expression_model": faceapi_weights(7, 1, channels),
        "face_landmark_68_model": faceapi_weights(136, 2, channels),
    }
    members = {"package/LICENSE": b"Copyright face-api", "../../evil.py": b"raise SystemExit"}
    for name, made in parts.items():
        members[f"package/model/{name}-weights_manifest.json"] = json.dumps(made.manifest).encode()
        members[f"package/model/{name}.bin"] = made.data
    tgz(path, members)
    return parts


def human_archive(path: Path) -> dict[str, tuple[dict, Weights]]:
    emotion = small_graph({f"{MODEL}/global_average_pooling2d_1/Mean": 7}, 1, 3)
    mesh = small_graph(
        {f"{MODEL}/output_mesh/Reshape": 1404, f"{MODEL}/conv2d_31/BiasAdd": 1}, 3, 4
    )
    members = {"package/LICENSE": b"Copyright human"}
    for name, (model, made) in (("emotion", emotion), ("facemesh", mesh)):
        members[f"package/models/{name}.json"] = json.dumps(model).encode()
        members[f"package/models/{name}.bin"] = made.data
    tgz(path, members)
    return {"emotion": emotion, "facemesh": mesh}


# -- slow networks, in TensorFlow's layout and float64 ---------------------------------------------
def slow_windows(
    x: np.ndarray, size: tuple[int, int], stride: tuple[int, int], padding: str, fill: float
):
    """Every window of pictures (N, H, W, C), by TensorFlow's rule for "SAME" and "VALID": ((i, j), window)."""
    h, w = x.shape[1:3]
    if padding == "SAME":
        rows, columns = -(-h // stride[0]), -(-w // stride[1])
        down = max((rows - 1) * stride[0] + size[0] - h, 0)
        right = max((columns - 1) * stride[1] + size[1] - w, 0)
        edges = ((0, 0), (down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0))
        x = np.pad(x, edges, constant_values=fill)
    else:
        rows, columns = (h - size[0]) // stride[0] + 1, (w - size[1]) // stride[1] + 1
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride[0], j * stride[1]
            yield (i, j), x[:, top : top + size[0], left : left + size[1]]


def slow_picture(parts: list[tuple[tuple[int, int], np.ndarray]]) -> np.ndarray:
    rows, columns = (max(place[k] for place, _ in parts) + 1 for k in (0, 1))
    out = np.empty((len(parts[0][1]), rows, columns, parts[0][1].shape[1]))
    for (i, j), values in parts:
        out[:, i, j] = values
    return out


def slow_conv(x, kernel, stride, padding):
    windows = slow_windows(x, kernel.shape[:2], stride, padding, 0.0)
    return slow_picture(
        [(place, np.einsum("nhwc,hwco->no", part, kernel)) for place, part in windows]
    )


def slow_depthwise(x, kernel, stride, padding):
    windows = slow_windows(x, kernel.shape[:2], stride, padding, 0.0)
    return slow_picture(
        [(place, np.einsum("nhwc,hwc->nc", part, kernel[..., 0])) for place, part in windows]
    )


def slow_max(x, size, stride, padding):
    windows = slow_windows(x, size, stride, padding, -np.inf)
    return slow_picture([(place, part.max((1, 2))) for place, part in windows])


def slow_faceapi(values: dict[str, np.ndarray], pictures: np.ndarray, blocks: int) -> np.ndarray:
    """face-api's network on pictures (N, H, W, 3) in [0, 255]."""

    def layer(x, name, stride):
        if f"{name}/filters" in values:
            out = slow_conv(x, values[f"{name}/filters"], stride, "SAME")
        else:
            out = slow_depthwise(x, values[f"{name}/depthwise_filter"], stride, "SAME")
            out = slow_conv(out, values[f"{name}/pointwise_filter"], (1, 1), "VALID")
        return out + values[f"{name}/bias"]

    x = (pictures - np.array([122.782, 117.001, 104.298])) / 255
    for k in range(blocks):
        one = np.maximum(layer(x, f"dense{k}/conv0", (2, 2)), 0)
        two = layer(one, f"dense{k}/conv1", (1, 1))
        three = layer(np.maximum(one + two, 0), f"dense{k}/conv2", (1, 1))
        four = layer(np.maximum(one + two + three, 0), f"dense{k}/conv3", (1, 1))
        x = np.maximum(one + two + three + four, 0)
    return x.mean((1, 2)) @ values["fc/weights"] + values["fc/bias"]


def slow_graph(
    v: dict[str, np.ndarray], pictures: np.ndarray, outputs: dict[str, int]
) -> list[np.ndarray]:
    """`small_graph` on pictures (N, H, W, C), written out."""
    prelu = lambda x, slope: np.where(x > 0, x, slope * x)  # noqa: E731
    a = np.maximum(slow_conv(pictures, v["a/w"], (2, 2), "SAME") + v["a/b"], 0)
    b = slow_depthwise(a, v["b/w"], (2, 2), "SAME")
    c = prelu(slow_conv(b, v["c/w"], (1, 1), "VALID") + v["c/b"], v["c/p"])
    f = prelu(c + slow_max(a, (3, 3), (2, 2), "SAME"), v["f/p"])
    h = np.maximum(np.pad(f, ((0, 0), (0, 1), (2, 0), (0, 2))), 0)
    found = []
    for k, name in enumerate(outputs):
        picture = h if name.endswith("Mean") else h.max((1, 2), keepdims=True)
        out = slow_conv(picture, v[f"out{k}/w"], (1, 1), "VALID") + v[f"out{k}/b"]
        found.append(out.mean((1, 2)))
    return found
