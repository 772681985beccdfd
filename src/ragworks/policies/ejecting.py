"""Outliers among replicas: which is left out for a while, for how long, and when it is let in again.

in rotation ──errors or latency──▶ ejected ──its time is over──▶ on trial ──enough good answers──▶ in rotation
                                      ▲                              │
                                      └──── an error, twice as long ─┘
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

MAX_DOUBLINGS = 30  # beyond any ceiling in use, and far from where a float overflows
FEWEST_PEERS = 2  # of one peer nobody can say which of the two is the outlier


@dataclass(frozen=True, slots=True)
class EjectSettings:
    """``max_ejected_share`` 0 ejects nobody; else one may always go where there are two, and never the last."""

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
    """What calls to one replica came to lately; ``response_s`` is the mean of good answers, None without any."""

    calls: float = 0.0
    errors: float = 0.0
    errors_in_row: int = 0
    response_s: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """``until`` is when an ejection ends (None: in rotation), ``ejections`` how many came on each other's heels."""

    until: float | None = None
    ejections: int = 0


class Action(StrEnum):
    KEEP = "keep"
    EJECT = "eject"
    READMIT = "readmit"


@dataclass(frozen=True, slots=True)
class Verdict:
    action: Action
    standing: Standing
    reason: str


def allowed(settings: EjectSettings, replicas: int) -> int:
    """How many of so many replicas may be out at once."""
    if settings.max_ejected_share <= 0:
        return 0
    return min(replicas - 1, max(1, math.floor(settings.max_ejected_share * replicas)))


def judge(
    settings: EjectSettings,
    seen: Seen,
    standing: Standing,
    peers_response_s: Sequence[float],
    ejected: int,
    replicas: int,
    now: float,
) -> Verdict:
    """Whether a replica of so many stays where it is, of which so many are ejected or on trial.

    On trial, ``seen`` is of the trials alone. Nothing known yet: it stays. The last one, or too many out: it stays.
    An ejection that follows another within twice its length counts as one more of the same trouble.
    """
    fault = _fault(settings, seen, standing, peers_response_s)
    if standing.until is not None:
        if fault:
            return _eject(settings, standing, now, f"on trial: {fault}")
        if seen.calls >= settings.good_trials:
            return Verdict(Action.READMIT, Standing(None, standing.ejections), f"{seen.calls:g} good answers on trial")
        return Verdict(Action.KEEP, standing, "on trial")
    if not fault:
        return Verdict(Action.KEEP, standing, "no outlier")
    if ejected >= allowed(settings, replicas):
        return Verdict(Action.KEEP, standing, f"{fault}, but {ejected} of {replicas} are out already")
    return _eject(settings, standing, now, fault)


def _eject(settings: EjectSettings, standing: Standing, now: float, reason: str) -> Verdict:
    for_s = min(settings.max_s, settings.base_s * 2.0 ** min(standing.ejections, MAX_DOUBLINGS))
    return Verdict(Action.EJECT, Standing(now + for_s, standing.ejections + 1), f"{reason}; out for {for_s:g} s")


def _fault(settings: EjectSettings, seen: Seen, standing: Standing, peers_response_s: Sequence[float]) -> str | None:
    on_trial = standing.until is not None
    if seen.errors_in_row >= (1 if on_trial else settings.errors_in_row):
        return f"{seen.errors_in_row} errors in a row"
    if seen.calls < (1 if on_trial else settings.min_calls):
        return None
    if seen.errors > settings.error_share * seen.calls:
        return f"{seen.errors:.0f} errors in {seen.calls:.0f} calls"
    if seen.response_s is not None and len(peers_response_s) >= FEWEST_PEERS:
        usual = median(peers_response_s)
        if seen.response_s > settings.latency_factor * usual:
            return f"{seen.response_s:.3g} s an answer where its peers take {usual:.3g} s"
    return None
