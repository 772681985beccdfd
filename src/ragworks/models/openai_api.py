"""Embeddings from OpenAI-compatible endpoints: one model, at one or several base URLs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import httpx
import numpy as np
import structlog
from numpy.typing import NDArray

from ragworks.errors import CannotStart, EmbeddingFailed, EndpointUnavailable
from ragworks.policies import endpoints
from ragworks.policies.retrying import RetrySettings, named_s
from ragworks.protocols import Clock
from ragworks.settings import EndpointSettings
from ragworks.text.tokens import words
from ragworks.types import TextKind, Vectors

log = structlog.get_logger("ragworks.models")

BACKOFF = RetrySettings(base_delay_s=0.5, max_delay_s=30.0)
MAX_RETRY_AFTER_S = 3600.0
REFUSED = (400, 413, 422)
"""What the texts are to blame for. 500 may be their doing too: llama.cpp answers it to a text that is too long."""
HINTS = {
    401: "; check embeddings_service.endpoint.api_key, or OPENAI_API_KEY",
    403: "; check what embeddings_service.endpoint.api_key may do",
    404: "; check embeddings_service.endpoint.model and urls, which usually end in /v1",
}
MENDED_WITHIN_S = 2.0
"""The longest pause after an answer that HINTS knows: nothing recovers there by being left alone, and once the key is
mended, a question that waits 5 s must not fail by the old reason."""
MESSAGE_CHARACTERS = 300
LARGE_ANSWER = 64 * 1024
"""Bytes from which an answer is read in a thread; 100 vectors of 1,536 numbers hold the event loop for 60 ms."""


class _Failed(Exception):
    """One endpoint gave no usable answer. ``retry_after_s`` is set if it named a time; ``suspect`` as in the error.

    ``hint`` says which setting may be wrong.
    """

    def __init__(
        self, reason: str, retry_after_s: float | None = None, *, suspect: bool = False, hint: str = ""
    ) -> None:
        super().__init__(reason + hint)
        self.retry_after_s, self.suspect, self.hint = retry_after_s, suspect, hint


class OpenAIEmbedder:
    """POST {url}/embeddings. A request goes to the endpoint with the fewest in flight; one that fails is left out for
    a while, and its request tried at the others at once.

    The fingerprint names the model, its dimension and the prefixes, but no URL: two servers of one model agree. Nor is
    the cut of long texts part of it: vectors of a shorter and a longer beginning can be compared.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        prefixes: Mapping[TextKind, str],
        clock: Clock,
        rng: Random,
        backoff: RetrySettings = BACKOFF,
    ) -> None:
        self.name, self.max_bytes = settings.model, settings.max_text_bytes
        self.dimension = settings.dimension
        self._settings, self._prefixes, self._backoff = settings, prefixes, backoff
        self._clock, self._rng = clock, rng
        self._urls = [url.rstrip("/") for url in settings.urls]
        self._states = [endpoints.EndpointState() for _ in self._urls]
        self._last_failure = ""
        self._http: httpx.AsyncClient | None = None

    @property
    def fingerprint(self) -> str:
        prefixes = f"{self._prefixes['question']}\0{self._prefixes['passage']}".encode()
        return f"{self.name}:{self.dimension}:{hashlib.blake2b(prefixes, digest_size=4).hexdigest()}"

    async def open(self) -> None:
        """Ask for one vector. With the dimension in the settings, an endpoint that is not up yet is no obstacle."""
        key = self._settings.api_key
        self._http = httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=None)
        try:
            await self._prove()
        except BaseException:  # also when cancelled: nobody else would close it
            await self.close()
            raise

    async def _prove(self) -> None:
        expected, self.dimension = self.dimension, 0
        try:
            vector = (await self.embed(["ragworks"], "question"))[0]
        except EmbeddingFailed as error:
            raise CannotStart(f"embedding model {self.name} does not work: {error}") from error
        except EndpointUnavailable:
            if not expected:
                raise
            self.dimension = expected
            return
        self.dimension = len(vector)
        if expected not in (0, self.dimension):
            raise CannotStart(
                f"embeddings_service.endpoint.dimension must be {self.dimension}, which {self.name} answers, found "
                f"{expected}; mend the setting, or the endpoint if another model runs there"
            )
        if not np.isclose(np.linalg.norm(vector), 1.0, atol=1e-3):
            raise CannotStart(f"embedding model {self.name} answers vectors that are zero or not finite")

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    def lengths(self, texts: Sequence[str], kind: TextKind) -> list[int]:
        """Words and signs: the model's tokenizer is not here."""
        return [len(words(self._prefixes[kind] + text)) for text in texts]

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        inputs = [self._prefixes[kind] + text for text in texts]
        tried: dict[int, _Failed] = {}
        while inputs:
            choice = endpoints.choose(self._states, self._clock.monotonic(), tried)
            if choice.place is None:
                asked = all(failure.retry_after_s is not None for failure in tried.values())
                suspect = bool(tried) and all(failure.suspect for failure in tried.values())
                raise EndpointUnavailable(self._last_failure, choice.wait_s, asked=asked, suspect=suspect)
            try:
                return await self._ask(choice.place, inputs)
            except _Failed as failure:
                tried[choice.place] = failure
                self._leave_out(choice.place, failure)
        return np.zeros((0, self.dimension), np.float32)

    async def _ask(self, place: int, inputs: Sequence[str]) -> Vectors:
        with self._in_flight(place):
            try:
                vectors = await self._post(self._urls[place], inputs)
            except EmbeddingFailed:  # it answered: there is nothing wrong with the endpoint
                self._states[place] = endpoints.answered(self._states[place])
                raise
        self._states[place] = endpoints.answered(self._states[place])
        return vectors

    @contextmanager
    def _in_flight(self, place: int) -> Iterator[None]:
        self._states[place] = endpoints.started(self._states[place])
        try:
            yield
        finally:
            self._states[place] = endpoints.ended(self._states[place])

    def _leave_out(self, place: int, failure: _Failed) -> None:
        now, before = self._clock.monotonic(), self._states[place]
        state = endpoints.failed(self._backoff_after(failure), before, now, self._rng, failure.retry_after_s)
        self._states[place] = state
        self._last_failure = str(failure)
        if before.out_until <= now:
            log.warning(
                "endpoint_left_out",
                action="endpoint_left_out",
                url=self._urls[place],
                reason=str(failure),
                failures=state.failures,
                pause_s=round(state.out_until - now, 3),
            )

    def _backoff_after(self, failure: _Failed) -> RetrySettings:
        most_s = self._backoff.max_delay_s
        if failure.suspect:  # it is up, and looking for the text that makes it fail takes several tries
            most_s = self._backoff.base_delay_s
        elif failure.hint:
            most_s = min(most_s, MENDED_WITHIN_S)
        return replace(self._backoff, max_delay_s=most_s)

    async def _post(self, url: str, inputs: Sequence[str]) -> Vectors:
        if self._http is None:
            raise _Failed(f"{url} was not opened, or is closed")
        # base64 because it is a fifth of the bytes, and because OpenAI's own client asks for it, so servers know it.
        body = {"model": self.name, "input": list(inputs), "encoding_format": "base64"}
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                response = await self._http.post(f"{url}/embeddings", json=body)
        except TimeoutError as error:
            raise _Failed(f"{url} did not answer within {self._settings.timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise _Failed(f"{url} cannot be asked ({type(error).__name__}: {error})") from error
        if response.status_code == 200:
            if len(response.content) < LARGE_ANSWER:
                return self._rows(url, response.content, len(inputs))
            return await asyncio.to_thread(self._rows, url, response.content, len(inputs))
        said = f"{url} answered {response.status_code}: {self._message(response)}"
        if response.status_code in REFUSED:
            raise EmbeddingFailed(said)
        named = named_s(response.headers.get("Retry-After", ""), self._clock.now())
        pause_s = None if named is None else min(named, MAX_RETRY_AFTER_S)
        raise _Failed(said, pause_s, suspect=response.status_code == 500, hint=HINTS.get(response.status_code, ""))

    def _rows(self, url: str, answer: bytes, count: int) -> Vectors:
        """The answer's vectors in the order of the texts. An answer that may be about other texts is none at all."""
        try:
            data = json.loads(answer, object_hook=_with_numbers)["data"]
            found = {int(one["index"]): one["embedding"] for one in data}
            order = sorted(int(one["index"]) for one in data)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            said = f"{type(error).__name__}: {error}"
            raise _Failed(f"{url} answered 200 with what are no embeddings ({said})") from error
        if order != list(range(count)):
            raise _Failed(
                f"{url} answered {len(order)} vectors for {count} texts, with the indices {_shortened(order)}: which "
                "text is whose cannot be told"
            )
        sizes = {len(row) for row in found.values()}
        if len(sizes) != 1 or (self.dimension and sizes != {self.dimension}) or sizes == {0}:
            expected = self.dimension or "any one number of"
            raise _Failed(
                f"{url} answered vectors of {', '.join(map(str, sorted(sizes)))} dimensions where {expected} were "
                f"expected: is {self.name} the model that runs there?"
            )
        return _unit(np.vstack([found[index] for index in order]))

    def _message(self, response: httpx.Response) -> str:
        """What the endpoint says of its error, on one line, without the key that it may repeat."""
        try:
            body = response.json()
            error = body.get("error", body) if isinstance(body, dict) else body
            text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        except ValueError:
            text = response.text
        if key := self._settings.api_key:
            text = text.replace(key, "(hidden)")
        return " ".join(text.split())[:MESSAGE_CHARACTERS] or response.reason_phrase


def _with_numbers(item: dict[str, Any]) -> dict[str, Any]:
    """For json.loads: after each vector, and only then, the interpreter lets other threads go on."""
    if "embedding" in item:
        item["embedding"] = _numbers(item["embedding"])
    return item


def _numbers(embedding: Any) -> NDArray[np.float64]:
    """A vector as it came, in base64 or as a list; null becomes NaN, which nobody accepts."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float64)
    row = np.asarray(embedding, dtype=np.float64)
    if row.ndim != 1:
        raise ValueError(f"an embedding must be a list of numbers, found {str(embedding)[:40]}")
    return row


def _unit(rows: NDArray[np.float64]) -> Vectors:
    """Rows of unit length; a row that is zero or not finite stays what it is, and is refused by who checks."""
    with np.errstate(all="ignore"):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        usable = np.isfinite(norms) & (norms > 0)
        return np.where(usable, rows / np.where(usable, norms, 1.0), rows).astype(np.float32)


def _shortened(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:8]))
    return f"{shown}, …" if len(indices) > 8 else shown or "none"
