"""MPI3D-style arrays as a data set: an .npz with `images` uint8 and factors, read as a stream.

MPI3D (Gondal et al. 2019) has all combinations of its factors in row-major order, the last factor
fastest, so image i has the labels np.unravel_index(i, cardinalities). Other arrays are declared
by a YAML file:

    arrays: shapes3d.npz          # beside the YAML file, or an absolute path
    images: images                # (n, H, W), (n, H, W, 1) or (n, H, W, 3), uint8
    labels: labels                # (n, k); without it, factors in row-major order
    attributes:                   # k of them
      - {name: shape, classes: [cube, cylinder, sphere, pill]}
      - {name: scale, classes: 8, ordered: true}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from editbench.base.attributes import Attribute, Attributes
from editbench.base.conf import read_yaml
from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.worlds.datasets.images import fit_picture
from editbench.worlds.datasets.npz import Member, members
from editbench.worlds.datasets.source import Block, Source
from editbench.worlds.datasets.vocabulary import MISSING, UNSPECIFIED, is_signed, keep_labelled

NAMES = (
    "object_color",
    "object_shape",
    "object_size",
    "camera_height",
    "background_color",
    "horizontal_axis",
    "vertical_axis",
)
# Those of mpi3d_toy, mpi3d_realistic and mpi3d_real: 1,036,800 images.
CARDINALITIES = (6, 6, 2, 3, 3, 40, 40)
# Factors whose neighbouring values look alike.
ORDERED = ("object_size", "camera_height", "horizontal_axis", "vertical_axis")
CLASSES = {
    "object_color": ("white", "green", "red", "blue", "brown", "olive"),
    "object_shape": ("cone", "cube", "cylinder", "hexagonal", "pyramid", "sphere"),
    "object_size": ("small", "large"),
    "camera_height": ("top", "center", "bottom"),
    "background_color": ("purple", "sea_green", "salmon"),
}
# Published beside the toy set, with four shapes and four colours.
COMPLEX = (4, 4, 2, 3, 3, 40, 40)  # mpi3d_real_complex, everyday objects
COMPLEX_CLASSES = CLASSES | {
    "object_color": ("yellow", "green", "olive", "red"),
    "object_shape": ("coffee_cup", "tennis_ball", "croissant", "beer_cup"),
}
KEYS = ("arrays", "images", "labels", "attributes")
LABEL_BYTES = 1 << 30  # labels are held in memory
MOST_CLASSES = 10_000  # of a factor: no typing error fills the memory with names
FACTOR_KEYS = ("labels", "factors")


def row_major_labels(start: int, stop: int, cardinalities: Sequence[int]) -> np.ndarray:
    """Factor values of items of a full grid, the last factor fastest.

    Args:
        start: first item.
        stop: last item, plus 1.
        cardinalities: of the k factors.

    Returns:
        (stop - start, k) int64.
    """
    return np.stack(np.unravel_index(np.arange(start, stop), tuple(cardinalities)), 1)


def mpi3d_factors(cardinalities: Sequence[int]) -> list[tuple[str, tuple[str, ...], bool]]:
    """(name, class names, ordered) of MPI3D's seven factors.

    Classes of other cardinalities than MPI3D's get numbers for names.
    """
    fits = len(cardinalities) == len(NAMES)
    if not fits or min(cardinalities) < 1 or max(cardinalities) > MOST_CLASSES:
        names = ", ".join(NAMES)
        raise EditbenchError(
            f"--cardinalities must be {len(NAMES)} numbers from 1 to {MOST_CLASSES} ({names}), "
            f"got {list(cardinalities)}; other factors are declared in a YAML file"
        )
    known = COMPLEX_CLASSES if tuple(cardinalities) == COMPLEX else CLASSES
    factors = []
    for name, k in zip(NAMES, cardinalities):
        classes = tuple(map(str, range(k)))
        if k == len(known.get(name, ())):
            classes = known[name]
        factors.append((name, classes, name in ORDERED))
    return factors


class ArrayImages(Source):
    """Images of an .npz with their factors, read one after the other.

    Args:
        path: an `.npz` of MPI3D, or a `.yaml` that declares one (see the module).
        cardinalities: of an .npz with fewer values a factor than MPI3D; None finds MPI3D's own by
            the number of images.

    Raises:
        BadFile: not such a file; a shape that does not fit its factors; a size that is not that
            of its shape.
    """

    def __init__(self, path: Path, cardinalities: Sequence[int] | None = None) -> None:
        # Without a YAML file the array must be MPI3D's.
        declared = _declaration(path) if path.suffix in (".yaml", ".yml") else {}
        self.path = Path(declared.get("arrays", path))
        found = members(self.path)
        self.member = Member(self.path, declared.get("images", "images"), found)
        shape = self.member.shape
        greys = len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)
        colours = len(shape) == 4 and shape[3] == 3
        if self.member.dtype != np.uint8 or not (greys or colours):
            raise BadFile(
                f"{self.path}: '{self.member.key}' is {self.member.dtype} {shape}; images must be "
                "uint8 (n, height, width, 3), or with 1 or no channel"
            )
        if min(shape) < 1:
            raise BadFile(f"{self.path}: '{self.member.key}' of shape {shape} is empty")
        self.n, self.height, self.width = shape[:3]
        self.resolution = min(self.height, self.width)
        if declared:
            factors = [_factor(path, entry) for entry in declared["attributes"]]
            key = declared.get("labels")
        else:
            key = None
            if cardinalities is None:
                key = next((name for name in FACTOR_KEYS if name in found), None)
            # Labels in an unknown order must not be taken for a full grid.
            if key is not None:
                raise BadFile(
                    f"{path}: has labels ('{key}'), whose names and classes a YAML file has to "
                    "declare: see docs/datasets.md; or give --cardinalities to read it as MPI3D"
                )
            factors = mpi3d_factors(cardinalities or self._known())
        self._labels = self._read_labels(key, found, factors) if key else self._grid(factors)
        # A factor of one value is no attribute.
        vary = [i for i, (_, classes, _) in enumerate(factors) if len(classes) > 1]
        if not vary:
            raise BadFile(f"{path}: none of its factors has two values")
        self._labels = self._labels[:, vary]
        self.attributes = Attributes([Attribute(*factors[i]) for i in vary])
        # Size and time identify the content, since a hash of gigabytes would take minutes.
        about = self.path.stat()
        self.identity = {
            "kind": "arrays",
            "size": about.st_size,
            "time": about.st_mtime_ns,
            "key": self.member.key,
            "labels": key,
            "classes": self.attributes.as_config(),
        }
        # Images with only some of the labels are left out, since the losses need all of them.
        self._kept, counts, self.problems = keep_labelled(
            lambda i: f"image {i}", self.attributes, self._labels
        )
        self.counts = {"images": self.n} | counts

    def _known(self) -> Sequence[int]:
        for known in (CARDINALITIES, COMPLEX):
            if self.n == math.prod(known):
                return known
        raise BadFile(
            f"{self.path}: {self.n} images, but MPI3D has {math.prod(CARDINALITIES)} or "
            f"{math.prod(COMPLEX)}: give --cardinalities, or declare its factors in a YAML file "
            "(docs/datasets.md)"
        )

    def _grid(self, factors: list[tuple[str, tuple[str, ...], bool]]) -> np.ndarray:
        sizes = [len(classes) for _, classes, _ in factors]
        if math.prod(sizes) != self.n:
            grid = " x ".join(map(str, sizes))
            raise BadFile(
                f"{self.path}: {self.n} images, but {grid} factors make "
                f"{math.prod(sizes)}; correct the cardinalities, or name the array of labels"
            )
        return row_major_labels(0, self.n, sizes)

    def _read_labels(
        self, key: str, found: list[str], factors: list[tuple[str, tuple[str, ...], bool]]
    ) -> np.ndarray:
        member = Member(self.path, key, found)
        # Kinds of NumPy: signed, unsigned, floating point, boolean.
        if member.shape != (self.n, len(factors)) or member.dtype.kind not in "iufb":
            raise BadFile(
                f"{self.path}: '{key}' is {member.dtype} {member.shape}, but labels of {self.n} "
                f"images and {len(factors)} attributes are ({self.n}, {len(factors)}) numbers"
            )
        size = self.n * member.row_bytes
        if size > LABEL_BYTES:
            raise BadFile(f"{self.path}: '{key}' takes {size} bytes, more than {LABEL_BYTES}")
        values = member.take(self.n)
        columns = []
        for i, (name, classes, _) in enumerate(factors):
            columns.append(self._indices(key, values[:, i], name, len(classes)))
        return np.stack(columns, 1)

    def _indices(self, key: str, values: np.ndarray, name: str, classes: int) -> np.ndarray:
        """Class indices as they are; other values (angles, hues) by their rank.

        NaN is MISSING, and 0 beside -1 is UNSPECIFIED, as in lists and tables.
        """
        if np.isinf(values).any():
            raise BadFile(f"{self.path}: '{key}' has infinity under '{name}'")
        labels = np.full(len(values), MISSING, np.int64)
        known = ~np.isnan(values)
        if classes == 2 and is_signed(np.unique(values[known]).tolist()):
            labels[known] = UNSPECIFIED
            known &= values != 0
        distinct, ranks = np.unique(values[known], return_inverse=True)
        if not len(distinct):
            raise BadFile(f"{self.path}: '{key}' has no label under '{name}'")
        # Whole numbers below K are taken as they are, even where some class has no image.
        if distinct[0] >= 0 and distinct[-1] < classes and (distinct == np.round(distinct)).all():
            labels[known] = values[known].astype(np.int64)
            return labels
        if len(distinct) != classes:
            raise BadFile(
                f"{self.path}: '{name}' has {len(distinct)} different values from {distinct[0]:g} "
                f"to {distinct[-1]:g} in '{key}', but {classes} classes are declared"
            )
        labels[known] = ranks
        return labels

    def __len__(self) -> int:
        return self.n

    def labels(self) -> np.ndarray:
        return self._labels

    def read(self, start: int, stop: int, resolution: int) -> Block:
        """Images start..stop-1, which come after those of the last call."""
        self.member.skip_to(start)
        pixels = self.member.take(stop - start).reshape(stop - start, self.height, self.width, -1)
        kept = start + np.flatnonzero(self._kept[start:stop])
        pixels = pixels[kept - start]
        # Greys get three equal channels.
        pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
        if (self.height, self.width) != (resolution, resolution):
            # Resized with the same filter as image files.
            fitted = []
            for picture in pixels:
                image = Image.fromarray(np.ascontiguousarray(picture))
                fitted.append(fit_picture(image, resolution))
            pixels = np.array(fitted, np.uint8).reshape(len(kept), resolution, resolution, 3)
        small = len(kept) if min(self.height, self.width) < resolution else 0
        return Block(pixels, kept, [], small)


def _declaration(path: Path) -> dict[str, Any]:
    """The YAML file that declares arrays, with the path of the .npz made whole."""
    declared = read_yaml(path)
    if "arrays" not in declared or not isinstance(declared.get("attributes"), list):
        raise BadFile(
            f"{path}: needs 'arrays' (an .npz) and 'attributes' (a list of name and classes)"
        )
    # A misspelt `labels` would read a file of labels as a full grid.
    for key in declared:
        if key not in KEYS:
            raise UnknownName(f"key of {path.name}", str(key), KEYS)
    return declared | {"arrays": path.parent / str(declared["arrays"])}


def _factor(path: Path, entry: Any) -> tuple[str, tuple[str, ...], bool]:
    """(name, class names, ordered) of one entry of the YAML file."""
    required = {"name", "classes"}
    if not isinstance(entry, dict) or not required <= set(entry) <= required | {"ordered"}:
        raise BadFile(f"{path}: an attribute must be {{name, classes, ordered}}, got {entry}")
    classes = entry["classes"]
    # YAML's true is an int in Python.
    if isinstance(classes, int) and not isinstance(classes, bool) and 1 <= classes <= MOST_CLASSES:
        classes = range(classes)
    if not isinstance(classes, list | range) or len(classes) < 1:
        raise BadFile(
            f"{path}: classes of '{entry['name']}' must be a number up to {MOST_CLASSES} or a list "
            f"of names, got {entry['classes']}"
        )
    if len({str(label) for label in classes}) < len(classes):
        raise BadFile(
            f"{path}: classes of '{entry['name']}' must be different names, got {classes}"
        )
    # Any text counts as true.
    ordered = entry.get("ordered", False)
    if not isinstance(ordered, bool):
        raise BadFile(
            f"{path}: 'ordered' of '{entry['name']}' must be true or false, without quotes; got "
            f"{ordered!r}"
        )
    return str(entry["name"]), tuple(map(str, classes)), ordered
