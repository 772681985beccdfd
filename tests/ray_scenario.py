"""A Ray on this machine from start to end, in a process of its own: Ray leaves threads, signal handlers and warnings
behind. ``python ray_scenario.py FOLDER`` writes what it saw to FOLDER/seen.json; end_to_end/test_ray.py judges it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import serve

import ray_services as services
from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import ReplicaSpec
from ragworks.policies.balancing import BalanceSettings
from ragworks.runtimes.ray_deployed import Deployed
from ragworks.runtimes.ray_serve import Routing, application
from ragworks.testing import until

SLOW_S, FAST_S = 1.0, 0.02
CALLS, CALLERS = 60, 4
PATIENCE_S = 15.0
MAX_CALLS = 4  # at one replica, and more wait with the caller
IN_TURN = Routing(ReplicaSet, BalanceSettings("round_robin"), report_s=0.5)


def main(folder: Path) -> None:
    seen: dict[str, Any] = {}
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    children: list[psutil.Process] = []
    try:
        serve.start(proxy_location="Disabled")
        deploy(folder)
        children = psutil.Process().children(recursive=True)
        seen["ports"] = open_ports([psutil.Process(), *children])
        asyncio.run(scenario(folder, seen))
    finally:
        children = list({*children, *psutil.Process().children(recursive=True)})
        serve.shutdown()
        ray.shutdown()
        _, left = psutil.wait_procs(children, timeout=PATIENCE_S)
        seen["processes"] = {"were": len(children), "left": [str(child) for child in left]}
        (folder / "seen.json").write_text(json.dumps(seen))


def deploy(folder: Path) -> None:
    (folder / "engine").mkdir()
    (folder / "generation").mkdir()
    engine = ReplicaSpec("engine", services.embedding_engine, (folder / "engine", SLOW_S, FAST_S))
    generation = ReplicaSpec("generation", services.generation_service, (folder / "generation",))
    patient = ReplicaSpec("patient", services.Patient, (folder / "log",))
    serve.run_many(
        [
            target(engine, Routing(ReplicaSet)),
            target(generation, IN_TURN),
            target(patient, replace(IN_TURN, table=services.Watched)),
        ]
    )


def target(spec: ReplicaSpec, routing: Routing) -> serve.RunTarget:
    made = application(spec, 2, routing, max_calls=MAX_CALLS, drain_s=5.0, actor_options={"num_cpus": 0})
    return serve.RunTarget(made, spec.service, route_prefix=None)


def open_ports(processes: list[psutil.Process]) -> dict[str, list[str]]:
    """Where they listen: on this machine's own addresses, and elsewhere."""
    ports: dict[str, list[str]] = {"loopback": [], "elsewhere": []}
    for process in processes:
        for one in process.net_connections():
            if one.status == psutil.CONN_LISTEN:
                own = one.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
                ports["loopback" if own else "elsewhere"].append(f"{process.pid} {one.laddr.ip}:{one.laddr.port}")
    return ports


async def scenario(folder: Path, seen: dict[str, Any]) -> None:
    engine, generation, patient = (Deployed(name) for name in ("engine", "generation", "patient"))
    log = Log(folder / "log")
    seen["verbs"] = await verbs(engine, patient)
    seen["shares"] = await shares(engine, patient, folder / "engine")
    seen["stream"] = await stream(generation)
    seen["ends"] = await ends(patient, log)
    seen["full"] = await full(patient, log)
    seen["killed"] = await killed(patient, log)
    await patient.stop()
    seen["log"] = log.lines()


async def verbs(engine: Deployed, patient: Deployed) -> dict[str, Any]:
    made = await engine.call("embed", ["one text", "another"], kind="question")
    try:
        await patient.call("refuse")
    except Exception as error:
        refused = [type(error).__name__, str(error), *error.args]
    return {
        "vectors": made.vectors.tolist(),
        "type": f"{type(made).__name__} of {made.vectors.dtype}, writeable {made.vectors.flags.writeable}",
        "card": (await engine.call("describe")).name,
        "health": (await engine.call("check_health")).status,
        "stats": sorted(await engine.call("stats")),
        "refused": refused,
    }


