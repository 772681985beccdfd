"""The transport inside this process: live streams, and an application that learns when its client has gone."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from ragworks.local_transport import LocalTransport

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def piece(body, more=True):
    return {"type": "http.response.body", "body": body, "more_body": more}


def connected(application):
    return httpx.AsyncClient(base_url="http://here", transport=LocalTransport(application))


async def test_pieces_arrive_while_the_application_still_waits():
    go_on = asyncio.Event()

    async def application(scope, receive, send):
        await send(START)
        await send(piece(b"first"))
        await go_on.wait()
        await send(piece(b"second", more=False))

    async with connected(application) as http, http.stream("GET", "/") as response:
        pieces = response.aiter_bytes()
        assert await anext(pieces) == b"first"
        go_on.set()
        assert await anext(pieces) == b"second"


async def test_closing_early_tells_the_application_and_leaves_no_task():
    gone = asyncio.Event()

    async def application(scope, receive, send):
        await send(START)
        await send(piece(b"first"))
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async with connected(application) as http, http.stream("GET", "/") as response:
        assert await anext(response.aiter_bytes()) == b"first"
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("local ")]


async def test_the_body_reaches_the_application_whole():
    async def application(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await send(START)
        await send(piece(body[::-1], more=False))

    async with connected(application) as http:
        assert (await http.post("/", content=b"abc")).content == b"cba"


async def test_an_error_of_the_application_reaches_the_caller():
    async def application(scope, receive, send):
        raise ValueError("broken")

    async with connected(application) as http:
        with pytest.raises(ValueError, match="broken"):
            await http.get("/")


async def test_an_error_after_the_answer_has_begun_ends_the_answer():
    """Starlette raises again what it has answered with 500."""

    async def application(scope, receive, send):
        await send(START | {"status": 500})
        await send(piece(b"sorry", more=False))
        raise ValueError("broken")

    async with connected(application) as http:
        response = await http.get("/")
    assert (response.status_code, response.content) == (500, b"sorry")
