"""Question to hits: both legs, fused by score, reranked on request, near-duplicates collapsed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ragworks import gen_ai, tracing
from ragworks.errors import InvalidInput, ModelMismatch, NotReady
from ragworks.protocols import Embedder, PassageScorer
from ragworks.records import ChunkRow, Legs, Query
from ragworks.services.viewing import View
from ragworks.settings import RetrievalSettings
from ragworks.text.fuse import Distinct, fuse, min_max, ranked
from ragworks.types import Collection, Health, Hit, Mode, SearchResult, ServiceHealth, Turn

NAME = "retrieval_service"
MAX_TOP_K = 1000
READ_AT_LEAST = 20  # rows; fewer are not faster to read
MOST_CANDIDATES = 16_000  # of a leg; beyond that a question has no more that is worth the time
EMBED_TIMEOUT_S = 10.0


class Searchable(Protocol):
    """The part of the vector store that searching needs."""

    async def collection(self, name: str) -> Collection: ...

    def view(self, collection: str) -> AbstractAsyncContextManager[View]: ...


class RetrievalService:
    """Searches by words alone while ``embedder_ready`` says no, and says so in the result."""

    def __init__(
        self,
        settings: RetrievalSettings,
        *,
        store: Searchable,
        embedder: Embedder,
        embedder_ready: Callable[[], bool],
        scorer: PassageScorer,
        on_search: Callable[[Mapping[str, float]], None] = lambda timings: None,
    ) -> None:
        self._settings, self._store, self._embedder = settings, store, embedder
        self._embedder_ready, self._scorer, self._on_search = embedder_ready, scorer, on_search
        self._searches = 0
        # One thread of its own: the scorer is slow and takes turns, and must not hold up searches meanwhile.
        self._scoring = ThreadPoolExecutor(1, thread_name_prefix="rerank")

    async def initialize(self) -> None:
        """Nothing to load: the indexes belong to the vector store."""

    async def shutdown(self) -> None:
        """Nothing to drain: searches end with their requests."""

    async def check_health(self) -> ServiceHealth:
        if not self._embedder_ready():
            return ServiceHealth(NAME, Health.DEGRADED, details={"reason": "embeddings_service is down: words only"})
        return ServiceHealth(NAME, Health.HEALTHY, details=self.stats())

    def stats(self) -> Mapping[str, Any]:
        return {"searches": self._searches}

    async def search(
        self,
        collection: str,
        query: str,
        *,
        top_k: int = 10,
        filter: Mapping[str, Any] | None = None,
        mode: Mode = "hybrid",
        rerank: bool = False,
        history: Sequence[Turn] = (),
        group_by: str | None = None,
    ) -> SearchResult:
        """Up to ``top_k`` hits, best first; with ``group_by="document"`` the best hit of each document.

        Raises CollectionNotFound, ModelMismatch, UnusableFilter, InvalidInput, and NotReady when ``mode`` is "dense"
        and the embedder is down.
        """
        _check(query, top_k, group_by)
        with gen_ai.retrieval(collection, query, top_k, mode) as span:
            started = time.perf_counter()
            known = await self._store.collection(collection)
            queries, cached, degraded = await self._queries(known, query, history, mode)
            embedded = time.perf_counter()
            with tracing.span("retrieve"):
                async with self._store.view(collection) as view:
                    hits = await self._best(view, queries, filter, group_by, top_k)
            found = time.perf_counter()
            if rerank:
                with tracing.span("rerank"):
                    hits, late = await self._reranked(query, hits)
                degraded = degraded or late
            ended = time.perf_counter()
            timings = {
                "embed": embedded - started,
                "retrieve": found - embedded,
                "rerank": ended - found,
                "total": ended - started,
            }
            self._searches += 1
            self._on_search(timings)
            result = SearchResult(tuple(hits), timings, degraded, cached)
            gen_ai.found(span, result)
            return result

    async def _best(
        self, view: View, queries: Sequence[Query], filter: Mapping[str, Any] | None, group_by: str | None, top_k: int
    ) -> list[Hit]:
        """The first ``top_k`` distinct hits; more candidates are asked for until they suffice or there are no more."""
        limit = max(self._settings.candidates, top_k)
        while True:
            legs = await view.legs(queries, limit, filter)
            order = fuse(legs.dense, legs.lexical, self._settings.dense_weight)
            hits = await self._picked(view, order, legs, group_by, top_k)
            if len(hits) == top_k or legs.exhausted or limit >= MOST_CANDIDATES:
                return hits
            limit = min(limit * 4, MOST_CANDIDATES)

    async def _picked(
        self, view: View, order: Sequence[tuple[int, float]], legs: Legs, group_by: str | None, top_k: int
    ) -> list[Hit]:
        """Rows are read only as far as they are needed."""
        pick = _Pick(group_by, top_k)
        step = max(READ_AT_LEAST, 2 * top_k)
        for start in range(0, len(order), step):
            part = order[start : start + step]
            rows = await view.chunks([key for key, _ in part])
            hits = [
                _hit(rows[key], score, legs.dense.get(key), legs.lexical.get(key)) for key, score in part if key in rows
            ]
            await asyncio.to_thread(pick.offer, hits)
            if len(pick.hits) == top_k:
                break
        return pick.hits

    async def _queries(
        self, collection: Collection, query: str, history: Sequence[Turn], mode: Mode
    ) -> tuple[list[Query], bool | None, str | None]:
        """The last turn, and with less weight all user turns together, each as its legs want it; whether the cache held
        all vectors."""
        texts = [(query, 1.0)]
        if earlier := [turn.content for turn in history if turn.role == "user"]:
            texts.append(("\n".join([*earlier, query]), self._settings.history_weight))
        vectors: list[NDArray[np.float32] | None] = [None] * len(texts)
        cached: bool | None = None
        degraded = None
        if mode != "lexical" and collection.fingerprint:
            try:
                vectors, cached = await self._embed(collection, [text for text, _ in texts])
            except (NotReady, TimeoutError) as error:
                if mode == "dense":
                    raise NotReady(
                        "the embedder does not answer, and dense search needs it; use mode lexical"
                    ) from error
                degraded = "the embedder does not answer: searched by words only"
        words = mode != "dense"
        return (
            [
                Query(vector, text if words else None, weight)
                for (text, weight), vector in zip(texts, vectors, strict=True)
            ],
            cached,
            degraded,
        )

    async def _embed(
        self, collection: Collection, texts: Sequence[str]
    ) -> tuple[list[NDArray[np.float32] | None], bool]:
        if not self._embedder_ready():
            raise NotReady("embeddings_service is down")
        if collection.fingerprint != self._embedder.fingerprint:
            raise ModelMismatch(collection.name, collection.fingerprint, self._embedder.fingerprint)
        async with asyncio.timeout(EMBED_TIMEOUT_S):
            result = await self._embedder.embed_texts(texts, kind="question")
        if result.failed and result.embeddings[0] is None:
            if result.failed[0].transient:
                raise NotReady(result.failed[0].reason)
            raise InvalidInput(f"the question cannot be embedded: {result.failed[0].reason}")
        return list(result.embeddings), not result.cache_stats.get("cache_misses")

    async def _reranked(self, query: str, hits: list[Hit]) -> tuple[list[Hit], str | None]:
        """The first hits in the order of fused and scorer's scores together, if the scorer is done in time."""
        settings = self._settings
        head = hits[: settings.rerank_passages]
        if len(head) < 2:
            return hits, None
        loop, passages = asyncio.get_running_loop(), [hit.text for hit in head]
        scoring = loop.run_in_executor(self._scoring, self._scorer.score, query, passages)
        try:
            scores = await asyncio.wait_for(scoring, settings.rerank_budget_s)
        except TimeoutError:
            return hits, f"rerank took longer than {settings.rerank_budget_s:g} s and was left out"
        own = min_max(dict(enumerate(float(score) for score in scores)))
        fused = min_max(dict(enumerate(hit.score for hit in head)))
        weight = settings.rerank_weight
        mixed = ranked({at: (1 - weight) * fused[at] + weight * own[at] for at in own})
        # Scores must not increase down the list: the head keeps its own scores, dealt out in the new order.
        dealt = sorted((hit.score for hit in head), reverse=True)
        return [replace(head[at], score=score) for (at, _), score in zip(mixed, dealt, strict=True)] + hits[
            len(head) :
        ], None


