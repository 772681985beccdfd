"""When requests end that share a machine, and when those that wait in line for slots."""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from math import inf

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def shared(arrivals: Floats, work_s: Floats, rates: Floats) -> Floats:
    """When each ends if all that are there go on at the same speed, which depends on how many they are.

    Ordered by the work that is left, they end in the order in which they reach their own amount of what each has done
    since the beginning.
    """
    mean = float(np.mean(work_s))
    speeds = [0.0, *(float(rate) * mean / many for many, rate in enumerate(rates) if many)]
    last, most = float(rates[-1]) * mean, len(rates) - 1
    ends = np.empty(len(arrivals))
    there: list[tuple[float, int]] = []
    now = done = 0.0
    for place, (at, takes) in enumerate(zip([*arrivals.tolist(), inf], [*work_s.tolist(), 0.0], strict=True)):
        while there:
            speed = speeds[len(there)] if len(there) <= most else last / len(there)
            first, whose = there[0]
            until = now + (first - done) / speed
            if until > at:
                done += (at - now) * speed
                break
            heappop(there)
            ends[whose], now, done = until, until, first
        now = at
        heappush(there, (done + takes, place))
    return ends


def queued(arrivals: Floats, work_s: Floats, slots: int) -> Floats:
    """When each ends if so many are worked on at once, and the others wait in the order in which they came."""
    free = [0.0] * slots
    heapify(free)
    ends = np.empty(len(arrivals))
    for place in np.argsort(arrivals, kind="stable").tolist():
        ends[place] = end = max(float(arrivals[place]), free[0]) + float(work_s[place])
        heapreplace(free, end)
    return ends
