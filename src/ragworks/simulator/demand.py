"""The requests that a scaler meets: as they were recorded, or drawn from recorded rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragworks.errors import InvalidInput
from ragworks.simulator.traces import Rates, Requests

Floats = NDArray[np.float64]

FIRST_S = 120.0
"""When a policy is first asked; until then there is what the first two minutes need at most."""

BUSY = 3.0
"""Replicas that drawn requests keep busy on average: rates of a whole data centre say how a load changes, not how
large one service is."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Arrivals in seconds from 0, in order, the seconds of work of each on one slot, and how long it goes on."""

    t: Floats
    work: Floats
    length_s: float


def work_of(tokens_in: Floats, tokens_out: Floats) -> Floats:
    """Seconds that a generated answer takes: to begin, to read, to write."""
    return 0.05 + 0.0002 * tokens_in + 0.02 * tokens_out


def recorded(trace: Requests, window: tuple[float, float] | None = None) -> Demand:
    """The requests as they came, or those of ``window`` (seconds of the trace)."""
    begin, end = window or (float(trace.t[0]), float(trace.t[-1]))
    inside = (trace.t >= begin) & (trace.t <= end)
    if not inside.any():
        raise InvalidInput(f"the window {begin:g}:{end:g} holds no request; the trace has {_span(trace.t)}")
    work = work_of(trace.tokens_in[inside], trace.tokens_out[inside])
    return _checked(Demand(trace.t[inside] - begin, work, end - begin))


def drawn(
    rates: Rates, tokens: Requests, *, slots: int, cv: float, seed: int, window: tuple[float, float] | None = None
) -> Demand:
    """Requests at ``rates``, scaled so that they keep ``BUSY`` replicas of ``slots`` busy on average.

    A rate holds at the middle of its bin, and between two middles the rates lie on a line. Arrivals are a gamma renewal
    process with coefficient of variation ``cv``; what each asks for is drawn from ``tokens``.
    """
    bin_s = float(np.median(np.diff(rates.t))) if len(rates.t) > 1 else 0.0
    begin, end = window or (float(rates.t[0]), float(rates.t[-1]) + bin_s)
    if not rates.t[0] <= begin < end <= rates.t[-1] + bin_s:
        raise InvalidInput(f"the window {begin:g}:{end:g} lies outside of the trace, which has {_span(rates.t)}")
    grid = np.linspace(0.0, end - begin, int(end - begin) + 2)
    rate = np.interp(begin + grid, rates.t + bin_s / 2, rates.per_s)
    expected = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(grid))])
    if expected[-1] <= 0:
        raise InvalidInput(f"the rates of the window {begin:g}:{end:g} are all zero")
    work = work_of(tokens.tokens_in, tokens.tokens_out)
    total = BUSY * slots * (end - begin) / float(work.mean())
    rng = np.random.default_rng(seed)
    passed = np.cumsum(rng.gamma(1 / cv**2, cv**2, int(total + 10 * cv * np.sqrt(total)) + 10))
    t = np.interp(passed[passed < total], expected * (total / expected[-1]), grid)
    return _checked(Demand(t, work[rng.integers(0, len(work), len(t))], end - begin))


def in_service(demand: Demand) -> tuple[Floats, Floats]:
    """When requests come or go if none ever waits, and how many are there from then on."""
    at = np.concatenate([demand.t, demand.t + demand.work])
    change = np.concatenate([np.ones(len(demand.t)), -np.ones(len(demand.t))])
    # An arrival before an end at the same instant: both are there.
    order = np.lexsort((-change, at))
    return at[order], np.cumsum(change[order])


def _checked(demand: Demand) -> Demand:
    if demand.length_s <= FIRST_S or not len(demand.t):
        raise InvalidInput(
            f"found {len(demand.t)} requests in {demand.length_s:g} s; needs some, and more than {FIRST_S:g} s, after "
            "which a policy is first asked"
        )
    return demand


def _span(t: Floats) -> str:
    return f"{t[0]:g} to {t[-1]:g} s"
