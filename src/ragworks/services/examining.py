"""What ``doctor`` asks: do documents, chunks, vectors, words and bytes agree?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ragworks.protocols import Blobs, Rows
from ragworks.services.following import Follower
from ragworks.types import Checkup

Keys = Mapping[str, NDArray[np.uint64]]
NONE = np.array([], dtype=np.uint64)


LOOKS = 3  # what is being written shows as a difference once; what is wrong stays wrong


async def examine(rows: Rows, blobs: Blobs, followers: Mapping[str, Follower]) -> Checkup:
    """Compare rows with indexes and bytes, again if they differ: only what every look shows is a problem."""
    found = await _look(rows, blobs, followers)
    for _ in range(LOOKS - 1):
        if found.healthy:
            break
        again = await _look(rows, blobs, followers)
        found = replace(again, problems=tuple(one for one in again.problems if one in found.problems))
    return found


async def _look(rows: Rows, blobs: Blobs, followers: Mapping[str, Follower]) -> Checkup:
    for follower in list(followers.values()):
        await follower.catch_up()
    census = await rows.census()
    vectors = {name: await asyncio.to_thread(one.indexes.vectors.keys) for name, one in followers.items()}
    words = {name: await asyncio.to_thread(one.indexes.words.keys) for name, one in followers.items()}
    kept = await asyncio.to_thread(blobs.hashes)
    problems = [
        *census.problems,
        *_differences("vector index", census.chunks, vectors),
        *_differences("word index", census.chunks, words),
    ]
    if missing := census.blobs - kept:
        problems.append(f"the original bytes of {len(missing)} documents are missing")
    if strays := kept - census.blobs:
        problems.append(f"{len(strays)} files below blobs/ belong to no document")
    return Checkup(
        documents=census.documents,
        chunks=sum(map(len, census.chunks.values())),
        vectors=census.vectors if _total(vectors) == census.vectors else _total(vectors),
        words=_total(words),
        blobs=len(kept),
        problems=tuple(problems),
    )


def _differences(index: str, expected: Keys, found: Keys) -> Iterator[str]:
    for name in sorted({*expected, *found}):
        wanted, held = expected.get(name, NONE), found.get(name, NONE)
        if len(lost := np.setdiff1d(wanted, held)):
            yield f"collection {name}: {len(lost)} chunks are not in the {index}"
        if len(orphans := np.setdiff1d(held, wanted)):
            yield f"collection {name}: {len(orphans)} entries of the {index} belong to no chunk"
        if len(held) != len(np.unique(held)):
            yield f"collection {name}: the {index} holds a chunk twice"


def _total(keys: Keys) -> int:
    return sum(map(len, keys.values()))
