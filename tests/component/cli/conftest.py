"""A server that speaks the wire forms, without any service behind it, and a client that is connected to it."""

from __future__ import annotations

import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ragworks.client import Client
from ragworks.local_transport import LocalTransport

STAGES = ("parsing", "embedding", "storing")


class FakeServer:
    """Finishes every document at once; one whose name holds ``bad`` fails. Faults are set by attributes."""

    def __init__(self) -> None:
        self.collections = {"default"}
        self.jobs: dict[str, dict] = {}
        self.received: list[list[str]] = []
        self.metadata: list[dict] = []
        self.fields: list[dict] = []
        self.keys: list[str] = []
        self.bodies: list[bytes] = []
        self.scaled = []
        self.refusals: list[Response | None] = []
        self.largest_submission = 1000
        self.broken_streams = 0
        self.ready = True
        self.events: list[dict] = []
        self.replicas: list[dict] = []
        self.scaling: dict | None = None
        self.calls: dict[str, float] | None = None
        self.problems: list[str] = []
        self.asked: list[dict] = []
        self.answer_error: dict | None = None
        self.application = Starlette(
            routes=[
                Route("/v1/collections", self._create, methods=["POST"]),
                Route("/v1/collections", self._list),
                Route("/v1/collections/{name}/documents", self._submit, methods=["POST"]),
                Route("/v1/collections/{name}/search", self._search, methods=["POST"]),
                Route("/v1/collections/{name}/ask", self._ask, methods=["POST"]),
                Route("/v1/jobs", self._jobs),
                Route("/v1/jobs/{id}", self._job),
                Route("/v1/jobs/{id}/events", self._events),
                Route("/v1/jobs/{id}/{verb}", self._job, methods=["POST"]),
                Route("/v1/dead-letters", self._dead),
                Route("/v1/dead-letters/retry", self._retry_dead, methods=["POST"]),
                Route("/v1/services", self._services),
                Route("/v1/services/{name}/scale", self._scale, methods=["POST"]),
                Route("/v1/events", self._listed_events),
                Route("/v1/doctor", self._doctor),
                Route("/v1/cache", self._cache, methods=["GET", "DELETE"]),
                Route("/readyz", self._readyz),
                Route("/notjson", lambda request: Response("hello")),
            ]
        )

    def refuse(self, status: int, code: str, retry_after: int | None = None) -> None:
        """Answer the next submission or search with a problem."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.refusals.append(problem(status, code, f"refused with {code}", headers))

    def welcome(self) -> None:
        """Let one submission pass before the next refusal."""
        self.refusals.append(None)

    async def _create(self, request):
        name = (await request.json())["name"]
        if name in self.collections:
            return problem(409, "collection_exists", f"collection {name!r} exists already")
        self.collections.add(name)
        return JSONResponse({"name": name}, 201)

    async def _list(self, request):
        names = sorted(self.collections)
        after = request.query_params.get("after")
        rest = [name for name in names if after is None or name > after]
        page = [{"name": name, "fingerprint": ""} for name in rest[:1]]
        return JSONResponse({"data": page, "has_more": len(rest) > 1, "last_id": rest[0] if rest else None})

    async def _submit(self, request):
        self.keys.append(request.headers["Idempotency-Key"])
        self.bodies.append(await request.body())
        if self.refusals and (refusal := self.refusals.pop(0)):
            return refusal
        if request.headers["Content-Type"].startswith("application/json"):
            names = [one["id"] for one in (await request.json())["documents"]]
        else:
            async with request.form() as form:
                names = [file.filename for file in form.getlist("files")]
                self.metadata.append(json.loads(form.get("metadata", "{}")))
                self.fields.append({name: form[name] for name in form if name not in ("files", "metadata")})
        if len(names) > self.largest_submission:
            return problem(413, "submission_too_large", "could never fit")
        self.received.append(names)
        return JSONResponse(self._accepted(request.path_params["name"], names), 202)

    def _accepted(self, collection, names):
        job_id = f"job-{len(self.jobs) + 1}"
        documents = [document(name, "failed" if "bad" in name else "completed") for name in names]
        status = "failed" if all(one["status"] == "failed" for one in documents) else "completed"
        self.jobs[job_id] = {"id": job_id, "collection": collection, "status": status, "created_at": 0.0}
        self.jobs[job_id] |= {"finished_at": 1.0, "file_counts": counts(documents), "documents": documents}
        return {
            "processing_job_id": job_id,
            "documents_queued": len(names),
            "processing_task_ids": [f"{job_id}-{number}" for number in range(len(names))],
            "estimated_completion_time": 1.0,
            "estimated_completion_interval": {"low": 0.5, "high": 2.0, "level": 0.8},
            "current_queue_size": len(names),
        }

    async def _jobs(self, request):
        listed = [{key: value for key, value in job.items() if key != "documents"} for job in self.jobs.values()]
        return JSONResponse({"data": listed, "has_more": False, "last_id": None})

    async def _job(self, request):
        job = self.jobs.get(request.path_params["id"])
        return JSONResponse(job) if job else problem(404, "job_not_found", "there is no such job")

    async def _dead(self, request):
        dead = [
            {**{key: one[key] for key in ("id", "name", "stage", "error")}, "job_id": job["id"], "attempts": 1}
            | {"collection": job["collection"], "task_id": "t", "failed_at": 1.0}
            for job in self.jobs.values()
            for one in job["documents"]
            if one["status"] == "failed"
        ]
        return JSONResponse({"data": dead, "has_more": False, "last_id": None})

    async def _retry_dead(self, request):
        return JSONResponse({"queued": 1, "left": 2})

    async def _events(self, request):
        job = self.jobs[request.path_params["id"]]

        async def stream():
            for stage in STAGES:
                yield event("job", job | {"status": "in_progress", "documents": running(job, stage)})
            if self.broken_streams:
                self.broken_streams -= 1
                return
            yield ": a comment keeps the connection open\n\n"
            yield event("job", job)

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def _search(self, request):
        if self.refusals:
            return self.refusals.pop(0)
        self.asked.append(await request.json())
        hit = {"document_id": "a.md", "chunk_id": "1", "score": 0.5, "text": "some [1] text", "title": "A", "page": 3}
        return JSONResponse({"results": [hit] if self.asked[-1]["query"] != "nothing" else [], "timings": {}})

    async def _ask(self, request):
        body = await request.json()
        self.asked.append(body)
        cited = {"marker": 1, "document_id": "a.md", "chunk_id": "1", "title": "A", "page": 3, "quote": "Two years."}
        answer = {"answer": "Two years. [1]", "abstained": False, "citations": [cited], "model": "fake", "usage": {}}
        if not body.get("stream"):
            return JSONResponse(answer)

        async def stream():
            yield event("delta", {"text": "Two "})
            if self.answer_error:
                yield event("error", self.answer_error)
                return
            yield event("delta", {"text": "years. [1]"})
            yield event("answer", answer)

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def _services(self, request):
        replica = {"id": "1", "pid": 1, "status": "ready", "version": "", "active_connections": None}
        one = {
            "name": "document_processor",
            "status": "started",
            "error": None,
            "health": {"status": "healthy", "response_time_ms": 250.0},
        }
        one |= {"replicas": [replica | {"avg_response_time": None}, *self.replicas], "stats": {"queue_size": 7}}
        one["stats"] |= {"oldest_waiting_s": 90.0}
        other = {"name": "embeddings_service", "status": "failed", "error": "no model", "health": None}
        other |= {"replicas": [], "stats": {}, "calls": self.calls, "scaling": self.scaling}
        return JSONResponse({"data": [one, other]})

    async def _scale(self, request):
        self.scaled.append(await request.json())
        name, many = request.path_params["name"], self.scaled[-1].get("instances", 1)
        replica = {"pid": 1, "status": "healthy", "version": "1", "note": ""}
        return JSONResponse({"name": name, "replicas": [{"id": f"{name}-{n}", **replica} for n in range(many)]})

    async def _listed_events(self, request):
        if self.refusals:
            return self.refusals.pop(0)
        self.asked.append(dict(request.query_params))
        found = self.events[::-1][: int(request.query_params["limit"])]
        return JSONResponse({"data": found, "has_more": False, "last_id": None})

    async def _cache(self, request):
        if request.method == "DELETE":
            return JSONResponse({"cleared": 3})
        counts = {"memory_hits": 5, "stored_hits": 4, "misses": 1, "hit_rate": 0.9}
        return JSONResponse({"model": "m:1", "entries": 3, "max_entries": 10, "bytes": 2048, **counts})

    async def _doctor(self, request):
        found = {"documents": 1, "chunks": 2, "vectors": 2, "words": 2, "blobs": 1}
        return JSONResponse({"healthy": not self.problems, **found, "problems": self.problems})

    async def _readyz(self, request):
        services = {} if self.ready else {"embeddings_service": "loading"}
        return JSONResponse({"ready": self.ready, "services": services}, 200 if self.ready else 503)


def problem(status, code, detail, headers=None):
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def document(name, status):
    error = {"code": "corrupt_document", "message": "it is broken"} if status == "failed" else None
    stage = "parsing" if error else None
    return {"id": name, "name": name, "status": status, "stage": stage, "error": error, "unchanged": "same" in name}


def running(job, stage):
    return [one | {"status": "in_progress", "stage": stage, "error": None} for one in job["documents"]]


def counts(documents):
    found = {state: sum(one["status"] == state for one in documents) for state in ("completed", "failed", "cancelled")}
    return {"total": len(documents), "in_progress": 0, **found}


def event(name, data):
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


class Pauses:
    """Stands in for sleeping: remembers how long each wait would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def server():
    return FakeServer()


@pytest.fixture
def pauses():
    return Pauses()


@pytest.fixture
async def client(server, pauses):
    transport = LocalTransport(server.application)
    async with httpx.AsyncClient(base_url="http://fake", transport=transport) as http:
        yield Client(http, "http://fake", sleep=pauses)
