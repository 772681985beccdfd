"""The query log in a file of its own, which holds no more than its mode allows, and can be deleted by itself."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragworks.control_protocols import Rating
from ragworks.policies.digesting import Question
from ragworks.protocols import Clock
from ragworks.settings import QueryLogSettings
from ragworks.storage.side_file import SideFile

FORMAT = 1
COLUMNS = tuple(name for name in Question.__slots__)
LISTS = ("seconds", "documents", "cited")


class SqliteQueries(SideFile):
    """A QueryLog (control_protocols). With mode off there is no file."""

    def __init__(self, path: Path, settings: QueryLogSettings, clock: Clock) -> None:
        # What was deleted is overwritten: a question that is no longer kept is not to be found in the file either.
        super().__init__(path, "queries", FORMAT, "secure_delete=ON")
        self._settings, self._clock = settings, clock

    async def append(self, questions: Sequence[Question]) -> None:
        def work(db: sqlite3.Connection) -> None:
            marks = ", ".join("?" * len(COLUMNS))
            db.executemany(
                f"INSERT OR IGNORE INTO queries ({', '.join(COLUMNS)}) VALUES ({marks})", map(_row, questions)
            )
            settings = self._settings
            self.forget(db, self._clock.now() - settings.keep_s, settings.keep, settings.max_bytes)

        await self.run(work)

    async def rate(self, collection: str, key: str, rating: Rating, comment: str | None) -> bool:
        if not self.path.exists():
            return False

        def work(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "UPDATE queries SET rating = ?, comment = ? WHERE key = ? AND collection = ?",
                (rating, comment, key, collection),
            )
            return changed.rowcount > 0

        return await self.run(work)

    async def since(self, at: float) -> Sequence[Question]:
        if not self.path.exists():
            return ()

        def work(db: sqlite3.Connection) -> list[Question]:
            rows = db.execute(f"SELECT {', '.join(COLUMNS)} FROM queries WHERE at >= ? ORDER BY id", (at,))
            return [_question(row) for row in rows]

        return await self.run(work)

    async def narrow(self) -> None:
        """Let go of what the mode no longer allows: of texts, or of all."""
        if not self.path.exists() or self._settings.mode == "full":
            return
        off = self._settings.mode == "off"

        def work(db: sqlite3.Connection) -> None:
            if off:
                db.execute("DELETE FROM queries")
            else:
                db.execute("UPDATE queries SET text = NULL, comment = NULL WHERE coalesce(text, comment) IS NOT NULL")

        await self.run(work)
        await self.checkpoint()


def _row(question: Question) -> tuple[Any, ...]:
    values = ((name, getattr(question, name)) for name in COLUMNS)
    return tuple(json.dumps(value, ensure_ascii=False) if name in LISTS else value for name, value in values)


def _question(row: sqlite3.Row) -> Question:
    given = {name: row[name] for name in COLUMNS}
    given |= {"seconds": json.loads(row["seconds"])}
    given |= {name: tuple(json.loads(row[name])) for name in ("documents", "cited")}
    given["cached"] = None if row["cached"] is None else bool(row["cached"])
    return Question(**given)
