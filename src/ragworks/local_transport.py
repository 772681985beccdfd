"""Carries HTTP requests to an ASGI application in this process, and streams its answers piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import httpx

Message = MutableMapping[str, Any]
Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class LocalTransport(httpx.AsyncBaseTransport):
    """Like ``httpx.ASGITransport``, which however collects an answer to its end: no event stream would be live.

    Closing a response early tells the application that its client is gone, and cancels it.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(self._application, request)
        return await exchange.response()


class _Exchange(httpx.AsyncByteStream):
    """One request and its answer. The application runs in a task that ``aclose`` ends."""

    def __init__(self, application: Application, request: httpx.Request) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self._body = request.stream.__aiter__()
        self._body_sent = False
        # One message at a time: an application cannot run ahead of a slow reader.
        self._messages: asyncio.Queue[Message | BaseException | None] = asyncio.Queue(maxsize=1)
        self._closed = asyncio.Event()
        # Awaited by aclose, which httpx calls when the answer has been read or dropped.
        self._task = asyncio.create_task(self._run(application, _scope(request)), name=f"local {request.url.path}")

    async def response(self) -> httpx.Response:
        try:
            message = await self._next()
        except BaseException:  # also when cancelled: there is no response yet that could be closed instead
            await self.aclose()
            raise
        if message is None:
            raise RuntimeError("the application ended without an answer")
        return httpx.Response(message["status"], headers=message.get("headers", []), stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._next()) is not None:
            if body := message.get("body", b""):
                yield body
            if not message.get("more_body", False):
                return

    async def aclose(self) -> None:
        self._closed.set()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _next(self) -> Message | None:
        item = await self._messages.get()
        if isinstance(item, BaseException):
            raise item
        return item

    async def _run(self, application: Application, scope: MutableMapping[str, Any]) -> None:
        started = False

        async def send(message: Message) -> None:
            nonlocal started
            started = True
            await self._messages.put(message)

        try:
            await application(scope, self._receive, send)
        except Exception as error:  # handed to the caller, unless a 500 has been sent in its place
            await self._messages.put(None if started else error)
        else:
            await self._messages.put(None)

    async def _receive(self) -> Message:
        if self._body_sent:
            await self._closed.wait()
            return {"type": "http.disconnect"}
        try:
            return {"type": "http.request", "body": await anext(self._body), "more_body": True}
        except StopAsyncIteration:
            self._body_sent = True
            return {"type": "http.request", "body": b"", "more_body": False}


def _scope(request: httpx.Request) -> MutableMapping[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 0),
        "root_path": "",
    }
