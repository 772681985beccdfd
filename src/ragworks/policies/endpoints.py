"""Which of several endpoints gets the next request, and how long one that failed is left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from random import Random

from ragworks.policies.retrying import RetrySettings, backoff_s

TRIAL_S = 0.5
"""One request tries an endpoint that comes back; the others look again this much later."""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """Requests in flight and sent, failures in a row, and the monotonic second before which nothing is sent."""

    in_flight: int = 0
    sent: int = 0
    failures: int = 0
    out_until: float = 0.0


@dataclass(frozen=True, slots=True)
class EndpointChoice:
    """``place`` is None when nothing may be sent before ``wait_s`` are over."""

    place: int | None
    wait_s: float
    reason: str


def choose(endpoints: Sequence[EndpointState], now: float, tried: Collection[int] = ()) -> EndpointChoice:
    """The free endpoint with the fewest requests in flight, then the one that was sent the fewest.

    Nothing known yet: all are free. All left out: none is asked before its time, so that a Retry-After holds for every
    caller. Only one: that one, or its time. An endpoint of ``tried`` failed this request already.
    """
    waits = [_wait_s(one, now) for one in endpoints]
    free = [place for place, wait_s in enumerate(waits) if wait_s == 0.0 and place not in tried]
    if not free:
        return EndpointChoice(None, min(waits, default=TRIAL_S), "every endpoint is left out or was tried")
    place = min(free, key=lambda place: (endpoints[place].in_flight, endpoints[place].sent))
    return EndpointChoice(place, 0.0, "fewest requests in flight")


def started(state: EndpointState) -> EndpointState:
    return replace(state, in_flight=state.in_flight + 1, sent=state.sent + 1)


def ended(state: EndpointState) -> EndpointState:
    return replace(state, in_flight=state.in_flight - 1)


def answered(state: EndpointState) -> EndpointState:
    """Back to full use; a time that the endpoint itself asked for still holds."""
    return replace(state, failures=0)


def failed(
    settings: RetrySettings, state: EndpointState, now: float, rng: Random, retry_after_s: float | None
) -> EndpointState:
    """Left out for the backoff of its failures in a row, and for as long as it asked if that is longer.

    Requests that were in flight together fail together: what fails while the endpoint is out counts no further.
    """
    failures = state.failures if state.out_until > now else state.failures + 1
    pause_s = max(retry_after_s or 0.0, backoff_s(settings, failures, rng))
    return replace(state, failures=failures, out_until=max(state.out_until, now + pause_s))


def _wait_s(state: EndpointState, now: float) -> float:
    if state.out_until > now:
        return state.out_until - now
    return TRIAL_S if state.failures and state.in_flight else 0.0
