"""A slow model server on loopback, and engines that ask it: what ``autoscaling.py`` scales where replicas wait."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx

from ragworks.models.hashing import HashingEmbedder
from ragworks.services.embedding_engine import EmbeddingEngine
from ragworks.settings import EmbeddingsSettings
from ragworks.types import TextKind, Vectors

WORK_S = 0.25
URL = "SLOW_MODEL_URL"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Waiting(HashingEmbedder):
    """Waits for the model server, one text after another."""

    def __init__(self) -> None:
        self._http = httpx.Client(base_url=os.environ[URL], timeout=60)

    def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        self._http.get("/").raise_for_status()
        return super().embed(texts, kind)


def embeddings(settings: EmbeddingsSettings) -> EmbeddingEngine:
    """What the settings file names as waiting:embeddings."""
    return EmbeddingEngine(settings, lambda _: Waiting())


@asynccontextmanager
async def slow_server() -> AsyncIterator[str]:
    """The URL of a server that answers each request after WORK_S, however many there are."""
    serving: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving[asyncio.current_task()] = writer
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(WORK_S)
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in serving.values():
            connection.close()
        await asyncio.gather(*(task for task in serving if task))
