"""A deterministic embedder without weights: texts that share words are close. For tests and examples."""

from __future__ import annotations

import functools
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ragworks.types import TextKind, Vectors

_WORD = re.compile(r"\w+")
_NGRAM = 4
_WORD_WEIGHT = 1.0
_NGRAM_WEIGHT = 0.25


class HashingEmbedder:
    """Words and character 4-grams in 256 signed buckets, square-root counts, unit length.

    The same on every machine and in every process (crc32, not ``hash``). A text without any word gets the vector of
    the empty word, not zero.
    """

    name = "hashing"
    fingerprint = "hashing:crc32-256.1"
    dimension = 256
    max_tokens = 512

    def lengths(self, texts: Sequence[str], kind: TextKind) -> list[int]:
        """Words; the marker of a question takes no word's place."""
        return [len(_WORD.findall(text)) for text in texts]

    def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        out = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            # A marker for questions stands for the prefix of a real model: near, but not the same vector.
            extra = ["?"] if kind == "question" else []
            out[row] = self._vector(_WORD.findall(text.lower())[: self.max_tokens] + extra)
        return out

    def _vector(self, words: Sequence[str]) -> NDArray[np.float32]:
        vector = np.zeros(self.dimension, np.float32)
        for word, count in Counter(words or [""]).items():
            for bucket, weight in _features(word):
                vector[bucket] += weight * count**0.5
        norm = np.linalg.norm(vector)
        if norm == 0.0:
            vector[0] = norm = np.float32(1.0)
        return (vector / norm).astype(np.float32)


@functools.lru_cache(maxsize=50_000)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    return tuple(_signed(feature, weight) for feature, weight in _parts(word))


def _parts(word: str) -> Iterator[tuple[str, float]]:
    yield word, _WORD_WEIGHT
    padded = f"<{word}>"
    for start in range(len(padded) - _NGRAM + 1):
        yield "#" + padded[start : start + _NGRAM], _NGRAM_WEIGHT


def _signed(feature: str, weight: float) -> tuple[int, float]:
    code = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
    return code % HashingEmbedder.dimension, weight if code & 0x8000_0000 else -weight
