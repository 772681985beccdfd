"""When what ended, or did not start, is started again: a replica or a whole service.

up for long ──ends──▶ at once ──ends again──▶ after a pause that doubles ──too often──▶ crash loop: slowly, and named
      ▲                                                                                        │
      └────────────────────────── up for ``stable_s``: forgiven ───────────────────────────────┘

It is never given up: what comes back is worth more than what was declared dead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from random import Random

from ragworks.policies.retrying import RetrySettings, backoff_s

LOOP_JITTER = 0.25


@dataclass(frozen=True, slots=True)
class RestartSettings:
    """Up for ``stable_s`` is a success. More than ``budget`` ends without one between them, or within ``window_s``, are
    a crash loop, in which ``crash_loop_delay_s`` pass before a start. ``lonely_delay_s`` is the longest pause while no
    other replica of the service is up: then waiting costs every call."""

    backoff: RetrySettings = field(default_factory=lambda: RetrySettings(base_delay_s=0.5, max_delay_s=30.0))
    budget: int = 5
    window_s: float = 600.0
    stable_s: float = 60.0
    crash_loop_delay_s: float = 60.0
    lonely_delay_s: float = 30.0


@dataclass(frozen=True, slots=True)
class RestartState:
    """What is known of one place that a replica fills. Times are on the clock that ``now`` is on.

    ``failures`` counts the ends since it was last stable, ``ends`` are the latest of all, oldest first. ``up_since`` is
    None while it is not up, ``wanted`` False once it was asked to go, ``others_up`` how many others serve beside it.
    """

    ends: tuple[float, ...] = ()
    failures: int = 0
    up_since: float | None = None
    last_reason: str = ""
    wanted: bool = True
    others_up: int = 0


@dataclass(frozen=True, slots=True)
class RestartDecision:
    """Start it after ``delay_s``; None: do not, there is nothing to do. ``crash_loop`` names what it is in."""

    delay_s: float | None
    crash_loop: bool
    reason: str


def started(state: RestartState, now: float) -> RestartState:
    """The state once it is up."""
    return replace(state, up_since=now)


def ended(settings: RestartSettings, state: RestartState, now: float, reason: str) -> RestartState:
    """The state once it has ended, or has failed to start."""
    stable = state.up_since is not None and now - state.up_since >= settings.stable_s
    # No more than the policy looks at: the log of events holds them, too.
    latest = (*state.ends, now)[-(settings.budget + 1) :]
    failures = 1 if stable else state.failures + 1
    return replace(state, ends=latest, failures=failures, up_since=None, last_reason=reason)


def decide(settings: RestartSettings, state: RestartState, now: float, rng: Random) -> RestartDecision:
    """What follows the state. Nothing known: start it now. No other one up: do not wait long. One end: at once."""
    if not state.wanted:
        return RestartDecision(None, False, "it was asked to go")
    if state.up_since is not None:
        return RestartDecision(None, False, "it is up")
    if not state.ends:
        return RestartDecision(0.0, False, "it has not been started yet")
    lately = sum(now - at <= settings.window_s for at in state.ends)
    if max(state.failures, lately) > settings.budget:
        return _in_crash_loop(settings, state, rng)
    if state.failures == 1:
        return RestartDecision(0.0, False, _because(state, "started again at once"))
    delay = _bearable(settings, state, backoff_s(settings.backoff, state.failures - 1, rng))
    return RestartDecision(
        delay, False, _because(state, f"ended {state.failures} times in a row, started again in {delay:.1f} s")
    )


def _in_crash_loop(settings: RestartSettings, state: RestartState, rng: Random) -> RestartDecision:
    # Jitter upwards only: the delay is the least that passes.
    delay = _bearable(settings, state, settings.crash_loop_delay_s) * (1.0 + rng.uniform(0.0, LOOP_JITTER))
    if state.failures > settings.budget:
        loop = f"{state.failures} ends, and never up for {settings.stable_s:.0f} s between them"
    else:
        loop = f"more than {settings.budget} ends in {settings.window_s:.0f} s"
    return RestartDecision(delay, True, _because(state, f"crash looping: {loop}; started again in {delay:.0f} s"))


def _bearable(settings: RestartSettings, state: RestartState, delay_s: float) -> float:
    return min(delay_s, math.inf if state.others_up else settings.lonely_delay_s)


def _because(state: RestartState, what: str) -> str:
    return f"{what}; last: {state.last_reason}" if state.last_reason else what
