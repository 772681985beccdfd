"""Which task starts next, and the lease that it gets: one look at what is open, one row changed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from uuid import uuid4

from ragworks.policies.sharing import Line, Turns, order, taken
from ragworks.types import Task

OPEN = "('queued', 'in_progress')"
FIELDS = (
    "id",
    "job_id",
    "collection",
    "document_id",
    "name",
    "content_hash",
    "size_bytes",
    "title",
    "media_type",
    "attempts",
    "origin",
    "traceparent",
)
# A lease that ran out is of a process that died; who lives renews its own, and knows which it holds.
LAPSED = "state = 'in_progress' AND leased_until <= :now AND lease NOT IN (SELECT value FROM json_each(:held))"
DUE = f"((state = 'queued' AND due_at <= :now) OR ({LAPSED}))"
IN_JOB = f"FROM tasks INDEXED BY tasks_open WHERE job_id = job AND state IN {OPEN}"
# Steps from job to job and looks at the first of each, so that the cost follows the jobs, not their documents.
LINES = f"""
    WITH RECURSIVE open_jobs (job) AS (
        SELECT min(job_id) FROM tasks WHERE state IN {OPEN}
        UNION ALL
        SELECT (SELECT min(job_id) FROM tasks WHERE state IN {OPEN} AND job_id > job) FROM open_jobs WHERE job NOT NULL
    )
    SELECT id, collection, priority,
        (SELECT count(*) {IN_JOB} AND state = 'in_progress' AND NOT ({LAPSED})) AS running,
        (SELECT seq {IN_JOB} AND state = 'queued' AND due_at <= :now ORDER BY seq LIMIT 1) AS first,
        (SELECT min(seq) {IN_JOB} AND {LAPSED}) AS lapsed
    FROM open_jobs JOIN jobs ON id = job
"""
NEXT = f"""
    SELECT *, (SELECT traceparent FROM jobs WHERE id = :job) AS traceparent
    FROM tasks t INDEXED BY tasks_job WHERE job_id = :job AND seq >= :first AND {DUE} AND NOT EXISTS (
        SELECT 1 FROM tasks o WHERE o.collection = t.collection AND o.document_id = t.document_id AND o.seq < t.seq
        AND o.state IN {OPEN}
    ) ORDER BY seq LIMIT 1
"""


class Claims:
    """Deals out tasks to ``slots``, in turns; the turns are remembered here, and begin anew with the process."""

    def __init__(self, slots: int, lease_s: float) -> None:
        self._slots, self._lease_s = slots, lease_s
        self._turns = Turns()

    def next(self, db: sqlite3.Connection, now: float, held: Iterable[str]) -> Task | None:
        seen = {"now": now, "held": json.dumps(list(held))}
        lines = [_line(row) for row in db.execute(LINES, seen)]
        for line in order(self._slots, lines, self._turns).lines:
            row = db.execute(NEXT, {**seen, "job": line.job, "first": line.first}).fetchone()
            if row:
                self._turns = taken(self._turns, lines, line)
                return self._leased(db, row, now)
        return None

    def renewed(self, db: sqlite3.Connection, task: Task, now: float) -> bool:
        """Whether the attempt still had its lease, which now runs from ``now``."""
        return bool(
            db.execute(
                "UPDATE tasks SET leased_until = ? WHERE id = ? AND lease = ? AND state = 'in_progress'",
                (now + self._lease_s, task.id, task.lease),
            ).rowcount
        )

    def _leased(self, db: sqlite3.Connection, row: sqlite3.Row, now: float) -> Task:
        lease = uuid4().hex
        db.execute(
            "UPDATE tasks SET state = 'in_progress', stage = NULL, lease = ?, leased_until = ? WHERE id = ?",
            (lease, now + self._lease_s, row["id"]),
        )
        return Task(**{name: row[name] for name in FIELDS}, metadata=json.loads(row["metadata"]), lease=lease)


def _line(row: sqlite3.Row) -> Line:
    first = min((seq for seq in (row["first"], row["lapsed"]) if seq is not None), default=None)
    return Line(row["id"], row["collection"], row["priority"], row["running"], first)
