"""A process that works on a data folder and kills itself at a named point: ``python dying.py DATA POINT``.

It prints what it was promised, so that whoever started it knows what must be there after a restart.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ragworks.app import App, build
from ragworks.settings import Settings, load
from ragworks.storage import documents, indexes, migrations, sqlite, versions
from ragworks.storage.blobs import FileBlobs
from ragworks.storage.documents import SqliteRows
from ragworks.storage.indexes import DerivedIndexes, IndexFolder
from ragworks.storage.jobs import SqliteJobs
from ragworks.storage.sqlite import Database
from ragworks.storage.vector_index import HnswIndex
from ragworks.storage.word_index import Bm25Index
from ragworks.types import Upload

ID = "note"
OLD = "\n\n".join(f"Old paragraph {n} speaks of brass bells and of how often they rang." for n in range(30))
NEW = "\n\n".join(f"New paragraph {n} speaks of copper wires and of how far they reach." for n in range(150))
"""Enough paragraphs for three batches of chunks, each staged in its own transaction."""

acknowledged = threading.Event()


@dataclass(frozen=True)
class Point:
    """Where to die: before or after a method. ``promised``: only once the client has its acknowledgement, or, of a
    delete or drop, once it is committed.

    ``action``: what the process does meanwhile. ``inside``: the method that must have been entered first. ``after``:
    the point at which a process before it died.
    """

    owner: Any
    method: str
    when: Literal["before", "after"]
    promised: bool = True
    action: Literal["replace", "delete", "drop", "start"] = "replace"
    inside: tuple[Any, str] | None = None
    after: str = "between staging and publishing"


COLLECT = SqliteRows, "collect"
POINTS = {
    "while the bytes have no name yet": Point(os, "replace", "before", promised=False),
    "while the name of the bytes is not synced": Point(os, "replace", "after", promised=False),
    "between the bytes and their row": Point(FileBlobs, "put", "after", promised=False),
    "between the row and its commit": Point(sqlite, "_saved", "after", promised=False),
    "between the commit and the acknowledgement": Point(SqliteJobs, "accept", "after", promised=False),
    "after a claim": Point(SqliteJobs, "claim", "after"),
    "with a version that has no chunks yet": Point(SqliteRows, "begin", "after"),
    "with a version that is staged by half": Point(SqliteRows, "stage", "after"),
    "between staging and publishing": Point(SqliteRows, "publish", "before"),
    "inside the transaction that publishes": Point(versions, "change", "after"),
    "between publishing and indexing": Point(SqliteRows, "publish", "after"),
    "with vectors indexed and words not": Point(Bm25Index, "apply", "before"),
    "with words indexed and their stamp not": Point(Bm25Index, "apply", "after"),
    "with an index saved beside the former one": Point(indexes, "sync_folder", "after"),
    "with an index that is half saved": Point(HnswIndex, "save", "after"),
    "with the changes of the replaced version pruned": Point(Database, "write", "after", inside=(SqliteRows, "prune")),
    "between indexing and finishing": Point(DerivedIndexes, "apply", "after"),
    "with the replaced version collected by half": Point(Database, "write", "after", inside=COLLECT),
    "with the bytes of the replaced version gone": Point(FileBlobs, "remove", "after"),
    "before the last word of a task": Point(SqliteJobs, "finish", "before"),
    "after the last word of a task": Point(SqliteJobs, "finish", "after"),
    "inside the transaction of a delete": Point(versions, "change", "after", promised=False, action="delete"),
    "between a delete and its commit": Point(sqlite, "_saved", "after", promised=False, action="delete"),
    "with vectors deleted and words not": Point(Bm25Index, "apply", "before", action="delete"),
    "with words deleted and their stamp not": Point(Bm25Index, "apply", "after", action="delete"),
    "between a deleted document's indexes and its rows": Point(SqliteRows, "release", "before", action="delete"),
    "between a delete and its indexes": Point(SqliteRows, "delete_document", "after", action="delete"),
    "with the bytes of a deleted document gone": Point(FileBlobs, "remove", "after", action="delete"),
    "with a deleted document collected by half": Point(Database, "write", "after", action="delete", inside=COLLECT),
    "between a drop and its commit": Point(sqlite, "_saved", "after", promised=False, action="drop"),
    "between a drop and its indexes": Point(SqliteRows, "drop_collection", "after", action="drop"),
    "with the indexes of a dropped collection gone": Point(IndexFolder, "remove", "after", action="drop"),
    "with a dropped collection collected by half": Point(Database, "write", "after", action="drop", inside=COLLECT),
}
GARBAGE = {
    "while collecting what a dead server staged": Point(Database, "write", "after", action="start", inside=COLLECT),
    "inside the transaction of a recovery": Point(sqlite, "_saved", "after", action="start"),
    "after handing back what a dead server held": Point(SqliteJobs, "recover", "after", action="start"),
    "while removing bytes that nobody needs": Point(
        FileBlobs, "remove", "after", action="start", after="between publishing and indexing"
    ),
    "while an index catches up": Point(
        Bm25Index, "apply", "before", action="start", after="between publishing and indexing"
    ),
    "between an index that caught up and its stamp": Point(
        Bm25Index, "apply", "after", action="start", after="between publishing and indexing"
    ),
}
MIGRATION = {
    "with a format that is changed and not stamped": Point(migrations, "_statements", "after", action="start"),
    "with a format that is changed": Point(sqlite, "migrate", "after", action="start"),
}
EVERY = {**POINTS, **GARBAGE, **MIGRATION}


def settings(data: str) -> Settings:
    return load(
        environ={},
        server={"data": data},
        embeddings_service={"model_name": "hashing"},
        document_processor={"workers": 1, "chunk_tokens": 32},
    )


def arm(point: Point) -> None:
    """Put a death before or after the point's method; with ``inside``, as soon as that one is entered."""
    if point.inside is None:
        arm_now(point)
        return
    owner, name = point.inside
    entered: Callable[..., Any] = getattr(owner, name)

    async def arming(*args: Any, **options: Any) -> Any:
        arm_now(point)
        return await entered(*args, **options)

    setattr(owner, name, arming)


