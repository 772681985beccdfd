"""Whether a submission fits into the queue, and when it will if it does not now.

Who is refused is told when its turn comes, after those who were told before; a bulk submission that was told nothing
waits behind them. So those who come back when they were told find room, and never all at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN_DRAIN_S = 5.0  # nothing finished lately: say little, and be asked again
SHORTEST_S, LONGEST_S = 1.0, 300.0
WINDOW_S = 20.0  # rates change with what is being read, so the latest counts
FEWEST = 20  # ended documents that a rate is measured over, however long ago the first of them ended
MARGIN = 2.0  # standard deviations of a count that is Poisson; a full queue holds enough to do for who comes late
RESERVE = 0.05  # of the places, for small submissions beside a folder that fills the queue
SMALL = 4  # documents
GRACE_S = 5.0  # how long after its time a promise is kept for who does not come


@dataclass(frozen=True, slots=True)
class Promise:
    """Somebody was told to come back at ``due_at`` with so many documents; ``who`` if it said."""

    due_at: float
    documents: int
    who: str = ""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits or runs, what may, when documents ended lately, since when there is always something to do.

    Times are seconds on the clock that ``now`` is on.
    """

    documents: int
    size_bytes: int
    max_documents: int
    max_bytes: int
    finished_at: Sequence[float]
    busy_since: float = -math.inf
    promises: Sequence[Promise] = ()


@dataclass(frozen=True, slots=True)
class Admission:
    """``promises`` are those that stand if the one who asks hears of this decision."""

    admitted: bool
    possible: bool
    retry_after_s: float
    reason: str
    promises: tuple[Promise, ...] = ()


def places(max_documents: int, documents: int) -> int:
    """How many places a submission may help to fill: bulk leaves a reserve, unless it only fits an empty queue."""
    if documents <= SMALL:
        return max_documents
    return max(max_documents - math.floor(max_documents * RESERVE), documents)


def decide(seen: QueueState, documents: int, size_bytes: int, now: float, who: str = "") -> Admission:
    """Admit ``documents`` of ``size_bytes`` together, or say when to come back; impossible if they never fit."""
    if documents > seen.max_documents:
        return Admission(False, False, 0.0, f"{documents} documents; the queue holds {seen.max_documents} at most")
    if size_bytes > seen.max_bytes:
        return Admission(False, False, 0.0, f"{size_bytes} bytes; the queue holds {seen.max_bytes} at most")
    mine, others = _told(seen.promises, documents, now, who)
    ahead = min(sum(one.documents for one in others), seen.max_documents)
    free = places(seen.max_documents, documents) - seen.documents - documents
    enough_bytes = seen.size_bytes + size_bytes <= seen.max_bytes
    in_turn = mine is not None or documents <= SMALL or not seen.documents or free >= ahead
    if free >= 0 and enough_bytes and in_turn:
        return Admission(True, True, 0.0, "there is room", others)
    over = max(1, ahead - free)
    # When bytes are short, count them as documents of the average size that waits.
    if not enough_bytes and seen.documents:
        average = seen.size_bytes / seen.documents
        over = max(over, math.ceil((seen.size_bytes + size_bytes - seen.max_bytes) / max(average, 1.0)))
    wait = drain_s(seen.finished_at, over + MARGIN * math.sqrt(over), now, seen.busy_since)
    retry = min(LONGEST_S, max(SHORTEST_S, UNKNOWN_DRAIN_S if wait is None else wait))
    reason = f"{seen.documents} of {seen.max_documents} places taken"
    if ahead:
        reason += f", {ahead} promised to others"
    return Admission(False, True, retry, reason, (*others, Promise(now + retry, documents, who)))


def _told(
    promises: Sequence[Promise], documents: int, now: float, who: str
) -> tuple[Promise | None, tuple[Promise, ...]]:
    """The promise that the one who asks comes back on, if any, and those of others that still stand.

    Who gives no name is taken for one who was told so of as many documents, and whose time has come.
    """
    standing = [one for one in promises if one.due_at + GRACE_S >= now]
    mine = next(
        (
            one
            for one in standing
            if one.documents == documents and (one.who == who if who else not one.who and one.due_at <= now)
        ),
        None,
    )
    return mine, tuple(one for one in standing if one is not mine)


def lately(finished_at: Sequence[float], now: float) -> tuple[float, ...]:
    """Those of ``finished_at`` that a rate is measured over; of these, the same again."""
    recent = tuple(at for at in finished_at if now - at <= WINDOW_S)
    return recent if len(recent) >= FEWEST else tuple(finished_at)[-FEWEST:]


def drain_s(finished_at: Sequence[float], documents: float, now: float, busy_since: float = -math.inf) -> float | None:
    """Seconds until ``documents`` more have ended, at the rate of the last ``WINDOW_S``; None when nothing is known.

    Time before ``busy_since`` does not count: then there was nothing to do.
    """
    recent = lately(finished_at, now)
    since = max(recent[0], busy_since) if recent else now
    ended = sum(at > since for at in recent)
    return documents * (now - since) / ended if ended else None
