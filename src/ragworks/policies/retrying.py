"""When a failed attempt is tried again: exponential backoff with full jitter (Brooker, AWS Architecture Blog 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class RetrySettings:
    max_attempts: int = 3
    base_delay_s: float = 1.0
    max_delay_s: float = 60.0


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """``delay_s`` is None when there is no further attempt."""

    delay_s: float | None
    reason: str


def decide(settings: RetrySettings, attempts: int, *, transient: bool, rng: Random) -> RetryDecision:
    """What follows attempt number ``attempts`` (1 for the first), which failed."""
    if not transient:
        return RetryDecision(None, "the error is permanent: the same input fails again")
    if attempts >= settings.max_attempts:
        return RetryDecision(None, f"attempt {attempts} of {settings.max_attempts} failed")
    ceiling = min(settings.max_delay_s, settings.base_delay_s * 2 ** (attempts - 1))
    # Half fixed, half random: never at once, never all together.
    delay = ceiling / 2 + rng.uniform(0, ceiling / 2)
    return RetryDecision(delay, f"transient, attempt {attempts} of {settings.max_attempts}")
