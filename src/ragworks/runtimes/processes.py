"""A pool of child processes: started when needed, watched, and replaced whenever one misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from typing import Any, Self, TypeVar

import psutil

from ragworks.errors import RagworksError, ReadMemoryExceeded, ReadTimeout, WorkerCrashed
from ragworks.runtimes.child import ERROR, HEADER, MESSAGE, RESULT, unpacked_error

Result = TypeVar("Result")

WATCH_INTERVAL_S = 0.1
START_LIMIT_S = 60.0
NICENESS = "10"  # of the children, so that searches and the model go first
LONG_ANSWER = 256 * 1024  # bytes; unpickling more would hold the event loop for milliseconds
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ragworks.runtimes.child import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
# One thread each: the pool is the parallelism. Fewer arenas: memory of one document goes back before the next.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "2",
}


_COUNTED = ("started", "completed", "failed", "crashed", "timed_out", "over_memory", "retired")


class WorkerPool:
    """Runs functions in up to ``size`` child processes, one call each at a time.

    A child is started by the first call that needs it, used again, and retired after ``calls_per_child`` calls or when
    it still holds more than ``idle_memory_bytes`` after one. Children have low priority; none outlives this process.

    async with WorkerPool(size=2) as pool:
        await pool.run(function, argument, limit_s=60, max_memory_bytes=2**31)
    """

    def __init__(self, size: int, *, calls_per_child: int = 200, idle_memory_bytes: int = 512 * 1024**2) -> None:
        self.size = size
        self._calls_per_child = calls_per_child
        self._idle_memory_bytes = idle_memory_bytes
        self._free = asyncio.Semaphore(size)
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._open = False
        self._counts = dict.fromkeys(_COUNTED, 0)

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        self._idle.clear()
        await asyncio.shield(asyncio.gather(*(self._end(child) for child in list(self._children))))

    def stats(self) -> dict[str, int]:
        """Children alive and busy, and what became of calls and children since the start."""
        return {"alive": len(self._children), "busy": len(self._children) - len(self._idle), **self._counts}

    def pids(self) -> list[int]:
        """The process ids of the children that are alive."""
        return [child.pid for child in self._children]

    async def run(
        self,
        function: Callable[..., Result],
        *args: Any,
        limit_s: float,
        max_memory_bytes: int,
        on_message: Callable[[Any], float | None] | None = None,
    ) -> Result:
        """``function(*args, report)`` in a child; ``report(value)`` there calls ``on_message(value)`` here, which may
        answer with seconds that the call may take beyond its limit.

        ``function`` must be importable. Its own RagworksErrors come back as they are, other errors as CorruptDocument.
        Raises ReadTimeout, ReadMemoryExceeded or WorkerCrashed; the child is gone then, as it is after a cancel.
        """
        call = frame_of_call(function, args)
        async with self._free:
            child = await self._take()
            try:
                answer = await child.call(call, limit_s, max_memory_bytes, on_message)
            except BaseException as error:
                self._note(error)
                await asyncio.shield(self._end(child))
                raise
            await asyncio.shield(self._give_back(child))
        if isinstance(answer, _Failed):
            self._counts["failed"] += 1
            raise answer.error
        self._counts["completed"] += 1
        return answer  # type: ignore[no-any-return]

    async def _take(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.alive():
                return child
            await self._end(child)
        if not self._open:
            raise WorkerCrashed("the worker pool is closed")
        child = await _Child.start(self._children)
        self._counts["started"] += 1
        return child

    async def _give_back(self, child: _Child) -> None:
        if not self._open:
            await self._end(child)
        elif child.calls >= self._calls_per_child or child.memory_bytes() > self._idle_memory_bytes:
            self._counts["retired"] += 1
            await self._end(child)
        else:
            self._idle.append(child)

    async def _end(self, child: _Child) -> None:
        await child.end()
        self._children.discard(child)

    def _note(self, error: BaseException) -> None:
        ends = ((ReadTimeout, "timed_out"), (ReadMemoryExceeded, "over_memory"), (WorkerCrashed, "crashed"))
        for kind, counted in ends:
            if isinstance(error, kind):
                self._counts[counted] += 1


def frame_of_call(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """The call as it travels. Packed before a child is taken, so that what cannot be packed costs nobody a turn."""
    body = pickle.dumps((function, args), protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


class _Failed:
    """The answer of a call that raised, in a child that is well."""

    def __init__(self, error: RagworksError) -> None:
        self.error = error


class _Child:
    """One child process and the protocol with it."""

    def __init__(self, process: Process) -> None:
        requests, answers, said = process.stdin, process.stdout, process.stderr
        assert requests is not None
        assert answers is not None
        assert said is not None
        self._process, self._requests, self._answers = process, requests, answers
        self._said: deque[bytes] = deque(maxlen=20)
        # Awaited in end(); a pipe that nobody empties would stop a library that prints.
        self._listener = asyncio.create_task(self._listen(said), name=f"worker-{process.pid}-stderr")
        self._watched = psutil.Process(process.pid)
        self.pid = process.pid
        self.calls = 0
        self._deadline = 0.0  # of the call that runs; messages may move it

    @classmethod
    async def start(cls, children: set[_Child]) -> _Child:
        """A child that is ready. It joins ``children`` before it is, so that nobody can lose it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _BOOT, json.dumps(sys.path), str(os.getpid()), NICENESS,
            stdin=PIPE, stdout=PIPE, stderr=PIPE, env=os.environ | _ENVIRONMENT,
        )  # fmt: skip
        child = cls(process)
        children.add(child)
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await child._receive()
        except BaseException as error:
            await asyncio.shield(child.end())
            children.discard(child)
            if isinstance(error, TimeoutError):
                raise WorkerCrashed(f"a worker process was not ready within {START_LIMIT_S:g} s") from error
            raise
        return child

    def alive(self) -> bool:
        return self._process.returncode is None

    def memory_bytes(self) -> int:
        """Resident memory, 0 once the process is gone."""
        try:
            return int(self._watched.memory_info().rss)
        except psutil.Error:
            return 0

    async def call(
        self, call: bytes, limit_s: float, max_memory_bytes: int, on_message: Callable[[Any], float | None] | None
    ) -> Any:
        """The call's result, or _Failed. Raises when the child did not come to an answer and must go."""
        self.calls += 1
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + limit_s
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
                    raise ReadTimeout(_too_long(limit_s))
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
        items: tuple[Any, ...]
        items = pickle.loads(body) if length < LONG_ANSWER else await asyncio.to_thread(pickle.loads, body)
        return items

    async def _crashed(self) -> WorkerCrashed:
        """What to say of a child that closed its pipe."""
        try:
            async with asyncio.timeout(WATCH_INTERVAL_S * 10):
                code = await self._process.wait()
        except TimeoutError:
            return WorkerCrashed("the worker process closed its pipe while it read the document")
        reason = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said = b"".join(self._said).decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        return WorkerCrashed(f"the worker process {reason} while it read the document" + (f": {said}" if said else ""))

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        while part := await stderr.read(1024):
            self._said.append(part)

    async def end(self) -> None:
        """Kill the process and wait until it is gone. Harmless when it is gone already."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._requests.close()
        await self._process.wait()
        await self._listener


def _too_long(limit_s: float) -> str:
    return (
        f"reading took longer than {limit_s:g} s and was stopped; raise document_processor.read_timeout_s or split the "
        "document"
    )


def _over_memory(taken: int, limit: int) -> str:
    return (
        f"reading took {taken // 1024**2} MiB of memory, the limit is {limit // 1024**2} MiB; raise "
        "document_processor.read_memory_bytes or split the document"
    )
