"""A server's process as operators treat it: stopped under load, killed, started again, started without a part."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from embedding_server import embedding_server, problem
from end_to_end.test_cli import DEADLINE_S, Served
from ragworks.testing import until

DEFAULT = "/v1/collections/default"
LEAVE = "# Leave\n\nEmployees may take thirty days of annual leave each year.\n\n## Sundays\n\nThe office is closed.\n"
PROCESSES = {
    "RAGWORKS_EMBEDDINGS_SERVICE__REPLICAS__RUNTIME": "process",
    "RAGWORKS_EMBEDDINGS_SERVICE__REPLICAS__INSTANCES": "2",
}


@contextmanager
def serving(folder: Path, end: int = signal.SIGTERM, **more: str) -> Iterator[Served]:
    """A server process that is ended by the signal ``end`` unless it has ended."""
    server = Served(folder, **more)
    try:
        yield server
    finally:
        code = server.stop(end)
    assert code == (0 if end == signal.SIGTERM else -end), "".join(server.lines)
    assert "Traceback" not in "".join(server.lines)


@asynccontextmanager
async def client(server: Served) -> AsyncIterator[httpx.AsyncClient]:
    # Connections that are kept may be closed by the server at the moment when they are used.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_S, limits=limits) as http:
        yield http


def ready(server: Served) -> None:
    while httpx.get(f"{server.url}/readyz?verbose").json().get("services", "not even ready"):
        server.wait_for("service_started")


def put_in(server: Served, **texts: str) -> None:
    documents = [{"id": name, "text": text} for name, text in texts.items()]
    with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as http:
        accepted = http.post(f"{DEFAULT}/documents", json={"documents": documents})
        assert accepted.status_code == 202, accepted.text
        http.get(f"{accepted.headers['location']}/events")  # ends with the job
        assert http.get(accepted.headers["location"]).json()["file_counts"]["completed"] == len(texts)


def looked_up(server: Served) -> tuple[int, int, int]:
    """Texts that were to be embedded: those found in memory, those found among stored passages, and model calls."""
    found = httpx.get(f"{server.url}/v1/cache").json()
    return found["memory_hits"], found["stored_hits"], found["misses"]


def test_text_of_a_stored_passage_costs_no_model_call_also_after_a_restart_and_under_another_id(
    tmp_path: Path,
) -> None:
    long = "\n\n".join(
        f"In the year {year} the warehouse sent {year * 7} orders on the same day." for year in range(200)
    )
    with serving(tmp_path) as server:
        ready(server)
        put_in(server, a=LEAVE, b=long)
        in_memory, stored, passages = looked_up(server)
        assert (in_memory, stored, passages > 5) == (0, 0, True)
    with serving(tmp_path) as server:
        ready(server)
        put_in(server, c=LEAVE, d=long)  # the same bytes: taken over without being read
        assert looked_up(server) == (0, 0, 0)
        put_in(server, e=f"{long}\n", f=f"{LEAVE}\n")  # other bytes, the same passages
        assert looked_up(server) == (0, passages, 0)


class Callers:
    """Questions one after another, each on a connection of its own, until the server takes no more of them."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http, self.stopping = http, False
        self.answered: list[httpx.Response] = []

    async def ask(self) -> None:
        while True:
            try:
                answer = await self.http.post(f"{DEFAULT}/ask", json={"question": "How long is annual leave?"})
            except httpx.TransportError:
                if not self.stopping:
                    raise
                return
            self.answered.append(answer)


async def test_sigterm_under_load_answers_what_was_taken_and_leaves_no_process(tmp_path: Path) -> None:
    with serving(tmp_path, **PROCESSES) as server:
        ready(server)
        put_in(server, a=LEAVE)
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert len(children) >= 2
        async with client(server) as http, asyncio.TaskGroup() as tasks:
            long = [tasks.create_task(http.post("/v1/embeddings", json=many(n))) for n in range(4)]
            while await in_flight(http) < len(long):
                assert not any(one.done() for one in long), "the load was over before it could be interrupted"
            callers = Callers(http)
            for _ in range(4):
                tasks.create_task(callers.ask())
            await until(lambda: len(callers.answered) > 4)
            callers.stopping = True
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.process.wait, DEADLINE_S)  # a second signal would cut it short
        taken = [task.result() for task in long]
        ends = {(one.status_code, int(one.headers.get("retry-after", 0)) > 0) for one in taken + callers.answered}
        assert ends <= {(200, False), (503, True)}
        assert 200 in [one.status_code for one in taken], "it did not wait for anything"
    assert not any(child.is_running() for child in children)
    assert not (tmp_path / ".ragworks" / "server.json").exists()


