"""Events in a file of their own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from ragworks.control_protocols import Event
from ragworks.protocols import Clock
from ragworks.settings import EventSettings
from ragworks.storage.side_file import SideFile

FORMAT = 1
LAST_ID = 2**63 - 1
COLUMNS = "at, action, service, replica, policy, inputs, decision, reason, count"


class SqliteEvents(SideFile):
    """An EventLog (control_protocols)."""

    def __init__(self, path: Path, settings: EventSettings, clock: Clock) -> None:
        super().__init__(path, "events", FORMAT)
        self._settings, self._clock = settings, clock

    async def append(self, events: Sequence[Event]) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.executemany(f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row, events))
            settings = self._settings
            self.forget(db, self._clock.now() - settings.keep_s, settings.keep, settings.max_bytes)

        await self.run(work)

    async def recent(
        self,
        *,
        service: str | None = None,
        since: float = 0.0,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Event]:
        def work(db: sqlite3.Connection) -> list[Event]:
            rows = db.execute(
                f"SELECT id, {COLUMNS} FROM events WHERE at >= ? AND id > ? AND id < ? AND (? IS NULL OR service = ?) "
                f"ORDER BY id {'DESC' if after is None else 'ASC'} LIMIT ?",
                (since, after or 0, LAST_ID if before is None else before, service, service, limit),
            )
            return sorted((_event(row) for row in rows), key=lambda event: event.id)

        return await self.run(work)


def _row(event: Event) -> tuple[object, ...]:
    # Not sorted: the order of a mapping may be what a policy decided by.
    inputs, decision = (json.dumps(one, ensure_ascii=False) for one in (event.inputs, event.decision))
    return (
        event.at, event.action, event.service, event.replica, event.policy, inputs, decision, event.reason, event.count,
    )  # fmt: skip


def _event(row: sqlite3.Row) -> Event:
    return Event(**{**row, "inputs": json.loads(row["inputs"]), "decision": json.loads(row["decision"])})
