"""Numbered steps, applied once, in order. ``PRAGMA user_version`` is the stamp of a data folder's format."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Callable
from importlib.resources import files

from ragworks.errors import DataFolderNewer

DEFAULT_COLLECTION = "default"


def _statements(db: sqlite3.Connection, file: str) -> None:
    for statement in files("ragworks.storage").joinpath(file).read_text(encoding="utf-8").split(";\n"):
        db.execute(statement)


def _first(db: sqlite3.Connection) -> None:
    _statements(db, "sqlite.sql")
    db.execute("INSERT INTO collections (name, created_at) VALUES (?, ?)", (DEFAULT_COLLECTION, time.time()))


def _second(db: sqlite3.Connection) -> None:
    _statements(db, "sqlite_2.sql")
    for (version,) in db.execute("SELECT id FROM versions").fetchall():
        (text,) = db.execute("SELECT text FROM versions WHERE id = ?", (version,)).fetchone()
        length = len(zlib.decompress(text).decode())
        db.execute("INSERT INTO texts (version, start, length, text) VALUES (?, 0, ?, ?)", (version, length, text))
    db.execute("ALTER TABLE versions DROP COLUMN text")


def _third(db: sqlite3.Connection) -> None:
    _statements(db, "sqlite_3.sql")


STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first, _second, _third)


def migrate(db: sqlite3.Connection) -> None:
    """Bring ``db`` to this version's format, one transaction a step. Raises DataFolderNewer."""
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    if found > len(STEPS):
        raise DataFolderNewer(
            f"the data folder has format {found}, this ragworks knows up to {len(STEPS)}: install the newer ragworks"
        )
    for number, step in enumerate(STEPS[found:], start=found + 1):
        db.execute("BEGIN IMMEDIATE")
        step(db)
        db.execute(f"PRAGMA user_version={number}")
        db.execute("COMMIT")
