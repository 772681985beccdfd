"""How large a load will be shortly: a damped trend (Holt), with its own measured error beside that of the last value.

On public traces a trend gains almost nothing over the last value and a margin, so it has to prove itself before it is
believed, on the very series it is asked about.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp

from ragworks.policies.windows import decayed

PENDING = 30
"""Forecasts that wait to be judged, at most."""


@dataclass(frozen=True, slots=True)
class ForecastSettings:
    """``level_s`` and ``trend_s`` are over how long level and trend are smoothed; a trend fades within ``damped_s``.

    A forecast is believed once it was off by less than ``better`` times the last value, over ``proven_s``, and never to
    more than ``most`` times the load.
    """

    level_s: float = 60.0
    trend_s: float = 240.0
    damped_s: float = 120.0
    better: float = 0.9
    proven_s: float = 1800.0
    most: float = 1.5


@dataclass(frozen=True, slots=True)
class Forecast:
    """``pending`` are forecasts whose time has not come: (when, forecast, last value then)."""

    at: float | None = None
    since: float | None = None
    level: float = 0.0
    trend: float = 0.0
    error: float | None = None
    naive_error: float | None = None
    pending: tuple[tuple[float, float, float], ...] = ()


def updated(settings: ForecastSettings, state: Forecast, now: float, value: float, horizon_s: float) -> Forecast:
    """The state after one more value: earlier forecasts of it are judged, and one more is kept to be judged."""
    if state.at is None:
        return replace(state, at=now, since=now, level=value)
    elapsed = now - state.at
    if elapsed <= 0:
        return state
    before = state.level + state.trend * _reach_s(settings, elapsed)
    level = decayed(before, value, elapsed, settings.level_s) or 0.0
    slope = (level - state.level) / elapsed
    trend = decayed(state.trend * exp(-elapsed / settings.damped_s), slope, elapsed, settings.trend_s) or 0.0
    error, naive = state.error, state.naive_error
    for _, forecast, last in (one for one in state.pending if one[0] <= now):
        error = decayed(error, abs(forecast - value), elapsed, settings.proven_s)
        naive = decayed(naive, abs(last - value), elapsed, settings.proven_s)
    pending = tuple(one for one in state.pending if one[0] > now)
    new = Forecast(now, state.since, level, trend, error, naive, pending)
    if pending and now + horizon_s - pending[-1][0] < horizon_s / PENDING:
        return new
    return replace(new, pending=(*pending, (now + horizon_s, ahead(settings, new, horizon_s), value)))


def ahead(settings: ForecastSettings, state: Forecast, horizon_s: float) -> float:
    """The load in ``horizon_s``."""
    return max(0.0, state.level + state.trend * _reach_s(settings, horizon_s))


def believed(settings: ForecastSettings, state: Forecast) -> bool:
    """Whether forecasts were better than the last value, for long enough to tell."""
    if state.at is None or state.since is None or state.at - state.since < settings.proven_s:
        return False
    return state.error is not None and state.error < settings.better * (state.naive_error or 0.0)


def shifted(state: Forecast, by_s: float) -> Forecast:
    """The state on a clock that was set by so much."""
    if state.at is None or state.since is None:
        return state
    pending = tuple((at + by_s, forecast, last) for at, forecast, last in state.pending)
    return replace(state, at=state.at + by_s, since=state.since + by_s, pending=pending)


def _reach_s(settings: ForecastSettings, horizon_s: float) -> float:
    """Seconds of undamped trend that a damped one comes to in ``horizon_s``: the integral of exp(-u / damped_s)."""
    return settings.damped_s * (1.0 - exp(-horizon_s / settings.damped_s))
