"""What was seen lately: maximum, mean and decaying average over pairs of (time, value).

A window is a plain tuple of pairs, oldest first, so that it can stand in a frozen state and be written down as JSON. It
holds ``PARTS`` pairs or little more, whatever the rate of observations: one that comes sooner than a part of the span
after the one before is merged with the newest.
"""

from __future__ import annotations

from itertools import pairwise
from math import exp

Window = tuple[tuple[float, float], ...]

PARTS = 60
LEAST_S = 1e-9


def keep_highest(window: Window, now: float, value: float, span_s: float) -> Window:
    """The window with one more value, without what can no longer be the highest of the last ``span_s``."""
    kept = tuple(pair for pair in _recent(window, now, span_s) if pair[1] > value)
    if len(kept) > 1 and now - kept[-2][0] < span_s / PARTS:
        # A maximum that lives on for part of a span is harmless; one that is lost is not.
        return (*kept[:-1], (now, kept[-1][1]))
    return (*kept, (now, value))


def keep(window: Window, now: float, value: float, span_s: float) -> Window:
    """The window with one more value; what comes too close together becomes its mean."""
    kept = _recent(window, now, span_s)
    if len(kept) > 1 and now - kept[-2][0] < span_s / PARTS:
        return (*kept[:-1], (now, (kept[-1][1] + value) / 2))
    return (*kept, (now, value))


def highest(window: Window, now: float, span_s: float) -> float | None:
    """The largest value of the last ``span_s``; None if there is none, which is not zero."""
    return max((value for _, value in _recent(window, now, span_s)), default=None)


def mean(window: Window, now: float, span_s: float) -> float | None:
    """The mean of the last ``span_s``, each value for as long as it took to come; None if there is none.

    A value is taken to be of the time since the one before; the oldest one's weight is that of the second.
    """
    recent = _recent(window, now, span_s)
    if not recent:
        return None
    spans = [later[0] - earlier[0] for earlier, later in pairwise(recent)]
    weights = [*spans[:1], *spans]
    if sum(weights) < LEAST_S:  # at once, or so near that rounding would be all there is
        return sum(value for _, value in recent) / len(recent)
    return sum(weight * value for weight, (_, value) in zip(weights, recent, strict=True)) / sum(weights)


def decayed(average: float | None, value: float | None, elapsed_s: float, tau_s: float) -> float | None:
    """The average after ``elapsed_s`` that ended with ``value``; what is ``tau_s`` old counts 1/e. None: not known.

    A missing value leaves the average as it was.
    """
    if value is None or average is None:
        return average if value is None else value
    left = exp(-max(0.0, elapsed_s) / tau_s)
    return average * left + value * (1.0 - left)


def shifted(window: Window, by_s: float) -> Window:
    """The window on a clock that was set by so much."""
    return tuple((at + by_s, value) for at, value in window)


def _recent(window: Window, now: float, span_s: float) -> Window:
    return tuple(pair for pair in window if now - span_s < pair[0] <= now)
