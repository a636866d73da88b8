"""What packing reads from: items in a fixed order, some of which may turn out broken."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np

from editbench.base.attributes import Attributes


@dataclass
class Block:
    """Pictures of a range of items.

    Args:
        pixels: (m, R, R, 3) uint8.
        kept: (m,) int64, their indices in the source.
        problems: (name, reason) of those left out, as `printable` text.
        enlarged: how many were smaller than R.
    """

    pixels: np.ndarray
    kept: np.ndarray
    problems: list[tuple[str, str]]
    enlarged: int


class Source(abc.ABC):
    """An ordered data set that can be read once, front to back, in blocks of any size.

    Attributes:
        identity: JSON-able; equal for the same items in the same order with the same labels.
        attributes: None where it has no labels.
        resolution: its own, or None where pictures differ in size.
        counts: what was found, for the report.
        problems: (name, reason) known before a picture is read, as `printable` text.
    """

    identity: dict
    attributes: Attributes | None
    resolution: int | None
    counts: dict[str, int]
    problems: list[tuple[str, str]]

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def labels(self) -> np.ndarray | None:
        """(n, A) int64 class indices."""

    @abc.abstractmethod
    def read(self, start: int, stop: int, resolution: int) -> Block:
        """Read a range of items; later calls read later ranges.

        Args:
            start: first item.
            stop: item after the last.
            resolution: R, height and width to which the pictures are cropped and resized.

        Returns:
            The pictures. Items that cannot be read are named in it and left out.
        """
