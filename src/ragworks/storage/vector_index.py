"""Approximate nearest neighbours (HNSW, Malkov and Yashunin 2016, by usearch) over the rows of one collection."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime  # noqa: F401  # first: usearch loads its libraries globally, and onnxruntime then dies on import
from numpy.typing import NDArray
from usearch.index import Index

from ragworks.errors import StorageFull
from ragworks.types import Vectors

EXPANSION = 128
EXACT_BELOW = 4096  # so few are compared one by one in about a millisecond, at recall 1
SLICE = 64  # vectors added under one hold of the lock: about 25 ms that a search may wait


class HnswIndex:
    """storage_protocols.VectorIndex in memory, vectors as float16. Searches and changes take turns."""

    def __init__(self, dimension: int, file: Path | None = None) -> None:
        """An empty index, or the one saved in ``file``. Raises ValueError if that cannot be read."""
        self._lock = threading.Lock()
        self._index = Index(ndim=dimension, metric="cos", dtype="f16", expansion_add=EXPANSION)
        if file is not None:
            try:
                self._index.load(str(file))
            except RuntimeError as error:
                raise ValueError(f"{file} is not a vector index: {error}") from error
            if self._index.ndim != dimension:
                raise ValueError(f"{file} holds {self._index.ndim} dimensions, expected {dimension}")
        self._index.expansion_search = EXPANSION  # type: ignore[misc]  # settable, whatever its stub says

    def save(self, file: Path) -> None:
        """Write everything to ``file``. Raises StorageFull."""
        try:
            with self._lock:
                self._index.save(str(file))
                short = self._index.serialized_length - file.stat().st_size
        except RuntimeError as error:  # the library does not say why a file could not be written
            raise StorageFull(f"cannot write the vector index {file}: {error}") from error
        if short:  # nor, with a small file, that it could not
            raise StorageFull(f"cannot write the vector index {file}: {short} bytes are missing")

    def add(self, keys: NDArray[np.uint64], vectors: Vectors) -> None:
        for start in range(0, len(keys), SLICE):
            part = slice(start, start + SLICE)
            with self._lock:
                self._index.remove(keys[part])
                self._index.add(keys[part], vectors[part], threads=1)

    def remove(self, keys: NDArray[np.uint64]) -> None:
        with self._lock:
            self._index.remove(keys)

    def search(
        self, vector: NDArray[np.float32], limit: int, allowed: NDArray[np.uint64] | None = None
    ) -> list[tuple[int, float]]:
        if allowed is not None:
            ranked = sorted(self.scores(vector, allowed.tolist()).items(), key=lambda item: (-item[1], item[0]))
            return ranked[:limit]
        with self._lock:
            if not len(self._index):
                return []
            found = self._index.search(vector, limit, threads=1, exact=len(self._index) < EXACT_BELOW)
        return [(int(key), 1.0 - float(far)) for key, far in zip(found.keys, found.distances, strict=True)]

    def scores(self, vector: NDArray[np.float32], keys: Sequence[int]) -> dict[int, float]:
        if not len(keys):
            return {}
        with self._lock:
            rows = self._index.get(np.asarray(keys, dtype=np.uint64))
        known = [(key, row) for key, row in zip(keys, rows or (), strict=True) if row is not None]
        if not known:
            return {}
        cosines = np.asarray([row for _, row in known], dtype=np.float32) @ vector
        return {key: float(cosine) for (key, _), cosine in zip(known, cosines, strict=True)}

    def keys(self) -> NDArray[np.uint64]:
        with self._lock:
            return np.asarray(self._index.keys[: len(self._index)], dtype=np.uint64)
