"""Comparison of two runs folders: the numbers of both side by side, with their differences."""

from __future__ import annotations

from editbench.studies.side_by_side.differences import SideBySide, side_by_side
from editbench.studies.side_by_side.write import print_side_by_side, write_side_by_side

__all__ = ["SideBySide", "print_side_by_side", "side_by_side", "write_side_by_side"]
