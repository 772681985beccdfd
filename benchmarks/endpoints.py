"""How long bulk work and a question take behind an endpoint that is slow, and how many requests it gets.

Usage: python benchmarks/endpoints.py [--delay 0.2] [--documents 16] [--concurrency 1,4,8] [--json]. A server on
loopback takes --delay seconds for any request. So many documents at once embed four parts of 25 texts one after
another, while one question follows another. ``threads`` is the design that was not taken: the same requests by blocking
calls in 4 threads behind the Batcher, which calls a model once at a time. Caveats: the delay does not grow with the
request; server and client share this process's event loop; vectors are made of hashed words.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ragworks.api.server import bind
from ragworks.bench.machine import commit, machine
from ragworks.clock import SystemClock
from ragworks.models.hashing import HashingEmbedder
from ragworks.models.openai_api import OpenAIEmbedder
from ragworks.protocols import Model, RemoteModel
from ragworks.settings import EmbeddingsSettings, EndpointSettings
from ragworks.testing import LocalEmbeddings, endpoint_set
from ragworks.types import TextKind, Vectors

NO_PREFIX: Any = {"question": "", "passage": ""}
PARTS, TEXTS, REQUEST_TEXTS = 4, 25, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--concurrency", default="1,4,8")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = [asyncio.run(measured(given.delay, given.documents, None))]
    rows += [asyncio.run(measured(given.delay, given.documents, int(one))) for one in given.concurrency.split(",")]
    found = {"machine": machine(), "commit": commit(), "delay_s": given.delay, "rows": rows}
    print(json.dumps(found, indent=2) if given.json else table(found))


async def measured(delay_s: float, documents: int, concurrency: int | None) -> dict[str, Any]:
    """One run; without ``concurrency`` that of blocking calls."""
    async with slow_server(delay_s) as (url, asked):
        endpoint = EndpointSettings(model="hashing", urls=(url,), concurrency=concurrency or 4, dimension=256)
        remote = OpenAIEmbedder(endpoint, NO_PREFIX, endpoint_set((url,), SystemClock()), SystemClock())
        model: Model | RemoteModel = Blocking(url) if concurrency is None else remote
        size = REQUEST_TEXTS * (4 if concurrency is None else 1)
        settings = EmbeddingsSettings(batch_size=size, batch_tokens=10**9, endpoint=endpoint)
        service = LocalEmbeddings(settings, lambda: model, None, SystemClock())
        await service.initialize()
        asked.clear()
        began = time.perf_counter()
        bulk = [asyncio.create_task(embed_document(service, number)) for number in range(documents)]
        waits = []
        while not all(task.done() for task in bulk):
            before = time.perf_counter()
            await service.embed_texts([f"question {len(waits)}"], kind="question")
            waits.append(time.perf_counter() - before)
        seconds = time.perf_counter() - began
        await service.shutdown()
    return {
        "design": "threads" if concurrency is None else f"awaited, concurrency {concurrency}",
        "seconds": round(seconds, 2),
        "requests": len(asked) - len(waits),
        "question_median_ms": round(1000 * statistics.median(waits)),
        "question_worst_ms": round(1000 * max(waits)),
    }


async def embed_document(service: LocalEmbeddings, number: int) -> None:
    for part in range(PARTS):
        await service.embed_texts([f"document {number} part {part} text {text}" for text in range(TEXTS)])


class Blocking(HashingEmbedder):
    """A Model that asks in four threads and returns when all have answered."""

    def __init__(self, url: str) -> None:
        self._http, self._threads = httpx.Client(base_url=url, timeout=60), ThreadPoolExecutor(4)

    def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        parts = [texts[at : at + REQUEST_TEXTS] for at in range(0, len(texts), REQUEST_TEXTS)]
        return np.vstack(list(self._threads.map(self._ask, parts)))

    def _ask(self, texts: Sequence[str]) -> Vectors:
        rows = self._http.post("/embeddings", json={"input": list(texts)}).json()["data"]
        return np.vstack([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows])


@asynccontextmanager
async def slow_server(delay_s: float) -> AsyncIterator[tuple[str, list[int]]]:
    """Its base URL, and the number of texts of each request so far."""
    asked: list[int] = []

    async def embed(request: Any) -> JSONResponse:
        texts = (await request.json())["input"]
        asked.append(len(texts))
        await asyncio.sleep(delay_s)
        rows = HashingEmbedder().embed(texts, "passage")
        packed = [base64.b64encode(row.tobytes()).decode() for row in rows]
        return JSONResponse({"data": [{"index": at, "embedding": row} for at, row in enumerate(packed)]})

    listener = bind("127.0.0.1", 0)
    application = Starlette(routes=[Route("/v1/embeddings", embed, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", asked
    finally:
        server.should_exit = True
        await serving


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['machine']}, commit {found['commit']}, {found['delay_s']} s a request", ""]
    lines += ["| Design | Bulk, s | Passage requests | Question, median / worst ms |", "|---|---|---|---|"]
    for row in found["rows"]:
        question = f"{row['question_median_ms']} / {row['question_worst_ms']}"
        lines.append(f"| {row['design']} | {row['seconds']} | {row['requests']} | {question} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
