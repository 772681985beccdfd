"""The engine behind embeddings_service: one model, and what gathers texts into batches for it.

One replica holds one engine. Whatever texts have in common (cache, keys, statistics) is the front's,
``embeddings_service.py``; turns and the priority of questions are kept here, among those who share a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ragworks.clock import SystemClock
from ragworks.errors import CannotStart, NotReady
from ragworks.policies.batching import BatchSettings
from ragworks.protocols import Clock, Model, RemoteModel
from ragworks.settings import EmbeddingsSettings
from ragworks.types import FailedText, Health, ModelCard, ServiceHealth, TextKind, Vectors
from ragworks.workers.batcher import Batch, Batcher, Embedded, checked
from ragworks.workers.sender import Sender, SendSettings

NAME = "embeddings_service"
HUNG_AFTER_S = 30.0
"""A batch of 1,024 tokens takes 0.2 s; one that runs a hundred times longer will not come back."""
PROBE_TIMEOUT_S = 5.0
UNHEALTHY_AFTER = 3


@dataclass(frozen=True, slots=True)
class Computed:
    """What an engine made of texts: ``vectors[i]``, float32 of unit length, is text i's; a row is NaN where ``failed``
    names it. ``batch_sizes[i]`` texts shared its batch.

    ``batches`` are all that the engine made since its last answer, whoever they were for.
    """

    vectors: Vectors
    failed: tuple[FailedText, ...]
    truncated: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    batches: tuple[Batch, ...] = ()


ModelFactory = Callable[[EmbeddingsSettings], Model | RemoteModel]


class EmbeddingEngine:
    """Service. The model is made, loaded and proved by ``initialize``, away from the event loop.

    ``make_model`` must be importable by its name where the engine lives in another process.
    """

    def __init__(self, settings: EmbeddingsSettings, make_model: ModelFactory, clock: Clock | None = None) -> None:
        self._settings, self._make_model, self._clock = settings, make_model, clock or SystemClock()
        self._model: Model | RemoteModel | None = None
        self._batcher: Batcher | Sender | None = None

    async def initialize(self) -> None:
        """Raises ModelMissing, EndpointUnavailable, or CannotStart when the model's first vector is unusable."""
        model = await asyncio.to_thread(self._make_model, self._settings)
        if isinstance(model, RemoteModel):
            self._batcher = await Sender(model, _sending(self._settings), self._clock).__aenter__()
        else:
            await asyncio.to_thread(_prove, model)
            batching = BatchSettings(self._settings.batch_size, self._settings.batch_tokens)
            self._batcher = await Batcher(model, batching, self._clock).__aenter__()
        self._model = model

    async def shutdown(self) -> None:
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            await batcher.__aexit__(None, None, None)

    async def describe(self) -> ModelCard:
        model, _ = self._running()
        return ModelCard(model.name, model.fingerprint, model.dimension)

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Computed:
        """Every text through the model, none left out. Raises NotReady while there is no model."""
        model, batcher = self._running()
        outcomes = await batcher.embed(texts, kind)
        batches = tuple(batcher.untold)
        batcher.untold.clear()
        return packed(outcomes, model.dimension, batches)

    async def count_tokens(self, texts: Sequence[str], kind: TextKind) -> int:
        """Tokens of all texts as the model reads them: with its prefix; of a text that is cut, those that are left."""
        model, _ = self._running()
        lengths = await asyncio.to_thread(model.lengths, texts, kind)
        return sum(lengths if isinstance(model, RemoteModel) else (min(one, model.max_tokens) for one in lengths))

    async def check_health(self) -> ServiceHealth:
        """UNHEALTHY when the model is gone or hangs. After failures one text is tried, so that recovery is seen."""
        started = self._clock.monotonic()
        status, details = await self._diagnose()
        return ServiceHealth(
            NAME,
            status,
            response_time_ms=1000 * (self._clock.monotonic() - started),
            error_count=self._batcher.failures_in_a_row if self._batcher else 0,
            last_check=self._clock.now(),
            details=details,
        )

    def stats(self) -> Mapping[str, Any]:
        batcher = self._batcher
        return {"batches": batcher.batches if batcher else 0, "queue_size": batcher.waiting if batcher else 0}

    def _running(self) -> tuple[Model | RemoteModel, Batcher | Sender]:
        if self._model is None or self._batcher is None:
            raise NotReady("the embedding model is not loaded; try again when embeddings_service is up")
        return self._model, self._batcher

    async def _diagnose(self) -> tuple[Health, dict[str, Any]]:
        batcher = self._batcher
        if batcher is None or self._model is None:
            return Health.UNHEALTHY, {"reason": "the model is not loaded"}
        if not batcher.alive:
            return Health.UNHEALTHY, {"reason": "the batching loop has ended"}
        details: dict[str, Any] = {"model": self._model.name, "queue_size": batcher.waiting}
        if batcher.running_since is not None:
            running_s = self._clock.monotonic() - batcher.running_since
            if running_s > HUNG_AFTER_S:
                return Health.UNHEALTHY, {**details, "reason": f"one batch has been running for {running_s:.0f} s"}
        elif batcher.failures_in_a_row:
            await self._probe(batcher)
        if not batcher.failures_in_a_row:
            return Health.HEALTHY, details
        reason = f"the last {batcher.failures_in_a_row} batches failed: {batcher.last_failure}"
        many = batcher.failures_in_a_row >= UNHEALTHY_AFTER
        return (Health.UNHEALTHY if many else Health.DEGRADED), {**details, "reason": reason}

    async def _probe(self, batcher: Batcher | Sender) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await batcher.embed(["health"], "question")
        except (TimeoutError, NotReady):
            return  # the counters of the batcher tell the rest


