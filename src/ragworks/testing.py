"""Public fakes: time that tests own; models and replicas that fail, wait, lie or die on command."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from ragworks.control.endpoints import EndpointSet
from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import Event, ReplicaSpec, Usage, unrecorded
from ragworks.errors import EmbeddingFailed, NotReady, ReplicaGone, ReplicaLost
from ragworks.models.hashing import HashingEmbedder
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.digesting import Question
from ragworks.policies.ejecting import EjectSettings
from ragworks.protocols import Clock, Model, RemoteModel, Service, StoredVectors
from ragworks.services.embedding_engine import EmbeddingEngine
from ragworks.services.embeddings_service import EmbeddingsService, OnEmbedded
from ragworks.settings import EmbeddingsSettings
from ragworks.types import Draft, Health, Hit, Quote, ServiceHealth, TextKind, Turn, Vectors
from ragworks.waiting import news_or_time

SETTLE_ROUNDS = 50
"""Turns of the event loop that let woken tasks run to their next wait; chains in tests are far shorter."""


class FakeClock:
    """A Clock that stands still until ``advance``; sleepers wake in order of their time, then of their arrival."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._start, self._elapsed = now, 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    @property
    def sleepers(self) -> int:
        """How many still wait for their time."""
        return sum(not wake.done() for _, _, wake in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + max(0.0, seconds), next(self._order), wake))
        await wake

    async def advance(self, seconds: float) -> None:
        """Let time pass: everyone whose time comes wakes, and runs until it waits again."""
        end = self._elapsed + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._elapsed, _, wake = heapq.heappop(self._sleepers)
            if not wake.done():
                wake.set_result(None)
            await settle()
        self._elapsed = end


