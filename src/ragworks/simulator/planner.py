"""How many replicas a load and a latency goal need, from measured times of work: simulated, not looked up.

A request goes through its services one after another. Each has one queue, first come first served; times of work are
drawn from those measured, so that their spread counts and no formula is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from math import ceil, isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragworks.errors import InvalidInput

Floats = NDArray[np.float64]

FORM = '{"SERVICE": {"service_s": [SECONDS, ...], "slots": N, "memory_bytes": N}, ...}'
REQUESTS = 20_000  # a thousand beyond the 95th percentile
BUSIEST = 0.95  # above it a queue takes longer to settle than any load stays the same
MOST = 1000
RESAMPLED = 20
"""How often the measured times are drawn anew to see how much the expectation hangs on which were measured."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured of one replica: seconds of work of single calls, calls at once, memory."""

    service: str
    service_s: tuple[float, ...]
    slots: int = 1
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Goal:
    """Requests a second with coefficient of variation ``cv`` between them, of which 95 % are answered in ``p95_s``."""

    rate: float
    p95_s: float
    cv: float = 1.0


@dataclass(frozen=True, slots=True)
class Planned:
    """One service: ``p95_s`` is of its own part of the way."""

    service: str
    replicas: int
    utilisation: float
    p95_s: float
    memory_bytes: int
    measured: int


@dataclass(frozen=True, slots=True)
class Plan:
    """``p95_s`` is expected of the whole way; it lies between ``low_s`` and ``high_s`` in nine of ten resamplings."""

    services: tuple[Planned, ...]
    p95_s: float
    low_s: float
    high_s: float
    met: bool

    @property
    def memory_bytes(self) -> int:
        return sum(one.memory_bytes for one in self.services)


def read_profiles(path: Path) -> tuple[Profile, ...]:
    """The services of a JSON file, in the order of the way. Raises InvalidInput that says what was expected."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        profiles = tuple(
            Profile(
                name, tuple(map(float, one["service_s"])), int(one.get("slots", 1)), int(one.get("memory_bytes", 0))
            )
            for name, one in found.items()
        )
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(f"{path} is no profile ({error!r}); expected {FORM}") from error
    for one in profiles:
        if not one.service_s or one.slots < 1 or not all(isfinite(s) and s > 0 for s in one.service_s):
            raise InvalidInput(f"{path}: {one.service} wants times above 0 s and 1 slot or more")
    if not profiles:
        raise InvalidInput(f"{path} names no service")
    return profiles


def plan(profiles: Sequence[Profile], goal: Goal, seed: int = 0) -> Plan:
    """The fewest replicas, added one by one where each shortens the whole way most; as many as help if none suffice."""
    responses: dict[str, dict[int, Floats]] = {one.service: {} for one in profiles}

    def p95(replicas: Mapping[str, int]) -> float:
        for one in profiles:
            known = responses[one.service]
            if replicas[one.service] not in known:
                known[replicas[one.service]] = response_s(one, replicas[one.service], goal, seed)
        return whole_p95([responses[one.service][replicas[one.service]] for one in profiles], seed)

    replicas = {one.service: fewest(one, goal.rate) for one in profiles}
    for name, count in replicas.items():
        if count > MOST:
            raise InvalidInput(
                f"{goal.rate:g} requests a second need {count:,} replicas of {name}; "
                f"no more than {MOST} are planned with"
            )
    expected = p95(replicas)
    while expected > goal.p95_s:
        more = [replicas | {name: count + 1} for name, count in replicas.items() if count < MOST]
        best = min(more, key=p95, default=replicas)
        if p95(best) > expected * 0.999:  # more replicas help no more: what is left is work
            break
        replicas, expected = best, p95(best)
    low, high = _spread(profiles, replicas, goal, seed)
    services = tuple(
        Planned(
            one.service,
            replicas[one.service],
            goal.rate * float(np.mean(one.service_s)) / (one.slots * replicas[one.service]),
            float(np.quantile(responses[one.service][replicas[one.service]], 0.95)),
            one.memory_bytes * replicas[one.service],
            len(one.service_s),
        )
        for one in profiles
    )
    return Plan(services, expected, low, high, expected <= goal.p95_s)


def fewest(profile: Profile, rate: float) -> int:
    """Replicas that are not busier than they can be for long."""
    return max(1, ceil(rate * float(np.mean(profile.service_s)) / (profile.slots * BUSIEST)))


def response_s(profile: Profile, replicas: int, goal: Goal, seed: int) -> Floats:
    """Seconds that each of ``REQUESTS`` takes, its wait included; the first tenth, while the queue fills, left out."""
    rng = np.random.default_rng(seed)
    shape = 1 / goal.cv**2
    arrivals = np.cumsum(rng.gamma(shape, 1 / (shape * goal.rate), REQUESTS))
    work = rng.choice(np.array(profile.service_s), REQUESTS)
    free = [0.0] * (replicas * profile.slots)
    heapify(free)
    ended = np.empty(REQUESTS)
    for place, (at, takes) in enumerate(zip(arrivals.tolist(), work.tolist(), strict=True)):
        ended[place] = end = max(at, free[0]) + takes
        heapreplace(free, end)
    return (ended - arrivals)[REQUESTS // 10 :]


def whole_p95(parts: Sequence[Floats], seed: int) -> float:
    """Of the sum of the parts, taken as independent."""
    rng = np.random.default_rng(seed)
    return float(np.quantile(np.sum([rng.permutation(part) for part in parts], axis=0), 0.95))


def _spread(profiles: Sequence[Profile], replicas: Mapping[str, int], goal: Goal, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    found = []
    for again in range(RESAMPLED):
        drawn = [replace(one, service_s=tuple(rng.choice(one.service_s, len(one.service_s)))) for one in profiles]
        found.append(whole_p95([response_s(one, replicas[one.service], goal, seed + again) for one in drawn], seed))
    return float(np.quantile(found, 0.05)), float(np.quantile(found, 0.95))
