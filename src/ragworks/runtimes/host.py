"""What the process of a replica runs: its service, on an event loop of its own, and the calls that come for it.

It imports no more than it must: what the service needs, its factory imports.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ragworks import logs, tracing
from ragworks.errors import RagworksError
from ragworks.runtimes.channel import Channel
from ragworks.runtimes.packing import pack, unpack
from ragworks.runtimes.verbs import translated, verb_of

if TYPE_CHECKING:
    from ragworks.protocols import Service

START, CALL, STREAM, CANCEL, MORE, STOP = range(1, 7)
"""What the parent says. MORE lets a stream send half a WINDOW more."""
RESULT, ERROR, ITEM = range(11, 14)
"""What the replica says. RESULT or ERROR is the last of a call; every call gets one, cancelled or not."""

WINDOW = 8
"""Items that a stream sends ahead of its reader."""

Work = Callable[[int, memoryview, "Within"], Awaitable[Any]]


def main(channel: int) -> None:
    """Host a replica until its parent stops it or dies."""
    code = 0
    try:
        asyncio.run(_Host().run(socket.socket(fileno=channel)))
    except BaseException:  # whatever ended it, the parent reads the code and what was printed
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that a library left behind must not hold it up


class _Host:
    def __init__(self) -> None:
        self._service: Service | None = None
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._credits: dict[int, asyncio.Semaphore] = {}
        self._works: dict[int, Work] = {START: self._start, CALL: self._call, STREAM: self._stream}
        self._stop = asyncio.Event()

    async def run(self, sock: socket.socket) -> None:
        self._channel = Channel(sock, self._heard, lambda: os._exit(0))
        await self._stop.wait()
        for task in self._calls.values():
            task.cancel()
        await asyncio.gather(*self._calls.values(), return_exceptions=True)
        if self._service:
            await self._service.shutdown()

    def _heard(self, call: int, kind: int, message: memoryview) -> None:
        if work := self._works.get(kind):
            self._calls[call] = asyncio.create_task(self._answer(call, message, work))
        elif kind == STOP:
            self._stop.set()
        elif kind == CANCEL and (task := self._calls.get(call)):
            task.cancel()
        elif kind == MORE and (credit := self._credits.get(call)):
            for _ in range(WINDOW // 2):
                credit.release()

    async def _answer(self, call: int, message: memoryview, work: Work) -> None:
        within = Within()
        try:
            value = await work(call, message, within)
            answer = RESULT
            parts: Sequence[memoryview] = await pack((value, within.spans))
        except asyncio.CancelledError:
            answer, parts = ERROR, await _packed(RagworksError("the call was cancelled in its replica"), within)
        except Exception as error:  # whatever a verb raises is for its caller
            if not isinstance(error, RagworksError):
                within.report(error)  # the parent's log has it whole; the caller gets the name
            answer, parts = ERROR, await _packed(translated(error), within)
        finally:
            del self._calls[call]
        self._channel.send(call, answer, parts)

    async def _start(self, _: int, message: memoryview, within: Within) -> None:
        factory, arguments = await unpack(message)
        service = factory(*arguments)
        logs.configure_child()
        await service.initialize()
        self._service = service

    async def _call(self, _: int, message: memoryview, within: Within) -> Any:
        verb, arguments, named, carried = await unpack(message)
        with within.entered(verb, carried):
            found = verb_of(self._service, verb)(*arguments, **named)
            return await found if inspect.isawaitable(found) else found

    async def _stream(self, call: int, message: memoryview, within: Within) -> None:
        verb, arguments, named, carried = await unpack(message)
        credit = self._credits[call] = asyncio.Semaphore(WINDOW)
        try:
            with within.entered(verb, carried):
                async with contextlib.aclosing(verb_of(self._service, verb)(*arguments, **named)) as items:
                    async for item in items:
                        await credit.acquire()
                        self._channel.send(call, ITEM, await pack(item))
        finally:
            del self._credits[call]


class Within:
    """What a call belongs to, as its caller sent it: the span, and what each line of the log says."""

    def __init__(self) -> None:
        self.spans: list[tuple[Any, ...]] = []
        """Those that ended here, for the caller, who exports them."""
        self._carried: logs.Carried = {}

    @contextlib.contextmanager
    def entered(self, verb: str, carried: tuple[tracing.Carried | None, logs.Carried]) -> Iterator[None]:
        span, self._carried = carried
        with (
            logs.continued(self._carried),
            tracing.continued(span, self._ended),
            tracing.span(verb, {"process.pid": os.getpid()}, "server"),
        ):
            yield

    def _ended(self, span: tracing.Ended) -> None:
        self.spans.append(tuple(span))

    def report(self, error: Exception) -> None:
        with logs.continued(self._carried):
            logs.report("verb_failed", error)


async def _packed(error: RagworksError, within: Within) -> Sequence[memoryview]:
    try:
        return await pack(((type(error), error.args, dict(vars(error))), within.spans))
    except Exception:  # a field that cannot travel must not hide the message
        return await pack(((RagworksError, (f"{type(error).__name__}: {error}",), {}), within.spans))
