"""A data folder of every format that there ever was opens, with all that it held."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from ragworks.records import CHUNK_BITS
from ragworks.storage import migrations
from stores import DIMENSION, found, opened

TEXT = "The battery of the city bike lasts five years."


def first_format(file: Path) -> None:
    """What version 0.1.0 wrote of one indexed document: its text in one piece, within the version."""
    schema = files("ragworks.storage").joinpath("sqlite.sql").read_text(encoding="utf-8")
    vector = np.eye(1, DIMENSION, dtype=np.float16)[0].tobytes()
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.executescript(schema)
        db.execute("INSERT INTO collections VALUES ('default', 'model', ?, 1.0)", (DIMENSION,))
        db.execute("INSERT INTO jobs (id, collection, created_at) VALUES ('j', 'default', 1.0)")
        db.execute(
            "INSERT INTO tasks (id, job_id, collection, document_id, name, content_hash, size_bytes, metadata, state) "
            "VALUES ('t', 'j', 'default', 'bike', 'bike', 'ab', 1, '{}', 'completed')"
        )
        db.execute(
            "INSERT INTO versions VALUES (1, 'default', 'bike', 't', 'l', 'ab', 1, 'text/plain', 'Bike', NULL, '{}', "
            "'[]', 1, ?)",
            (zlib.compress(TEXT.encode()),),
        )
        db.execute("INSERT INTO documents VALUES ('default', 'bike', 1, 'bike', 'Bike', '{}', 1.0, 1.0)")
        db.execute(
            "INSERT INTO chunks VALUES (?, x'00', 0, ?, NULL, '[]', ?, 'Bike', ?)",
            (1 << CHUNK_BITS, len(TEXT), TEXT, vector),
        )
        db.execute("INSERT INTO changes (collection, version, added, chunk_count) VALUES ('default', 1, 1, 1)")
        db.execute("PRAGMA user_version=1")


async def test_documents_of_the_first_format_are_found_and_read(tmp_path: Path) -> None:
    first_format(tmp_path / "ragworks.db")
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "blobs" / "ab" / "ab").write_text(TEXT)
    async with opened(tmp_path) as at:
        assert await at.store.text("default", "bike") == TEXT
        assert await found(at, "battery") == {"bike"}
        assert (await at.store.checkup()).problems == ()


async def test_a_job_that_waits_in_the_second_format_is_worked_off_and_belongs_to_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older, closing(sqlite3.connect(tmp_path / "ragworks.db", isolation_level=None)) as db:
        older.setattr(migrations, "STEPS", migrations.STEPS[:2])
        migrations.migrate(db)
        db.execute("INSERT INTO jobs (id, collection, created_at) VALUES ('j', 'default', 1.0)")
        db.execute(
            "INSERT INTO tasks (id, job_id, collection, document_id, name, content_hash, size_bytes, metadata, state) "
            "VALUES ('t', 'j', 'default', 'bike', 'bike', 'ab', 1, '{}', 'queued')"
        )
    async with opened(tmp_path) as at:
        task = await at.jobs.claim()
    assert task
    assert (task.id, task.traceparent) == ("t", None)
    with closing(sqlite3.connect(tmp_path / "ragworks.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(migrations.STEPS),)
