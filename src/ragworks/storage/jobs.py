"""The durable queue as SQLite rows (protocols.JobQueue): accept, claim, finish, fail, and what a person sees of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from ragworks.errors import CollectionNotFound, IdempotencyKeyReused, JobNotFound
from ragworks.protocols import Clock
from ragworks.records import Acceptance, Incoming, Load
from ragworks.storage import webhooks
from ragworks.storage.sqlite import Database
from ragworks.types import Job, JobDocument, Page, Priority, Stage, Task, TaskState

IDEMPOTENCY_KEPT_S = 24 * 3600.0
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
)


class SqliteJobs:
    """Jobs and their tasks. The state of a job is never stored: it follows from its tasks."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._turn = 0
        self._last_turn: dict[str, int] = {}

    # submitting

    async def accept(
        self,
        collection: str,
        incoming: Sequence[Incoming],
        room: Load,
        key: str | None,
        request_hash: str,
        *,
        priority: Priority = "normal",
        webhook_url: str | None = None,
    ) -> Acceptance | None:
        """Queue all documents in one durable transaction, or None when ``room`` does not hold them now.

        A key seen in the last 24 hours returns its first acceptance. Raises CollectionNotFound, IdempotencyKeyReused.
        """

        def work(db: sqlite3.Connection) -> Acceptance | None:
            if db.execute("SELECT 1 FROM collections WHERE name = ?", (collection,)).fetchone() is None:
                raise CollectionNotFound(collection)
            if earlier := _accepted_before(db, key, request_hash, self._clock.now()):
                return earlier
            load = _load(db)
            waiting = [one for one in incoming if one.error_code is None]
            if (
                load.documents + len(waiting) > room.documents
                or load.size_bytes + sum(one.size_bytes for one in waiting) > room.size_bytes
            ):
                return None
            accepted = self._insert(db, collection, incoming, key, request_hash)
            if webhook_url is not None:
                webhooks.arm(db, accepted.job_id, webhook_url, self._clock.now())
            return accepted

        return await self._database.write(work)

    def _insert(
        self, db: sqlite3.Connection, collection: str, incoming: Sequence[Incoming], key: str | None, request_hash: str
    ) -> Acceptance:
        job_id, now = f"job_{uuid4().hex}", self._clock.now()
        db.execute(
            "INSERT INTO jobs (id, collection, created_at, idempotency_key, request_hash) VALUES (?,?,?,?,?)",
            (job_id, collection, now, key, request_hash),
        )
        ids = [f"task_{uuid4().hex}" for _ in incoming]
        db.executemany(
            "INSERT INTO tasks (id, job_id, collection, document_id, name, content_hash, size_bytes, title, metadata, "
            "media_type, state, stage, error_code, error_message, finished_at, origin) "
            "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            [
                (
                    task_id,
                    job_id,
                    collection,
                    one.document_id,
                    one.name,
                    one.content_hash,
                    one.size_bytes,
                    one.title,
                    json.dumps(one.metadata),
                    one.media_type,
                    TaskState.FAILED if one.error_code else TaskState.QUEUED,
                    Stage.PARSING if one.error_code else None,
                    one.error_code,
                    one.error_message,
                    now if one.error_code else None,
                    one.origin,
                )
                for task_id, one in zip(ids, incoming, strict=True)
            ],
        )
        return Acceptance(job_id, tuple(ids), _load(db).documents)

    async def load(self) -> Load:
        """Documents and bytes that wait or run."""
        return await self._database.read(_load)

    # working

    async def claim(self) -> Task | None:
        """The next task: from the collection with the fewest running, then the one that waited longest for a turn.

        Documents of one id keep their order: none starts while an earlier one of the same id is open.
        """

        def work(db: sqlite3.Connection) -> Task | None:
            for collection in self._by_turn(db):
                row = db.execute(
                    f"SELECT * FROM tasks t WHERE collection = ? AND state IN {OPEN} AND state = 'queued' "
                    "AND due_at <= ? "
                    "AND NOT EXISTS (SELECT 1 FROM tasks o WHERE o.collection = t.collection "
                    f"AND o.document_id = t.document_id AND o.seq < t.seq AND o.state IN {OPEN}) ORDER BY seq LIMIT 1",
                    (collection, self._clock.now()),
                ).fetchone()
                if row:
                    self._turn += 1
                    self._last_turn[collection] = self._turn
                    return _lease(db, row)
            return None

        return await self._database.write(work)

    def _by_turn(self, db: sqlite3.Connection) -> list[str]:
        rows = db.execute(
            "SELECT collection, sum(state = 'in_progress') AS running FROM tasks "
            f"WHERE state IN {OPEN} GROUP BY collection"
        ).fetchall()
        return [row[0] for row in sorted(rows, key=lambda row: (row["running"], self._last_turn.get(row[0], 0)))]

    async def next_due(self) -> float | None:
        """When the earliest waiting task may run (seconds since the epoch), or None when nothing waits."""
        return await self._database.read(
            lambda db: db.execute(
                f"SELECT min(due_at) FROM tasks WHERE state IN {OPEN} AND state = 'queued'"
            ).fetchone()[0]
        )

    async def finish(self, task: Task, *, unchanged: bool, warnings: Sequence[str]) -> None:
        await self._update(
            task,
            "state = 'completed', unchanged = ?, warnings = ?, finished_at = ?, error_code = NULL, "
            "error_message = NULL",
            unchanged,
            json.dumps(list(warnings)),
            self._clock.now(),
        )

    async def fail(self, task: Task, stage: Stage, code: str, message: str, retry_in_s: float | None) -> None:
        now = self._clock.now()
        await self._update(
            task,
            "state = ?, stage = ?, error_code = ?, error_message = ?, attempts = attempts + 1, due_at = ?, "
            "finished_at = ?",
            TaskState.FAILED if retry_in_s is None else TaskState.QUEUED,
            stage,
            code,
            message,
            now + (retry_in_s or 0.0),
            now if retry_in_s is None else None,
        )

    async def release(self, task: Task) -> None:
        await self._update(task, "state = 'queued', stage = NULL")

    async def recover(self) -> int:
        """Hand back what a dead server held; only the owner of the data folder may call it. How many tasks."""
        return await self._database.write(
            lambda db: (
                db.execute(
                    "UPDATE tasks SET state = 'queued', stage = NULL, lease = '' WHERE state = 'in_progress'"
                ).rowcount
            )
        )

    async def _update(self, task: Task, changes: str, *values: Any) -> None:
        """Change a task, unless its attempt lost the lease: then there is nothing left to say."""
        await self._database.write(
            lambda db: (
                db.execute(
                    f"UPDATE tasks SET {changes} WHERE id = ? AND lease = ? AND state = 'in_progress'",
                    (*values, task.id, task.lease),
                )
                and None
            )
        )

    # looking and steering

    async def job(self, job_id: str) -> Job:
        def work(db: sqlite3.Connection) -> Job:
            row = _job_row(db, job_id)
            tasks = db.execute("SELECT * FROM tasks WHERE job_id = ? ORDER BY seq", (job_id,)).fetchall()
            return _job(row, _counts(db, job_id), tuple(_job_document(one) for one in tasks))

        return await self._database.read(work)

    async def ended(self, job_id: str) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            _job_row(db, job_id)
            is_open = f"SELECT 1 FROM tasks WHERE job_id = ? AND state IN {OPEN} LIMIT 1"
            return db.execute(is_open, (job_id,)).fetchone() is None

        return await self._database.read(work)

    async def jobs(self, limit: int, after: str | None) -> Page[Job]:
        def work(db: sqlite3.Connection) -> Page[Job]:
            below = _job_row(db, after)["seq"] if after else 1 << 62
            rows = db.execute(
                "SELECT * FROM jobs WHERE seq < ? ORDER BY seq DESC LIMIT ?", (below, limit + 1)
            ).fetchall()
            shown = [_job(row, _counts(db, row["id"])) for row in rows[:limit]]
            return Page(tuple(shown), len(rows) > limit, shown[-1].id if shown else None)

        return await self._database.read(work)

    async def cancel(self, job_id: str) -> frozenset[str]:
        """Cancel what has not ended; the content hashes whose bytes may now be unneeded."""

        def work(db: sqlite3.Connection) -> frozenset[str]:
            _job_row(db, job_id)
            rows = db.execute(
                "UPDATE tasks SET state = 'cancelled', finished_at = ? "
                f"WHERE job_id = ? AND state IN {OPEN} RETURNING content_hash",
                (self._clock.now(), job_id),
            ).fetchall()
            if rows:  # a job that has ended stays what it was
                db.execute("UPDATE jobs SET cancelled = 1 WHERE id = ?", (job_id,))
            return frozenset(row[0] for row in rows)

        return await self._database.write(work)

    async def retry(self, job_id: str) -> int:
        """Queue the failed documents of a job again, with fresh attempts, and so a webhook given up. How many."""

        def work(db: sqlite3.Connection) -> int:
            job = _job_row(db, job_id)
            again = db.execute(
                "UPDATE tasks SET state = 'queued', stage = NULL, attempts = 0, due_at = 0, finished_at = NULL "
                "WHERE job_id = ? AND state = 'failed' AND content_hash <> '' "
                # A newer submission of the document that went in must not be undone by an older one.
                "AND NOT EXISTS (SELECT 1 FROM tasks later WHERE later.collection = tasks.collection AND "
                "later.document_id = tasks.document_id AND later.seq > tasks.seq AND later.state = 'completed')",
                (job_id,),
            ).rowcount
            webhook = webhooks.shown(job)
            if webhook and (again or webhook.status == "failed"):
                webhooks.arm(db, job_id, webhook.url, self._clock.now())
            return again

        return await self._database.write(work)


