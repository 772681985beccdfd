"""Texts to vectors: memory, then the vectors that the store holds, then the engines that run the model."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ragworks import gen_ai
from ragworks.errors import NotReady
from ragworks.policies.filling import fill
from ragworks.protocols import Clock, StoredVectors
from ragworks.services.embedding_engine import Computed, unpacked
from ragworks.settings import EmbeddingsSettings
from ragworks.types import CacheReport, Embeddings, FailedText, Health, ModelCard, ServiceHealth, TextKind
from ragworks.workers.batcher import Embedded, checked, failure
from ragworks.workers.cache import InFlight, VectorCache

NAME = "embeddings_service"
NOT_LOADED = "the embedding model is not loaded; try again when embeddings_service is up"
# 2 to 10 s of work for a model on two cores: long beside the way to another process and back, short beside a job.
PIECE_TEXTS = 256
PIECE_CHARACTERS = 256 * 1024

OnEmbedded = Callable[[TextKind, Embeddings, float], None]
"""Told of each finished call: kind, result, seconds. Must return at once and must not raise."""


OnBatch = Callable[[int | None, float], None]
"""Told of each batch that an engine made: tokens, if known, and seconds. As OnEmbedded otherwise."""


def embedding_key(fingerprint: str, text: str, kind: TextKind = "passage", prefix: str = "") -> bytes:
    """16 bytes that name a vector: the same text, model, kind and prefix give the same key in every process."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (fingerprint, kind, prefix, text):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.digest()


class Engine(Protocol):
    """What makes the vectors, in one place or in several, behind one call."""

    async def describe(self) -> ModelCard:
        """The model that all of it runs. Raises NotReady."""
        ...

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Computed: ...

    async def count_tokens(self, texts: Sequence[str], kind: TextKind) -> int: ...


