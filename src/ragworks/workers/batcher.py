"""Gathers concurrent calls into batches for one model that works in one thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragworks import tracing
from ragworks.errors import NotReady, RagworksError
from ragworks.policies.batching import BatchSettings, WaitingText, choose
from ragworks.protocols import Clock, Model
from ragworks.types import TextKind
from ragworks.waiting import news_or_time

A = TypeVar("A")
T = TypeVar("T")

MEASURED_AT_ONCE = 128
"""Texts tokenised in one go to learn their lengths: about 40 ms, so that a question is not kept waiting by it."""

WINDOW = 512
"""Texts of a lane among which a batch is chosen: enough to find equals in length. Choosing among all texts of a caller
who brings 10,000 would hold the event loop for 20 ms each time."""

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


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch took: tokens without padding, None where only the model's server counts them."""

    tokens: int | None
    seconds: float


MOST_BATCHES = 4096
"""Batches that are remembered until somebody is told of them: far more than are made between two answers."""


@dataclass(eq=False, slots=True)
class _Call:
    """One caller's texts. The first ``entered`` of them have joined the line, of which ``inside`` are still there."""

    texts: Sequence[str]
    kind: TextKind
    since: float
    results: list[Embedded | None]
    done: asyncio.Future[None]
    entered: int = 0
    inside: int = 0
    open: int = 0
    span: tracing.Context | None = None


@dataclass(eq=False, slots=True)
class _Waiting:
    call: _Call
    place: int
    tokens: int = 0

    @property
    def text(self) -> str:
        return self.call.texts[self.place]