def many(n: int) -> dict[str, Any]:
    return {"model": "hashing", "input": [f"text {m} of {n}" for m in range(2000)]}


async def in_flight(http: httpx.AsyncClient) -> int:
    """How many requests the server works on, this one not counted."""
    lines = (await http.get("/metrics")).text.splitlines()
    return int(float(next(line.split()[-1] for line in lines if line.startswith("rag_active_connections")))) - 1


async def deaths(http: httpx.AsyncClient) -> list[str]:
    events = (await http.get("/v1/events", params={"service": "orchestration_api", "limit": 1000})).json()["data"]
    reasons = [one["reason"] for one in events if one["action"] == "server_died"]
    return [found.group() for one in reasons if (found := re.search(r"\(process \d+\)", one))]


async def test_nothing_outlives_a_killed_server_and_the_next_one_works_on_its_folder(tmp_path: Path) -> None:
    with serving(tmp_path, signal.SIGKILL, **PROCESSES) as server:
        ready(server)
        put_in(server, a=LEAVE)
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert len(children) >= 2
        async with client(server) as http:
            long = [asyncio.create_task(http.post("/v1/embeddings", json=many(n))) for n in range(4)]
            while await in_flight(http) < len(long):
                assert not any(one.done() for one in long), "the load was over before it could be interrupted"
            killed = server.process.pid
            server.process.kill()
            ends = await asyncio.gather(*long, return_exceptions=True)
            assert all(isinstance(end, httpx.TransportError) for end in ends)
    await until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    with serving(tmp_path, **PROCESSES) as server:
        ready(server)
        put_in(server, b="Orders leave the warehouse on the same day.")
        async with client(server) as http:
            doctor = (await http.get("/v1/doctor")).json()
            assert await deaths(http) == [f"(process {killed})"]
        assert (doctor["healthy"], doctor["documents"]) == (True, 2)
    with serving(tmp_path) as server:  # the one before was stopped as it should be
        async with client(server) as http:
            assert len(await deaths(http)) == 1


@pytest.mark.timeout(120)
async def test_while_a_service_cannot_start_its_dependents_wait_for_it_and_the_rest_serves(tmp_path: Path) -> None:
    async with embedding_server() as endpoint:
        remote = {
            "RAGWORKS_EMBEDDINGS_SERVICE__ENDPOINT__MODEL": "remote",
            "RAGWORKS_EMBEDDINGS_SERVICE__ENDPOINT__URLS": endpoint.url,
        }

        def before() -> None:
            with serving(tmp_path, **remote) as server:
                ready(server)
                put_in(server, a=LEAVE)

        def without() -> None:
            """The endpoint fails, and the dimension of its vectors is not given: the service cannot start."""
            with serving(tmp_path, **remote) as server:
                server.wait_for("service_failed")
                with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as http:
                    while http.get("/readyz").status_code != 200:
                        server.wait_for("service_started")
                    found = {one["name"]: one for one in http.get("/v1/services").json()["data"]}
                    assert found["embeddings_service"]["status"] == "failed"
                    assert "out for lunch" in found["embeddings_service"]["error"]
                    waiting = found["document_processor"]
                    assert (waiting["status"], waiting["waiting_for"]) == ("waiting", ["embeddings_service"])
                    hits = http.post(f"{DEFAULT}/search", json={"query": "annual leave"}).json()
                    assert [hit["document_id"] for hit in hits["results"]][:1] == ["a"]
                    refused = http.post(f"{DEFAULT}/documents", json={"documents": [{"id": "b", "text": "x"}]})
                    assert (refused.status_code, "embeddings_service" in refused.text) == (503, True)
                    assert int(refused.headers["retry-after"]) > 0
                    endpoint.always = well
                    ready(server)
                    put_in(server, b="Orders leave the warehouse on the same day.")
                    found = {one["name"]: one for one in http.get("/v1/services").json()["data"]}
                    assert {one["status"] for one in found.values()} == {"started"}

        well = endpoint.always
        await asyncio.to_thread(before)
        endpoint.always = problem(500, "out for lunch")
        await asyncio.to_thread(without)
