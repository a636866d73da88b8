"""Reading third-party TorchScript archives (torch.jit.save) with precautions.

No Python code of the file's author is executed, neither from a pickle nor as source. TorchScript
has its own interpreter with operators on tensors. The two operators that access the disk (`save`,
`from_file`) are rejected before anything is loaded, whatever name they are called by.

Some risks remain. The code may loop forever or request any amount of memory, torch's own reader is
trusted with the archive, and a network may give wrong numbers. Use files from people you trust, and
compare checksums.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import torch
from torch import nn

from editbench.base.errors import BadFile, no_such
from editbench.base.files import cannot_read

# An operator that accesses the disk: as an attribute of any name (`torch` can be renamed), after
# anything that the parser skips; or by a getattr, unless it has the form that torch itself writes,
# getattr(self.layers, "0").
DISK = re.compile(
    rb"\.(?:\s|\\|#[^\n]*\n)*(save|from_file)\b|\"(save|from_file)\"|"
    rb"\b(getattr)\b(?!\((?:[\w.]|getattr\(|, \"\w+\"\))+, \"\w+\"\))"
)
# Member of archives by torch.export before torch 2.8, which have pickled weights.
OLD_EXPORT = "serialized_exported_program.json"
# Exceptions that zipfile may raise.
DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError, ValueError)
# An archive may unpack to at most EXPANSION times its size, plus a constant.
EXPANSION = 20
ROOM = 1 << 26
REMEDY = "save it with torch.jit.script(module.eval()).save(PATH), or torch.jit.trace"
COPY_AGAIN = "copy it again from where it came, and compare its checksum"


def kind_of(path: Path | str) -> str:
    """The format of a network's file.

    It is 'torchscript', 'export', 'state dict or pickled module', 'safetensors' or 'unknown'.

    Raises:
        BadFile: there is no such file, it cannot be read, or it is a truncated zip archive.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFile(
            f"{path}: {no_such('file', path)}; check the path (relative ones start at the working "
            "directory; data=FOLDER moves ${data})"
        )
    # The ending is not enough, since at least four formats use .pt.
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise cannot_read(path, error) from error
    if not zipfile.is_zipfile(path):
        if head.startswith(b"PK"):
            raise BadFile(f"{path}: an archive without its end, so truncated; {COPY_AGAIN}")
        # In safetensors, the JSON of the header follows eight bytes with its length.
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
    """Check that a file is of a kind.

    Args:
        path: of the file.
        kind: one of those of `kind_of`.
        remedy: the end of the message for a pickle: how to save it in the needed kind.

    Raises:
        BadFile: it is of another kind, which the message names.
    """
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
    """The network of a TorchScript archive, on the host, in evaluation mode, with constant weights.

    Raises:
        BadFile: the file is missing, truncated, of another kind (see `kind_of`), or has an operator
            that accesses the disk.
    """
    expect_kind(path, "torchscript", REMEDY)
    with open_archive(path) as archive:
        check_whole(path, archive)
        for name in archive.namelist():  # torch ignores the case of members' names
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
    # Archives have the mode in which they were saved.
    network.eval()
    for parameter in network.parameters():  # a ScriptModule has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return network


def takes(network: nn.Module, *names: str) -> bool:
    """Whether `forward` of a TorchScript network has arguments with these names."""
    schema = network.forward.schema  # type: ignore[attr-defined]
    return set(names) <= {argument.name for argument in schema.arguments}


def telling_line(error: BaseException) -> str:
    """The most informative line of an error; for TorchScript, the last line of a long text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if "TorchScript interpreter" in lines[0]:
        return lines[-1]
    return lines[0]


def open_archive(path: Path | str) -> zipfile.ZipFile:
    """Open a zip archive. Raises BadFile if it is damaged or its content is far larger."""
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise BadFile(f"{path}: a damaged archive ({error}); {COPY_AGAIN}") from error
    # Checked before anything is unpacked.
    inside = sum(item.file_size for item in archive.infolist())
    outside = Path(path).stat().st_size
    if inside > EXPANSION * outside + ROOM:
        raise BadFile(
            f"{path}: {outside} bytes that would unpack to {inside}; such a file is not read"
        )
    return archive


def check_whole(path: Path | str, archive: zipfile.ZipFile) -> None:
    """Check the members of an archive.

    Args:
        path: of the file, for the message.
        archive: that was opened.

    Raises:
        BadFile: the checksum of a member differs, or a name occurs twice (two readers could then
            read different members).
    """
    # torch ignores the case of members' names.
    if len({name.casefold() for name in archive.namelist()}) != len(archive.namelist()):
        raise BadFile(f"{path}: an archive with a duplicate name; {COPY_AGAIN}")
    try:
        # Otherwise loading the network would fail with an unclear error.
        broken = archive.testzip()
    except DAMAGE as error:
        raise BadFile(f"{path}: an archive with damage inside ({error}); {COPY_AGAIN}") from error
    if broken is not None:
        raise BadFile(f"{path}: an archive with damage inside ({broken}); {COPY_AGAIN}")