def _check(query: str, top_k: int, group_by: str | None) -> None:
    if not query.strip():
        raise InvalidInput("query must not be empty")
    if not 1 <= top_k <= MAX_TOP_K:
        raise InvalidInput(f"top_k must be from 1 to {MAX_TOP_K}, found {top_k}")
    if group_by not in (None, "document"):
        raise InvalidInput(f"group_by must be 'document' or absent, found {group_by!r}")


def _hit(row: ChunkRow, score: float, dense: float | None, lexical: float | None) -> Hit:
    return Hit(
        document_id=row.document_id,
        chunk_id=str(row.id),
        score=score,
        text=row.text,
        title=row.title,
        page=row.page,
        start=row.start,
        end=row.end,
        headings=row.headings,
        metadata=row.metadata,
        dense=dense,
        lexical=lexical,
    )


class _Pick:
    """The first ``top_k`` hits offered that are distinct: by text, or with ``group_by`` by document."""

    def __init__(self, group_by: str | None, top_k: int) -> None:
        self.hits: list[Hit] = []
        self._top_k = top_k
        self._documents: set[str] | None = set() if group_by == "document" else None
        self._texts = Distinct()

    def offer(self, hits: Sequence[Hit]) -> None:
        for hit in hits:
            if len(self.hits) == self._top_k:
                return
            if self._is_new(hit):
                self.hits.append(hit)

    def _is_new(self, hit: Hit) -> bool:
        if self._documents is None:
            return self._texts.is_new(hit.text)
        known = hit.document_id in self._documents
        self._documents.add(hit.document_id)
        return not known
