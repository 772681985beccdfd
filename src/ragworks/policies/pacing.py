"""How long a call should take, and how fast a replica is: learnt from what calls took.

A call of cost c is expected to take ``pace x (a + b x c)`` seconds: a and b of the service, the pace of the replica.
"""

from __future__ import annotations

from dataclasses import dataclass

MEMORY = 300.0
"""Calls after which an old one weighs 1/e in what is expected of the next."""


@dataclass(slots=True)
class Expectation:
    """A line through (cost, seconds at pace 1), by least squares with fading weights."""

    weight: float = 0.0
    cost: float = 0.0
    seconds: float = 0.0
    variance: float = 0.0
    covariance: float = 0.0

    def of(self, cost: float | None) -> float | None:
        """Seconds that a call should take at pace 1; None as long as none has ended."""
        if not self.weight:
            return None
        if cost is None or self.variance <= 0.0 or self.covariance <= 0.0:
            return self.seconds
        # A line through noise may cross zero for a small cost; no call is a twentieth of the usual one's length.
        guess = self.seconds + self.covariance / self.variance * (cost - self.cost)
        return guess if guess > 0.05 * self.seconds else 0.05 * self.seconds

    def observe(self, cost: float | None, seconds: float) -> None:
        self.weight = min(self.weight + 1.0, MEMORY)
        share = 1.0 / self.weight
        off = seconds - self.seconds
        self.seconds += share * off
        if cost is not None:
            apart = cost - self.cost
            self.cost += share * apart
            self.variance += share * ((1.0 - share) * apart * apart - self.variance)
            self.covariance += share * ((1.0 - share) * apart * off - self.covariance)
