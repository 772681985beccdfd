"""Request and response bodies, and the one place where values become wire forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ragworks import types
from ragworks.control_protocols import Event as Decided
from ragworks.control_protocols import Rating

V = TypeVar("V")
W = TypeVar("W")

MAX_ID_CHARACTERS = 512
MAX_ORIGIN_CHARACTERS = 4096  # the longest path of Linux
# A question longer than a book page is a mistake, and its tokens would hold up everybody else's.
MAX_QUERY_CHARACTERS = 32_768
MAX_TOP_K = 1000
MAX_COMMENT_CHARACTERS = 4000

# What no address can hold: clients resolve the parts . and .. away, and line breaks end the matching of routes.
_UNADDRESSABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]|(?:^|/)\\.{1,2}(?:/|$)")


def _addressable(document_id: str) -> str:
    if _UNADDRESSABLE.search(document_id):
        raise PydanticCustomError("document_id", "an id without control characters and without the parts '.' and '..'")
    return document_id


DocumentId = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS), AfterValidator(_addressable)]
Origin = Annotated[str, Field(min_length=1, max_length=MAX_ORIGIN_CHARACTERS)]
Query = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS)]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K)]


class Request(BaseModel):
    """Unknown fields are refused: a misspelt ``topk`` must not silently mean the default."""

    model_config = ConfigDict(extra="forbid", strict=True)


class CollectionRequest(Request):
    name: str = Field(min_length=1, max_length=MAX_ID_CHARACTERS)


class DocumentRequest(Request):
    id: DocumentId
    text: str
    title: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class DocumentsRequest(Request):
    documents: list[DocumentRequest] = Field(min_length=1)
    origin: Origin | None = None
    priority: types.Priority = "normal"
    webhook_url: str | None = None


class TurnRequest(Request):
    role: Literal["user", "assistant"]
    content: str = Field(max_length=MAX_QUERY_CHARACTERS)


class SearchRequest(Request):
    query: Query
    top_k: TopK = 10
    filter: dict[str, Any] | None = None
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    rerank: bool = False
    history: list[TurnRequest] = Field(default_factory=list, max_length=1000)
    group_by: Literal["document"] | None = None


class AskRequest(Request):
    question: Query
    history: list[TurnRequest] = Field(default_factory=list, max_length=1000)
    top_k: TopK | None = None
    stream: bool = False


class FeedbackRequest(Request):
    id: str = Field(min_length=1, max_length=MAX_ID_CHARACTERS)
    rating: Rating
    comment: str | None = Field(default=None, max_length=MAX_COMMENT_CHARACTERS)


class Wire(BaseModel):
    """A response; ``model_validate`` reads it off a value with the same attributes."""

    model_config = ConfigDict(from_attributes=True)


class ListOf(BaseModel, Generic[W]):
    """Part of a list; ``last_id`` is the ``after`` of the next call."""

    data: list[W]
    has_more: bool
    last_id: str | None


class Collection(Wire):
    name: str
    fingerprint: str
    dimension: int
    created_at: float


class Document(Wire):
    id: str
    collection: str
    name: str
    title: str
    status: str = "completed"
    version: int
    chunk_count: int
    pages: int | None
    size_bytes: int
    media_type: str
    content_hash: str
    origin: str | None
    metadata: dict[str, Any]
    properties: dict[str, Any]
    warnings: list[str]
    created_at: float
    updated_at: float


class DocumentText(Wire):
    text: str


class Interval(Wire):
    """Seconds from now between which a job ends with probability ``level``, as the jobs before it did."""

    low: float
    high: float
    level: float


class Submission(Wire):
    processing_job_id: str
    documents_queued: int
    processing_task_ids: list[str]
    estimated_completion_time: float
    estimated_completion_interval: Interval
    current_queue_size: int


class ErrorNote(Wire):
    code: str
    message: str


class JobDocument(Wire):
    id: str
    task_id: str
    name: str
    status: str
    stage: str | None
    error: ErrorNote | None
    unchanged: bool
    warnings: list[str]
    attempts: int


class Webhook(Wire):
    """``status`` is pending, delivered or failed; ``error`` is why the last attempt failed."""

    url: str
    status: str
    attempts: int
    delivered_at: float | None
    error: str | None


class JobSummary(Wire):
    id: str
    collection: str
    status: str
    created_at: float
    finished_at: float | None
    file_counts: dict[str, int]
    webhook: Webhook | None = None


class Job(JobSummary):
    """``estimated_completion_time`` is seconds from now for what is still open; null once the job has ended."""

    estimated_completion_time: float | None = None
    estimated_completion_interval: Interval | None = None
    documents: list[JobDocument]


class DeadLetter(Wire):
    task_id: str
    job_id: str
    collection: str
    id: str
    name: str
    stage: str | None
    error: ErrorNote
    attempts: int
    failed_at: float


class Requeued(Wire):
    queued: int
    left: int


class LegScores(Wire):
    dense: float | None
    lexical: float | None


class Hit(Wire):
    document_id: str
    chunk_id: str
    score: float
    text: str
    title: str
    page: int | None
    start: int
    end: int
    headings: list[str]
    metadata: dict[str, Any]
    scores: LegScores


class SearchResponse(Wire):
    results: list[Hit]
    timings: dict[str, float]
    degraded: str | None = None
    id: str


class Citation(Wire):
    marker: int
    document_id: str
    chunk_id: str
    title: str
    page: int | None
    start: int
    end: int
    quote: str


class AskResponse(Wire):
    answer: str
    abstained: bool
    citations: list[Citation]
    model: str
    usage: dict[str, int]
    timings: dict[str, float]
    id: str


class Feedback(Wire):
    id: str
    rating: str
    comment_kept: bool


class Replica(Wire):
    id: str
    pid: int | None
    status: str
    life: types.Life | None
    version: str
    implementation: str
    active_connections: int | None
    avg_response_time: float | None
    p50_response_time: float | None
    p95_response_time: float | None
    queue_size: int | None
    queue_age_s: float | None
    error_rate: float | None
    cpu_usage: float | None
    memory_usage: float | None
    note: str


class ServiceHealth(Wire):
    service_name: str
    status: str
    response_time_ms: float
    error_count: int
    last_check: float
    details: dict[str, Any]


class LoadForecast(Wire):
    """Calls at once in ``in_s`` seconds: a share of ``level`` should lie from ``low`` to ``high``, and ``covered`` did.

    ``error`` is how far off such forecasts were on average, ``naive_error`` how far off the last value was. Null: none
    has been judged yet.
    """

    in_s: float
    expected: float
    low: float
    high: float
    level: float
    covered: float | None
    error: float | None
    naive_error: float | None


class Scaling(Wire):
    """``mode`` is auto or pinned; the rest is what was decided last, if anything."""

    mode: str
    action: str | None = None
    target_instances: int | None = None
    reason: str | None = None
    forecast: LoadForecast | None = None


class Service(Wire):
    """``calls``: how many wait for its replicas, what one takes as learnt, and counts; null where it has none."""

    name: str
    status: str
    error: str | None
    waiting_for: list[str]
    health: ServiceHealth | None
    replicas: list[Replica]
    stats: dict[str, Any]
    scaling: Scaling | None
    calls: dict[str, float] | None


class Services(Wire):
    data: list[Service]


class Event(Wire):
    """``at`` is seconds since the epoch; ``count`` is for how many like it this one stands."""

    id: str
    at: float
    service: str
    replica: str | None
    action: str
    reason: str
    count: int
    policy: str
    inputs: dict[str, Any]
    decision: dict[str, Any]


class Health(Wire):
    status: str
    services: list[ServiceHealth]


class Live(Wire):
    status: Literal["alive"] = "alive"


class Ready(Wire):
    ready: bool
    services: dict[str, str] | None = None


class Checkup(Wire):
    healthy: bool
    documents: int
    chunks: int
    vectors: int
    words: int
    blobs: int
    problems: list[str]


class Cache(Wire):
    model: str
    entries: int
    max_entries: int
    bytes: int
    memory_hits: int
    stored_hits: int
    misses: int
    hit_rate: float
    evictions: int


class CacheCleared(Wire):
    cleared: int


class FieldError(Wire):
    field: str
    expected: str
    found: str


class Problem(Wire):
    """RFC 9457 problem+json; ``code`` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    errors: list[FieldError] | None = None


