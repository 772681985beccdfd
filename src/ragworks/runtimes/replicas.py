"""Replicas in child processes of their own: called over a channel, watched, and killed freely."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextvars import Context
from functools import partial
from logging import INFO
from typing import Any, NamedTuple, Self

import structlog

from ragworks import logs, tracing
from ragworks.control_protocols import ReplicaSpec, Usage
from ragworks.errors import InvalidInput, RagworksError, ReplicaLost
from ragworks.runtimes.admission import MAX_CALLS, Admission
from ragworks.runtimes.channel import Channel
from ragworks.runtimes.child import unpacked_error
from ragworks.runtimes.host import CALL, CANCEL, ERROR, ITEM, MORE, RESULT, START, STOP, STREAM, WINDOW
from ragworks.runtimes.packing import pack, unpack
from ragworks.runtimes.spawning import Child

log = structlog.get_logger("ragworks.replicas")

SHUTDOWN_LIMIT_S = 10.0  # behind the drain; what takes longer is killed
CLOSED_LIMIT_S = 1.0  # for a process to end that has closed its channel


class ProcessRuntime:
    """Starts each replica in a process of its own, which ends with this context or with this process, however it ends.

    ``max_calls`` may be in flight to one replica; one whose caller gave up counts until the replica lets go of it.
    """

    def __init__(self, *, max_calls: int = MAX_CALLS, niceness: int = 0) -> None:
        self._max_calls, self._niceness = max_calls, niceness
        self._replicas: set[ProcessReplica] = set()
        self._left = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._left = True
        await asyncio.shield(asyncio.gather(*(replica.kill() for replica in list(self._replicas))))

    async def start(self, spec: ReplicaSpec, replica_id: str) -> ProcessReplica:
        """A replica whose ``initialize`` has returned. Cancelling leaves nothing behind.

        Raises what ``initialize`` raises, ReplicaLost when it ended before it was ready, and InvalidInput when the
        factory or its arguments cannot travel.
        """
        try:
            parts = await pack((spec.factory, spec.arguments))
        except Exception as error:
            raise InvalidInput(
                f"the factory of {spec.service} must be importable by its name, and its arguments picklable: {error}"
            ) from error
        child = await Child.spawn(
            "ragworks.runtimes.host", replica_id, niceness=self._niceness, on_line=partial(_said, replica_id)
        )
        replica = ProcessReplica(replica_id, spec, child, self._max_calls)
        replica.keeper.add_done_callback(lambda _: self._replicas.discard(replica))
        self._replicas.add(replica)
        try:
            if self._left:  # while the process was born
                raise ReplicaLost(f"{replica_id} was not started: the runtime is closed")
            await replica.initialize(parts)
        except BaseException:  # also when cancelled: nobody else knows of the process
            await asyncio.shield(replica.kill())
            raise
        return replica


def _said(replica_id: str, line: str) -> None:
    """A line of its log is one of ours; what it prints besides is quoted. Whoever had it started has no part in it."""
    level, event, fields = logs.spoken(line) or (INFO, "replica_said", {"line": line})
    Context().run(log.log, level, event, **fields, replica=replica_id)


def _carried() -> tuple[tracing.Carried | None, logs.Carried]:
    return tracing.carried(), logs.carried()


class ProcessReplica:
    """A service in a child process. Made and initialized by ``ProcessRuntime.start``."""

    def __init__(self, replica_id: str, spec: ReplicaSpec, child: Child, max_calls: int) -> None:
        self.id, self.spec, self.pid = replica_id, spec, child.pid
        self._child = child
        self._admission: Admission[_Asked] = Admission(replica_id, max_calls)
        self.slots = 1
        self._channel = Channel(child.channel, self._heard, self._closed)
        self._numbers = itertools.count()
        self._calls: dict[int, _Asked] = {}  # those that the replica has not let go of
        self._stopping: asyncio.Task[None] | None = None
        self.keeper = asyncio.create_task(self._keep(), name=f"replica-{replica_id}")
        """Done when the process is gone and every caller knows; its result is why."""

    async def initialize(self, parts: Sequence[memoryview]) -> None:
        """Make the service there, and start it."""
        with self._asking("initialize") as asked:
            self._send(asked, START, parts)
            await self._next(asked, "initialize")

    async def call(self, verb: str, *arguments: Any, timeout_s: float | None = None, **named: Any) -> Any:
        with self._asking(verb) as asked:
            async with self._within(timeout_s, verb):
                self._send(asked, CALL, await self._packed(verb, arguments, named, _carried()))
                return (await self._next(asked, verb)).value

    async def stream(
        self, verb: str, *arguments: Any, timeout_s: float | None = None, **named: Any
    ) -> AsyncIterator[Any]:
        with self._asking(verb) as asked:
            self._send(asked, STREAM, await self._packed(verb, arguments, named, _carried()))
            for taken in itertools.count(1):
                async with self._within(timeout_s, verb):
                    answer = await self._next(asked, verb)
                if answer.kind == RESULT:
                    return
                yield answer.value
                if taken % (WINDOW // 2) == 0:
                    self._channel.send(asked.number, MORE)

    def usage(self) -> Usage:
        return self._child.usage()

    async def ended(self) -> str:
        return await asyncio.shield(self.keeper)

    async def stop(self, drain_s: float) -> None:
        self._admission.ending = self._admission.ending or "was stopped"
        if self._stopping is None:  # each stop awaits it, or the replica's end does
            self._stopping = asyncio.create_task(self._stop(drain_s), name=f"replica-{self.id}-stop")
        await asyncio.shield(self._stopping)

    async def kill(self) -> None:
        self._admission.ending = self._admission.ending or "was killed by the server"
        self._child.kill()
        await self.ended()

    async def _stop(self, drain_s: float) -> None:
        await self._admission.drain(drain_s)
        self._lose(f"{self.id} was stopped before it answered")
        self._channel.send(next(self._numbers), STOP)
        try:
            async with asyncio.timeout(SHUTDOWN_LIMIT_S):
                await self.ended()
        except TimeoutError:
            log.warning("replica_killed", replica=self.id, reason=f"did not shut down within {SHUTDOWN_LIMIT_S:g} s")
            await self.kill()

    async def _keep(self) -> str:
        how, said = await self._child.gone()
        why = how + (f"; it said last: {said}" if said else "")
        self._channel.finish()
        self._calls.clear()
        if self._admission.ending:
            why = f"{self._admission.ending} ({why})"
        self._admission.gone = why
        self._lose(f"{self.id} was lost before it answered: it {why}")
        await self._child.end()
        return why

    def _closed(self) -> None:
        """The other end closed the channel: its process is gone, or of no more use."""
        asyncio.get_running_loop().call_later(CLOSED_LIMIT_S, self._child.kill)

    def _lose(self, why: str) -> None:
        for asked in self._admission.waiting:
            asked.put(ERROR, ReplicaLost(why))

    @contextlib.contextmanager
    def _asking(self, verb: str) -> Iterator[_Asked]:
        """A call in flight, given up on the way out if it has not been answered. Raises NotReady and ReplicaLost."""
        self._admission.check(verb, len(self._calls))
        number = next(self._numbers)
        asked = self._calls[number] = _Asked(number)
        try:
            with self._admission.holding(asked):
                yield asked
        finally:
            if number in self._calls:
                if not asked.sent or self._channel.withdraw(number):
                    del self._calls[number]
                else:
                    self._channel.send(number, CANCEL)

    def _send(self, asked: _Asked, kind: int, parts: Sequence[memoryview]) -> None:
        asked.sent = True
        self._channel.send(asked.number, kind, parts)

    async def _packed(self, *call: Any) -> Sequence[memoryview]:
        try:
            return await pack(call)
        except Exception as error:
            raise InvalidInput(f"the arguments of {call[0]} cannot travel to {self.id}: {error}") from error

    async def _next(self, asked: _Asked, verb: str) -> _Answer:
        """The next answer, opened. Raises it if it is an error."""
        kind, message = await asked.next()
        if isinstance(message, ReplicaLost):
            raise message
        try:
            value: Any = await unpack(message)
        except Exception as error:
            raise RagworksError(f"the answer of {self.id} to {verb} cannot be read here: {error}") from error
        if kind != ITEM:
            value, spans = value
            tracing.adopt(spans)
        if kind == ERROR:
            raise unpacked_error(*value)
        return _Answer(kind, value)

    @contextlib.asynccontextmanager
    async def _within(self, timeout_s: float | None, verb: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            raise TimeoutError(f"{self.id} did not answer {verb} within {timeout_s:g} s") from None

    def _heard(self, call: int, kind: int, message: memoryview) -> None:
        asked = self._calls.get(call)
        if asked is None:
            return
        if kind in (RESULT, ERROR):
            del self._calls[call]
        asked.put(kind, message)


class _Answer(NamedTuple):
    kind: int
    value: Any


class _Asked:
    """A call in flight, and its answers as they came."""

    __slots__ = ("_answers", "_news", "number", "sent")

    def __init__(self, number: int) -> None:
        self.number, self.sent = number, False
        self._answers: deque[_Answer] = deque()
        self._news: asyncio.Future[None] | None = None

    def put(self, kind: int, answer: memoryview | ReplicaLost) -> None:
        self._answers.append(_Answer(kind, answer))
        if self._news and not self._news.done():
            self._news.set_result(None)

    async def next(self) -> _Answer:
        while not self._answers:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        return self._answers.popleft()
