"""The durable queue as SQLite rows (storage_protocols.JobQueue): accept, claim, end, and what a person sees of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

from ragworks.errors import CollectionNotFound, IdempotencyKeyReused, InvalidInput
from ragworks.policies.estimating import kind_of
from ragworks.protocols import Clock
from ragworks.records import UNCHANGED, Acceptance, Cost, Incoming, Load, OpenWork, Requeued
from ragworks.storage import webhooks
from ragworks.storage.claiming import OPEN, Claims
from ragworks.storage.job_rows import counts_of, dead_letter, job, job_document, job_row
from ragworks.storage.sqlite import Database
from ragworks.storage_protocols import Forecast
from ragworks.types import DeadLetter, Job, Page, Priority, Stage, Task, TaskState

IDEMPOTENCY_KEPT_S = 24 * 3600.0
PRUNED_AT_ONCE = 500
RANK: dict[Priority, int] = {"low": -1, "normal": 0, "high": 1}
# The same document was submitted again, and that went in or may yet: nothing older must undo it.
SUPERSEDED = """
    EXISTS (SELECT 1 FROM tasks later WHERE later.collection = tasks.collection AND
    later.document_id = tasks.document_id AND later.seq > tasks.seq AND
    later.state IN ('queued', 'in_progress', 'completed'))