class ScaleRequest(Request):
    """One of the two: a number, which holds until another or auto, or auto, which scales by load again."""

    instances: Annotated[int | None, Field(ge=1, description="replicas that the service should have")] = None
    mode: Annotated[Literal["auto"] | None, Field(description="auto: as many as the load needs")] = None


REQUESTS: tuple[type[Request], ...] = (
    CollectionRequest,
    DocumentsRequest,
    SearchRequest,
    AskRequest,
    FeedbackRequest,
    ScaleRequest,
)


def page(wire: Callable[[V], W], found: types.Page[V]) -> ListOf[W]:
    return ListOf(data=[wire(value) for value in found.data], has_more=found.has_more, last_id=found.last_id)


def event(value: Decided) -> Event:
    return Event(**{**{name: getattr(value, name) for name in Event.model_fields}, "id": str(value.id)})


def hit(value: types.Hit) -> Hit:
    return Hit(scores=LegScores.model_validate(value), **_shared(Hit, value))


def search_response(found: types.SearchResult) -> SearchResponse:
    return SearchResponse(
        results=[hit(one) for one in found.hits],
        timings=dict(found.timings),
        degraded=found.degraded,
        id=found.id,
    )


def job_document(value: types.JobDocument) -> JobDocument:
    failed = value.error_code is not None
    error = ErrorNote(code=value.error_code or "", message=value.error_message or "") if failed else None
    return JobDocument(error=error, **_shared(JobDocument, value))


def job(value: types.Job) -> Job:
    return Job(documents=[job_document(one) for one in value.documents], **_shared(Job, value))


def job_event(value: types.Job) -> dict[str, Any]:
    """What a webhook says of a job that has ended: its type, and the job as a GET answers it."""
    return {"type": f"job.{value.status}", **job(value).model_dump(mode="json")}


def dead_letter(value: types.DeadLetter) -> DeadLetter:
    error = ErrorNote(code=value.error_code, message=value.error_message)
    return DeadLetter(error=error, **_shared(DeadLetter, value))


def _shared(model: type[BaseModel], value: Any) -> dict[str, Any]:
    """The fields that ``value`` has under the same name and form as ``model``."""
    own = {"scores", "error", "documents"}
    return {name: _plain(getattr(value, name)) for name in model.model_fields if name not in own}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
