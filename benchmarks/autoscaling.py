"""What callers notice of a load that grows eightfold at once, while the service is scaled by its load.

Usage: python benchmarks/autoscaling.py [--policy target] [--max 8] [--interval 2] [--json] [--svg FILE].
Calls of 0.2 s arrive at random at a group of processes, kept by control.group.Group and scaled by
control.autoscaler.Autoscaler as the server does it, but with short times (a decision every 2 s, a calm of 20 s) so that
it takes two minutes: for 20 s half of what one replica can do, for 40 s eight times that, then nothing. (Eight times
all that one can do would keep eight replicas busy for ever, and their queue would never go.) The 95th percentile is of
the calls that ended within 2 s; it has recovered once it is below 1 s and stays so until the load ends. Every recorded
decision is asked again. Caveats: a replica loads no model, so it is ready in about a second; the calls only wait, so
replicas do not compete for cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import structlog
from waiting import WORK_S, Waiting

from ragworks.bench.machine import commit, machine
from ragworks.clock import SystemClock
from ragworks.control.autoscaler import Autoscaler
from ragworks.control.group import Group, GroupSettings
from ragworks.control.load_meter import LoadMeter
from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import ReplicaSpec
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.policies.replaying import asked_again, encoded
from ragworks.policies.scaling import ScaleSpec
from ragworks.policies.scaling_spec import TargetSettings, ThresholdSettings
from ragworks.runtimes.replicas import ProcessRuntime

LOW_S, HIGH_S, IDLE_S = 20.0, 40.0, 60.0
LOW, STEP = 0.5, 8.0  # times what they are of: one replica's capacity, and the low load
CALM_S, STARTUP_S = 20.0, 2.0
WELL_S, OF_LAST_S = 1.0, 2.0
ACTS = ("scale_up", "scale_down")


class Run:
    """One group under load; times are seconds since the begin."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ended: list[tuple[float, float]] = []
        self.errors: list[str] = []
        self.line: list[dict[str, float | None]] = []
        self.events: list[dict[str, Any]] = []

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    def record(self, action: str, **told: Any) -> None:
        inputs = {name: encoded(value) for name, value in (told.get("inputs") or {}).items()}
        decision = encoded(told["decision"]) if told.get("decision") is not None else {}
        self.events.append({"at": round(self.now, 2), "action": action, **told, "inputs": inputs, "decision": decision})

    async def calls(self, group: Group) -> None:
        rng = Random(5)
        async with asyncio.TaskGroup() as calls:
            while self.now < LOW_S + HIGH_S:
                calls.create_task(self._one(group))
                await asyncio.sleep(rng.expovariate(load_at(self.now) / WORK_S))

    async def _one(self, group: Group) -> None:
        began = self.now
        try:
            await group.balancer.call("work")
            self.ended.append((self.now, self.now - began))
        except Exception as error:  # whatever a caller would see is what is counted
            self.errors.append(f"{type(error).__name__}: {error}")

    async def watch(self, group: Group) -> None:
        while self.now < LOW_S + HIGH_S + IDLE_S:
            took = [one for at, one in self.ended if at > self.now - OF_LAST_S]
            self.line.append(
                {"t": self.now, "load": load_at(self.now), "ready": len(group.handles), "p95_s": p95(took)}
            )
            await asyncio.sleep(0.25)

    def result(self) -> Mapping[str, Any]:
        acts = [one for one in self.events if one["action"] in ACTS]
        ups = [one["at"] for one in acts if one["action"] == "scale_up" and one["at"] >= LOW_S]
        most = max(int(one["ready"] or 0) for one in self.line)
        high = [one for one in self.line if LOW_S <= (one["t"] or 0) <= LOW_S + HIGH_S]
        late = [one["t"] or 0 for one in high if (one["p95_s"] or 0) > WELL_S]
        recovered = bool(high) and (not late or late[-1] < LOW_S + HIGH_S - OF_LAST_S)
        idle = [one for one in self.line if (one["t"] or 0) > LOW_S + HIGH_S]
        small = [one["t"] or 0 for one in idle if one["ready"] == 1]
        answers = [asked_again(one["policy"], one["inputs"], one["decision"]) for one in acts]
        return {
            "calls": len(self.ended) + len(self.errors),
            "lost": len(self.errors),
            "to_react_s": round(ups[0] - LOW_S, 2) if ups else None,
            "to_most_ready_s": round(min(one["t"] or 0 for one in high if one["ready"] == most) - LOW_S, 2),
            "to_recovered_p95_s": round((late[-1] if late else LOW_S) - LOW_S, 2) if recovered else None,
            "worst_p95_s": round(max(one["p95_s"] or 0 for one in high), 2),
            "p95_at_the_end_s": round(high[-1]["p95_s"] or 0, 2),
            "peak_replicas": most,
            "to_scaled_in_s": round(small[0] - LOW_S - HIGH_S, 2) if small else None,
            "decisions": len(acts),
            "replayed_to_the_same": sum(one.same is True for one in answers),
            "acts": [
                f"{one['at']} s: {one['action']} to {one['decision']['target_instances']}, {one['reason']}"
                for one in acts
            ],
            "errors": sorted(set(self.errors))[:3],
        }


