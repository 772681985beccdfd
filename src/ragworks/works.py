"""ragworks from Python: the same services as the server's, in this process.

async with ragworks.open("./.ragworks") as works:
    await works.ingest("docs")
    print((await works.ask("How long is the warranty?")).answer)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from ragworks.app import App, build
from ragworks.errors import CollectionExists, CollectionNotFound, InvalidInput
from ragworks.finding import find
from ragworks.implementations import Factory
from ragworks.logs import configure
from ragworks.settings import load
from ragworks.types import Answer, Checkup, Document, JobDocument, Mode, Page, SearchResult, Turn, Upload

DEFAULT = "default"
BATCH = 64  # documents of one submission; it waits until the queue has room for them


class Works:
    """What can be done with a data folder. Collections other than ``default`` are made on first use."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def ingest(
        self, *paths: str | Path, collection: str = DEFAULT, metadata: Mapping[str, Any] | None = None
    ) -> list[JobDocument]:
        """Index files, and folders with all below them: what became of each, once all have ended.

        Raises InvalidInput when there is nothing to ingest.
        """
        home = Path(self._app.settings.server.data)
        sources, _ = await asyncio.to_thread(find, [Path(path) for path in paths], home)
        if not sources:
            raise InvalidInput(f"no files below {', '.join(map(str, paths))}; name a file, or a folder that holds some")
        uploads = [
            Upload(one.name, one.name, str(one.path), metadata=metadata or {}, origin=one.origin) for one in sources
        ]
        return await self._submit(collection, uploads)

    async def add(
        self, text: str, *, id: str, title: str | None = None, collection: str = DEFAULT, **metadata: Any
    ) -> JobDocument:
        """Index one text under ``id``: what became of it, once it can be found."""
        upload = Upload(id, id, text.encode(), title=title, metadata=metadata, media_type="text/plain")
        return (await self._submit(collection, [upload]))[0]

    async def search(
        self,
        query: str,
        *,
        collection: str = DEFAULT,
        top_k: int = 10,
        filter: Mapping[str, Any] | None = None,
        mode: Mode = "hybrid",
        history: Sequence[Turn] = (),
    ) -> SearchResult:
        """The best passages, best first."""
        return await self._app.search(collection, query, top_k=top_k, filter=filter, mode=mode, history=history)

    async def ask(self, question: str, *, collection: str = DEFAULT, history: Sequence[Turn] = ()) -> Answer:
        """The answer with its citations; ``abstained`` when the documents do not hold one."""
        async for piece in self.stream(question, collection=collection, history=history):
            if isinstance(piece, Answer):
                return piece
        raise AssertionError("an answer always ends with an Answer")

    def stream(
        self, question: str, *, collection: str = DEFAULT, history: Sequence[Turn] = ()
    ) -> AsyncIterator[str | Answer]:
        """The answer's text in pieces, then the whole Answer."""
        return self._app.ask(collection, question, history=history)

    async def documents(self, collection: str = DEFAULT, limit: int = 100, after: str | None = None) -> Page[Document]:
        """The collection's documents in order of id."""
        return await self._app.vector_store.documents(collection, limit, after)

    async def delete(self, document_id: str, collection: str = DEFAULT) -> None:
        """Remove a document with everything that was derived from it."""
        await self._app.vector_store.delete_document(collection, document_id)

    async def checkup(self) -> Checkup:
        """Whether documents, chunks, vectors and words agree."""
        return await self._app.vector_store.checkup()

    async def _submit(self, collection: str, uploads: Sequence[Upload]) -> list[JobDocument]:
        await self._ensure(collection)
        processor = self._app.document_processor
        jobs = []
        for start in range(0, len(uploads), BATCH):
            receipt = await processor.process_documents(collection, uploads[start : start + BATCH])
            jobs.append(receipt.processing_job_id)
        return [document for job in jobs for document in (await processor.finished(job)).documents]

    async def _ensure(self, collection: str) -> None:
        try:
            await self._app.vector_store.collection(collection)
        except CollectionNotFound:
            with suppress(CollectionExists):
                await self._app.vector_store.create_collection(collection)


@asynccontextmanager
async def open(
    data: str | Path = "./.ragworks",
    *,
    config: str | None = None,
    implementations: Mapping[str, Factory] | None = None,
    **sections: Any,
) -> AsyncIterator[Works]:
    """The data folder, opened in this process; made if it is not there.

    ``sections`` override settings, as in ``open(embeddings_service={"threads": 1})``; ``implementations`` are factories
    by the name that ``replicas.implementation`` of a service calls them by. Raises DataFolderLocked while a server runs
    on the folder, InvalidSettings, ModelMissing.
    """
    settings = load(config, **{**sections, "server": {**sections.get("server", {}), "data": str(data)}})
    if not structlog.is_configured():
        configure(replace(settings.log, level="warning"))
    async with build(settings, implementations=implementations) as app:
        yield Works(app)
