"""Which replica gets a call: the named strategies, each one pure function of what is known of the replicas.

Who drains, is ejected or unhealthy is not among the candidates; ``control.replicas.ReplicaSet`` sees to that, keeps
what is known up to date, and takes back what a pick has counted. To add a strategy, write such a function and name it
in ``STRATEGIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from random import Random

from ragworks.policies.loads import Load, expected_delay_s

LOOKED_AT = 12
"""Candidates that ``adaptive`` weighs, drawn at random where there are more: bounds its cost, and keeps balancers that
know the same from choosing the same replica."""

NEAR = 1.05
"""Expected delays within 5 % are no difference: estimates are not that good, and a tie is no reason to herd."""


@dataclass(frozen=True, slots=True)
class BalanceSettings:
    """A DEGRADED replica gets ``degraded_share`` of the picks it would get, and one that is new or back a share that
    grows over ``slow_start_s``, from ``least_share`` on."""

    strategy: str = "adaptive"
    degraded_share: float = 0.25
    slow_start_s: float = 10.0
    least_share: float = 0.1


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that wants a replica, the ``turn``-th of its set: ``expected_s`` it should take at pace 1 where the usual
    one takes ``usual_s``; both 0 while nothing is known."""

    now: float
    turn: int = 0
    expected_s: float = 0.0
    usual_s: float = 0.0


Strategy = Callable[[Sequence[Load], Asked, Random], Load]
"""One of at least one candidate."""

_turn = attrgetter("turn")
_active = attrgetter("active", "turn")


def round_robin(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """Who has not been picked for longest."""
    return min(loads, key=_turn)


def least_connections(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """The fewest calls in flight, then as round_robin."""
    return min(loads, key=_active)


def response_time(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """The lowest average x (1 + 0.1 x active), then as round_robin. Who has none yet is taken to be as fast as the
    fastest: zero would draw every call, and a mean none at all."""
    unknown = min((load.response_s for load in loads if load.response_s is not None), default=1.0)
    best, lowest = loads[0], float("inf")
    for load in loads:
        score = (unknown if load.response_s is None else load.response_s) * (1.0 + 0.1 * load.active)
        if score < lowest or (score == lowest and load.turn < best.turn):
            best, lowest = load, score
    return best


def resource_usage(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """The lowest mean of CPU and memory per cent, then as round_robin. Who reports none counts as the least used.

    What was picked since the last report is not in it yet, and counts as a slot's worth of CPU each, so that not every
    call until the next report goes to one replica.
    """
    usages = [_usage(load) for load in loads]
    unknown = min((usage for usage in usages if usage is not None), default=0.0)
    best, lowest = loads[0], float("inf")
    for load, usage in zip(loads, usages, strict=True):
        reported, unreported = (unknown, load.active) if usage is None else (usage, load.used)
        score = reported + 50.0 * unreported / load.slots
        if score < lowest or (score == lowest and load.turn < best.turn):
            best, lowest = load, score
    return best


def p2c(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """Of two random ones that with fewer calls in flight (Mitzenmacher 2001)."""
    one = random(loads, asked, rng)
    two = loads[int(rng.random() * (len(loads) - 1))]
    two = loads[-1] if two is one else two  # so that each pair of two different ones is as likely as any other
    return two if two.active < one.active else one


def adaptive(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """The shortest expected delay, at random among near equals; now and then one that has long been too slow."""
    a_round = len(loads)
    if len(loads) > LOOKED_AT:
        loads = [random(loads, asked, rng) for _ in range(LOOKED_AT)]  # a double does no harm
    if asked.expected_s <= asked.usual_s:  # a long call would wait for long, should that one still be slow
        for load in loads:
            if asked.turn - load.turn > load.patience * a_round and not load.active:
                return load
    now, expected_s = asked.now, asked.expected_s or 1.0
    delays = [expected_delay_s(load, now, expected_s) for load in loads]
    limit = min(delays) * NEAR
    return random([load for load, delay in zip(loads, delays, strict=True) if delay <= limit], asked, rng)


def random(loads: Sequence[Load], asked: Asked, rng: Random) -> Load:
    """Any: the yardstick for the others."""
    return loads[int(rng.random() * len(loads))]


STRATEGIES: dict[str, Strategy] = {
    "round_robin": round_robin,
    "least_connections": least_connections,
    "response_time": response_time,
    "resource_usage": resource_usage,
    "p2c": p2c,
    "adaptive": adaptive,
    "random": random,
}


def _usage(load: Load) -> float | None:
    if load.cpu_percent is None and load.memory_percent is None:
        return None
    return ((load.cpu_percent or 0.0) + (load.memory_percent or 0.0)) / 2.0
