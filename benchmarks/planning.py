"""How near does the planner come? Its p95 beside that of a real server under the load that was planned for.

    scripts/bench planning [--kinds search,ask] [--runs 3] [--seconds 18] [--calls 200] [--json]

Each run profiles a server, as `ragworks bench profile` does, then asks it at 30, 50, 70 and 85 % of what the profile
says it can do: questions at random times (Poisson), sent when they are due whatever is still open, and timed from
when they were due. The first tenth is not counted. Asks are answered by a chat server on loopback that takes 0.2 s on
average (lognormal, coefficient of variation 0.5), eight at once. `predicted` is what the plan says, `these` what the
same model says of the very times at which the questions came: what lies between is chance, what lies between `these`
and `measured` is the model's fault, or that of other programs, which kept `others` cores busy during the load. A
question that the server refuses for now is counted, and not timed: where there are some, the plan promised more than
there was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import log, nan
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
import psutil

from ragworks.bench.caller import Caller
from ragworks.bench.machine import busy_s, commit, machine
from ragworks.bench.profile import Wanted, own_server, profile
from ragworks.bench.questions import documents, taken, varied
from ragworks.errors import ServerProblem
from ragworks.simulator.planner import Goal, Plan, Way, answered_s, plan
from ragworks.simulator.profiles import Profile

LOADS = {0.3: 0.35, 0.5: 0.45, 0.7: 0.65, 0.85: 1.0}
"""And how long each lasts: the nearer a load is to all that can be done, the longer a queue remembers a burst."""
FEWEST = 250
GOAL = 0.2
WRITE_S, WRITE_CV, SLOTS = 0.2, 0.5, 8
DRAWINGS = 20
PATIENT_S = 60.0  # a latency goal that asks for no replica more than the load


async def main_of(kinds: Sequence[str], runs: int, seconds: float, calls: int) -> list[dict[str, Any]]:
    rng = Random(1)
    found = []
    for kind in kinds:
        rows = await runs_of(kind, runs, seconds, calls, rng)
        found += [summed_up(kind, load, [row for row in rows if row["load"] == load]) for load in LOADS]
    return found


async def runs_of(kind: str, runs: int, seconds: float, calls: int, rng: Random) -> list[dict[str, float]]:
    """A row for each load of each run, all of one server."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        async with slow_chat(rng) as chat:
            config = Path(folder) / "ragworks.toml"
            config.write_text(settings(chat) if kind == "ask" else "")
            async with own_server(Path(folder), ("--config", str(config))) as url:
                server = psutil.Process(int(json.loads((Path(folder) / "data" / "server.json").read_text())["pid"]))
                for _ in range(runs):
                    measured = await profile(url, Wanted(kind, calls, slots={"generation_service": SLOTS}))
                    most = plan(measured, Goal(1e-3, PATIENT_S)).capacity
                    for load, share in LOADS.items():
                        row = await beside(measured, url, server, load * most, share * seconds, rng)
                        rows.append({"load": load, **row})
    return rows


async def beside(
    measured: Profile, url: str, server: psutil.Process, rate: float, seconds: float, rng: Random
) -> dict[str, float]:
    """One load, foreseen and met."""
    expected = plan(measured, Goal(rate, PATIENT_S))
    assert expected.p95_s is not None
    count = max(FEWEST, int(rate * seconds))
    arrivals = np.cumsum([rng.expovariate(rate) for _ in range(count)])
    began, busy, own = time.perf_counter(), busy_s(), own_s(server)
    took = await loaded(url, measured.source.kind, arrivals.tolist(), rng)
    warm = count // 10
    return {
        "rate": rate,
        "predicted_s": expected.p95_s,
        "these_s": of_these(measured, expected, arrivals, warm),
        "measured_s": float(np.nanquantile(took[warm:], 0.95)),
        "refused": int(np.isnan(took).sum()),
        "others": (busy_s() - busy - own_s(server) + own) / (time.perf_counter() - began),
        "others_in_profile": measured.source.other_cores or 0.0,
    }


