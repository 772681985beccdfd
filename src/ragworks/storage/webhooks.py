"""Which callers are still to be told of a job's end, as SQLite rows (workers/webhooks.py, Outbox).

Nothing is written when a job ends: that a delivery is due follows from the job's tasks, as the job's state does. So no
way of ending (done, failed, cancelled, deleted) can forget it, and no crash can come between the two.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from uuid import uuid4

from ragworks.protocols import Clock
from ragworks.records import DueWebhook
from ragworks.storage.claiming import OPEN
from ragworks.storage.sqlite import Database
from ragworks.types import Webhook

OPEN_TASK = f"SELECT 1 FROM tasks WHERE tasks.job_id = jobs.id AND tasks.state IN {OPEN}"


class SqliteWebhooks:
    """The deliveries of all jobs. Each call is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def due(self, limit: int) -> Sequence[DueWebhook]:
        def work(db: sqlite3.Connection) -> list[DueWebhook]:
            # With min(), SQLite takes the other columns from the row that holds the minimum.
            rows = db.execute(
                "SELECT webhook_id, id, webhook_url, webhook_attempts, min(webhook_due_at) FROM jobs "
                f"WHERE webhook_due_at <= ? AND NOT EXISTS ({OPEN_TASK}) "
                "GROUP BY webhook_url ORDER BY min(webhook_due_at) LIMIT ?",
                (self._clock.now(), limit),
            )
            return [DueWebhook(*row[:4]) for row in rows]

        return await self._database.read(work)

    async def settle(self, due: DueWebhook, error: str | None, retry_in_s: float | None) -> None:
        now = self._clock.now()
        delivered_at = now if error is None else None
        due_at = None if retry_in_s is None else now + retry_in_s
        await self._database.write(
            lambda db: (
                db.execute(
                    "UPDATE jobs SET webhook_attempts = ?, webhook_error = ?, webhook_delivered_at = ?, "
                    "webhook_due_at = ? WHERE webhook_id = ?",
                    (due.attempts + 1, error, delivered_at, due_at, due.id),
                )
                and None
            )
        )


def arm(db: sqlite3.Connection, job_id: str, url: str, now: float) -> None:
    """Have the end of the job told to ``url``; what was told of an earlier end is another delivery."""
    db.execute(
        "UPDATE jobs SET webhook_url = ?, webhook_id = ?, webhook_due_at = ?, webhook_attempts = 0, "
        "webhook_delivered_at = NULL, webhook_error = NULL WHERE id = ?",
        (url, f"msg_{uuid4().hex}", now, job_id),
    )


def rearm(db: sqlite3.Connection, requeued: Collection[str], asked: str | None, now: float) -> None:
    """Have the next end of the jobs that go on told, and that of the job asked for if it could not be told."""
    for job_id in {*requeued, *([asked] if asked else [])}:
        row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        webhook = shown(row) if row else None
        if webhook and (job_id in requeued or webhook.status == "failed"):
            arm(db, job_id, webhook.url, now)


def shown(row: sqlite3.Row) -> Webhook | None:
    """The webhook of a row of ``jobs``, if it has one."""
    if row["webhook_url"] is None:
        return None
    delivered, pending = row["webhook_delivered_at"], row["webhook_due_at"] is not None
    status = "pending" if pending else "failed" if delivered is None else "delivered"
    return Webhook(row["webhook_url"], status, row["webhook_attempts"], delivered, row["webhook_error"])
