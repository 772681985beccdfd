"""One attempt at a task as it is watched: its stage, its signs of progress, what it waits for, what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ragworks.policies.estimating import kind_of
from ragworks.policies.leasing import Seen, Verdict
from ragworks.protocols import Clock, Embedder
from ragworks.records import Cost
from ragworks.types import Embeddings, Stage, Task, TextKind

WORKER, MODEL, DISK = "a worker", "the model", "the disk"


class SharedTime:
    """Time of something that several use at once, charged to each by its weight, so that the charges add up to it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._weight = 0.0
        self._since = 0.0
        self._per_weight = 0.0  # what one unit of weight would have been charged since the beginning

    def begin(self, weight: float) -> float:
        """The mark that ``end`` wants back."""
        self._advance()
        self._weight += weight
        return self._per_weight

    def end(self, weight: float, mark: float) -> float:
        """The seconds charged to ``weight`` since its mark."""
        self._advance()
        self._weight -= weight
        return weight * (self._per_weight - mark)

    def _advance(self) -> None:
        now = self._clock.monotonic()
        if self._weight:
            self._per_weight += (now - self._since) / self._weight
        self._since = now


class Attempt:
    """Times are of the clock's ``monotonic``. ``stalled`` is why the watchdog ended it, if it did."""

    def __init__(self, task: Task, clock: Clock) -> None:
        self.task = task
        self.stage = Stage.PARSING
        self.stalled: str | None = None
        self.verdict = Verdict.FINE
        self.job: asyncio.Task[None] | None = None
        self._clock = clock
        self._since = self._last_sign = clock.monotonic()
        self._waits_for: str | None = None
        self._read_s = self._embed_s = 0.0
        self._chunks = 0

    def wait_for(self, what: str) -> None:
        """What it waits for from now on is not its own fault."""
        self._waits_for = what

    def enter(self, stage: Stage) -> None:
        """protocols.OnStage; the first stage that is heard of is a worker's first sign."""
        self._last_sign = self._clock.monotonic()
        if self._waits_for == WORKER:
            self._waits_for, self._since = None, self._last_sign
        if stage == Stage.EMBEDDING and self.stage != stage:
            self._read_s = self._last_sign - self._since
        self.stage = stage

    @contextmanager
    def embedding(self, texts: int, shared: SharedTime) -> Iterator[None]:
        """Around a call that waits for the model; its end is a sign of progress."""
        self._waits_for, mark = MODEL, shared.begin(texts)
        try:
            yield
        finally:
            self._embed_s += shared.end(texts, mark)
            self._waits_for, self._last_sign = None, self._clock.monotonic()
            self._chunks += texts

    def seen(self) -> Seen:
        """What the watchdog judges."""
        return Seen(self._since, self._last_sign, self._waits_for)

    def cost(self) -> Cost:
        """Of an attempt that has ended; one that failed while it was read was read until now."""
        read_s = self._read_s
        if not read_s and self._waits_for != WORKER:
            read_s = self._clock.monotonic() - self._since
        kind = kind_of(self.task.media_type, self.task.name)
        return Cost(kind, self.task.size_bytes, self._chunks, read_s, self._embed_s)


class WatchedEmbedder:
    """The embedder as one attempt sees it: while it waits for vectors, that is known."""

    def __init__(self, embedder: Embedder, attempt: Attempt, shared: SharedTime) -> None:
        self._embedder, self._attempt, self._shared = embedder, attempt, shared

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def embedding_key(self, text: str, kind: TextKind = "passage", prefix: str = "") -> bytes:
        return self._embedder.embedding_key(text, kind, prefix)

    async def embed_texts(
        self, texts: Sequence[str], cache_key_prefix: str = "", *, kind: TextKind = "passage"
    ) -> Embeddings:
        with self._attempt.embedding(len(texts), self._shared):
            return await self._embedder.embed_texts(texts, cache_key_prefix, kind=kind)
