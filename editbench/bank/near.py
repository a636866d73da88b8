"""When starts count as near their boundary. The report says it too, and needs no torch for it."""

from __future__ import annotations

from collections.abc import Mapping

NEARBY = 0.5  # sigma; starts whose median distance is larger are not near their boundary


def far_starts(distances: Mapping[str, float], near: str) -> str:
    """A warning where starts that were asked to be near lie far from their boundary; else ''.

    Args:
        distances: of `Starts.distances`.
        near: the rule of the draw; near='any' asks for no nearness.
    """
    own = distances.get("target")
    if near == "any" or own is None or own <= NEARBY:
        return ""
    return (
        f"half of the starts lie more than {own:.2f} sigma from the target's boundary, where "
        f"{NEARBY} counts as near: lower starts.pool, raise bank.n, or set starts.near=target"
    )
