"""For how long a remote endpoint that failed is asked nothing: by nobody, even where there is no other."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ragworks.policies.retrying import RetrySettings, backoff_s


@dataclass(frozen=True, slots=True)
class Held:
    """``failures`` in a row, and the monotonic second before which nothing is sent."""

    failures: int = 0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Hold:
    """What an endpoint's failure comes to."""

    held: Held
    reason: str


def hold(settings: RetrySettings, held: Held, named_s: float | None, now: float, rng: Random) -> Hold:
    """Held for the backoff of its failures in a row, and for the ``named_s`` that it asked for if that is longer.

    Requests that were in flight together fail together: what fails while it is held counts no further. An earlier hold
    is never shortened.
    """
    failures = held.failures if held.until > now else held.failures + 1
    pause_s = backoff_s(settings, failures, rng)
    reason = f"failure {failures} in a row"
    if named_s is not None and named_s > pause_s:
        pause_s, reason = named_s, "the time that it named"
    until = max(held.until, now + pause_s)
    return Hold(Held(failures, until), f"{reason}; left alone for {until - now:.1f} s")
