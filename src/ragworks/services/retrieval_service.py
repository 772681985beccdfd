"""Question to hits: both legs, fused by score, reranked on request, near-duplicates collapsed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ragworks.errors import InvalidInput, ModelMismatch, NotReady
from ragworks.protocols import Embedder, PassageScorer
from ragworks.settings import RetrievalSettings
from ragworks.text.fuse import distinct, fuse, min_max, ranked
from ragworks.types import ChunkRow, Collection, Health, Hit, Mode, Query, SearchResult, ServiceHealth, Turn

NAME = "retrieval_service"
MAX_TOP_K = 1000
READ_AT_LEAST = 20  # rows; fewer are not faster to read
GROUPED_MORE = 3  # chunks looked at per document wanted, when hits are grouped by document


class Searchable(Protocol):
    """The part of the vector store that searching needs."""

    async def collection(self, name: str) -> Collection: ...

    async def legs(
        self, collection: str, queries: Sequence[Query], limit: int, filter: Mapping[str, Any] | None
    ) -> tuple[dict[int, float], dict[int, float]]: ...

    async def chunks(self, collection: str, keys: Sequence[int]) -> Mapping[int, ChunkRow]: ...


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
        started = time.perf_counter()
        known = await self._store.collection(collection)
        queries, degraded = await self._queries(known, query, history, mode)
        embedded = time.perf_counter()
        wanted = top_k * GROUPED_MORE if group_by else top_k
        limit = max(self._settings.candidates, wanted)
        dense, lexical = await self._store.legs(collection, queries, limit, filter)
        order = fuse(dense, lexical, self._settings.dense_weight)
        hits = await self._best(collection, order, dense, lexical, group_by, top_k)
        found = time.perf_counter()
        if rerank:
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
        return SearchResult(tuple(hits), timings, degraded)

    async def _best(
        self,
        collection: str,
        order: Sequence[tuple[int, float]],
        dense: Mapping[int, float],
        lexical: Mapping[int, float],
        group_by: str | None,
        top_k: int,
    ) -> list[Hit]:
        """The first ``top_k`` hits that are visible and distinct; rows are read only as far as they are needed."""
        hits: list[Hit] = []
        kept: list[Hit] = []
        step = max(READ_AT_LEAST, 2 * top_k)
        for start in range(0, len(order), step):
            part = order[start : start + step]
            rows = await self._store.chunks(collection, [key for key, _ in part])
            hits += [_hit(rows[key], score, dense.get(key), lexical.get(key)) for key, score in part if key in rows]
            kept = _collapsed(hits, group_by, top_k)
            if len(kept) == top_k:
                break
        return kept

    async def _queries(
        self, collection: Collection, query: str, history: Sequence[Turn], mode: Mode
    ) -> tuple[list[Query], str | None]:
        """The last turn, and with less weight all user turns together, each as its legs want it."""
        texts = [(query, 1.0)]
        if earlier := [turn.content for turn in history if turn.role == "user"]:
            texts.append(("\n".join([*earlier, query]), self._settings.history_weight))
        vectors: list[NDArray[np.float32] | None] = [None] * len(texts)
        degraded = None
        if mode != "lexical" and collection.fingerprint:
            if self._embedder_ready():
                vectors = await self._embed(collection, [text for text, _ in texts])
            elif mode == "dense":
                raise NotReady("embeddings_service is down, and dense search cannot do without it; use mode lexical")
            else:
                degraded = "embeddings_service is down: searched by words only"
        words = mode != "dense"
        return [
            Query(vector, text if words else None, weight)
            for (text, weight), vector in zip(texts, vectors, strict=True)
        ], degraded

    async def _embed(self, collection: Collection, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        if collection.fingerprint != self._embedder.fingerprint:
            raise ModelMismatch(collection.name, collection.fingerprint, self._embedder.fingerprint)
        result = await self._embedder.embed_texts(texts, kind="question")
        if result.failed and result.embeddings[0] is None:
            raise InvalidInput(f"the question cannot be embedded: {result.failed[0].reason}")
        return list(result.embeddings)

    async def _reranked(self, query: str, hits: list[Hit]) -> tuple[list[Hit], str | None]:
        """The first hits in the order of fused and scorer's scores together, if the scorer is done in time."""
        settings = self._settings
        head = hits[: settings.rerank_passages]
        if len(head) < 2:
            return hits, None
        scoring = asyncio.to_thread(self._scorer.score, query, [hit.text for hit in head])
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


def _collapsed(hits: list[Hit], group_by: str | None, top_k: int) -> list[Hit]:
    if group_by == "document":
        best: dict[str, Hit] = {}
        for hit in hits:
            best.setdefault(hit.document_id, hit)
        return list(best.values())[:top_k]
    return [hits[index] for index in distinct([hit.text for hit in hits], top_k)]
