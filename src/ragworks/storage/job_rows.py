"""Rows of jobs and tasks as the values that people see."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from ragworks.errors import JobNotFound
from ragworks.storage import webhooks
from ragworks.types import DeadLetter, Job, JobDocument, Stage, TaskState


def job_row(db: sqlite3.Connection, job_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise JobNotFound(job_id)
    return row


def counts_of(db: sqlite3.Connection, job_id: str) -> dict[str, Any]:
    rows = db.execute(
        "SELECT state, count(*), max(finished_at) FROM tasks WHERE job_id = ? GROUP BY state", (job_id,)
    ).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


def job(row: sqlite3.Row, counts: Mapping[str, Any], documents: tuple[JobDocument, ...] = ()) -> Job:
    numbers = {state.value: counts.get(state, (0, None))[0] for state in TaskState}
    status = job_status(numbers, cancelled=bool(row["cancelled"]))
    ended = status not in (TaskState.QUEUED, TaskState.IN_PROGRESS)
    finished = max((at for _, at in counts.values() if at), default=row["created_at"]) if ended else None
    shown = {"total": sum(numbers.values()), **numbers}
    shown["in_progress"] += shown.pop("queued")
    return Job(row["id"], row["collection"], status, row["created_at"], finished, shown, documents, webhooks.shown(row))


def job_status(counts: Mapping[str, int], *, cancelled: bool) -> TaskState:
    """Of the counts by state: a job has ended when every document has, and it failed only if every document did."""
    if counts["in_progress"] or (counts["queued"] and counts["queued"] < sum(counts.values())):
        return TaskState.IN_PROGRESS
    if counts["queued"]:
        return TaskState.QUEUED
    if counts["cancelled"] and (cancelled or not counts["completed"]):
        return TaskState.CANCELLED
    return TaskState.FAILED if counts["failed"] and not counts["completed"] else TaskState.COMPLETED


def job_document(row: sqlite3.Row) -> JobDocument:
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


def dead_letter(row: sqlite3.Row) -> DeadLetter:
    return DeadLetter(
        row["id"],
        row["job_id"],
        row["collection"],
        row["document_id"],
        row["name"],
        Stage(row["stage"]) if row["stage"] else None,
        row["error_code"],
        row["error_message"],
        row["attempts"],
        row["finished_at"],
    )
