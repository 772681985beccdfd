"""Whether a question is taken in, or told when to come back: so many at once, and the rest wait outside.

A queue in front of a server that is full helps nobody: whoever waits in it would have been answered sooner by coming
back later, and the health check waits with it.
"""

from __future__ import annotations

from dataclasses import dataclass

SHORTEST_S, LONGEST_S = 1.0, 60.0
UNKNOWN_S = 5.0  # nothing was answered lately: say little, and be asked again


@dataclass(frozen=True, slots=True)
class Crowd:
    """``inside`` are being answered, ``most`` may be; ``told`` were sent away and are not yet to be back;
    ``per_second`` is how many were answered lately, None if none was."""

    inside: int
    most: int
    told: int = 0
    per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    admitted: bool
    retry_after_s: float
    reason: str


def enter(seen: Crowd) -> Entry:
    """Admit one more question, or say when its turn comes: each answer makes a place for one of those who were told."""
    if seen.inside < seen.most:
        return Entry(True, 0.0, "there is room")
    turn_s = UNKNOWN_S if not seen.per_second else (seen.told + 1) / seen.per_second
    before = f", {seen.told} were told to come back before" if seen.told else ""
    speed = "none was answered lately" if not seen.per_second else f"{seen.per_second:.3g} are answered a second"
    reason = f"{seen.inside} questions are being answered, {seen.most} may be at once{before}; {speed}"
    return Entry(False, min(LONGEST_S, max(SHORTEST_S, turn_s)), reason)
