"""Counter-based random numbers: item i of a stream depends only on (seed, stream, i).

A Philox counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is advanced
to item i, so the result is the same for any split into batches, shards, workers or devices. All
numbers are drawn on the host in float64. Normals use the inverse CDF with one scalar call per
element, since vectorised functions may round the last elements of an array differently.
"""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.special import ndtri

WORDS_PER_COUNTER = 4  # Philox4x64 yields four 64-bit words per counter
LARGEST = 1 - 2.0**-53  # the largest float64 below 1


def stream_key(seed: int, stream: str) -> int:
    """128-bit Philox key of a named stream; streams with different names are independent.

    Args:
        seed: common to all streams.
        stream: name of the stream; it and the seed are hashed together (SHA-256).
    """
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    # The byte order is fixed, so that the key is the same on every machine.
    return int.from_bytes(digest[:16], "little")


def uniforms(seed: int, stream: str, start: int, stop: int, width: int) -> np.ndarray:
    """Draw uniforms in (0, 1) for items start..stop-1.

    Args:
        seed: common to all streams.
        stream: name of the stream.
        start: first item.
        stop: last item + 1.
        width: numbers per item.

    Returns:
        (stop - start, width) float64.

    Raises:
        ValueError: unless 0 <= start <= stop.
    """
    if not 0 <= start <= stop:
        raise ValueError(f"need 0 <= start <= stop, got start={start}, stop={stop}")
    # Every item begins at a new counter; the remaining words of the last counter are unused.
    counters = -(-width // WORDS_PER_COUNTER)
    bits = np.random.Philox(key=stream_key(seed, stream))
    bits.advance(start * counters)
    raw = bits.random_raw((stop - start) * counters * WORDS_PER_COUNTER)
    raw = raw.reshape(stop - start, counters * WORDS_PER_COUNTER)[:, :width]
    return _open_interval(raw)


def _open_interval(words: np.ndarray) -> np.ndarray:
    """Convert 64-bit words to float64 in (0, 1), excluding the ends, where ndtri is infinite."""
    # A float64 holds the upper 53 bits. The half step excludes 0.
    values = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    # The largest value would round to 1.
    return np.minimum(values, LARGEST)


def normals(seed: int, stream: str, start: int, stop: int, width: int) -> np.ndarray:
    """Draw standard normals for items start..stop-1, by the inverse CDF of `uniforms`.

    Args:
        seed: common to all streams.
        stream: name of the stream.
        start: first item.
        stop: last item + 1.
        width: numbers per item.

    Returns:
        (stop - start, width) float64.

    Raises:
        ValueError: unless 0 <= start <= stop.
    """
    return ndtri(uniforms(seed, stream, start, stop, width))


def rng(seed: int, *names: object) -> np.random.Generator:
    """A NumPy random number generator for one named purpose.

    Args:
        seed: of the run.
        names: the purpose, such as a draw of starts or a bootstrap; they form the stream's name.
    """
    # Not NumPy's global generator, whose state depends on draws elsewhere in the program.
    stream = "/".join(map(str, names))
    return np.random.Generator(np.random.Philox(key=stream_key(seed, stream)))
