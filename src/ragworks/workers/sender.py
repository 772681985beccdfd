"""Gathers concurrent calls into requests to a remote model, several at a time, and sends again what may pass."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ragworks import tracing
from ragworks.errors import EmbeddingFailed, EndpointUnavailable, NotReady, RagworksError
from ragworks.policies.filling import fill
from ragworks.policies.retrying import BudgetSettings, again, earned
from ragworks.protocols import Clock, RemoteModel
from ragworks.types import TextKind, Vectors
from ragworks.workers.batcher import MOST_BATCHES, Batch, Embedded, checked

Rows = list[NDArray[np.float32] | Exception]

QUESTION_PATIENCE_S = 5.0
"""Somebody waits for the answer, and it can be found by words meanwhile."""


@dataclass(frozen=True, slots=True)
class SendSettings:
    """Limits of one request, requests in flight per kind of text, and how long a passage waits for a good answer."""

    max_texts: int = 100
    max_bytes: int = 512 * 1024
    concurrency: int = 4
    patience_s: float = 120.0


@dataclass(eq=False, slots=True)
class _Waiting:
    text: str
    size: int
    truncated: bool
    result: asyncio.Future[Embedded]
    span: tracing.Context | None


class Sender:
    """Does for a RemoteModel what the Batcher does for a Model. Entering opens the model, leaving closes it.

    Texts that come while all requests are in flight share the next one. Callers take turns, text by text: one with few
    does not wait for one with many. Questions have requests of their own, so no passage stands before them. Leaving
    gives up what is under way: a request can take long, and may be repeated.
    """

    running_since = None  # a request that hangs is ended by its own timeout

    def __init__(
        self,
        model: RemoteModel,
        settings: SendSettings,
        clock: Clock,
        *,
        budget: BudgetSettings | None = None,
    ) -> None:
        self._model, self._settings, self._clock = model, settings, clock
        self._budget = budget or BudgetSettings()
        self._saved = self._budget.most
        # Heaps by turn: the first text of every caller, then the second of each, and so on.
        self._lines: dict[TextKind, list[tuple[int, int, _Waiting]]] = {"passage": [], "question": []}
        self._turns: dict[TextKind, int] = {"passage": 0, "question": 0}
        self._number = count()
        self._arrived = {kind: asyncio.Event() for kind in self._lines}
        self._tasks: list[asyncio.Task[None]] = []
        self.batches = 0
        self.untold: deque[Batch] = deque(maxlen=MOST_BATCHES)
        self.failures_in_a_row = 0
        self.last_failure = ""

    async def __aenter__(self) -> Self:
        await self._model.open()
        self._tasks = [  # ended by __aexit__
            asyncio.create_task(self._send(kind), name=f"sender-{kind}-{number}")
            for kind in self._lines
            for number in range(self._settings.concurrency)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in self._lines.values():
            _give_up([item for _, _, item in line])
        await self._model.close()

    @property
    def alive(self) -> bool:
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def waiting(self) -> int:
        return sum(not item.result.done() for line in self._lines.values() for _, _, item in line)

    async def embed(self, texts: Sequence[str], kind: TextKind) -> list[Embedded]:
        """One result per text, in order. Raises NotReady when closed."""
        if not self.alive:
            raise NotReady("the embedding model is not running; try again when the service is up")
        mine = [self._prepared(text) for text in texts]
        for turn, item in enumerate(mine, self._turns[kind]):
            heappush(self._lines[kind], (turn, next(self._number), item))
        self._arrived[kind].set()
        try:
            return [await item.result for item in mine]
        finally:
            for item in mine:
                item.result.cancel()

    def _prepared(self, text: str) -> _Waiting:
        raw, limit = text.encode(), self._model.max_bytes
        if len(raw) > limit:
            text = raw[:limit].decode(errors="ignore")  # ignores the character that the cut left in two
        result: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        return _Waiting(text, min(len(raw), limit), len(raw) > limit, result, tracing.current())

    def _take(self, kind: TextKind) -> list[_Waiting]:
        """The texts of the next request; those whose caller has gone are dropped."""
        line = self._lines[kind]
        found: list[tuple[int, int, _Waiting]] = []
        while line and len(found) < self._settings.max_texts:
            if not line[0][2].result.done():
                found.append(line[0])
            heappop(line)
        taken = fill((item.size for _, _, item in found), self._settings.max_texts, self._settings.max_bytes)
        for entry in found[taken:]:
            heappush(line, entry)
        if taken:
            self._turns[kind] = found[taken - 1][0]
        return [item for _, _, item in found[:taken]]

    async def _send(self, kind: TextKind) -> None:
        while True:
            batch = self._take(kind)
            if not batch:
                self._arrived[kind].clear()
                await self._arrived[kind].wait()
                continue
            began = self._clock.monotonic()
            try:
                patience_s = self._settings.patience_s if kind == "passage" else QUESTION_PATIENCE_S
                until = began + patience_s
                seen: tracing.Attributes = {"ragworks.batch.texts": len(batch)}
                with tracing.shared("batch", (item.span for item in batch), seen) as span:
                    rows = await self._embedded([item.text for item in batch], kind, until)
                    span.set("ragworks.batch.failed", sum(isinstance(row, Exception) for row in rows))
            except asyncio.CancelledError:
                _give_up(batch)
                raise
            self.untold.append(Batch(None, self._clock.monotonic() - began))
            self._count(rows)
            for item, row in zip(batch, rows, strict=True):
                _settle(item, _outcome(row, item, len(batch)))

    async def _embedded(self, texts: Sequence[str], kind: TextKind, until: float) -> Rows:
        """A vector or an error per text. Texts that an endpoint cannot stand are split until the bad one is alone."""
        try:
            answer = await self._answer(texts, kind, until)
            return [self._blamed(row) for row in checked(answer, len(texts), self._model.dimension)]
        except (EmbeddingFailed, EndpointUnavailable) as error:
            if len(texts) <= 1 or not self._may_split(error):
                return [error] * len(texts)
            half = len(texts) // 2
            first = await self._embedded(texts[:half], kind, until)
            return first + await self._embedded(texts[half:], kind, until)
        # Whatever a model raises belongs to the texts and must not end the task.
        except Exception as error:
            return [error] * len(texts)

    def _blamed(self, row: NDArray[np.float32] | Exception) -> NDArray[np.float32] | Exception:
        """A text that the endpoint took without complaint is not to blame for what it answers, and may pass later."""
        if not isinstance(row, Exception):
            return row
        message = f"the endpoint of {self._model.name} does not work as it should: {row}; look at its log"
        return EmbeddingFailed(message, transient=True)

    def _may_split(self, error: RagworksError) -> bool:
        """A refusal says that a text is bad. A failure only may, so each look costs a retry of the budget."""
        if isinstance(error, EmbeddingFailed):
            return True
        if not (isinstance(error, EndpointUnavailable) and error.suspect) or self._saved < 1:
            return False
        self._saved -= 1
        return True

    async def _answer(self, texts: Sequence[str], kind: TextKind, until: float) -> Vectors:
        suspicions = 0
        while True:
            try:
                vectors = await self._model.embed(texts, kind)
            except EndpointUnavailable as error:
                left_s = until - self._clock.monotonic()
                decision = again(error.retry_after_s, left_s, self._saved, asked=error.asked)
                suspicions += error.suspect
                if error.suspect and (len(texts) > 1 or suspicions > 1):
                    raise
                if decision.delay_s is None:
                    message = f"{error}; given up: {decision.reason}"
                    raise EndpointUnavailable(message, error.retry_after_s) from error
                self._saved -= 0.0 if error.asked else 1.0
                tracing.event("retry", {"error.type": error.code, "ragworks.reason": decision.reason})
                await self._clock.sleep(decision.delay_s)
            else:
                self._saved = earned(self._budget, self._saved)
                return vectors

    def _count(self, rows: Rows) -> None:
        self.batches += 1
        errors = [row for row in rows if isinstance(row, Exception)]
        if len(errors) < len(rows):
            self.failures_in_a_row = 0
        else:
            self.failures_in_a_row += 1
            self.last_failure = str(errors[-1])


def _outcome(row: NDArray[np.float32] | Exception, item: _Waiting, batch_size: int) -> Embedded:
    if isinstance(row, Exception):
        transient = isinstance(row, RagworksError) and row.transient
        after_s = row.retry_after_s if isinstance(row, EndpointUnavailable) else 1.0
        return Embedded(None, False, batch_size, str(row) or type(row).__name__, transient, after_s)
    return Embedded(row, item.truncated, batch_size)


def _settle(item: _Waiting, outcome: Embedded) -> None:
    if not item.result.done():
        item.result.set_result(outcome)


def _give_up(items: Sequence[_Waiting]) -> None:
    for item in items:
        _settle(item, Embedded(None, reason="the embedding model was stopped", transient=True))
