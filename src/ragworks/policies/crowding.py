"""When somebody whom a full server sent away should come back: so many questions at once, and the rest waits outside.

A queue in front of a server that is full helps nobody: whoever waits in it would have been answered sooner by coming
back later, and the health check waits with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragworks.policies.admission import drain_s

SHORTEST_S, LONGEST_S = 1.0, 60.0
UNKNOWN_S = 5.0  # nothing was answered since the crowd came: say little, and be asked again


@dataclass(frozen=True, slots=True)
class Crowd:
    """``inside`` are being answered, as many as may be; ``told`` were sent away and are not yet to be back.

    ``answered_at`` is when the latest answers ended, ``since`` when the crowd came: before, answers were as many as
    questions, and say nothing of how many there could have been. Both in seconds on the clock that ``now`` is on.
    """

    inside: int
    told: int
    answered_at: Sequence[float]
    since: float


@dataclass(frozen=True, slots=True)
class Turn:
    retry_after_s: float
    reason: str


def turn(seen: Crowd, now: float) -> Turn:
    """Each answer makes a place for one of those who were told to come back, and this one is the last of them."""
    place_s = drain_s(seen.answered_at, seen.told + 1, now, seen.since)
    if place_s is None:
        speed, place_s = "none was answered since then", UNKNOWN_S
    else:
        speed = f"{(seen.told + 1) / max(place_s, 1e-9):.3g} are answered a second"
    reason = f"{seen.inside} questions are being answered, as many as may be at once"
    if seen.told:
        reason += f", and {seen.told} were told to come back"
    return Turn(min(LONGEST_S, max(SHORTEST_S, place_s)), f"{reason}; {speed}")
