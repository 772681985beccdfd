"""When a failed attempt is tried again: exponential backoff with full jitter (Brooker, AWS Architecture Blog 2015)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from random import Random

MAX_DOUBLINGS = 60
"""Beyond any ceiling in use, and far from where a float overflows."""


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


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """Every success earns ``share`` of a retry, and ``most`` are saved at most, so that retries stay a fraction of the
    traffic and cannot drown an endpoint that is already in trouble."""

    share: float = 0.2
    most: float = 20.0


def decide(settings: RetrySettings, attempts: int, *, transient: bool, rng: Random) -> RetryDecision:
    """What follows attempt number ``attempts`` (1 for the first), which failed."""
    if not transient:
        return RetryDecision(None, "the error is permanent: the same input fails again")
    if attempts >= settings.max_attempts:
        return RetryDecision(None, f"attempt {attempts} of {settings.max_attempts} failed")
    delay = backoff_s(settings, attempts, rng)
    return RetryDecision(delay, f"transient, attempt {attempts} of {settings.max_attempts}")


def backoff_s(settings: RetrySettings, failures: int, rng: Random) -> float:
    """Seconds to wait after so many failures in a row."""
    ceiling = min(settings.max_delay_s, settings.base_delay_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS))
    # Half fixed, half random: never at once, never all together.
    return ceiling / 2 + rng.uniform(0, ceiling / 2)


def again(wait_s: float, left_s: float, saved: float, *, asked: bool) -> RetryDecision:
    """Whether a request is sent again after ``wait_s``, with ``left_s`` of its patience and ``saved`` retries left.

    ``asked``: the endpoint named the time itself, or nothing was sent; such a retry costs nothing of the budget.
    """
    if wait_s > left_s:
        return RetryDecision(None, f"next try in {wait_s:.1f} s, and this text waits {max(0.0, left_s):.1f} s more")
    if asked:
        return RetryDecision(wait_s, "the endpoint named the time")
    if saved < 1:
        return RetryDecision(None, "the retry budget is spent: too many requests fail")
    return RetryDecision(wait_s, f"{saved:.1f} retries were left")


def earned(settings: BudgetSettings, saved: float) -> float:
    """The retries saved after one more success."""
    return min(settings.most, saved + settings.share)


def named_s(header: str, now: float) -> float | None:
    """Seconds from ``now`` (since the epoch) that a Retry-After header asks for; None when it says nothing usable."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
