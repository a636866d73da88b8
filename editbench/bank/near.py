"""When starts count as near their boundary. Separate, so that the report need not import torch."""

from __future__ import annotations

from collections.abc import Mapping

NEARBY = 0.5  # sigma; starts whose median distance is larger are not near their boundary


def far_starts(distances: Mapping[str, float], near: str) -> str:
    """A warning if starts that should be near their boundary lie far from it; otherwise ''.

    Args:
        distances: from `Starts.distances`.
        near: the rule of the draw; 'any' does not require starts to be near.
    """
    own = distances.get("target")
    if near == "any" or own is None or own <= NEARBY:
        return ""
    return (
        f"half of the starts lie more than {own:.2f} sigma from the target's boundary, where "
        f"{NEARBY} counts as near: lower starts.pool, raise bank.n, or set starts.near=target"
    )