class Batcher:
    """Entering starts the loop; leaving refuses new texts, finishes those that wait, and ends the thread.

    A question waits for the running batch at most, and then goes first. Callers take turns: beside k - 1 others of its
    kind, a caller of n texts has its answer after k * n batches at most, however many texts the others brought. A
    failing batch is split in two until the bad text is alone. The texts of a cancelled caller are dropped unless their
    batch runs already.
    """

    def __init__(self, model: Model, settings: BatchSettings, clock: Clock, *, window: int = WINDOW) -> None:
        self._model, self._settings, self._clock, self._window = model, settings, clock, window
        self._calls: dict[_Call, None] = {}  # in order of their turns
        self._line: dict[_Waiting, None] = {}
        self._changed = asyncio.Event()
        self._closing = False
        self._loop_task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self.running_since: float | None = None
        self.batches = 0
        self.untold: deque[Batch] = deque(maxlen=MOST_BATCHES)
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
        """Texts without an answer."""
        return sum(len(call.texts) - call.entered + call.inside for call in self._calls)

    async def embed(self, texts: Sequence[str], kind: TextKind) -> list[Embedded]:
        """One result per text, in order. Raises NotReady when closed."""
        if not self.alive:
            raise NotReady("the embedding model is not running; try again when the service is up")
        if not texts:
            return []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call = _Call(
            texts, kind, self._clock.monotonic(), [None] * len(texts), done, open=len(texts), span=tracing.current()
        )
        self._calls[call] = None
        self._changed.set()
        try:
            await done
        finally:
            self._calls.pop(call, None)
            for item in [item for item in self._line if item.call is call]:
                del self._line[item]
        return [result for result in call.results if result is not None]

    async def _loop(self) -> None:
        try:
            while self._calls or not self._closing:
                if not self._calls:
                    await self._change(None)
                    continue
                await self._admit()
                await self._next_batch()
        finally:
            self._give_up_all()

    async def _admit(self) -> None:
        """Let texts join the line, questions first; one whose length cannot be learnt fails."""
        if batch := self._entering("question") or self._entering("passage"):
            for item in batch:
                item.call.entered += 1
                item.call.inside += 1
            for item, length in zip(batch, await self._in_thread(self._lengths, batch), strict=True):
                if isinstance(length, Exception):
                    self._settle(item, failure(length, len(batch)))
                elif item.call in self._calls:
                    item.tokens = length
                    self._line[item] = None

    def _entering(self, kind: TextKind) -> list[_Waiting]:
        """Who joins next: one text of each call in turn, up to the call's share of the window, but at least one."""
        calls = [call for call in self._calls if call.kind == kind]
        share = max(1, self._window // max(1, len(calls)))
        stretches = (range(call.entered, min(len(call.texts), call.entered + share - call.inside)) for call in calls)
        rounds = zip_longest(*stretches)
        found = (_Waiting(call, at) for one in rounds for call, at in zip(calls, one, strict=True) if at is not None)
        return list(islice(found, MEASURED_AT_ONCE))

    async def _next_batch(self) -> None:
        now, line = self._clock.monotonic(), list(self._line)
        turns = {call: turn for turn, call in enumerate(self._calls)}
        settings = replace(self._settings, max_wait_s=0.0) if self._closing else self._settings
        decision = choose(
            settings,
            [
                WaitingText(
                    item.call.kind,
                    min(item.tokens, self._model.max_tokens),
                    now - item.call.since,
                    turns[item.call],
                )
                for item in line
            ],
        )
        if decision.seed is not None:
            last = line[decision.seed].call
            self._calls[last] = self._calls.pop(last)
            await self._run([line[place] for place in decision.take])
        elif decision.wait_s is not None and not self._entering("question") and not self._entering("passage"):
            await self._change(decision.wait_s)

    async def _run(self, batch: list[_Waiting]) -> None:
        for item in batch:
            del self._line[item]
        calls, tokens = {item.call for item in batch}, sum(min(item.tokens, self._model.max_tokens) for item in batch)
        seen: tracing.Attributes = {
            "ragworks.batch.texts": len(batch),
            "ragworks.batch.calls": len(calls),
            "ragworks.batch.tokens": tokens,
        }
        began = self._clock.monotonic()
        with tracing.shared("batch", (call.span for call in calls), seen) as span:
            vectors = await self._in_thread(self._vectors, batch)
            span.set("ragworks.batch.failed", sum(isinstance(vector, Exception) for vector in vectors))
        self.untold.append(Batch(tokens, self._clock.monotonic() - began))
        self._count(vectors)
        for item, vector in zip(batch, vectors, strict=True):
            if isinstance(vector, Exception):
                self._settle(item, failure(vector, len(batch)))
            else:
                self._settle(item, Embedded(vector, item.tokens > self._model.max_tokens, len(batch)))

    async def _change(self, within_s: float | None) -> None:
        """Until the line changes or the time is over."""
        self._changed.clear()
        await news_or_time(self._changed, self._clock, within_s)

    async def _in_thread(
        self, call: Callable[[Sequence[_Waiting]], Sequence[T | Exception]], items: list[_Waiting]
    ) -> list[T | Exception]:
        assert self._thread is not None
        self.running_since = self._clock.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, bisected, call, items)
        finally:
            self.running_since = None

    def _lengths(self, items: Sequence[_Waiting]) -> list[int | Exception]:
        lengths = list(self._model.lengths([item.text for item in items], items[0].call.kind))
        if len(lengths) != len(items):
            raise ValueError(f"the model measured {len(lengths)} texts where {len(items)} were given")
        return [int(length) for length in lengths]

    def _vectors(self, items: Sequence[_Waiting]) -> list[NDArray[np.float32] | Exception]:
        vectors = self._model.embed([item.text for item in items], items[0].call.kind)
        return checked(vectors, len(items), self._model.dimension)

    def _count(self, vectors: Sequence[object]) -> None:
        self.batches += 1
        failures = [one for one in vectors if isinstance(one, Exception)]
        if len(failures) < len(vectors):
            self.failures_in_a_row = 0
        else:
            self.failures_in_a_row += 1
            self.last_failure = failure(failures[-1], 0).reason

    def _settle(self, item: _Waiting, outcome: Embedded) -> None:
        call = item.call
        call.inside -= 1
        if call.results[item.place] is None:
            call.results[item.place] = outcome
            call.open -= 1
        if not call.open:
            self._calls.pop(call, None)
            if not call.done.done():
                call.done.set_result(None)

    def _give_up_all(self) -> None:
        stopped = Embedded(None, reason="the embedding model was stopped", transient=True)
        for call in self._calls:
            call.results = [result or stopped for result in call.results]
            if not call.done.done():
                call.done.set_result(None)


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


def failure(error: Exception, batch_size: int = 0) -> Embedded:
    """What became of a text whose batch raised: errors of the machine may pass, others only if they say so."""
    transient = isinstance(error, (MemoryError, OSError)) or (isinstance(error, RagworksError) and error.transient)
    after_s = getattr(error, "retry_after_s", 1.0)
    return Embedded(None, False, batch_size, str(error) or type(error).__name__, transient, after_s)