class Call(Protocol):
    """Calls a verb of one of the replicas; ``cost`` says how much work it is, beside other calls."""

    def __call__(self, verb: str, *arguments: Any, cost: float | None = None) -> Awaitable[Any]: ...


class BalancedEngine:
    """The engines of all replicas as if they were one. What a call costs is measured in characters."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def describe(self) -> ModelCard:
        card: ModelCard = await self._call("describe")
        return card

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Computed:
        made: Computed = await self._call("embed", texts, kind, cost=float(sum(map(len, texts))))
        return made

    async def count_tokens(self, texts: Sequence[str], kind: TextKind) -> int:
        return int(await self._call("count_tokens", texts, kind))


def packed(outcomes: Sequence[Embedded], dimension: int, batches: tuple[Batch, ...] = ()) -> Computed:
    """As one array, which travels between processes without a copy of each row."""
    vectors = np.full((len(outcomes), dimension), np.nan, np.float32)
    for at, outcome in enumerate(outcomes):
        if outcome.vector is not None:
            vectors[at] = outcome.vector
    failed = tuple(
        FailedText(at, one.reason, one.transient, one.retry_after_s)
        for at, one in enumerate(outcomes)
        if one.vector is None
    )
    truncated = tuple(at for at, one in enumerate(outcomes) if one.truncated)
    return Computed(vectors, failed, truncated, tuple(one.batch_size for one in outcomes), batches)


def unpacked(made: Computed) -> list[Embedded]:
    """One outcome per text, in order."""
    outcomes = [Embedded(vector, False, size) for vector, size in zip(made.vectors, made.batch_sizes, strict=True)]
    for at in made.truncated:
        outcomes[at] = Embedded(made.vectors[at], True, made.batch_sizes[at])
    for one in made.failed:
        size = made.batch_sizes[one.index]
        outcomes[one.index] = Embedded(None, False, size, one.reason, one.transient, one.retry_after_s)
    return outcomes


def _sending(settings: EmbeddingsSettings) -> SendSettings:
    endpoint = settings.endpoint
    return SendSettings(
        settings.batch_size, endpoint.max_request_bytes, endpoint.concurrency, patience_s=endpoint.patience_s
    )


def _prove(model: Model) -> None:
    try:
        vector = checked(model.embed(["ragworks"], "question"), 1, model.dimension)[0]
    except ValueError as error:
        vector = error
    if isinstance(vector, Exception):
        raise CannotStart(f"embedding model {model.name} does not work: {vector}") from vector