def _accepted_before(db: sqlite3.Connection, key: str | None, request_hash: str, now: float) -> Acceptance | None:
    row = db.execute("SELECT * FROM jobs WHERE idempotency_key = ?", (key,)).fetchone() if key else None
    if row is None:
        return None
    if now - row["created_at"] > IDEMPOTENCY_KEPT_S:
        db.execute("UPDATE jobs SET idempotency_key = NULL WHERE id = ?", (row["id"],))
        return None
    if row["request_hash"] != request_hash:
        raise IdempotencyKeyReused(
            f"Idempotency-Key {key!r} was used for another request (job {row['id']}); use a new key for a new request"
        )
    ids = db.execute("SELECT id FROM tasks WHERE job_id = ? ORDER BY seq", (row["id"],)).fetchall()
    return Acceptance(row["id"], tuple(one[0] for one in ids), _load(db).documents, repeated=True)


def _load(db: sqlite3.Connection) -> Load:
    return Load(
        *db.execute(f"SELECT count(*), coalesce(sum(size_bytes), 0) FROM tasks WHERE state IN {OPEN}").fetchone()
    )


def _lease(db: sqlite3.Connection, row: sqlite3.Row) -> Task:
    lease = uuid4().hex
    db.execute("UPDATE tasks SET state = 'in_progress', lease = ? WHERE id = ?", (lease, row["id"]))
    return Task(**{name: row[name] for name in FIELDS}, metadata=json.loads(row["metadata"]), lease=lease)


