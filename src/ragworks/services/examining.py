"""What ``doctor`` asks: do documents, chunks, vectors, words and bytes agree?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragworks.services.following import Follower
from ragworks.storage_protocols import Blobs, Rows
from ragworks.types import Checkup

Keys = Mapping[str, NDArray[np.uint64]]
Findings = dict[str, frozenset[Any]]
"""Sentences, in which ``%d`` stands for how many, and the things that each is about."""

Leaving = Callable[[], frozenset[Any]]
"""The versions and content hashes that are being deleted now."""

NONE = np.array([], dtype=np.uint64)
LOOKS = 5  # what is being written shows as a difference once or twice; what is wrong stays wrong


async def examine(rows: Rows, blobs: Blobs, followers: Mapping[str, Follower], leaving: Leaving) -> Checkup:
    """Compare rows with indexes and bytes, again if they differ: a problem is what every look shows of the same thing.

    The same number would not do: while documents come in, each look may find other things on their way. What is
    ``leaving`` is no problem.
    """
    found, problems = await _look(rows, blobs, followers, leaving)
    for _ in range(LOOKS - 1):
        if not problems:
            break
        found, again = await _look(rows, blobs, followers, leaving)
        problems = _real({what: things & again.get(what, frozenset()) for what, things in problems.items()})
    return replace(found, problems=tuple(what.replace("%d", str(len(things))) for what, things in problems.items()))


async def _look(
    rows: Rows, blobs: Blobs, followers: Mapping[str, Follower], leaving: Leaving
) -> tuple[Checkup, Findings]:
    for follower in list(followers.values()):
        await follower.catch_up()
    excused = leaving() | blobs.pinned()
    census = await rows.census()
    vectors = {name: await asyncio.to_thread(one.indexes.vectors.keys) for name, one in followers.items()}
    words = {name: await asyncio.to_thread(one.indexes.words.keys) for name, one in followers.items()}
    kept = await asyncio.to_thread(blobs.hashes)
    problems = {
        **census.problems,
        **dict(_differences("vector index", census.chunks, vectors)),
        **dict(_differences("word index", census.chunks, words)),
        "the original bytes of %d documents are missing": census.blobs - kept,
        "%d files below blobs/ belong to no document": frozenset(kept - census.blobs),
    }
    excused |= leaving() | blobs.pinned()
    found = Checkup(
        documents=census.documents,
        chunks=sum(map(len, census.chunks.values())),
        vectors=census.vectors if _total(vectors) == census.vectors else _total(vectors),
        words=_total(words),
        blobs=len(kept),
        problems=(),
    )
    return found, _real({what: things - excused for what, things in problems.items()})


def _real(problems: Findings) -> Findings:
    return {what: things for what, things in problems.items() if things}


def _differences(index: str, expected: Keys, found: Keys) -> Iterator[tuple[str, frozenset[Any]]]:
    for name in sorted({*expected, *found}):
        wanted, held = expected.get(name, NONE), found.get(name, NONE)
        seen, times = np.unique(held, return_counts=True)
        yield f"collection {name}: %d chunks are not in the {index}", _set(np.setdiff1d(wanted, held))
        yield f"collection {name}: %d entries of the {index} belong to no chunk", _set(np.setdiff1d(held, wanted))
        yield f"collection {name}: %d chunks are in the {index} twice", _set(seen[times > 1])


def _set(keys: NDArray[np.uint64]) -> frozenset[int]:
    return frozenset(keys.tolist())


def _total(keys: Keys) -> int:
    return sum(map(len, keys.values()))
