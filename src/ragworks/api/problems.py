"""One table: error class -> HTTP status, title and remedy; every error body is made here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as RoutingException
from starlette.responses import Response
from starlette.routing import Match

from ragworks import errors
from ragworks.api.validation import explain
from ragworks.control.metrics import Metrics
from ragworks.errors import RagworksError

OPENAI_PATHS = ("/v1/embeddings", "/v1/chat/completions", "/v1/models")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
WIRE = (str, int, float, list, dict)
PROBLEM_JSON = "application/problem+json"


class Row(NamedTuple):
    status: int
    title: str
    remedy: str


SETTING = "Mend the configuration that the message names."
START = "Read the message on the server's terminal; the server does not start until it is mended."
FILE = "Mend or replace the file; the other documents of the job go on."

TABLE: dict[type[RagworksError], Row] = {
    errors.RagworksError: Row(500, "Internal error", "Quote the request id when you report it."),
    errors.InvalidInput: Row(422, "Invalid input", "Mend what the message names and send it again."),
    errors.InvalidSettings: Row(422, "Invalid settings", SETTING),
    errors.UnusableFilter: Row(422, "Invalid filter", "Use the comparison and compound forms of the filter reference."),
    errors.NotFound: Row(404, "Not found", "Check the name in the address."),
    errors.CollectionNotFound: Row(
        404, "No such collection", "Create it with POST /v1/collections, or list those there are."
    ),
    errors.DocumentNotFound: Row(404, "No such document", "List the collection's documents."),
    errors.ServiceNotFound: Row(404, "No such service", "List the services with GET /v1/services."),
    errors.JobNotFound: Row(404, "No such job", "List the jobs with GET /v1/jobs."),
    errors.QuestionNotFound: Row(404, "No such question", "Send the id that the answer carried; query_log keeps it."),
    errors.DeadLetterNotFound: Row(404, "No such dead letter", "List them with GET /v1/dead-letters."),
    errors.Conflict: Row(409, "Conflict", "Read the current state, then decide."),
    errors.CollectionExists: Row(409, "Collection exists", "Use it, or choose another name."),
    errors.ModelMismatch: Row(409, "Another embedding model", "Set the model back, or ingest into a new collection."),
    errors.IdempotencyKeyReused: Row(422, "Idempotency key reused", "Use a new key for another body."),
    errors.IdempotencyKeyInUse: Row(409, "Idempotency key in use", "Wait for the first request, then repeat."),
    errors.Refused: Row(503, "Refused", "Try again after Retry-After seconds."),
    errors.QueueFull: Row(429, "Queue full", "Try again after Retry-After seconds; nothing was accepted."),
    errors.TooManyQuestions: Row(
        429, "Too many questions", "Try again after Retry-After seconds, or raise orchestration_api.max_questions."
    ),
    errors.SubmissionTooLarge: Row(413, "Submission too large", "Send fewer or smaller documents in one submission."),
    errors.ReplicaLost: Row(
        503, "Replica lost", "Try again after Retry-After seconds; `ragworks why` says what ended it."
    ),
    errors.ReplicaGone: Row(
        503, "Replica gone", "Try again after Retry-After seconds; `ragworks why` says what ended it."
    ),
    errors.NotReady: Row(
        503, "Not ready", "Try again after Retry-After seconds; GET /readyz?verbose says what is missing."
    ),
    errors.EndpointUnavailable: Row(
        503,
        "Endpoint unavailable",
        "Read the reason: is the endpoint up, its address and key right? It is asked again.",
    ),
    errors.GenerationFailed: Row(
        502, "Question refused by the model", "Read the reason: fewer passages or a smaller max_tokens may help."
    ),
    errors.StorageFull: Row(
        507, "Storage full or read-only", "Free space on the data folder's disk; nothing was changed."
    ),
    errors.CannotStart: Row(503, "Cannot start", START),
    errors.DataFolderLocked: Row(
        503, "Data folder locked", "Stop the process that holds it, or choose another --data."
    ),
    errors.DataFolderDamaged: Row(503, "Data folder damaged", "Restore a copy of the data folder, or ingest anew."),
    errors.DataFolderNewer: Row(503, "Data folder of a newer version", "Upgrade ragworks, or choose another --data."),
    errors.PortInUse: Row(503, "Port in use", "Stop who has it, or choose another --port (0 takes a free one)."),
    errors.ModelMissing: Row(503, "Model missing", "Install the package, or mend the folder, that the message names."),
    errors.DocumentError: Row(422, "Document failed", FILE),
    errors.SourceUnreadable: Row(
        422, "Source unreadable", "Make the file readable for the server and submit it again."
    ),
    errors.UnsupportedFormat: Row(422, "Unsupported format", "Convert the file to a format of the list of formats."),
    errors.EmptyDocument: Row(422, "Empty document", "Send a file that holds text."),
    errors.EncryptedDocument: Row(422, "Encrypted document", "Remove the password, then send the file again."),
    errors.CorruptDocument: Row(422, "Corrupt document", FILE),
    errors.NoTextLayer: Row(422, "No text layer", "Install ragworks[ocr] on the server, or recognise the text first."),
    errors.DocumentTooLarge: Row(
        413, "Document too large", "Split it, or raise document_processor.max_document_bytes."
    ),
    errors.ReadTimeout: Row(422, "Reading took too long", "Split it, or raise document_processor.read_timeout_s."),
    errors.ReadMemoryExceeded: Row(
        422, "Reading took too much memory", "Split it, or raise document_processor.read_memory_bytes."
    ),
    errors.VersionIncomplete: Row(
        503, "Version incomplete", "It is retried; after the last attempt use POST /v1/jobs/{id}/retry."
    ),
    errors.Stalled: Row(503, "No progress", "It is retried; after the last attempt use POST /v1/jobs/{id}/retry."),
    errors.WorkerCrashed: Row(
        503, "Worker crashed", "It is retried; after the last attempt use POST /v1/jobs/{id}/retry."
    ),
    errors.EmbeddingFailed: Row(422, "Embedding failed", "Read the reason; a transient one is retried."),
    errors.ClientError: Row(502, "Call to a server failed", "Only clients raise this; no server of ours sends it."),
    errors.ServerProblem: Row(502, "The server refused", "Read the server's code and detail."),
    errors.ServerUnreachable: Row(502, "Nobody answers", "Check that the server runs, and its address."),
    errors.LeaseLost: Row(409, "Lease lost", "The task went to another attempt; read the job."),
}

# What the router and the body reader refuse before any service is asked.
HTTP_CODES = {
    400: "malformed_request",
    403: "forbidden",
    404: "route_not_found",
    405: "method_not_allowed",
    415: "unsupported_media_type",
}


class Problem(NamedTuple):
    """An error as it goes over the wire: ``body`` is RFC 9457 problem+json."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def status(self) -> int:
        return int(self.body["status"])

    def openai(self) -> dict[str, Any]:
        """The same error as OpenAI's clients expect it."""
        kind = {429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        first = self.body.get("errors") or [{}]
        error = {
            "message": self.body["detail"],
            "type": kind,
            "param": first[0].get("field"),
            "code": self.body["code"],
        }
        return {"error": error}


def row_for(error: RagworksError) -> Row:
    """The row of the nearest class; a document error that may pass on a retry is 503."""
    row = next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    return row._replace(status=503) if error.transient and row.status == 422 else row


def describe(error: BaseException, request_id: str = "") -> Problem:
    """Any exception as a problem; what is not ours is ``internal_error`` and tells nothing of the inside."""
    if isinstance(error, RagworksError):
        return _ours(error, request_id)
    if isinstance(error, RequestValidationError):
        detail, rows = explain(error.errors())
        return _problem(422, "Invalid input", detail, "invalid_input", request_id, fields={"errors": rows})
    if isinstance(error, RoutingException):
        return _routing(error, request_id)
    detail = f"the server failed at this request; its log says why under request id {request_id or 'unknown'}"
    return _problem(500, "Internal error", detail, "internal_error", request_id)


def respond(error: BaseException, path: str, request_id: str = "") -> Response:
    """The response to ``error``: OpenAI's error object on OpenAI's routes, problem+json on all others."""
    problem = describe(error, request_id)
    if path in OPENAI_PATHS or path.startswith("/v1/models/"):
        return JSONResponse(problem.openai(), problem.status, problem.headers)
    return JSONResponse(problem.body, problem.status, problem.headers, media_type=PROBLEM_JSON)


def install(api: FastAPI, metrics: Metrics) -> None:
    """Answer every error of a route with ``respond``, and count it."""

    async def handler(request: Request, error: Exception) -> Response:
        request_id = request.scope.get("request_id", "")
        if isinstance(error, RoutingException) and error.status_code == 405:
            error = RoutingException(405, headers={"Allow": ", ".join(_answered(request))})
        metrics.error(describe(error).body["code"])
        return respond(error, request.url.path, request_id)

    for kind in (RagworksError, RequestValidationError, RoutingException):
        api.add_exception_handler(kind, handler)


def _answered(request: Request) -> list[str]:
    """The methods of all routes at this address; the router itself tells only those of the first one."""
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


def _ours(error: RagworksError, request_id: str) -> Problem:
    row = row_for(error)
    fields: dict[str, Any] = {
        key: value for key, value in vars(error).items() if isinstance(value, WIRE) and key != "transient"
    }
    problem = _problem(row.status, row.title, str(error), error.code, request_id, fields=fields)
    if row.status in (429, 503):
        seconds = fields.get("retry_after_s", 1.0)
        problem.headers["Retry-After"] = str(max(1, math.ceil(seconds) if math.isfinite(seconds) else 60))
    return problem


def _routing(error: RoutingException, request_id: str) -> Problem:
    status = HTTPStatus(error.status_code)
    detail = error.detail
    if detail == status.phrase and status == 404:
        detail = "there is no such route; GET /docs lists all routes"
    elif detail == status.phrase and status == 405:
        detail = f"this route does not answer that method; it answers {(error.headers or {}).get('Allow', 'others')}"
    code = HTTP_CODES.get(status, status.name.lower())
    return _problem(status, status.phrase, detail, code, request_id, headers=error.headers)


def _problem(
    status: int,
    title: str,
    detail: str,
    code: str,
    request_id: str,
    *,
    headers: Mapping[str, str] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Problem:
    own = {"type": "about:blank", "title": title, "status": int(status), "detail": detail, "code": code}
    body = own | {key: value for key, value in (fields or {}).items() if key not in own}
    if request_id:
        body["request_id"] = request_id
    return Problem(body, dict(headers or {}))


def bad_request(detail: str) -> HTTPException:
    """A body or header that cannot be read at all: 400."""
    return HTTPException(400, detail)


def every_error(kind: type[RagworksError] = RagworksError) -> Iterator[type[RagworksError]]:
    """``kind`` and all classes below it that ragworks itself defines, parents first."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from every_error(child)


def reference() -> str:
    """The page ``docs/reference/errors.md``."""
    lines = [
        "# Errors",
        "",
        "Errors are `application/problem+json`: `type`, `title`, `status`, `detail`, `code`, `request_id`, and fields",
        "of their own; `errors` lists `field`, `expected`, `found` where a body is wrong. `code` is stable. The OpenAI",
        "routes answer OpenAI's error object with the same `code`. 429 and 503 carry `Retry-After` in whole seconds. A",
        "document of a job carries the same codes in its `error`. Retry: the same call may succeed later.",
        "",
        "| Code | Class | Status | Retry | What to do |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in every_error():
        row = TABLE[kind]
        code = f"`{kind.code}`" if "code" in vars(kind) else "the server's"
        retry = "yes" if kind.transient else "no"
        lines.append(f"| {code} | {kind.__name__} | {row.status} | {retry} | {row.remedy} |")
    lines += ["", "Refused before a service is asked:", "", "| Code | Status |", "| --- | --- |"]
    lines += [f"| `{code}` | {status} |" for status, code in HTTP_CODES.items()]
    return "\n".join([*lines, ""])
