"""A server that scales itself: its load grows and ends, its replicas follow, nothing is lost, and it can say why."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import waiting_engines
from embedding_server import EmbeddingServer, embedding_server
from end_to_end.test_cli import DEADLINE_S, Served, run
from ragworks.testing import until

SERVICE = "embeddings_service"
TOML = """
[implementations]
waiting = "waiting_engines:embeddings"

[embeddings_service]
batch_size = 1
threads = 1

[embeddings_service.replicas]
implementation = "waiting"
runtime = "process"
max_instances = 3

[embeddings_service.scaling]
monitoring_interval = 1
stable_duration = 1
cooldown = 1
max_fed = 3
"""


class Scaled:
    """A served folder whose engines wait for a model server that the test holds up."""

    def __init__(self, folder: Path, server: Served, http: httpx.AsyncClient, models: EmbeddingServer) -> None:
        self.folder, self.server, self.http, self.models = folder, server, http, models
        self.calls: list[asyncio.Task[httpx.Response]] = []

    def call(self, many: int) -> None:
        """So many requests more, each for a text that nobody has asked for."""
        begin = len(self.calls)
        self.calls += [
            asyncio.create_task(self.http.post("/v1/embeddings", json={"model": "hashing", "input": f"text {number}"}))
            for number in range(begin, begin + many)
        ]

    async def service(self) -> dict[str, Any]:
        services = (await self.http.get("/v1/services")).json()["data"]
        found: dict[str, Any] = next(one for one in services if one["name"] == SERVICE)
        return found

    async def serving(self, replicas: int) -> dict[str, Any]:
        """The service, once so many replicas and no others are there and healthy."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = await self.service()
                if [one["status"] for one in found["replicas"]] == ["healthy"] * replicas:
                    return found
                assert not [call for call in self.calls if call.done() and call.result().status_code != 200]

    async def answers(self) -> list[int]:
        return [answer.status_code for answer in await asyncio.gather(*self.calls)]

    async def ragworks(self, *arguments: str) -> Any:
        return json.loads((await asyncio.to_thread(run, self.folder, *arguments, "--json"))[0])


@asynccontextmanager
async def scaled(folder: Path) -> AsyncIterator[Scaled]:
    (folder / "ragworks.toml").write_text(TOML)
    async with embedding_server() as models:
        # Child processes import what this one can.
        paths = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        given = {"PYTHONPATH": paths, waiting_engines.URL: models.url, waiting_engines.BROKEN: str(folder / "broken")}
        server = await asyncio.to_thread(lambda: Served(folder, **given))
        try:
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(base_url=server.url, timeout=50, limits=limits) as http:
                made = Scaled(folder, server, http, models)
                await made.serving(1)
                yield made
        finally:
            code = await asyncio.to_thread(server.stop)
        assert code == 0, "".join(server.lines)


async def test_a_server_grows_with_its_load_and_shrinks_when_it_ends_and_loses_nothing_and_says_why(
    tmp_path: Path,
) -> None:
    async with scaled(tmp_path) as at:
        at.models.silent = asyncio.Event()
        at.call(12)
        grown = await at.serving(3)
        assert grown["scaling"]["reason"].endswith("; max_instances is 3")
        pids = {one["pid"] for one in grown["replicas"]}
        at.call(12)  # of which the new ones have some at once
        await until(lambda: at.models.in_flight == 3)
        at.models.silent.set()
        assert await at.answers() == [200] * 24
        [left] = (await at.serving(1))["replicas"]
        assert left["pid"] in pids
        assert not any(psutil.pid_exists(pid) for pid in pids - {left["pid"]})
        told = next(one for one in (await at.ragworks("status"))["services"] if one["name"] == SERVICE)
        assert (told["scaling"]["mode"], told["scaling"]["target_instances"]) == ("auto", 1)
        assert "calls at once need" in told["scaling"]["reason"]
        events = (await at.ragworks("why", SERVICE, "--replay"))["data"]
    acts = [one for one in events if one["policy"] == "scaling.decide"]
    assert [one["replay"]["same"] for one in acts] == [True] * len(acts)
    assert [one["action"] for one in acts[:1]] == ["scale_up"]
    assert {one["action"] for one in acts} == {"scale_up", "scale_down"}
    assert all("calls at once" in one["reason"] for one in acts)
    assert [one["reason"] for one in events if one["action"] == "replica_stopped"] == ["drained"] * 2


async def test_a_server_that_is_stopped_while_it_grows_answers_what_it_took_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    async with scaled(tmp_path) as at:
        at.models.silent = asyncio.Event()
        at.call(6)
        async with asyncio.timeout(DEADLINE_S):
            while len((await at.service())["replicas"]) == 1:
                pass
        children = psutil.Process(at.server.process.pid).children(recursive=True)
        stopped = asyncio.create_task(asyncio.to_thread(at.server.stop))
        at.models.silent.set()
        assert await stopped == 0, "".join(at.server.lines)
        assert await at.answers() == [200] * 6
    assert not any(child.is_running() for child in children)


async def test_replicas_that_never_become_ready_are_named_and_tried_ever_more_rarely_while_the_rest_serves(
    tmp_path: Path,
) -> None:
    async with scaled(tmp_path) as at:
        (tmp_path / "broken").touch()
        at.models.silent = asyncio.Event()
        at.call(6)
        async with asyncio.timeout(DEADLINE_S):
            while len([one for one in (await at.service())["replicas"] if "took the model away" in one["note"]]) < 2:
                pass
        at.models.silent.set()
        assert await at.answers() == [200] * 6
        assert "took the model away" in (await asyncio.to_thread(run, tmp_path, "status"))[0]
        events = (await at.ragworks("why", SERVICE, "--replay"))["data"]
        assert sum(one["action"] == "scale_up" for one in events) == 1
        failed = [one for one in events if one["action"] == "replica_restarts"]
        assert all("took the model away" in one["reason"] and one["replay"]["same"] for one in failed)
        (tmp_path / "broken").unlink()
        at.models.silent = asyncio.Event()
        at.call(12)
        await at.serving(3)
        at.models.silent.set()
        assert await at.answers() == [200] * 18


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[embeddings_service.scaling]\ncooldown = -1", "embeddings_service.scaling.cooldown must be at least 0"),
        (
            "[embeddings_service.replicas]\nmin_instances = 5\nmax_instances = 2",
            "embeddings_service.replicas.min_instances must be at most max_instances (2), found 5",
        ),
        (
            "[embeddings_service.scaling.thresholds.scale_down]\ncpu_threshold = 90",
            "embeddings_service.scaling.thresholds.scale_down.cpu_threshold must be below 70",
        ),
        (
            "[document_processor.scaling.thresholds.scale_up]\nqueue_size_threshold = 5",
            "document_processor.scaling.thresholds.scale_down.queue_size_threshold must be below 5",
        ),
    ],
)
async def test_a_server_whose_scaling_contradicts_itself_says_so_in_one_line_and_does_not_start(
    tmp_path: Path, table: str, said: str
) -> None:
    (tmp_path / "ragworks.toml").write_text(table)
    _, err = await asyncio.to_thread(lambda: run(tmp_path, "serve", "--port", "0", code=2))
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / ".ragworks").exists()
