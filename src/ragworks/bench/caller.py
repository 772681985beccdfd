"""Posts questions at a tenth of a millisecond of CPU each; httpx takes nine times that, which the server would lack."""

from __future__ import annotations

import asyncio
import json
import time
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from ragworks.errors import ServerProblem, ServerUnreachable

Json = dict[str, Any]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

ANSWER_S = 600.0
FRESH_S = 3.0
"""A server closes connections that are idle for longer; ours after 5 s."""


class Caller:
    """One server, over as many connections as there are questions at once; they are kept for the next."""

    def __init__(self, url: str) -> None:
        self._url, self._parts = url, urlsplit(url)
        self._idle: list[tuple[Connection, float]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._idle:
            (_, writer), _ = self._idle.pop()
            writer.close()

    async def post(self, path: str, body: Json) -> Json:
        """The answer. Raises ServerProblem and ServerUnreachable."""
        sent = json.dumps(body).encode()
        head = (
            f"POST {self._parts.path.rstrip('/')}{path} HTTP/1.1\r\nHost: {self._parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(ANSWER_S):
                status, answer = await self._exchanged(head.encode() + sent)
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise ServerProblem("not_ragworks", f"{self._url} does not answer like ragworks: {error}", 502) from error
        except (OSError, EOFError, TimeoutError) as error:
            raise ServerUnreachable(
                f"the server at {self._url} cannot be reached ({type(error).__name__}: {error}); is it running?"
            ) from error
        return checked(self._url, status, answer)

    async def _exchanged(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = await self._connection()
        try:
            writer.write(request)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().splitlines()
            length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), None)
            if length is None:
                raise ServerProblem(
                    "not_ragworks", f"{self._url} answers in pieces, as a proxy does; name the server itself", 502
                )
            answer = await reader.readexactly(length)
        except BaseException:  # also when cancelled: what is left of the answer must not be taken for the next one
            writer.close()
            raise
        if "connection: close" in lines:
            writer.close()
        else:
            self._idle.append(((reader, writer), time.monotonic()))
        return int(lines[0].split()[1]), answer

    async def _connection(self) -> Connection:
        while self._idle:
            (reader, writer), since = self._idle.pop()
            if time.monotonic() - since < FRESH_S and not reader.at_eof():
                return reader, writer
            writer.close()
        secure = self._parts.scheme == "https"
        return await asyncio.open_connection(
            self._parts.hostname, self._parts.port or (443 if secure else 80), ssl=secure or None
        )


def checked(where: str, status: int, answer: bytes) -> Json:
    """The object that was answered. Raises ServerProblem where it is none, or one that says what failed."""
    try:
        found = json.loads(answer)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServerProblem("not_ragworks", f"{where} does not answer like ragworks", status)
    if not 200 <= status < 300:
        detail = found.get("detail") or f"the server answered {status}"
        raise ServerProblem(str(found.get("code", "http_error")), str(detail), status)
    return found
