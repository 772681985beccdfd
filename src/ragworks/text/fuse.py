"""Merge the scores of two retrieval legs into one ranking."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from zlib import crc32

GRAM = 5
SKETCH = 8


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


def distinct(texts: Sequence[str], limit: int, resemblance: float = 0.9) -> list[int]:
    """Indices of the first ``limit`` texts to keep, in order: one that resembles an earlier one so much is dropped.

    Resemblance of word 5-grams (Broder 1997). Only texts that share one of their smallest hashes are compared, so the
    cost is near linear; two texts above 0.9 miss each other there about once in 10^8.
    """
    kept: list[int] = []
    grams: dict[int, frozenset[int]] = {}
    holders: dict[int, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        if len(kept) == limit:
            break
        mine = _grams(text)
        sketch = heapq.nsmallest(SKETCH, mine)
        others = {other for hash_ in sketch for other in holders[hash_]}
        if any(len(mine & grams[other]) >= resemblance * len(mine | grams[other]) for other in others):
            continue
        kept.append(index)
        grams[index] = mine
        for hash_ in sketch:
            holders[hash_].append(index)
    return kept


def _grams(text: str) -> frozenset[int]:
    words = text.lower().split()
    count = max(1, len(words) - GRAM + 1)
    return frozenset(crc32(" ".join(words[at : at + GRAM]).encode(errors="replace")) for at in range(count))
