"""Which call a replica with a free slot takes over from another's queue (work stealing; Blumofe and Leiserson, 1999).

A call goes to the replica that is expected to answer first, and stays in its queue. When a replica comes, or another
turns out to be faster than was thought, what was expected no longer holds for those who still wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StealSettings:
    """Calls that wait no longer than ``wait_s`` stay: the way to another process and back costs milliseconds."""

    wait_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Queue:
    """One replica's queue, by the newest call in it that may be moved: sent ``age_s`` ago, and expected to wait
    ``wait_s`` from now on for one of the replica's slots."""

    replica_id: str
    wait_s: float
    age_s: float


@dataclass(frozen=True, slots=True)
class Steal:
    """Whose newest call is taken over; None leaves all where they are."""

    replica_id: str | None
    reason: str


def choose(settings: StealSettings, queues: Sequence[Queue]) -> Steal:
    """The longest wait. No queues, or none that is worth it: None.

    A replica may work on several calls of its queue at once, as one that gathers batches does, and what it did of a
    call is lost with the move. So a call is moved only while it has waited for less than it would have to.
    """
    worth = [one for one in queues if one.wait_s > max(settings.wait_s, one.age_s)]
    if not worth:
        return Steal(None, "nothing waits for long enough")
    longest = max(worth, key=lambda one: one.wait_s)
    return Steal(longest.replica_id, f"it would have waited {longest.wait_s:.2g} s more at {longest.replica_id}")