"""


class SqliteJobs:
    """Jobs and their tasks. The state of a job is never stored: it follows from its tasks.

    ``slots`` is how many tasks run at once, of which one collection may hold three quarters.
    """

    def __init__(self, database: Database, clock: Clock, *, slots: int = 16, lease_s: float = 300.0) -> None:
        self._database = database
        self._clock = clock
        self._claims = Claims(slots, lease_s)

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
        traceparent: str = "",
        forecast: Forecast = lambda work, job_id: 0.0,
    ) -> Acceptance | None:
        """Queue all documents in one durable transaction, or None when ``room`` does not hold them now.

        A key seen in the last 24 hours returns its first acceptance. Raises CollectionNotFound, IdempotencyKeyReused.
        """

        def work(db: sqlite3.Connection) -> Acceptance | None:
            if db.execute("SELECT 1 FROM collections WHERE name = ?", (collection,)).fetchone() is None:
                raise CollectionNotFound(collection)
            now = self._clock.now()
            if earlier := _accepted_before(db, key, request_hash, now):
                return earlier
            load = _load(db)
            waiting = [one for one in incoming if one.error_code is None]
            if (
                load.documents + len(waiting) > room.documents
                or load.size_bytes + sum(one.size_bytes for one in waiting) > room.size_bytes
            ):
                return None
            job_id = f"job_{uuid4().hex}"
            ids = _insert(db, job_id, collection, incoming, RANK[priority], now)
            estimated_s = forecast(_open_work(db), job_id)
            db.execute(
                "INSERT INTO jobs (id, collection, created_at, idempotency_key, request_hash, priority, estimated_s, "
                "traceparent) VALUES (?,?,?,?,?,?,?,?)",
                (job_id, collection, now, key, request_hash, RANK[priority], estimated_s, traceparent or None),
            )
            if webhook_url is not None:
                webhooks.arm(db, job_id, webhook_url, now)
            return Acceptance(job_id, ids, load.documents + len(waiting), estimated_s=estimated_s)

        return await self._database.write(work)

    async def load(self) -> Load:
        """Documents and bytes that wait or run."""
        return await self._database.read(_load)

    async def oldest_at(self) -> float | None:
        """When the document that has waited longest was submitted; None when none waits."""

        def work(db: sqlite3.Connection) -> float | None:
            # Both conditions: the first is the one that the index of open tasks is made for.
            waiting = f"SELECT job_id FROM tasks WHERE state IN {OPEN} AND state = 'queued'"
            found: float | None = db.execute(f"SELECT min(created_at) FROM jobs WHERE id IN ({waiting})").fetchone()[0]
            return found

        return await self._database.read(work)

    async def dead(self) -> int:
        def work(db: sqlite3.Connection) -> int:
            counted = f"SELECT count(*) FROM tasks WHERE state = 'failed' AND NOT {SUPERSEDED}"
            return int(db.execute(counted).fetchone()[0])

        return await self._database.read(work)

    # working

    async def claim(self, held: Iterable[str] = ()) -> Task | None:
        """The next task by ``policies.sharing``, leased; also one whose lease ran out, unless it is one of ``held``.

        Documents of one id keep their order: none starts while an earlier one of the same id is open.
        """
        return await self._database.write(lambda db: self._claims.next(db, self._clock.now(), held))

    async def renew(self, tasks: Sequence[Task]) -> frozenset[str]:
        """Let the leases run from now, in one transaction; the ids of the tasks whose lease was lost."""

        def work(db: sqlite3.Connection) -> frozenset[str]:
            now = self._clock.now()
            return frozenset(task.id for task in tasks if not self._claims.renewed(db, task, now))

        return await self._database.write(work)

    async def next_due(self, after: float) -> float | None:
        """When the earliest task that waits for a time beyond ``after`` may run, or None when none does."""
        sql = (
            "SELECT min(until) FROM (SELECT CASE state WHEN 'queued' THEN due_at ELSE leased_until END AS until "
            f"FROM tasks WHERE state IN {OPEN}) WHERE until > ?"
        )
        return await self._database.read(lambda db: db.execute(sql, (after,)).fetchone()[0])

    async def finish(self, task: Task, *, unchanged: bool, warnings: Sequence[str], cost: Cost | None = None) -> bool:
        changes = (
            "state = 'completed', unchanged = ?, warnings = ?, finished_at = ?, error_code = NULL, error_message = NULL"
        )
        values: list[Any] = [unchanged, json.dumps(list(warnings)), self._clock.now()]
        if cost:
            changes += ", kind = ?, chunk_count = ?, read_s = ?, embed_s = ?"
            values += [cost.kind, cost.chunks, cost.read_s, cost.embed_s]
        return await self._update(task, changes, *values)

    async def fail(self, task: Task, stage: Stage, code: str, message: str, retry_in_s: float | None) -> bool:
        now = self._clock.now()
        return await self._update(
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

    async def _update(self, task: Task, changes: str, *values: Any) -> bool:
        """Change a task, unless its attempt lost the lease: then nothing is left to say, and the answer is False."""
        return await self._database.write(
            lambda db: bool(
                db.execute(
                    f"UPDATE tasks SET {changes} WHERE id = ? AND lease = ? AND state = 'in_progress'",
                    (*values, task.id, task.lease),
                ).rowcount
            )
        )

    # estimating

    async def open_work(self) -> Sequence[OpenWork]:
        """Open documents by job, priority and kind."""
        return await self._database.read(_open_work)

    async def costs(self, limit: int) -> Sequence[Cost]:
        """What the latest completed documents cost, oldest first."""

        def work(db: sqlite3.Connection) -> list[Cost]:
            rows = db.execute(
                "SELECT kind, size_bytes, chunk_count, read_s, embed_s FROM tasks "
                "WHERE state = 'completed' AND read_s IS NOT NULL ORDER BY seq DESC LIMIT ?",
                (limit,),
            ).fetchall()
            return [Cost(*row) for row in reversed(rows)]

        return await self._database.read(work)

    async def forecasts(self, limit: int) -> Sequence[tuple[float, float]]:
        """(predicted, actual) seconds of the latest jobs that ended undisturbed, newest first."""

        def work(db: sqlite3.Connection) -> list[tuple[float, float]]:
            rows = db.execute(
                "SELECT estimated_s, (SELECT max(finished_at) FROM tasks WHERE job_id = jobs.id) - created_at "
                "FROM jobs WHERE estimated_s IS NOT NULL AND NOT cancelled AND NOT EXISTS "
                f"(SELECT 1 FROM tasks WHERE job_id = jobs.id AND state IN {OPEN}) ORDER BY seq DESC LIMIT ?",
                (limit,),
            ).fetchall()
            return [(row[0], row[1]) for row in rows if row[1]]

        return await self._database.read(work)

    # looking and steering

    async def job(self, job_id: str) -> Job:
        def work(db: sqlite3.Connection) -> Job:
            row = job_row(db, job_id)
            tasks = db.execute("SELECT * FROM tasks WHERE job_id = ? ORDER BY seq", (job_id,)).fetchall()
            return job(row, counts_of(db, job_id), tuple(job_document(one) for one in tasks))

        return await self._database.read(work)

    async def ended(self, job_id: str) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            job_row(db, job_id)
            is_open = f"SELECT 1 FROM tasks WHERE job_id = ? AND state IN {OPEN} LIMIT 1"
            return db.execute(is_open, (job_id,)).fetchone() is None

        return await self._database.read(work)

    async def jobs(self, limit: int, after: str | None) -> Page[Job]:
        def work(db: sqlite3.Connection) -> Page[Job]:
            below = job_row(db, after)["seq"] if after else 1 << 62
            rows = db.execute(
                "SELECT * FROM jobs WHERE seq < ? ORDER BY seq DESC LIMIT ?", (below, limit + 1)
            ).fetchall()
            shown = [job(row, counts_of(db, row["id"])) for row in rows[:limit]]
            return Page(tuple(shown), len(rows) > limit, shown[-1].id if shown else None)

        return await self._database.read(work)

    async def cancel(self, job_id: str) -> frozenset[str]:
        """Cancel what has not ended; the content hashes whose bytes may now be unneeded."""

        def work(db: sqlite3.Connection) -> frozenset[str]:
            job_row(db, job_id)
            rows = db.execute(
                "UPDATE tasks SET state = 'cancelled', finished_at = ? "
                f"WHERE job_id = ? AND state IN {OPEN} RETURNING content_hash",
                (self._clock.now(), job_id),
            ).fetchall()
            if rows:  # a job that has ended stays what it was
                db.execute("UPDATE jobs SET cancelled = 1 WHERE id = ?", (job_id,))
            return frozenset(row[0] for row in rows)

        return await self._database.write(work)

    async def dead_letters(self, limit: int, after: str | None) -> Page[DeadLetter]:
        """The documents whose last attempt failed, over all jobs, latest submission first. Raises InvalidInput."""

        def work(db: sqlite3.Connection) -> Page[DeadLetter]:
            found = db.execute("SELECT seq FROM tasks WHERE id = ?", (after,)).fetchone() if after else None
            if after and not found:  # beginning again would lead whoever follows last_id in a circle
                raise InvalidInput(f"after: expected the task_id of a dead letter, found {after!r}; list without it")
            rows = db.execute(
                f"SELECT * FROM tasks WHERE state = 'failed' AND seq < ? AND NOT {SUPERSEDED} "
                "ORDER BY seq DESC LIMIT ?",
                (found[0] if found else 1 << 62, limit + 1),
            ).fetchall()
            shown = tuple(dead_letter(row) for row in rows[:limit])
            return Page(shown, len(rows) > limit, shown[-1].task_id if shown else None)

        return await self._database.read(work)

    async def retry(self, room: Load, *, job_id: str | None = None, task_id: str | None = None) -> Requeued:
        """Queue failed documents again with fresh attempts, oldest first, as many as ``room`` holds.

        Those of a job, one, or all. What was submitted again since, or has no bytes, is left out. Raises JobNotFound.
        """

        def work(db: sqlite3.Connection) -> Requeued:
            if job_id:
                job_row(db, job_id)
            dead = db.execute(
                "SELECT id, job_id, size_bytes FROM tasks WHERE state = 'failed' AND content_hash <> '' "
                f"AND coalesce(?, job_id) = job_id AND coalesce(?, id) = id AND NOT {SUPERSEDED} ORDER BY seq",
                (job_id, task_id),
            ).fetchall()
            load = _load(db)
            places, size_bytes = room.documents - load.documents, room.size_bytes - load.size_bytes
            chosen: list[sqlite3.Row] = []
            for row in dead:
                if len(chosen) < places and row["size_bytes"] <= size_bytes:
                    size_bytes -= row["size_bytes"]
                    chosen.append(row)
            db.executemany(
                "UPDATE tasks SET state = 'queued', stage = NULL, attempts = 0, due_at = 0, finished_at = NULL "
                "WHERE id = ?",
                [(row["id"],) for row in chosen],
            )
            # Its end is no longer what was forecast.
            db.executemany("UPDATE jobs SET estimated_s = NULL WHERE id = ?", {(row["job_id"],) for row in chosen})
            webhooks.rearm(db, {row["job_id"] for row in chosen}, job_id, self._clock.now())
            return Requeued(len(chosen), len(dead) - len(chosen))

        return await self._database.write(work)

    async def prune(self, before: float) -> frozenset[str] | None:
        """Forget a part of the oldest job that ended ``before``; content hashes that may be unneeded, None if none did.

        A job stays while its idempotency key counts or its webhook is due.
        """

        def work(db: sqlite3.Connection) -> frozenset[str] | None:
            row = db.execute(
                "SELECT id FROM jobs WHERE created_at < ? AND webhook_due_at IS NULL "
                "AND (idempotency_key IS NULL OR created_at < ?) AND NOT EXISTS (SELECT 1 FROM tasks "
                f"WHERE job_id = jobs.id AND (state IN {OPEN} OR finished_at >= ?)) ORDER BY seq LIMIT 1",
                (before, self._clock.now() - IDEMPOTENCY_KEPT_S, before),
            ).fetchone()
            if row is None:
                return None
            gone = db.execute(
                "DELETE FROM tasks WHERE seq IN (SELECT seq FROM tasks WHERE job_id = ? LIMIT ?) "
                "RETURNING content_hash",
                (row["id"], PRUNED_AT_ONCE),
            ).fetchall()
            if len(gone) < PRUNED_AT_ONCE:
                db.execute("DELETE FROM jobs WHERE id = ?", (row["id"],))
            return frozenset(one[0] for one in gone if one[0])

        return await self._database.write(work)


def _insert(
    db: sqlite3.Connection,
    job_id: str,
    collection: str,
    incoming: Sequence[Incoming],
    rank: int,
    now: float,
) -> tuple[str, ...]:
    ids = tuple(f"task_{uuid4().hex}" for _ in incoming)
    db.executemany(
        "INSERT INTO tasks (id, job_id, collection, document_id, name, content_hash, size_bytes, title, metadata, "
        "media_type, state, stage, error_code, error_message, finished_at, origin, priority, kind) "
        "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
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
                rank,
                UNCHANGED if _is_held(db, collection, one) else kind_of(one.media_type, one.name),
            )
            for task_id, one in zip(ids, incoming, strict=True)
        ],
    )
    return ids


def _is_held(db: sqlite3.Connection, collection: str, one: Incoming) -> bool:
    """Whether these bytes are in the collection already, so that reading them again will not be needed."""
    found = db.execute(
        "SELECT 1 FROM documents d JOIN versions v ON v.id = d.version WHERE d.collection = ? AND v.content_hash = ?",
        (collection, one.content_hash),
    )
    return found.fetchone() is not None


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
    return Acceptance(
        row["id"],
        tuple(one[0] for one in ids),
        _load(db).documents,
        repeated=True,
        estimated_s=row["estimated_s"] or 0.0,
    )


def _load(db: sqlite3.Connection) -> Load:
    return Load(
        *db.execute(f"SELECT count(*), coalesce(sum(size_bytes), 0) FROM tasks WHERE state IN {OPEN}").fetchone()
    )


def _open_work(db: sqlite3.Connection) -> list[OpenWork]:
    rows = db.execute(
        "SELECT job_id, collection, priority, coalesce(kind, ''), count(*), sum(size_bytes) FROM tasks "
        f"WHERE state IN {OPEN} GROUP BY job_id, collection, priority, kind"
    )
    return [OpenWork(*row) for row in rows]
