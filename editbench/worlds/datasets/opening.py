"""Opening a data set of any kind: a folder of images, arrays, or one that is packed already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from editbench.base.errors import EditbenchError, no_such
from editbench.base.files import digest
from editbench.worlds.datasets.images import ImageFolder
from editbench.worlds.datasets.mpi3d import ArrayImages
from editbench.worlds.datasets.pack import MAX_BROKEN, pack
from editbench.worlds.datasets.packed import DATASET, Packed
from editbench.worlds.datasets.source import Source


@dataclass(frozen=True)
class Reading:
    """How pictures and labels are read.

    Args:
        labels: of an image folder: a file, or 'folders' for its subfolders; None: none.
        attributes: labels to take; None: all.
        bins: runs that the classes of ordered attributes are joined to; None: as they are.
        cardinalities: values of each MPI3D factor; None: MPI3D's own.
        max_broken: share of unreadable pictures above which the data are refused.
        threads: files decoded at once.
    """

    labels: str | None = None
    attributes: Sequence[str] | None = None
    bins: int | None = None
    cardinalities: Sequence[int] | None = None
    max_broken: float = MAX_BROKEN
    threads: int = 4


def open_source(path: Path, reading: Reading) -> Source:
    """A folder of images, an .npz, or a .yaml that declares one.

    Args:
        path: of the data.
        reading: how they are read.

    Raises:
        EditbenchError: an option does not belong to this kind of data.
        BadFile: the data cannot be read.
    """
    if path.is_dir():
        if reading.cardinalities is not None:
            raise EditbenchError(f"--cardinalities is for an .npz, but {path} is a folder")
        return ImageFolder(path, reading.labels, reading.attributes, reading.bins, reading.threads)
    if path.suffix not in (".npz", ".yaml", ".yml"):
        raise EditbenchError(
            f"{path}: {no_such('folder', path)}, and not an .npz or the .yaml of one; save other "
            "arrays with np.savez(FILE, images=..., labels=...)"
        )
    if reading.labels is not None:
        raise EditbenchError(
            "--labels is for a folder of images; the labels of an .npz are declared in a YAML file"
        )
    if reading.cardinalities is not None and path.suffix != ".npz":
        raise EditbenchError(
            f"--cardinalities is for an .npz, but {path} declares its attributes: leave it out, or "
            "change their classes there"
        )
    return ArrayImages(path, reading.cardinalities)


def open_data(path: Path, reading: Reading, resolution: int | None, cache: Path) -> Packed:
    """Open the data set of a training. One that is not packed is packed first, and described.

    Args:
        path: of the data.
        reading: how they are read; for a packed data set only attributes and bins are used.
        resolution: height and width; None: the data's own.
        cache: folder in which data sets are packed.

    Raises:
        EditbenchError: an option contradicts the packed data set.
        BadFile: a part of the packed data set is missing or was altered.
    """
    if (path / DATASET).exists():
        data = _open_packed(path, reading, resolution)
    else:
        source = open_source(path, reading)
        size = resolution or source.resolution
        # The name holds all that determines the content, so that a second training finds it.
        key = digest([source.identity, size])
        folder = cache / "datasets" / f"{path.resolve().stem}-{key}"
        data = pack(source, folder, size, reading.max_broken)
        print(f"data: {data.folder}, {describe(data)}")
    # A training reads every picture many times; this reads each once.
    data.verify()
    if data.attributes is None:
        if (reading.attributes, reading.bins) != (None, None):
            raise EditbenchError(
                f"{data.folder} has no labels, among which --attributes and --bins choose: leave "
                "them out, or pack the data again with --labels"
            )
        return data
    # A data set is packed with all labels, and each training selects its own.
    return data.select(reading.attributes, reading.bins)


def _open_packed(path: Path, reading: Reading, resolution: int | None) -> Packed:
    if reading.labels is not None or reading.cardinalities is not None:
        raise EditbenchError(
            f"{path} is already packed with its labels: leave out --labels and "
            "--cardinalities, or pack it again"
        )
    data = Packed(path)
    if resolution not in (None, data.resolution):
        raise EditbenchError(
            f"{path} is packed at {data.resolution} pixels, not {resolution}: leave out "
            "--resolution, or pack it again"
        )
    return data


def describe(data: Packed) -> str:
    """Number and size of the pictures, and what was found and left out, in a line."""
    counts = ", ".join(f"{count} {what}" for what, count in data.counts.items() if count)
    return f"{data.n} pictures of {data.resolution} x {data.resolution} ({counts})"
