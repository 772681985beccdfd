"""How large a load will be shortly: the last value and a damped trend, with its measured error beside the last value's.

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
    """A trend is smoothed over ``trend_s`` and fades within ``damped_s``.

    A forecast is believed while forecasts have been off by less than ``better`` times what the last value was off, over
    ``proven_s``; it never says more than ``most`` times the last value.
    """

    trend_s: float = 300.0
    damped_s: float = 300.0
    better: float = 0.9
    proven_s: float = 1200.0
    most: float = 1.5


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is known of a series: its last value, its trend a second, and how far off forecasts and last values were.

    ``pending`` are forecasts whose time has not come: (when, forecast, last value then).
    """

    at: float | None = None
    since: float | None = None
    value: float = 0.0
    trend: float = 0.0
    error: float | None = None
    naive_error: float | None = None
    pending: tuple[tuple[float, float, float], ...] = ()


def updated(settings: ForecastSettings, state: Forecast, now: float, value: float, horizon_s: float) -> Forecast:
    """The state after one more value: earlier forecasts of it are judged, and one more is kept to be judged."""
    if state.at is None:
        return replace(state, at=now, since=now, value=value)
    elapsed = now - state.at
    if elapsed <= 0:
        return state
    trend = decayed(state.trend, (value - state.value) / elapsed, elapsed, settings.trend_s) or 0.0
    error, naive = state.error, state.naive_error
    for _, forecast, last in (one for one in state.pending if one[0] <= now):
        error = decayed(error, abs(forecast - value), elapsed, settings.proven_s)
        naive = decayed(naive, abs(last - value), elapsed, settings.proven_s)
    pending = tuple(one for one in state.pending if one[0] > now)
    new = Forecast(now, state.since, value, trend, error, naive, pending)
    if pending and now + horizon_s - pending[-1][0] < horizon_s / PENDING:
        return new
    return replace(new, pending=(*pending, (now + horizon_s, ahead(settings, new, horizon_s), value)))


def ahead(settings: ForecastSettings, state: Forecast, horizon_s: float) -> float:
    """The value in ``horizon_s``. A damped trend comes to the integral of exp(-u / damped_s) of its seconds."""
    reach_s = settings.damped_s * (1.0 - exp(-horizon_s / settings.damped_s))
    return min(max(0.0, state.value + state.trend * reach_s), settings.most * state.value)


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
