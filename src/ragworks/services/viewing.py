"""One state of a collection, as a search sees it from its first look to its last row."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragworks.records import CHUNK_BITS, ChunkRow, Legs, Query, chunk_keys
from ragworks.storage_protocols import Indexes, Rows

COMPARED_ONE_BY_ONE = 20_000  # allowed chunks: about 30 ms, at recall 1 whatever the filter
Versions = Mapping[int, int]  # {version: chunk count}


@dataclass(frozen=True, slots=True)
class View:
    """What a collection showed when the view was taken. ``indexes`` is None while it has no documents."""

    collection: str
    rows: Rows
    indexes: Indexes | None
    shown: Versions
    threads: Executor

    async def legs(self, queries: Sequence[Query], limit: int, filter: Mapping[str, Any] | None) -> Legs:
        """Both legs' scores over the union of their best ``limit``. Raises UnusableFilter."""
        allowed = self.shown
        if filter is not None:
            matching = await self.rows.matching(self.collection, filter)
            allowed = {version: count for version, count in self.shown.items() if version in matching}
        if self.indexes is None or not allowed:
            return Legs({}, {}, exhausted=True)
        search = _Search(self.indexes, limit, self.shown, allowed if len(allowed) < len(self.shown) else None)
        return await asyncio.get_running_loop().run_in_executor(self.threads, search.run, queries)

    async def chunks(self, keys: Sequence[int]) -> Mapping[int, ChunkRow]:
        """The rows of the chunks among ``keys`` whose document still exists."""
        return await self.rows.chunks(self.collection, keys)


@dataclass(frozen=True, slots=True)
class _Search:
    """One search of the indexes. ``allowed`` is None where a filter lets everything through that is shown."""

    indexes: Indexes
    limit: int
    shown: Versions
    allowed: Versions | None

    def run(self, queries: Sequence[Query]) -> Legs:
        """A leg's score is the weighted sum over ``queries``, true for the whole union."""
        found = [self._nearest(one.vector) for one in queries if one.vector is not None]
        found += [self._worded(one.words) for one in queries if one.words]
        union = sorted({key for keys in found for key in keys})
        dense: dict[int, float] = {}
        lexical: dict[int, float] = {}
        for query in queries:
            if query.vector is not None:
                _add(dense, self.indexes.vectors.scores(query.vector, union), query.weight)
            if query.words:
                scores = self.indexes.words.scores(query.words, union)
                _add(lexical, {**dict.fromkeys(union, 0.0), **scores}, query.weight)
        return Legs(dense, lexical, exhausted=all(len(keys) < self.limit for keys in found))

    def _worded(self, words: str) -> list[int]:
        allowed = None if self.allowed is None else list(self.allowed)
        return self._visible(self.indexes.words.search(words, self.limit, allowed))

    def _nearest(self, vector: NDArray[np.float32]) -> list[int]:
        """Exact among few allowed chunks; among many, the graph is asked for more until enough are allowed."""
        search = self.indexes.vectors.search
        if self.allowed is None:
            return self._visible(search(vector, self.limit))
        if sum(self.allowed.values()) <= COMPARED_ONE_BY_ONE:
            keys = np.concatenate([chunk_keys(version, count) for version, count in self.allowed.items()])
            return [key for key, _ in search(vector, self.limit, keys)]
        asked = 4 * self.limit
        while True:
            found = search(vector, asked)
            kept = self._visible(found)
            if len(kept) >= self.limit or len(found) < asked:
                return kept[: self.limit]
            asked *= 4

    def _visible(self, found: Sequence[tuple[int, float]]) -> list[int]:
        within = self.shown if self.allowed is None else self.allowed
        return [key for key, _ in found if key >> CHUNK_BITS in within]


def _add(total: dict[int, float], scores: Mapping[int, float], weight: float) -> None:
    for key, score in scores.items():
        total[key] = total.get(key, 0.0) + weight * score
