"""How long one question waits for its vector while a bulk job runs, beside an idle service; used by embedding.py.

    python benchmarks/embedding_latency.py TEXTS.json QUESTIONS.json THREADS ROUNDS ENGINE RUNTIME

With the runtime ``process`` the model is where a server has it, in a child process behind a balancer; with ``inline``
it is in this one, and batches are timed too. Idle and busy stretches take turns. A stretch asks each question once, one
after another, while a sampler sleeps 5 ms at a time and notes by how much it wakes too late.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragworks.app import build
from ragworks.clock import SystemClock
from ragworks.models.choosing import ENGINES
from ragworks.services.embeddings_service import EmbeddingsService
from ragworks.settings import EmbeddingsSettings, load
from ragworks.testing import LocalEmbeddings
from ragworks.types import TextKind, Vectors

EVERY_S = 0.005
BETWEEN_S = 0.02


class Timed:
    """A model that notes how long each batch of passages took."""

    def __init__(self, model: Any, batch_ms: list[float]) -> None:
        self._model, self._batch_ms = model, batch_ms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed(self, texts: list[str], kind: TextKind) -> Vectors:
        began = time.perf_counter()
        vectors: Vectors = self._model.embed(texts, kind)
        if kind == "passage":
            self._batch_ms.append(1000 * (time.perf_counter() - began))
        return vectors


async def measure(
    texts: list[str], questions: list[str], threads: int, rounds: int, engine: str, runtime: str
) -> dict[str, Any]:
    batch_ms = list[float]()
    found: dict[str, dict[str, list[float]]] = {kind: {"ms": [], "lag_ms": []} for kind in ("idle", "busy")}
    async with in_process(threads, engine) if runtime == "process" else inline(threads, engine, batch_ms) as service:
        for _ in range(rounds):
            await stretch(service, questions, found["idle"])
            async with bulk(service, texts):
                await stretch(service, questions, found["busy"])
    return {
        **{f"{kind}_{what}": summary(values) for kind, one in found.items() for what, values in one.items()},
        **({"batch_ms": summary(batch_ms)} if batch_ms else {}),
    }


@asynccontextmanager
async def inline(threads: int, engine: str, batch_ms: list[float]) -> AsyncIterator[EmbeddingsService]:
    model = Timed(ENGINES[engine](threads), batch_ms)
    settings = EmbeddingsSettings(engine=engine, threads=threads, cache_enabled=False)
    service = LocalEmbeddings(settings, lambda: model, None, SystemClock())
    await service.initialize()
    yield service
    await service.shutdown()


@asynccontextmanager
async def in_process(threads: int, engine: str) -> AsyncIterator[EmbeddingsService]:
    """As a server does it."""
    wanted = {"engine": engine, "threads": threads, "cache_enabled": False, "replicas": {"runtime": "process"}}
    with tempfile.TemporaryDirectory() as data:
        settings = load(environ={}, server={"data": data}, embeddings_service=wanted, log={"level": "error"})
        async with build(settings) as app:
            yield app.embeddings_service


async def stretch(service: EmbeddingsService, questions: list[str], into: dict[str, list[float]]) -> None:
    sampler = asyncio.create_task(lags(into["lag_ms"]))
    for question in questions:
        began = time.perf_counter()
        await service.embed_texts([question], kind="question")
        into["ms"].append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(BETWEEN_S)
    sampler.cancel()
    with suppress(asyncio.CancelledError):
        await sampler


@asynccontextmanager
async def bulk(service: EmbeddingsService, texts: list[str]) -> AsyncIterator[None]:
    """A job of 10,000 texts in one call."""
    job = asyncio.create_task(service.embed_texts([f"{at} {text}" for at, text in numbered(texts)]))
    await asyncio.sleep(0.5)
    yield
    job.cancel()
    with suppress(asyncio.CancelledError):
        await job


def numbered(texts: list[str]) -> Any:
    return itertools.islice(enumerate(itertools.cycle(texts)), 10_000)


async def lags(into: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(EVERY_S)
        into.append(1000 * (time.perf_counter() - began - EVERY_S))


def summary(values: list[float]) -> dict[str, Any]:
    """Median and p99 with its 95 % interval by resampling."""
    given, rng = np.asarray(values), np.random.default_rng(0)
    drawn: NDArray[Any] = np.percentile(rng.choice(given, (1000, len(given))), 99, axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "n": len(values), "p50": float(np.median(given)), "p99": float(np.percentile(given, 99)),
        "p99_low": float(low), "p99_high": float(high),
    }  # fmt: skip


if __name__ == "__main__":
    given = [json.loads(Path(name).read_text("utf-8")) for name in sys.argv[1:3]]
    print(json.dumps(asyncio.run(measure(*given, int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:7]))))