class EmbeddingsService:
    """Service and Embedder: the front of the engines, which must be up before it is.

    ``width`` says how many pieces of one call may be under way at once; 0 leaves calls whole.
    """

    def __init__(
        self,
        settings: EmbeddingsSettings,
        engine: Engine,
        stored: StoredVectors | None,
        clock: Clock,
        on_embedded: OnEmbedded = lambda kind, result, seconds: None,
        *,
        on_batch: OnBatch = lambda tokens, seconds: None,
        width: Callable[[], int] = lambda: 0,
    ) -> None:
        self._settings, self._engine, self._stored = settings, engine, stored
        self._clock, self._on_embedded, self._on_batch, self._width = clock, on_embedded, on_batch, width
        self._provider = "openai" if settings.endpoint.model else gen_ai.OURS
        config = settings.cache_config
        size = config.max_size if settings.cache_enabled else 0
        self._cache = VectorCache(size, config.ttl_seconds, clock.monotonic, max_bytes=config.max_bytes)
        self._in_flight: InFlight[Embedded] = InFlight()
        self._card: ModelCard | None = None
        self._counts = {"texts": 0, "memory_hits": 0, "stored_hits": 0, "model_texts": 0, "failed_texts": 0}
        self._at_engine = 0
        self._failing = ""  # what the engines said last, unless it was a vector

    async def initialize(self) -> None:
        """Learn which model answers. Raises NotReady while no engine is up."""
        self._card = await self._engine.describe()

    async def shutdown(self) -> None:
        """Refuse new calls; what is at the engine ends there."""
        self._card = None

    @property
    def fingerprint(self) -> str:
        return self._running().fingerprint

    @property
    def dimension(self) -> int:
        return self._running().dimension

    def embedding_key(self, text: str, kind: TextKind = "passage", prefix: str = "") -> bytes:
        """The key under which this text's vector is cached, and under which a chunk should store it."""
        return embedding_key(self.fingerprint, text, kind, prefix)

    async def embed_texts(
        self, texts: Sequence[str], cache_key_prefix: str = "", *, kind: TextKind = "passage"
    ) -> Embeddings:
        """One vector per text in order, None where ``failed`` says why. Raises NotReady while there is no model.

        ``truncated`` names texts over the model's limit; a vector that the store already held says nothing of it.
        """
        card = self._running()
        with gen_ai.embeddings(self._settings.model, self._provider, len(texts), card.dimension) as span:
            result = await self._embed_texts(card, texts, cache_key_prefix, kind)
            gen_ai.embedded(span, result)
        return result

    async def _embed_texts(self, card: ModelCard, texts: Sequence[str], prefix: str, kind: TextKind) -> Embeddings:
        started = self._clock.monotonic()
        failed = [FailedText(at, reason) for at, text in enumerate(texts) if (reason := _unusable(text))]
        bad = {item.index for item in failed}
        keys = {at: self.embedding_key(text, kind, prefix) for at, text in enumerate(texts) if at not in bad}
        found, computed = await self._resolve({key: texts[at] for at, key in keys.items()}, kind)
        lost = ((at, found[key]) for at, key in keys.items() if found[key].vector is None)
        failed += [FailedText(at, one.reason, one.transient, one.retry_after_s) for at, one in lost]
        result = Embeddings(
            embeddings=[found[keys[at]].vector if at in keys else None for at in range(len(texts))],
            cache_stats=_cache_stats(len(keys), len(computed)),
            model_used=card.name,
            batch_size_used=max((found[key].batch_size for key in computed), default=0),
            failed=tuple(sorted(failed, key=lambda item: item.index)),
            truncated=tuple(at for at, key in keys.items() if found[key].truncated),
        )
        self._counts["texts"] += len(texts)
        self._counts["failed_texts"] += len(failed)
        self._on_embedded(kind, result, self._clock.monotonic() - started)
        return result

    async def check_health(self) -> ServiceHealth:
        """As calls to the engines went lately; how each of the engines is, it says itself."""
        status, details = Health.HEALTHY, dict[str, Any](queue_size=self._at_engine)
        if self._card is None:
            status, details = Health.UNHEALTHY, {"reason": NOT_LOADED}
        elif self._failing:
            status, details = Health.DEGRADED, {**details, "reason": f"the last call failed: {self._failing}"}
        return ServiceHealth(NAME, status, last_check=self._clock.now(), details=details)

    def stats(self) -> Mapping[str, Any]:
        """``queue_size``: texts that the engines have not answered yet."""
        return {
            **self._counts,
            "cache_hit_rate": self._hit_rate(),
            "cached": len(self._cache),
            "evictions": self._cache.evictions,
            "queue_size": self._at_engine,
        }

    async def count_tokens(self, texts: Sequence[str], kind: TextKind = "passage") -> int:
        """Tokens of all texts as the model reads them: with its prefix; of a text that is cut, those that are left."""
        return await self._engine.count_tokens(texts, kind)

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
            evictions=self._cache.evictions,
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

    def _running(self) -> ModelCard:
        if self._card is None:
            raise NotReady(NOT_LOADED)
        return self._card

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
                outcomes = await self._made([wanted[key] for key in missing], kind)
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

    async def _made(self, texts: Sequence[str], kind: TextKind) -> list[Embedded]:
        """One outcome per text, in order. Pieces of one call go to several engines, but never more than ``width`` at
        once, so that a caller with many texts takes no more turns than one with few."""
        width = self._width()
        if not width:
            return await self._piece(texts, kind)
        free = asyncio.Semaphore(width)

        async def made(part: Sequence[str]) -> list[Embedded]:
            async with free:
                return await self._piece(part, kind)

        async with asyncio.TaskGroup() as tasks:
            under_way = [tasks.create_task(made(part), name="embed-piece") for part in _pieces(texts)]
        return [outcome for task in under_way for outcome in task.result()]

    async def _piece(self, texts: Sequence[str], kind: TextKind) -> list[Embedded]:
        self._at_engine += len(texts)
        try:
            made = await self._engine.embed(texts, kind)
            for batch in made.batches:
                self._on_batch(batch.tokens, batch.seconds)
            outcomes = unpacked(made)
        except Exception as error:  # whatever became of the engine: each text says so, and may be tried again
            outcomes = [failure(error)] * len(texts)
        finally:
            self._at_engine -= len(texts)
        lost = all(one.vector is None and one.transient for one in outcomes)
        self._failing = outcomes[0].reason if lost else ""
        return outcomes


def _pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    start = 0
    while start < len(texts):
        taken = fill(map(len, islice(texts, start, None)), PIECE_TEXTS, PIECE_CHARACTERS)
        yield texts[start : start + taken]
        start += taken


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
