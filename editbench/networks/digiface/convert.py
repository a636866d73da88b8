"""Conversion of the archives to safetensors: generator, face-api's networks, human's networks."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editbench.base.errors import BadFile
from editbench.networks.digiface.graph import (
    GraphNetwork,
    Node,
    depthwise_kernel,
    read_graph,
    weights_of,
)
from editbench.networks.digiface.tfjs import read_weights
from editbench.networks.weights import is_altered, load_tensors, save_checked

LARGEST = 64 << 20  # maximum bytes of a member of an archive; the largest one needed has 14 million
KIND = "digiface"  # of the converted files
# Outputs of human's graphs: the values before the softmax; the 468 points; the logit of "face",
# before the sigmoid.
EMOTION_OUTPUTS = ("StatefulPartitionedCall/model_1/global_average_pooling2d_1/Mean",)
MESH_OUTPUTS = (
    "StatefulPartitionedCall/model_1/output_mesh/Reshape",
    "StatefulPartitionedCall/model_1/conv2d_31/BiasAdd",
)


# -- members of archives -------------------------------------------------------------------------
def read_members(archive: Path, names: list[str]) -> dict[str, bytes]:
    """The contents of some members of a wheel or an npm archive.

    Members are read into memory by their exact names. Nothing is unpacked to the disk, so paths in
    the archive cannot do harm.

    Args:
        archive: a .whl or .tgz file.
        names: of the members.

    Raises:
        BadFile: it is not such an archive, or a member is missing, not a regular file or too large.
    """
    try:
        if archive.suffix == ".whl":
            return _from_zip(archive, names)
        return _from_tar(archive, names)
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise BadFile(f"{archive}: not a readable archive ({error}); fetch it again") from error


def _from_zip(archive: Path, names: list[str]) -> dict[str, bytes]:
    found = {}
    with zipfile.ZipFile(archive) as file:
        for name in names:
            _check_size(archive, name, file.getinfo(name).file_size)
            found[name] = file.read(name)
    return found


def _from_tar(archive: Path, names: list[str]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive, "r:gz") as file:
        for name in names:
            member = file.getmember(name)
            _check_size(archive, name, member.size)
            # A link has no content and might point anywhere.
            if not member.isreg():
                raise BadFile(f"{archive}: its member {name} is not a regular file")
            content = file.extractfile(member)
            assert content is not None
            found[name] = content.read()
    return found


def _check_size(archive: Path, name: str, size: int) -> None:
    if size > LARGEST:
        raise BadFile(f"{archive}: its member {name} has {size:,} bytes, more than {LARGEST:,}")


# -- networks ------------------------------------------------------------------------------------
def convert_generator(checkpoint: bytes) -> dict[str, Tensor]:
    """The tensors of DCGAN from `weights.tar`, a torch.save file.

    Raises:
        BadFile: it is not such a file, or has other parts.
    """
    try:
        # weights_only: nothing in the file is executed.
        found = torch.load(io.BytesIO(checkpoint), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        # torch's own message advises to load the file unsafely.
        raise BadFile(
            f"weights.tar: not a checkpoint of tensors ({type(error).__name__})"
        ) from error
    if not isinstance(found, dict) or "netG_state_dict" not in found:
        raise BadFile("weights.tar: holds no 'netG_state_dict'")
    return dict(found["netG_state_dict"])


def convert_faceapi(manifest: bytes, data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a `FaceApiNetwork` from one of face-api's models.

    Args:
        manifest: JSON of the groups of weights.
        data: the weights.
        name: of the model, for messages.

    Raises:
        BadFile: a weight does not belong to the network.
    """
    found = {}
    for key, value in read_weights(_json(manifest, name), data, name).items():
        *place, part = key.split("/")
        layer = ".".join(place)
        if part in ("filters", "pointwise_filter"):
            # The layout there is (h, w, in, out). The plain and the 1 x 1 convolution have other
            # names here.
            inner = "conv" if part == "filters" else "pointwise"
            found[f"{layer}.{inner}.weight"] = value.permute(3, 2, 0, 1).contiguous()
        elif part == "depthwise_filter":
            found[f"{layer}.depthwise.weight"] = depthwise_kernel(value, key)
        elif key == "fc/weights":
            found["fc.weight"] = value.T.contiguous()
        elif key == "fc/bias":
            found["fc.bias"] = value
        elif part == "bias":
            inner = "conv" if layer == "dense0.conv0" else "pointwise"
            found[f"{layer}.{inner}.bias"] = value
        else:
            raise BadFile(f"{name}: has the weight '{key}', which the network does not have")
    return found


def convert_graph(
    model: bytes, data: bytes, outputs: tuple[str, ...], name: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One of human's graphs as a configuration and tensors, for `build_graph`.

    Args:
        model: JSON of the graph and of the list of its weights.
        data: the weights.
        outputs: names of the output nodes.
        name: of the model, for messages.

    Raises:
        BadFile: the graph lacks these nodes, or has unknown operations.
    """
    described = _json(model, name)
    try:
        constants = read_weights(described["weightsManifest"], data, name)
        nodes = read_graph(described["modelTopology"], outputs, constants)
    except (KeyError, TypeError, IndexError) as error:
        raise BadFile(f"{name}: not a graph of TensorFlow.js ({error!r})") from error
    config = {"nodes": [node.as_config() for node in nodes], "outputs": list(outputs)}
    return config, weights_of(nodes, constants)


def build_graph(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> GraphNetwork:
    """The network for a configuration and tensors of `convert_graph`."""
    nodes = [Node.from_config(item) for item in config["nodes"]]
    return GraphNetwork(nodes, config["outputs"], tensors)


def _json(text: bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadFile(f"{name}: its description is not JSON ({error})") from error


# -- converted files -----------------------------------------------------------------------------
def save_converted(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], archive: str
) -> None:
    """Write a converted network with the sha256 of its archive and a checksum."""
    save_checked(path, tensors, KIND, {**config, "archive": archive})


def load_converted(
    path: Path, archive: str, remedy: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a converted network.

    Args:
        path: of the file.
        archive: sha256 of the archive that it must come from.
        remedy: for the error message.

    Raises:
        BadFile: it is missing, damaged or altered, or comes from another archive.
    """
    config, tensors = load_tensors(path, KIND, remedy)
    if is_altered(config, tensors):
        raise BadFile(
            f"{path}: its content has changed since it was converted; delete it, and {remedy}"
        )
    if config.pop("archive", None) != archive:
        raise BadFile(f"{path}: was converted from another archive; delete it, and {remedy}")
    return config, tensors
