"""Counter-based randomness: item i of a stream depends on (seed, stream, i) alone.

A Philox counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is advanced
to item i, so any split of the indices over batches, shards, workers or devices draws the same bits.
Everything is drawn on the host in float64. Normals use the inverse CDF, one scalar call an element,
because vectorised transcendental functions may round the tail of an array differently from its body.
"""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.special import ndtri

WORDS_PER_COUNTER = 4  # Philox4x64 yields four 64-bit words a counter
LARGEST = 1 - 2.0**-53  # the largest float64 below 1


def stream_key(seed: int, stream: str) -> int:
    """128-bit Philox key of a named stream: streams with different names are independent."""
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    # The byte order is fixed, so that every machine has the same key.
    return int.from_bytes(digest[:16], "little")


def uniforms(seed: int, stream: str, start: int, stop: int, width: int) -> np.ndarray:
    """Draw uniforms in (0, 1) for items start..stop-1.

    Args:
        seed: of all streams together.
        stream: name of the stream.
        start: first item.
        stop: last item + 1.
        width: numbers an item.

    Returns:
        (stop - start, width) float64.

    Raises:
        ValueError: not 0 <= start <= stop.
    """
    if not 0 <= start <= stop:
        raise ValueError(f"need 0 <= start <= stop, got start={start}, stop={stop}")
    # Every item begins with a counter of its own; words beyond its width are not used.
    counters = -(-width // WORDS_PER_COUNTER)
    bits = np.random.Philox(key=stream_key(seed, stream))
    bits.advance(start * counters)
    raw = bits.random_raw((stop - start) * counters * WORDS_PER_COUNTER)
    raw = raw.reshape(stop - start, counters * WORDS_PER_COUNTER)[:, :width]
    return _open_interval(raw)


def _open_interval(words: np.ndarray) -> np.ndarray:
    """64-bit words as float64 numbers in (0, 1), without the ends, where ndtri is infinite."""
    # The upper 53 bits, as many as a float64 holds. The half step keeps 0 out.
    values = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    # The largest word's half step rounds up to 1.
    return np.minimum(values, LARGEST)


def normals(seed: int, stream: str, start: int, stop: int, width: int) -> np.ndarray:
    """Draw standard normals for items start..stop-1: (stop - start, width) float64.

    The arguments are those of `uniforms`.
    """
    return ndtri(uniforms(seed, stream, start, stop, width))


def rng(seed: int, *names: object) -> np.random.Generator:
    """A NumPy random number generator for one named purpose.

    Args:
        seed: of the run.
        names: the purpose, such as a draw of starts or a bootstrap; joined to the stream's name.
    """
    # Never NumPy's global seed: a draw elsewhere in the program would then change this one.
    stream = "/".join(map(str, names))
    return np.random.Generator(np.random.Philox(key=stream_key(seed, stream)))
