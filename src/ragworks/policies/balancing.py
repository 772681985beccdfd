"""Which replica gets a call: the named strategies, each one pure function of what is known of the replicas.

Who drains, is ejected or unhealthy is not among the candidates; ``control.replicas.ReplicaSet`` sees to that, keeps
what is known up to date in place, and takes back what a pick has counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from random import Random

LOOKED_AT = 12
"""Candidates that ``adaptive`` weighs, drawn at random from more: bounds its cost, and keeps balancers that know the
same from all choosing the same replica."""

PATIENCE, MOST_PATIENCE = 64, 1024
"""Picks of the set after which a replica that was too slow to be picked is tried again; doubled each time that it still
is. So at most one call in 64, and soon one in 1024, is spent on finding out that a replica has recovered."""

NEAR = 1.05
"""Expected delays within 5 % are no difference: estimates are not that good."""


@dataclass(frozen=True, slots=True)
class BalanceSettings:
    """A DEGRADED replica gets ``degraded_share`` of what it would get, a new one as much as its part of
    ``slow_start_s``, and never less than ``least_share``."""

    strategy: str = "adaptive"
    degraded_share: float = 0.25
    slow_start_s: float = 10.0
    least_share: float = 0.1


@dataclass(slots=True)
class Load:
    """What one balancer knows of one replica: a snapshot that is updated, not rebuilt. Strategies only read it.

    ``turn`` grows with the picks of the set and says when this one was last picked; ``response_s`` is None before the
    first answer, percentages until they are reported. ``used`` counts picks since the last report.

    The rest is for ``adaptive``, in expected seconds at pace 1 (policies.pacing): ``pace`` out of ``known`` answers;
    ``backlog`` of all calls in flight and ``serving`` of the ``busy`` ones that are worked on; of these the sums of
    their starts (``since``), and of 1 and of starts per expected second (``parts``, ``parts_since``).
    """

    replica_id: str
    slots: int = 1
    active: int = 0
    turn: int = 0
    response_s: float | None = None
    cpu_percent: float | None = None
    memory_percent: float | None = None
    used: int = 0
    error_rate: float = 0.0
    pace: float = 1.0
    known: float = 1.0
    backlog: float = 0.0
    serving: float = 0.0
    busy: int = 0
    since: float = 0.0
    parts: float = 0.0
    parts_since: float = 0.0
    patience: int = PATIENCE


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that wants a replica: ``expected_s`` at pace 1, and ``usual_s`` of calls; 0 while nothing is known."""

    now: float
    turn: int = 0
    expected_s: float = 0.0
    usual_s: float = 0.0


Strategy = Callable[[Sequence[Load], Asked, Random], Load]
"""One of at least one candidate."""


_TURN = attrgetter("turn")
_ACTIVE = attrgetter("active", "turn")


def random(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """Any."""
    return loads[int(rng.random() * len(loads))]


def round_robin(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """Who has not been picked for longest."""
    return min(loads, key=_TURN)


def least_connections(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """The fewest calls in flight, then as round_robin."""
    return min(loads, key=_ACTIVE)


def response_time(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """The lowest average x (1 + 0.1 x active). Who has no average yet counts as an average one."""
    unknown = _mean([load.response_s for load in loads if load.response_s is not None])
    best, lowest = loads[0], float("inf")
    for load in loads:
        average = unknown if load.response_s is None else load.response_s
        score = average * (1.0 + 0.1 * load.active)
        if score < lowest or (score == lowest and load.turn < best.turn):
            best, lowest = load, score
    return best


def resource_usage(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """The lowest mean of CPU and memory per cent. What was sent since the last report is not in it yet, and counts
    as one slot of CPU a call, so that not all calls until the next report go to one replica."""
    reported = [_mean((load.cpu_percent or 0.0, load.memory_percent or 0.0)) for load in loads if _reports(load)]
    unknown = _mean(reported)
    best, lowest = loads[0], float("inf")
    for load in loads:
        usage = _mean((load.cpu_percent or 0.0, load.memory_percent or 0.0)) if _reports(load) else unknown
        score = usage + 50.0 * load.used / load.slots
        if score < lowest or (score == lowest and load.turn < best.turn):
            best, lowest = load, score
    return best


def p2c(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """The one of two random ones with fewer calls in flight (Mitzenmacher 2001)."""
    one = loads[int(rng.random() * len(loads))]
    two = loads[int(rng.random() * len(loads))]
    return two if two.active < one.active else one


def adaptive(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """The shortest expected delay, of one at random among near equals."""
    if len(loads) > LOOKED_AT:
        loads = rng.sample(loads, LOOKED_AT)
    due = _due(loads, asked)
    if due:
        return due
    expected_s = asked.expected_s or 1.0
    delays = [_delay_s(load, asked.now, expected_s) for load in loads]
    limit = min(delays) * NEAR
    near = [load for load, delay in zip(loads, delays, strict=True) if delay <= limit]
    return near[int(rng.random() * len(near))]


def _due(loads: Sequence[Load], asked: Asked) -> Load | None:
    """Who has been idle for longer than its patience, if the call is not a long one, which would wait for long."""
    if asked.expected_s > asked.usual_s:
        return None
    for load in loads:
        if asked.turn - load.turn > load.patience and not load.active:
            return load
    return None


def pace(load: Load, now: float) -> float:
    """The learnt pace, and slower if what is in flight has taken longer than that already.

    The calls in flight have used ``now x parts - parts_since`` times their expected seconds where ``pace x busy`` was
    to be expected in the end; the excess counts as if it had been seen on the ``known`` answers.
    """
    if load.busy:
        excess = now * load.parts - load.parts_since - load.pace * load.busy
        if excess > 0.0:
            return load.pace + excess / load.known
    return load.pace


def _delay_s(load: Load, now: float, expected_s: float) -> float:
    current = pace(load, now)
    delay = current * expected_s
    if load.active >= load.slots:
        ahead = max(0.0, current * load.serving - (now * load.busy - load.since))
        delay += (ahead / load.slots + current * (load.backlog - load.serving)) / load.slots
    if load.error_rate:
        delay /= max(0.05, 1.0 - load.error_rate)
    return delay * (1.0 + 0.02 * load.active / load.slots)


STRATEGIES: dict[str, Strategy] = {
    "round_robin": round_robin,
    "least_connections": least_connections,
    "response_time": response_time,
    "resource_usage": resource_usage,
    "p2c": p2c,
    "adaptive": adaptive,
    "random": random,
}


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def _reports(load: Load) -> bool:
    return load.cpu_percent is not None or load.memory_percent is not None
