"""The client: waiting when told to, surviving broken streams, and naming what went wrong."""

from __future__ import annotations

import json
import os
import socket

import httpx
import pytest

from ragworks.client import RECONNECTS, Client, connect, live_server
from ragworks.errors import InvalidInput, ServerProblem, ServerUnreachable
from ragworks.local_transport import LocalTransport
from ragworks.settings import Settings


async def test_a_search_that_is_refused_for_now_waits_as_long_as_the_server_says(client, server, pauses):
    server.refuse(429, "queue_full", retry_after=3)
    server.refuse(503, "not_ready", retry_after=2)
    heard = []
    client.on_wait = lambda seconds, reason: heard.append((seconds, reason))
    assert (await client.search("default", {"query": "x"}))["results"]
    assert pauses.seconds == [3, 2]
    assert heard == [(3, "refused with queue_full"), (2, "refused with not_ready")]


async def test_patience_ends(client, server, pauses):
    for _ in range(3):
        server.refuse(429, "queue_full", retry_after=29)
    with pytest.raises(ServerProblem, match="refused with queue_full"):
        await client.search("default", {"query": "x"})
    assert sum(pauses.seconds) <= 60


async def test_a_refusal_that_waiting_cannot_mend_is_raised_at_once(client, server, pauses):
    server.refuse(404, "collection_not_found")
    with pytest.raises(ServerProblem) as caught:
        await client.search("gone", {"query": "x"})
    assert (caught.value.code, caught.value.status, pauses.seconds) == ("collection_not_found", 404, [])


async def test_lists_are_read_to_their_end(client, server):
    server.collections |= {"one", "two"}
    assert [one["name"] for one in await client.collections()] == ["default", "one", "two"]


async def test_making_a_collection_that_is_there_is_no_error(client, server):
    await client.ensure_collection("mine")
    await client.ensure_collection("mine")
    assert "mine" in server.collections


async def test_a_job_is_followed_over_broken_streams_to_its_end(client, server, pauses):
    server.broken_streams = 2
    receipt = await client.submit_documents("default", [{"id": "a", "text": "x"}], "key")
    seen = [job["status"] async for job in client.follow(receipt["processing_job_id"])]
    assert seen[-1] == "completed"
    assert pauses.seconds == [1, 1]


async def test_an_error_in_the_middle_of_an_answer_is_raised(client, server):
    server.answer_error = {"status": 500, "code": "internal_error", "detail": "the generator broke"}
    stream = client.ask_streaming("default", {"question": "x"})
    assert await anext(stream) == "Two "
    with pytest.raises(ServerProblem, match="the generator broke"):
        await anext(stream)


async def test_a_server_that_is_not_ragworks_is_named():
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>hello</html>"))
    async with httpx.AsyncClient(base_url="http://other", transport=transport) as http:
        with pytest.raises(ServerProblem, match="does not answer like ragworks"):
            await Client(http, "http://other").doctor()


async def test_a_dead_server_is_unreachable_after_the_last_try(pauses):
    def refuse(request):
        raise httpx.ConnectError("connection refused")

    async with httpx.AsyncClient(base_url="http://dead", transport=httpx.MockTransport(refuse)) as http:
        client = Client(http, "http://dead", sleep=pauses)
        with pytest.raises(ServerUnreachable, match="cannot be reached"):
            await client.submit_documents("default", [], "key")
        assert len(pauses.seconds) == RECONNECTS


@pytest.mark.parametrize("content", [None, "{", "[]", '{"url": 1}', '{"url": "http://127.0.0.1:1", "pid": "x"}'])
async def test_a_server_file_that_is_missing_or_broken_is_ignored(tmp_path, content):
    if content is not None:
        (tmp_path / "server.json").write_text(content)
    assert await live_server(str(tmp_path)) is None


async def test_the_file_of_a_server_that_died_is_ignored(tmp_path):
    """The process number may have been given to another process since: only an answer counts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "server.json").write_text(json.dumps({"url": url, "pid": os.getpid()}))
        assert await live_server(str(tmp_path)) is None


async def test_an_address_without_a_scheme_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="http://"):
        async with connect(str(tmp_path), "localhost:8000", Settings()):
            pass


@pytest.mark.parametrize("document_id", ["../../default", "..", ".", "a/../b", "a?b#c%2f", "/etc/passwd"])
async def test_a_documents_id_stays_inside_its_address(document_id):
    """``documents delete ..`` deleted the whole collection: the HTTP library resolves ``..`` before it sends."""
    asked = []

    async def application(scope, receive, send):
        asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with httpx.AsyncClient(base_url="http://here", transport=LocalTransport(application)) as http:
        await Client(http, "here").delete_document("default", document_id)
    assert asked == [f"/v1/collections/default/documents/{document_id}"]
