"""Compares our network with reference outputs ("golden" files) of the original authors' code.

A golden .npz has z (N, z_dim) and any of: w or ws; ws_trunc07 (psi 0.7); style:LAYER (N, channels),
the raw output of an affine map; c (N, c_dim), labels; images img_const (constant noise), img_none
(no noise) and img_trunc07_const, or for StyleGAN3 img and img_trunc07.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import Tensor

from editbench.base.errors import BadFile
from editbench.networks.stylegan import StyleNetwork
from editbench.networks.stylegan2.network import StyleGAN2
from editbench.networks.stylegan3.network import StyleGAN3

LARGEST = 1 << 30  # maximum bytes of all arrays; 16 images of 1024 x 1024 have 0.2 GiB
BOUND = 1e-4  # largest accepted difference, in standard deviations of the golden
# The truncation psi of the published goldens.
PSI = 0.7
STYLE = "style:"
LAYER = re.compile(r"b(\d+)\.(conv0|conv1|torgb)")
# Their name of a layer -> ours; {} is the size of the block.
OURS = {"conv0": "conv{}_up", "conv1": "conv{}", "torgb": "rgb{}"}


@dataclass(frozen=True)
class ParityRow:
    """The comparison of one tensor.

    Attributes:
        name: of the tensor.
        shape: of the tensor.
        std: standard deviation of the golden.
        error: largest difference, in units of `std`.
    """

    name: str
    shape: tuple[int, ...]
    std: float
    error: float

    @property
    def good(self) -> bool:
        return self.error <= BOUND


def _check_members(path: Path) -> None:
    """Reject a file whose arrays would need far more memory than its size.

    NumPy allocates the size in an array's header before it reads any data, and unpacks compressed
    members of any size.
    """
    total = 0
    with ZipFile(path) as archive:
        for info in archive.infolist():
            total += info.file_size
            if total > LARGEST:
                raise BadFile(f"{path}: its arrays have more than {LARGEST:,} bytes")
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read_header = np.lib.format.read_array_header_2_0
                if version == (1, 0):
                    read_header = np.lib.format.read_array_header_1_0
                shape, _, dtype = read_header(member)
            declared = math.prod(shape) * dtype.itemsize
            if declared > info.file_size:
                raise BadFile(
                    f"{path}: '{info.filename}' declares {declared:,} bytes and has "
                    f"{info.file_size:,}; it is damaged"
                )


def read_golden(path: Path | str) -> dict[str, Tensor]:
    """The arrays of a golden file, as float32 tensors by name.

    Args:
        path: an .npz file with 'z' and others of the names above.

    Raises:
        BadFile: it is not such a file, has Python objects, or would need too much memory.
    """
    try:
        _check_members(Path(path))
        with np.load(path, allow_pickle=False) as file:
            golden = {name: torch.from_numpy(file[name]).float() for name in file.files}
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        KeyError,
        MemoryError,
        NotImplementedError,
        RuntimeError,
        BadZipFile,
        zlib.error,
    ) as error:
        # For pickles, NumPy's own message advises to allow them.
        reason = "it holds Python objects" if "pickle" in str(error) else str(error)
        raise BadFile(
            f"{path}: not an .npz of arrays ({reason}); see docs/checkpoints.md for its names"
        ) from error
    if "z" not in golden:
        raise BadFile(f"{path}: has no 'z' to decode; it holds {', '.join(sorted(golden))}")
    return golden


@torch.no_grad()
def parity(network: StyleNetwork, golden: Mapping[str, Tensor]) -> list[ParityRow]:
    """Compare all tensors of a golden that the network has too; one row each.

    Args:
        network: converted, in float32.
        golden: from `read_golden`.

    Raises:
        BadFile: the codes or a compared tensor have the wrong shape for the network.
    """
    config = network.config
    z = golden["z"]
    # An empty c (N, 0) means an unconditional network.
    label = golden["c"] if "c" in golden and golden["c"].numel() else z.new_zeros(len(z), 0)
    if tuple(z.shape[1:]) != (config.z_dim,) or tuple(label.shape) != (len(z), config.c_dim):
        raise BadFile(
            f"the golden is of another network: z {tuple(z.shape)} and labels c "
            f"{tuple(label.shape)}, expected (N, {config.z_dim}) and (N, {config.c_dim})"
        )
    w = network.mapping(z, label)
    synthesis = network.synthesis
    truncated = network.truncate(w, PSI)

    def rows_of(w: Tensor) -> Tensor:
        return w.unsqueeze(1).expand(-1, config.num_ws, -1)

    styles = synthesis.styles(rows_of(w))
    found = {
        "w": w,
        "ws": rows_of(w),
        "ws_trunc07": rows_of(truncated),
        "latent_avg": network.mapping.w_avg.reshape(1, -1),
    }
    # The names of images differ, since StyleGAN3 has no noise.
    image = synthesis(styles)
    image_truncated = synthesis(synthesis.styles(rows_of(truncated)))
    if isinstance(network, StyleGAN2):
        found |= {"img_const": image, "img_trunc07_const": image_truncated}
        found["img_none"] = network.synthesis(styles, noise=False)
    else:
        found |= {"img": image, "img_trunc07": image_truncated}
    # Goldens have styles by layer; ours are a list.
    by_name = dict(zip(synthesis.layers, styles))
    for name in golden:
        ours = _our_layer(network, name.removeprefix(STYLE)) if name.startswith(STYLE) else ""
        if ours in by_name:
            found[name] = by_name[ours]
    return [compare(name, found[name], value) for name, value in golden.items() if name in found]


def _our_layer(network: StyleNetwork, theirs: str) -> str:
    """Our name for a layer of the authors' code, 'b4.conv1' or 'L0_36_1024'; '' if there is none."""
    if isinstance(network, StyleGAN3):
        names = {design.published: design.name for design in network.config.layers()}
        return names.get(theirs, "")
    match = LAYER.fullmatch(theirs)
    return OURS[match[2]].format(match[1]) if match else ""


def not_compared(rows: list[ParityRow], golden: Mapping[str, Tensor]) -> list[str]:
    """Names of a golden's tensors that were not compared, sorted; its inputs z and c do not count.

    Args:
        rows: from `parity`.
        golden: that was compared.
    """
    # z and c are what the network is given.
    return sorted(set(golden) - {row.name for row in rows} - {"z", "c"})


def compare(name: str, ours: Tensor, golden: Tensor) -> ParityRow:
    """Compare a tensor of ours with that of a golden.

    Args:
        name: in the golden.
        ours: of the network.
        golden: of the same shape.

    Raises:
        BadFile: the shapes differ.
    """
    if ours.shape != golden.shape:
        raise BadFile(
            f"the golden '{name}' has shape {tuple(golden.shape)}, but the network returns "
            f"{tuple(ours.shape)}"
        )
    # In units of the tensor's standard deviation, so that one bound applies to all tensors.
    std = golden.double().std().item()
    gap = (ours.double() - golden.double()).abs().max().item()
    error = 0.0
    if gap != 0:  # also NaN, which must not count as equal
        error = gap / std if std > 0 else math.inf
    return ParityRow(name, tuple(golden.shape), std, error)