def load_at(seconds: float) -> float:
    """Mean calls at once, which is replicas kept busy."""
    return LOW if seconds < LOW_S else LOW * STEP if seconds < LOW_S + HIGH_S else 0.0


def p95(took: Sequence[float]) -> float | None:
    return sorted(took)[int(0.95 * len(took))] if took else None


def drawn(line: Sequence[Mapping[str, float | None]]) -> str:
    """An SVG of load and replicas, and below it of p95."""
    wide, high, left = 800.0, 160.0, 50.0
    last = line[-1]["t"] or 1.0

    def path(name: str, base: float, most: float, colour: str) -> str:
        points = [
            f"{left + wide * (one['t'] or 0) / last:.1f},{base - high * value / most:.1f}"
            for one in line
            if (value := one[name]) is not None
        ]
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(points)}"/>'

    def label(x: float, y: float, text: str, colour: str = "#333") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}">{text}</text>'

    count = max(max(one["load"] or 0, one["ready"] or 0) for one in line)
    slow = max((one["p95_s"] or 0 for one in line), default=0) or 1.0
    axes = "".join(
        f'<path d="M{left:.0f} {base - high:.0f}V{base:.0f}H{left + wide:.0f}" fill="none" stroke="#999"/>'
        for base in (190, 400)
    )
    ticks = "".join(label(left + wide * at / last, 418, f"{at} s") for at in range(0, int(last) + 1, 20))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 430" font-family="sans-serif" font-size="13">'
        '<rect width="880" height="430" fill="#fff"/>'
        f"{axes}{ticks}{label(8, 36, f'{count:g}')}{label(8, 246, f'{slow:.2g} s')}"
        f"{label(left, 20, 'load (replicas kept busy)', '#c60')}"
        f"{label(260, 20, 'replicas that serve', '#06c')}"
        f"{label(left, 230, 'p95 of the calls of the last 2 s', '#393')}"
        f"{path('load', 190, count, '#c60')}{path('ready', 190, count, '#06c')}"
        f"{path('p95_s', 400, slow, '#393')}</svg>\n"
    )


async def one_run(policy: str, most: int, interval_s: float) -> Run:
    async with AsyncExitStack() as opened:
        runtime = await opened.enter_async_context(ProcessRuntime(max_calls=4096))
        run, clock = Run(), SystemClock()
        group = Group(
            ReplicaSpec("waiting", Waiting),
            runtime,
            ReplicaSet(BalanceSettings(), EjectSettings(), Random(1)),
            clock,
            Random(2),
            GroupSettings(1, 1, most),
            record=run.record,
        )
        await group.start()
        opened.push_async_callback(group.stop)
        spec = ScaleSpec(
            policy, 1, most, cooldown=CALM_S / 2, monitoring_interval=interval_s, startup_s=STARTUP_S,
            threshold=ThresholdSettings(stable_duration=CALM_S),
            target=TargetSettings(window_s=3 * interval_s, calm_s=CALM_S),
        )  # fmt: skip
        meter = LoadMeter(
            lambda now: group.balancer.views(), group.balancer.traffic, lambda: int(group.balancer.stats()["waiting"])
        )
        await opened.enter_async_context(Autoscaler("waiting", spec, group, meter, clock, run.record))
        run.began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run.calls(group))
            tasks.create_task(run.watch(group))
        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="target")
    parser.add_argument("--max", type=int, default=8, help="most replicas")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between decisions")
    parser.add_argument("--svg", help="write a picture to this file")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    run = asyncio.run(one_run(given.policy, given.max, given.interval))
    result = run.result()
    if given.svg:
        Path(given.svg).write_text(drawn(run.line), encoding="utf-8")
    if given.json:
        print(json.dumps({"machine": machine(), "commit": commit(), **result}, indent=2))
    else:
        print(f"{machine()}, commit {commit()}")
        for name, value in result.items():
            print(f"{name}: {value}")
    if result["lost"] or result["replayed_to_the_same"] != result["decisions"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
