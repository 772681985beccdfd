"""Routes of jobs: what became of each submitted document."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from ragworks import types
from ragworks.api import schemas
from ragworks.api.context import After, Limit, app_of, needs, problems, request_id_of, stopping_of
from ragworks.api.streaming import EventStream, event, primed, with_errors

router = APIRouter(tags=["jobs"], dependencies=[needs("document_processor")])

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`event: job` with the job, now and whenever it changed, until its final state",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("/v1/jobs", responses=problems(422))
async def list_jobs(request: Request, limit: Limit = 20, after: After = None) -> schemas.ListOf[schemas.JobSummary]:
    """List jobs, newest first, without their documents."""
    return schemas.page(schemas.JobSummary.model_validate, await app_of(request).document_processor.jobs(limit, after))


@router.get("/v1/jobs/{job_id}", responses=problems(404))
async def get_job(request: Request, job_id: str) -> schemas.Job:
    """One job with its documents."""
    return schemas.job(await app_of(request).document_processor.job(job_id))


@router.get("/v1/jobs/{job_id}/events", response_class=Response, responses={**problems(404), **EVENTS})
async def follow_job(request: Request, job_id: str) -> EventStream:
    """Follow a job as server-sent events."""
    app = app_of(request)
    jobs = _job_events(await primed(app.document_processor.events(job_id)))
    events = with_errors(jobs, lambda problem: event("error", problem.body), request_id_of(request), app.metrics)
    return EventStream(events, stopping_of(request))


@router.post("/v1/jobs/{job_id}/cancel", responses=problems(404, 409))
async def cancel_job(request: Request, job_id: str) -> schemas.Job:
    """Cancel what has not ended yet."""
    return schemas.job(await app_of(request).document_processor.cancel(job_id))


@router.post("/v1/jobs/{job_id}/retry", responses=problems(404, 409, 429))
async def retry_job(request: Request, job_id: str) -> schemas.Job:
    """Queue the job's failed documents again."""
    return schemas.job(await app_of(request).document_processor.retry(job_id))


@router.get("/v1/dead-letters", responses=problems(422))
async def list_dead_letters(
    request: Request, limit: Limit = 20, after: After = None
) -> schemas.ListOf[schemas.DeadLetter]:
    """List the documents whose last attempt failed, over all jobs, latest submission first."""
    return schemas.page(schemas.dead_letter, await app_of(request).document_processor.dead_letters(limit, after))


@router.post("/v1/dead-letters/retry", responses=problems(429))
async def retry_dead_letters(request: Request) -> schemas.Requeued:
    """Queue every dead letter again, oldest first, as many as there is room for."""
    return schemas.Requeued.model_validate(await app_of(request).document_processor.retry_dead())


@router.post("/v1/dead-letters/{task_id}/retry", responses=problems(404, 429))
async def retry_dead_letter(request: Request, task_id: str) -> schemas.Requeued:
    """Queue one dead letter again."""
    return schemas.Requeued.model_validate(await app_of(request).document_processor.retry_dead(task_id))


async def _job_events(jobs: AsyncGenerator[types.Job, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(jobs):
        async for job in jobs:
            yield event("job", schemas.job(job).model_dump(mode="json"))
