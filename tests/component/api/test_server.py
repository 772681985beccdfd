"""A server that really listens: what ASGI calls in one process cannot show."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from component.api.fake_app import FakeApp
from ragworks.api.server import ListeningServer, bind, serve
from ragworks.errors import CannotStart, DataFolderLocked, PortInUse
from ragworks.testing import until


@pytest.fixture
async def server(app: FakeApp) -> AsyncIterator[ListeningServer]:
    async with ListeningServer(app, "127.0.0.1", 0, drain_s=5) as server:
        yield server


@pytest.fixture
async def wire(server: ListeningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=10) as wire:
        yield wire


async def test_a_port_that_is_taken_is_named_with_its_owner_and_a_way_out() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(
            PortInUse, match=rf"port {port} on 127\.0\.0\.1 is taken by .*--port \(0 takes a free one\)"
        ):
            bind("127.0.0.1", port)


async def test_a_host_that_is_not_ours_cannot_be_bound() -> None:
    with pytest.raises(CannotStart, match="--host must be an address of this machine"):
        bind("no such host", 0)


async def test_a_name_is_bound_by_ipv4() -> None:
    with bind("localhost", 0) as listener:
        assert listener.family is socket.AF_INET


async def test_a_foreign_host_header_is_refused_on_loopback(wire: httpx.AsyncClient) -> None:
    assert (await wire.get("/livez")).status_code == 200
    assert (await wire.get("/livez", headers={"Host": "evil.example"})).status_code == 403


async def test_job_events_arrive_as_they_happen_and_end_with_the_final_state(
    wire: httpx.AsyncClient, app: FakeApp
) -> None:
    async with wire.stream("GET", "/v1/jobs/j1/events") as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "event: job"
        assert json.loads((await anext(lines)).removeprefix("data: "))["status"] == "queued"
        app.document_processor.release.set()
        rest = [line async for line in lines if line]
    assert rest[0] == "event: job"
    job = json.loads(rest[1].removeprefix("data: "))
    assert job["status"] == "completed"
    assert job["documents"][0]["error"] == {"code": "empty_document", "message": "no text"}


async def test_following_an_unknown_job_is_404(wire: httpx.AsyncClient) -> None:
    assert (await wire.get("/v1/jobs/none/events")).json()["code"] == "job_not_found"


async def test_a_client_that_leaves_ends_what_it_followed(wire: httpx.AsyncClient, app: FakeApp) -> None:
    async with wire.stream("GET", "/v1/jobs/j1/events") as answer:
        await anext(answer.aiter_lines())
    await until(lambda: b"rag_active_connections 0.0" in app.metrics.render())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/collections/default/ask", {"question": "q"}),
        ("/v1/chat/completions", {"model": "default", "messages": [{"role": "user", "content": "q"}]}),
    ],
)
async def test_an_answer_that_nobody_waits_for_any_more_is_not_written(
    wire: httpx.AsyncClient, app: FakeApp, path: str, body: dict[str, Any]
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow(*arguments: object, **more: object) -> AsyncIterator[str]:
        try:
            begun.set()
            await asyncio.Event().wait()
            yield "never"
        finally:
            ended.set()

    app.ask = slow  # type: ignore[method-assign]
    asking = asyncio.create_task(wire.post(path, json=body))
    await begun.wait()
    asking.cancel()
    await ended.wait()
    await until(
        lambda: f'route="{path.replace("/default", "/{name}")}",status="499"}} 1.0' in app.metrics.render().decode()
    )


async def test_draining_ends_event_streams_and_lets_running_requests_finish(
    server: ListeningServer, wire: httpx.AsyncClient, app: FakeApp
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(*arguments: object, **more: object) -> object:
        entered.set()
        await leave.wait()
        return await type(app.retrieval_service).search(app.retrieval_service, "default", "q")

    app.retrieval_service.search = slow  # type: ignore[method-assign]
    async with wire.stream("GET", "/v1/jobs/j1/events") as followed:
        lines = followed.aiter_lines()
        await anext(lines)
        search = asyncio.create_task(wire.post("/v1/collections/default/search", json={"query": "q"}))
        await entered.wait()
        draining = asyncio.create_task(server.drain())
        assert [line async for line in lines][-1] == ""
        leave.set()
        assert (await search).status_code == 200
        await draining
    with pytest.raises(httpx.ConnectError):
        await wire.get("/livez")


async def test_a_request_that_is_not_waited_for_any_longer_is_told_so_without_a_traceback(
    app: FakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopping a server during twenty uploads wrote twenty tracebacks into its log, one for each upload it cut off."""
    entered = asyncio.Event()

    async def hang(*arguments: object, **more: object) -> object:
        entered.set()
        return await asyncio.Event().wait()

    app.retrieval_service.search = hang  # type: ignore[method-assign]
    async with ListeningServer(app, "127.0.0.1", 0, drain_s=60) as server, httpx.AsyncClient() as wire:
        search = asyncio.create_task(wire.post(f"{server.url}/v1/collections/default/search", json={"query": "q"}))
        await entered.wait()
        server.force()
        answer = await search
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "not_ready", "1")
        await server.stop_requested.wait()
    assert [record for record in caplog.records if record.exc_info] == []


