"""How fast a machine works when questions come at random, beside when it is kept busy: fitted to what was measured.

Between questions that come at random caches go cold and cores sleep, and housekeeping gets its turn. How much that
slows answers is measured at a light and at a heavy load, and lies in between for those in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ragworks.simulator.profiles import Round
from ragworks.simulator.queues import Floats, shared

SLOWEST = 0.25
"""From there to 1 a pace is looked for: nothing is faster than what is kept busy."""
HALVINGS = 8  # of that range, to a third of a per cent
TURNS = 2  # of looking for one of the two paces while the other stands
DRAWN = 2  # times of work for each question

Paces = tuple[float, float]
"""With one question there, and with as many as were measured at once, or more."""


def paced(rates: Floats, paces: Paces) -> Floats:
    """Answers a second by how many are there, at a pace that goes from the first to the second."""
    found: Floats = rates * np.interp(np.arange(len(rates)), [1, max(2, len(rates) - 1)], paces)
    return found


def fitted(rates: Floats, work_s: Floats, at_random: Mapping[float, Sequence[Round]]) -> Paces:
    """The paces with which a simulation of the questions of two loads has the p95 that were measured; 1 without any.

    ``rates`` are answers a second by how many are there, ``work_s`` is what single calls took.
    """
    if not at_random:
        return 1.0, 1.0
    rng = np.random.default_rng(0)
    light, *_, heavy = (_Load(rates, work_s, at_random[share], rng) for share in sorted(at_random))
    few = many = 1.0
    for _ in range(TURNS):
        few = light.pace_of_few(many)
        many = heavy.pace_of_many(few)
    return few, many


class _Load:
    """Questions that came at random, with the p95 that was measured, and times of work that are drawn for them."""

    def __init__(self, rates: Floats, work_s: Floats, rounds: Sequence[Round], rng: np.random.Generator) -> None:
        seen = [np.array(each) for each in rounds]
        self._rates = rates
        self._drawn = [(each[:, 0], rng.choice(work_s, len(each))) for _ in range(DRAWN) for each in seen]
        self._p95_s = float(np.quantile(np.concatenate([each[:, 1] for each in seen]), 0.95))

    def pace_of_few(self, many: float) -> float:
        return _found(lambda pace: self._simulated_s((pace, many)) > self._p95_s)

    def pace_of_many(self, few: float) -> float:
        return _found(lambda pace: self._simulated_s((few, pace)) > self._p95_s)

    def _simulated_s(self, paces: Paces) -> float:
        rates = paced(self._rates, paces)
        took = [shared(arrivals, work_s, rates) - arrivals for arrivals, work_s in self._drawn]
        return float(np.quantile(np.concatenate(took), 0.95))


def _found(too_slow: Callable[[float], bool]) -> float:
    low, high = SLOWEST, 1.0
    for _ in range(HALVINGS):
        pace = (low + high) / 2
        low, high = (pace, high) if too_slow(pace) else (low, pace)
    return (low + high) / 2
