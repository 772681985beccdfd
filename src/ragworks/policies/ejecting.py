"""Outliers among replicas: which is left out, for how long, and when it is let in again.

    in rotation --errors or latency--> ejected --its time is over--> on trial --good answers--> in rotation
                                          ^                             |
                                          +---- a fault, twice as long -+

On trial, one call at a time is sent. Where nobody else is left, ejected replicas serve, and good answers let them in
before their time is over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

MAX_DOUBLINGS = 30
"""Beyond any ceiling in use, and far from where a float overflows."""

FEWEST_PEERS = 2
"""Of two replicas nobody can say which is the slow one."""


@dataclass(frozen=True, slots=True)
class EjectSettings:
    """Ejected is who failed ``errors_in_row`` calls, or more than ``error_share`` of at least ``min_calls`` lately
    (fading over ``window_s``), or answers ``latency_factor`` times slower than the median of its peers.

    The first time for ``base_s``, then doubling to ``max_s``. At most ``max_ejected_share`` are out at once, though one
    may be where there are two, and never the last. A share of 0 ejects nobody.
    """

    errors_in_row: int = 3
    error_share: float = 0.5
    latency_factor: float = 8.0
    min_calls: int = 10
    window_s: float = 10.0
    base_s: float = 5.0
    max_s: float = 300.0
    max_ejected_share: float = 0.5
    good_trials: int = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """What calls to one replica came to lately, since its ejection if it is out; ``response_s`` is the average of good
    answers, None without any."""

    calls: float = 0.0
    errors: float = 0.0
    errors_in_row: int = 0
    response_s: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """``until`` is when the ejection ends that a replica is under (None: in rotation); ``ejections`` so far that
    belong together, the last of which was over at ``back_at``."""

    until: float | None = None
    ejections: int = 0
    back_at: float = -math.inf


class Action(StrEnum):
    KEEP = "keep"
    EJECT = "eject"
    READMIT = "readmit"


@dataclass(frozen=True, slots=True)
class Verdict:
    action: Action
    standing: Standing
    reason: str


def judge(
    settings: EjectSettings,
    seen: Seen,
    standing: Standing,
    peers_response_s: Sequence[float],
    out: int,
    replicas: int,
    now: float,
) -> Verdict:
    """Whether a replica goes, comes back, or stays where it is; ``out`` of ``replicas`` are ejected or unhealthy.

    Nothing known yet: it stays. Everything dead, or only this one left: it stays, since there is nobody to take over.
    """
    on_trial = standing.until is not None
    fault = _fault(settings, seen, peers_response_s, on_trial)
    if standing.until is None:
        if not fault:
            return Verdict(Action.KEEP, standing, "no outlier")
        if out >= most_out(settings, replicas):
            return Verdict(Action.KEEP, standing, f"{fault}, but {out} of {replicas} are out already")
        return _eject(settings, standing, now, fault)
    if fault:
        if standing.until > now:
            return Verdict(Action.KEEP, standing, f"{fault} before its trial")
        return _eject(settings, standing, now, f"on trial: {fault}")
    if seen.calls < settings.good_trials:
        return Verdict(Action.KEEP, standing, "on trial")
    return Verdict(Action.READMIT, Standing(None, standing.ejections, now), f"{seen.calls:g} good answers on trial")


def most_out(settings: EjectSettings, replicas: int) -> int:
    """How many of so many replicas may be out at once."""
    if settings.max_ejected_share <= 0:
        return 0
    return max(0, min(replicas - 1, max(1, math.floor(settings.max_ejected_share * replicas))))


def _eject(settings: EjectSettings, standing: Standing, now: float, reason: str) -> Verdict:
    ejections = standing.ejections
    # Trouble that comes back within twice the last ejection's length is the same trouble.
    if standing.until is None and now - standing.back_at > 2.0 * _length_s(settings, ejections):
        ejections = 0
    length_s = _length_s(settings, ejections + 1)
    return Verdict(Action.EJECT, Standing(now + length_s, ejections + 1), f"{reason}; out for {length_s:g} s")


def _length_s(settings: EjectSettings, ejections: int) -> float:
    return min(settings.max_s, settings.base_s * 2.0 ** min(max(ejections - 1, 0), MAX_DOUBLINGS))


def _fault(settings: EjectSettings, seen: Seen, peers_response_s: Sequence[float], on_trial: bool) -> str | None:
    if seen.errors_in_row >= (1 if on_trial else settings.errors_in_row):
        return f"{seen.errors_in_row} errors in a row"
    if seen.calls < (1 if on_trial else settings.min_calls):
        return None
    if seen.errors > settings.error_share * seen.calls:
        return f"{seen.errors:.0f} errors in {seen.calls:.0f} calls"
    if seen.response_s is not None and len(peers_response_s) >= FEWEST_PEERS:
        usual_s = median(peers_response_s)
        if seen.response_s > settings.latency_factor * usual_s:
            return f"{seen.response_s:.3g} s an answer where its peers take {usual_s:.3g} s"
    return None
