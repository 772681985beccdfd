"""Whether a submission fits into the queue, and when it will if it does not now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN_DRAIN_S = 5.0  # nothing finished lately: say little, and be asked again
SHORTEST_S, LONGEST_S = 1.0, 300.0
WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits or runs, what may, and when documents ended lately (seconds on the clock that ``now`` is on)."""

    documents: int
    size_bytes: int
    max_documents: int
    max_bytes: int
    finished_at: Sequence[float]


@dataclass(frozen=True, slots=True)
class Admission:
    admitted: bool
    possible: bool
    retry_after_s: float
    reason: str


def decide(seen: QueueState, documents: int, size_bytes: int, now: float) -> Admission:
    """Admit ``documents`` of ``size_bytes`` together, or say when to come back; impossible if they never fit."""
    if documents > seen.max_documents:
        return Admission(False, False, 0.0, f"{documents} documents; the queue holds {seen.max_documents} at most")
    if size_bytes > seen.max_bytes:
        return Admission(False, False, 0.0, f"{size_bytes} bytes; the queue holds {seen.max_bytes} at most")
    over = seen.documents + documents - seen.max_documents
    if over <= 0 and seen.size_bytes + size_bytes <= seen.max_bytes:
        return Admission(True, True, 0.0, "there is room")
    # When bytes are short, count them as documents of the average size that waits.
    if seen.size_bytes + size_bytes > seen.max_bytes and seen.documents:
        average = seen.size_bytes / seen.documents
        over = max(over, math.ceil((seen.size_bytes + size_bytes - seen.max_bytes) / max(average, 1.0)))
    wait = drain_s(seen.finished_at, over, now)
    retry = min(LONGEST_S, max(SHORTEST_S, wait if wait is not None else UNKNOWN_DRAIN_S))
    return Admission(False, True, retry, f"{seen.documents} of {seen.max_documents} places taken")


def drain_s(finished_at: Sequence[float], documents: int, now: float) -> float | None:
    """Seconds until ``documents`` more have ended, at the rate of the last minute; None when nothing is known."""
    recent = [at for at in finished_at if now - at <= WINDOW_S]
    if len(recent) < 2:
        return None
    spent = max(now - recent[0], 1e-3)
    return documents * spent / len(recent)
