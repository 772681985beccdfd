"""What callers notice when replicas in child processes die, hang, slow down, fail, leak or flap, under load.

Usage: python benchmarks/replica_faults.py [--replicas 3] [--rate 100] [--seconds 20] [--faults kill,hang,…] [--json].
Idempotent calls of 20 ms arrive at random at a group of replicas, kept by control.group.Group as the server keeps its
own. The fault strikes one replica after 3 s ("all dead": every one). Reported: calls, how many failed or took over 1 s,
median and worst time, and the seconds until as many replicas are healthy as before and stay so to the end (null if not
by then: a leak is replaced only after a minute, so give --seconds 90). Caveats: the
work is a wait, so replicas do not compete for cores with each other or with the callers; a start takes as long as
importing ragworks does, where a model would have to be loaded as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import structlog
from faulty import Faulty

from ragworks.bench.machine import commit, machine
from ragworks.clock import SystemClock
from ragworks.control.group import Group, GroupSettings
from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import Replica, ReplicaSpec
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.runtimes.replicas import ProcessRuntime
from ragworks.types import Health, Life

FAULTS = ("kill", "hang", "slow", "failing", "leaking", "flapping", "all dead")
BEFORE_S, LATE_S, LOOK_EVERY_S = 3.0, 1.0, 0.05
MEMORY_LIMIT_BYTES = 400 * 1024**2


async def strike(fault: str, replicas: Sequence[Replica]) -> None:
    one = replicas[0]
    if fault in ("kill", "hang"):
        os.kill(one.pid, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    elif fault == "all dead":
        for replica in replicas:
            os.kill(replica.pid, signal.SIGKILL)
    else:
        await one.call("misbehave", fault)


class Run:
    """One group under load, struck once."""

    def __init__(self, group: Group, rate: float, seconds: float) -> None:
        self.group, self.rate, self.seconds = group, rate, seconds
        self.took: list[float] = []
        self.errors: list[str] = []
        self.weak_at, self.strong = 0.0, True

    async def measured(self, fault: str) -> Mapping[str, Any]:
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._calls(began))
            await asyncio.sleep(BEFORE_S)
            struck_at = self.weak_at = time.monotonic()
            await strike(fault, list(self.group.handles.values()))
            tasks.create_task(self._watch(began))
        times, stats = sorted(self.took) or [0.0], self.group.balancer.stats()
        return {
            "fault": fault,
            "calls": len(self.took) + len(self.errors),
            "failed": len(self.errors),
            "over_1_s": sum(one > LATE_S for one in times),
            "p50_ms": round(1000 * times[len(times) // 2], 1),
            "worst_ms": round(1000 * times[-1], 1),
            "full_strength_s": round(self.weak_at - struck_at, 2) if self.strong else None,
            "retries": stats["retries"],
            "ejections": stats["ejections"],
            "errors": sorted(set(self.errors))[:3],
        }

    async def _calls(self, began: float) -> None:
        rng = Random(5)
        async with asyncio.TaskGroup() as calls:
            while time.monotonic() - began < self.seconds:
                calls.create_task(self._one())
                await asyncio.sleep(rng.expovariate(self.rate))

    async def _one(self) -> None:
        began = time.monotonic()
        try:
            await self.group.balancer.call("work")
            self.took.append(time.monotonic() - began)
        except Exception as error:  # whatever a caller would see is what is counted
            self.errors.append(f"{type(error).__name__}: {error}")

    async def _watch(self, began: float) -> None:
        """Note when the group was last below its strength."""
        while time.monotonic() - began < self.seconds:
            views = self.group.balancer.views()
            well = sum(view.life is Life.READY and view.health is Health.HEALTHY for view in views)
            self.strong = well >= self.group.size
            if not self.strong:
                self.weak_at = time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)


async def one_fault(fault: str, replicas: int, rate: float, seconds: float) -> Mapping[str, Any]:
    async with AsyncExitStack() as opened:
        runtime = await opened.enter_async_context(ProcessRuntime(max_calls=4096))
        group = Group(
            ReplicaSpec("faulty", Faulty),
            runtime,
            ReplicaSet(BalanceSettings(), EjectSettings(), Random(1)),
            SystemClock(),
            Random(2),
            GroupSettings(replicas, 1, replicas, memory_limit_bytes=MEMORY_LIMIT_BYTES),
        )
        await group.start()
        opened.push_async_callback(group.stop)
        return await Run(group, rate, seconds).measured(fault)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of load, for each fault")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rows = [
        asyncio.run(one_fault(fault, given.replicas, given.rate, given.seconds)) for fault in given.faults.split(",")
    ]
    if given.json:
        print(json.dumps({"machine": machine(), "commit": commit(), "faults": rows}, indent=2))
        return
    print(f"{machine()}, commit {commit()}; {given.replicas} replicas, {given.rate:g} calls a second")
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