def _job_row(db: sqlite3.Connection, job_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise JobNotFound(job_id)
    return row


def _counts(db: sqlite3.Connection, job_id: str) -> dict[str, Any]:
    rows = db.execute(
        "SELECT state, count(*), max(finished_at) FROM tasks WHERE job_id = ? GROUP BY state", (job_id,)
    ).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


def _job(row: sqlite3.Row, counts: Mapping[str, Any], documents: tuple[JobDocument, ...] = ()) -> Job:
    numbers = {state.value: counts.get(state, (0, None))[0] for state in TaskState}
    status = job_status(numbers, cancelled=bool(row["cancelled"]))
    ended = status not in (TaskState.QUEUED, TaskState.IN_PROGRESS)
    finished = max((at for _, at in counts.values() if at), default=row["created_at"]) if ended else None
    shown = {"total": sum(numbers.values()), **numbers}
    shown["in_progress"] += shown.pop("queued")
    return Job(
        row["id"],
        row["collection"],
        status,
        row["created_at"],
        finished,
        shown,
        documents,
        webhooks.shown(row),
    )


def job_status(counts: Mapping[str, int], *, cancelled: bool) -> TaskState:
    """Of the counts by state: a job has ended when every document has, and it failed only if every document did."""
    if counts["in_progress"] or (counts["queued"] and counts["queued"] < sum(counts.values())):
        return TaskState.IN_PROGRESS
    if counts["queued"]:
        return TaskState.QUEUED
    if counts["cancelled"] and (cancelled or not counts["completed"]):
        return TaskState.CANCELLED
    return TaskState.FAILED if counts["failed"] and not counts["completed"] else TaskState.COMPLETED


def _job_document(row: sqlite3.Row) -> JobDocument:
    return JobDocument(
        row["document_id"],
        row["id"],
        row["name"],
        TaskState(row["state"]),
        Stage(row["stage"]) if row["stage"] else None,
        row["error_code"],
        row["error_message"],
        bool(row["unchanged"]),
        tuple(json.loads(row["warnings"])),
        row["attempts"],
    )
