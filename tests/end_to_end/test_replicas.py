"""Embedding engines in real processes: killed, scaled and stopped while documents come in and questions are asked."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from ragworks.api.server import ListeningServer
from ragworks.app import App, build
from ragworks.policies.replaying import asked_again
from ragworks.settings import load
from ragworks.testing import until

SERVICES = "/v1/services"
SEARCH = "/v1/collections/default/search"
DOCUMENTS = "/v1/collections/default/documents"


@asynccontextmanager
async def serving(data: Path, **replicas: Any) -> AsyncIterator[tuple[App, ListeningServer, httpx.AsyncClient]]:
    settings = load(
        environ={},
        server={"data": str(data)},
        embeddings_service={"model_name": "hashing", "replicas": {"runtime": "process", **replicas}},
        document_processor={"workers": 1},
        log={"level": "error"},
    )
    app = build(settings)
    async with app, ListeningServer(app, "127.0.0.1", 0) as server:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=30, limits=limits) as http:
            yield app, server, http


async def replicas(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    services = (await http.get(SERVICES)).json()["data"]
    return next(one["replicas"] for one in services if one["name"] == "embeddings_service")


async def scale(http: httpx.AsyncClient, instances: int) -> list[dict[str, Any]]:
    answer = await http.post(f"{SERVICES}/embeddings_service/scale", json={"instances": instances})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["replicas"]
    return found


async def ended(http: httpx.AsyncClient, accepted: httpx.Response) -> None:
    async with http.stream("GET", f"{accepted.headers['location']}/events") as events:
        [_ async for _ in events.aiter_lines()]


class Traffic:
    """Documents and questions, one after another, until told to stop; what was answered is kept."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http, self.enough, self.asked = http, asyncio.Event(), 0
        self.jobs: list[str] = []
        self.wrong: list[Any] = []

    async def ask(self) -> None:
        while not self.enough.is_set():
            self.asked += 1
            answer = await self.http.post(SEARCH, json={"query": f"what of number {self.asked}", "mode": "dense"})
            if answer.status_code != 200 or answer.json()["degraded"]:
                self.wrong.append(answer.text)

    async def ingest(self) -> None:
        while not self.enough.is_set():
            texts = [{"id": f"{len(self.jobs)}-{n}", "text": f"Number {n} of {len(self.jobs)}. " * 50} for n in (1, 2)]
            answer = await self.http.post(DOCUMENTS, json={"documents": texts})
            self.jobs.append(answer.headers["location"])
            await ended(self.http, answer)

    async def documents(self) -> set[tuple[str, str | None]]:
        """(status, error) of every document, each job of which has ended."""
        jobs: list[Mapping[str, Any]] = [(await self.http.get(job)).json() for job in self.jobs]
        return {(one["status"], (one["error"] or {}).get("message")) for job in jobs for one in job["documents"]}


@asynccontextmanager
async def under_load(http: httpx.AsyncClient) -> AsyncIterator[Traffic]:
    await ended(http, await http.post(DOCUMENTS, json={"documents": [{"id": "x", "text": "first"}]}))
    traffic = Traffic(http)
    async with asyncio.TaskGroup() as tasks:
        for work in (traffic.ask, traffic.ask, traffic.ask, traffic.ingest):
            tasks.create_task(work())
        try:
            yield traffic
        finally:
            traffic.enough.set()


async def test_a_replica_killed_under_load_costs_no_call_and_is_replaced_and_explained(tmp_path: Path) -> None:
    async with serving(tmp_path) as (app, _, http):
        async with under_load(http) as traffic:
            for _ in range(2):
                [victim] = await replicas(http)
                before = traffic.asked
                await until(lambda before=before: traffic.asked > before + 20)
                os.kill(victim["pid"], signal.SIGKILL)
                while [one["id"] for one in await replicas(http) if one["status"] == "healthy"] in ([], [victim["id"]]):
                    await until(lambda: True)
            before = traffic.asked
            await until(lambda: traffic.asked > before + 20)
        assert traffic.wrong == []
        assert await traffic.documents() == {("completed", None)}
        events = await app.journal.recent(service="embeddings_service")
        told = [event.action for event in events if event.replica]
        assert told[:4] == ["replica_started", "replica_ended", "replica_restarts", "replica_started"]
        restarts = [event for event in events if event.action == "replica_restarts"]
        assert ["SIGKILL" in event.reason for event in restarts] == [True, True]
        assert [asked_again(event.policy, event.inputs, event.decision).same for event in restarts] == [True, True]


async def test_scaling_under_load_costs_no_call_and_says_which_process_is_which(tmp_path: Path) -> None:
    async with serving(tmp_path, max_instances=3) as (_, _, http):
        async with under_load(http) as traffic:
            pids = {one["pid"] for one in await scale(http, 2)}
            assert len(pids) == 2
            assert {psutil.Process(pid).ppid() for pid in pids} == {os.getpid()}
            before = traffic.asked
            await until(lambda: traffic.asked > before + 40)
            busy = await replicas(http)
            assert all(one["avg_response_time"] and one["p95_response_time"] for one in busy)
            [left] = await scale(http, 1)
            assert left["pid"] in pids
            assert not psutil.pid_exists((pids - {left["pid"]}).pop())
        assert traffic.wrong == []
        assert await traffic.documents() == {("completed", None)}
        refused = await http.post(f"{SERVICES}/embeddings_service/scale", json={"instances": 4})
        assert (refused.status_code, "must be from 1 to 3" in refused.json()["detail"]) == (422, True)
        refused = await http.post(f"{SERVICES}/vector_store/scale", json={"instances": 2})
        assert (refused.status_code, "it owns the database" in refused.json()["detail"]) == (422, True)


async def test_stopping_under_load_answers_every_request_that_was_taken(tmp_path: Path) -> None:
    async with serving(tmp_path, instances=2) as (app, server, http):
        pids = [one["pid"] for one in await replicas(http)]
        texts = [f"text {n} of many" for n in range(2000)]
        calls = [
            asyncio.create_task(
                http.post("/v1/embeddings", json={"model": "hashing", "input": [f"{n} {text}" for text in texts]})
            )
            for n in range(6)
        ]
        await until(lambda: app.metrics.registry.get_sample_value("rag_active_connections") == 6)
        await server.drain()
        assert [answer.status_code for answer in await asyncio.gather(*calls)] == [200] * 6
    assert not any(psutil.pid_exists(pid) for pid in pids)