def own_s(server: psutil.Process) -> float:
    """CPU seconds so far of the server, its children and this process."""
    times = [one.cpu_times() for one in (server, *server.children(), psutil.Process())]
    return sum(one.user + one.system for one in times)


def of_these(measured: Profile, expected: Plan, arrivals: np.ndarray, warm: int) -> float:
    way, replicas = Way(measured), {one.service: one.replicas for one in expected.services}
    drawn = [answered_s(way, replicas, arrivals, np.random.default_rng(seed))[warm:] for seed in range(DRAWINGS)]
    return float(np.median([np.quantile(one, 0.95) for one in drawn]))


async def loaded(url: str, kind: str, arrivals: Sequence[float], rng: Random) -> list[float]:
    """Seconds from when each question was due to its answer; NaN of those that were refused."""
    questions = taken([one["text"] for one in documents(50)], len(arrivals), rng)
    field, loop = "query" if kind == "search" else "question", asyncio.get_running_loop()
    took = [nan] * len(arrivals)

    async def one(place: int, due: float) -> None:
        try:
            await caller.post(f"/v1/collections/default/{kind}", {field: varied(questions[place], rng)})
        except ServerProblem as problem:
            if not problem.transient:
                raise
        else:
            took[place] = loop.time() - due

    async with Caller(url) as caller, asyncio.TaskGroup() as tasks:
        began = loop.time()
        for place, at in enumerate(arrivals):
            await asyncio.sleep(began + at - loop.time())
            tasks.create_task(one(place, began + at))
    return took


def summed_up(kind: str, load: float, rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    ratios = [row["predicted_s"] / row["measured_s"] for row in rows]
    names = ("rate", "predicted_s", "these_s", "measured_s", "others", "others_in_profile")
    return {
        "kind": kind,
        "load": load,
        **{name: median(row[name] for row in rows) for name in names},
        "refused": sum(row["refused"] for row in rows),
        "ratio": median(ratios),
        "ratio_of_these": median(row["these_s"] / row["measured_s"] for row in rows),
        "ratios": [round(one, 3) for one in ratios],
        "within_goal": 1 / (1 + GOAL) <= median(ratios) <= 1 + GOAL,
    }


def settings(chat: str) -> str:
    return (
        '[generation_service]\ngenerator = "openai"\n[generation_service.endpoint]\n'
        f'model = "slow"\nurls = ["{chat}"]\nconcurrency = {SLOTS}\n'
    )


@asynccontextmanager
async def slow_chat(rng: Random) -> AsyncIterator[str]:
    """The base URL of a chat server that thinks, then says the same to everybody."""
    sigma2 = log(1 + WRITE_CV**2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().splitlines()
            await reader.readexactly(next(int(line[15:]) for line in lines if line.startswith(b"content-length:")))
            await asyncio.sleep(rng.lognormvariate(log(WRITE_S) - sigma2 / 2, sigma2**0.5))
            writer.write(SAID)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the server under test is being stopped
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


SAID = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    + b"".join(_chunk({"content": f"word {n} "}) for n in range(20))
    + _chunk({"content": "[1]"})
    + _chunk({}, "stop")
    + b"data: [DONE]\n\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="search,ask")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=18.0, help="of the highest load")
    parser.add_argument("--calls", type=int, default=200, help="of a profile")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = asyncio.run(main_of(given.kinds.split(","), given.runs, given.seconds, given.calls))
    if given.json:
        print(json.dumps({"machine": machine(), "commit": commit(), "loads": found}, indent=2))
        return
    print(f"{machine()}, commit {commit()}; p95 in ms, medians of {given.runs} runs")
    print("kind    load  rate/s  predicted  these  measured  ratio  refused  others  ratios of the runs")
    for one in found:
        ms = [1e3 * one[name] for name in ("predicted_s", "these_s", "measured_s")]
        print(
            f"{one['kind']:<7} {one['load']:>4.0%} {one['rate']:>7.1f} {ms[0]:>10.1f} {ms[1]:>6.1f} {ms[2]:>9.1f} "
            f"{one['ratio']:>6.2f} {one['refused']:>8} {one['others']:>7.2f}  {one['ratios']}"
        )


if __name__ == "__main__":
    main()
