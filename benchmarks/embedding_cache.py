"""The embedding cache: cost of a hit, bytes of an entry, hit rates by policy, a second ingest; used by embedding.py.

    python benchmarks/embedding_cache.py TEXTS.json [TRACE.txt …]

A trace is one key a line. S3-FIFO and SIEVE are written here as their papers have them, to be compared only.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
import tracemalloc
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ragworks
from ragworks.workers.cache import VectorCache

SHARES = (0.01, 0.05, 0.1, 0.25)
Hits = Callable[[Sequence[int], int], int]


def entry() -> dict[str, float]:
    keys, vectors = [os.urandom(16) for _ in range(10_000)], np.random.rand(10_000, 384).astype(np.float32)
    tracemalloc.start()
    cache = VectorCache(len(keys), 1e6, time.monotonic)
    for key, vector in zip(keys, vectors, strict=True):
        cache.put(bytes(bytearray(key)), vector, False)
    held = tracemalloc.get_traced_memory()[0] / len(keys)
    tracemalloc.stop()
    hits = []
    for _ in range(7):
        began = time.process_time_ns()
        for key in keys:
            cache.get(key)
        hits.append((time.process_time_ns() - began) / len(keys))
    return {"ns_per_hit": float(np.median(hits)), "bytes_per_entry": held, "counted": cache.bytes_held / len(keys)}


def lru(trace: Sequence[int], size: int) -> int:
    cache, vector, hits = VectorCache(size, 1e9, lambda: 0.0), np.zeros(1, np.float32), 0
    for key in trace:
        name = key.to_bytes(8, "big", signed=True)
        if cache.get(name) is not None:
            hits += 1
        else:
            cache.put(name, vector, False)
    return hits


def sieve(trace: Sequence[int], size: int) -> int:
    """One queue; a hand from the oldest towards the newest spares what was read since it last came by."""
    older: dict[int, int | None] = {}
    newer: dict[int, int | None] = {}
    read: dict[int, bool] = {}
    newest = oldest = hand = None
    hits = 0
    for key in trace:
        if key in read:
            read[key] = True
            hits += 1
            continue
        if len(read) >= size:
            at = hand if hand is not None else oldest
            while at is not None and read[at]:
                read[at] = False
                at = newer[at] if newer[at] is not None else oldest
            assert at is not None
            hand, before, after = newer[at], older.pop(at), newer.pop(at)
            del read[at]
            oldest, newest = (after if at == oldest else oldest), (before if at == newest else newest)
            if before is not None:
                newer[before] = after
            if after is not None:
                older[after] = before
        older[key], newer[key], read[key] = newest, None, False
        if newest is not None:
            newer[newest] = key
        newest, oldest = key, key if oldest is None else oldest
    return hits


def s3_fifo(trace: Sequence[int], size: int) -> int:
    """A tenth for what is new; what is read there again, or comes again soon after it left, moves to the main queue."""
    small: deque[int] = deque()
    main: deque[int] = deque()
    ghost: OrderedDict[int, None] = OrderedDict()
    read: dict[int, int] = {}
    few = max(1, size // 10)
    hits = 0
    for key in trace:
        if key in read:
            read[key] = min(3, read[key] + 1)
            hits += 1
            continue
        while len(read) >= size:
            if len(small) >= few or not main:
                old = small.popleft()
                if read[old] > 1:
                    read[old] = 0
                    main.append(old)
                else:
                    del read[old]
                    ghost[old] = None
                    if len(ghost) > size - few:
                        ghost.popitem(last=False)
            elif read[main[0]]:
                read[main[0]] -= 1
                main.append(main.popleft())
            else:
                del read[main.popleft()]
        (main if key in ghost else small).append(key)
        ghost.pop(key, None)
        read[key] = 0
    return hits


def hit_rates(file: Path) -> list[dict[str, Any]]:
    trace = [int(line) for line in file.read_text().split()]
    policies: dict[str, Hits] = {"LRU (VectorCache)": lru, "SIEVE": sieve, "S3-FIFO": s3_fifo}
    rows = []
    for share in SHARES:
        size = max(1, int(len(set(trace)) * share))
        rates = {name: round(100 * hits(trace, size) / len(trace), 1) for name, hits in policies.items()}
        rows.append({"trace": file.stem, "share": share, **rates})
    return rows


async def second_ingest(texts: list[str]) -> list[dict[str, Any]]:
    """The same texts under other names: into a second collection, and into a third after a restart."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="ragworks-embedding-") as folder:
        async with ragworks.open(Path(folder, "data")) as works:
            rows += [await ingest(works, texts, "first"), await ingest(works, texts, "second")]
        async with ragworks.open(Path(folder, "data")) as works:
            rows.append(await ingest(works, texts, "after a restart"))
    return rows


async def ingest(works: ragworks.Works, texts: list[str], name: str) -> dict[str, Any]:
    service = works._app.embeddings_service
    before, began, cpu = dict(service.stats()), time.perf_counter(), time.process_time()
    collection = name.split()[-1]
    await asyncio.gather(
        *(works.add(text, id=f"{collection}-{at}", collection=collection) for at, text in enumerate(texts))
    )
    after = service.stats()
    counted = {key: after[key] - before[key] for key in ("model_texts", "memory_hits", "stored_hits")}
    return {"ingest": name, "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu, **counted}


if __name__ == "__main__":
    texts = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    rates = [row for name in sys.argv[2:] for row in hit_rates(Path(name))]
    print(json.dumps({"entry": entry(), "hit_rates": rates, "ingest": asyncio.run(second_ingest(texts))}))
