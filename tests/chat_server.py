"""A server on loopback that speaks OpenAI's chat route as a stream, well or badly, as each request is told."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Part = bytes | asyncio.Event
"""Bytes to send, or an event to wait for before the next."""
Reply = Callable[[dict[str, Any]], list[Part]]


class ChatServer:
    """Answers ``script`` in turn, then ``always``. ``requests`` are the bodies, ``left`` counts clients that left."""

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.always: Reply = says("The battery lasts ", "41 minutes ", "[1].")
        self.requests: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.url, self.in_flight, self.most_in_flight = "", 0, 0
        self.connections: set[asyncio.StreamWriter] = set()

    @property
    def prompt(self) -> str:
        return str(self.requests[-1]["messages"][-1]["content"])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.splitlines() if line.lower()[:15] == b"content-length:"
            )
            self.requests.append(json.loads(await reader.readexactly(length)))
            self.headers.append(head.decode())
            for part in (self.script.pop(0) if self.script else self.always)(self.requests[-1]):
                if isinstance(part, asyncio.Event):
                    gone = asyncio.create_task(reader.read())
                    opened = asyncio.create_task(part.wait())
                    await asyncio.wait({gone, opened}, return_when=asyncio.FIRST_COMPLETED)
                    opened.cancel()
                    if gone.done():
                        return
                    gone.cancel()
                else:
                    writer.write(part)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.in_flight -= 1
            writer.close()


@asynccontextmanager
async def chat_server() -> AsyncIterator[ChatServer]:
    server = ChatServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listening.close()
        for connection in server.connections:
            connection.close()
        await asyncio.sleep(0)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
"""The end of the connection is the end of the stream."""


def chunk(text: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": more.pop("finish", None)}
    return data({"object": "chat.completion.chunk", "choices": [choice], **more})


def data(body: Any) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


END = [
    chunk(finish="stop"),
    data(
        {
            "choices": [],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107, "details": {}, "refund": -5},
        }
    ),
    b"data: [DONE]\n\n",
]


def says(*pieces: str) -> Reply:
    return lambda body: [HEAD, b": hello\n\n", chunk(""), *map(chunk, pieces), *END]


def reads(body: dict[str, Any]) -> list[Part]:
    """A model that does as it is told: the sentence with the sought number, and the passage that it is from."""
    asked = body["messages"][-1]["content"]
    for number, passage in re.findall(r"<passage (\d+) \w+>\n(.*?)\n</passage", asked, re.DOTALL):
        sentence = re.search(r"[^.\n]*41 minutes\.", passage)
        if sentence and "battery" in asked.rpartition("Question: ")[2]:
            return says(sentence[0].strip(), f" [{number}]")(body)
    return says("NOT_", "FOUND")(body)


def sends(*parts: Part) -> Reply:
    return lambda body: [HEAD, *parts]


def problem(status: int, message: str = "go away", **headers: str) -> Reply:
    raw = json.dumps({"error": {"message": message}}).encode()
    named = {"Content-Length": str(len(raw)), "Connection": "close", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return lambda body: [f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode() + raw]
