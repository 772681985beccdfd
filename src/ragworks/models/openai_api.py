"""Embeddings from OpenAI-compatible endpoints: one model, at one or several base URLs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragworks import tracing
from ragworks.control_protocols import EndpointFailed, Endpoints
from ragworks.errors import CannotStart, EmbeddingFailed, EndpointUnavailable
from ragworks.models.endpoints import EndpointClient, RequestRefused
from ragworks.protocols import Clock
from ragworks.settings import EndpointSettings
from ragworks.text.tokens import words
from ragworks.types import TextKind, Vectors

LARGE_ANSWER = 64 * 1024
"""Bytes from which an answer is read in a thread; 100 vectors of 1,536 numbers hold the event loop for 60 ms."""


class OpenAIEmbedder:
    """POST {url}/embeddings, at whichever of the endpoints.

    The fingerprint names the model, its dimension and the prefixes, but no URL: two servers of one model agree. Nor is
    the cut of long texts part of it: vectors of a shorter and a longer beginning can be compared.

    ``on_tokens`` hears what each request cost, of an endpoint that says so. It must return at once and not raise.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        prefixes: Mapping[TextKind, str],
        endpoints: Endpoints,
        clock: Clock,
        on_tokens: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        self.name, self.max_bytes = settings.model, settings.max_text_bytes
        self.dimension = settings.dimension
        self._prefixes, self._endpoints, self._on_tokens = prefixes, endpoints, on_tokens
        self._client = EndpointClient("embeddings_service.endpoint", settings.api_key, settings.timeout_s, clock)

    @property
    def fingerprint(self) -> str:
        prefixes = f"{self._prefixes['question']}\0{self._prefixes['passage']}".encode()
        return f"{self.name}:{self.dimension}:{hashlib.blake2b(prefixes, digest_size=4).hexdigest()}"

    async def open(self) -> None:
        """Ask for one vector. With the dimension in the settings, an endpoint that is not up yet is no obstacle."""
        self._client.open()
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
        await self._client.close()

    def lengths(self, texts: Sequence[str], kind: TextKind) -> list[int]:
        """Words and signs: the model's tokenizer is not here."""
        return [len(words(self._prefixes[kind] + text)) for text in texts]

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        inputs = [self._prefixes[kind] + text for text in texts]
        return await self._endpoints.call(lambda url: self._post(url, inputs), cost=float(sum(map(len, inputs))))

    async def _post(self, url: str, inputs: Sequence[str]) -> Vectors:
        # base64 because it is a fifth of the bytes, and because OpenAI's own client asks for it, so servers know it.
        body = {"model": self.name, "input": inputs, "encoding_format": "base64"}
        try:
            answer = await self._client.post(url, "/embeddings", body)
        except RequestRefused as error:
            raise EmbeddingFailed(str(error)) from error
        if len(answer) < LARGE_ANSWER:
            vectors, tokens = self._rows(url, answer, len(inputs))
        else:
            vectors, tokens = await asyncio.to_thread(self._rows, url, answer, len(inputs))
        if tokens is not None:
            self._on_tokens(tokens)
            tracing.note("ragworks.batch.tokens", tokens)
        return vectors

    def _rows(self, url: str, answer: bytes, count: int) -> tuple[Vectors, int | None]:
        """The answer's vectors in the order of the texts, and its tokens. An answer that may be about other texts is
        none at all."""
        try:
            body = json.loads(answer, object_hook=_with_numbers)
            data = body["data"]
            found = {int(one["index"]): one["embedding"] for one in data}
            order = sorted(int(one["index"]) for one in data)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            said = f"{type(error).__name__}: {error}"
            raise EndpointFailed(f"{url} answered 200 with what are no embeddings ({said})") from error
        if order != list(range(count)):
            raise EndpointFailed(
                f"{url} answered {len(order)} vectors for {count} texts, with the indices {_shortened(order)}: which "
                "text is whose cannot be told"
            )
        sizes = {len(row) for row in found.values()}
        if len(sizes) != 1 or (self.dimension and sizes != {self.dimension}) or sizes == {0}:
            expected = self.dimension or "any one number of"
            raise EndpointFailed(
                f"{url} answered vectors of {', '.join(map(str, sorted(sizes)))} dimensions where {expected} were "
                f"expected: is {self.name} the model that runs there?"
            )
        return _unit(np.vstack([found[index] for index in order])), _tokens(body)


def _tokens(body: Mapping[str, Any]) -> int | None:
    """What the request cost, if the endpoint says so in the form that OpenAI gave it."""
    usage = body.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return tokens if type(tokens) is int and tokens >= 0 else None


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
