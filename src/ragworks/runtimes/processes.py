"""A pool of child processes: started when needed, watched, and replaced whenever one misbehaves."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import structlog

from ragworks.control_protocols import Record, Usage, unrecorded
from ragworks.errors import RagworksError, ReadMemoryExceeded, ReadTimeout, WorkerCrashed
from ragworks.runtimes.child import ERROR, HEADER, MESSAGE, RESULT, unpacked_error
from ragworks.runtimes.packing import unpickled
from ragworks.runtimes.spawning import Child

Result = TypeVar("Result")

log = structlog.get_logger("ragworks.workers")

WATCH_INTERVAL_S = 0.1
START_LIMIT_S = 60.0
STARVED = 0.25
"""Of the time that a call may take: one that had less of a core than this says nothing of its document."""
NICENESS = 10  # of the children, so that searches and the model go first
# One thread each: the pool is the parallelism. Fewer arenas: memory of one document goes back before the next.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "2",
}


_COUNTED = ("started", "completed", "failed", "crashed", "timed_out", "over_memory", "retired")


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One child process as it stands."""

    pid: int
    busy: bool
    usage: Usage


class WorkerPool:
    """Runs functions in up to ``size`` child processes, one call each at a time.

    A worker is started by the first call that needs it, used again, and retired after ``calls_per_child`` calls or when
    it still holds more than ``idle_memory_bytes`` after one. Children have low priority; none outlives this process.

    async with WorkerPool(size=2) as pool:
        await pool.run(function, argument, limit_s=60, max_memory_bytes=2**31)
    """

    def __init__(self, size: int, *, calls_per_child: int = 200, idle_memory_bytes: int = 512 * 1024**2) -> None:
        self.size = size
        self._calls_per_child = calls_per_child
        self._idle_memory_bytes = idle_memory_bytes
        self._free = asyncio.Semaphore(size)
        self._surplus = 0  # places that go when the call in them has ended
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._open = False
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._waiting = 0
        self.record: Record = unrecorded
        """Hears of workers that end, or are ended, with a document."""
        self.call_seconds = 0.0
        """Of the calls that ended and did not lose their worker, the wait for one included."""

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        self._idle.clear()
        await asyncio.shield(asyncio.gather(*(self._end(worker) for worker in list(self._workers))))

    def stats(self) -> dict[str, int]:
        """Children alive and busy, calls that wait for one, and what became of calls and children since the start."""
        busy = len(self._workers) - len(self._idle)
        return {"alive": len(self._workers), "busy": busy, "waiting": self._waiting, **self._counts}

    def pids(self) -> list[int]:
        """The process ids of the children that are alive; from any thread."""
        return [worker.pid for worker in tuple(self._workers)]

    def workers(self) -> list[WorkerReport]:
        """Each worker that is alive; its CPU is that since it was last asked."""
        return [WorkerReport(one.pid, one not in self._idle, one.usage()) for one in self._workers]

    async def resize(self, size: int) -> None:
        """Let ``size`` calls run at once. Growing is immediate; when it shrinks, idle workers go now, and calls that
        run are finished first."""
        grown, self.size = size - self.size, size
        if grown > 0:
            self._add_places(grown)
        self._surplus += max(0, -grown)
        while self._surplus and not self._free.locked():
            await self._free.acquire()  # at once: there is one
            self._surplus -= 1
        while self._idle and len(self._workers) > size:
            await self._end(self._idle.pop(0))

    async def run(
        self,
        function: Callable[..., Result],
        *args: Any,
        limit_s: float,
        max_memory_bytes: int,
        on_message: Callable[[Any], float | None] | None = None,
    ) -> Result:
        """``function(*args, report)`` in a worker; ``report(value)`` there calls ``on_message(value)`` here, which may
        answer with seconds that the call may take beyond its limit.

        ``function`` must be importable. Its own RagworksErrors come back as they are, other errors as CorruptDocument.
        Raises ReadTimeout, ReadMemoryExceeded or WorkerCrashed; the worker is gone then, as it is after a cancel.
        """
        call, began = frame_of_call(function, args), asyncio.get_running_loop().time()
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            worker = await self._take()
            try:
                answer = await worker.call(call, limit_s, max_memory_bytes, on_message)
            except BaseException as error:
                self._note(error, worker)
                await asyncio.shield(self._end(worker))
                raise
            self.call_seconds += asyncio.get_running_loop().time() - began
            await asyncio.shield(self._give_back(worker))
        finally:
            self._add_places(1)
        if isinstance(answer, _Failed):
            self._counts["failed"] += 1
            raise answer.error
        self._counts["completed"] += 1
        return answer  # type: ignore[no-any-return]

    def _add_places(self, places: int) -> None:
        for _ in range(places):
            if self._surplus:
                self._surplus -= 1
            else:
                self._free.release()

    async def _take(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive():
                return worker
            await self._end(worker)
        if not self._open:
            raise WorkerCrashed("the worker pool is closed")
        worker = await _Worker.start(self._workers)
        self._counts["started"] += 1
        return worker

    async def _give_back(self, worker: _Worker) -> None:
        if not self._open or len(self._workers) > self.size:
            await self._end(worker)
        elif worker.calls >= self._calls_per_child or worker.memory_bytes() > self._idle_memory_bytes:
            self._counts["retired"] += 1
            await self._end(worker)
        else:
            self._idle.append(worker)

    async def _end(self, worker: _Worker) -> None:
        await worker.end()
        self._workers.discard(worker)

    def _note(self, error: BaseException, worker: _Worker) -> None:
        ends = ((ReadTimeout, "timed_out"), (ReadMemoryExceeded, "over_memory"), (WorkerCrashed, "crashed"))
        for kind, counted in ends:
            if isinstance(error, kind):
                self._counts[counted] += 1
                action = "replica_ended" if kind is WorkerCrashed else "replica_killed"
                document = structlog.contextvars.get_contextvars().get("document_id")
                seen = {"document_id": document, "pid": worker.pid}
                self.record(action, reason=str(error), replica=f"document_processor-{worker.pid}", inputs=seen)


def frame_of_call(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """The call as it travels. Packed before a child is taken, so that what cannot be packed costs nobody a turn."""
    body = pickle.dumps((function, args), protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


class _Failed:
    """The answer of a call that raised, in a worker that is well."""

    def __init__(self, error: RagworksError) -> None:
        self.error = error


class _Worker:
    """A child process that works on one call at a time, and the protocol with it."""

    def __init__(
        self, child: Child, voice: _Voice, answers: asyncio.StreamReader, requests: asyncio.StreamWriter
    ) -> None:
        self._child, self._voice, self._answers, self._requests = child, voice, answers, requests
        self.pid, self.alive = child.pid, child.alive
        self.usage, self.memory_bytes = child.usage, child.memory_bytes
        self.calls = 0
        self._deadline = 0.0  # of the call that runs; messages may move it

    @classmethod
    async def start(cls, workers: set[_Worker]) -> _Worker:
        """A worker that is ready. It joins ``workers`` before it is, so that nobody can lose it."""
        voice = _Voice()
        child = await Child.spawn(
            "ragworks.runtimes.child", "worker", niceness=NICENESS, environment=_ENVIRONMENT, on_line=voice.say
        )
        try:
            worker = cls(child, voice, *await asyncio.open_connection(sock=child.channel))
        except BaseException:
            child.channel.close()
            await asyncio.shield(child.end())
            raise
        workers.add(worker)
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await worker._receive()
        except BaseException as error:
            await asyncio.shield(worker.end())
            workers.discard(worker)
            if isinstance(error, TimeoutError):
                raise WorkerCrashed(f"a worker process was not ready within {START_LIMIT_S:g} s") from error
            raise
        return worker

    async def call(
        self, call: bytes, limit_s: float, max_memory_bytes: int, on_message: Callable[[Any], float | None] | None
    ) -> Any:
        """The call's result, or _Failed. Raises when the child did not come to an answer and must go."""
        self.calls += 1
        self._voice.speaks_for = copy_context()
        loop = asyncio.get_running_loop()
        began, worked_s = loop.time(), self._child.cpu_seconds()
        self._deadline = began + limit_s
        answer = asyncio.ensure_future(self._ask(call, on_message))
        try:
            while not answer.done():
                left = self._deadline - loop.time()
                await asyncio.wait({answer}, timeout=max(0.0, min(left, WATCH_INTERVAL_S)))
                if answer.done():
                    break
                if (taken := self.memory_bytes()) > max_memory_bytes:
                    raise ReadMemoryExceeded(_over_memory(taken, max_memory_bytes))
                if left <= 0:
                    raise _too_long(limit_s, loop.time() - began, self._child.cpu_seconds() - worked_s)
            return answer.result()
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)

    async def _ask(self, call: bytes, on_message: Callable[[Any], float | None] | None) -> Any:
        try:
            self._requests.write(call)
            await self._requests.drain()
        except ConnectionError:
            raise await self._crashed() from None
        while True:
            kind, *items = await self._receive()
            if kind == RESULT:
                return items[0]
            if kind == ERROR:
                return _Failed(unpacked_error(*items))
            if kind == MESSAGE and on_message is not None:
                self._deadline += on_message(items[0]) or 0.0

    async def _receive(self) -> tuple[Any, ...]:
        try:
            length = HEADER.unpack(await self._answers.readexactly(HEADER.size))[0]
            body = await self._answers.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._crashed() from None
        items: tuple[Any, ...] = await unpickled(memoryview(body))
        return items

    async def _crashed(self) -> WorkerCrashed:
        """What to say of a worker that closed its channel."""
        try:
            async with asyncio.timeout(WATCH_INTERVAL_S * 10):
                how, said = await self._child.gone()
        except TimeoutError:
            how, said = "closed its channel", ""
        return WorkerCrashed(f"the worker process {how} while it read the document" + (f": {said}" if said else ""))

    async def end(self) -> None:
        """Kill the process and return when it is gone. Harmless when it is gone already."""
        self._requests.close()
        await self._child.end()


class _Voice:
    """What a worker prints, in the log of whom it works for. On debug: a parser may quote the document."""

    def __init__(self) -> None:
        self.speaks_for = Context()

    def say(self, line: str) -> None:
        self.speaks_for.run(log.debug, "worker_said", line=line)


def _too_long(limit_s: float, took_s: float, worked_s: float) -> ReadTimeout:
    if worked_s < STARVED * took_s:
        return ReadTimeout(
            f"reading was stopped after {limit_s:g} s, in which it had a core for {max(0.0, worked_s):.1f} s: it "
            "hangs, or the machine is overloaded",
            transient=True,
        )
    return ReadTimeout(
        f"reading took longer than {limit_s:g} s and was stopped; raise document_processor.read_timeout_s or split the "
        "document"
    )


def _over_memory(taken: int, limit: int) -> str:
    return (
        f"reading took {taken // 1024**2} MiB of memory, the limit is {limit // 1024**2} MiB; raise "
        "document_processor.read_memory_bytes or split the document"
    )
