"""Texts to vectors: memory, then the vectors that the store holds, then batches through the model."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragworks.errors import CannotStart, NotReady
from ragworks.policies.batching import BatchSettings
from ragworks.protocols import Clock, Model, RemoteModel, StoredVectors
from ragworks.settings import EmbeddingsSettings
from ragworks.types import CacheReport, Embeddings, FailedText, Health, ServiceHealth, TextKind
from ragworks.workers.batcher import Batcher, Embedded, checked
from ragworks.workers.cache import InFlight, VectorCache
from ragworks.workers.sender import Sender, SendSettings

NAME = "embeddings_service"
HUNG_AFTER_S = 30.0
"""A batch of 1,024 tokens takes 0.2 s; one that runs a hundred times longer will not come back."""
PROBE_TIMEOUT_S = 5.0
UNHEALTHY_AFTER = 3

OnEmbedded = Callable[[TextKind, Embeddings, float], None]
"""Told of each finished call: kind, result, seconds. Must return at once and must not raise."""


def embedding_key(fingerprint: str, text: str, kind: TextKind = "passage", prefix: str = "") -> bytes:
    """16 bytes that name a vector: the same text, model, kind and prefix give the same key in every process."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (fingerprint, kind, prefix, text):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.digest()


class EmbeddingsService:
    """Service and Embedder. The model is made, loaded and proved by ``initialize``, away from the event loop."""

    def __init__(
        self,
        settings: EmbeddingsSettings,
        model_factory: Callable[[], Model | RemoteModel],
        stored: StoredVectors | None,
        clock: Clock,
        on_embedded: OnEmbedded = lambda kind, result, seconds: None,
    ) -> None:
        self._settings, self._model_factory, self._stored = settings, model_factory, stored
        self._clock, self._on_embedded = clock, on_embedded
        config = settings.cache_config
        size = config.max_size if settings.cache_enabled else 0
        self._cache = VectorCache(size, config.ttl_seconds, clock.monotonic, max_bytes=config.max_bytes)
        self._in_flight: InFlight[Embedded] = InFlight()
        self._model: Model | RemoteModel | None = None
        self._batcher: Batcher | Sender | None = None
        self._counts = {"texts": 0, "memory_hits": 0, "stored_hits": 0, "model_texts": 0, "failed_texts": 0}

    async def initialize(self) -> None:
        """Raises ModelMissing, EndpointUnavailable, or CannotStart when the model's first vector is unusable."""
        model = await asyncio.to_thread(self._model_factory)
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

    @property
    def fingerprint(self) -> str:
        return self._running()[0].fingerprint

    @property
    def dimension(self) -> int:
        return self._running()[0].dimension

    def embedding_key(self, text: str, kind: TextKind = "passage", prefix: str = "") -> bytes:
        """The key under which this text's vector is cached, and under which a chunk should store it."""
        return embedding_key(self.fingerprint, text, kind, prefix)

    async def embed_texts(
        self, texts: Sequence[str], cache_key_prefix: str = "", *, kind: TextKind = "passage"
    ) -> Embeddings:
        """One vector per text in order, None where ``failed`` says why. Raises NotReady while there is no model.

        ``truncated`` names texts over the model's limit; a vector that the store already held says nothing of it.
        """
        started = self._clock.monotonic()
        failed = [FailedText(at, reason) for at, text in enumerate(texts) if (reason := _unusable(text))]
        bad = {item.index for item in failed}
        keys = {at: self.embedding_key(text, kind, cache_key_prefix) for at, text in enumerate(texts) if at not in bad}
        found, computed = await self._resolve({key: texts[at] for at, key in keys.items()}, kind)
        lost = ((at, found[key]) for at, key in keys.items() if found[key].vector is None)
        failed += [FailedText(at, one.reason, one.transient, one.retry_after_s) for at, one in lost]
        result = Embeddings(
            embeddings=[found[keys[at]].vector if at in keys else None for at in range(len(texts))],
            cache_stats=_cache_stats(len(keys), len(computed)),
            model_used=self._running()[0].name,
            batch_size_used=max((found[key].batch_size for key in computed), default=0),
            failed=tuple(sorted(failed, key=lambda item: item.index)),
            truncated=tuple(at for at, key in keys.items() if found[key].truncated),
        )
        self._counts["texts"] += len(texts)
        self._counts["failed_texts"] += len(failed)
        self._on_embedded(kind, result, self._clock.monotonic() - started)
        return result

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
        return {
            **self._counts,
            "cache_hit_rate": self._hit_rate(),
            "cached": len(self._cache),
            "batches": batcher.batches if batcher else 0,
            "queue_size": batcher.waiting if batcher else 0,
        }

    async def count_tokens(self, texts: Sequence[str], kind: TextKind = "passage") -> int:
        """Tokens of all texts as the model reads them: with its prefix; of a text that is cut, those that are left."""
        model = self._running()[0]
        lengths = await asyncio.to_thread(model.lengths, texts, kind)
        return sum(lengths if isinstance(model, RemoteModel) else (min(one, model.max_tokens) for one in lengths))

    def cache_report(self) -> CacheReport:
        """Raises NotReady while there is no model."""
        return CacheReport(
            model=self.fingerprint,
            entries=len(self._cache),
            max_entries=self._settings.cache_config.max_size if self._settings.cache_enabled else 0,
            bytes=self._cache.bytes_held,
            memory_hits=self._counts["memory_hits"],
            stored_hits=self._counts["stored_hits"],
            misses=self._counts["model_texts"],
            hit_rate=self._hit_rate(),
        )

    def clear_cache(self) -> int:
        """Forget the vectors in memory; how many there were. What the store holds is not this cache's to forget."""
        return self._cache.clear()

    def forget(self, keys: Iterable[bytes]) -> None:
        """Drop these from memory: their passages were deleted. One that another passage holds is found in the store."""
        self._cache.drop(keys)

    def _hit_rate(self) -> float:
        hits = self._counts["memory_hits"] + self._counts["stored_hits"]
        looked_up = hits + self._counts["model_texts"]
        return hits / looked_up if looked_up else 0.0

    def _running(self) -> tuple[Model | RemoteModel, Batcher | Sender]:
        if self._model is None or self._batcher is None:
            raise NotReady("the embedding model is not loaded; try again when embeddings_service is up")
        return self._model, self._batcher

    async def _resolve(self, wanted: Mapping[bytes, str], kind: TextKind) -> tuple[dict[bytes, Embedded], set[bytes]]:
        """(what became of each key, the keys that this call took to the model)."""
        found = self._remembered(wanted)
        computed: set[bytes] = set()
        while pending := {key: text for key, text in wanted.items() if key not in found}:
            mine, theirs = self._in_flight.claim(pending)
            if mine:
                found |= await self._compute({key: pending[key] for key in mine}, kind, computed)
            for key, future in theirs.items():
                if (outcome := await asyncio.shield(future)) is not None:
                    found[key] = outcome
        return found, computed

    def _remembered(self, keys: Mapping[bytes, str]) -> dict[bytes, Embedded]:
        hits = {key: Embedded(*hit) for key in keys if (hit := self._cache.get(key)) is not None}
        self._counts["memory_hits"] += len(hits)
        return hits

    async def _compute(
        self, wanted: Mapping[bytes, str], kind: TextKind, computed: set[bytes]
    ) -> dict[bytes, Embedded]:
        """Settles every key, with None when this call is cancelled or fails, so that nobody waits forever."""
        found: dict[bytes, Embedded] = {}
        try:
            found |= await self._held_by_store(list(wanted)) if kind == "passage" else {}
            missing = [key for key in wanted if key not in found]
            if missing:
                outcomes = await self._running()[1].embed([wanted[key] for key in missing], kind)
                found |= dict(zip(missing, outcomes, strict=True))
                computed.update(missing)
                self._counts["model_texts"] += len(missing)
            for key, outcome in found.items():
                if outcome.vector is not None:
                    self._cache.put(key, outcome.vector, outcome.truncated)
        finally:
            for key in wanted:
                self._in_flight.settle(key, found.get(key))
        return found

    async def _held_by_store(self, keys: Sequence[bytes]) -> dict[bytes, Embedded]:
        if self._stored is None:
            return {}
        held = await self._stored.stored_vectors(keys)
        read = {key: _vector(row, self.dimension) for key, row in held.items()}
        usable = {key: Embedded(vector) for key, vector in read.items() if vector is not None}
        self._counts["stored_hits"] += len(usable)
        return usable

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


def _unusable(text: str) -> str | None:
    if not text.strip():
        return "the text is empty"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"the text holds a lone surrogate at position {error.start}, which no model can read"
    return None


def _cache_stats(texts: int, misses: int) -> dict[str, float]:
    hits = texts - misses
    return {"cache_hits": hits, "cache_misses": misses, "cache_hit_rate": hits / texts if texts else 0.0}


def _vector(stored: NDArray[np.floating[Any]], dimension: int) -> NDArray[np.float32] | None:
    """A stored vector, unless it is no embedding of this model: then the model makes a new one."""
    if stored.shape != (dimension,):
        return None
    found = checked(stored[np.newaxis], 1, dimension)[0]
    return None if isinstance(found, Exception) else found
