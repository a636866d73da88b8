"""The networks of digiface: converted once from the archives, then loaded by the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from editbench.base.errors import EditbenchError
from editbench.base.files import write_atomic
from editbench.networks import registry
from editbench.networks.dcgan import DCGAN
from editbench.networks.digiface.archives import (
    ARCHIVES,
    COMMAND,
    FACE_API,
    GENERATOR,
    HUMAN,
    Archive,
    get_archive,
)
from editbench.networks.digiface.convert import (
    EMOTION_OUTPUTS,
    MESH_OUTPUTS,
    build_graph,
    convert_faceapi,
    convert_generator,
    convert_graph,
    load_converted,
    read_members,
    save_converted,
)
from editbench.networks.digiface.faceapi import EXPRESSIONS, LANDMARKS, FaceApiNetwork
from editbench.networks.digiface.faces import FaceApiFaces, HumanFaces
from editbench.networks.weights import group, load_strict

LICENCES = "LICENCES.txt"  # next to the converted files, since MIT requires its text in copies
NOTE = (
    "The generator was trained on DigiFace-1M, whose licence is for non-commercial research alone: "
    "use these networks, and pictures made with them, for nothing else."
)
CHECKPOINT = "gan_face_generate/weights.tar"
FACE_API_MODELS = {
    "expression": "package/model/face_expression_model",
    "landmarks": "package/model/face_landmark_68_model",
}
HUMAN_MODELS = {
    "emotion": ("package/models/emotion", EMOTION_OUTPUTS),
    "mesh": ("package/models/facemesh", MESH_OUTPUTS),
}


@dataclass(frozen=True)
class Converted:
    """A converted file.

    Args:
        path: of the file.
        archive: from which it was made.
        is_new: whether this call made it.
    """

    path: Path
    archive: Archive
    is_new: bool


def place() -> Path:
    """The folder of the converted files."""
    return registry.folder() / "digiface"


def path_of(archive: Archive) -> Path:
    """The converted file of an archive."""
    return place() / archive.converted


def is_here() -> bool:
    """Whether all converted files exist."""
    return all(path_of(archive).is_file() for archive in ARCHIVES)


# -- making them ---------------------------------------------------------------------------------
def convert_archives(source: Path | None = None, again: bool = False) -> Iterator[Converted]:
    """Get and convert the archives. Valid converted files are kept.

    Args:
        source: a folder that contains the archives; None fetches missing ones.
        again: whether existing files are converted again; each is replaced when its new version is
            complete.

    Yields:
        The converted files, one by one.

    Raises:
        BadFile: an archive does not have the pinned content.
        EditbenchError: an archive cannot be fetched.
    """
    for archive in ARCHIVES:
        path = path_of(archive)
        if path.is_file() and not again:
            # Raises BadFile for a damaged file; the message says to delete it.
            load_converted(path, str(archive.sha256), _again(archive))
            yield Converted(path, archive, False)
            continue
        convert_archive(get_archive(archive, source), archive)
        yield Converted(path, archive, True)


def convert_archive(file: Path, archive: Archive) -> None:
    """Convert one archive.

    Args:
        file: the archive, after a check of its content.
        archive: its description.

    Raises:
        BadFile: a part of it is not as expected.
    """
    config: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    if archive.manager == "pip":
        checkpoint = read_members(file, [CHECKPOINT])[CHECKPOINT]
        tensors = convert_generator(checkpoint)
    elif archive.converted == FACE_API.converted:
        for part, stem in FACE_API_MODELS.items():
            names = [f"{stem}-weights_manifest.json", f"{stem}.bin"]
            manifest, data = _contents(file, names)
            for name, value in convert_faceapi(manifest, data, names[1]).items():
                tensors[f"{part}.{name}"] = value
    else:
        for part, (stem, outputs) in HUMAN_MODELS.items():
            names = [f"{stem}.json", f"{stem}.bin"]
            model, data = _contents(file, names)
            config[part], weights = convert_graph(model, data, outputs, names[1])
            for name, value in weights.items():
                tensors[f"{part}.{name}"] = value
    registry.make_folder()
    place().mkdir(exist_ok=True)
    _keep_licence(file, archive)
    save_converted(path_of(archive), config, tensors, str(archive.sha256))


def _contents(file: Path, names: list[str]) -> list[bytes]:
    members = read_members(file, names)
    return [members[name] for name in names]


def _keep_licence(file: Path, archive: Archive) -> None:
    """Add an archive's licence to the file of licences next to the converted files."""
    text = read_members(file, [archive.licence_file])[archive.licence_file].decode()
    path = place() / LICENCES
    earlier = path.read_text(encoding="utf-8") if path.is_file() else f"{NOTE}\n"
    title = f"== {archive.name}: {archive.licence}"
    if title not in earlier:
        write_atomic(path, f"{earlier}\n{title}\n\n{text.strip()}\n")


def _again(archive: Archive) -> str:
    return f"run `{COMMAND}`, which makes it of {archive.name}"


# -- loading them --------------------------------------------------------------------------------
def _load(archive: Archive) -> tuple[dict[str, Any], dict[str, Tensor]]:
    path = path_of(archive)
    if not path.is_file():
        raise EditbenchError(
            f"{path} is missing; run `{COMMAND}` once (55 MB; without a connection: `{COMMAND} "
            "--from FOLDER`)"
        )
    return load_converted(path, str(archive.sha256), _again(archive))


def dcgan() -> nn.Module:
    """The generator of faces: z (N, 100) -> images (N, 3, 64, 64) in [-1, 1].

    Raises:
        EditbenchError: it has not been fetched.
        BadFile: its file is damaged.
    """
    _, tensors = _load(GENERATOR)
    network = DCGAN()
    load_strict(network, tensors, path_of(GENERATOR))
    return network.eval().requires_grad_(False)


def face_api() -> nn.Module:
    """The networks of face-api, see `FaceApiFaces`.

    Raises:
        EditbenchError: they have not been fetched.
        BadFile: their file is damaged.
    """
    _, tensors = _load(FACE_API)
    expression = FaceApiNetwork(len(EXPRESSIONS))
    landmarks = FaceApiNetwork(2 * LANDMARKS)
    for name, network in (("expression", expression), ("landmarks", landmarks)):
        load_strict(network, group(tensors, name), path_of(FACE_API))
    return FaceApiFaces(expression, landmarks).eval().requires_grad_(False)


def human() -> nn.Module:
    """The networks of human, see `HumanFaces`.

    Raises:
        EditbenchError: they have not been fetched.
        BadFile: their file is damaged.
    """
    config, tensors = _load(HUMAN)
    emotion = build_graph(config["emotion"], group(tensors, "emotion"))
    mesh = build_graph(config["mesh"], group(tensors, "mesh"))
    return HumanFaces(emotion, mesh).eval().requires_grad_(False)
