"""Answers written by a chat model behind OpenAI-compatible endpoints, as they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx

from ragworks import tracing
from ragworks.control_protocols import EndpointFailed, Endpoints
from ragworks.errors import EndpointUnavailable, GenerationFailed
from ragworks.gen_ai import OURS
from ragworks.models.endpoints import EndpointClient, RequestRefused, propagated, traced_post
from ragworks.models.extractive import ABSTENTION
from ragworks.protocols import Clock, Generator
from ragworks.settings import ChatSettings
from ragworks.text.prompt import NOT_FOUND, messages
from ragworks.text.quoting import quotes
from ragworks.types import Draft, Hit, Turn

MAX_WAITING = 8
"""Questions that wait for each answer that may be written at once; more would time out in the queue."""
MAX_LINE = 1024 * 1024
ROUTE = "/chat/completions"

Said = str | Mapping[str, int]
"""A piece of the answer, or the tokens that it took."""


class OpenAIChatGenerator:
    """POST {url}/chat/completions, at whichever of the endpoints; another takes over before the first word only.

    At most ``concurrency`` answers are written at once. ``open`` before use, ``close`` after.
    """

    provider = "openai"

    def __init__(self, settings: ChatSettings, endpoints: Endpoints, clock: Clock) -> None:
        self.name = settings.model
        self._settings, self._endpoints = settings, endpoints
        self._client = EndpointClient("generation_service.endpoint", settings.api_key, settings.timeout_s, clock)
        self._slots, self._waiting = asyncio.Semaphore(settings.concurrency), 0

    def open(self) -> None:
        self._client.open()

    async def close(self) -> None:
        await self._client.close()

    async def generate(self, question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> AsyncIterator[str | Draft]:
        """Raises EndpointUnavailable, and GenerationFailed when an endpoint refuses the question for what it is."""
        usage: dict[str, int] = {}
        if not hits:
            yield ABSTENTION
            yield Draft({}, abstained=True, usage=usage, model=self.name)
            return
        told: list[str] = []
        try:
            async with self._slot(), aclosing(_revealed(self._said(question, history, hits), usage)) as pieces:
                async for piece in pieces:
                    told.append(piece)
                    yield piece
        except RequestRefused as error:
            raise GenerationFailed(f"the model refuses the question: {error}") from error
        answer = "".join(told)
        abstained = not told or answer.strip() == ABSTENTION
        if not told:
            yield ABSTENTION
        yield Draft({} if abstained else quotes(answer, hits), abstained, usage, model=self.name)

    def _said(self, question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> AsyncIterator[Said]:
        body = {
            "model": self.name,
            "messages": messages(question, history, hits),
            "max_tokens": self._settings.max_tokens,
            "temperature": self._settings.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return self._endpoints.stream(lambda url: tracing.streamed(traced_post(url, ROUTE), self._stream(url, body)))

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Wait for one of the answers under way to end, as long as an endpoint may be silent."""
        wait_s = self._settings.timeout_s
        if self._slots.locked() and self._waiting >= MAX_WAITING * self._settings.concurrency:
            raise EndpointUnavailable(f"{self._waiting} questions wait for {self.name} already", 1.0)
        self._waiting += 1
        try:
            async with asyncio.timeout(wait_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise EndpointUnavailable(f"no answer of {self.name} ended within {wait_s:g} s", 1.0) from error
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    async def _stream(self, url: str, body: Mapping[str, Any]) -> AsyncGenerator[Said, None]:
        http, said, ended, tokens = self._client.http(url), False, "", dict[str, int]()
        try:
            # Each wait for bytes has the limit: an answer may take long, silence may not.
            async with http.stream(
                "POST", url + ROUTE, json=body, headers=propagated(), timeout=self._settings.timeout_s
            ) as response:
                tracing.note("http.response.status_code", response.status_code)
                if response.status_code != 200:
                    await response.aread()
                    raise self._client.failure(url, response)
                async for data in _events(response):
                    text, usage, finish = _chunk(url, data)
                    ended, tokens = finish or ended, usage or tokens
                    if text:
                        said = True
                        yield text
        except httpx.TimeoutException as error:
            raise self._client.unreachable(url, TimeoutError()) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self._client.unreachable(url, error) from error
        if not ended:
            raise EndpointFailed(f"{url} answered 200, and its answer broke off" if said else _NO_STREAM.format(url))
        if not said:
            raise EndpointFailed(f"{url} answered nothing (finish_reason {ended})")
        yield tokens  # last: another endpoint can take over only while nothing was yielded


class FallingBack:
    """A generator and another one for when no endpoint of the first answers; the Draft says who wrote."""

    def __init__(self, first: Generator, second: Generator) -> None:
        self._first, self._second, self.name = first, second, first.name
        self.provider = getattr(first, "provider", OURS)

    async def generate(self, question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> AsyncIterator[str | Draft]:
        begun = False
        try:
            async with aclosing(self._first.generate(question, history, hits)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    begun = True
                    yield piece
            return
        except EndpointUnavailable:
            if begun:
                raise
        async with aclosing(self._second.generate(question, history, hits)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                yield piece


_NO_STREAM = "{} answered 200 with what is no stream of a chat completion; do urls end in /v1?"


async def _revealed(said: AsyncIterator[Said], usage: dict[str, int]) -> AsyncGenerator[str, None]:
    """The text, held back while it may still become NOT_FOUND, and nothing of it once it has; ``usage`` is filled."""
    head, open_ = "", False
    async with aclosing(said) as pieces:  # type: ignore[type-var]  # an asynchronous generator behind every protocol
        async for piece in pieces:
            if not isinstance(piece, str):
                usage.update(piece)
            elif open_:
                yield piece
            else:
                head += piece
                begins = head.lstrip(' \n"`*')
                if not (begins.startswith(NOT_FOUND) or NOT_FOUND.startswith(begins)):
                    open_ = True
                    yield head
    if not open_ and head.strip() and NOT_FOUND not in head:
        yield head


async def _events(response: httpx.Response) -> AsyncIterator[str]:
    """The data of a stream of server-sent events; not by the library's lines, which also end at U+2028."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE:
            raise EndpointFailed(f"{response.url} sent a line of more than {MAX_LINE} bytes")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield data.decode(errors="replace")


def _chunk(url: str, data: str) -> tuple[str, dict[str, int], str]:
    """(text, usage, finish_reason) of one event; empty where it has none."""
    try:
        found = json.loads(data)
        if error := found.get("error"):
            raise EndpointFailed(f"{url} broke off: {' '.join(str(error).split())[:300]}")
        usage = {key: value for key, value in (found.get("usage") or {}).items() if type(value) is int and value >= 0}
        choice: dict[str, Any] = next(iter(found.get("choices") or ()), {})
        text, finish = (choice.get("delta") or {}).get("content") or "", choice.get("finish_reason") or ""
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise EndpointFailed(f"{url} answered 200 with what is no chat completion ({data[:80]!r})") from error
    if not isinstance(text, str):
        raise EndpointFailed(f"{url} answered 200 with a piece that is no text ({text!r:.80})")
    return text, usage, str(finish)
