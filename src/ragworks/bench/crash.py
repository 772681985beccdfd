"""Kills a server and its workers at random instants, and counts what was lost, doubled, orphaned or came back.

After each restart every visible document is compared with what was sent (``ledger.py``), ``doctor`` is asked, and some
documents are read and searched; at the end everything is compared with a server that nobody disturbed. The seed fixes
texts, requests and planned delays, but not where in the server a delay ends.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import httpx

from ragworks.bench.documents import CHUNK_TOKENS, Documents, Key
from ragworks.bench.folder import Shown, differences, failed_tasks, leftovers, open_tasks, shown
from ragworks.bench.ledger import Ledger
from ragworks.bench.machine import commit, machine
from ragworks.bench.server import DEADLINE_S, POLL_S, VICTIMS, Server, Stuck
from ragworks.bench.workload import Workload

SAMPLE = 4  # documents read, and searched, over HTTP after each restart, besides all of them in the rows
FAULTS = (
    "lost", "duplicates", "orphans", "half_visible", "undeleted", "unhealthy", "leftover_children", "different",
    "stuck",
)  # fmt: skip
# When a kill comes: (what it follows, seconds after that, weight). Most follow an acknowledgement or meet a request
# under way, where a promise is made; some meet a server that is still recovering from the last one.
INSTANTS: tuple[tuple[str, Callable[[Random], float], int], ...] = (
    ("acknowledged", lambda rng: rng.expovariate(1 / 0.02), 25),
    ("sent", lambda rng: rng.uniform(0, 0.03), 15),
    ("deleting", lambda rng: rng.expovariate(1 / 0.02), 25),
    ("ready", lambda rng: rng.uniform(0, 1.0), 25),
    ("started", lambda rng: rng.uniform(0, 1.2), 30),
)

SETTINGS = {
    "DOCUMENT_PROCESSOR__CHUNK_TOKENS": str(CHUNK_TOKENS),
    "DOCUMENT_PROCESSOR__WORKERS": "2",
    # By default three dead workers condemn a document as the one that kills them; here they are killed from outside.
    "DOCUMENT_PROCESSOR__MAX_ATTEMPTS": "50",
}

OnKill = Callable[[int, str], None]
"""Told how many kills there were, and a word on the last."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. ``folder`` is empty or new; it keeps the data folders and the servers' logs."""

    folder: Path
    kills: int
    documents: int
    seed: int
    model: str


async def crash(plan: Plan, on_kill: OnKill) -> dict[str, Any]:
    """Live and die as often as asked, compare with an undisturbed run, and say what was found."""
    run = _Run(plan, on_kill)
    started = time.perf_counter()
    try:
        await run.all()
    except Stuck as error:
        run.ledger.fault("stuck", str(error))
    return run.report(time.perf_counter() - started)


