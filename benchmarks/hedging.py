"""What asking a second replica beside a slow one gains, on a virtual clock: the Balancer itself, replicas with a queue.

Calls arrive at random to four replicas of one slot each. A call takes 100 ms on average, and one in fifty ten times as
long through no fault of its own (a collection of garbage, a busy core). Run with ``scripts/bench hedging``.

Against itself: the slow calls are independent of each other and of the call; a call that is slow by nature is slow at
the second replica, too, and then hedging is only load.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from random import Random
from typing import Any

from ragworks.control.balancer import Balancer
from ragworks.control.replicas import ReplicaSet
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.calling import CallSettings, HedgeSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.testing import FakeClock

CALLS, REPLICAS, MEAN_S = 4000, 4, 0.1
SLOW_SHARE, SLOWER = 0.02, 10.0


class Queue:
    """A replica that works on one call at a time; one that is cancelled while it works frees it at once."""

    def __init__(self, replica_id: str, clock: FakeClock, rng: Random) -> None:
        self.id, self.worked_s = replica_id, 0.0
        self._clock, self._rng, self._slot = clock, rng, asyncio.Semaphore(1)

    async def call(self, verb: str, *arguments: Any, timeout_s: float | None = None, **named: Any) -> str:
        async with self._slot:
            takes_s = self._rng.gammavariate(4, MEAN_S / 4) * (SLOWER if self._rng.random() < SLOW_SHARE else 1.0)
            began = self._clock.monotonic()
            try:
                await self._clock.sleep(takes_s)
            finally:
                self.worked_s += self._clock.monotonic() - began
        return self.id


async def measured(rho: float, hedge: HedgeSettings) -> Mapping[str, float]:
    """Calls at ``rho`` of what the replicas can do: how long they took, and how much work it was."""
    clock, rng = FakeClock(), Random(11)
    replicas = ReplicaSet(BalanceSettings(), EjectSettings(), Random(1))
    queues = {f"replica-{n}": Queue(f"replica-{n}", clock, Random(n)) for n in range(REPLICAS)}
    for name in queues:
        replicas.add(name, 0.0)
    balancer = Balancer("any", replicas, queues, clock, Random(2), CallSettings(hedge=hedge))  # type: ignore[arg-type]
    took: list[float] = []

    async def one() -> None:
        began = clock.monotonic()
        await balancer.call("work")
        took.append(clock.monotonic() - began)

    usual_s = MEAN_S * (1 + SLOW_SHARE * (SLOWER - 1))
    async with asyncio.TaskGroup() as calls:
        for _ in range(CALLS):
            calls.create_task(one())
            await clock.advance(rng.expovariate(rho * REPLICAS / usual_s))
        await clock.advance(60.0)
    took.sort()
    return {
        "rho": rho,
        "quantile": hedge.quantile,
        "mean_ms": 1000 * sum(took) / CALLS,
        "p50_ms": 1000 * took[CALLS // 2],
        "p99_ms": 1000 * took[CALLS * 99 // 100],
        "p999_ms": 1000 * took[CALLS * 999 // 1000],
        "hedged_share": balancer.stats()["hedges"] / CALLS,
        "work_s": sum(queue.worked_s for queue in queues.values()),
    }


async def main() -> None:
    rows = [await measured(rho, HedgeSettings(quantile=q)) for rho in (0.3, 0.6, 0.8) for q in (0.0, 0.95, 0.98)]
    for row in rows:
        print(json.dumps({name: round(value, 4) for name, value in row.items()}))


if __name__ == "__main__":
    asyncio.run(main())
