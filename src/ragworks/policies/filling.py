"""How many of the waiting texts go into one request of an endpoint."""

from __future__ import annotations

from collections.abc import Iterable


def fill(sizes: Iterable[int], max_texts: int, max_bytes: int) -> int:
    """Texts from the front of the line that fit together; a text that is over the limit alone goes alone.

    Nothing waits: 0. One text waits: 1, so that nothing is held back to fill a request.
    """
    taken, total = 0, 0
    for size in sizes:
        total += size
        if taken == max_texts or (taken and total > max_bytes):
            break
        taken += 1
    return taken
