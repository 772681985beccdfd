"""Server-sent events that stop when the client leaves, when the server does, or when there is no more to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ragworks.api.problems import Problem, describe
from ragworks.control.metrics import Metrics
from ragworks.errors import RagworksError

T = TypeVar("T")
log = structlog.get_logger("ragworks.api")

# Proxies cut what is silent for a minute; a quarter of that survives one lost comment.
HEARTBEAT_S = 15.0
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def event(name: str, data: Any) -> bytes:
    """One named event with a JSON body."""
    return f"event: {name}\ndata: {_json(data)}\n\n".encode()


def unnamed(data: Any) -> bytes:
    """One event as OpenAI's clients read it."""
    return f"data: {_json(data)}\n\n".encode()


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


class EventStream(Response):
    """Sends what ``source`` yields, and a comment when it is silent. ``source`` is closed whatever happens.

    ``stopping`` ends it early: for streams that would outlive the work they report on.
    """

    def __init__(self, source: AsyncGenerator[bytes, None], stopping: asyncio.Event | None = None) -> None:
        super().__init__()
        self._source = source
        self._stopping = stopping or asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Both are awaited or cancelled below; neither outlives this call.
        ends = {
            asyncio.create_task(_gone(receive), name="sse-disconnect"),
            asyncio.create_task(_wait(self._stopping), name="sse-stopping"),
        }
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            async with aclosing(self._source) as source:
                await _pump(source, ends, send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)


async def _pump(source: AsyncGenerator[bytes, None], ends: set[asyncio.Task[None]], send: Send) -> None:
    while True:
        step = asyncio.create_task(_next(source), name="sse-next")
        try:
            while not (
                done := (await asyncio.wait({step, *ends}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED))[0]
            ):
                await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
        finally:
            # An unfinished step must end before the source can be closed.
            if not step.done():
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)
        if step not in done or (data := step.result()) is None:
            return
        await send({"type": "http.response.body", "body": data, "more_body": True})


async def _next(source: AsyncIterator[T]) -> T | None:
    return await anext(source, None)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _wait(stopping: asyncio.Event) -> None:
    await stopping.wait()


async def attended(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns. A client that leaves before ends it: nobody is there to read the answer.

    For requests whose body was read. Raises ClientDisconnect.
    """
    # Both are awaited or cancelled below.
    answer = asyncio.create_task(work, name="attended")
    gone = asyncio.create_task(_gone(request.receive), name="client-gone")
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def primed(source: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """``source`` again, once its first item is there: what fails before that is still an ordinary error response."""
    first: list[T] = []
    with suppress(StopAsyncIteration):
        first.append(await anext(source))

    async def whole() -> AsyncGenerator[T, None]:
        try:
            for item in first:
                yield item
            async for item in source:
                yield item
        finally:
            await closed(source)

    return whole()


async def closed(source: AsyncIterator[Any]) -> None:
    """Close ``source`` if it can be closed."""
    if isinstance(source, AsyncGenerator):
        await source.aclose()


async def with_errors(
    source: AsyncIterator[bytes], failed: Callable[[Problem], bytes], request_id: str, metrics: Metrics
) -> AsyncGenerator[bytes, None]:
    """``source``, and a last event made by ``failed`` from the problem if it breaks: the status is long sent."""
    try:
        async for data in source:
            yield data
    except Exception as error:
        # The response has begun, so no handler above can answer any more.
        if not isinstance(error, RagworksError):
            log.exception("stream_failed", request_id=request_id)
        problem = describe(error, request_id)
        metrics.error(problem.body["code"])
        yield failed(problem)
    finally:
        await closed(source)
