"""Writing a converted generator, with a check that the file decodes to the same images."""

from __future__ import annotations

from pathlib import Path

import torch

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import explain_disk_errors, file_sha256, partial_path
from editbench.base.identity import tensors_digest
from editbench.base.seeding import normals
from editbench.networks.checkpoints.assemble import CheckpointContent, classes_in_turn
from editbench.networks.stylegan import CHECKSUM, ORIGIN, StyleNetwork
from editbench.networks.weights import save_tensors

# Number of images; enough for statistics, and decoded in about a second.
PROBES = 4


@torch.no_grad()
def decode_probes(network: StyleNetwork) -> torch.Tensor:
    """Images of PROBES fixed z; for a conditional network, of its first classes."""
    config = network.config
    z = torch.from_numpy(normals(0, "probe", 0, PROBES, config.z_dim)).float()
    return network(z, label=classes_in_turn(PROBES, config.c_dim))


def check_pictures(images: torch.Tensor, path: Path) -> None:
    """Check that images of a network are finite.

    The weights have been checked to be finite, but products of them can overflow.

    Args:
        images: (n, C, H, W), see `decode_probes`.
        path: of the checkpoint, for the message.

    Raises:
        BadFile: an image has NaN or infinity.
    """
    if not torch.isfinite(images).all():
        raise BadFile(
            f"{path}: its images contain NaN or infinity: the weights are unusable, nothing is "
            "written; copy the file again"
        )


def write_network(
    out: Path, source: CheckpointContent, network: StyleNetwork, images: torch.Tensor
) -> None:
    """Write a network, read it back, compare decoded images, and only then rename the file.

    Args:
        out: the safetensors file; an existing one is replaced.
        source: of the weights, for the header.
        network: that `assemble` made of the source.
        images: of the network, from `decode_probes`.

    Raises:
        EditbenchError: the written file decodes to other images.
        CannotWrite: the disk is full, the file too large, or a permission is missing.
    """
    # The header has the origin of the weights, for records.
    state = dict(network.state_dict())
    header = network.config.as_dict() | {
        CHECKSUM: tensors_digest(state, network.config.as_dict()),
        ORIGIN: {
            "file": source.path.name,
            "format": source.format,
            "sha256": file_sha256(source.path),
        },
    }
    partial = partial_path(out)
    with explain_disk_errors(out):
        try:
            save_tensors(partial, state, network.kind, header)
            # The same weights give exactly the same images on the same machine.
            if not torch.equal(decode_probes(type(network).from_file(partial)), images):
                raise EditbenchError(
                    f"{out}: the file does not decode as the network that was written; the disk or "
                    "the memory is faulty, nothing was kept"
                )
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
