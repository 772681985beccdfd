"""What replicas were called for: numbers that only rise, so that any stretch of time is the difference of two."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls of one replica that ended, how many of them failed by its fault, and the seconds that the others took
    together. Who was cancelled does not count."""

    calls: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def good(self) -> int:
        return self.calls - self.failed

    @property
    def response_s(self) -> float | None:
        """The mean of good answers, None without any."""
        return self.seconds / self.good if self.good else None

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.calls - earlier.calls, self.failed - earlier.failed, self.seconds - earlier.seconds)

    def plus(self, seconds: float, *, failed: bool) -> Traffic:
        return Traffic(self.calls + 1, self.failed + failed, self.seconds + (0.0 if failed else seconds))
