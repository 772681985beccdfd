"""One document, read: the path from bytes to chunks as it runs in a worker process, and the Reader in front of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ragworks.protocols import OnStage
from ragworks.text.chunk import chunk
from ragworks.text.clean import clean
from ragworks.text.enrich import enrich
from ragworks.text.parse import parse
from ragworks.text.tokens import Tokenize, wordpiece, words
from ragworks.types import ReadDocument, Stage, Task

Result = TypeVar("Result")


class Pool(Protocol):
    """Child processes that run one function each at a time.

    ``function`` is called with ``args`` and, last, a callable that sends a value to ``on_message`` here. The call ends
    with its result or its error; a child that takes longer than ``limit_s``, holds more than ``max_memory_bytes`` or
    dies is replaced, and the call raises ReadTimeout, ReadMemoryExceeded or WorkerCrashed. Cancelling kills the child.
    """

    async def run(
        self,
        function: Callable[..., Result],
        *args: Any,
        limit_s: float,
        max_memory_bytes: int,
        on_message: Callable[[Any], None] | None = None,
    ) -> Result: ...


class PooledReader:
    """Reads documents in the children of a pool, so that a bad one costs itself and nothing else.

    ``path_of`` gives the path of a content hash, ``tokenizer_path`` that of a model's ``tokenizer.json``; None counts
    words.
    """

    def __init__(
        self,
        pool: Pool,
        path_of: Callable[[str], str],
        *,
        tokenizer_path: Callable[[], str | None],
        chunk_tokens: int,
        limit_s: float,
        max_memory_bytes: int,
    ) -> None:
        self._pool = pool
        self._path_of = path_of
        self._tokenizer_path = tokenizer_path
        self._chunk_tokens = chunk_tokens
        self._limit_s = limit_s
        self._max_memory_bytes = max_memory_bytes

    async def read(self, task: Task, on_stage: OnStage) -> ReadDocument:
        """The task's document as chunks. Raises a DocumentError when it cannot be read."""
        return await self._pool.run(
            read_document,
            self._path_of(task.content_hash),
            task.name,
            task.media_type,
            task.title,
            self._tokenizer_path(),
            self._chunk_tokens,
            limit_s=self._limit_s,
            max_memory_bytes=self._max_memory_bytes,
            on_message=lambda stage: on_stage(Stage(stage)),
        )


def read_document(
    path: str,
    name: str,
    media_type: str | None,
    title: str | None,
    tokenizer_path: str | None,
    chunk_tokens: int,
    on_stage: Callable[[str], None],
) -> ReadDocument:
    """The file at ``path``: parsed, cleaned, enriched, cut to chunks. ``title`` overrides the document's own.

    Raises a DocumentError. Blocks; ``on_stage`` hears each stage as it begins.
    """
    on_stage(Stage.PARSING)
    parsed = parse(Path(path).read_bytes(), name, media_type)
    on_stage(Stage.CLEANING)
    parsed = clean(parsed)
    on_stage(Stage.ENRICHING)
    parsed = enrich(parsed, name)
    on_stage(Stage.CHUNKING)
    called = title or parsed.title or name
    chunks = chunk(parsed, called, _tokenize(tokenizer_path), chunk_tokens)
    return ReadDocument(
        parsed.text, called, parsed.media_type, chunks, parsed.pages, parsed.properties, parsed.warnings
    )


@lru_cache(maxsize=2)
def _tokenize(tokenizer_path: str | None) -> Tokenize:
    """One tokenizer per process: loading takes longer than reading most documents."""
    return wordpiece(Path(tokenizer_path).read_text(encoding="utf-8")) if tokenizer_path else words
