"""What a caller notices when a replica of the embedding model is killed or stopped, and how soon it is made good.

    python benchmarks/engine_faults.py [--model bge-small-en-v1.5] [--instances 2]

A server's App in this process, its engines in child processes; four callers ask for the vector of a new question, one
after another. After each fault: calls that failed, the longest call, and the time until every replica is healthy again.
Caveat: callers and server share an event loop, and all replicas two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass, field

from ragworks.app import App, build
from ragworks.settings import load

CALLERS = 4
QUIET_S = 3.0
DEADLINE_S = 120.0


@dataclass
class Seen:
    """Calls since the fault: seconds of each, and the reasons of those that failed."""

    took_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Callers:
    def __init__(self, app: App) -> None:
        self._app, self.seen, self._number = app, Seen(), 0

    async def call(self) -> None:
        while True:
            self._number += 1
            began = time.monotonic()
            made = await self._app.embeddings_service.embed_texts([f"question {self._number}"], kind="question")
            self.seen.took_s.append(time.monotonic() - began)
            self.seen.failed += [one.reason for one in made.failed]


def replicas(app: App) -> dict[str, int]:
    """Process by id of those that are well."""
    found = app.orchestrator.report("embeddings_service").replicas
    return {one.id: one.pid for one in found if one.status == "healthy" and one.pid}


async def fault(app: App, callers: Callers, name: str, number: signal.Signals, many: int) -> str:
    """One line of the table."""
    before = replicas(app)
    await asyncio.sleep(QUIET_S)
    usual_ms = 1000 * statistics.median(callers.seen.took_s)
    callers.seen = Seen()
    began = time.monotonic()
    victims = list(before)[:many]
    for victim in victims:
        os.kill(before[victim], number)
    while ((well := replicas(app)) and victims[0] in well) or len(well) < len(before):
        await asyncio.sleep(0.02)
        if time.monotonic() - began > DEADLINE_S:
            return f"| {name} | not made good within {DEADLINE_S:g} s | | | |"
    full_s, seen = time.monotonic() - began, callers.seen
    row = f"{len(seen.took_s)} | {len(seen.failed)} | {max(seen.took_s, default=0):.2f} | {full_s:.1f}"
    callers.seen = Seen()
    return f"| {name} ({usual_ms:.1f} ms a call before) | {row} |"


async def main(model: str, instances: int) -> None:
    with tempfile.TemporaryDirectory() as data:
        settings = load(
            environ={},
            server={"data": data},
            embeddings_service={"model_name": model, "replicas": {"runtime": "process", "instances": instances}},
            log={"level": "error"},
        )
        async with build(settings) as app, asyncio.TaskGroup() as tasks:
            callers = Callers(app)
            calling = [tasks.create_task(callers.call()) for _ in range(CALLERS)]
            print(f"{model}, {instances} replicas, {CALLERS} callers\n")
            print("| fault | calls | failed | longest, s | all well after, s |\n|---|---|---|---|---|")
            print(await fault(app, callers, "kill -9 of one", signal.SIGKILL, 1))
            print(await fault(app, callers, "kill -9 of all", signal.SIGKILL, instances))
            print(await fault(app, callers, "SIGSTOP of one", signal.SIGSTOP, 1))
            print(await fault(app, callers, "SIGSTOP of all", signal.SIGSTOP, instances))
            for task in calling:
                task.cancel()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", default="bge-small-en-v1.5")
    arguments.add_argument("--instances", type=int, default=2)
    given = arguments.parse_args()
    asyncio.run(main(given.model, given.instances))
