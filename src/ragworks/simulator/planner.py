"""How many replicas a load and a latency goal need, from measured times of work: simulated, not looked up.

Two kinds of work are told apart. What computes here (the server's process and the engines beside it) shares cores and
one interpreter, so that each request goes the slower the more there are: how much slower was measured, as answers a
second by how many were asked at once, and is not derived. What waits for somebody else's machine has slots and a queue.
Times of work are drawn from those measured, so that their spread counts and no formula is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from ragworks.simulator.pacing import Paces, fitted, paced
from ragworks.simulator.profiles import SERVER, Lives, Measured, Profile
from ragworks.simulator.queues import Floats, queued, shared

Replicas = Mapping[str, int]

REQUESTS = 20_000  # a thousand beyond the 95th percentile
BUSIEST = 0.95  # above it a queue takes longer to settle than any load stays the same
MOST = 1000
RESAMPLED = 20
"""How often the measurements are drawn anew to see how much the expectation hangs on which were made."""
DISTURBED = 0.1
SLOWED = 0.9
MEASURED_WITHIN = 0.1
"""Of a replica: 1 % more CPU than time, which is noise, must not cost a whole one."""
FEW = 50
"""Calls of which the slowest twentieth is two or three."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Requests a second with coefficient of variation ``cv`` between them, of which 95 % are answered in ``p95_s``."""

    rate: float
    p95_s: float
    cv: float = 1.0


@dataclass(frozen=True, slots=True)
class Planned:
    """One service. ``work_s`` is its mean share of an answer without any wait; ``cores`` are kept busy by the load.

    ``memory_bytes`` and ``cores`` are None where they were not measured."""

    service: str
    lives: Lives
    replicas: int
    slots: int
    work_s: float
    cores: float | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """``p95_s`` is expected of the whole way; it lies between ``low_s`` and ``high_s`` in nine of ten resamplings.

    All three are None where the load is beyond ``capacity``, the requests a second that can be answered for long.
    ``limit`` says what bounds it. ``notes`` are what the figures rest on.
    """

    services: tuple[Planned, ...]
    capacity: float
    limit: str
    p95_s: float | None
    low_s: float | None
    high_s: float | None
    met: bool
    notes: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        return sum(one.memory_bytes or 0 for one in self.services)


def plan(profile: Profile, goal: Goal, seed: int = 0) -> Plan:
    """The fewest replicas, added one by one where each shortens the way most; as many as help if none suffice."""
    way = Way(profile)
    replicas: Replicas = {one.service: 1 for one in profile.services}
    while way.capacity(replicas) * BUSIEST < goal.rate:
        more = [one for one in way.more(replicas) if way.capacity(one) > way.capacity(replicas)]
        if not more:
            return _planned(way, replicas, goal, None, seed)
        replicas = max(more, key=way.capacity)
    expected = p95(way, replicas, goal, seed)
    while expected > goal.p95_s:
        better = min(((p95(way, one, goal, seed), at, one) for at, one in enumerate(way.more(replicas))), default=None)
        if better is None or better[0] > expected * 0.999:  # more replicas help no more: what is left is work
            break
        expected, _, replicas = better
    return _planned(way, replicas, goal, expected, seed)


