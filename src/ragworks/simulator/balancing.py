"""Balancing strategies against recorded requests: replicas that queue, slow down and fail, on a virtual clock.

Drives ``control.replicas.ReplicaSet`` itself, so that what is measured is what serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ragworks.control.replicas import Outcome, Pick, ReplicaSet
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.simulator.traces import Requests

Case = Literal["steady", "long", "blackhole"]
Profile = Literal["generate", "embed"]
Floats = NDArray[np.float64]

REPLICAS = 6
SLOW = 3.0  # times slower is replica 0, always
DEGRADED = 4.0  # and replica 1, for a while
ERROR_S = 0.005
LONG = 4  # repetitions


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens, whoever balances: arrivals, the work of each in seconds at speed 1, and who is when how slow."""

    t: Floats
    work: Floats
    cost: Floats
    slots: int
    slow: tuple[float, float]
    errors: tuple[float, float]
    counted: int

    def pace(self, replica: int, now: float) -> float:
        if replica == 0:
            return SLOW
        return DEGRADED if replica == 1 and self.slow[0] <= now < self.slow[1] else 1.0

    def fails(self, replica: int, now: float) -> bool:
        return replica == 2 and self.errors[0] <= now < self.errors[1]


NEVER = (np.inf, np.inf)


def plan(requests: Requests, profile: Profile, rho: float, case: Case) -> Plan:
    """The set-up: the time axis rescaled so that offered work is ``rho`` of what replicas 0 to 5 can do."""
    if profile == "generate":
        work, slots = 0.05 + 0.0002 * requests.tokens_in + 0.02 * requests.tokens_out, 8
    else:
        work, slots = 0.005 + 0.00004 * requests.tokens_in, 1
    t, cost = requests.t - requests.t[0], requests.tokens_in
    capacity = slots * (REPLICAS - 1 + 1 / SLOW)
    t = t * (work.sum() / (rho * capacity) / t[-1])
    length, counted = float(t[-1]), 0
    slow, errors = (0.4 * length, 0.4 * length + length / 6), NEVER
    if case == "long":
        begin = (LONG - 1) * length
        t = np.concatenate([t + repetition * length for repetition in range(LONG)])
        work, cost, counted = np.tile(work, LONG), np.tile(cost, LONG), (LONG - 1) * len(work)
        slow = (begin + length / 3, begin + 2 * length / 3)
    elif case == "blackhole":
        slow, errors = NEVER, (0.5 * length, 0.6 * length)
    return Plan(t, work, cost, slots, slow, errors, counted)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Of the requests that count: seconds each took, and whether it ended in an error."""

    seconds: Floats
    failed: NDArray[np.bool_]


class _Servers:
    """First come, first served, within each replica; knows when each request will end as it comes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.free = [[0.0] * plan.slots for _ in range(REPLICAS)]

    def end(self, replica: int, now: float, work: float) -> float:
        begin = max(now, self.free[replica][0])
        return begin + work * self.plan.pace(replica, begin)

    def take(self, replica: int, now: float, work: float) -> float:
        end = self.end(replica, now, work)
        heapreplace(self.free[replica], end)
        return end


def oracle(plan: Plan) -> Outcomes:
    """Knows every size and speed, and sends each request where it will finish first."""
    servers = _Servers(plan)
    seconds = np.empty(len(plan.t))
    for at, (now, work) in enumerate(zip(plan.t.tolist(), plan.work.tolist(), strict=True)):
        best = min(range(REPLICAS), key=lambda replica: servers.end(replica, now, work))
        seconds[at] = servers.take(best, now, work) - now
    return Outcomes(seconds[plan.counted :], np.zeros(len(seconds) - plan.counted, dtype=bool))


def simulate(
    plan: Plan, strategy: str, balancers: int, seed: int, ejecting: EjectSettings, sized: bool = True
) -> Outcomes:
    rng = Random(seed)
    sets = [ReplicaSet(BalanceSettings(strategy), ejecting, Random(rng.random())) for _ in range(balancers)]
    for one in sets:
        for replica in range(REPLICAS):
            one.add(str(replica), 0.0, slots=plan.slots)
    servers = _Servers(plan)
    running: list[tuple[float, int, Pick, Outcome]] = []
    seconds, failed = np.empty(len(plan.t)), np.zeros(len(plan.t), dtype=bool)
    costs = plan.cost.tolist()
    for at, (now, work) in enumerate(zip(plan.t.tolist(), plan.work.tolist(), strict=True)):
        while running and running[0][0] <= now:
            end, _, pick, outcome = heappop(running)
            pick.release(end, outcome)
        picked = sets[int(rng.random() * balancers)].pick(now, cost=costs[at] if sized else None)
        assert picked is not None
        replica = int(picked.replica_id)
        if plan.fails(replica, now):
            end, outcome, failed[at] = now + ERROR_S, Outcome.FAILED, True
        else:
            end, outcome = servers.take(replica, now, work), Outcome.OK
        seconds[at] = end - now
        heappush(running, (end, at, picked, outcome))
    return Outcomes(seconds[plan.counted :], failed[plan.counted :])
