"""Gathers concurrent calls into batches for one model that works in one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragworks.errors import NotReady, RagworksError
from ragworks.policies.batching import BatchSettings, WaitingText, choose
from ragworks.protocols import Clock, Model
from ragworks.types import TextKind

A = TypeVar("A")
T = TypeVar("T")

MEASURED_AT_ONCE = 256
"""Texts tokenised in one go to learn their lengths: about 50 ms, so that a question is not kept waiting by it."""

UNIT_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True)
class Embedded:
    """What became of one text: a unit vector, or the reason why there is none. ``batch_size`` is its batch's."""

    vector: NDArray[np.float32] | None
    truncated: bool = False
    batch_size: int = 0
    reason: str = ""
    transient: bool = False
    retry_after_s: float = 1.0


@dataclass(eq=False, slots=True)
class _Waiting:
    text: str
    kind: TextKind
    since: float
    result: asyncio.Future[Embedded]
    tokens: int | None = None


class Batcher:
    """Entering starts the loop; leaving refuses new texts, finishes those that wait, and ends the thread.

    A question waits for the running batch at most, and then goes first. A failing batch is split in two until the
    bad text is alone. The texts of a cancelled caller are dropped unless their batch runs already.
    """

    def __init__(self, model: Model, settings: BatchSettings, clock: Clock, *, max_waiting: int = 10_000) -> None:
        self._model, self._settings, self._clock = model, settings, clock
        self._line: dict[_Waiting, None] = {}
        self._room = {kind: asyncio.Semaphore(max_waiting) for kind in ("passage", "question")}
        self._changed = asyncio.Event()
        self._closing = False
        self._loop_task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self.running_since: float | None = None
        self.batches = 0
        self.failures_in_a_row = 0
        self.last_failure = ""

    async def __aenter__(self) -> Self:
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedding")
        self._loop_task = asyncio.create_task(self._loop(), name="batcher")  # awaited by __aexit__
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._changed.set()
        try:
            if self._loop_task is not None:
                await self._loop_task
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=False)

    @property
    def alive(self) -> bool:
        return not self._closing and self._loop_task is not None and not self._loop_task.done()

    @property
    def waiting(self) -> int:
        return len(self._line)

    async def embed(self, texts: Sequence[str], kind: TextKind) -> list[Embedded]:
        """One result per text, in order. Waits for room when too many texts wait. Raises NotReady when closed."""
        mine: list[_Waiting] = []
        try:
            for text in texts:
                await self._room[kind].acquire()
                mine.append(self._join(text, kind))
            return [await item.result for item in mine]
        finally:
            for item in mine:
                self._line.pop(item, None)
                item.result.cancel()

    def _join(self, text: str, kind: TextKind) -> _Waiting:
        room = self._room[kind]
        if not self.alive:
            room.release()
            raise NotReady("the embedding model is not running; try again when the service is up")
        item = _Waiting(text, kind, self._clock.monotonic(), asyncio.get_running_loop().create_future())
        item.result.add_done_callback(lambda _: room.release())
        self._line[item] = None
        self._changed.set()
        return item

    async def _loop(self) -> None:
        try:
            while self._line or not self._closing:
                if not self._line:
                    await self._change(None)
                    continue
                await self._measure()
                await self._next_batch()
        finally:
            self._give_up(list(self._line))

    async def _measure(self) -> None:
        """Learn the lengths of texts that just came, questions first; a text that cannot be measured fails."""
        new = sorted((item for item in self._line if item.tokens is None), key=lambda item: item.kind != "question")
        if batch := new[:MEASURED_AT_ONCE]:
            for item, length in zip(batch, await self._in_thread(self._lengths, batch), strict=True):
                if isinstance(length, Exception):
                    self._settle(item, _failure(length, len(batch)))
                else:
                    item.tokens = length

    async def _next_batch(self) -> None:
        now = self._clock.monotonic()
        line = [item for item in self._line if item.tokens is not None]
        settings = replace(self._settings, max_wait_s=0.0) if self._closing else self._settings
        decision = choose(
            settings,
            [WaitingText(item.kind, min(item.tokens or 0, self._model.max_tokens), now - item.since) for item in line],
        )
        if decision.take:
            await self._run([line[place] for place in decision.take])
        elif decision.wait_s is not None and len(line) == len(self._line):
            await self._change(decision.wait_s)

    async def _run(self, batch: list[_Waiting]) -> None:
        for item in batch:
            del self._line[item]
        vectors = await self._in_thread(self._vectors, batch)
        self._count(vectors)
        for item, vector in zip(batch, vectors, strict=True):
            if isinstance(vector, Exception):
                self._settle(item, _failure(vector, len(batch)))
            else:
                self._settle(item, Embedded(vector, (item.tokens or 0) > self._model.max_tokens, len(batch)))

    async def _change(self, within_s: float | None) -> None:
        """Until the line changes or the time is over."""
        self._changed.clear()
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._changed.wait())]  # both end here, or are cancelled
        if within_s is not None:
            waits.append(asyncio.create_task(self._clock.sleep(within_s)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _in_thread(
        self, call: Callable[[Sequence[_Waiting]], Sequence[T | Exception]], items: list[_Waiting]
    ) -> list[T | Exception]:
        assert self._thread is not None
        self.running_since = self._clock.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, bisected, call, items)
        except asyncio.CancelledError:
            self._give_up(items)
            raise
        finally:
            self.running_since = None

    def _lengths(self, items: Sequence[_Waiting]) -> list[int | Exception]:
        lengths = list(self._model.lengths([item.text for item in items]))
        if len(lengths) != len(items):
            raise ValueError(f"the model measured {len(lengths)} texts where {len(items)} were given")
        return [int(length) for length in lengths]

    def _vectors(self, items: Sequence[_Waiting]) -> list[NDArray[np.float32] | Exception]:
        vectors = self._model.embed([item.text for item in items], items[0].kind)
        return checked(vectors, len(items), self._model.dimension)

    def _count(self, vectors: Sequence[object]) -> None:
        self.batches += 1
        failures = [one for one in vectors if isinstance(one, Exception)]
        if len(failures) < len(vectors):
            self.failures_in_a_row = 0
        else:
            self.failures_in_a_row += 1
            self.last_failure = _failure(failures[-1], 0).reason

    def _settle(self, item: _Waiting, outcome: Embedded) -> None:
        self._line.pop(item, None)
        if not item.result.done():
            item.result.set_result(outcome)

    def _give_up(self, items: Sequence[_Waiting]) -> None:
        for item in items:
            self._settle(item, Embedded(None, reason="the embedding model was stopped", transient=True))


def bisected(call: Callable[[Sequence[A]], Sequence[T | Exception]], items: Sequence[A]) -> list[T | Exception]:
    """``call`` over all items; where it raises, over each half, until each bad item fails alone, with its error.

    A transient error says nothing about single items, so it fails all of them at once.
    """
    try:
        return list(call(items))
    # A model may raise anything; whatever it is, it belongs to the texts and must not end the loop.
    except Exception as error:
        if len(items) <= 1 or (isinstance(error, RagworksError) and error.transient):
            return [error] * len(items)
        half = len(items) // 2
        return bisected(call, items[:half]) + bisected(call, items[half:])


def checked(vectors: Any, rows: int, dimension: int) -> list[NDArray[np.float32] | Exception]:
    """The rows of a model's answer, an error in place of each unusable one. Raises ValueError on a wrong shape."""
    array = np.asarray(vectors)
    if array.shape != (rows, dimension) or array.dtype.kind != "f":
        expected = f"float32 of shape {(rows, dimension)}"
        raise ValueError(f"the model returned {array.dtype} of shape {array.shape} where {expected} was expected")
    array = array.astype(np.float32, copy=False)
    return [row.copy() if (reason := _unusable(row)) is None else ValueError(reason) for row in array]


def _unusable(row: NDArray[np.float32]) -> str | None:
    if not np.isfinite(row).all():
        return "the model returned a vector that is not finite"
    norm = float(np.linalg.norm(row))
    if abs(norm - 1.0) > UNIT_TOLERANCE:
        return f"the model returned a vector of length {norm:.3g} where a unit vector was expected"
    return None


def _failure(error: Exception, batch_size: int) -> Embedded:
    transient = isinstance(error, (MemoryError, OSError)) or (isinstance(error, RagworksError) and error.transient)
    return Embedded(None, False, batch_size, str(error) or type(error).__name__, transient)