def arm_now(point: Point) -> None:
    original: Callable[..., Any] = getattr(point.owner, point.method)

    def die() -> None:
        if point.promised and point.action == "replace":
            acknowledged.wait()
        os.kill(os.getpid(), signal.SIGKILL)

    async def dying_async(*args: Any, **options: Any) -> Any:
        if point.when == "before":
            await asyncio.to_thread(die)
        result = await original(*args, **options)
        await asyncio.to_thread(die)
        return result

    def dying(*args: Any, **options: Any) -> Any:
        if point.when == "before":
            die()
        result = original(*args, **options)
        die()
        return result

    setattr(point.owner, point.method, dying_async if inspect.iscoroutinefunction(original) else dying)


async def main(data: str, point: Point) -> None:
    if point.action == "start":
        arm(point)
    app = build(settings(data))
    async with app:
        if point.action == "start":
            return
        arm(point)
        if point.action == "replace":
            await replace(app)
        elif point.action == "delete":
            await app.vector_store.delete_document("default", ID)
        else:
            await app.vector_store.drop_collection("default")


async def replace(app: App) -> None:
    receipt = await app.document_processor.process_documents(
        "default", [Upload(ID, ID, NEW.encode(), media_type="text/plain")]
    )
    sys.stdout.write("accepted\n")
    sys.stdout.flush()
    acknowledged.set()
    await app.document_processor.finished(receipt.processing_job_id)


if __name__ == "__main__":
    documents.BATCH = 20  # so that collecting a version takes several transactions
    indexes.SAVE_EVERY = 1
    asyncio.run(main(sys.argv[1], EVERY[sys.argv[2]]))
