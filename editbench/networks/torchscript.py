"""TorchScript archives by anybody (torch.jit.save), read with care.

What is guarded: no Python of the file's author runs, neither from a pickle nor as source;
TorchScript has its own interpreter with operators on tensors, and the two of them that touch the
disk (`save`, `from_file`) are refused before anything is loaded, under whatever name they are
reached. What is not: such code may loop for ever or ask for any amount of memory, torch's own
reader is trusted with the archive, and a network may of course give wrong numbers. Take files from
people you trust, and compare checksums.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import torch
from torch import nn

from editbench.base.errors import BadFile, no_such

# As an attribute of anything (`torch` can be given another name) after all that its parser skips;
# or by a getattr, which is otherwise let through as torch writes it, getattr(self.layers, "0").
DISK = re.compile(
    rb"\.(?:\s|\\|#[^\n]*\n)*(save|from_file)\b|\"(save|from_file)\"|"
    rb"\b(getattr)\b(?!\((?:[\w.]|getattr\(|, \"\w+\"\))+, \"\w+\"\))"
)
# Member of the archives that torch.export wrote before torch 2.8, whose weights are pickles.
OLD_EXPORT = "serialized_exported_program.json"
# What zipfile may raise.
DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError, ValueError)
# an archive may unpack to so many times its size and so many bytes more
EXPANSION = 20
ROOM = 1 << 26
REMEDY = "save it with torch.jit.script(module.eval()).save(PATH), or torch.jit.trace"
COPY_AGAIN = "copy it again from where it came, and compare its checksum"


def kind_of(path: Path | str) -> str:
    """What a file of a network is: 'torchscript', 'export', 'state dict or pickled module',
    'safetensors' or 'unknown'.

    Raises:
        BadFile: no such file, or a zip archive that was cut off.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFile(
            f"{path}: {no_such('file', path)}; check the path (relative ones start at the working directory; "
            "data=FOLDER moves ${data})"
        )
    # The ending says little: .pt names at least four formats.
    with path.open("rb") as stream:
        head = stream.read(16)
    if not zipfile.is_zipfile(path):
        if head.startswith(b"PK"):
            raise BadFile(f"{path}: an archive without its end, so truncated; {COPY_AGAIN}")
        # After eight bytes of length comes the JSON of the header.
        if head[8:9] == b"{":
            return "safetensors"
        if head.startswith(b"\x80"):
            return "state dict or pickled module"
        return "unknown"
    with open_archive(path) as archive:
        members = archive.namelist()
    names = [name.partition("/")[2] for name in members]
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return "torchscript"
    if any(name.startswith("models/") for name in names) or OLD_EXPORT in members:
        return "export"
    if "data.pkl" in names:
        return "state dict or pickled module"
    return "unknown"


def expect_kind(path: Path | str, kind: str, remedy: str) -> None:
    """Raise BadFile, saying what the file is instead, where it is not of `kind`."""
    found = kind_of(path)
    if found == kind:
        return
    instead = {
        "torchscript": "a TorchScript archive: read it with FileScorer",
        "export": "a torch.export archive: read it with FileScorer",
        "safetensors": "a safetensors file, weights without a network: use ModuleScorer with "
        "network: and weights:",
        "state dict or pickled module": "a pickle of torch.save (a state dict or a whole module), "
        f"which is not read here: load it where you trust it, then {remedy}",
        "unknown": f"not the file of a network; {COPY_AGAIN}",
    }[found]
    raise BadFile(f"{path}: a {kind} file is needed, but this is {instead}")


def read_torchscript(path: Path | str) -> nn.Module:
    """The network of a TorchScript archive: on the host, in evaluation mode, constant.

    Raises:
        BadFile: missing, cut off, of another kind (see `kind_of`), or with an operator that touches
            the disk.
    """
    expect_kind(path, "torchscript", REMEDY)
    with open_archive(path) as archive:
        check_whole(path, archive)
        for name in archive.namelist():  # torch finds its members by names in any case
            if name.casefold().endswith(".py") and (found := DISK.search(archive.read(name))):
                raise BadFile(
                    f"{path}: its code in {name} uses '{found[found.lastindex or 0].decode()}', "
                    "which reaches the disk; such a file is not run"
                )
    try:
        network = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise BadFile(
            f"{path}: torch could not load it ({telling_line(error)}); it may be damaged or of a "
            f"newer torch than {torch.__version__}; {COPY_AGAIN}"
        ) from error
    # Archives keep the mode in which they were saved.
    network.eval()
    for parameter in network.parameters():  # a ScriptModule has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return network


def takes(network: nn.Module, *names: str) -> bool:
    """Whether `forward` of a TorchScript network has arguments of these names."""
    schema = network.forward.schema  # type: ignore[attr-defined]
    return set(names) <= {argument.name for argument in schema.arguments}


def telling_line(error: BaseException) -> str:
    """The most telling line of an error; TorchScript's own is the last of a long text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if "TorchScript interpreter" in lines[0]:
        return lines[-1]
    return lines[0]


def open_archive(path: Path | str) -> zipfile.ZipFile:
    """Raises BadFile for a damaged directory, or content far larger than the file."""
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise BadFile(f"{path}: a damaged archive ({error}); {COPY_AGAIN}") from error
    # Before anything is unpacked.
    inside = sum(item.file_size for item in archive.infolist())
    outside = Path(path).stat().st_size
    if inside > EXPANSION * outside + ROOM:
        raise BadFile(
            f"{path}: {outside} bytes that would unpack to {inside}; such a file is not read"
        )
    return archive


def check_whole(path: Path | str, archive: zipfile.ZipFile) -> None:
    """Compare every member with its checksum; BadFile names the first that differs, or says that a
    name is there twice
    (two readers could then take two different members)."""
    if len({name.casefold() for name in archive.namelist()}) != len(archive.namelist()):
        raise BadFile(f"{path}: an archive with a duplicate name; {COPY_AGAIN}")
    try:
        # Damage is named here rather than met while the network is loaded.
        broken = archive.testzip()
    except DAMAGE as error:
        raise BadFile(f"{path}: an archive with damage inside ({error}); {COPY_AGAIN}") from error
    if broken is not None:
        raise BadFile(f"{path}: an archive with damage inside ({broken}); {COPY_AGAIN}")