async def settle() -> None:
    """Let every task that can run do so until it waits for something."""
    for _ in range(SETTLE_ROUNDS):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], turns: int = 20_000) -> None:
    """Yield to the event loop until the condition holds; AssertionError when it does not within so many turns."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0.0005)
    raise AssertionError("the awaited condition never came to hold")


class MemoryEvents:
    """An EventLog in memory, of ``keep`` events. While ``error`` is set, nothing can be kept."""

    def __init__(self, keep: int = 10_000) -> None:
        self.kept: deque[Event] = deque(maxlen=keep)
        self.error: Exception | None = None
        self._ids = itertools.count(1)

    async def append(self, events: Sequence[Event]) -> None:
        if self.error is not None:
            raise self.error
        self.kept.extend(replace(event, id=next(self._ids)) for event in events)

    async def recent(
        self,
        *,
        service: str | None = None,
        since: float = 0.0,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Event]:
        found = [
            event
            for event in self.kept
            if service in (None, event.service) and event.at >= since
            if event.id > (after or 0) and (before is None or event.id < before)
        ]
        return found[-limit:] if after is None else found[:limit]


class MemoryQueries:
    """A QueryLog in memory, of ``keep`` questions. While ``error`` is set, nothing can be kept."""

    def __init__(self, keep: int = 10_000) -> None:
        self.kept: dict[str, Question] = {}
        self.error: Exception | None = None
        self._keep = keep

    async def append(self, questions: Sequence[Question]) -> None:
        if self.error is not None:
            raise self.error
        for one in questions:
            self.kept.setdefault(one.key, one)
        for key in list(self.kept)[: -self._keep]:
            del self.kept[key]

    async def rate(self, collection: str, key: str, rating: str, comment: str | None) -> bool:
        known = self.kept.get(key)
        if known is None or known.collection != collection:
            return False
        self.kept[key] = replace(known, rating=rating, comment=comment)
        return True

    async def since(self, at: float) -> Sequence[Question]:
        return [one for one in self.kept.values() if one.at >= at]


class ScriptedModel(HashingEmbedder):
    """A HashingEmbedder that records its batches and misbehaves as told.

    ``bad``: a batch that holds one of these texts raises. ``broken``: every batch raises it. ``rewrite`` changes the
    vectors of a batch before they are returned. While ``gate`` is cleared, the model hangs.
    """

    name = "scripted"
    fingerprint = "scripted:1"

    def __init__(self, *, bad: Sequence[str] = (), broken: Exception | None = None) -> None:
        self.bad, self.broken = frozenset(bad), broken
        self.rewrite: Callable[[Sequence[str], Vectors], Any] = lambda texts, vectors: vectors
        self.batches: list[tuple[TextKind, tuple[str, ...]]] = []
        self.gate = threading.Event()
        self.gate.set()

    @property
    def texts(self) -> list[str]:
        """Every text that was embedded, in order."""
        return [text for _, batch in self.batches for text in batch]

    def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        self.batches.append((kind, tuple(texts)))
        if not self.gate.wait(timeout=30):
            raise TimeoutError("nobody opened the gate of the scripted model")
        if self.broken is not None:
            raise self.broken
        if self.bad & set(texts):
            raise ValueError(f"cannot read {sorted(self.bad & set(texts))[0]!r}")
        vectors: Vectors = self.rewrite(texts, super().embed(texts, kind))
        return vectors


class LocalEmbeddings(EmbeddingsService):
    """An EmbeddingsService with its one ``engine`` in this event loop: both start and stop together."""

    def __init__(
        self,
        settings: EmbeddingsSettings,
        make_model: Callable[[], Model | RemoteModel],
        stored: StoredVectors | None,
        clock: Clock,
        on_embedded: OnEmbedded = lambda kind, result, seconds: None,
        **more: Any,
    ) -> None:
        self.engine = EmbeddingEngine(settings, lambda _: make_model(), clock)
        super().__init__(settings, self.engine, stored, clock, on_embedded, **more)

    async def initialize(self) -> None:
        await self.engine.initialize()
        await super().initialize()

    async def shutdown(self) -> None:
        await super().shutdown()
        await self.engine.shutdown()


def endpoint_set(urls: Sequence[str], clock: Clock, **more: Any) -> EndpointSet:
    """Endpoints as a server balances them, with a fixed seed."""
    replicas = ReplicaSet(BalanceSettings(), EjectSettings(), Random(0), more.get("record", unrecorded))
    return EndpointSet("embeddings_service", "some-model", urls, replicas, clock, Random(0), **more)


class ScriptedEndpoint(HashingEmbedder):
    """A RemoteModel that records its requests and answers each from ``script`` first: an error to raise, or None.

    ``bad`` texts are refused, together with all that share their request. While ``gate`` is cleared, requests hang.
    """

    name = "endpoint"
    fingerprint = "endpoint:1"
    max_bytes = 1000

    def __init__(self, *script: Exception | None, bad: Sequence[str] = ()) -> None:
        self.script, self.bad = list(script), frozenset(bad)
        self.requests: list[tuple[TextKind, tuple[str, ...]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.rewrite: Callable[[Vectors], Any] = lambda vectors: vectors
        self.opened = False
        self.in_flight = self.most_in_flight = 0

    async def open(self) -> None:
        self.opened = True

    async def close(self) -> None:
        self.opened = False

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:  # type: ignore[override]
        self.requests.append((kind, tuple(texts)))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
        finally:
            self.in_flight -= 1
        if self.script and (error := self.script.pop(0)) is not None:
            raise error
        if self.bad & set(texts):
            raise EmbeddingFailed(f"refused {sorted(self.bad & set(texts))[0]!r}")
        vectors: Vectors = self.rewrite(super().embed(texts, kind))
        return vectors


class ScriptedGenerator:
    """Yields the given pieces, quoting the whole of each hit that ``cites`` names; raises ``error`` after them."""

    name = "scripted"

    def __init__(
        self,
        pieces: Sequence[str] = ("Yes [1].",),
        cites: Sequence[int] = (1,),
        *,
        abstained: bool = False,
        error: Exception | None = None,
    ) -> None:
        self.pieces, self.cites, self.abstained, self.error = tuple(pieces), tuple(cites), abstained, error
        self.closed = False

    async def generate(self, question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> AsyncIterator[str | Draft]:
        try:
            for piece in self.pieces:
                yield piece
            if self.error is not None:
                raise self.error
            yield Draft({n: Quote(n, 0, len(hits[n - 1].text)) for n in self.cites}, self.abstained, {})
        finally:
            self.closed = True


class NamedService:
    """A service whose every verb answers the name it was made with; ``ten`` yields it ten times."""

    def __init__(self, name: str = "") -> None:
        self._name = name
        self.health = Health.HEALTHY

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def check_health(self) -> ServiceHealth:
        return ServiceHealth(self._name, self.health)

    def stats(self) -> dict[str, Any]:
        return {}

    async def ten(self) -> AsyncIterator[str]:
        for _ in range(10):
            yield self._name

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("_"):
            raise AttributeError(verb)

        async def answer(*arguments: Any, **named: Any) -> str:
            return self._name

        return answer


class ManualReplica:
    """A Replica in this event loop that misbehaves as told. A call that is slow or hangs waits on ``clock``.

    ``calls`` are the verbs that were asked for, ``in_flight`` those that have not ended; checks of health are no calls.
    """

    def __init__(
        self,
        replica_id: str,
        clock: Clock,
        service: Service | None = None,
        *,
        spec: ReplicaSpec | None = None,
        slots: int = 1,
        max_calls: int = 1000,
    ) -> None:
        self.id, self.pid, self.slots, self.max_calls = replica_id, 1, slots, max_calls
        self.service: Any = service or NamedService(replica_id)
        self.spec = spec or ReplicaSpec("fake", NamedService, (replica_id,))
        self.calls: list[str] = []
        self.checks = self.in_flight = self.calls_when_dead = 0
        self.used = Usage()
        self._clock = clock
        self._news, self._gone = asyncio.Event(), asyncio.Event()
        self._cause = ""
        self._hung, self._takes_s, self._stopping = False, 0.0, False
        self._error: Exception | None = None

    def hang(self) -> None:
        """Answer nothing, not even a check of health, until ``recover``."""
        self._behave(hung=True)

    def slow(self, seconds: float) -> None:
        """Take so long for every call and check."""
        self._behave(takes_s=seconds)

    def fail(self, error: Exception | None = None) -> None:
        """Raise from every call, at once; checks of health are answered."""
        self._behave(error=error or ValueError("told to fail"))

    def recover(self) -> None:
        """Be well again, unless dead."""
        self._behave()

    def die(self, cause: str = "killed by signal 9") -> None:
        """End; calls in flight raise ReplicaLost."""
        self._cause = self._cause or cause
        self._gone.set()
        self._changed()

    @property
    def dead(self) -> bool:
        return self._gone.is_set()

    @property
    def well(self) -> bool:
        """Whether a call would be answered at once."""
        full = self._stopping or self.in_flight >= self.max_calls
        return not (self.dead or full or self._hung or self._takes_s or self._error)

    async def call(self, verb: str, *arguments: Any, timeout_s: float | None = None, **named: Any) -> Any:
        with self._in_flight(verb):
            await self._take(timeout_s)
            if self._error is not None and verb != "check_health":
                raise self._error
            return await getattr(self.service, verb)(*arguments, **named)

    async def stream(
        self, verb: str, *arguments: Any, timeout_s: float | None = None, **named: Any
    ) -> AsyncIterator[Any]:
        with self._in_flight(verb):
            async for item in getattr(self.service, verb)(*arguments, **named):
                await self._take(timeout_s)
                if self._error is not None:
                    raise self._error
                yield item

    def usage(self) -> Usage:
        return self.used

    async def ended(self) -> str:
        await self._gone.wait()
        return self._cause

    async def stop(self, drain_s: float) -> None:
        self._stopping = True
        until = self._clock.monotonic() + drain_s
        while self.in_flight and not self.dead and self._clock.monotonic() < until:
            await news_or_time(self._news, self._clock, until - self._clock.monotonic())
        if not self.dead:
            await self.service.shutdown()
            self.die("stopped")

    async def kill(self) -> None:
        self.die("killed")

    def _behave(self, *, hung: bool = False, takes_s: float = 0.0, error: Exception | None = None) -> None:
        self._hung, self._takes_s, self._error = hung, takes_s, error
        self._changed()

    def _changed(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    @contextmanager
    def _in_flight(self, verb: str) -> Iterator[None]:
        check = verb == "check_health"
        if self.dead:
            self.calls_when_dead += 1
            raise ReplicaGone(f"replica {self.id} has ended: {self._cause}")
        if not check and (self._stopping or self.in_flight >= self.max_calls):
            raise NotReady(f"replica {self.id} takes no more calls")
        self.checks += check
        if not check:
            self.calls.append(verb)
        self.in_flight += not check
        try:
            yield
        finally:
            self.in_flight -= not check
            self._changed()

    async def _take(self, timeout_s: float | None) -> None:
        """Wait as long as the call takes by what the replica was told; what it is told meanwhile counts."""
        began = self._clock.monotonic()
        until = math.inf if timeout_s is None else began + timeout_s
        while True:
            now, due = self._clock.monotonic(), math.inf if self._hung else began + self._takes_s
            if self.dead:
                raise ReplicaLost(f"replica {self.id} ended before it answered: {self._cause}")
            if now >= due:
                return
            if now >= until:
                raise TimeoutError(f"replica {self.id} did not answer within {timeout_s:g} s")
            wait_s = min(due, until) - now
            await news_or_time(self._news, self._clock, None if wait_s == math.inf else wait_s)


class ManualRuntime:
    """A Runtime of ManualReplicas, kept in ``replicas`` by id. ``script`` says how the next starts end: an error to
    raise, or None; a start takes ``takes_s`` on ``clock``."""

    def __init__(self, clock: Clock, *script: Exception | None) -> None:
        self.replicas: dict[str, ManualReplica] = {}
        self.script, self.takes_s, self.starts = list(script), 0.0, 0
        self._clock = clock

    async def start(self, spec: ReplicaSpec, replica_id: str) -> ManualReplica:
        self.starts += 1
        if self.takes_s:
            await self._clock.sleep(self.takes_s)
        if self.script and (error := self.script.pop(0)) is not None:
            raise error
        service = spec.factory(*spec.arguments)
        await service.initialize()
        replica = ManualReplica(replica_id, self._clock, service, spec=spec)
        self.replicas[replica_id] = replica
        return replica


def a_hit(text: str, document_id: str = "doc", *, start: int = 0, score: float = 1.0) -> Hit:
    """A hit whose text begins at ``start`` of its document."""
    return Hit(document_id, f"{document_id}#0", score, text, document_id, None, start, start + len(text), (), {})


def unit(dimension: int, place: int = 0) -> Vectors:
    """One row of unit length along one axis."""
    return np.eye(1, dimension, place, dtype=np.float32)