class Way:
    """The services as a request meets them: what computes here as one, then each that waits."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.here = tuple(one for one in profile.services if one.lives is not Lives.OUTSIDE)
        self.outside = tuple(one for one in profile.services if one.lives is Lives.OUTSIDE)
        self.engines = tuple(one for one in self.here if one.lives is Lives.PROCESS)
        self.work_s: Floats = np.sum([one.service_s for one in self.here], axis=0)
        self._measured = {one.service: one.replicas for one in profile.services}
        self.paces: Paces = (1.0, 1.0)
        self.paces = fitted(self.rates(self._measured), self.work_s, profile.at_random)

    def more(self, replicas: Replicas) -> list[Replicas]:
        """One replica more of each service that can have one: the server's process is one, and engines need cores."""
        able = [one for one in self.outside if replicas[one.service] < MOST]
        able += [one for one in self.engines if replicas[one.service] < self.fed(one)]
        return [{**replicas, one.service: replicas[one.service] + 1} for one in able]

    def fed(self, engine: Measured) -> int:
        """Replicas that the cores can feed. One core is the server's own. As many as there were, whatever the cores."""
        if self.profile.cores is None:
            return engine.replicas
        fed = (self.profile.cores - 1) / max(1.0, _cpu_s(engine) / _mean(engine))
        return max(engine.replicas, 1, int(fed + MEASURED_WITHIN))

    def bounds(self, replicas: Replicas) -> dict[str, float]:
        """Answers a second that each part of this machine could give if nothing else were in its way."""
        server = [one for one in self.here if one.lives is Lives.SERVER]
        # Where it was not seen, one core for the whole time.
        server_s = next((one.cpu_s for one in server if one.service == SERVER), None) or sum(map(_mean, server))
        cpu_s = server_s + sum(map(_cpu_s, self.engines))
        found = {"": 1 / server_s, "cores": (self.profile.cores or inf) / cpu_s}
        return found | {one.service: replicas[one.service] / _mean(one) for one in self.engines}

    def rates(self, replicas: Replicas) -> Floats:
        """Answers a second while so many are computed at once, from 0 on; the last holds for all beyond.

        What was measured holds for the replicas that were there; others change it as they change the lowest bound.
        """
        alone = 1 / float(np.mean(self.work_s))
        bound, was = min(self.bounds(replicas).values()), min(self.bounds(self._measured).values())
        levels, measured = [0, 1], [0.0, alone]
        if at_once := self.profile.at_once:
            levels += sorted(at_once)
            measured += [float(np.median(at_once[many])) * bound / was for many in sorted(at_once)]
        else:
            levels.append(max(2, int(np.ceil(bound / alone))))
            measured.append(max(alone, bound))
        counts = np.arange(levels[-1] + 1)
        found: Floats = np.minimum(np.interp(counts, levels, measured), counts * alone)
        return paced(found, self.paces)

    def capacity(self, replicas: Replicas) -> float:
        """Requests a second that are answered for long."""
        ends = [one.slots * replicas[one.service] / _mean(one) for one in self.outside]
        return min([float(self.rates(replicas)[-1]), *ends])

    def limit(self, replicas: Replicas) -> str:
        """What bounds the capacity, in words."""
        for one in self.outside:
            if one.slots * replicas[one.service] / _mean(one) <= self.capacity(replicas):
                return f"{one.service} answers {one.slots * replicas[one.service]} calls at once"
        bounds = self.bounds(replicas)
        name = min(bounds, key=bounds.__getitem__)
        if not name:
            inside = ", ".join(one.service for one in self.here if one.lives is Lives.SERVER)
            return f"the server's process ({inside}, with vector_store): it is one, has one core, and cannot be scaled"
        if name == "cores":
            return f"{_cores(self.profile)} of this machine"
        return f"{name} works on one batch at a time in each of its replicas"


def p95(way: Way, replicas: Replicas, goal: Goal, seed: int) -> float:
    return float(np.quantile(response_s(way, replicas, goal, seed), 0.95))


