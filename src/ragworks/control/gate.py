"""The door of the server for questions: it counts who is inside, and whom it told to come back when."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heappop, heappush

from ragworks.control_protocols import Record, unrecorded
from ragworks.errors import TooManyQuestions
from ragworks.policies.crowding import Crowd, turn
from ragworks.protocols import Clock

RATED = 128
"""Answers that the rate is measured over, at most."""
CROWDS = 4
"""Of so many times ``most`` it is known that they are to come back. One caller that asks without a pause would push the
turns of all others out for ever if each of its tries counted."""


class Gate:
    """``most`` questions are let in at once."""

    def __init__(self, most: int, clock: Clock, record: Record = unrecorded) -> None:
        self._most, self._clock, self._record = most, clock, record
        self._inside = 0
        self._crowded_since = clock.monotonic()
        self._answered_at: deque[float] = deque(maxlen=RATED)
        self._due_at: list[float] = []

    @contextmanager
    def inside(self) -> Iterator[None]:
        """As long as one question is answered. Raises TooManyQuestions."""
        now = self._clock.monotonic()
        while self._due_at and self._due_at[0] <= now:
            heappop(self._due_at)
        if self._inside >= self._most:
            raise self._refusal(now)
        if self._inside < self._most / 2 and not self._due_at:
            self._crowded_since = now
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._answered_at.append(self._clock.monotonic())

    def _refusal(self, now: float) -> TooManyQuestions:
        seen = Crowd(self._inside, len(self._due_at), tuple(self._answered_at), self._crowded_since)
        decision = turn(seen, now)
        if len(self._due_at) < CROWDS * self._most:
            heappush(self._due_at, now + decision.retry_after_s)
        inputs = {"seen": seen, "now": now}
        self._record("refused", reason=decision.reason, policy="crowding.turn", inputs=inputs, decision=decision)
        return TooManyQuestions(decision.reason, decision.retry_after_s)