class _Run:
    """All lives of one data folder, with what is known about it from outside."""

    def __init__(self, plan: Plan, on_kill: OnKill) -> None:
        self._plan, self._on_kill = plan, on_kill
        self._data = plan.folder / "data"
        self._rng = Random(f"{plan.seed}/kills")
        self._counts: Counter[str] = Counter()
        self._documents = Documents(plan.seed, plan.documents, bundled=plan.model == "bundled")
        self.ledger = Ledger(self._documents)
        self._workload = self._client()
        self._final: dict[Key, Shown] = {}

    def _client(self) -> Workload:
        return Workload(self._documents, self.ledger, Random(f"{self._plan.seed}/client"), self._counts)

    async def all(self) -> None:
        while self._counts["kills"] < self._plan.kills:
            await self._life()
        async with self._served("data") as (http, server):
            await self._look(http)
            await self._workload.finish(http)
            await self._until_idle(http)
            await self._look(http)
            server.stop()
        for one in leftovers(self._data):
            self.ledger.fault("orphans", one)
        for one in failed_tasks(self._data):
            self.ledger.fault("lost", one)
        await self._compare_with_undisturbed()

    # lives

    async def _life(self) -> None:
        after, delay, _ = self._instant(INSTANTS)
        server = Server(self._plan.folder, "data", _environment(self._plan.model))
        try:
            if after == "started":
                await asyncio.sleep(delay(self._rng))
                self._kill(server, after, self._rng.choice(("server", "server and workers")))
            else:
                await self._live(server)
        finally:
            self._end(server)

    async def _live(self, server: Server) -> None:
        """Feed the server and kill around it, until a kill is the server's own."""
        async with httpx.AsyncClient(base_url=await server.ready(), timeout=DEADLINE_S) as http:
            self._counts["restarts"] += 1
            await self._look(http)
            feeding = asyncio.create_task(self._workload.forever(http), name="feed")
            try:
                while not server.dead and self._counts["kills"] < self._plan.kills:
                    after, delay, _ = self._instant(INSTANTS[:-1])
                    await self._wait_for(after, feeding)
                    await asyncio.sleep(delay(self._rng))
                    if feeding.done():
                        feeding.result()
                    self._kill(server, after, self._rng.choice(VICTIMS))
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)

    def _instant(self, among: Any) -> Any:
        return self._rng.choices(among, [weight for *_, weight in among])[0]

    async def _wait_for(self, after: str, feeding: asyncio.Task[None]) -> None:
        """Until what a kill follows has happened; raises what ended the feeding before."""
        news = self._workload.news.get(after)
        for _ in range(self._rng.randint(1, 4) if news else 0):
            assert news is not None
            news.clear()
            waiting = asyncio.create_task(news.wait())
            await asyncio.wait({waiting, feeding}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if feeding.done():
                feeding.result()

    def _kill(self, server: Server, after: str, victim: str) -> None:
        if server.dead:
            raise Stuck("the server died, and nobody had killed it")
        if not server.kill(victim, self._rng):
            return  # no worker was there; another instant will do
        self._counts["kills"] += 1
        self._counts[f"kills of {victim}"] += 1
        self._counts[f"kills after {after}"] += 1
        self._on_kill(self._counts["kills"], f"{sum(self.ledger.faults.values())} faults")

    def _end(self, server: Server) -> None:
        if not server.dead:
            server.kill("server", self._rng)
        if left := server.outliving():
            self.ledger.fault("leftover_children", f"{left} processes outlive kill {self._counts['kills']}")

    @asynccontextmanager
    async def _served(self, name: str) -> AsyncIterator[tuple[httpx.AsyncClient, Server]]:
        server = Server(self._plan.folder, name, _environment(self._plan.model))
        try:
            async with httpx.AsyncClient(base_url=await server.ready(), timeout=DEADLINE_S) as http:
                yield http, server
        finally:  # nothing of ours may be left running
            self._end(server)

    # what is checked

    async def _look(self, http: httpx.AsyncClient) -> None:
        """Everything that must hold at any time, a moment after a restart above all."""
        self.ledger.compare(shown(self._data))
        doctor = (await http.get("/v1/doctor")).json()
        if not doctor["healthy"]:
            self.ledger.fault("unhealthy", f"after {self._counts['kills']} kills: {doctor['problems']}")
        for job_id in self.ledger.jobs:
            if (await http.get(f"/v1/jobs/{job_id}")).status_code != 200:
                self.ledger.fault("lost", f"acknowledged job {job_id} is unknown")
        there = [key for key in sorted(self.ledger.seen) if self.ledger.must_show(key)]
        for key in self._rng.sample(there, min(SAMPLE, len(there))):
            await self._read(http, key)
        gone = [key for key in sorted(self.ledger.gone) if self.ledger.must_not_show(key)]
        for key in self._rng.sample(gone, min(SAMPLE, len(gone))):
            await self._miss(http, key)

    async def _read(self, http: httpx.AsyncClient, key: Key) -> None:
        response = await http.get(f"/v1/collections/{key[0]}/documents/{quote(key[1])}/text")
        if response.status_code != 200:
            self.ledger.fault("lost", f"{key} is answered with {response.status_code}")
            return
        text = response.json()["text"]
        editions = {one for stamp, one in self.ledger.editions[key].items() if stamp >= self.ledger.seen[key]}
        whole = [one for one in editions if self._documents.read(key, one).text == text]
        if not whole:
            self.ledger.fault("half_visible", f"{key} is answered with a text that was not sent since")
        elif editions == set(whole) and not await self._finds(http, key, whole[0]):
            self.ledger.fault("lost", f"{key} is there and is not found by its title")

    async def _miss(self, http: httpx.AsyncClient, key: Key) -> None:
        response = await http.get(f"/v1/collections/{key[0]}/documents/{quote(key[1])}")
        edition = self.ledger.editions[key][max(self.ledger.editions[key])]
        if response.status_code != 404 or await self._finds(http, key, edition):
            self.ledger.fault("undeleted", f"{key} was deleted and is found")

    async def _finds(self, http: httpx.AsyncClient, key: Key, edition: int) -> bool:
        asked = {"query": self._documents.title(key, edition), "top_k": 20, "group_by": "document"}
        found = await http.post(f"/v1/collections/{key[0]}/search", json=asked)
        if found.status_code not in (200, 404):  # 404: the collection was dropped
            raise Stuck(f"a search was answered with {found.status_code}: {found.text}")
        return key[1] in {hit["document_id"] for hit in found.json().get("results", [])}

    async def _until_idle(self, http: httpx.AsyncClient) -> None:
        """Also the jobs of submissions whose acknowledgement never arrived, and what is deleted behind an answer."""
        deadline = time.monotonic() + DEADLINE_S
        while open_tasks(self._data) or await _being_collected(http):
            if time.monotonic() > deadline:
                raise Stuck("the queue does not become empty, or what was deleted does not go")
            await asyncio.sleep(POLL_S)

    async def _compare_with_undisturbed(self) -> None:
        """What is shown in the end, put into a fresh folder by the same path and without a kill."""
        self._final = shown(self._data)
        stamps = {key: one.stamp for key, one in self._final.items()}
        async with self._served("undisturbed") as (http, server):
            await self._client().put(http, stamps)
            server.stop()
        for one in differences(self._data, self._plan.folder / "undisturbed"):
            self.ledger.fault("different", one)

    def report(self, seconds: float) -> dict[str, Any]:
        log = (self._plan.folder / "data.log").read_text(encoding="utf-8", errors="replace")
        return {
            "machine": machine(),
            "commit": commit(),
            "seed": self._plan.seed,
            "model": self._plan.model,
            "documents": len(self._final),
            "chunks": sum(len(one.read.chunks) for one in self._final.values()),
            "seconds": round(seconds, 1),
            "counts": dict(sorted(self._counts.items())),
            "faults": {kind: self.ledger.faults[kind] for kind in FAULTS},
            "logged_errors": log.count('"level": "error"') + log.count("Traceback (most recent call last)"),
            "notes": self.ledger.notes,
        }


def _environment(model: str) -> dict[str, str]:
    """What the server under test finds set: nothing of the user's own."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("RAGWORKS_")}
    found |= {f"RAGWORKS_{key}": value for key, value in SETTINGS.items()}
    return found | ({"RAGWORKS_EMBEDDINGS_SERVICE__MODEL_NAME": "hashing"} if model == "hashing" else {})


async def _being_collected(http: httpx.AsyncClient) -> int:
    services = (await http.get("/v1/services")).json()["data"]
    return int(next(one for one in services if one["name"] == "vector_store")["stats"]["being_collected"])