async def shares(engine: Deployed, patient: Deployed, folder: Path) -> dict[str, Any]:
    """How many calls the slow of two got by ``adaptive``, and how many each of two by ``round_robin``."""
    numbers = iter(range(CALLS))

    async def caller() -> None:
        for number in numbers:
            await engine.call("embed", [f"text {number}"], "passage")

    before = embedded(folder)
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    got = embedded(folder) - before
    in_turn = Counter([await patient.call("pid") for _ in range(20)])
    return {"slow": got[(folder / "first").read_text()], "all": got.total(), "in_turn": sorted(in_turn.values())}


def embedded(folder: Path) -> Counter[str]:
    """Texts by the process that embedded them."""
    counts: Counter[str] = Counter()
    for line in (folder / "embedded").read_text().splitlines():
        pid, texts = line.split()
        counts[pid] += int(texts)
    return counts


async def stream(generation: Deployed) -> dict[str, Any]:
    """Ask, in turn, until forty answers were good without an error between."""
    errors: Counter[str] = Counter()
    good, latest = 0, time.monotonic() + PATIENCE_S
    pieces: list[str] = []
    while good < 40 and time.monotonic() < latest:
        try:
            pieces = [str(one) async for one in generation.stream("generate", "Is it so?", (), (), idempotent=False)]
            good += 1
        except Exception as error:
            errors[f"{type(error).__name__}: {error}"] += 1
            good = 0
    return {"good_in_a_row": good, "errors": errors, "pieces": pieces[:-1], "draft": pieces[-1]}


async def ends(patient: Deployed, log: Log) -> dict[str, Any]:
    """Whether the work there ends when the caller's patience does."""
    seen: dict[str, Any] = {}
    try:
        await patient.call("wait", "timed", timeout_s=1.0)
    except TimeoutError:
        seen["timeout"] = await log.says("timed ended")
    waiting = started(patient.call("wait", "cancelled"))
    await log.says(r"cancelled waits in \d+")
    waiting.cancel()
    seen["cancel"] = await log.says("cancelled ended")
    items = patient.stream("count")
    seen["items"] = [await anext(items), await anext(items)]
    await items.aclose()
    seen["close"] = await log.says("count ended")
    return seen


async def full(patient: Deployed, log: Log) -> dict[str, Any]:
    """More calls than the replicas take, all given up: where they waited, and what is still counted in the end."""
    calls = [started(patient.call("wait", f"one of {number}")) for number in range(5 * MAX_CALLS)]
    await log.says(r"one of \d+ waits in \d+", 2 * MAX_CALLS)
    there = len(log.found(r"one of \d+ waits in \d+"))  # before any is given up, which lets another in
    (table,) = services.Watched.made
    counted = [view.active_connections for view in table.views(0.0)]
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    with contextlib.suppress(AssertionError):
        await until(lambda: not any(view.active_connections for view in table.views(0.0)))
    return {
        "there": there,
        "counted": counted,
        "left": [view.active_connections for view in table.views(0.0)],
    }


async def killed(patient: Deployed, log: Log) -> dict[str, Any]:
    """Two calls at each of two replicas, one of which may be sent again; then one of the two is killed."""
    calls = {}
    for name, idempotent in (("a", False), ("b", False), ("A", True), ("B", True)):
        calls[name] = started(patient.call("wait", name, idempotent=idempotent))
        await log.says(rf"{name} waits in \d+")
    at = {name: log.found(rf"{name} waits in (\d+)")[0] for name in calls}
    os.kill(int(at["a"]), signal.SIGKILL)
    lost = (await asyncio.gather(calls["a"], return_exceptions=True))[0]
    moved = next(name for name in "AB" if at[name] == at["a"])
    seen = {
        "one_of_each": sorted(Counter(at.values()).values()),
        "lost": type(lost).__name__,
        "sent_again": await log.says(rf"{moved} waits in (?!{at['a']})\d+"),
        "undisturbed": [name for name, call in calls.items() if name != "a" and not call.done()],
    }
    for call in calls.values():
        call.cancel()
    await asyncio.gather(*calls.values(), return_exceptions=True)
    return seen


class Log:
    """What the replicas wrote down, line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[str]:
        return self._path.read_text().splitlines()

    def found(self, pattern: str) -> list[str]:
        return re.findall(f"^{pattern}$", self._path.read_text(), re.MULTILINE)

    async def says(self, pattern: str, times: int = 1) -> bool:
        """Whether so many lines match, in a while."""
        latest = time.monotonic() + PATIENCE_S
        while len(self.found(pattern)) < times:
            if time.monotonic() > latest:
                return False
            await asyncio.sleep(0.01)
        return True


def started(call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(call)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
