"""The door of the server for questions: it counts who is inside, and whom it told to come back when."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ragworks.control_protocols import Record, unrecorded
from ragworks.errors import TooManyQuestions
from ragworks.policies.crowding import Crowd, enter
from ragworks.protocols import Clock

LATELY_S = 10.0
RATED = 256
"""Answers that the rate is measured over, at most."""


class Gate:
    """``most`` questions are let in at once."""

    def __init__(self, most: int, clock: Clock, record: Record = unrecorded) -> None:
        self._most, self._clock, self._record = most, clock, record
        self._inside = 0
        self._answered_at: deque[float] = deque(maxlen=RATED)
        self._due_at: deque[float] = deque()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """As long as one question is answered. Raises TooManyQuestions."""
        now = self._clock.monotonic()
        if self._inside >= self._most:
            raise self._refusal(now)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._answered_at.append(self._clock.monotonic())

    def _refusal(self, now: float) -> TooManyQuestions:
        while self._due_at and self._due_at[0] <= now:
            self._due_at.popleft()
        seen = Crowd(self._inside, self._most, len(self._due_at), self._per_second(now))
        decision = enter(seen)
        self._due_at.append(now + decision.retry_after_s)
        self._record(
            "refused", reason=decision.reason, policy="crowding.enter", inputs={"seen": seen}, decision=decision
        )
        return TooManyQuestions(decision.reason, decision.retry_after_s)

    def _per_second(self, now: float) -> float | None:
        """Over the answers that are remembered and not old; the oldest of them begins the time and is not counted."""
        recent = [at for at in self._answered_at if now - at <= LATELY_S]
        span = now - recent[0] if recent else 0.0
        return (len(recent) - 1) / span if len(recent) > 1 and span > 0 else None
