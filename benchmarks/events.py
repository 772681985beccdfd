"""What does it cost to record a decision, alone and in a flood, and to keep, read and replay it?

    scripts/bench events [--json]

One process, a new file in the temporary folder. CPU time of the caller for what happens on the event loop, wall time
for what happens in the thread of the file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import structlog

from ragworks.clock import SystemClock
from ragworks.control.behind import MAX_WAITING
from ragworks.control.events import Journal
from ragworks.policies.admission import QueueState
from ragworks.policies.admission import decide as admit
from ragworks.policies.replaying import asked_again
from ragworks.policies.restarting import RestartSettings, RestartState, decide
from ragworks.settings import EventSettings
from ragworks.storage.events import SqliteEvents

FLOOD, KEEP = 100_000, 10_000


def restart() -> dict[str, Any]:
    """A usual event: a restart that was decided."""
    inputs = {"settings": RestartSettings(), "state": RestartState((1.5, 2.5), 2, None, "killed"), "now": 3.5}
    decision = decide(**inputs, rng=Random(7))
    return {
        "reason": decision.reason, "policy": "restarting.decide", "inputs": {**inputs, "rng": 7}, "decision": decision,
    }  # fmt: skip


def refusal(ended: int) -> dict[str, Any]:
    """The largest: a full queue that ended so many documents lately."""
    seen = QueueState(1000, 10**6, 1000, 10**9, tuple(100 * n / ended + 0.123456789 for n in range(ended)))
    inputs = {"seen": seen, "documents": 1, "size_bytes": 1000, "now": 100.0}
    decision = admit(**inputs)
    return {"reason": decision.reason, "policy": "admission.decide", "inputs": inputs, "decision": decision}


async def measure() -> dict[str, float]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory() as folder:
        log = SqliteEvents(Path(folder, "events.db"), EventSettings(keep=KEEP), SystemClock())
        log.open()
        journal = Journal(log, SystemClock())
        record = journal.for_service("embeddings_service")
        usual, largest = restart(), refusal(1000)
        found = {
            "record_us": 1e6 * cpu(lambda n: record(f"restarts {n}", **usual), MAX_WAITING // 2),
            "record_in_a_flood_us": 1e6 * cpu(lambda n: record("flood", **usual), FLOOD),
        }
        await journal.flush()
        batch = list(await log.recent(limit=100))
        found["record_largest_us"] = 1e6 * cpu(lambda n: record(f"refused {n}", **largest), 100)
        await journal.flush()
        for name, [event] in (("usual", batch[:1]), ("largest", await log.recent(limit=1))):
            asked = partial(asked_again, event.policy, event.inputs, event.decision)
            found[f"replay_{name}_us"] = 1e6 * cpu(lambda n, asked=asked: asked(), 300)  # type: ignore[misc]
        found["append_100_ms"] = 1e3 * await wall(lambda: log.append(batch), 30)
        for _ in range(KEEP // 1000 + 1):
            await log.append(batch * 10)
        found["append_1_to_full_log_ms"] = 1e3 * await wall(lambda: log.append(batch[:1]), 100)
        found["newest_50_of_full_log_ms"] = 1e3 * await wall(lambda: log.recent(limit=50), 100)
        found["json_bytes_of_one"] = sum(len(json.dumps([e.inputs, e.decision])) for e in batch) / len(batch)
        log.close()
        found["file_mib"] = os.path.getsize(log.path) / 1024**2  # noqa: ASYNC240, nothing else runs
    return found


def cpu(work: Callable[[int], object], times: int) -> float:
    began = time.process_time()
    for n in range(times):
        work(n)
    return (time.process_time() - began) / times


async def wall(work: Callable[[], Awaitable[object]], times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    figures = asyncio.run(measure())
    if as_json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:30} {value:10.2f}")
