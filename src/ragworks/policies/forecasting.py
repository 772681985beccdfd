"""How large a load will be shortly: expected, low and high, each with what came of it so far.

On public traces a trend gains almost nothing over the last value and a margin, so it has to prove itself before it is
believed, on the very series it is asked about. The interval supposes no distribution: an offset grows when it was
exceeded and shrinks when it was not, by as much as keeps the stated share inside in the long run (quantile tracking,
Angelopoulos, Candès and Tibshirani 2023), and it is in roots of the load, as chance is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, sqrt

from ragworks.policies.windows import decayed

PENDING = 30
"""Forecasts that wait to be judged, at most."""

LATELY = 500
"""Forecasts that the measured coverage goes back."""

CHANCE = 1.65
"""Roots of the load that chance exceeds one time in twenty; so wide is an interval of which nothing is known yet."""


@dataclass(frozen=True, slots=True)
class ForecastSettings:
    """A trend is smoothed over ``trend_s`` and fades within ``damped_s``.

    A trend is believed while forecasts by it have been off by less than ``better`` times what the last value was off,
    over ``proven_s``; it never says more than ``most`` times the last value. Of loads a share of ``level`` should lie
    in the interval, half of the others on either side; ``step`` is how fast it follows.
    """

    trend_s: float = 300.0
    damped_s: float = 300.0
    better: float = 0.9
    proven_s: float = 1200.0
    most: float = 1.5
    level: float = 0.9
    step: float = 0.05


@dataclass(frozen=True, slots=True)
class Said:
    """A forecast whose time has not come: by the trend, the last value then, and what was said."""

    at: float
    trended: float
    last: float
    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is known of a series: its last value, its trend a second, and how far off trend and last values were.

    Of ``judged`` forecasts, the latest ``LATELY`` at most, the share ``covered`` was inside its interval. ``spread`` is
    how far off they were in roots of the load, ``under`` and ``over`` how far down and up the interval reaches.
    """

    at: float | None = None
    since: float | None = None
    value: float = 0.0
    trend: float = 0.0
    error: float | None = None
    naive_error: float | None = None
    pending: tuple[Said, ...] = ()
    judged: int = 0
    covered: float = 0.0
    spread: float | None = None
    under: float = CHANCE
    over: float = CHANCE


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The load in ``in_s``: a share of ``level`` should lie from ``low`` to ``high``, and ``covered`` did.

    ``error`` is how far off such forecasts were on average, ``naive_error`` how far off the last value was. None: none
    has been judged yet.
    """

    in_s: float
    expected: float
    low: float
    high: float
    level: float
    covered: float | None
    error: float | None
    naive_error: float | None


def updated(settings: ForecastSettings, state: Forecast, now: float, value: float, horizon_s: float) -> Forecast:
    """The state after one more value: earlier forecasts of it are judged, and one more is kept to be judged."""
    if state.at is None:
        return replace(state, at=now, since=now, value=value)
    elapsed = now - state.at
    if elapsed <= 0:
        return state
    trend = decayed(state.trend, (value - state.value) / elapsed, elapsed, settings.trend_s) or 0.0
    for said in (one for one in state.pending if one.at <= now):
        state = _judged(settings, state, said, value, elapsed)
    pending = tuple(one for one in state.pending if one.at > now)
    new = replace(state, at=now, value=value, trend=trend, pending=pending)
    if pending and now + horizon_s - pending[-1].at < horizon_s / PENDING:
        return new
    expected, low, high = _interval(settings, new, horizon_s)
    said = Said(now + horizon_s, ahead(settings, new, horizon_s), value, expected, low, high)
    return replace(new, pending=(*pending, said))


def _judged(settings: ForecastSettings, state: Forecast, said: Said, value: float, elapsed: float) -> Forecast:
    score = (value - said.expected) / _chance(said.expected)
    judged = min(state.judged + 1, LATELY)
    return replace(
        state,
        error=decayed(state.error, abs(said.trended - value), elapsed, settings.proven_s),
        naive_error=decayed(state.naive_error, abs(said.last - value), elapsed, settings.proven_s),
        judged=judged,
        covered=state.covered + ((said.low <= value <= said.high) - state.covered) / judged,
        spread=decayed(state.spread, abs(score), elapsed, settings.proven_s),
        under=_followed(settings, state.under, -score, state.spread),
        over=_followed(settings, state.over, score, state.spread),
    )


def _followed(settings: ForecastSettings, offset: float, score: float, spread: float | None) -> float:
    """In proportion to itself, so that any scale is found; or to the spread, so that it comes back from nothing."""
    missed = float(score > offset) - (1.0 - settings.level) / 2
    return max(0.0, offset + settings.step * max(offset, spread or 0.0) * missed)


def foreseen(settings: ForecastSettings, state: Forecast, horizon_s: float) -> Foreseen | None:
    """What to say of the series, ``horizon_s`` being what ``updated`` was given; None before any value."""
    if state.at is None:
        return None
    expected, low, high = _interval(settings, state, horizon_s)
    covered = state.covered if state.judged else None
    error = state.error if believed(settings, state) else state.naive_error
    return Foreseen(horizon_s, expected, low, high, settings.level, covered, error, state.naive_error)


def _interval(settings: ForecastSettings, state: Forecast, horizon_s: float) -> tuple[float, float, float]:
    """Expected, low and high. Unless the trend is believed, the last value is the better guess."""
    expected = ahead(settings, state, horizon_s) if believed(settings, state) else state.value
    chance = _chance(expected)
    return expected, max(0.0, expected - state.under * chance), expected + state.over * chance


def _chance(load: float) -> float:
    """How much a load varies by itself; a call more or less is the least."""
    return sqrt(max(1.0, load))


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
    pending = tuple(replace(said, at=said.at + by_s) for said in state.pending)
    return replace(state, at=state.at + by_s, since=state.since + by_s, pending=pending)
