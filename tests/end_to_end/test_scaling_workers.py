"""Document workers that scale themselves while documents come in: real processes, frozen and killed at their worst."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from ragworks.api.server import ListeningServer
from ragworks.app import App, build
from ragworks.policies.replaying import asked_again
from ragworks.settings import load
from ragworks.testing import until

SERVICE = "document_processor"
DOCUMENTS = "/v1/collections/default/documents"
DEADLINE_S = 45.0
MANY = 8
ONE_DOCUMENT = "A sentence that takes its time. " * 2000
QUICK = {"monitoring_interval": 1, "stable_duration": 1, "cooldown": 1, "max_fed": 3}


class Ingesting:
    """A server of one to three workers, and a job of many documents."""

    def __init__(self, app: App, http: httpx.AsyncClient) -> None:
        self.app, self.http, self.job = app, http, ""
        self.frozen: set[int] = set()

    async def submit(self) -> None:
        documents = [{"id": str(number), "text": f"Number {number}. {ONE_DOCUMENT}"} for number in range(MANY)]
        self.job = (await self.http.post(DOCUMENTS, json={"documents": documents})).headers["location"]

    async def workers(self) -> list[dict[str, Any]]:
        services = (await self.http.get("/v1/services")).json()["data"]
        found: list[dict[str, Any]] = next(one["replicas"] for one in services if one["name"] == SERVICE)
        return found

    async def reaches(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        async with asyncio.timeout(DEADLINE_S):
            while not holds(found := await self.workers()):
                pass
        return found

    async def freeze(self, many: int) -> None:
        """Until so many workers are at work and stand still there."""

        def all_frozen(workers: list[dict[str, Any]]) -> bool:
            for one in workers:
                if one["active_connections"] and one["pid"] not in self.frozen:
                    os.kill(one["pid"], signal.SIGSTOP)
                    self.frozen.add(one["pid"])
            return len(self.frozen) == many

        await self.reaches(all_frozen)

    def thaw(self) -> None:
        for pid in self.frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def outcomes(self) -> dict[str, Any]:
        """What became of the documents, of the attempts at them, and of the index."""
        async with self.http.stream("GET", f"{self.job}/events") as events:
            [_ async for _ in events.aiter_lines()]
        counts = (await self.http.get(self.job)).json()["file_counts"]
        attempts = {
            outcome: self.app.metrics.registry.get_sample_value("rag_documents_total", {"outcome": outcome})
            for outcome in ("completed", "retried", "failed", "cancelled")
        }
        healthy = (await self.http.get("/v1/doctor")).json()["healthy"]
        return {"completed": counts["completed"], "attempts": attempts, "healthy": healthy}


@asynccontextmanager
async def ingesting(data: Path) -> AsyncIterator[Ingesting]:
    settings = load(
        environ={},
        server={"data": str(data)},
        embeddings_service={"model_name": "hashing"},
        document_processor={
            "workers": 1,
            "replicas": {"max_instances": 3},
            "scaling": {"enabled": True, **QUICK},
        },
        log={"level": "error"},
    )
    app = build(settings)
    async with (
        app,
        ListeningServer(app, "127.0.0.1", 0) as server,
        httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_S) as http,
    ):
        made = Ingesting(app, http)
        try:
            yield made
        finally:
            made.thaw()


async def test_workers_come_with_the_documents_that_wait_and_go_after_them_and_break_no_lease(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as at:
        await at.submit()
        await at.freeze(3)
        at.thaw()
        found = await at.outcomes()
        assert found["attempts"] == {"completed": MANY, "retried": 0, "failed": 0, "cancelled": 0}
        assert (found["completed"], found["healthy"]) == (MANY, True)
        await at.reaches(lambda workers: len(workers) == 1)
        acts = [one for one in await at.app.journal.recent(service=SERVICE) if one.policy == "scaling.decide"]
        assert {one.action for one in acts} == {"scale_up", "scale_down"}
        assert [asked_again(one.policy, one.inputs, one.decision).same for one in acts] == [True] * len(acts)


async def test_a_worker_that_is_killed_while_it_drains_costs_its_document_one_attempt_and_no_other(
    tmp_path: Path,
) -> None:
    async with ingesting(tmp_path) as at:
        await at.submit()
        await at.freeze(3)
        answer = await at.http.post(f"/v1/services/{SERVICE}/scale", json={"instances": 1})
        assert answer.status_code == 200
        draining = [one["pid"] for one in answer.json()["replicas"] if one["status"] == "draining"]
        assert len(draining) == 2
        os.kill(draining[0], signal.SIGKILL)
        await until(lambda: at.app.metrics.registry.get_sample_value("rag_documents_total", {"outcome": "retried"}))
        at.thaw()
        found = await at.outcomes()
        assert found["attempts"] == {"completed": MANY, "retried": 1, "failed": 0, "cancelled": 0}
        assert (found["completed"], found["healthy"]) == (MANY, True)
        assert len(await at.workers()) == 1