def response_s(way: Way, replicas: Replicas, goal: Goal, seed: int) -> Floats:
    """Seconds that each of ``REQUESTS`` takes, its waits included; the first tenth, while queues fill, left out."""
    rng = np.random.default_rng(seed)
    shape = 1 / goal.cv**2
    arrivals = np.cumsum(rng.gamma(shape, 1 / (shape * goal.rate), REQUESTS))
    return answered_s(way, replicas, arrivals, rng)[REQUESTS // 10 :]


def answered_s(way: Way, replicas: Replicas, arrivals: Floats, rng: np.random.Generator) -> Floats:
    """Seconds that the requests take that come at these times, in order; what each needs is drawn."""
    drawn = rng.integers(way.profile.calls, size=len(arrivals))
    ends = shared(arrivals, way.work_s[drawn], way.rates(replicas))
    for one in way.outside:
        ends = queued(ends, np.array(one.service_s)[drawn], one.slots * replicas[one.service])
    return ends - arrivals


def _spread(way: Way, replicas: Replicas, goal: Goal, seed: int) -> tuple[float, float]:
    """Of p95 when calls and rounds are drawn anew, with replacement."""
    rng, profile = np.random.default_rng(seed), way.profile
    found = []
    for again in range(RESAMPLED):
        calls = rng.integers(profile.calls, size=profile.calls)
        services = tuple(replace(one, service_s=tuple(np.array(one.service_s)[calls])) for one in profile.services)
        at_once = {many: tuple(rng.choice(rates, len(rates))) for many, rates in profile.at_once.items()}
        at_random = {
            share: tuple(rounds[one] for one in rng.integers(len(rounds), size=len(rounds)))
            for share, rounds in profile.at_random.items()
        }
        drawn = Way(replace(profile, services=services, at_once=at_once, at_random=at_random))
        found.append(p95(drawn, replicas, goal, seed + again))
    return float(np.quantile(found, 0.05)), float(np.quantile(found, 0.95))


def _planned(way: Way, replicas: Replicas, goal: Goal, expected: float | None, seed: int) -> Plan:
    low, high = (None, None) if expected is None else _spread(way, replicas, goal, seed)
    services = tuple(
        Planned(
            one.service,
            one.lives,
            replicas[one.service],
            one.slots,
            _mean(one),
            None if one.cpu_s is None else goal.rate * one.cpu_s,
            None if one.memory_bytes is None else one.memory_bytes * replicas[one.service],
        )
        for one in way.profile.services
    )
    met = expected is not None and expected <= goal.p95_s
    return Plan(services, way.capacity(replicas), way.limit(replicas), expected, low, high, met, _notes(way, replicas))


def _notes(way: Way, replicas: Replicas) -> tuple[str, ...]:
    found, profile = [], way.profile
    if profile.calls < FEW:
        found.append(
            f"only {profile.calls} calls were measured: the p95 of so few is a guess; measure with --calls 200"
        )
    if not profile.at_once:
        found.append("how much answers slow each other down was not measured, and is derived from their times alone")
    if min(way.paces) < SLOWED:
        few, many = way.paces
        found.append(
            f"questions at random times were answered at {few:.2f} (few at once) to {many:.2f} (many) of the pace of "
            "those that were asked one after another, or always so many at once; the plan counts on that"
        )
    for one in way.engines:
        if replicas[one.service] > one.replicas:
            found.append(
                f"{replicas[one.service]} replicas of {one.service} were not measured, {one.replicas} were: start so "
                "many and measure again before you rely on it"
            )
        elif replicas[one.service] >= way.fed(one):
            found.append(
                f"no more than {way.fed(one)} of {one.service}: {_cores(profile)} feed no more beside the server, and "
                "what gets no core slows the others down"
            )
    for one in way.outside:
        found.append(f"{one.service} is asked elsewhere: that it is as fast when asked more at once is assumed")
    source = profile.source
    if source.other_questions:
        found.append(f"{source.other_questions} other questions were answered during the measurement, which slowed it")
    if source.other_cores is not None and profile.cores and source.other_cores > DISTURBED * profile.cores:
        found.append(
            f"other programs kept {source.other_cores:.1f} of {profile.cores} cores busy during the measurement, which "
            "slowed it; measure again when the machine is quiet"
        )
    return tuple(found)


def _cores(profile: Profile) -> str:
    return "cores that could not be seen" if profile.cores is None else f"the {profile.cores} cores"


def _mean(one: Measured) -> float:
    return float(np.mean(one.service_s))


def _cpu_s(one: Measured) -> float:
    """Where it was not seen, one core for the whole time."""
    return _mean(one) if one.cpu_s is None else one.cpu_s
