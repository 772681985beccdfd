"""One document, read: the path from bytes to chunks as it runs in a worker process, and the Reader in front of it."""

from __future__ import annotations

import asyncio
import os
import pickle
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from ragworks.errors import StorageFull
from ragworks.protocols import OnStage
from ragworks.text.names import stem
from ragworks.text.parts import parts
from ragworks.text.tokens import Tokenize, wordpiece, words
from ragworks.types import Part, ReadDocument, Stage, Task, TitleFrom

Result = TypeVar("Result")

Sign = tuple[Stage, float]
"""What a worker says while it reads: its stage, and how many seconds more it may take, since a page was recognised."""

RECOGNISED_PAGE_S = 15.0  # a dense page takes 3 to 5 seconds of one core, which may be shared


class Pool(Protocol):
    """Child processes that run one function each at a time.

    ``function`` is called with ``args`` and, last, a callable that sends a value to ``on_message`` here, which may
    answer with seconds that the call may take beyond its limit. The call ends with its result or its error; a child
    that takes longer than ``limit_s``, holds more than ``max_memory_bytes`` or dies is replaced, and the call raises
    ReadTimeout, ReadMemoryExceeded or WorkerCrashed. Cancelling kills the child.
    """

    async def run(
        self,
        function: Callable[..., Result],
        *args: Any,
        limit_s: float,
        max_memory_bytes: int,
        on_message: Callable[[Any], float | None] | None = None,
    ) -> Result: ...


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What reading one document may take; time grows with its size, since a long text takes long to cut."""

    base_s: float
    per_megabyte_s: float
    memory_bytes: int

    def seconds(self, size_bytes: int) -> float:
        return self.base_s + self.per_megabyte_s * size_bytes / 1e6


class PooledReader:
    """Reads documents in the children of a pool, so that a bad one costs itself and nothing else.

    ``path_of`` gives the path of a content hash, ``tokenizer_path`` that of a model's ``tokenizer.json``; None counts
    words. What was read waits in a file below ``spool_folder``: the worker is free for the next document at once, and
    no process holds more of it than a part.
    """

    def __init__(
        self,
        pool: Pool,
        path_of: Callable[[str], str],
        *,
        tokenizer_path: Callable[[], str | None],
        chunk_tokens: int,
        limits: ReadLimits,
        spool_folder: Path,
    ) -> None:
        self._pool = pool
        self._path_of = path_of
        self._tokenizer_path = tokenizer_path
        self._chunk_tokens = chunk_tokens
        self._limits = limits
        self._spool_folder = spool_folder

    @asynccontextmanager
    async def read(self, task: Task, on_stage: OnStage) -> AsyncIterator[ReadDocument]:
        """The task's document as chunks. Raises a DocumentError when it cannot be read, StorageFull."""

        def heard(sign: Sign) -> float:
            stage, more_s = sign
            on_stage(stage)
            return more_s

        spool, name = await asyncio.to_thread(_spool, self._spool_folder)
        with spool:
            try:
                document = await self._pool.run(
                    read_document,
                    self._path_of(task.content_hash),
                    name,
                    task.name,
                    task.media_type,
                    task.title,
                    self._tokenizer_path(),
                    self._chunk_tokens,
                    limit_s=self._limits.seconds(task.size_bytes),
                    max_memory_bytes=self._limits.memory_bytes,
                    on_message=heard,
                )
            finally:
                os.unlink(name)  # the open file stays as long as somebody reads it, whoever is killed
            yield replace(document, parts=unspooled(spool))


def read_document(
    path: str,
    spool: str,
    name: str,
    media_type: str | None,
    title: str | None,
    tokenizer_path: str | None,
    chunk_tokens: int,
    report: Callable[[Sign], None],
) -> ReadDocument:
    """The file at ``path``: parsed, cleaned, enriched, cut to chunks. ``title`` overrides the document's own.

    The parts go to the file ``spool`` one after another, not into the result. Raises a DocumentError, StorageFull.
    Blocks; ``report`` hears of each stage as it begins, and of what takes long within it.
    """
    # Late: only workers need the parsers, which take a server 0.4 s to import.
    from ragworks.text.chunk import chunk
    from ragworks.text.clean import clean
    from ragworks.text.enrich import enrich
    from ragworks.text.ocr import on_recognised
    from ragworks.text.parse import parse

    report((Stage.PARSING, 0.0))
    with on_recognised(lambda: report((Stage.PARSING, RECOGNISED_PAGE_S))):
        parsed = parse(Path(path).read_bytes(), name, media_type)
    report((Stage.CLEANING, 0.0))
    parsed = clean(parsed)
    report((Stage.ENRICHING, 0.0))
    parsed = enrich(parsed, name)
    report((Stage.CHUNKING, 0.0))
    own: TitleFrom = "name" if parsed.title in (None, stem(name)) else "document"
    document = ReadDocument(
        title or parsed.title or name,
        "submission" if title else own,
        parsed.media_type,
        0,
        (),
        parsed.pages,
        parsed.properties,
        parsed.warnings,
    )
    chunks = chunk(parsed, document.embedded_title, _tokenize(tokenizer_path), chunk_tokens)
    count = _write(spool, parts(parsed.text, chunks), lambda: report((Stage.CHUNKING, 0.0)))
    return replace(document, chunk_count=count)


def _spool(folder: Path) -> tuple[BinaryIO, str]:
    """A new file, open to read, and its name. Raises StorageFull."""
    try:
        handle, name = tempfile.mkstemp(prefix="read-", dir=folder)
    except OSError as error:
        raise StorageFull(f"cannot write below {folder}: {error.strerror}") from error
    return open(handle, "rb"), name


def _write(spool: str, made: Iterator[Part], on_part: Callable[[], None]) -> int:
    """The number of chunks in the parts, which are in the file then."""
    count = 0
    try:
        with Path(spool).open("wb") as file:
            for part in made:
                if count:
                    on_part()
                pickle.dump(part, file, protocol=pickle.HIGHEST_PROTOCOL)
                count += len(part.chunks)
    except OSError as error:
        raise StorageFull(f"cannot write what was read to {spool}: {error.strerror}") from error
    return count


def unspooled(spool: BinaryIO) -> Iterator[Part]:
    """The parts that ``read_document`` wrote, each once."""
    while True:
        try:
            yield pickle.load(spool)
        except EOFError:
            return


@lru_cache(maxsize=2)
def _tokenize(tokenizer_path: str | None) -> Tokenize:
    """One tokenizer per process: loading takes longer than reading most documents."""
    return wordpiece(Path(tokenizer_path).read_text(encoding="utf-8")) if tokenizer_path else words
