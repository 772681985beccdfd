"""Group commit: writes share a transaction, and still stand or fall alone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragworks.errors import DataFolderDamaged, DataFolderNewer, NotReady
from ragworks.storage.sqlite import Database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "test.db")
    opened.open()
    await opened.write(lambda db: db.execute("CREATE TABLE seen (value INTEGER UNIQUE)"))
    yield opened
    opened.close()


async def values(database: Database) -> list[int]:
    return await database.read(lambda db: [row[0] for row in db.execute("SELECT value FROM seen ORDER BY value")])


def insert(value: int):
    return lambda db: db.execute("INSERT INTO seen VALUES (?)", (value,)).rowcount


async def grouped(database: Database, *works, alone: tuple[int, ...] = ()) -> list[object]:
    """The outcomes of writes that all wait behind one that holds the writer."""
    gate = threading.Event()
    first = asyncio.ensure_future(database.write(lambda db: gate.wait(5)))
    await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(database.write(work, alone=at in alone)) for at, work in enumerate(works)]
    await asyncio.sleep(0)
    gate.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_write_that_fails_changes_nothing_and_spares_its_neighbours(database: Database) -> None:
    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO seen VALUES (50)")
        raise ValueError("no")

    outcomes = await grouped(database, insert(1), half, insert(1), insert(2))
    assert [type(one).__name__ for one in outcomes] == ["int", "ValueError", "IntegrityError", "int"]
    assert await values(database) == [1, 2]


async def test_waiting_writes_share_one_transaction_and_one_that_must_be_alone_does_not(database: Database) -> None:
    seen: list[int] = []

    def depth(db: sqlite3.Connection) -> None:
        other = sqlite3.connect(database.path)
        seen.append(other.execute("SELECT count(*) FROM seen").fetchone()[0])
        other.close()

    await grouped(database, insert(1), depth, insert(2), depth, depth, alone=(4,))
    assert seen == [0, 0, 2]


async def test_writes_keep_their_order(database: Database) -> None:
    order: list[int] = []
    await grouped(database, *(lambda db, at=at: order.append(at) for at in range(200)), alone=(3, 100))
    assert order == list(range(200))


async def test_after_closing_nobody_waits_for_ever(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    database.open()
    database.close()
    with pytest.raises(NotReady, match="closed"):
        await database.write(insert(1))


async def test_a_file_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "test.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(DataFolderNewer, match="format 99"):
        Database(tmp_path / "test.db").open()


async def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    """At 3 a.m. "file is not a database" says neither which file nor what to do."""
    (tmp_path / "test.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(DataFolderDamaged, match=r"test\.db is damaged .* restore a copy"):
        Database(tmp_path / "test.db").open()


async def test_every_connection_syncs_in_full_and_logs_ahead(database: Database) -> None:
    pragmas = lambda db: [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]  # noqa: E731
    assert await database.write(pragmas) == ["wal", 2]
    assert await database.read(pragmas) == ["wal", 2]