async def test_serving_announces_itself_in_the_data_folder_and_stops_on_one_signal(
    app: FakeApp, tmp_path: Path
) -> None:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(app, "127.0.0.1", 0, on_listening=listening.set_result))
    url = await listening
    assert json.loads((tmp_path / "server.json").read_text()) == {"url": url, "pid": os.getpid()}
    async with httpx.AsyncClient() as wire:
        assert (await wire.get(f"{url}/livez")).status_code == 200
        assert app.running
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
    assert not app.running
    assert not (tmp_path / "server.json").exists()


async def test_a_second_signal_cancels_what_still_runs(app: FakeApp) -> None:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    entered = asyncio.Event()

    async def hang(*arguments: object, **more: object) -> object:
        entered.set()
        return await asyncio.Event().wait()

    app.retrieval_service.search = hang  # type: ignore[method-assign]
    serving = asyncio.create_task(serve(app, "127.0.0.1", 0, on_listening=listening.set_result))
    async with httpx.AsyncClient() as wire:
        search = asyncio.create_task(wire.post(f"{await listening}/v1/collections/default/search", json={"query": "q"}))
        await entered.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert (await search).status_code == 503
    assert not app.running


async def test_a_start_that_fails_leaves_the_announcement_of_the_other_server_alone(
    app: FakeApp, tmp_path: Path
) -> None:
    (tmp_path / "server.json").write_text("of another process")

    async def refuse(*, wait: bool = True) -> None:
        raise DataFolderLocked("held by pid 7")

    app.start = refuse  # type: ignore[method-assign]
    with pytest.raises(DataFolderLocked):
        await serve(app, "127.0.0.1", 0)
    assert (tmp_path / "server.json").read_text() == "of another process"


async def test_without_keys_a_server_does_not_open_itself_to_the_network(app: FakeApp) -> None:
    with pytest.raises(CannotStart, match="no API keys"):
        async with ListeningServer(app, "0.0.0.0", 0):
            pass


def test_small_answers_do_not_wait_for_an_acknowledgement() -> None:
    """asyncio sets TCP_NODELAY only on sockets that name their protocol; without it each search took 45 ms longer."""
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


async def test_dead_letters_are_listed_with_their_reason_and_queued_again(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/dead-letters")).json()
    assert listed == {
        "data": [
            {
                "task_id": "t1",
                "job_id": "j1",
                "collection": "default",
                "id": "a",
                "name": "a.pdf",
                "stage": "parsing",
                "error": {"code": "corrupt_document", "message": "cut off"},
                "attempts": 1,
                "failed_at": 5.0,
            }
        ],
        "has_more": False,
        "last_id": "t1",
    }
    assert (await client.post("/v1/dead-letters/retry")).json() == {"queued": 3, "left": 0}
    assert (await client.post("/v1/dead-letters/t1/retry")).json() == {"queued": 1, "left": 0}
    unknown = await client.post("/v1/dead-letters/nosuch/retry")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "dead_letter_not_found")
