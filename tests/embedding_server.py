"""A server on loopback that speaks OpenAI's embeddings route, well or badly, as each request is told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np

from ragworks.models.hashing import HashingEmbedder

Reply = bytes | None
"""The bytes of a whole HTTP response; None closes the connection without one."""


class EmbeddingServer:
    """Answers ``script`` in turn, then well. ``requests`` are the bodies that came, ``headers`` their headers."""

    def __init__(self) -> None:
        self.script: list[Callable[[dict[str, Any]], Reply]] = []
        self.always: Callable[[dict[str, Any]], Reply] = good
        self.requests: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.url = ""
        self.silent: asyncio.Event | None = None
        """While set to an event, an answer waits for it."""
        self.in_flight = self.most_in_flight = 0
        self.connections: set[asyncio.StreamWriter] = set()

    @property
    def texts(self) -> list[list[str]]:
        return [request["input"] for request in self.requests]

    @contextmanager
    def behaving(self) -> Iterator[None]:
        """Answers well meanwhile, and forgets what was asked."""
        told = self.script, self.always, self.silent
        self.script, self.always, self.silent = [], good, None
        try:
            yield
        finally:
            self.script, self.always, self.silent = told
            self.requests.clear()
            self.headers.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
                )
                body = json.loads(await reader.readexactly(length))
                reply = await self._reply(head.decode(), body)
                if reply is None:
                    break
                writer.write(reply)
                await writer.drain()
                if b"Connection: close" in reply:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _reply(self, head: str, body: dict[str, Any]) -> Reply:
        self.requests.append(body)
        self.headers.append(head)
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            answer = self.script.pop(0) if self.script else self.always
            if self.silent is not None:
                await self.silent.wait()
            return answer(body)
        finally:
            self.in_flight -= 1


@asynccontextmanager
async def embedding_server() -> AsyncIterator[EmbeddingServer]:
    server = EmbeddingServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listening.close()
        for connection in server.connections:  # whoever reads from one meets its end, and ends
            connection.close()
        await asyncio.sleep(0)


def response(status: int, body: Any, **headers: str) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode() + raw


def problem(status: int, message: str = "go away", **headers: str) -> Callable[[dict[str, Any]], Reply]:
    return lambda body: response(status, {"error": {"message": message}}, **headers)


def closes(body: dict[str, Any]) -> Reply:
    return None


def half_closes(body: dict[str, Any]) -> Reply:
    """Promises more than it sends, then closes."""
    whole = good(body)
    assert whole is not None
    return whole[: len(whole) // 2].replace(b"HTTP/1.1 200 Status", b"HTTP/1.1 200 Status\r\nConnection: close")


def good(body: dict[str, Any]) -> Reply:
    return answers(lambda rows: rows)(body)


def backwards(body: dict[str, Any]) -> Reply:
    return answers(lambda rows: rows[::-1])(body)


def answers(change: Callable[[list[dict[str, Any]]], Any], **more: Any) -> Callable[[dict[str, Any]], Reply]:
    """A good answer with its rows changed, and ``more`` beside them."""

    def reply(body: dict[str, Any]) -> Reply:
        rows = [
            {"object": "embedding", "index": index, "embedding": packed(vector)}
            for index, vector in enumerate(vectors(body["input"]))
        ]
        return response(200, {"object": "list", "data": change(rows), "model": body["model"], **more})

    return reply


def embeds(values: Callable[[int, Sequence[float]], Any]) -> Callable[[dict[str, Any]], Reply]:
    """A good answer whose vectors are ``values(index, vector)``."""
    return answers(lambda rows: [row | {"embedding": values(row["index"], unpacked(row["embedding"]))} for row in rows])


def vectors(texts: Sequence[str]) -> np.ndarray:
    return HashingEmbedder().embed(texts, "passage")


def packed(vector: Sequence[float] | np.ndarray) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def unpacked(text: str) -> list[float]:
    return [float(value) for value in np.frombuffer(base64.b64decode(text), "<f4")]
