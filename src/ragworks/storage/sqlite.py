"""One SQLite file: a writer thread, a few reader threads, and transactions as plain functions.

Writes that wait together share one ``BEGIN IMMEDIATE … COMMIT`` with ``synchronous=FULL`` (group commit), each inside a
savepoint of its own: when ``write`` returns, it is on disk, and a neighbour that failed has changed nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ragworks.errors import DataFolderDamaged, NotReady, StorageFull
from ragworks.storage.folder import sync_folder
from ragworks.storage.migrations import migrate

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

BUSY_TIMEOUT_S = 30.0
READERS = 3
GROUP = 64  # writes that may share a commit: its fsync costs a few milliseconds, most writes a tenth of one


@dataclass(frozen=True, slots=True)
class _Write:
    """A write that waits for its turn; ``alone`` if it must see nothing that is not committed."""

    work: Work[Any]
    done: Future[Any]
    alone: bool


class Database:
    """Transactions over one file. ``open`` before use, ``close`` after; both block and belong in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writes: SimpleQueue[_Write | None] = SimpleQueue()
        self._held: _Write | None = None
        self._closed = False
        self._writer = threading.Thread(target=self._write_loop, name="sqlite-writer", daemon=True)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader")
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []

    def open(self) -> None:
        """Create or migrate the file. Raises DataFolderNewer, StorageFull."""
        self._translated(migrate)
        sync_folder(self.path.parent)
        self._writer.start()

    def close(self) -> None:
        """Finish what waits, fold the log into the file, let go."""
        self._closed = True
        if self._writer.is_alive():
            self._writes.put(None)
            self._writer.join()
        while not self._writes.empty():  # a write that came just before the end
            if late := self._writes.get():
                late.done.set_exception(NotReady(f"the data folder {self.path.parent} is closed"))
        self._readers.shutdown()
        for connection in self._opened:
            connection.close()
        self._opened.clear()

    async def write(self, work: Work[T], *, alone: bool = False) -> T:
        """Run ``work`` in a durable transaction; nothing of it stays if it raises. Raises StorageFull.

        ``alone``: do not share the transaction, for work whose effect reaches beyond the database.
        """
        waiting = _Write(work, Future(), alone)
        if self._closed:
            raise NotReady(f"the data folder {self.path.parent} is closed")
        self._writes.put(waiting)
        result: T = await asyncio.wrap_future(waiting.done)
        return result

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` on one snapshot of the rows."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._snapshot, work)

    def _connection(self) -> sqlite3.Connection:
        made: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if made is None:
            # Each thread keeps its own connection; close() runs after the threads are gone.
            made = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            made.row_factory = sqlite3.Row
            made.execute("PRAGMA journal_mode=WAL")
            made.execute("PRAGMA synchronous=FULL")
            made.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
            self._local.connection = made
            self._opened.append(made)
        return made

    def _translated(self, work: Work[T]) -> T:
        try:
            return work(self._connection())
        except sqlite3.DatabaseError as error:
            raise translation(error, self.path) from error

    def _write_loop(self) -> None:
        while group := self._next_group():
            # A caller that was cancelled before its turn is left out; from here on its write goes through.
            taken = [one for one in group if one.done.set_running_or_notify_cancel()]
            try:
                results = self._translated(partial(_commit, works=[one.work for one in taken]))
            except Exception as error:  # the commit failed, so each write of the group did
                results = [error] * len(taken)
            for one, result in zip(taken, results, strict=True):
                if isinstance(result, Exception):
                    one.done.set_exception(translation(result, self.path))
                else:
                    one.done.set_result(result)

    def _next_group(self) -> list[_Write]:
        """The writes that wait now, in order; empty when the loop is to end."""
        first = self._held or self._writes.get()
        self._held = None
        if first is None or first.alone:
            return [first] if first else []
        group = [first]
        with contextlib.suppress(Empty):
            while len(group) < GROUP:
                following = self._writes.get_nowait()
                if following is None or following.alone:
                    self._put_back(following)
                    break
                group.append(following)
        return group

    def _put_back(self, following: _Write | None) -> None:
        if following is None:
            self._writes.put(None)  # it was the last: nothing comes after the end
        else:
            self._held = following

    def _snapshot(self, work: Work[T]) -> T:
        def snapshot(db: sqlite3.Connection) -> T:
            db.execute("BEGIN")
            try:
                return work(db)
            finally:
                db.execute("COMMIT")

        return self._translated(snapshot)


def translation(error: Exception, path: Path) -> Exception:
    """StorageFull where SQLite says that the disk of ``path`` is full or read-only, DataFolderDamaged where the file is
    no database any more; any other error as it is."""
    signs = ("disk is full", "readonly", "disk I/O", "unable to open")
    if isinstance(error, sqlite3.OperationalError) and any(sign in str(error) for sign in signs):
        return StorageFull(f"cannot write to {path.parent}: {error}; free space or make it writable")
    if any(sign in str(error) for sign in ("not a database", "malformed")):
        return DataFolderDamaged(
            f"the database {path} is damaged ({error}): restore a copy of the data folder, or move it away "
            "and ingest the documents anew"
        )
    return error


def _commit(db: sqlite3.Connection, works: list[Work[Any]]) -> list[Any]:
    """Each work's result, or the error that it raised after its own changes were undone."""
    db.execute("BEGIN IMMEDIATE")
    try:
        results = [_saved(db, work) for work in works]
        db.execute("COMMIT")
    except BaseException:  # whatever went wrong, the transaction must not stay open
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return results


def _saved(db: sqlite3.Connection, work: Work[Any]) -> Any:
    db.execute("SAVEPOINT one")
    try:
        result = work(db)
    except Exception as error:  # this write fails; its neighbours do not
        if not db.in_transaction:
            raise  # SQLite gave up the whole transaction, as it does when the disk is full
        db.execute("ROLLBACK TO one")
        db.execute("RELEASE one")
        return error
    db.execute("RELEASE one")
    return result
