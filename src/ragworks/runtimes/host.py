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
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

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

Work = Callable[[int, memoryview], Awaitable[Sequence[memoryview]]]


def main(channel: int) -> None:
    """Host a replica until its parent stops it or dies."""
    code = 0
    try:
        asyncio.run(_Host().run(socket.socket(fileno=channel)))
    except BaseException:
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
        try:
            answer, parts = RESULT, await work(call, message)
        except asyncio.CancelledError:
            answer, parts = ERROR, await _packed(RagworksError("the call was cancelled in its replica"))
        except Exception as error:  # whatever a verb raises is for its caller
            if not isinstance(error, RagworksError):
                traceback.print_exc()  # the parent's log has it whole; the caller gets the name
            answer, parts = ERROR, await _packed(translated(error))
        finally:
            del self._calls[call]
        self._channel.send(call, answer, parts)

    async def _start(self, _: int, message: memoryview) -> Sequence[memoryview]:
        factory, arguments = await unpack(message)
        service = factory(*arguments)
        await service.initialize()
        self._service = service
        return ()

    async def _call(self, _: int, message: memoryview) -> Sequence[memoryview]:
        verb, arguments, named = await unpack(message)
        found = verb_of(self._service, verb)(*arguments, **named)
        return await pack(await found if inspect.isawaitable(found) else found)

    async def _stream(self, call: int, message: memoryview) -> Sequence[memoryview]:
        verb, arguments, named = await unpack(message)
        credit = self._credits[call] = asyncio.Semaphore(WINDOW)
        try:
            async with contextlib.aclosing(verb_of(self._service, verb)(*arguments, **named)) as items:
                async for item in items:
                    await credit.acquire()
                    self._channel.send(call, ITEM, await pack(item))
        finally:
            del self._credits[call]
        return ()


async def _packed(error: RagworksError) -> Sequence[memoryview]:
    try:
        return await pack((type(error), error.args, dict(vars(error))))
    except Exception:  # a field that cannot travel must not hide the message
        return await pack((RagworksError, (f"{type(error).__name__}: {error}",), {}))
