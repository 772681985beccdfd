"""Replicas in this event loop: an object each, called as if it were elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import numpy as np

from ragworks.control_protocols import ReplicaSpec, Usage
from ragworks.errors import RagworksError, ReplicaLost
from ragworks.protocols import Service
from ragworks.runtimes.admission import MAX_CALLS, Admission
from ragworks.runtimes.verbs import translated, verb_of

SHUTDOWN_LIMIT_S = 10.0


class InlineRuntime:
    """Starts replicas in this process. What they take cannot be told from the rest of it, and one that holds the event
    loop holds everyone. Arguments and results are passed as they are, not copied."""

    def __init__(self, *, max_calls: int = MAX_CALLS) -> None:
        self._max_calls = max_calls
        self._replicas: list[InlineReplica] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for replica in self._replicas:
            await replica.kill()

    async def start(self, spec: ReplicaSpec, replica_id: str) -> InlineReplica:
        """A replica whose ``initialize`` has returned. Raises what ``initialize`` raises."""
        try:
            service = spec.factory(*spec.arguments)
            await service.initialize()
        except Exception as error:
            raise translated(error) from error
        self._replicas = [replica for replica in self._replicas if replica.alive()]
        self._replicas.append(replica := InlineReplica(replica_id, spec, service, self._max_calls))
        return replica


class InlineReplica:
    """A service in this event loop. Made by ``InlineRuntime.start``."""

    def __init__(self, replica_id: str, spec: ReplicaSpec, service: Service, max_calls: int) -> None:
        self.id, self.spec, self.pid = replica_id, spec, os.getpid()
        self._service = service
        self._admission: Admission[_Asked] = Admission(replica_id, max_calls)
        self.slots = 1
        self._stopping: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def alive(self) -> bool:
        return not self._ended.done()

    async def call(self, verb: str, *arguments: Any, timeout_s: float | None = None, **named: Any) -> Any:
        with self._asking(verb) as asked:
            async with asked.within(timeout_s, verb):
                found = verb_of(self._service, verb)(*arguments, **named)
                return _read_only(await found if inspect.isawaitable(found) else found)

    async def stream(
        self, verb: str, *arguments: Any, timeout_s: float | None = None, **named: Any
    ) -> AsyncIterator[Any]:
        with self._asking(verb) as asked:
            async with asked.within(timeout_s, verb):
                items = verb_of(self._service, verb)(*arguments, **named)
            async with contextlib.aclosing(items):
                while True:
                    async with asked.within(timeout_s, verb):
                        item = await anext(items, items)
                    if item is items:
                        return
                    yield _read_only(item)

    def usage(self) -> Usage:
        return Usage()

    async def ended(self) -> str:
        return await asyncio.shield(self._ended)

    async def stop(self, drain_s: float) -> None:
        self._admission.ending = self._admission.ending or "was stopped"
        if self._stopping is None:  # each stop awaits it
            self._stopping = asyncio.create_task(self._stop(drain_s), name=f"replica-{self.id}-stop")
        await asyncio.shield(self._stopping)

    async def kill(self) -> None:
        self._admission.ending = self._admission.ending or "was killed by the server"
        self._end(self._admission.ending)

    async def _stop(self, drain_s: float) -> None:
        await self._admission.drain(drain_s)
        self._lose(f"{self.id} was stopped before it answered")
        if not self.alive():
            return
        why = self._admission.ending
        try:
            async with asyncio.timeout(SHUTDOWN_LIMIT_S):
                await self._service.shutdown()
        except Exception as error:  # it is let go of all the same
            why += f" (its shutdown failed: {type(error).__name__}: {error})"
        self._end(why)

    def _end(self, why: str) -> None:
        if self.alive():
            self._admission.gone = why
            self._ended.set_result(why)
            self._lose(f"{self.id} was lost before it answered: it {why}")

    def _lose(self, why: str) -> None:
        for asked in self._admission.waiting:
            asked.lose(why)

    @contextlib.contextmanager
    def _asking(self, verb: str) -> Iterator[_Asked]:
        """A call in flight. Raises NotReady and ReplicaLost."""
        self._admission.check(verb, len(self._admission.waiting))
        asked = _Asked(self.id)
        with self._admission.holding(asked):
            yield asked


class _Asked:
    """A call in flight, which can be taken from the caller whose task it runs in."""

    def __init__(self, replica_id: str) -> None:
        self._replica_id, self._lost = replica_id, ""
        self._limit: asyncio.Timeout | None = None

    def lose(self, why: str) -> None:
        self._lost = self._lost or why
        if self._limit and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def within(self, timeout_s: float | None, verb: str) -> AsyncIterator[None]:
        """Run a part of it; its errors come out as those of any replica."""
        if self._lost:
            raise ReplicaLost(self._lost)
        try:
            async with asyncio.timeout(timeout_s) as self._limit:
                try:
                    yield
                except RagworksError:
                    raise
                except Exception as error:
                    raise translated(error) from error
        except TimeoutError:
            if self._lost:
                raise ReplicaLost(self._lost) from None
            raise TimeoutError(f"{self._replica_id} did not answer {verb} within {timeout_s:g} s") from None
        finally:
            self._limit = None


def _read_only(value: Any) -> Any:
    """An array of the service as a view that cannot be written to, as it would be elsewhere."""
    if isinstance(value, np.ndarray):
        value = value.view()
        value.flags.writeable = False
    return value
