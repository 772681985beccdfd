"""``GET /v1/insights``: what the questions of the last days come to, and what to do about it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from ragworks.api.context import MAX_PAGE, app_of, problems
from ragworks.app import App, cores
from ragworks.errors import InvalidInput, NotReady
from ragworks.policies.advising import Advice, HealthScore, Seen, Surroundings, advise, health
from ragworks.policies.digesting import DAY_S, MOST_DOCUMENTS, MOST_TOLD, Digest, Question, Use, digest
from ragworks.types import Page

router = APIRouter(tags=["operation"])

DEFAULT_SINCE_S = 7 * DAY_S
MOST_LOOKED_AT = 20_000  # documents, and dead letters: more would hold up whoever asks
MOST_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class Told:
    """A question by itself. ``question`` and ``comment`` are null unless ``query_log.mode`` is full."""

    id: str
    at: float
    collection: str
    kind: str
    outcome: str
    best_score: float | None
    support: float | None
    question: str | None
    rating: str | None
    comment: str | None


@dataclass(frozen=True, slots=True)
class Step:
    step: str
    count: int
    p50_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Cached:
    """Of the questions whose vector was looked up; ``hit_rate`` is null when there were none."""

    hits: int
    lookups: int
    hit_rate: float | None


@dataclass(frozen=True, slots=True)
class Period:
    start: float
    questions: int


@dataclass(frozen=True, slots=True)
class Documents:
    """``never_used`` are null where the documents could not be listed; ``never_used_count`` counts them all."""

    most_used: list[Use]
    never_used_count: int | None
    never_used: list[Use] | None
    failed: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class Insights:
    """Times are seconds since the epoch. What there is no data for is null, or undecided, never zero."""

    since: float
    until: float
    query_log: str
    questions: int
    kinds: Mapping[str, int]
    outcomes: Mapping[str, int]
    collections: Mapping[str, int]
    period_s: float
    periods: list[Period]
    latency: list[Step]
    cache: Cached
    errors: Mapping[str, int]
    tokens: int | None
    documents: Documents
    feedback: Mapping[str, int]
    comments: list[Told]
    unanswered: list[Told]
    health: HealthScore
    recommendations: list[Advice]
    undecided: list[Advice]
    fine: list[Advice]


@router.get("/v1/insights", responses=problems(422))
async def insights(
    request: Request,
    since: Annotated[
        float | None, Query(ge=0, allow_inf_nan=False, description="seconds since the epoch; by default 7 days ago")
    ] = None,
) -> Insights:
    """Volumes, latency, cache, errors, documents and feedback of the logged questions, a health score with its parts,
    and recommendations that name the setting to change and the evidence."""
    now = time.time()
    at = now - DEFAULT_SINCE_S if since is None else since
    if at > now:
        raise InvalidInput(f"since: expected a time before now ({now:.0f}), found {at:.0f}")
    app = app_of(request)
    questions = await app.questions.since(at)
    documents = await _documents(app)
    around = await _around(app, at, documents)
    # Tens of thousands of questions take a while to count: other requests go on meanwhile.
    return await asyncio.to_thread(_made, app, questions, around, documents, at, now)


def _made(
    app: App,
    questions: Sequence[Question],
    around: Surroundings,
    documents: Sequence[tuple[str, str]] | None,
    since: float,
    now: float,
) -> Insights:
    numbers = digest(questions, since, now)
    seen = Seen(questions, numbers, around)
    advice = advise(seen)
    by = {verdict: [one for one in advice if one.verdict == verdict] for verdict in ("change", "undecided", "fine")}
    return Insights(
        since=since,
        until=now,
        query_log=app.settings.query_log.mode,
        **{name: getattr(numbers, name) for name in ("questions", "kinds", "outcomes", "collections", "period_s")},
        periods=[Period(*one) for one in numbers.periods],
        latency=[Step(**asdict(one)) for one in numbers.latency],
        cache=_cached(numbers),
        errors=numbers.errors,
        tokens=numbers.tokens,
        documents=_used(numbers, documents, around.failed),
        feedback=numbers.ratings,
        comments=[_told(one) for one in numbers.commented],
        unanswered=[_told(one) for one in numbers.unanswered],
        health=health(seen),
        recommendations=by["change"],
        undecided=by["undecided"],
        fine=by["fine"],
    )


def _cached(numbers: Digest) -> Cached:
    hits, lookups = numbers.cache_hits, numbers.cache_lookups
    return Cached(hits, lookups, hits / lookups if lookups else None)


def _used(numbers: Digest, documents: Sequence[tuple[str, str]] | None, failed: Mapping[str, int] | None) -> Documents:
    used = {(use.collection, use.document_id) for use in numbers.used}
    never = None if documents is None else [Use(*key, 0, 0) for key in documents if key not in used]
    return Documents(
        list(numbers.used[:MOST_DOCUMENTS]), None if never is None else len(never),
        None if never is None else never[:MOST_TOLD], failed,
    )  # fmt: skip


def _told(one: Question) -> Told:
    return Told(
        one.key, one.at, one.collection, one.kind, one.outcome, one.best_score, one.support, one.text, one.rating,
        one.comment,
    )  # fmt: skip


async def _around(app: App, since: float, documents: Sequence[tuple[str, str]] | None) -> Surroundings:
    settings = app.settings
    events = await app.journal.recent(service="document_processor", since=since, limit=MOST_EVENTS)
    refusals = sum(
        event.count
        for event in events
        if event.policy == "admission.decide" and not event.decision.get("admitted") and event.decision.get("possible")
    )
    try:
        evictions: int | None = app.embeddings_service.cache_report().evictions
    except NotReady:
        evictions = None
    return Surroundings(
        support_threshold=settings.generation_service.support_threshold,
        rerank_budget_s=settings.retrieval_service.rerank_budget_s,
        cache_max_size=settings.embeddings_service.cache_config.max_size,
        max_queue_size=settings.document_processor.max_queue_size,
        workers=_size(app, "document_processor") or settings.document_processor.workers or 1,
        replicas=_size(app, "embeddings_service") or settings.embeddings_service.replicas.instances,
        replicas_fixed=_fixed(app),
        cores=cores(),
        documents=None if documents is None else len(documents),
        evictions=evictions,
        refusals=refusals,
        failed=await _failed(app),
    )


def _size(app: App, service: str) -> int:
    """Replicas that a service has now; 0 where it does not run."""
    entry = app.orchestrator.registry.get(service)
    return entry.replicas.size if entry and entry.replicas else 0


def _fixed(app: App) -> str:
    """Why nobody sets how many replicas of the embedding model there are, if so."""
    entry = app.orchestrator.registry.get("embeddings_service")
    if entry is None:
        return ""
    return entry.fixed_because or ("they are scaled by the load" if entry.scaler and not entry.scaler.pinned else "")


async def _documents(app: App) -> list[tuple[str, str]] | None:
    """(collection, id) of all documents; None where they cannot be listed, or are too many."""
    store, found = app.vector_store, list[tuple[str, str]]()
    collections = await _all(store.collections)
    for collection in collections or ():
        name = collection.name
        documents = await _all(lambda limit, after, name=name: store.documents(name, limit, after))  # type: ignore[misc]
        if documents is None or len(found) + len(documents) > MOST_LOOKED_AT:
            return None
        found += [(name, document.id) for document in documents]
    return None if collections is None else found


async def _failed(app: App) -> dict[str, int] | None:
    dead = await _all(app.document_processor.dead_letters)
    return None if dead is None else dict(Counter(letter.error_code for letter in dead).most_common())


async def _all(listed: Callable[[int, str | None], Awaitable[Page[Any]]]) -> list[Any] | None:
    """All pages of a list; None if there are too many."""
    found: list[Any] = []
    after: str | None = None
    while len(found) <= MOST_LOOKED_AT:
        page = await listed(MAX_PAGE, after)
        found += page.data
        if not page.has_more:
            return found
        after = page.last_id
    return None
