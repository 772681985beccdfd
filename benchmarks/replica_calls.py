"""What a call to a replica in a process of its own costs, beside the ways there are already.

Usage: python benchmarks/replica_calls.py [--rounds 5] [--calls 1000] [--json]. Each call sends a payload and gets it
back: nothing, 100 KB (64 vectors of 384 float32), 10 MB; one call at a time, then sixteen at once. The contenders are
asked in turns; a figure is the median over the rounds. Exit code 1 if the median of an empty call to a process replica
is above 0.3 ms. `pipe` is multiprocessing.Pipe without an event loop, which blocks its caller and takes one call at a
time; `executor` is ProcessPoolExecutor with one process, under asyncio; `ray` an asynchronous actor, if Ray is
installed. Caveats: two processes share the machine's cores with the benchmark; inline passes objects, copying nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ragworks.bench.machine import commit, machine
from ragworks.control_protocols import ReplicaSpec
from ragworks.runtimes.inline import InlineRuntime
from ragworks.runtimes.replicas import ProcessRuntime
from ragworks.types import Health, ServiceHealth

GOAL_MS = 0.3
PAYLOADS = {"nothing": 0, "100 KB": 64 * 384 * 4, "10 MB": 10_000_000}
AT_ONCE = (1, 16)
WARM_UP = 20

Call = Callable[[Any], Awaitable[Any]]


class Echo:
    """The service: it says again what it is told."""

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def check_health(self) -> ServiceHealth:
        return ServiceHealth("echo", Health.HEALTHY, 0.0, 0, 0.0, {})

    def stats(self) -> dict[str, Any]:
        return {}

    async def echo(self, value: Any) -> Any:
        return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1000, help="empty calls a round; larger ones are fewer")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = asyncio.run(measured(given))
    print(json.dumps(found, indent=2) if given.json else table(found))
    sys.exit(0 if found["met"] else 1)


async def measured(given: argparse.Namespace) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        calls = {name: await stack.enter_async_context(make()) for name, make in CONTENDERS.items()}
        rows = []
        for name, size in PAYLOADS.items():
            payload = np.ones(size // 4, np.float32) if size else None
            count = max(20, given.calls // (1 + size // 30_000))
            for at_once in AT_ONCE:
                rows += await compared(calls, payload, count, at_once, given.rounds, name)
    empty = next(row for row in rows if (row["contender"], row["payload"], row["at_once"]) == ("process", "nothing", 1))
    met = empty["p50_ms"] <= GOAL_MS
    return {
        "machine": machine(),
        "commit": commit(),
        "rounds": given.rounds,
        "goal_ms": GOAL_MS,
        "met": met,
        "rows": rows,
    }


async def compared(
    calls: dict[str, Call], payload: Any, count: int, at_once: int, rounds: int, name: str
) -> list[dict[str, Any]]:
    seen: dict[str, list[tuple[float, float, float]]] = {contender: [] for contender in calls}
    for number in range(rounds + 1):
        for contender, call in calls.items():
            if at_once > 1 and contender in ONE_AT_A_TIME:
                continue
            figures = await timed(call, payload, WARM_UP if number == 0 else count, at_once)
            if number:
                seen[contender].append(figures)
    keys = ("p50_ms", "p99_ms", "calls_per_s")
    return [
        {"contender": contender, "payload": name, "at_once": at_once, "calls": count}
        | {key: round(statistics.median(values), 3) for key, values in zip(keys, zip(*of, strict=True), strict=True)}
        for contender, of in seen.items()
        if of
    ]


async def timed(call: Call, payload: Any, count: int, at_once: int) -> tuple[float, float, float]:
    """Milliseconds of a call, at the median and the 99th percentile, and calls a second."""
    took: list[float] = []
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            began = time.perf_counter()
            await call(payload)
            took.append(1000 * (time.perf_counter() - began))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    seconds = time.perf_counter() - began
    took.sort()
    return took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)], count / seconds


@asynccontextmanager
async def inline() -> AsyncIterator[Call]:
    async with InlineRuntime() as runtime:
        replica = await runtime.start(ReplicaSpec("echo", Echo), "echo-1")
        yield lambda value: replica.call("echo", value)


@asynccontextmanager
async def process() -> AsyncIterator[Call]:
    async with ProcessRuntime() as runtime:
        # By its module's name: this file is __main__ here, and would be another there.
        from replica_calls import Echo as Importable

        replica = await runtime.start(ReplicaSpec("echo", Importable), "echo-1")
        yield lambda value: replica.call("echo", value)


@asynccontextmanager
async def pipe() -> AsyncIterator[Call]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=answer, args=(theirs,), daemon=True)
    child.start()
    theirs.close()

    async def call(value: Any) -> Any:
        ours.send(value)
        return ours.recv()

    yield call
    ours.close()
    child.join()


def answer(connection: Connection) -> None:
    while True:
        try:
            connection.send(connection.recv())
        except EOFError:
            return


@asynccontextmanager
async def executor() -> AsyncIterator[Call]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        loop = asyncio.get_running_loop()
        yield lambda value: loop.run_in_executor(pool, same, value)


def same(value: Any) -> Any:
    return value


@asynccontextmanager
async def ray_actor() -> AsyncIterator[Call]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=1)
    actor = ray.remote(Echo).options(num_cpus=0, max_concurrency=max(AT_ONCE)).remote()
    try:
        yield lambda value: actor.echo.remote(value)
    finally:
        ray.shutdown()


def has_ray() -> bool:
    try:
        import ray  # noqa: F401
    except ImportError:
        return False
    return True


CONTENDERS: dict[str, Any] = {"inline": inline, "process": process, "pipe": pipe, "executor": executor}
if has_ray():
    CONTENDERS["ray"] = ray_actor
ONE_AT_A_TIME = {"pipe"}


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}, {found['rounds']} rounds"]
    lines.append(f"{'payload':10}{'at once':>8}  {'contender':12}{'p50 ms':>10}{'p99 ms':>10}{'calls/s':>10}")
    for row in found["rows"]:
        lines.append(
            f"{row['payload']:10}{row['at_once']:>8}  {row['contender']:12}{row['p50_ms']:>10.3f}{row['p99_ms']:>10.3f}"
            f"{row['calls_per_s']:>10.0f}"
        )
    lines.append(f"an empty call within {GOAL_MS} ms" if found["met"] else f"NOT within {GOAL_MS} ms for an empty call")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
