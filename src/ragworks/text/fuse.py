"""Merge the scores of two retrieval legs into one ranking."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from zlib import crc32

GRAM = 5
SKETCH = 8
COMPARED = 4  # texts per shared hash: templates make every text share some


def min_max(scores: Mapping[int, float]) -> dict[int, float]:
    """Scores moved to 0..1 within this list; all 1 when they are equal."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    return {key: (score - low) / (high - low) if high > low else 1.0 for key, score in scores.items()}


def fuse(dense: Mapping[int, float], lexical: Mapping[int, float], dense_weight: float) -> list[tuple[int, float]]:
    """(key, score in 0..1), best first: min-max fusion over the union of both legs (Bruch et al. 2023).

    Both legs should carry true scores for the whole union; a key that a leg does not know counts as that leg's
    lowest. An empty leg leaves the other one's order.
    """
    if not dense or not lexical:
        return ranked(min_max(dense or lexical))
    near, alike = min_max(dense), min_max(lexical)
    return ranked(
        {
            key: dense_weight * near.get(key, 0.0) + (1 - dense_weight) * alike.get(key, 0.0)
            for key in near.keys() | alike.keys()
        }
    )


def ranked(scores: Mapping[int, float]) -> list[tuple[int, float]]:
    """Best first; equal scores by key, so that the order does not depend on the input's."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


class Distinct:
    """Says of one text after another whether it is new, or resembles an earlier new one at least so much.

    Resemblance of word 5-grams (Broder 1997). A text is compared only with the few latest that share one of its
    smallest hashes, so the cost is linear; two texts above 0.9 miss each other there about once in 10^8.
    """

    def __init__(self, resemblance: float = 0.9) -> None:
        self._resemblance = resemblance
        self._kept: list[frozenset[int]] = []
        self._holders: dict[int, list[int]] = defaultdict(list)

    def is_new(self, text: str) -> bool:
        mine = _grams(text)
        sketch = heapq.nsmallest(SKETCH, mine)
        others = {other for hash_ in sketch for other in self._holders[hash_][-COMPARED:]}
        if any(len(mine & self._kept[at]) >= self._resemblance * len(mine | self._kept[at]) for at in others):
            return False
        for hash_ in sketch:
            self._holders[hash_].append(len(self._kept))
        self._kept.append(mine)
        return True


def _grams(text: str) -> frozenset[int]:
    words = text.lower().split()
    count = max(1, len(words) - GRAM + 1)
    return frozenset(crc32(" ".join(words[at : at + GRAM]).encode(errors="replace")) for at in range(count))
