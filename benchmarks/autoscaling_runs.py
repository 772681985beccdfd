"""One load step on one service of a real server: the load, what is seen meanwhile, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import httpx

from ragworks.policies.replaying import asked_again

Work = Callable[[httpx.AsyncClient, int], Awaitable[None]]
"""One call, the number of which no other has; raises when it is not answered as it should be."""

Point = Mapping[str, float | None]
CALLERS = 2  # of each replica that is to be kept busy
CAPACITY_S, LOOK_S, OF_LAST_S = 10.0, 0.25, 3.0
RECOVERED = 2.0  # times the 95th percentile before the step
BEARABLE = 0.85  # of what all replicas can do: more would never recover
ACTS = ("scale_up", "scale_down")


@dataclass(frozen=True, slots=True)
class Scenario:
    """``low`` and ``high`` are loads in times what one replica can do. Where replicas share the cores, ``together`` are
    measured too, and ``high`` is no more than they bear."""

    name: str
    service: str
    toml: str
    work: Work
    low: float
    high: float
    low_s: float
    high_s: float
    idle_s: float
    together: int = 0

    def load_at(self, seconds: float) -> float:
        return self.low if seconds < self.low_s else self.high if seconds < self.low_s + self.high_s else 0.0


class Run:
    """One scenario on a server that is up; times are seconds since its load began."""

    def __init__(self, scenario: Scenario, http: httpx.AsyncClient) -> None:
        self._scenario, self._http = scenario, http
        self._began, self._number = time.time(), 0
        self._alone = asyncio.Event()
        self.capacity = 0.0
        self.ended: list[tuple[float, float]] = []
        self.errors: list[str] = []
        self.line: list[Point] = []
        self.events: list[dict[str, Any]] = []

    @property
    def now(self) -> float:
        return time.time() - self._began

    async def go(self) -> None:
        together = self._scenario.together and await self._capacity(self._scenario.together)
        self.capacity = await self._capacity(1)
        if together:
            borne = round(BEARABLE * together / self.capacity, 2)
            self._scenario = replace(self._scenario, high=min(self._scenario.high, borne))
        await self._scale({"mode": "auto"})
        self._began, self.ended = time.time(), []
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            await self._calls()
            await self._idle()
            watching.cancel()
        params = {"service": self._scenario.service, "since": self._began, "limit": 1000, "order": "asc"}
        self.events = (await self._http.get("/v1/events", params=params)).raise_for_status().json()["data"]

    async def _capacity(self, replicas: int) -> float:
        """Calls a second of so many that are kept busy."""
        await self._scale({"instances": replicas})
        await self._one()

        async def caller() -> None:
            while self.now < until:
                await self._one()

        self.ended, until = [], self.now + CAPACITY_S
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS * replicas):
                callers.create_task(caller())
        if self.errors:
            raise SystemExit(f"{self._scenario.name}: {self.errors[0]}")
        return len(self.ended) / CAPACITY_S

    async def _calls(self) -> None:
        """At random, so many a second as the load says; returns when all have ended."""
        rng, due = Random(5), 0.0
        async with asyncio.TaskGroup() as calls:
            while load := self._scenario.load_at(due):
                due += rng.expovariate(load * self.capacity)
                await asyncio.sleep(due - self.now)
                calls.create_task(self._one())

    async def _idle(self) -> None:
        """Until one replica is left, or for as long as the scenario says."""
        self._alone.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._scenario.idle_s):
                await self._alone.wait()
        await asyncio.sleep(OF_LAST_S)

    async def _one(self) -> None:
        began, self._number = self.now, self._number + 1
        try:
            await self._scenario.work(self._http, self._number)
            self.ended.append((self.now, self.now - began))
        except Exception as error:  # whatever a caller would see is what is counted
            self.errors.append(f"{type(error).__name__}: {error}")

    async def _watch(self) -> None:
        while True:
            replicas = await self._replicas()
            now = self.now
            took = [one for at, one in self.ended if at > now - OF_LAST_S]
            ready = sum(one["status"] == "healthy" and one["pid"] is not None for one in replicas)
            asked = sum(one["status"] != "draining" for one in replicas)
            if len(replicas) == 1:
                self._alone.set()
            load = self._scenario.load_at(now)
            self.line.append({"t": now, "load": load, "asked": asked, "ready": ready, "p95_s": p95(took)})
            await asyncio.sleep(LOOK_S)

    async def _replicas(self) -> list[dict[str, Any]]:
        services = (await self._http.get("/v1/services")).raise_for_status().json()["data"]
        found: list[dict[str, Any]] = next(one["replicas"] for one in services if one["name"] == self._scenario.service)
        return found

    async def _scale(self, body: Mapping[str, Any]) -> None:
        route = f"/v1/services/{self._scenario.service}/scale"
        (await self._http.post(route, json=body)).raise_for_status()

    # what came of it

    def acts(self) -> list[tuple[float, str, str]]:
        """(when, what, why) of each."""
        return [
            (one["at"] - self._began, f"{one['action']} to {one['decision']['target_instances']}", one["reason"])
            for one in self.events
            if one["action"] in ACTS
        ]

    def result(self) -> dict[str, Any]:
        step, end = self._scenario.low_s, self._scenario.low_s + self._scenario.high_s
        before = p95([took for at, took in self.ended if step / 2 < at <= step]) or 0.0
        high = [one for one in self.line if step <= (one["t"] or 0) <= end]
        late = [one["t"] or 0 for one in high if (one["p95_s"] or 0) > RECOVERED * before]
        recovered = not late or late[-1] < end - OF_LAST_S
        ups = [at - step for at, what, _ in self.acts() if what.startswith("scale_up") and step <= at <= end]
        most = max(one["ready"] or 0 for one in high)
        small = [one["t"] or 0 for one in self.line if (one["t"] or 0) > end and one["asked"] == one["ready"] == 1]
        decided = [one for one in self.events if one["policy"] == "scaling.decide"]
        answers = [asked_again(one["policy"], one["inputs"], one["decision"]) for one in decided]
        return {
            "one_replica_calls_per_s": round(self.capacity, 2),
            "load_in_replicas": [self._scenario.low, self._scenario.high],
            "calls": len(self.ended) + len(self.errors),
            "lost": len(self.errors),
            "p95_before_s": round(before, 3),
            "to_react_s": _rounded(min(ups, default=None)),
            "to_most_ready_s": _rounded(min(one["t"] or 0 for one in high if one["ready"] == most) - step),
            "to_recovered_p95_s": _rounded((late[-1] if late else step) - step if recovered else None),
            "worst_p95_s": _rounded(max(one["p95_s"] or 0 for one in high)),
            "p95_at_the_end_s": _rounded(high[-1]["p95_s"]),
            "replicas_before": max(one["ready"] or 0 for one in self.line if (one["t"] or 0) <= step),
            "replicas_at_most": most,
            "to_scaled_in_s": _rounded(small[0] - end if small else None),
            "decisions": len(decided),
            "replayed_to_the_same": sum(one.same is True for one in answers),
            "acts": [f"{at - step:+.1f} s: {what}, {why}" for at, what, why in self.acts()],
            "errors": sorted(set(self.errors))[:3],
        }


def p95(took: Sequence[float]) -> float | None:
    return sorted(took)[int(0.95 * len(took))] if took else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
